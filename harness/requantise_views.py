"""What `harness quantise` shows: files under other schemes, and the frontier with the baselines beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.files import write_atomic
from harness.scoring import EvalMode
from harness.tables import Table, View, fmt
from harness.verify.across import settings_key

if TYPE_CHECKING:
    from harness.frontier import BaselinePoint, Frontier
    from harness.requantise import FileScore, StoredNetwork

DEFAULT_SCHEME = "int6-row-search"
DEFAULT_MODES = ("none", "all")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantiseOptions:
    """The options of `harness quantise`, as the command line gives them.

    Attributes:
        schemes: of the matrices; none asks for the default, or for the sweep alone.
        modes: which GPTQ; none asks for the default.
        sweep: whether to find the frontier.
        sweep_points: lambdas of it.
        calibration_tokens: training tokens that moments are measured on.
        out: JSON file to write.
        data_dir: folder of local corpora.
        device: auto, cpu or cuda.
    """

    schemes: Sequence[str]
    modes: Sequence[str]
    sweep: bool
    sweep_points: int
    calibration_tokens: int
    out: Path | None
    data_dir: Path | None
    device: str


def quantise_view(folder: Path, options: QuantiseOptions, say: Callable[[str], None]) -> View:
    """Quantise the network of a record anew, score every file, and write the JSON file that was asked for.

    Raises:
        UsageError: a wrong option, or a record that is not complete.
        RecordError: no record, or its file was changed.
    """
    from harness.frontier import sweep
    from harness.requantise import StoredNetwork, check_choices, requantise

    schemes = tuple(dict.fromkeys(options.schemes)) or (() if options.sweep else (DEFAULT_SCHEME,))
    modes = tuple(dict.fromkeys(options.modes)) or DEFAULT_MODES
    check_choices(schemes, modes)
    if options.out is not None and not options.out.parent.is_dir():
        raise UsageError(f"--out {options.out}: there is no folder {options.out.parent}; make it first")
    if options.out is not None and options.out.is_dir():
        raise UsageError(f"--out {options.out} is a folder; give the name of a JSON file")
    network = StoredNetwork(folder, data_dir=options.data_dir, device=options.device, say=say)
    scores = requantise(network, schemes, modes, calibration_tokens=options.calibration_tokens)
    frontier = None
    if options.sweep:
        moments = network.calibrate(options.calibration_tokens, "all")
        frontier = sweep(network, moments, num_points=options.sweep_points)
    view = _view(network, scores, frontier, options)
    if options.out is not None:
        write_atomic(options.out, (json.dumps(view.data, indent=2, allow_nan=False) + "\n").encode())
    return view


def _view(
    network: StoredNetwork, scores: Sequence[FileScore], frontier: Frontier | None, options: QuantiseOptions
) -> View:
    notes = list(_notes(network))
    data = {
        "record": str(network.folder),
        "method": network.record.method.name,
        "preset": network.record.preset,
        "budget": network.record.budget.text,
        "seed": network.record.seed,
        "settings_key": hashlib.sha256(settings_key(network.record).encode()).hexdigest(),
        "artifact_sha256": network.loaded.artifact.sha256,
        "split": "tune",
        "split_sha256": network.record.data.splits.tune.sha256,
        "eval_mode": asdict(EvalMode.of_record(network.record)),
        "device": network.device,
        "calibration_tokens": options.calibration_tokens,
        "before": asdict(network.before),
        "files": [asdict(score) for score in scores],
        "frontier": asdict(frontier) if frontier is not None else None,
        "notes": notes,
    }
    return View(tables=list(_tables(network, scores, frontier, notes)), data=data)


def _tables(
    network: StoredNetwork, scores: Sequence[FileScore], frontier: Frontier | None, notes: Sequence[str]
) -> Iterator[Table]:
    mode = EvalMode.of_record(network.record)
    where = f"tune split, eval {mode.mode}, window {mode.context}, stride {mode.stride}"
    yield _files_table(f"{network.folder}, {where}", [network.before, *scores])
    if frontier is not None:
        yield _files_table(f"frontier, {where}", [point.stored for point in frontier.points])
        yield _baselines_table(frontier.baselines)
    if notes:
        yield Table(title="notes", columns=("note",), rows=[(note,) for note in notes])


def _files_table(title: str, scores: Sequence[FileScore]) -> Table:
    rows = [
        (score.scheme, score.quantiser, fmt(score.artifact_bytes), fmt(score.val_bpb), f"{score.change_bpb:+.4f}")
        for score in scores
    ]
    columns = ("matrices", "quantiser", "file bytes", "bits/byte", "change")
    return Table(title=title, columns=columns, rows=rows, right=frozenset({2, 3, 4}))


def _baselines_table(baselines: Sequence[BaselinePoint]) -> Table:
    rows = [
        (
            point.scheme,
            point.coder,
            fmt(point.artifact_bytes),
            fmt(point.val_bpb, 5),
            "-" if point.frontier_bytes is None else f"{point.frontier_bytes:,.0f}",
            "-" if point.frontier_bytes is None else f"{point.frontier_bytes / point.artifact_bytes - 1:+.1%}",
            "-" if point.frontier_bpb is None else f"{point.frontier_bpb - point.val_bpb:+.5f}",
        )
        for point in baselines
    ]
    columns = ("matrices", "coder", "file bytes", "bits/byte", "frontier bytes", "change", "bits/byte")
    title = "plain formats against the frontier: its bytes at their bits/byte, its bits/byte within their bytes"
    return Table(title=title, columns=columns, rows=rows, right=frozenset(range(2, 7)))


def _notes(network: StoredNetwork) -> Iterator[str]:
    if network.export.matrices not in ("fp32", "fp16"):
        yield (
            f"the record stores its matrices as {network.export.matrices}; they are quantised a second time here. "
            "Train with --set export.matrices=fp32 to compare schemes"
        )
    if network.without_moments:
        names = sorted(network.without_moments)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        yield (
            "no linear map of that name, so no moments: GPTQ rounds, the sweep assumes independent inputs of unit "
            f"variance: {', '.join(names[:5])}{more}"
        )
