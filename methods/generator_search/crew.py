"""Who trains the candidates of a search: this process or several, with a log from which a killed search goes on."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.records.logs import LOG_FILE, LogEvent, LogWriter, read_log
from methods.generator_search.trial import Bench, Result, Trial, run_trial

SCHEMA = 1


class Crew:
    """Trains candidates, each one only once, and logs every result as it comes.

    Args:
        bench: what all trials have in common.
        executor: where trials run; None for this process.
        log: of the search; appended to.
        known: results that the log already had.
        say: told each new result.
    """

    def __init__(
        self,
        bench: Bench,
        executor: Executor | None,
        log: LogWriter,
        known: Mapping[Trial, Result],
        say: Callable[[str], None],
    ) -> None:
        self._bench, self._executor, self._log, self._say = bench, executor, log, say
        self._known = dict(known)
        self.num_run = 0

    def run(self, trials: Sequence[Trial]) -> Mapping[Trial, Result]:
        """Return the result of each trial; those that the log has are not run again."""
        for trial, result in self._run_new([trial for trial in trials if trial not in self._known]):
            result = replace(result, seconds=round(result.seconds, 2))
            self._log.write("trial", **asdict(trial), **asdict(result))
            self._known[trial] = result
            self.num_run += 1
            score = result.failure or f"{result.tune_bpb:.4f} bits/byte"
            self._say(f"{trial.num_steps} steps: {score}, {result.seconds:.1f} s: {trial.expression}")
        return {trial: self._known[trial] for trial in trials}

    def _run_new(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Result]]:
        if self._executor is None:
            for trial in trials:
                yield trial, run_trial(self._bench, trial)
            return
        futures = {self._executor.submit(run_trial, self._bench, trial): trial for trial in trials}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def open_crew(
    folder: Path, search: Mapping[str, Any], bench: Bench, num_workers: int, say: Callable[[str], None]
) -> Iterator[Crew]:
    """Open the log of a search in its folder, with everything that it asked for in its first line, and hire workers.

    Args:
        folder: of the search; it exists.
        search: settings of it as plain values, which a search that goes on must share.
        bench: what all trials have in common.
        num_workers: processes; 1 trains in this one.
        say: told each new result.

    Raises:
        UsageError: the log is that of another search.
        RecordError: the log is damaged.
    """
    with LogWriter(folder) as log:
        events = read_log(folder).events
        if not events:
            log.write("search", schema=SCHEMA, **search)
        else:
            _check_same(folder, events[0], search)
        known = dict(_read_trial(each) for each in events if each.event == "trial")
        with _hire(num_workers) as executor:
            yield Crew(bench, executor, log, known, say)


def _check_same(folder: Path, first: LogEvent, search: Mapping[str, Any]) -> None:
    found = {key: value for key, value in first.fields.items() if key not in ("event", "schema")}
    if first.event != "search" or first.fields.get("schema") != SCHEMA:
        raise UsageError(f"{folder / LOG_FILE} is no log of a search; choose another --out")
    for key in sorted(found.keys() | search.keys()):
        if found.get(key) != search.get(key):
            raise UsageError(
                f"{folder} holds a search with {key} = {found.get(key)!r:.80}, not {search.get(key)!r:.80}; "
                "choose another --out"
            )


def _read_trial(event: LogEvent) -> tuple[Trial, Result]:
    def take(key: str, kinds: tuple[type, ...]) -> Any:
        value = event.fields.get(key)
        if not isinstance(value, kinds):
            raise UsageError(f"{LOG_FILE} line {event.line}: {key} is {value!r:.40}; choose another --out")
        return value

    trial = Trial(expression=take("expression", (str,)), num_steps=take("num_steps", (int,)))
    score = take("tune_bpb", (float, int, type(None)))
    return trial, Result(tune_bpb=score, seconds=take("seconds", (float, int)), failure=take("failure", (str,)))


@contextmanager
def _hire(num_workers: int) -> Iterator[Executor | None]:
    if num_workers == 1:
        yield None
        return
    # spawned: torch's threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_leave_with_parent)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """End this worker when the search is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
