"""Foreign records, the folder itself: files that can be read, are there, and are those that ran."""

from __future__ import annotations

from collections.abc import Iterator

from harness.verify.checks_sizes import file_witnesses
from harness.verify.findings import Finding, FindingStatus, Severity
from harness.verify.foreign_case import ForeignCase, list_words, show_number
from harness.verify.rules import Rule
from harness.verify.witnesses import is_near


def files_can_be_read(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XF1: fails when a summary cannot be read; what else was odd in reading is noted, an unread log unverifiable."""
    submission = case.submission
    for problem in submission.problems:
        is_summary = problem.is_fatal and problem.path in submission.summaries
        if is_summary and _size(case, problem.path) == 0:
            continue
        status: FindingStatus = "fail" if is_summary else "unverifiable" if problem.is_fatal else "note"
        message = problem.message if problem.path in problem.message else f"{problem.path}: {problem.message}"
        yield case.say(rule, status, message, path=problem.path or None, line=problem.line)
    if not submission.problems:
        yield case.say(rule, "pass", f"{len(submission.files)} files were looked at")


def _size(case: ForeignCase, path: str) -> int | None:
    return next((entry.num_bytes for entry in case.submission.files if entry.path == path), None)


def files_are_there(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XF2: fails when a required file is empty; one that is not shipped leaves its numbers unverifiable."""
    submission = case.submission
    required = {
        "a summary (submission.json)": submission.summaries,
        "a README": submission.readmes,
        "a log": submission.logs,
        "a training script": [entry.path for entry in submission.scripts],
    }
    if submission.format != "parameter-golf":
        required = {"a log": submission.logs}
    found_any = False
    for what, paths in required.items():
        if not paths:
            yield case.say(rule, "unverifiable", f"{what} is not shipped")
            found_any = True
        for path in paths:
            if _size(case, path) == 0 and not path.endswith("__init__.py"):
                found_any = True
                severity: Severity = "minor" if path in (*submission.readmes, *submission.logs) else "major"
                yield case.say(rule, "fail", f"{path} is empty", path=path, severity=severity)
    if submission.summaries and all(path.lower() != "submission.json" for path in submission.summaries):
        yield case.say(rule, "note", f"the summary is called {submission.summaries[0]}", path=submission.summaries[0])
        found_any = True
    if not found_any:
        yield case.say(rule, "pass", f"{list_words(required)} are shipped")


def commands_are_shipped(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XF3: notes a script that the README runs and the folder does not hold."""
    names = {entry.path.rpartition("/")[2] for entry in case.submission.files}
    for command in {command.text: command for command in case.submission.commands}.values():
        if command.text not in names:
            message = f"{command.path}:{command.line} runs {command.text}, which is not shipped"
            yield case.say(rule, "note", message, path=command.path, line=command.line)


def code_is_that_logged(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XF4: notes shipped code of another size than the one that the log printed."""
    files = file_witnesses(case)
    logged = [reading for run in case.submission.runs for reading in run.of("bytes_code")]
    sizes = [reading for reading in logged if "compressed" not in reading.label.split()]
    if not files or not sizes or not max(file.value for file in files):
        return
    odd = [reading for reading in sizes if not any(is_near(reading, file) for file in files)]
    if len(odd) == len(sizes) and not any(is_near(reading, file) for reading in logged for file in files):
        main = max(files[: len(case.submission.scripts)], key=lambda file: file.value)
        message = f"{odd[0].place} says {show_number(odd[0])} bytes of code; {main.what} has {main.value:,.0f}"
        yield case.say(rule, "note", message, odd[0], main.reading)
    else:
        yield case.say(rule, "pass", f"{sizes[0].place}: the shipped code", sizes[0])


def logs_hold_one_run(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XF5: notes a log with runs before the one that is claimed."""
    for path in dict.fromkeys(run.path for run in case.submission.earlier_runs):
        earlier = [run for run in case.submission.earlier_runs if run.path == path]
        last = next((run for run in case.submission.runs if run.path == path), earlier[-1])
        chosen = [run for run in case.submission.runs if run.path == path]
        which = "the claimed one" if last.first_line > earlier[-1].first_line else "the one with the claimed score"
        message = f"{path} holds {len(earlier) + len(chosen)} runs; the one from line {last.first_line} is {which}"
        yield case.say(rule, "note", message, path=path, line=last.first_line)


def tables_are_of_the_record(case: ForeignCase, rule: Rule) -> Iterator[Finding]:
    """XF6: notes a table by seed of which hardly a cell is logged, beside one that is."""
    for line in case.other_tables:
        claim = next(claim for claim in case.submission.claims if claim.table == line)
        message = (
            f"{claim.path}:{line}: hardly a cell of this table is in a log, but another table is: read as of other runs"
        )
        yield case.say(rule, "note", message, path=claim.path, line=line)
