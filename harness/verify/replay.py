"""Levels evaluate and retrain: the artifact scored again, the training repeated, by functions handed in.

This module compares; whoever calls it brings the torch code (see `harness.verify.rerun`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Protocol, TypeVar

from harness.errors import ArtifactError, HarnessError, RecordError
from harness.records.native import ARTIFACT_FILE
from harness.records.safeio import JSON
from harness.records.schema import Record
from harness.records.scores import SCORES_FILE
from harness.records.values import Scalar, Value
from harness.verify.across import Peer, settings_key
from harness.verify.agreement import as_scalar, look_up, show
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule
from harness.verify.static import Check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Result = TypeVar("Result")

# A claim that contradicts its own evidence already is not convicted twice: the new score is then a note.
_SCORE_RULES = frozenset({"M1", "M2", "M3", "M4"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescored:
    """What scoring an artifact again gives.

    Attributes:
        metrics: of the test split, in the field names of the record.
        block_nats: float64 (blocks,), in the blocks of `scores.npz`.
        manifest: the text that was scored, in the field names of the record.
        params: "effective" and "active" parameters of the decoded network.
        params_by_part: its trainable parameters by component.
    """

    metrics: Mapping[str, float]
    block_nats: NDArray[np.float64]
    manifest: Mapping[str, JSON]
    params: Mapping[str, int]
    params_by_part: Mapping[str, int]


class Scorer(Protocol):
    """Scores the artifact of a record folder again, in a fresh process."""

    def __call__(self, folder: Path, record: Record) -> Rescored:
        """Score; a HarnessError says why it cannot be done here."""
        ...


class Retrainer(Protocol):
    """Makes a record again from its settings and budget."""

    def __call__(self, folder: Path, record: Record, seed: int) -> Record:
        """Train with `seed`; a HarnessError says why it cannot be done here."""
        ...


@dataclass(kw_only=True, slots=True)
class Replay:
    """The checks of a record against its repetition.

    Attributes:
        score: scores the artifact again.
        retrain: trains again; None below level retrain.
        fresh_seed: seed to train with; None for the record's own.
        peers: the records verified together, whose seeds show the spread.
    """

    score: Scorer
    retrain: Retrainer | None = None
    fresh_seed: int | None = None
    peers: Sequence[Peer] = ()
    _rescored: dict[str, Rescored | HarnessError] = field(default_factory=dict)
    _retrained: dict[str, Record | HarnessError] = field(default_factory=dict)

    def checks(self) -> Mapping[str, Check]:
        """Return the checks by rule id."""
        return {
            "V1": self.data_is_same,
            "V2": self.score_repeats,
            "V3": self.blocks_repeat,
            "V4": self.params_repeat,
            "R1": self.training_repeats,
            "R2": self.bytes_repeat,
        }

    def rescored(self, case: NativeCase) -> Rescored:
        """Return the new scores, made once a record; UnavailableError where it cannot be scored here."""
        case.require(ARTIFACT_FILE)
        case.require("decoding")
        return _once(self._rescored, case.name, lambda: self.score(case.folder, case.record))

    def data_is_same(self, case: NativeCase, rule: Rule) -> Iterator[Finding]:
        """V1: fails when the text at hand has other hashes than the record's manifest."""
        try:
            manifest = dict(self.rescored(case).manifest)
        except (ArtifactError, RecordError) as error:
            raise UnavailableError(f"the artifact cannot be scored: {error}") from error
        keys = ("corpus_sha256", "tokenizer.sha256", "splits.test.sha256", "splits.test.num_bytes")
        for key in keys:
            claimed, found = look_up(case.fields, f"data.{key}"), look_up(manifest, key)
            if claimed != found:
                values = [
                    case.claim(f"data.{key}", as_scalar(claimed)),
                    Value(origin="measured", value=as_scalar(found), path="the text at hand"),
                ]
                message = f"data.{key}: {claimed} is claimed, the text at hand has {found}"
                yield rule.finding(case.name, "fail", message, values=values)
                return
        yield rule.finding(case.name, "pass", f"{len(keys)} hashes and sizes agree")

    def score_repeats(self, case: NativeCase, rule: Rule) -> Iterator[Finding]:
        """V2: fails when a metric is off by more than its bound, or the artifact makes no model at all."""
        case.require("data")
        try:
            metrics = self.rescored(case).metrics
        except (ArtifactError, RecordError) as error:
            yield rule.finding(case.name, "fail", f"cannot be scored: {error}", path=ARTIFACT_FILE)
            return
        failed = sorted(_SCORE_RULES & case.failed_rules)
        for key, bound in rule.limits.items():
            name = key.removesuffix("_relative")
            claimed, found = float(getattr(case.test_metrics, name)), float(metrics[name])
            if abs(claimed - found) > bound * (abs(claimed) if key != name else 1.0):
                status: FindingStatus = "note" if failed else "fail"
                told = f" (the claim failed {', '.join(failed)} already)" if failed else ""
                message = f"{name}: claimed {show(claimed)}, scored again {show(found)}{told}"
                values = _pair(case, f"metrics.test.{name}", claimed, found)
                yield rule.finding(case.name, status, message, values=values)
                return
        claimed, found = case.test_metrics.val_bpb, metrics["val_bpb"]
        message = f"val_bpb {found:.6f} again, {abs(claimed - found):.1e} from the claim"
        values = _pair(case, "metrics.test.val_bpb", claimed, found)
        yield rule.finding(case.name, "pass", message, values=values)

    def blocks_repeat(self, case: NativeCase, rule: Rule) -> Iterator[Finding]:
        """V3: fails when a block of text has other nats than scores.npz says."""
        import numpy as np

        case.require("data")
        claimed, found = case.totals.block_nats, _sound(self.rescored, case).block_nats
        if claimed.size != found.size:
            message = f"scores.npz has {claimed.size:,} blocks, scored again {found.size:,}"
            yield rule.finding(case.name, "fail", message, path=SCORES_FILE)
            return
        excess = np.abs(claimed - found) - rule.absolute - rule.relative * np.abs(claimed)
        worst = int(excess.argmax())
        if excess[worst] > 0:
            numbers = f"{claimed[worst]:.4f} nats in scores.npz, {found[worst]:.4f} scored again"
            yield rule.finding(case.name, "fail", f"block {worst}: {numbers}", path=SCORES_FILE)
        else:
            yield rule.finding(case.name, "pass", f"{claimed.size:,} blocks agree", path=SCORES_FILE)

    def params_repeat(self, case: NativeCase, rule: Rule) -> Iterator[Finding]:
        """V4: fails when the decoded network has other effective or active parameters than claimed."""
        rescored = _sound(self.rescored, case)
        found = _by_key(rescored.params, rescored.params_by_part)
        claimed = _by_key({"effective": case.params.effective, "active": case.params.active}, case.params.parts)
        apart = [key for key in sorted({*claimed, *found}) if claimed.get(key, 0) != found.get(key, 0)]
        if not apart:
            yield rule.finding(case.name, "pass", "effective, active and trainable parameters agree")
        for key in apart[:1]:
            told, counted = claimed.get(key, 0), found.get(key, 0)
            message = f"{key}: {told:,} parameters are claimed, the network has {counted:,}"
            values = _pair(case, f"params.{key}", told, counted)
            yield rule.finding(case.name, "fail", message, values=values)

    def retrained(self, case: NativeCase) -> Record:
        """Return the repeated run, made once a record; UnavailableError where it cannot be made here."""
        if self.retrain is None:
            raise UnavailableError("no way to train was given")
        retrain, seed = self.retrain, case.record.seed if self.fresh_seed is None else self.fresh_seed
        return _once(self._retrained, case.name, lambda: retrain(case.folder, case.record, seed))

    def training_repeats(self, case: NativeCase, rule: Rule) -> Iterator[Finding]:
        """R1: fails when the repeated run scores outside what the record and its sibling seeds allow."""
        metrics = _sound(self.retrained, case).metrics.test
        if metrics is None:
            raise UnavailableError("the repeated run gave no test score")
        centre, half_width, basis = _allowed(case, self.peers, rule)
        status: FindingStatus = "pass" if abs(metrics.val_bpb - centre) <= half_width else "fail"
        message = f"val_bpb {metrics.val_bpb:.5f} again, {centre:.5f} +- {half_width:.5f} allowed ({basis})"
        values = _pair(case, "metrics.test.val_bpb", case.test_metrics.val_bpb, metrics.val_bpb)
        yield rule.finding(case.name, status, message, values=values)

    def bytes_repeat(self, case: NativeCase, rule: Rule) -> Iterator[Finding]:
        """R2: fails when the same seed and counted budget give another file on a like machine."""
        again, record = _sound(self.retrained, case), case.record
        if again.seed != record.seed or record.budget.kind in ("seconds", "gpu_seconds"):
            yield rule.finding(case.name, "pass", "another seed or a budget in seconds: bytes may differ")
            return
        claimed, found = case.artifact_part.sha256, again.artifact.sha256 if again.artifact else ""
        alike = ("python", "torch", "numpy", "platform", "cpu", "device", "num_threads", "harness_code_sha256")
        unlike = [key for key in alike if getattr(again.environment, key) != getattr(record.environment, key)]
        unlike += ["code"] if again.method.code_sha256 != record.method.code_sha256 else []
        status: FindingStatus = "pass" if claimed == found else "note" if unlike else "fail"
        why = f" (unlike: {', '.join(unlike)})" if unlike else ""
        message = f"the file is {'bit-identical' if status == 'pass' else f'another one{why}'}"
        values = _pair(case, "artifact.sha256", claimed, found)
        yield rule.finding(case.name, status, message, values=values)


