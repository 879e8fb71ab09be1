"""Logs of training scripts: lines in many dialects -> runs with readings, each with file and line.

A log may hold embedded source (whose f-strings and comments look like metrics), several runs one after another,
a prefix of the time or of a launcher on each line, and metrics that are wrapped over two lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import IO

import re2

from harness.records.log_stream import LogBudget, LogLine, StreamState, stream_lines
from harness.records.numbers import is_sane, last_place
from harness.records.submission import LoggedRun, Problem, Reading, Statement
from harness.records.vocabulary import Quantity, Stage, read_stage

MAX_CURVE_POINTS = 400
MAX_TRAIN_POINTS = 150
# So many points of a curve in what seemed to be source: its end was missed, and this is a run.
MIN_RUN_POINTS = 3
# What is kept of a run, or a log, in any case; see `LogBudget` for what is kept of a record.
MIN_READINGS = 100
MIN_RUNS = 2
MAX_STATEMENTS = 20
MAX_EVIDENCE_CHARACTERS = 4000
MAX_PREFIX_CHARACTERS = 300

_N = r"(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_I = r"(\d[\d,]*)"
# Time stamps and launcher marks in front of a line; a line of metrics begins right behind them.
_PREFIX = re2.compile(
    r"^(?:\s*(?:\d{10}(?:\.\d+)?"
    r"|\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,\d]*(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"|\[?\d\d:\d\d:\d\d[.,\d]*\]?"
    r"|\[[^\]\n]{1,40}\]:?|\([^)\n]{1,60} pid=\d+[^)\n]*\)"
    r"|(?:rank|node|worker|train|proc)[\w.-]{0,20}[ :|>]|INFO[: -]*|\d+:|[A-Za-z][\w.-]{0,30}/\d+[: ]|>|\|)\s?)+"
)
_SOURCE = re.compile(r"""^\s*(?:#|//|"|'|\*|-|`|f"|f'|r"|log0?\(|print\(|return |assert |if |raise |def |class |\|)""")

_EVAL = re2.compile(rf"^(.*?)\bval_loss\s*[:=]\s*{_N}(?:[\s,;|]+val_bpb\s*[:=]\s*{_N})?(.*)$")
_BPB = re2.compile(rf"^(.*?)\b(?:val_)?bpb\s*[:=]\s*{_N}(.*)$")
_STEP = re2.compile(r"^(?:step[:= ]\s*)?(\d+)/(\d+)\b")
_TRAIN = re2.compile(rf"^(?:step[:= ]\s*)?(\d+)/\d+\s+(?:train_)?loss\s*[:=]\s*{_N}")
_STOP = re2.compile(r"^stopping_early:?\s*(\S*)\s+train_time\s*:?\s*(\d+)\s*ms(?:\s+step\s*:?\s*(\d+)/(\d+))?")
_TRAIN_TIME = re2.compile(r"\btrain_time\s*[:=]\s*(\d+(?:\.\d+)?)\s*(ms|s|m)\b")
_STEP_AVG = re2.compile(r"\bstep_avg\s*[:=]\s*(\d+(?:\.\d+)?)\s*ms\b")
_EVAL_TIME = re2.compile(r"\b(?:eval_time|elapsed|time)\s*[:=]\s*(\d+(?:\.\d+)?)\s*(ms|s)\b")
_TOTAL_EVAL_TIME = re2.compile(r"^total_eval_time\s*[:=]\s*(\d+(?:\.\d+)?)\s*s")
_CODE = re2.compile(rf"\b[Cc]ode(?: size)?\s*(?:\((uncompressed|compressed)\))?\s*[:=]\s*{_I}")
_MODEL = re2.compile(rf"(?:Serialized model(?:\s+([^:\n]{{1,40}}))?|^(INT\S{{1,20}}) model)\s*:\s*{_I}\s*bytes")
_TOTAL = re2.compile(rf"Total submission(?: size)?(?:\s+([^:\n]{{1,40}}))?\s*:\s*{_I}(?:\s*bytes)?")
_ARTIFACT = re2.compile(rf"^artifact_bytes\s*[:=]\s*{_I}")
_MEGABYTES = re2.compile(r"=\s*(\d+(?:\.\d+)?)\s*/\s*16(?:\.0+)?\s*MB\b")
_BUDGET = re2.compile(rf"^budget\s*:\s*{_I}/{_I}")
_PARAMS = re2.compile(rf"(?:\bmodel_params|\bparams|^num_params|\bparameters)\s*[:=]\s*{_I}|\btotal:\s*{_I}\s*params")
_SEED = re2.compile(r"(?:^|\s)(?:seed|SEED)\s*[:=]\s*(\d{1,20})\b|^params:.*\bs:(\d{1,20})\s*$")
_VAL_TOKENS = re2.compile(rf"\bval[_ ]tokens\s*[:=]\s*{_I}|^val_loader:.*\btokens:{_I}")
_LIMITED = re2.compile(
    r"(?i)\b(\d+) batches \(limited\)|\bval_max_(?:tokens|batches|docs)\s*[:=]\s*([1-9]\d*)"
    r"|\b(?:val|eval)_\w*(?:fraction|frac|portion)\s*[:=]\s*(0?\.\d+)"
)
_CALIBRATION = re2.compile(rf"^GPTQ:\s*collected .*\bin {_N}\s*s\b")
_WALL = re2.compile(rf"^(\w*wallclock\w*)\s*[:=]\s*{_N}\s*s?\s*\(must be <=?\s*{_N}\)")
_VIOLATION = re2.compile(
    r"(?i)\b(?:OVER(?: (?:BUDGET|CAP|LIMIT|SIZE)|\b)"
    r"|exceed(?:s|ed)\b.{0,40}\b(?:cap|limit|budget|16\s?MB|16,?000,?000|bytes)"
    r"|does(?: not|n't) fit|too large for)"
)
_NOT_VALID = re2.compile(r"(?i)^valid\s*:\s*(false|no)\b|within .{0,30}budget\s*:\s*no\b")
_SLIDING_MODE = re2.compile(r"final_eval_mode:\s*sliding")
_VOCAB = re2.compile(r"\bvocab_size\s*[:=]\s*(\d{2,7})\b")
_DATASET = re2.compile(r"\b(fineweb\w*?_(?:sp|byte)\d+\w*)")
_FILE_SEED = re.compile(r"seed[_-]?(\d{1,12})", re.I)
_FILE_NUMBER = re.compile(
    r"(?:^|[_-])s(\d{1,12})(?=[._-]|$)|(?:log|train|run)[_-]?(\d{1,12})(?=\.[a-z]+$)|^(\d{1,12})\.[a-z]+$", re.I
)


class RunReader:
    """Turns the lines of one log into runs.

    Args:
        path: the log inside the record folder.
        budget: what may be read and kept of it; used up in reading.
    """

    def __init__(self, path: str, budget: LogBudget | None = None) -> None:
        self.path = path
        self.runs: list[LoggedRun] = []
        self.state = StreamState(budget=budget or LogBudget())
        self._max_readings = MIN_READINGS
        self._max_runs = max(MIN_RUNS, self.state.budget.runs_left)
        self._is_thinned = False
        self._before_source: tuple[int, bool, bool] | None = None
        self._half: tuple[LogLine, str] | None = None
        self._is_over = False
        self._is_sliding = False
        self._begin(1)

    @property
    def run(self) -> LoggedRun:
        """The run that lines are added to."""
        return self.runs[-1]

    def read(self, handle: IO[bytes]) -> None:
        """Read a log to its end; `runs` then holds those that logged something.

        Raises:
            RecordError: the logs of the record have more bytes than are read.
        """
        for line in stream_lines(handle, self.state):
            if line.is_border:
                self._cross_border(line)
                continue
            self._take(line)
        if self._before_source is not None:
            _go_on(self.runs[self._before_source[0] - 1], self.runs[self._before_source[0]])
        self.runs = [run for run in self.runs if _has_evidence(run)]
        self.state.budget.runs_left -= len(self.runs)

    def problems(self) -> Iterator[Problem]:
        """Yield what kept the log from being read as it should be."""
        if self.state.cut_lines:
            message = f"{self.state.cut_lines} lines are longer than the 64 KB that are read of a line"
            yield Problem(path=self.path, message=message)
        if self.state.is_dropping:
            yield Problem(
                path=self.path, message="more lines look like evidence than are read; those in the middle were not"
            )
        if self._is_thinned:
            yield Problem(
                path=self.path, message="the log holds more numbers or runs than are kept; those in the middle were not"
            )
        if self.state.is_binary:
            yield Problem(path=self.path, message="the log is not clean UTF-8 text (invalid bytes or NUL)")

    def _begin(self, line: int) -> None:
        if len(self.runs) >= self._max_runs and self._before_source is None:
            del self.runs[0]
            self._is_thinned = True
        self._max_readings = max(MIN_READINGS, self.state.budget.readings_left)
        run = LoggedRun(
            path=self.path, first_line=line, file_seed=file_seed(self.path), file_number=file_number(self.path)
        )
        self.runs.append(run)
        self._is_over = self._is_sliding = False

    def _cross_border(self, line: LogLine) -> None:
        """Source begins with an import or a definition; a line of "=" ends it, and what it seemed to log is dropped."""
        if not line.text.startswith("="):
            if self._before_source is None:
                self._before_source = (len(self.runs), self._is_over, self._is_sliding)
                self._begin(line.number)
        elif self._before_source is not None:
            num_runs, is_over, is_sliding = self._before_source
            if not any(len(run.curve) >= MIN_RUN_POINTS for run in self.runs[num_runs:]):
                del self.runs[num_runs:]
                self._is_over, self._is_sliding = is_over, is_sliding
                self._before_source = None

    def _take(self, line: LogLine) -> None:
        text = line.text
        prefix = _PREFIX.match(text[:MAX_PREFIX_CHARACTERS])
        body = text[prefix.end() :] if prefix else text
        if self._half is not None:
            first, start = self._half
            self._half = None
            if body.lstrip().startswith(("val_bpb", "bpb")):
                line, body = first, f"{start} {body.lstrip()}"
        body = body[:MAX_EVIDENCE_CHARACTERS]
        if _SOURCE.match(body) or "{" in body:
            return
        if not self._take_score(line, body):
            self._take_fact(line, body)

    # Scores

    def _take_score(self, line: LogLine, body: str) -> bool:
        match = _EVAL.match(body)
        if match is None:
            bare = _BPB.match(body)
            if bare is None:
                train = _TRAIN.match(body)
                if train is not None:
                    self._add_point(int(train[1]), f"t{train[2]}", MAX_TRAIN_POINTS)
                    return True
                return False
            label, loss, bpb, rest = bare[1], None, bare[2], bare[3]
        else:
            label, loss, bpb, rest = match[1], match[2], match[3], match[4]
            if bpb is None and not rest.strip():
                self._half = (line, body)
        step = _STEP.match(label.strip())
        if step is not None:
            self._take_validation(line, int(step[1]), loss, bpb, body)
            self.run.planned_steps = int(step[2])
            return True
        self._is_over = True
        name = label.strip(" :,|-") or "final"
        for quantity, text in _scores(loss, bpb):
            self._add(line, quantity, text, name, stage=self._stage(name, rest))
        if (time := _EVAL_TIME.search(rest)) is not None:
            self._add(
                line, "eval_seconds", time[1], name, factor=1e-3 if time[2] == "ms" else 1.0, stage=read_stage(name)
            )
        return True

    def _stage(self, name: str, rest: str) -> Stage:
        stage = read_stage(f"{name} {rest.partition('eval_time')[0]}")
        return "sliding" if stage == "roundtrip" and self._is_sliding else stage

    def _take_validation(self, line: LogLine, step: int, loss: str | None, bpb: str | None, body: str) -> None:
        if step == 0 and (self._is_over or any(reading.step == 0 for reading in self.run.readings)):
            self._begin(line.number)
        for quantity, text in _scores(loss, bpb):
            self._add(line, quantity, text, "validation", step=step)
        self._add_point(step, f"v{loss}/{bpb}", MAX_CURVE_POINTS)
        if (time := _TRAIN_TIME.search(body)) is not None:
            self._add(line, "train_seconds", time[1], "train_time", factor=_seconds(time[2]), step=step)
        if (average := _STEP_AVG.search(body)) is not None:
            self._add(line, "step_ms", average[1], "step_avg", step=step)
        self._add(line, "steps", str(step), "validation", step=step)

    def _add_point(self, step: int, text: str, limit: int) -> None:
        if len(self.run.curve) < limit:
            self.run.curve.append((step, text))
        self.state.wants_steps = len(self.run.curve) < MAX_TRAIN_POINTS

    # Everything else

    def _take_fact(self, line: LogLine, body: str) -> None:
        for pattern, take in _FACTS:
            match = pattern.search(body)
            if match is not None:
                take(self, line, match, body)

    def _take_stop(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self._add(line, "train_seconds", match[2], "stopping_early", factor=1e-3)
        if match[3] is not None:
            self._add(line, "steps", match[3], "stopping_early")

    def _take_seed(self, line: LogLine, match: re.Match[str], body: str) -> None:
        if len(body) > 400 and "=" not in body:
            return
        seed = match[1] or match[2]
        if self._is_over:
            self._begin(line.number)
        if self.run.seed is None:
            self.run.seed = Reading(
                quantity="seed", value=float(seed[:15]), origin="logged", source="log", path=self.path,
                line=line.number, text=seed.lstrip("0") or "0", label="seed",
            )  # fmt: skip

    def _take_params(self, line: LogLine, match: re.Match[str], body: str) -> None:
        if self._is_over:
            self._begin(line.number)
        self._add(line, "params", match[1] or match[2], "model_params")

    def _take_val_tokens(self, line: LogLine, match: re.Match[str], body: str) -> None:
        if self._is_over:
            self._begin(line.number)
        self._add(line, "val_tokens", match[1] or match[2], "val_tokens")

    def _take_code(self, line: LogLine, match: re.Match[str], body: str) -> None:
        kind = match[1] or ""
        self._add(line, "bytes_code", match[2], f"code size {kind}".strip())

    def _take_model(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self._add(line, "bytes_model", match[3], f"model {match[1] or match[2] or ''}".strip())

    def _take_total(self, line: LogLine, match: re.Match[str], body: str) -> None:
        tag = match[1] or ("compressed" if "model" in body[: match.start()] else "")
        self._add(line, "bytes_total", match[2], f"total {tag}".strip())

    def _take_artifact(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self._add(line, "bytes_total", match[1], "total artifact")

    def _take_megabytes(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self._add(line, "bytes_total", match[1], "total in MB", factor=1e6)

    def _take_eval_time(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self._add(line, "eval_seconds", match[1], "total_eval_time")

    def _take_limit(self, line: LogLine, match: re.Match[str], body: str) -> None:
        text = body.strip()[:200]
        limits = self.run.limits
        kept = limits if not limits or limits[-1].text != text else limits[:-1]
        self.run.limits = [*kept[:MAX_STATEMENTS], self._quote(line, body)]

    def _take_calibration(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self.run.calibration = self._reading(line, "train_seconds", match[1], "calibration on training data")

    def _take_wall(self, line: LogLine, match: re.Match[str], body: str) -> None:
        if float(match[2]) > float(match[3]) and len(self.run.overruns) < MAX_STATEMENTS:
            self.run.overruns.append(self._quote(line, body))

    def _take_violation(self, line: LogLine, match: re.Match[str], body: str) -> None:
        if len(self.run.violations) < MAX_STATEMENTS:
            self.run.violations.append(self._quote(line, body))

    def _take_vocab(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self.run.vocab_size = int(match[1])

    def _take_dataset(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self.run.dataset = match[1]

    def _take_mode(self, line: LogLine, match: re.Match[str], body: str) -> None:
        self._is_sliding = True

    def _quote(self, line: LogLine, body: str) -> Statement:
        return Statement(path=self.path, line=line.number, text=body.strip()[:200])

    def _add(
        self,
        line: LogLine,
        quantity: Quantity,
        text: str,
        label: str,
        *,
        factor: float = 1.0,
        stage: Stage = "",
        step: int | None = None,
    ) -> None:
        reading = self._reading(line, quantity, text, label, factor=factor, stage=stage, step=step)
        if reading is None:
            return
        readings = self.run.readings
        if len(readings) >= self._max_readings:
            # the first ones and the newest ones stay
            del readings[self._max_readings // 2]
            self._is_thinned = True
        else:
            self.state.budget.readings_left -= 1
        readings.append(reading)

    def _reading(
        self,
        line: LogLine,
        quantity: Quantity,
        text: str,
        label: str,
        *,
        factor: float = 1.0,
        stage: Stage = "",
        step: int | None = None,
    ) -> Reading | None:
        plain = text.replace(",", "")[:40]
        value = float(plain) * factor
        if not is_sane(value):
            return None
        return Reading(
            quantity=quantity,
            value=value,
            origin="logged",
            source="log",
            path=self.path,
            line=line.number,
            text=text[:40],
            label=label[:80],
            last_place=last_place(plain) * factor if "." in plain or factor != 1.0 else 0.0,
            stage=stage,
            step=step,
        )


_Taker = Callable[[RunReader, LogLine, "re.Match[str]", str], None]
_FACTS: tuple[tuple[re.Pattern[str], _Taker], ...] = (
    (_STOP, RunReader._take_stop),
    (_SEED, RunReader._take_seed),
    (_PARAMS, RunReader._take_params),
    (_VAL_TOKENS, RunReader._take_val_tokens),
    (_CODE, RunReader._take_code),
    (_MODEL, RunReader._take_model),
    (_TOTAL, RunReader._take_total),
    (_ARTIFACT, RunReader._take_artifact),
    (_BUDGET, RunReader._take_artifact),
    (_MEGABYTES, RunReader._take_megabytes),
    (_TOTAL_EVAL_TIME, RunReader._take_eval_time),
    (_LIMITED, RunReader._take_limit),
    (_CALIBRATION, RunReader._take_calibration),
    (_WALL, RunReader._take_wall),
    (_VIOLATION, RunReader._take_violation),
    (_NOT_VALID, RunReader._take_violation),
    (_VOCAB, RunReader._take_vocab),
    (_DATASET, RunReader._take_dataset),
    (_SLIDING_MODE, RunReader._take_mode),
)


def file_seed(path: str) -> str | None:
    """Return the seed that the name of a log states beyond doubt: `train_seed42.log`, `seed-7.txt`."""
    match = _FILE_SEED.search(path.rpartition("/")[2])
    return plain_seed(match[1]) if match else None


def file_number(path: str) -> str | None:
    """Return a number in the name of a log that may be a seed: `ternary_log_7.txt`, `train0.txt`, `s1337.txt`."""
    match = _FILE_NUMBER.search(path.rpartition("/")[2])
    return plain_seed(next(group for group in match.groups() if group)) if match else None


def plain_seed(digits: str) -> str:
    """Return a seed without leading zeros."""
    return digits.lstrip("0") or "0"


def _scores(loss: str | None, bpb: str | None) -> list[tuple[Quantity, str]]:
    found: list[tuple[Quantity, str | None]] = [("loss", loss), ("bpb", bpb)]
    return [(quantity, text) for quantity, text in found if text is not None]


def _go_on(before: LoggedRun, run: LoggedRun) -> None:
    """Give a run the settings that were printed in front of its source, where the source has no end mark."""
    if not _has_evidence(before):
        run.seed = run.seed or before.seed
        run.vocab_size = run.vocab_size or before.vocab_size
        run.dataset = run.dataset or before.dataset


def _has_evidence(run: LoggedRun) -> bool:
    return bool(run.readings)


def _seconds(unit: str) -> float:
    return {"ms": 1e-3, "s": 1.0, "m": 60.0}[unit]
