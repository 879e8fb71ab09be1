"""The contract of a compression method: train, export, evaluate.

A plugin is a package with a `method.toml` (what it is, its presets) and a `method.py` whose `METHOD` is a subclass
of `Method`. The harness owns the clock, the stopping, the file, the scoring and the counting: a plugin trains a
network, says how its tensors are stored, and rebuilds the network from the decoded tensors. It never sees the test
split and never reports a number of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.artifact.schemes import parse_scheme

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness.artifact.container import PlannedTensor
    from harness.nn.network import Network

Role = Literal["matrix", "embedding", "scalar"]
Observed = TypeVar("Observed")


class Settings(BaseModel):
    """Base of a plugin's model settings: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def settle(self, setup: Setup) -> Self:
        """Return settings in which nothing is left that a decoder would lack, by default these ones.

        Called once, before a new run; what is returned is what the record and the artifact hold. Override it where a
        setting is worked out from the data or from another record, and write the result out.
        """
        return self


Gptq = Literal["none", "first", "all"]

# A file that is to fill `target_bytes` may stay this part below.
BYTES_TOLERANCE = 0.02


class ExportSettings(BaseModel):
    """How the tensors of a network are stored.

    Attributes:
        matrices: quantisation scheme of matrices (see `harness.artifact.quantize.known_schemes`).
        embeddings: scheme of embedding tables.
        scalars: scheme of vectors, gains and everything of at most `small_numel` numbers.
        small_numel: tensors of at most this many numbers count as scalars.
        target_bytes: size that the file is to fill, by steps of the matrices chosen at the end of the run for the
            least error at that size; 0 stores matrices under their scheme.
        gptq: how the symbols of matrices are chosen at the end of the run: none rounds; GPTQ with the inputs that
            training tokens give in all passes of a map, or in the first alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    matrices: str = "int8-row"
    embeddings: str = "int8-row"
    scalars: str = "fp16"
    small_numel: int = Field(default=1024, ge=0)
    target_bytes: int = Field(default=0, ge=0)
    gptq: Gptq = "none"

    @field_validator("matrices", "embeddings", "scalars")
    @classmethod
    def _check_scheme(cls, name: str) -> str:
        parse_scheme(name)
        return name

    @model_validator(mode="after")
    def _check_gptq(self) -> Self:
        if self.gptq != "none" and self.target_bytes:
            raise ValueError("gptq chooses symbols of export.matrices, but target_bytes chooses other steps; set one")
        if self.gptq != "none" and not parse_scheme(self.matrices).has_scale:
            raise ValueError(f"gptq has nothing to choose: scheme {self.matrices} of matrices has no scale")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """The sizes that come from the data and the recipe, not from the method.

    Attributes:
        vocab_size: number of token ids.
        context: number of input tokens of a training window.
        pass_tokens: tokens of one forward and backward pass of the training; None where none is to come.
    """

    vocab_size: int
    context: int
    pass_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordSizes:
    """How large the stored file of a record is, measured on the file.

    Attributes:
        num_params_stored: unique coded numbers, scales included.
        artifact_bytes: size of the file.
        overhead_bytes: bytes of it that hold no tensor: tokenizer, header, framing.
        bits_by_scheme: stored bits a number, scales included, of all tensors under each quantisation scheme.
    """

    num_params_stored: int
    artifact_bytes: int
    overhead_bytes: int
    bits_by_scheme: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What settings may be worked out from before a run.

    Attributes:
        task: sizes of the data.
        export: how tensors will be stored.
        sizes_of: measures the record in a folder; raises RecordError or ArtifactError where there is none.
        say: tells the user one thing worth knowing.
        architecture: of the pretrained model that the run starts from, see `harness.pretrained.architecture`; None
            where there is none.
    """

    task: Task
    export: ExportSettings
    sizes_of: Callable[[str], RecordSizes]
    say: Callable[[str], None]
    architecture: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamGroup:
    """Parameters that one optimiser treats alike.

    Attributes:
        role: "matrix" (Muon over the last two dimensions), "embedding" or "scalar" (AdamW).
        names: names of the parameters, as in `named_parameters()`.
        lr_factor: learning-rate factor, or one factor for each index of the leading dimension.
    """

    role: Role
    names: tuple[str, ...]
    lr_factor: float | tuple[float, ...] = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamCounts:
    """Parameters as the network runs them; the stored count is read from the artifact by the harness.

    Attributes:
        effective: dense-equivalent parameters of what runs (a generated matrix counts its full size, at every depth).
        active: parameters multiplied for each token (an embedding table counts one row, a tied head its table).
        parts: trainable parameters by component; the values add up to the trainable total.
    """

    effective: int
    active: int
    parts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The stored network of the record that a run starts from.

    Attributes:
        method: name of the method that made it.
        settings: its model settings as plain values.
        tensors: decoded (float32), by the names of that method's `export`.
    """

    method: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray[Any, Any]]


class TrainingRun(Protocol):
    """What the harness hands to `Method.train`: a seeded, clocked way to train, and nothing else."""

    @property
    def parent(self) -> Parent | None:
        """The network to start from, where the user gave a record; a method that trains without it is refused."""
        ...

    @property
    def pretrained(self) -> PreTrainedModel:
        """The model to compress, with `--model`; the run's own, to be changed in place."""
        ...

    def observe(self, watch: Callable[[Tensor], Observed], *, num_tokens: int) -> Observed:
        """Return what `watch` makes of the first tokens of training (B, T); its operations count in the budget.

        Args:
            watch: called once.
            num_tokens: tokens to run, rounded up to whole micro-batches.
        """
        ...

    def fit(
        self,
        network: Network,
        *,
        share: float = 1.0,
        flops_per_step: Callable[[int], float] | None = None,
        before_step: Callable[[float], None] | None = None,
    ) -> Network:
        """Train `network` for `share` of the budget under the run's recipe and return it (averaged if asked for).

        Args:
            network: of the kind that `Method.build` makes, or of another one.
            share: part of the whole budget; the shares of a run add up to at most 1.
            flops_per_step: as `Method.flops_per_step`, for a network of another kind than `build` makes.
            before_step: called before each step with the part of this fit that is over, in [0, 1). It may change the
                network; what it must remember from step to step belongs into parameters and buffers, since those
                are what a checkpoint holds and what is put back after warm-up steps.
        """
        ...

    def calibrate(self, network: Network, *, num_tokens: int) -> Mapping[str, Tensor]:
        """Measure the inputs of the linear maps of `network` on the first tokens of training, within the budget.

        Args:
            network: as it is after a `fit`; left as it is.
            num_tokens: tokens to run, rounded up to whole micro-batches.

        Returns:
            The second moments (I, I), float64, of each `harness.nn.layers.Linear`, by its name: x x^T summed over its
            calls, mean over tokens.
        """
        ...


