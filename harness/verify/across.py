"""Static checks across records: shared artifacts and loss curves, lineage, seeds beside their siblings."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev

from harness.method import ExportSettings
from harness.records.native import ARTIFACT_FILE, RECORD_FILE
from harness.records.safeio import hash_file
from harness.records.schema import AncestorPart, MetricsPart, Record
from harness.records.values import Value
from harness.training.recipe import Recipe
from harness.verify.case import NativeCase, UnavailableError
from harness.verify.findings import Finding, FindingStatus
from harness.verify.rules import Rule
from harness.verify.static import Examiner


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """What of a complete record is compared with others.

    Attributes:
        name: path of its folder as found.
        record: its content.
        artifact_sha256: measured; None where the file failed a rule.
        curve: (step, loss in nats) of its log; None where the log failed a rule.
    """

    name: str
    record: Record
    artifact_sha256: str | None
    curve: tuple[tuple[int, float], ...] | None

    @property
    def score(self) -> MetricsPart:
        """The test metrics, which a complete record has."""
        assert self.record.metrics.test is not None
        return self.record.metrics.test


def make_peer(case: NativeCase) -> Peer | None:
    """Keep of a case what comparisons need; None where it has no complete record."""
    if not case.is_complete:
        return None
    sha256: str | None = None
    curve: tuple[tuple[int, float], ...] | None = None
    if ARTIFACT_FILE not in case.blocked:
        sha256 = hash_file(case.folder, ARTIFACT_FILE)[1]
    with suppress(UnavailableError):
        curve = tuple((entry.step, entry.loss_nats) for entry in case.log.steps)
    return Peer(name=case.name, record=case.record, artifact_sha256=sha256, curve=curve)


def settings_key(record: Record) -> str:
    """Return what makes two records runs of one thing: everything but seed, machine and outcome.

    Options of training and export that an older record did not know yet were off, which is their default.
    """
    score = record.metrics.test
    settings = record.settings.model_dump(mode="json")
    for section, defaults in (("train", Recipe()), ("export", ExportSettings())):
        settings[section] = defaults.model_dump(mode="json") | settings[section]
    return json.dumps(
        {
            "method": [record.method.name, record.method.version],
            "settings": settings,
            "data": [record.data.corpus_sha256, record.data.tokenizer.sha256],
            "budget": record.budget.text,
            "eval_mode": score.eval_mode.model_dump() if score else None,
        },
        sort_keys=True,
    )


def artifacts_are_own(peers: Sequence[Peer], rule: Rule) -> Iterator[Finding]:
    """E3: fails when a record has the artifact of an earlier one with another seed or other settings."""
    first_by_sha256 = _first_by(peers, lambda peer: peer.artifact_sha256)
    for peer in peers:
        if peer.artifact_sha256 is None:
            yield rule.gap(peer.name, "the artifact failed another rule")
            continue
        first = first_by_sha256[peer.artifact_sha256]
        if first is peer:
            yield rule.finding(peer.name, "pass", "no earlier record has this artifact", path=ARTIFACT_FILE)
        else:
            status, message = _compare_twins(first, peer)
            values = [Value(origin="measured", value=peer.artifact_sha256, path=ARTIFACT_FILE)]
            yield rule.finding(peer.name, status, message, values=values)


def _compare_twins(first: Peer, peer: Peer) -> tuple[FindingStatus, str]:
    same = f"the artifact is that of {first.name}"
    if first.record.seed != peer.record.seed:
        return "fail", f"{same}, which has seed {first.record.seed}, not {peer.record.seed}"
    if settings_key(first.record) != settings_key(peer.record):
        return "fail", f"{same}, which has other settings"
    return "note", f"{same}: same seed and settings, so one run twice"


def curves_are_own(peers: Sequence[Peer], rule: Rule) -> Iterator[Finding]:
    """E4: fails when a record has the training curve of an earlier one with another seed."""

    def curve_of(peer: Peer) -> Hashable:
        return peer.curve if peer.curve and len(peer.curve) >= rule.limits["min_steps"] else None

    first_by_curve = _first_by(peers, curve_of)
    for peer in peers:
        first = first_by_curve.get(curve_of(peer), peer)
        if peer.curve is None:
            yield rule.gap(peer.name, "the log failed another rule")
        elif first.record.seed == peer.record.seed or first.artifact_sha256 == peer.artifact_sha256:
            # one artifact under two seeds is already a failure of E3
            yield rule.finding(peer.name, "pass", "no earlier record of another seed has this curve")
        else:
            seeds = f"seed {first.record.seed}, not {peer.record.seed}"
            message = f"all {len(peer.curve):,} losses are those of {first.name}, which has {seeds}"
            yield rule.finding(peer.name, "fail", message, path="log.jsonl")


def _first_by(peers: Sequence[Peer], key_of: Callable[[Peer], Hashable]) -> Mapping[Hashable, Peer]:
    first: dict[Hashable, Peer] = {}
    for peer in sorted(peers, key=lambda peer: (peer.record.created_utc, peer.name)):
        if (key := key_of(peer)) is not None:
            first.setdefault(key, peer)
    return first


def lineage_holds(peers: Sequence[Peer], rule: Rule) -> Iterator[Finding]:
    """S5: fails when an ancestor's own record says that it spent other than its descendant states."""
    by_sha256 = _first_by(peers, lambda peer: peer.artifact_sha256)
    for peer in peers:
        if not peer.record.lineage:
            yield rule.finding(peer.name, "pass", "starts from no other record")
        for ancestor in peer.record.lineage:
            yield _judge_ancestor(peer, ancestor, by_sha256.get(ancestor.artifact_sha256), rule)


