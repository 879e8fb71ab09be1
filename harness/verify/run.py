"""From paths to a report: find the records, take each through the levels, compare them with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from harness.errors import UsageError, suggest
from harness.records.native import RECORD_FILE, scan_records
from harness.verify.across import Peer, examine_across, make_peer
from harness.verify.artifact import DECODE_CHECKS
from harness.verify.case import NativeCase
from harness.verify.findings import LEVELS, Finding, RecordRow, Report
from harness.verify.replay import Replay, Retrainer, Scorer
from harness.verify.rules import RuleBook, load_rules
from harness.verify.static import CHECKS, Examiner, examine

# Called before each record of each level: how many are done, how many there are, which one is next.
Progress = Callable[[int, int, str], None]


def verify_paths(
    paths: Sequence[Path],
    *,
    level: str = "static",
    rules: RuleBook | None = None,
    is_strict: bool = False,
    score: Scorer | None = None,
    retrain: Retrainer | None = None,
    fresh_seed: int | None = None,
    on_progress: Progress = lambda done, total, name: None,
) -> Report:
    """Verify every record at or below some paths.

    Args:
        paths: record folders, or folders that hold some at any depth.
        level: "static", "decode", "evaluate" or "retrain"; each includes the ones before.
        rules: the rules; the shipped ones when None.
        is_strict: whether what cannot be verified counts as a failure.
        score: scores an artifact again; needed from level evaluate on.
        retrain: makes a record again; needed for level retrain.
        fresh_seed: seed to train again with; None for each record's own.
        on_progress: told before each record.

    Raises:
        UsageError: unknown level, a path that does not exist, or no record found.
    """
    depth = _depth(level)
    assert score is not None or depth < LEVELS.index("evaluate"), "level evaluate needs a scorer"
    book = rules or load_rules()
    cases, unfinished = _find_cases(paths)
    examiner, findings = Examiner(), {case.name: list[Finding]() for case in cases}
    peers = _examine_static(cases, book, examiner, findings, on_progress)
    checks = dict(DECODE_CHECKS)
    if score is not None:
        checks |= Replay(score=score, retrain=retrain, fresh_seed=fresh_seed, peers=peers).checks()
    deeper = [rule for name in LEVELS[1 : depth + 1] for rule in book.of_level(name)]
    complete = [case for case in cases if deeper and case.is_complete]
    for done, case in enumerate(complete):
        on_progress(done, len(complete), case.name)
        findings[case.name] += examine(case, deeper, checks, examiner)
    return Report(
        level=LEVELS[depth],
        rules_version=book.version,
        rule_changes=book.changes,
        rules=book.rules,
        headline_rule=book.headline_rule,
        rows=[_make_row(case) for case in cases],
        findings=[*chain.from_iterable(findings.values()), *(_cut_short(path, book) for path in unfinished)],
        internal_errors=examiner.errors,
        is_strict=is_strict,
    )


def _examine_static(
    cases: Sequence[NativeCase],
    book: RuleBook,
    examiner: Examiner,
    findings: Mapping[str, list[Finding]],
    on_progress: Progress,
) -> list[Peer]:
    """Take every record through the static level, then compare them; returns the complete ones."""
    rules, peers = book.of_level("static"), []
    for done, case in enumerate(cases):
        on_progress(done, len(cases), case.name)
        findings[case.name].extend(examine(case, rules, CHECKS, examiner))
        peers += [peer] if (peer := make_peer(case)) else []
        case.forget_evidence()
    for finding in examine_across(peers, rules, examiner):
        findings[finding.record].append(finding)
    return peers


def _depth(level: str) -> int:
    if level not in LEVELS:
        raise UsageError(f"--level {level}: no such level. {suggest(level, LEVELS)}")
    return LEVELS.index(level)


def _find_cases(paths: Iterable[Path]) -> tuple[list[NativeCase], list[Path]]:
    """Find the records, each once, and the paths whose trees were too large to be walked to their end."""
    cases: dict[Path, NativeCase] = {}
    unfinished: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        tree = scan_records(path)
        unfinished += [] if tree.is_complete else [path]
        if tree.is_complete and not tree.folders:
            raise UsageError(f"no record found at or below {path}; a record folder holds a {RECORD_FILE}")
        for folder in tree.folders:
            cases.setdefault(folder.resolve(), NativeCase(folder, str(folder)))
    return list(cases.values()), unfinished


def _cut_short(path: Path, book: RuleBook) -> Finding:
    message = f"{path} holds too many files or levels of folders; some of it was not looked at"
    return book.rules["F0"].finding(str(path), "unverifiable", message)


def _make_row(case: NativeCase) -> RecordRow:
    if RECORD_FILE in case.blocked:
        return RecordRow(record=case.name, kind=case.kind)
    record = case.record
    return RecordRow(
        record=case.name,
        kind=case.kind,
        name=record.name,
        method=record.method.name,
        seed=record.seed,
        is_partial=record.metrics.test.partial if record.metrics.test else None,
    )
