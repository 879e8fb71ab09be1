"""How a network is trained: batches, optimisers, schedules, averaging, precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.training.schedule import Curve, PositionText, are_in_order, parse_position

if TYPE_CHECKING:
    from harness.data.batches import Batches
    from harness.data.streams import TokenStream

_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Beta = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """The training settings of a run: section `train` of a preset, `--set train.KEY=VALUE` of the command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: int = Field(256, ge=1, description="input tokens of one training window")
    batch_tokens: int = Field(
        2048, ge=1, description="training tokens of one optimiser step, over all micro-batches and ranks"
    )
    micro_batch_tokens: int = Field(
        2048,
        ge=1,
        description="training tokens of one forward and backward pass; sets peak memory, and stays the same "
        "whatever the number of ranks",
    )
    order: Literal["stream", "shuffled", "random"] = Field(
        "shuffled",
        description="order of the training windows: one contiguous stream, a new permutation each epoch, or "
        "random offsets",
    )

    matrix_optimiser: Literal["muon", "adamw"] = Field("muon", description="optimiser of the matrices")
    matrix_lr: _Rate = Field(0.02, description="peak learning rate of the matrices, before a group's factor")
    embedding_lr: _Rate = Field(0.02, description="peak learning rate of embedding tables (AdamW)")
    scalar_lr: _Rate = Field(0.02, description="peak learning rate of vectors, gains and scales (AdamW)")
    matrix_weight_decay: _Decay = Field(
        0.0, description="decoupled decay: matrices shrink by the factor 1 - rate * decay each step"
    )
    embedding_weight_decay: _Decay = Field(0.0, description="the same for embedding tables")
    scalar_weight_decay: _Decay = Field(0.0, description="the same for vectors, gains and scales")
    adam_beta1: _Beta = Field(0.9, description="AdamW: decay of the mean of gradients, a step")
    adam_beta2: _Beta = Field(0.95, description="AdamW: decay of the mean of squared gradients, a step")
    adam_eps: _Rate = Field(1e-8, description="AdamW: added to the root of the mean of squared gradients")
    muon_dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="number format of Muon's Newton-Schulz iteration"
    )
    muon_nesterov: bool = Field(True, description="Muon: look one momentum step ahead")
    grad_clip: _Decay = Field(
        0.0, description="largest Euclidean norm of the gradient over all parameters; 0 clips nothing"
    )

    lr_curve: Curve = Field(
        Curve((("0", 1.0), ("100%", 0.0))),
        description='factor of every learning rate over the run, a list of [position, value]: "500" counts '
        'steps from the start, "-60" steps before the end, "80%" is a share of the run',
    )
    momentum_curve: Curve = Field(
        Curve((("0", 0.85), ("500", 0.95))), description="Muon's momentum over the run, points as in lr_curve"
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        description="steps taken and undone before the first, outside the budget, to prime compilers",
    )

    ema_decay: _Beta = Field(
        0.0, description="decay a step of the exponential average of the weights that is exported; 0 is off"
    )
    swa_start: PositionText = Field(
        "", description='position, as in lr_curve, from which the exported weights are averaged; "" is off'
    )

    qat_start: PositionText = Field(
        "",
        description="position, as in lr_curve, from which each step sees the weights as the file will hold them "
        '(late quantisation-aware training); "" is off',
    )
    replay_start: PositionText = Field(
        "", description='position from which the last batches before it are seen again, in order; "" is off'
    )
    replay_batches: int = Field(100, ge=1, description="steps before replay_start whose batches are seen again")
    replay_lr: _Decay = Field(0.1, description="factor of every learning rate while batches are replayed")
    distill_start: PositionText = Field(
        "",
        description="position from which the exponential average of that moment teaches the network (needs "
        'ema_decay); "" is off',
    )
    distill_lr: _Decay = Field(0.05, description="factor of every learning rate during the distillation")
    distill_temperature: _Rate = Field(2.0, description="what the logits of teacher and student are divided by")
    distill_weight: float = Field(
        0.7, ge=0, le=1, description="share of the loss that is the divergence from the teacher; the rest is the usual"
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description="number format of matrix products in the network, parameters stay float32; "
        "auto: bfloat16 where the device has it, and the record says which it was",
    )
    compile: bool = Field(False, description="compile the network with torch.compile")

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.micro_batch_tokens % self.context:
            raise ValueError(
                f"micro_batch_tokens={self.micro_batch_tokens} is not a multiple of context={self.context}; "
                f"{_nearest_multiples(self.micro_batch_tokens, self.context)} would be"
            )
        if self.batch_tokens % self.micro_batch_tokens:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is not a multiple of "
                f"micro_batch_tokens={self.micro_batch_tokens}; "
                f"{_nearest_multiples(self.batch_tokens, self.micro_batch_tokens)} would be"
            )
        if self.ema_decay and self.swa_start:
            raise ValueError("ema_decay and swa_start are both set, but one average is exported; set one")
        self._check_phases()
        if any(value < 0 for _, value in self.lr_curve.root):
            raise ValueError(f"lr_curve has a value below 0: {self.lr_curve.describe()}")
        if any(not 0 <= value < 1 for _, value in self.momentum_curve.root):
            raise ValueError(f"momentum_curve has a value outside [0, 1): {self.momentum_curve.describe()}")
        return self

    def _check_phases(self) -> None:
        for name in ("swa_start", "qat_start", "replay_start", "distill_start"):
            if text := getattr(self, name):
                try:
                    parse_position(text)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        if self.distill_start and not self.ema_decay:
            raise ValueError(
                f"distill_start={self.distill_start} needs a teacher, the exponential average; set ema_decay above 0"
            )
        both = self.replay_start and self.distill_start
        if both and not are_in_order(self.replay_start, self.distill_start):
            raise ValueError(
                f"replay_start={self.replay_start} is not before distill_start={self.distill_start}, which ends the "
                "replay's rates; set it to an earlier position"
            )

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches of one optimiser step, over all ranks."""
        return self.batch_tokens // self.micro_batch_tokens

    @property
    def micro_batch_sequences(self) -> int:
        """Windows of one micro-batch."""
        return self.micro_batch_tokens // self.context

    def batches(self, stream: TokenStream, seed: int) -> Batches:
        """Return the batches of a run over the training split."""
        from harness.data.batches import Batches

        return Batches(
            stream,
            context=self.context,
            micro_batch_sequences=self.micro_batch_sequences,
            num_micro=self.num_micro_batches,
            order=self.order,
            seed=seed,
        )


def _nearest_multiples(number: int, unit: int) -> str:
    below = number // unit * unit
    return " or ".join(str(multiple) for multiple in (below, below + unit) if multiple)
