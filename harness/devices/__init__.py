"""Accelerators by their data sheets, for plans of runs on machines that are not here (torch-free)."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import UsageError, suggest

HERE = "here"


class Accelerator(BaseModel):
    """One device as its maker describes it; see `devices.toml` for the units.

    Attributes:
        title: full name.
        bf16_tflops: dense peak in bfloat16, TFLOP/s.
        float32_tflops: peak in float32, TFLOP/s.
        memory_gb: memory, 10^9 bytes.
        bandwidth_gb_s: memory bandwidth, 10^9 bytes a second.
        source: where the figures are printed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    bf16_tflops: float = Field(gt=0)
    float32_tflops: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    bandwidth_gb_s: float = Field(gt=0)
    source: str

    def peak_flops(self, precision: str) -> float:
        """Return the peak in operations a second for matrix products in "bfloat16" or "float32"."""
        return 1e12 * (self.bf16_tflops if precision == "bfloat16" else self.float32_tflops)

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return round(1e9 * self.memory_gb)


@cache
def known_accelerators() -> dict[str, Accelerator]:
    """Return every device of the table, by the name that --device takes."""
    table = tomllib.loads(resources.files(__name__).joinpath("devices.toml").read_text())
    return {name: Accelerator.model_validate(fields) for name, fields in table.items()}


def find_accelerator(name: str) -> Accelerator:
    """Look a device up.

    Raises:
        UsageError: it is not in the table.
    """
    known = known_accelerators()
    if name not in known:
        raise UsageError(f"--device {name}: not in the table of devices. {suggest(name, [HERE, *known])}")
    return known[name]
