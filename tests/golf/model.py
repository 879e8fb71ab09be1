"""Descriptions of training runs whose numbers agree with each other by construction."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, pstdev, stdev

CAP = 16_000_000


@dataclass(frozen=True)
class Tok:
    """A tokenizer's validation export: tokens, and nats a token for each bit a byte (plain and windowed scoring)."""

    name: str
    vocab: int
    val_tokens: int
    plain: float
    scored: float


SP1024 = Tok("sp1024", 1024, 62_021_632, 1.6884566, 1.6884536)
SP4096 = Tok("sp4096", 4096, 45_508_608, 2.3010274, 2.3010031)
SP8192 = Tok("sp8192", 8192, 40_540_160, 2.5831871, 2.5831039)
CASEOPS = Tok("sp8192_lossless_caps_caseops_v1_reserved", 8192, 47_851_520, 2.1885128, 2.1883707)
OWN8192 = Tok("own8192", 8192, 40_541_184, 2.5827, 2.5827)
BYTES = Tok("byte", 256, 151_080_960, 0.69314718, 0.69314718)
BYTE260 = Tok("byte260", 260, 151_130_880, 0.69292, 0.69292)

# what each stage scores above (or below) the claimed one
SLIDING = {"val": 0.0341, "ema": 0.0338, "roundtrip": 0.0344, "sliding": 0.0}
ROUNDTRIP = {"val": -0.0072, "ema": -0.0071, "roundtrip": 0.0}
PHASED = {"val": 0.0031, "ema": 0.0027, "roundtrip": 0.0131, "ttt": 0.0}
LEGAL = {"val": 0.0138, "ema": 0.0124, "roundtrip": 0.0241, "sliding": 0.0025, "ttt": 0.0}
EVAL_MS = {"ema": 2_010, "roundtrip": 7_776, "sliding": 76_195, "ttt": 405_410}


@dataclass(frozen=True)
class Run:
    """One training run: what it was, what it scored at each stage, what it weighs."""

    seed: int
    tok: Tok
    stages: Mapping[str, float]
    steps: int
    train_ms: int
    code: int
    model: int
    params: int
    final: str = "sliding"
    max_steps: int = 20_000
    packed: int | None = None
    wall: float = 600.0
    curve_every: int = 1_000
    eval_ms: Mapping[str, int] = field(default_factory=lambda: dict(EVAL_MS))

    def bpb(self, stage: str = "") -> float:
        return self.stages[stage or self.final]

    def loss(self, stage: str = "") -> float:
        stage = stage or self.final
        ratio = self.tok.scored if stage in ("sliding", "ttt") else self.tok.plain
        return round(self.bpb(stage) * ratio, 8)

    @property
    def total(self) -> int:
        return self.model + (self.packed if self.packed is not None else self.code)

    @property
    def raw_model(self) -> int:
        return self.params * 4 - 112_345

    @property
    def step_ms(self) -> float:
        return self.train_ms / self.steps

    @property
    def seconds(self) -> float:
        return round(self.train_ms / 1000, 2)

    def curve(self) -> list[tuple[int, int, float, float]]:
        """Validation while training: (step, milliseconds, loss, bpb), the last at the stop."""
        points = []
        for step in [*range(0, self.steps, self.curve_every), self.steps]:
            left = 1 - step / self.steps
            bpb = self.bpb("val") + 0.19 * left**1.5 + (2.4 * left**60)
            points.append((step, round(step * self.step_ms), bpb * self.tok.plain, bpb))
        return points

    def noise(self) -> random.Random:
        return random.Random(f"{self.seed}/{self.params}/{self.steps}")


def make_runs(
    seeds: Sequence[int],
    tok: Tok,
    bpb: float,
    *,
    gaps: Mapping[str, float] = SLIDING,
    steps: int = 6_900,
    train_ms: int = 600_012,
    code: int = 58_214,
    model: int = 15_562_300,
    params: int = 26_502_232,
    **more: object,
) -> list[Run]:
    """Runs that differ as seeds do: a little in every score, in steps, time and bytes."""
    runs = []
    for seed in seeds:
        rng = random.Random(f"{seed}/{bpb}")
        score = bpb + rng.uniform(-6e-4, 6e-4)
        stages = {name: round(score + gap + rng.uniform(-2e-5, 2e-5), 8) for name, gap in gaps.items()}
        run = Run(
            seed,
            tok,
            stages,
            steps + rng.randrange(-17, 18),
            train_ms + rng.randrange(0, 60),
            code,
            model + rng.randrange(-31_000, 31_000),
            params,
            final=list(gaps)[-1],
            eval_ms={name: ms + rng.randrange(0, 900) for name, ms in EVAL_MS.items()},
        )
        runs.append(replace(run, **more))  # type: ignore[arg-type]
    return runs


def spread(values: Sequence[float], kind: str = "sample") -> float:
    return stdev(values) if kind == "sample" else pstdev(values)


def avg(runs: Sequence[Run], what: str = "bpb", stage: str = "") -> float:
    return mean(getattr(run, what)(stage) for run in runs)


def sd(runs: Sequence[Run], what: str = "bpb", stage: str = "", kind: str = "sample") -> float:
    return spread([getattr(run, what)(stage) for run in runs], kind)