def _judge_ancestor(peer: Peer, ancestor: AncestorPart, found: Peer | None, rule: Rule) -> Finding:
    if ancestor.spent is None:
        message = f"starts from the pretrained model {ancestor.name:.80}; what its training cost is unknown"
        return rule.finding(peer.name, "note", message, path=RECORD_FILE)
    if found is None:
        message = f"the record of ancestor {ancestor.name:.80} is not among those verified"
        return rule.finding(peer.name, "unverifiable", message, path=RECORD_FILE)
    for unit, stated in ancestor.spent:
        own = getattr(found.record.budget.spent, unit)
        if stated != own:
            message = f"ancestor {ancestor.name:.80}: {stated:,} {unit} are stated, {found.name} spent {own:,}"
            values = [
                Value(origin="claimed", value=stated, path=RECORD_FILE, label="lineage"),
                Value(origin="measured", value=own, path=RECORD_FILE),
            ]
            return rule.finding(peer.name, "fail", message, values=values)
    return rule.finding(peer.name, "pass", f"ancestor {found.name} agrees", path=RECORD_FILE)


def scores_lie_among_siblings(peers: Sequence[Peer], rule: Rule) -> Iterator[Finding]:
    """Z1: notes a seed whose score is far from its siblings', and seeds that all score the same."""
    groups: dict[str, list[Peer]] = defaultdict(list)
    for peer in peers:
        groups[settings_key(peer.record)].append(peer)
    for group in groups.values():
        for peer in group:
            siblings = [other for other in group if other.record.seed != peer.record.seed]
            yield _judge_among(peer, siblings, rule)


def _judge_among(peer: Peer, siblings: Sequence[Peer], rule: Rule) -> Finding:
    if len(siblings) < rule.limits["min_siblings"]:
        return rule.finding(peer.name, "pass", f"{len(siblings)} other seeds: too few to stand apart from")
    scores = [other.score.val_bpb for other in siblings]
    mean, deviation = fmean(scores), stdev(scores)
    distance = abs(peer.score.val_bpb - mean)
    others = f"{len(scores)} other seeds, mean {mean:.5f}, sd {deviation:.5f}"
    message = f"val_bpb {peer.score.val_bpb:.5f} beside {others}"
    if math.isclose(distance, 0, abs_tol=1e-12) and deviation == 0:
        return rule.finding(peer.name, "note", f"{message}: all seeds score the same", path=RECORD_FILE)
    is_apart = distance > rule.limits["deviations"] * deviation
    return rule.finding(peer.name, "note" if is_apart else "pass", message, path=RECORD_FILE)


AcrossCheck = Callable[[Sequence[Peer], Rule], Iterable[Finding]]

ACROSS_CHECKS: Mapping[str, AcrossCheck] = {
    "S5": lineage_holds,
    "E3": artifacts_are_own,
    "E4": curves_are_own,
    "Z1": scores_lie_among_siblings,
}


def examine_across(peers: Sequence[Peer], rules: Sequence[Rule], examiner: Examiner) -> Iterator[Finding]:
    """Run the checks that compare records with each other; the findings belong to the single records."""
    for rule in rules:
        if peers and (check := ACROSS_CHECKS.get(rule.id)):
            yield from examiner.run(peers[0].name, rule, partial(check, peers, rule))
