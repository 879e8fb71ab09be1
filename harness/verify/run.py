"""From paths to a report: find the records, take each through the levels, compare them with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from harness.errors import UsageError, suggest
from harness.records.discovery import ForeignFolder, scan_records
from harness.records.native import RECORD_FILE
from harness.verify.across import Peer, examine_across, make_peer
from harness.verify.artifact import DECODE_CHECKS
from harness.verify.case import NativeCase
from harness.verify.findings import LEVELS, Finding, InternalError, RecordRow, Report
from harness.verify.foreign import READING_RULE, examine_foreign, make_foreign_row
from harness.verify.foreign_case import ForeignCase
from harness.verify.replay import Replay, Retrainer, Scorer
from harness.verify.rules import Rule, RuleBook, load_rules
from harness.verify.static import CHECKS, Examiner, examine

# Called before each record of each level: how many are done, how many there are, which one is next.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The records under some paths.

    Attributes:
        native: cases of this program's own records.
        foreign: folders that others published.
        unfinished: paths whose trees were too large to be walked to their end.
    """

    native: Sequence[NativeCase]
    foreign: Sequence[ForeignFolder]
    unfinished: Sequence[Path]


def verify_paths(  # noqa: PLR0913  the options of one command
    paths: Sequence[Path],
    *,
    level: str = "static",
    rules: RuleBook | None = None,
    is_strict: bool = False,
    score: Scorer | None = None,
    retrain: Retrainer | None = None,
    fresh_seed: int | None = None,
    num_jobs: int = 1,
    on_progress: Progress = lambda done, total, name: None,
) -> Report:
    """Verify every record at or below some paths.

    Args:
        paths: record folders, native or foreign, or folders that hold some at any depth.
        level: "static", "decode", "evaluate" or "retrain"; each includes the ones before. Foreign records ship no
            model of this program's format and are verified from their files only.
        rules: the rules; the shipped ones when None.
        is_strict: whether what cannot be verified counts as a failure.
        score: scores an artifact again; needed from level evaluate on.
        retrain: makes a record again; needed for level retrain.
        fresh_seed: seed to train again with; None for each record's own.
        num_jobs: processes that read foreign records.
        on_progress: told before each record.

    Raises:
        UsageError: unknown level, a path that does not exist, or no record found.
    """
    depth = _depth(level)
    assert score is not None or depth < LEVELS.index("evaluate"), "level evaluate needs a scorer"
    book = rules or load_rules()
    found = find_records_to_verify(paths)
    examiner, findings = Examiner(), {case.name: list[Finding]() for case in found.native}
    peers = _examine_static(found.native, book, examiner, findings, on_progress)
    checks = dict(DECODE_CHECKS)
    if score is not None:
        checks |= Replay(score=score, retrain=retrain, fresh_seed=fresh_seed, peers=peers).checks()
    deeper = [rule for name in LEVELS[1 : depth + 1] for rule in book.of_level(name)]
    complete = [case for case in found.native if deeper and case.is_complete]
    for done, case in enumerate(complete):
        on_progress(done, len(complete), case.name)
        findings[case.name] += examine(case, deeper, checks, examiner)
    rows = [_make_row(case) for case in found.native]
    for done, examined in enumerate(_examine_all_foreign(found.foreign, book, num_jobs)):
        on_progress(done, len(found.foreign), examined.row.record)
        rows.append(examined.row)
        findings[examined.row.record] = list(examined.findings)
        examiner.errors += examined.errors
    return Report(
        level=LEVELS[depth],
        rules_version=book.version,
        rule_changes=book.changes,
        rules=book.rules,
        headline_rules=book.headline_rules,
        rows=rows,
        findings=[*chain.from_iterable(findings.values()), *(_cut_short(path, book) for path in found.unfinished)],
        internal_errors=examiner.errors,
        is_strict=is_strict,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Examined:
    row: RecordRow
    findings: Sequence[Finding]
    errors: Sequence[InternalError]


def _examine_all_foreign(folders: Sequence[ForeignFolder], book: RuleBook, num_jobs: int) -> Iterator[_Examined]:
    rules = book.of_level("static")
    if num_jobs <= 1 or len(folders) < 2:
        yield from map(_examine_foreign, folders, repeat(rules))
        return
    with ProcessPoolExecutor(max_workers=min(num_jobs, len(folders))) as pool:
        yield from pool.map(_examine_foreign, folders, repeat(rules), chunksize=1)


def _examine_foreign(found: ForeignFolder, rules: Sequence[Rule]) -> _Examined:
    examiner = Examiner()
    name, kind = found.folder.name, found.format.name
    try:
        case = ForeignCase(found.format.read(found.folder))
    except Exception as error:  # dialects are plugins: one that raises does not take the other records with it
        rule = next(rule for rule in rules if rule.id == READING_RULE)
        findings = [rule.gap(name, examiner.keep_error(name, rule, error))]
        return _Examined(row=RecordRow(record=name, kind=kind), findings=findings, errors=examiner.errors)
    findings = list(examine_foreign(case, rules, examiner))
    return _Examined(row=make_foreign_row(case), findings=findings, errors=examiner.errors)


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


def find_records_to_verify(paths: Iterable[Path]) -> Found:
    """Find the records at or below some paths, each once.

    Raises:
        UsageError: a path does not exist, or holds no record.
    """
    native: dict[Path, NativeCase] = {}
    foreign: dict[Path, ForeignFolder] = {}
    unfinished: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        tree = scan_records(path, with_foreign=True)
        unfinished += [] if tree.is_complete else [path]
        if tree.is_complete and not tree.folders and not tree.foreign:
            raise UsageError(
                f"no record found at or below {path}; a record folder holds a {RECORD_FILE}, a submission.json, "
                "or a README with logs"
            )
        for folder in tree.folders:
            native.setdefault(folder.resolve(), NativeCase(folder, str(folder)))
        for record in tree.foreign:
            foreign.setdefault(record.folder.path.resolve(), record)
    return Found(native=list(native.values()), foreign=list(foreign.values()), unfinished=unfinished)


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
