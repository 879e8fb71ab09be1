"""What `harness conflict` says: cosines between the pulls of the depths at what they share, a row a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from harness.requantise import StoredNetwork
from harness.tables import Table, View
from harness.training.conflict import conflicts, measure_pulls


def conflict_view(
    folder: Path, num_tokens: int, *, data_dir: Path | None, device: str, say: Callable[[str], None]
) -> View:
    """Measure the pulls at the shared matrices of a record's stored network on the first tokens of its training.

    Args:
        folder: a complete record.
        num_tokens: training tokens, rounded up to whole micro-batches.
        data_dir: folder of local corpora.
        device: auto, cpu or cuda.
        say: told what is being done.

    Raises:
        UsageError: the record is not complete, or its text is not the one it was trained on.
        RecordError: there is no record.
    """
    stored = StoredNetwork(folder, data_dir=data_dir, device=device, say=say)
    batches = stored.training_batches(num_tokens)
    found = conflicts(measure_pulls(stored.loaded.network.train(), batches))
    rows = [
        (each.name, str(each.num_uses), *(_fmt(value) for value in (each.mean_cosine, each.least_cosine)), share)
        for each in found
        for share in [_fmt(100 * each.opposed_share, 0)]
    ]
    table = Table(
        title=f"{folder}: gradients of the uses of each shared matrix, {num_tokens:,} training tokens",
        columns=("matrix", "uses", "mean cosine", "least", "pairs below 0 (%)"),
        rows=rows,
        right=frozenset(range(1, 5)),
    )
    data = [{key: None if value != value else value for key, value in asdict(each).items()} for each in found]
    return View(tables=[table], data={"folder": str(folder), "num_tokens": num_tokens, "matrices": data})


def _fmt(value: float, digits: int = 3) -> str:
    return "-" if value != value else f"{value:.{digits}f}"
