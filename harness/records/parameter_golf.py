"""The 16 MB challenge's record folders: `submission*.json`, README, logs, scripts, in the dialects of their authors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.errors import RecordError
from harness.records.caps import contest_caps
from harness.records.folder import RecordFolder
from harness.records.markdown import MAX_README_BYTES, read_readme
from harness.records.submission import FileEntry, LoggedRun, Problem, Submission
from harness.records.summary_json import MAX_SUMMARY_BYTES, read_summary
from harness.records.training_logs import RunReader

# Files of a kind that are looked at; of summaries and READMEs a record has one, or a few.
MAX_LOGS = 200
MAX_TEXTS = 10
MAX_SCRIPTS = 1000
_SUMMARY = re.compile(r"submission[\w.-]*\.json", re.I)
_README = re.compile(r"readme(\.\w+)?", re.I)
_LOG = re.compile(r".*\.log|.*\.log\.txt|.*(?:log|train|seed|run|stdout|output)[\w.-]*\.txt|.*\.out", re.I)
_TEXT = re.compile(r".*\.(log|txt|out)", re.I)
_EVIDENCE = re.compile(rb"val_loss|val_bpb|stopping_early|Total submission")
SNIFFED_BYTES = 65536
_NO_LOG = re.compile(r"requirements[\w.-]*\.txt|readme.*|license.*|notes?.*", re.I)
_SCRIPT = re.compile(r".*\.(py|sh|cu|cpp|c|pyx)", re.I)
_TRAINER = re.compile(r"(?:train|main|run|eval)[\w.-]*\.py", re.I)
_MAIN_TRACK = re.compile(r"10[ _-]?min", re.I)
_OTHER_TRACK = re.compile(r"non[_ -]?record|unlimited|unconstrained|4[ _-]?h(our|r)", re.I)
_SIDE = re.compile(
    r"(^|/)(old|archive|ablations?|experiments?|sweeps?|baselines?|extra|failed|prior|previous)[^/]*/", re.I
)


class ParameterGolf:
    """Reads the record folders of the 16 MB challenge."""

    name = "parameter-golf"

    def is_surely_record(self, names: Iterable[str]) -> bool:
        """A summary makes a record."""
        return any(_SUMMARY.fullmatch(name) for name in names)

    def may_be_record(self, names: Iterable[str]) -> bool:
        """Without a summary, a README beside a log or a training script may be one."""
        known = list(names)
        has_readme = any(_README.fullmatch(name) for name in known)
        return has_readme and any(_may_be_log(name) or _TRAINER.fullmatch(name) for name in known)

    def is_record(self, folder: RecordFolder) -> bool:
        """Whether a log, or the README beside a training script, speaks of bits a byte."""
        names = folder.names()
        if any(b"val_bpb" in folder.tail(entry.path, 65536) for entry in folder.files if _may_be_log(entry.path)):
            return True
        readme = next((name for name in names if _README.fullmatch(name)), "")
        has_trainer = any(_TRAINER.fullmatch(name) for name in names)
        return has_trainer and b"bpb" in folder.tail(readme, 65536).lower()

    def read(self, folder: RecordFolder) -> Submission:
        """Read a record folder; see `RecordFormat.read`."""
        submission = Submission(format=self.name, folder=folder.path, name=folder.name, files=folder.files)
        submission.problems += folder.problems
        submission.byte_cap = contest_caps()["parameter-golf"]
        track = f"{folder.path.resolve().as_posix()}"
        for entry in folder.files:
            name = entry.path.rpartition("/")[2]
            if "/" not in entry.path and _SUMMARY.fullmatch(name):
                track = f"{track} {_read_summary(folder, entry, submission)}"
            elif "/" not in entry.path and _README.fullmatch(name):
                _read_readme(folder, entry, submission)
            elif _is_log(folder, entry.path):
                read_log_file(folder, entry, submission)
            elif _SCRIPT.fullmatch(name):
                submission.keep(submission.scripts, [entry], "scripts", MAX_SCRIPTS)
        submission.settle_seeds()
        submission.is_main_track = _is_main_track(track)
        return submission


def _is_main_track(words: str) -> bool | None:
    if _OTHER_TRACK.search(words):
        return False
    return True if _MAIN_TRACK.search(words) else None


def _may_be_log(path: str) -> bool:
    """Whether the name of a file may be that of a log: any text file that is not known as something else."""
    name = path.rpartition("/")[2]
    return _TEXT.fullmatch(name) is not None and not _NO_LOG.fullmatch(name)


def _is_log(folder: RecordFolder, path: str) -> bool:
    """Whether a file is a log: by its name, else by what its end says."""
    if not _may_be_log(path):
        return False
    inner, _, name = path.rpartition("/")
    if _LOG.fullmatch(name) is not None or "log" in inner.lower():
        return True
    return _EVIDENCE.search(folder.tail(path, SNIFFED_BYTES)) is not None


def _read_summary(folder: RecordFolder, entry: FileEntry, submission: Submission) -> str:
    if not keep_path(submission, submission.summaries, entry, "summaries"):
        return ""
    try:
        summary = read_summary(folder.read(entry.path, MAX_SUMMARY_BYTES), entry.path)
    except RecordError as error:
        submission.problems.append(Problem(path=entry.path, message=str(error), is_fatal=True))
        return ""
    is_first = not any(claim.source == "summary" for claim in submission.claims)
    claims = summary.claims if is_first else [replace(c, is_headline=False) for c in summary.claims]
    submission.keep(submission.claims, claims, "numbers")
    submission.keep(submission.seeds, summary.seeds, "seeds")
    submission.problems += summary.problems
    submission.add_text(summary.words + "\n")
    submission.title = submission.title or summary.title
    return f"{summary.track} {summary.title}"


def _read_readme(folder: RecordFolder, entry: FileEntry, submission: Submission) -> None:
    if not keep_path(submission, submission.readmes, entry, "READMEs"):
        return
    try:
        readme = read_readme(folder.read(entry.path, MAX_README_BYTES), entry.path)
    except RecordError as error:
        submission.problems.append(Problem(path=entry.path, message=str(error), is_fatal=True))
        return
    submission.keep(submission.claims, readme.claims, "numbers")
    submission.keep(submission.seeds, readme.seeds, "seeds")
    submission.keep(submission.pairs, readme.pairs, "differences")
    submission.keep(submission.differences, readme.differences, "differences")
    submission.keep(submission.gaps, readme.gaps, "differences")
    submission.keep(submission.commands, readme.commands, "commands")
    submission.problems += readme.problems
    submission.add_text(readme.text)
    submission.title = submission.title or readme.title


def keep_path(submission: Submission, paths: list[str], entry: FileEntry, what: str) -> bool:
    """Note a file of a kind of which a record holds a few; False where it holds too many to read this one, too."""
    limit = MAX_LOGS if what == "logs" else MAX_TEXTS
    submission.keep(paths, [entry.path], what, limit)
    return paths[-1] == entry.path


def read_log_file(folder: RecordFolder, entry: FileEntry, submission: Submission) -> None:
    """Add the runs of a log: the last one is claimed, runs before it are kept apart."""
    if not keep_path(submission, submission.logs, entry, "logs"):
        return
    reader = RunReader(entry.path, submission.log_budget)
    try:
        with folder.open(entry.path) as handle:
            reader.read(handle)
    except (RecordError, OSError) as error:
        submission.problems.append(Problem(path=entry.path, message=str(error), is_fatal=True))
        return
    submission.problems += reader.problems()
    runs = claimed_runs(reader.runs)
    submission.runs += runs
    submission.earlier_runs += [run for run in reader.runs if all(run is not other for other in runs)]


def claimed_runs(runs: Sequence[LoggedRun]) -> list[LoggedRun]:
    """Return the runs of one log that its record stands for: the last, or the last of each seed."""
    by_seed: dict[str, LoggedRun] = {}
    for run in runs:
        by_seed[run.seed.text if run.seed else ""] = run
    scored = [run for run in by_seed.values() if run.of("bpb") or run.of("loss")]
    ended = [run for run in scored if any(reading.step is None for reading in run.finals)]
    return ended or scored[-1:] or list(runs[-1:])