def _by_key(counts: Mapping[str, int], parts: Mapping[str, int]) -> dict[str, int]:
    return {**counts, **{f"parts.{name}": count for name, count in parts.items()}}


def _pair(case: NativeCase, key: str, claimed: Scalar, found: Scalar) -> list[Value]:
    return [case.claim(key, claimed), Value(origin="measured", value=found, path=ARTIFACT_FILE)]


def _once(made: dict[str, Result | HarnessError], name: str, make: Callable[[], Result]) -> Result:
    """Make a result once; what could not be made here and now is remembered as its error."""
    if name not in made:
        try:
            made[name] = make()
        except HarnessError as error:
            made[name] = error
    result = made[name]
    if isinstance(result, RecordError):
        raise result
    if isinstance(result, HarnessError):
        raise UnavailableError(str(result)) from result
    return result


def _sound(find: Callable[[NativeCase], Result], case: NativeCase) -> Result:
    """Return what `find` finds; a fault of the record, which another rule reports, makes it unavailable."""
    try:
        return find(case)
    except RecordError as error:
        raise UnavailableError(str(error)) from error


def _allowed(case: NativeCase, peers: Sequence[Peer], rule: Rule) -> tuple[float, float, str]:
    """Return centre and half width of the scores that a repeated run may have, in bits a byte, and why.

    With enough seeds: the prediction interval t * s * sqrt(1 + 1 / n) around their mean; else a fixed margin.
    """
    own = case.test_metrics.val_bpb
    key = settings_key(case.record)
    siblings = {peer.record.seed: peer.score.val_bpb for peer in peers if settings_key(peer.record) == key}
    scores = list((siblings | {case.record.seed: own}).values())
    if len(scores) < rule.limits["min_siblings"]:
        return own, rule.limits["margin_bpb"], "fixed margin, since too few seeds are here"
    from scipy import stats

    n, level = len(scores), rule.limits["level"]
    quantile = float(stats.t.ppf((1 + level) / 2, n - 1))
    half_width = quantile * stdev(scores) * math.sqrt(1 + 1 / n)
    return fmean(scores), half_width, f"{level:.0%} prediction interval of {n} seeds"
