"""One record folder under examination: its record and evidence, each read once, and what is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harness.errors import RecordError
from harness.records.logs import LOG_FILE, Log, read_log
from harness.records.native import ARTIFACT_FILE, CONFIG_FILE, RECORD_FILE, read_config
from harness.records.safeio import JSON, index_lines, read_json
from harness.records.schema import (
    ArtifactPart,
    MetricsPart,
    ParamsPart,
    ProgressPart,
    Record,
    TimePart,
)
from harness.records.scores import SCORES_FILE, BlockScores, read_scores
from harness.records.values import Scalar, Value
from harness.records.versions import parse_record

if TYPE_CHECKING:
    from harness.artifact.container import Artifact

Content = TypeVar("Content")


class UnavailableError(Exception):
    """Evidence that a check needs is missing or disputed; the rule is then unverifiable, not failed."""


class NativeCase:
    """A record folder of this program.

    Attributes:
        folder: where it lies.
        name: its path as found.
        blocked: files and quantities that no check may build on, with the rule that says so.
        failed_rules: ids of the rules that failed so far.
    """

    kind = "native"

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.blocked: dict[str, str] = {}
        self.failed_rules: set[str] = set()

    def block(self, source: str, rule_id: str) -> None:
        """Say that a file or quantity failed a rule, so that nothing else is judged by it."""
        self.blocked.setdefault(source, rule_id)

    def require(self, source: str) -> None:
        """Raise UnavailableError where a file or quantity is blocked."""
        if source in self.blocked:
            raise UnavailableError(f"because {self.blocked[source]} failed ({source})")

    @cached_property
    def document(self) -> tuple[JSON, str]:
        """The content of `record.json` and its text."""
        return read_json(self.folder, RECORD_FILE)

    @cached_property
    def parsed(self) -> tuple[Record, tuple[str, ...]]:
        """The record and the keys that were not known."""
        return parse_record(self.document[0])

    @property
    def record(self) -> Record:
        """The record; UnavailableError where `record.json` failed."""
        self.require(RECORD_FILE)
        return self.parsed[0]

    @cached_property
    def fields(self) -> dict[str, JSON]:
        """The record as plain values."""
        return self.record.to_json()

    @cached_property
    def lines(self) -> dict[str, int]:
        """Line of each key of `record.json`, by dotted path."""
        return index_lines(self.document[1])

    @cached_property
    def log(self) -> Log:
        """The log; UnavailableError where the file failed a rule."""
        return self._read(LOG_FILE, read_log)

    @cached_property
    def scores(self) -> BlockScores:
        """The block scores; UnavailableError where the file failed a rule."""
        return self._read(SCORES_FILE, read_scores)

    def forget_evidence(self) -> None:
        """Free the memory of log and scores; they are read again where a later check asks for them."""
        for name in ("log", "scores"):
            self.__dict__.pop(name, None)

    @cached_property
    def config(self) -> dict[str, JSON]:
        """The content of `config.toml`; UnavailableError where the file failed a rule."""
        return self._read(CONFIG_FILE, read_config)

    def _read(self, name: str, read: Callable[[Path], Content]) -> Content:
        self.require(name)
        try:
            return read(self.folder)
        except RecordError as error:
            raise UnavailableError(str(error)) from error

    @property
    def is_complete(self) -> bool:
        """Whether there is a readable record of a run that came to its end."""
        return RECORD_FILE not in self.blocked and self.record.status == "complete"

    @property
    def totals(self) -> BlockScores:
        """The block scores, where their sums agree with the record's totals."""
        self.require("totals")
        return self.scores

    @cached_property
    def artifact(self) -> Artifact:
        """The opened artifact; ArtifactError where it cannot be opened."""
        from harness.artifact.container import Artifact

        self.require(ARTIFACT_FILE)
        self.require("decoding")
        return Artifact.open(self.folder / ARTIFACT_FILE)

    # Parts that the schema asks of a complete record; only such records are taken this far.

    @property
    def artifact_part(self) -> ArtifactPart:
        """What the record says of its artifact."""
        return _present(self.record.artifact, "artifact")

    @property
    def params(self) -> ParamsPart:
        """The claimed parameter counts."""
        return _present(self.record.params, "params")

    @property
    def test_metrics(self) -> MetricsPart:
        """The claimed test scores."""
        return _present(self.record.metrics.test, "metrics.test")

    @property
    def time(self) -> TimePart:
        """The claimed times."""
        return _present(self.record.time, "time")

    @property
    def progress(self) -> ProgressPart:
        """The claimed steps and tokens."""
        return _present(self.record.progress, "progress")

    def claim(self, key: str, value: Scalar) -> Value:
        """Make a claimed value of this record, with the line of its key."""
        return Value(origin="claimed", value=value, path=RECORD_FILE, line=self.lines.get(key), label=key)


def _present(part: Content | None, key: str) -> Content:
    if part is None:
        raise UnavailableError(f"{RECORD_FILE} has no {key}")
    return part