class Method(ABC):
    """One compression method at one setting. Subclass it as `METHOD` in a plugin's `method.py`."""

    settings_class: ClassVar[type[Settings]]

    def __init__(self, settings: Any, task: Task) -> None:
        self.settings = settings
        self.task = task

    @abstractmethod
    def build(self) -> Network:
        """Make a fresh network; the harness has seeded torch and may be inside a `meta` device context."""

    @abstractmethod
    def param_groups(self, network: Network) -> Sequence[ParamGroup]:
        """Assign every trainable parameter to exactly one group (checked by the harness)."""

    @abstractmethod
    def count_params(self, network: Network) -> ParamCounts:
        """Count what runs; works on a network built on the `meta` device."""

    @abstractmethod
    def flops_per_step(self, num_tokens: int) -> float:
        """Floating-point operations of one optimiser step over `num_tokens` tokens: forward, backward, generation."""

    @property
    def cost_period(self) -> int:
        """Optimiser steps after which the work of a step repeats; `flops_per_step` is the mean over them."""
        return 1

    def train(self, run: TrainingRun) -> Network:
        """Train for the whole budget; override for stages (train dense, rotate, project)."""
        return run.fit(self.build() if run.parent is None else self.build_from(run.parent))

    def build_from(self, parent: Parent) -> Network:
        """Make a network that starts from a stored one; here: one of the same method and shape, to train it on.

        Raises:
            UsageError: the parent has other tensors.
        """
        from harness.errors import ArtifactError, UsageError

        try:
            return self.evaluate(parent.tensors)
        except ArtifactError as error:
            raise UsageError(f"--from a record of '{parent.method}': {error}") from error

    @abstractmethod
    def export(self, network: Network, export: ExportSettings) -> Sequence[PlannedTensor]:
        """Say for every stored tensor its values (float32) and scheme; tied tensors once."""

    def stored_shapes(self, network: Network, export: ExportSettings) -> Iterator[tuple[tuple[int, ...], str]]:
        """Yield shape and scheme of each tensor of the file; works on a network built on the `meta` device.

        By default each parameter is stored as it is, under the scheme of its role.
        """
        schemes = {"matrix": export.matrices, "embedding": export.embeddings, "scalar": export.scalars}
        for group in self.param_groups(network):
            for name in group.names:
                yield tuple(network.get_parameter(name).shape), schemes[group.role]

    def count_stored(self, network: Network, export: ExportSettings) -> int:
        """Count the numbers that the file will hold, scales included; works on a network built on the `meta` device.

        By default those of `stored_shapes`. Override it where `export` stores other numbers; the harness counts again
        in the file.
        """
        from harness.artifact.expected import num_stored

        return sum(num_stored(shape, scheme) for shape, scheme in self.stored_shapes(network, export))

    def load_stored(self, network: Network, tensors: Mapping[str, np.ndarray]) -> None:
        """Copy decoded tensors, by the names of `export`, into a network in place; by default into its parameters.

        Late quantisation-aware training (`qat_start`) calls it in every step, on the network that is trained. A method
        whose `export` splits, joins or renames parameters says here how they go back. Nothing but parameters may
        change: the others are not put back after the step.

        Raises:
            ArtifactError: a name is missing or too many, or a shape differs.
        """
        copy_tensors(dict(network.named_parameters()), tensors)

    @abstractmethod
    def evaluate(self, tensors: Mapping[str, np.ndarray]) -> Network:
        """Rebuild the network from the decoded tensors (float32, by the names of `export`), ready to run."""


