"""Fair tuning: every contender gets the same number of trials at the same points of a space of the same size.

A point is a factor on each of the three learning rates of a preset (matrices, embeddings, scalars), within a quarter
to four times the preset's own. The points are one Sobol sequence, the same for everyone; the first trial is the preset
as it is. Trials are judged on the tune split alone, and all of them are kept. Tuning is over once a cell of the
comparison has begun: a trial that is missing then stays so, since it could change what the cells were chosen by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.grid import Cell, Contender, Grid
from harness.records.native import read_record
from harness.registry import find_method
from harness.settings import resolve_settings

RATES = ("matrix_lr", "embedding_lr", "scalar_lr")
MAX_FACTOR = 4.0
TUNING_FOLDER = "tuning"
# Of the trials: none of the comparison's own seeds, so that no cell repeats the run it was chosen by.
TRIAL_SEED = 1_000_003


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """The trials of one contender, and the best of them.

    Attributes:
        num_trials: that were tried.
        scores: bits per byte of the tune split of the complete ones, by number of the trial.
    """

    num_trials: int
    scores: Mapping[int, float]

    @property
    def best(self) -> int | None:
        """Number of the best trial; None where none is complete."""
        return min(self.scores, key=lambda trial: (self.scores[trial], trial), default=None)


def factors(num_trials: int) -> list[tuple[float, ...]]:
    """Return the factors of each trial, one a rate: ones first, then the Sobol sequence, log-uniform.

    Args:
        num_trials: at least one.
    """
    from scipy.stats import qmc

    drawn = qmc.Sobol(len(RATES), scramble=True, rng=0).random_base2((num_trials - 1).bit_length())
    points = [tuple(float(MAX_FACTOR ** (2 * x - 1)) for x in point) for point in drawn[: num_trials - 1]]
    return [(1.0,) * len(RATES), *points]


def rates_of(grid: Grid, contender: Contender) -> list[tuple[str, ...]]:
    """Return the `--set` values of every trial of a contender, on top of its own."""
    settings = resolve_settings(find_method(contender.method), contender.preset, grid.overrides_of(contender))
    own = [float(getattr(settings.train, name)) for name in RATES]
    return [
        tuple(f"train.{name}={rate * factor:.4g}" for name, rate, factor in zip(RATES, own, point, strict=True))
        for point in factors(grid.num_trials)
    ]


def trial_cells(grid: Grid, folder: Path) -> Iterator[Cell]:
    """Yield the trials, trial by trial, so that an unfinished tuning is even."""
    rates = {contender: rates_of(grid, contender) for contender in grid.contenders}
    for trial in range(grid.num_trials):
        for contender in grid.contenders:
            place = folder / TUNING_FOLDER / contender.folder_name / f"trial{trial}"
            yield Cell(contender=contender, seed=TRIAL_SEED, folder=place, overrides=rates[contender][trial])


def read_tuned(cells: Sequence[Cell]) -> dict[Contender, Tuned]:
    """Read what the trials of a grid scored on the tune split."""
    found: dict[Contender, Tuned] = {}
    for contender in dict.fromkeys(cell.contender for cell in cells):
        own = [cell for cell in cells if cell.contender == contender]
        scores: dict[int, float] = {}
        for trial, cell in enumerate(own):
            if cell.is_complete and (tune := read_record(cell.folder).metrics.tune) is not None:
                scores[trial] = tune.val_bpb
        found[contender] = Tuned(num_trials=len(own), scores=scores)
    return found


def tuned_cells(grid: Grid, folder: Path, trials: Sequence[Cell]) -> list[Cell]:
    """Return the cells of the comparison at the best rates; those of a contender without a trial are left out."""
    tuned = read_tuned(trials)
    rates = {
        contender: [cell for cell in trials if cell.contender == contender][best].overrides
        for contender, each in tuned.items()
        if (best := each.best) is not None
    }
    return [
        Cell(contender=cell.contender, seed=cell.seed, folder=cell.folder, overrides=rates[cell.contender])
        for cell in grid.cells(folder)
        if cell.contender in rates
    ]
