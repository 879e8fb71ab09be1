"""Configuration of the backbone: what every method with a transformer of its own can set (torch-free)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.errors import UsageError

LinearRole = Literal["query", "key", "value", "output", "gate", "up", "down", "head"]


class BackboneConfig(BaseModel):
    """Shape and parts of the transformer; vocabulary and context come from the data.

    The defaults are the parts of the 16 MB challenge's models: pre-norm blocks, RMSNorm without weights,
    rotary positions, normalised queries and keys, a gain for each query head, ReLU^2, a tied and soft-capped
    head.

    Attributes:
        width: features of the residual stream.
        num_layers: depth, counted in block applications.
        num_heads: query heads; their width is width / num_heads.
        num_kv_heads: key and value heads, each serving num_heads / num_kv_heads query heads.
        mlp_width: inner features of the MLP.
        schedule: stored block that runs at each depth; empty for a block of its own at every depth.
        norm: weightless RMSNorm, RMSNorm with a gain, or LayerNorm with gain and bias.
        positions: rotary, fixed sinusoidal, learned, or none.
        rope_base: base of the rotary frequencies.
        rope_width: leading features of each head that are rotated; 0 for all.
        qk_norm: normalise queries and keys of each head.
        query_gain: initial gain of each query head after the rotation; 0 for no gain.
        activation: non-linearity of the MLP.
        embedding_rank: inner features of a factorised embedding; 0 for a plain table.
        embedding_std: standard deviation of the initial embedding table.
        embedding_norm: normalise the embedded tokens.
        tied: the head is the embedding table (and its projection) transposed.
        softcap: bound c of the logits, c * tanh(z / c); 0 for none.
        sublayer_scales: learned per-feature scale on the output of attention and MLP.
        residual_mix: blocks start from a learned per-feature mix of the stream and the embedded tokens.
        skips: U-Net skips from the first half of the depths to the second.
        biases: roles of the linear maps that have a bias.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(gt=0)
    num_layers: int = Field(gt=0, le=4096)
    num_heads: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    mlp_width: int = Field(gt=0)
    schedule: tuple[int, ...] = ()
    norm: Literal["rms", "rms_gain", "layer"] = "rms"
    positions: Literal["rope", "sinusoidal", "learned", "none"] = "rope"
    rope_base: float = Field(default=10_000.0, gt=0)
    rope_width: int = Field(default=0, ge=0)
    qk_norm: bool = True
    query_gain: float = Field(default=1.5, ge=0)
    activation: Literal["relu2", "relu", "swiglu"] = "relu2"
    embedding_rank: int = Field(default=0, ge=0)
    embedding_std: float = Field(default=0.005, ge=0)
    embedding_norm: bool = True
    tied: bool = True
    softcap: float = Field(default=30.0, ge=0)
    sublayer_scales: bool = True
    residual_mix: bool = True
    skips: bool = False
    biases: tuple[LinearRole, ...] = ()

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.num_heads

    @property
    def block_schedule(self) -> tuple[int, ...]:
        """Stored block of each depth, in order."""
        return self.schedule or tuple(range(self.num_layers))

    @property
    def num_blocks(self) -> int:
        """Blocks that are stored."""
        return max(self.block_schedule) + 1

    @property
    def num_skips(self) -> int:
        """Skips from the first half of the depths to the second."""
        return self.num_layers // 2 if self.skips else 0

    @property
    def linear_shapes(self) -> dict[LinearRole, tuple[int, int]]:
        """In and out features of each linear map of one block."""
        d, kv, inner = self.width, self.num_kv_heads * self.head_width, self.mlp_width
        shapes: dict[LinearRole, tuple[int, int]] = {
            "query": (d, d),
            "key": (d, kv),
            "value": (d, kv),
            "output": (d, d),
            "up": (d, inner),
            "down": (inner, d),
        }
        return shapes | {"gate": (d, inner)} if self.activation == "swiglu" else shapes

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        _require_divisor("num_heads", self.num_heads, "width", self.width)
        _require_divisor("num_kv_heads", self.num_kv_heads, "num_heads", self.num_heads)
        rotated = self.rope_width or self.head_width
        if self.positions == "rope" and (rotated % 2 or rotated > self.head_width):
            raise UsageError(
                f"rope_width: {rotated} of {self.head_width} head features cannot be rotated in pairs. "
                f"Set an even rope_width of at most width / num_heads."
            )
        if self.schedule and (
            len(self.schedule) != self.num_layers
            or max(self.schedule) >= self.num_layers
            or set(self.schedule) != set(range(max(self.schedule) + 1))
        ):
            raise UsageError(
                f"schedule: {list(self.schedule)} must name a block for each of {self.num_layers} layers and "
                f"each block from 0 to its largest. Set num_layers to {len(self.schedule)} or mend the list."
            )
        return self


def _require_divisor(key: str, value: int, whole_key: str, whole: int) -> None:
    if whole % value:
        divisors = ", ".join(str(d) for d in range(1, whole + 1) if whole % d == 0)
        raise UsageError(f"{key}: {whole_key} {whole} is not a multiple of {value}. Set {key} to one of {divisors}.")
