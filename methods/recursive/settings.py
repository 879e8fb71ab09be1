"""Settings of recursive sharing: which blocks there are, how often they run, and the parts around them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from harness.artifact.schemes import parse_scheme
from harness.backbone import BackboneSettings
from harness.errors import UsageError

MAX_DEPTH = 4096
# Steps between two that fire every loop; the harness counts operations over that many before it trains.
MAX_CADENCE = 16


class RecursiveSettings(BackboneSettings):
    """The backbone's settings, and how blocks are shared; the defaults are those of Frugendorff Squared.

    `num_layers` and `schedule` follow from `flat_blocks`, `blocks` and `loops` and need not be given.
    """

    blocks: int = Field(6, ge=1, description="shared blocks, run in order in every loop")
    loops: int = Field(2, ge=1, description="times that the shared blocks run")
    flat_blocks: int = Field(0, ge=0, description="blocks that run once, before the shared ones")
    firing: Literal["sequential", "parallel"] = Field(
        "sequential", description="a loop starts from the output of the one before, or all from the same stream"
    )
    gate: bool = Field(False, description="deliberation gate: merge the loops' outputs and a trained reference")
    gate_scheme: str = Field("", description="quantisation scheme of the gate's matrix; that of matrices where empty")
    cadence: int = Field(
        1,
        ge=0,
        le=MAX_CADENCE,
        description="every loop fires in one of so many training steps, else the first; 0: never",
    )
    loop_vectors: Literal["gaussian", "qr", "none"] = Field(
        "gaussian", description="added to the stream before each loop; initially normal, or orthogonal rows by QR"
    )
    loop_vector_scale: float = Field(0.01, ge=0, description="deviation of gaussian, length of qr loop vectors")
    depth_scale: bool = Field(True, description="inputs of attention and MLP times 1/sqrt(block + 1)")
    hash_grams: Literal[0, 2, 3] = Field(2, description="tokens of a hashed n-gram that is embedded; 0 for none")
    hash_buckets: int = Field(2048, ge=2, description="rows of the n-gram table; the last is for the first position")
    hash_width: int = Field(128, ge=1, description="features of an n-gram embedding")
    smear: bool = Field(True, description="mix each embedded token with the one before, by a learned share")
    value_blocks: tuple[NonNegativeInt, ...] = Field(
        (2, 3),
        description="stored blocks whose values get a shared token embedding; those that do not exist are skipped",
    )
    value_width: int = Field(128, ge=1, description="features of the shared value embedding")
    exclude_own_last: int = Field(
        2, ge=0, description="last stored blocks whose attention output loses its component along the own value (XSA)"
    )
    rope_trained_length: int = Field(
        1024, ge=0, description="inputs longer than this raise the base of the rotary frequencies; 0 for none"
    )

    @field_validator("gate_scheme")
    @classmethod
    def _check_scheme(cls, name: str) -> str:
        return parse_scheme(name).name if name else ""

    @property
    def num_skips(self) -> int:
        """Stored skip weights: of the flat blocks where there are any, else of the shared ones, used in each loop."""
        return (self.flat_blocks or self.blocks) // 2 if self.skips else 0

    @property
    def adds_value(self) -> tuple[bool, ...]:
        """For each stored block, whether the value embedding is added in it."""
        return tuple(block in self.value_blocks for block in range(self.num_blocks))

    @property
    def excludes_own(self) -> tuple[bool, ...]:
        """For each stored block, whether its attention leaves out the own value."""
        return tuple(block >= self.num_blocks - self.exclude_own_last for block in range(self.num_blocks))

    @property
    def uses_cadence(self) -> bool:
        """Whether some training steps fire every loop, and others the first only."""
        return self.cadence > 1 and self.loops > 1

    def repeats(self, block: int) -> int:
        """Return how often a stored block runs."""
        return 1 if block < self.flat_blocks else self.loops

    @model_validator(mode="before")
    @classmethod
    def _derive_depth(cls, values: Any) -> Any:
        counts = {key: cls.model_fields[key].default for key in ("flat_blocks", "blocks", "loops")}
        counts |= {key: values[key] for key in counts if key in values}
        flat, blocks, loops = counts.values()
        if not all(isinstance(count, int) for count in counts.values()) or blocks < 1 or loops < 1 or flat < 0:
            return {"num_layers": 1, **values}  # the fields' own checks say more
        depth = flat + blocks * loops
        if values.get("num_layers", depth) != depth:
            raise UsageError(
                f"num_layers: {values['num_layers']}, but flat_blocks + blocks * loops is {flat} + {blocks} * {loops} "
                f"= {depth}. Leave num_layers out and set these."
            )
        schedule = (*range(flat), *[*range(flat, flat + blocks)] * loops) if depth <= MAX_DEPTH else ()
        return {**values, "num_layers": depth, "schedule": schedule}

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.firing == "parallel" and not self.gate:
            raise UsageError("firing: parallel loops need something to merge them. Set gate=true.")
        if self.loop_vectors == "qr" and self.loops > self.width:
            raise UsageError(
                f"loop_vectors: no {self.loops} orthogonal vectors of width {self.width}. "
                f"Set loop_vectors=gaussian or loops to at most {self.width}."
            )
        if self.rope_trained_length and self.positions == "rope" and (self.rope_width or self.head_width) < 4:
            raise UsageError("rope_trained_length: the rule needs 4 rotated features. Set rope_trained_length=0.")
        return self
