"""Quantise the stored network of a record anew: rebuild, calibrate, export under other schemes, score each file.

Everything is read from the record's artifact; each score is made by a fresh process from the file that was written,
on the tune split, under the record's own eval mode. Only matrices change; all else is stored as the record stores it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.artifact.container import ArtifactSummary, PlannedTensor, write_artifact
from harness.artifact.schemes import parse_scheme
from harness.data.shards import TokenData, prepare
from harness.errors import RecordError, UsageError
from harness.loading import LoadedArtifact, load_artifact
from harness.method import ExportSettings, Gptq
from harness.rated import Moments, choose_by_gptq, matrix_names, moment_of, plan
from harness.records.native import ARTIFACT_FILE, read_record
from harness.records.safeio import hash_file
from harness.records.schema import Record
from harness.scoring import ScoreRequest, score_in_fresh_process
from harness.training.calibration import Passes, first_batches, input_moments
from harness.training.ranks import choose_device
from harness.training.recipe import Recipe

GPTQ_MODES: tuple[str, ...] = get_args(Gptq)
QUANTISERS: dict[Gptq, str] = {
    "none": "rounding",
    "first": "GPTQ, first passes",
    "all": "GPTQ, all passes",
}
Choose = Callable[[PlannedTensor], PlannedTensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileScore:
    """What one file takes and scores.

    Attributes:
        scheme: of the matrices.
        quantiser: how symbols were chosen, in words.
        artifact_bytes: size of the file.
        val_bpb: bits per byte of the tune split.
        change_bpb: `val_bpb` less that of the record's own file.
    """

    scheme: str
    quantiser: str
    artifact_bytes: int
    val_bpb: float
    change_bpb: float = 0.0


class StoredNetwork:
    """The network of a complete record, to be stored in other ways.

    Args:
        folder: the record.
        data_dir: folder of local corpora.
        device: auto, cpu or cuda.
        say: told what is being done.

    Raises:
        UsageError: the record is not complete, its text is not the one it was trained on, or there is no such device.
        RecordError: there is no record, or its file is not the one that it scored.
    """

    def __init__(self, folder: Path, *, data_dir: Path | None, device: str, say: Callable[[str], None]) -> None:
        self.folder, self.record, self.say = folder, _read_complete(folder), say
        self.device, self._data_dir = choose_device(device), data_dir
        self.loaded: LoadedArtifact = load_artifact(folder / ARTIFACT_FILE, self.device)
        self.export = ExportSettings.model_validate(self.record.settings.export)
        # Stored matrices that no Linear of the rebuilt network stands for: GPTQ leaves them as they are rounded.
        self.without_moments: set[str] = set()

    @cached_property
    def matrices(self) -> frozenset[str]:
        """Names of the stored tensors whose scheme is that of matrices.

        Raises:
            UsageError: there are none.
        """
        names = matrix_names(self.loaded.method, self.loaded.network, self.export)
        if not names:
            raise UsageError(f"{self.folder}: method '{self.record.method.name}' stores no tensor as a matrix")
        return names

    @cached_property
    def before(self) -> FileScore:
        """Score of the record's own file."""
        path = self.folder / ARTIFACT_FILE
        return FileScore(
            scheme=self.export.matrices,
            quantiser="as stored",
            artifact_bytes=self.loaded.artifact.artifact_bytes,
            val_bpb=self._score_file(path),
        )

    def plan(self, scheme: str) -> Sequence[PlannedTensor]:
        """Plan the tensors with all matrices under one scheme, not quantised yet."""
        return plan(self.loaded.method, self.loaded.network, self.export, scheme)

    def calibrate(self, num_tokens: int, passes: Passes) -> Moments:
        """Measure second moments of the inputs of linear maps on the first tokens of the record's own training.

        Raises:
            UsageError: the text is not the one that the record was trained on.
        """
        self.say(f"calibrating on {num_tokens:,} training tokens ({passes} passes)")
        inputs = (tokens_BT for tokens_BT, _ in self.training_batches(num_tokens))
        moments = input_moments(self.loaded.network, inputs, passes=passes)
        return {name: moment_II.cpu().numpy() for name, moment_II in moments.items()}

    def training_batches(self, num_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets (B, T) of the first tokens of the record's own training, on the device.

        Raises:
            UsageError: the text is not the one that the record was trained on.
        """
        recipe = Recipe.model_validate(self.record.settings.train)
        batches = recipe.batches(self._data.train, self.record.seed)
        for tokens_BT, targets_BT in first_batches(batches, num_tokens):
            yield tokens_BT.to(self.device), targets_BT.to(self.device)

    def moment_of(self, tensor: PlannedTensor, moments: Moments) -> NDArray[np.float64] | None:
        """Find the moment of a stored matrix: that of the linear map whose weight has its name; None where none is."""
        moment_II = moment_of(tensor, moments)
        if moment_II is None:
            self.without_moments.add(tensor.name)
        return moment_II

    @contextmanager
    def written(self, tensors: Sequence[PlannedTensor]) -> Iterator[ArtifactSummary]:
        """Write an artifact that differs from the record's in its tensors; it is gone afterwards."""
        old = self.loaded.artifact
        blobs = {name: old.blob(name) for name in old.blob_names}
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            yield write_artifact(Path(scratch, ARTIFACT_FILE), meta=old.meta, tensors=tensors, blobs=blobs)

    def score(self, summary: ArtifactSummary, scheme: str, quantiser: str) -> FileScore:
        """Score a written artifact on the tune split."""
        self.say(f"scoring {scheme}, {quantiser}: {summary.artifact_bytes:,} bytes")
        val_bpb = self._score_file(summary.path)
        change_bpb = val_bpb - self.before.val_bpb
        return FileScore(
            scheme=scheme,
            quantiser=quantiser,
            artifact_bytes=summary.artifact_bytes,
            val_bpb=val_bpb,
            change_bpb=change_bpb,
        )

    def store(self, scheme: str, quantiser: str, choose: Choose) -> FileScore:
        """Write and score a file whose matrices, planned under a scheme, `choose` has quantised."""
        tensors = [choose(tensor) if tensor.name in self.matrices else tensor for tensor in self.plan(scheme)]
        with self.written(tensors) as summary:
            return self.score(summary, scheme, quantiser)

    @cached_property
    def _data(self) -> TokenData:
        data = prepare(
            self.record.data.name,
            tokenizer=self.loaded.tokenizer,
            data_dir=self._data_dir,
            encoding_errors=self.record.data.encoding_errors,
        )
        for split in ("train", "tune"):
            if data.manifest()["splits"][split]["sha256"] != getattr(self.record.data.splits, split).sha256:
                raise UsageError(
                    f"{self.folder}: the {split} split of {data.name} is not the one it was made with; "
                    "give --data-dir with the same text"
                )
        return data

    def _score_file(self, path: Path) -> float:
        request = ScoreRequest.for_record(
            self.record, path, data_dir=self._data_dir, device=self.device, splits=("tune",)
        )
        return float(score_in_fresh_process(request)["metrics"]["tune"]["val_bpb"])


def _read_complete(folder: Path) -> Record:
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist; harness quantise takes one record folder")
    record = read_record(folder)
    if record.status != "complete" or record.artifact is None:
        raise UsageError(f"{folder}: the record is {record.status}; finish it with harness run --resume {folder}")
    if hash_file(folder, ARTIFACT_FILE)[1] != record.artifact.sha256:
        raise RecordError(f"{folder}: {ARTIFACT_FILE} is not the file that the record scored (sha256 differs)")
    return record


def check_choices(schemes: Sequence[str], modes: Sequence[str]) -> None:
    """Refuse wrong schemes and modes before anything is loaded.

    Raises:
        UsageError: unknown, or GPTQ of a scheme without a scale.
    """
    for mode in modes:
        if mode not in GPTQ_MODES:
            raise UsageError(f"--gptq {mode}: choose one of {', '.join(GPTQ_MODES)}")
    for scheme in schemes:
        if not parse_scheme(scheme).has_scale and set(modes) != {"none"}:
            raise UsageError(f"--scheme {scheme} has no scale, so GPTQ has nothing to choose; give --gptq none")


def requantise(
    network: StoredNetwork, schemes: Sequence[str], modes: Sequence[str], *, calibration_tokens: int
) -> list[FileScore]:
    """Store a network under every scheme and quantiser, and score each file.

    Args:
        network: of a record.
        schemes: of the matrices.
        modes: of `GPTQ_MODES`.
        calibration_tokens: training tokens that moments are measured on.
    """
    moments = {mode: network.calibrate(calibration_tokens, cast(Passes, mode)) for mode in modes if mode != "none"}
    scores = []
    for scheme in schemes:
        for mode in cast(Sequence[Gptq], modes):
            choose = _rounds if mode == "none" else _gptq_with(network, moments[mode])
            scores.append(network.store(scheme, QUANTISERS[mode], choose))
    return scores


def _rounds(tensor: PlannedTensor) -> PlannedTensor:
    return tensor


def _gptq_with(network: StoredNetwork, moments: Moments) -> Choose:
    def choose(tensor: PlannedTensor) -> PlannedTensor:
        network.moment_of(tensor, moments)  # notes a matrix that has none
        return choose_by_gptq(tensor, moments)

    return choose