def load_tensors(
    network: Network, tensors: Mapping[str, np.ndarray], places: Mapping[str, Tensor] | None = None
) -> Network:
    """Copy decoded tensors into a network; the usual body of `Method.evaluate`.

    Args:
        network: freshly built.
        tensors: decoded, by the names of `export`.
        places: where each goes; by default the parameters of the same names.

    Raises:
        ArtifactError: a name is missing or too many, or a shape differs.
    """
    copy_tensors(dict(network.named_parameters()) if places is None else places, tensors)
    return network.eval()


def copy_tensors(places: Mapping[str, Tensor], tensors: Mapping[str, np.ndarray]) -> None:
    """Copy decoded tensors to their places.

    Args:
        places: where each goes, by name; parameters or views of them.
        tensors: decoded, by the same names.

    Raises:
        ArtifactError: a name is missing or too many, or a shape differs.
    """
    import torch

    from harness.errors import ArtifactError

    if odd := sorted(places.keys() ^ tensors.keys()):
        raise ArtifactError(f"artifact and network disagree on the tensors {', '.join(odd[:5])}: other settings?")
    with torch.no_grad():
        for name, place in places.items():
            got, expected = tuple(tensors[name].shape), tuple(place.shape)
            if got != expected:
                raise ArtifactError(f"artifact tensor {name} has shape {got}, the network expects {expected}")
            place.copy_(torch.from_numpy(tensors[name]))
