"""The functions that fetch evidence, and a note of everything that was fetched: what, from where, how much."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.claims.estimates import Estimate
from harness.claims.fetches import FETCH_KINDS, FETCHES
from harness.claims.quantities import Number, exact
from harness.claims.reproduction import MissingEvidenceError, Runs
from harness.claims.run_marks import eval_modes_of, num_params_of, seals_of
from harness.claims.statements import find_stated, read_submission
from harness.errors import HarnessError, MissingExtraError, UsageError, missing_extra, suggest
from harness.records.safeio import MAX_INTEGER, index_lines, read_json
from harness.records.submission import Submission

MEASURES_MODULE = "measures"
# Arguments of measures: sizes of arrays, and numbers that are none.
_LARGEST_SIZE, _LARGEST_ARGUMENT = 4096, 1e18


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A piece of evidence.

    Attributes:
        kind: construction, record or reproduction.
        call: as in the expression.
        value: as a person reads it.
        origin: folders, or what was counted or computed.
        seals: for each run the hashes of the claims that it was sealed for.
        estimate: the figure of our runs with its error; None for other evidence.
        num_params: stored parameters of these runs, geometric mean of two sorts; None for other evidence.
        eval_modes: how these runs were scored.
    """

    kind: str
    call: str
    value: str
    origin: str
    seals: tuple[tuple[str, ...], ...] = ()
    estimate: Estimate | None = None
    num_params: int | None = None
    eval_modes: tuple[str, ...] = ()


class Evidence:
    """Where evidence comes from. Fetches are kept, so that a predicate can be asked again at another level.

    Args:
        runs: our own records.
        folder: record folders of others, for `stated` and `field`; None where there are none.
    """

    def __init__(self, runs: Runs, folder: Path | None) -> None:
        self._runs, self._folder = runs, folder
        self._kept: dict[str, Number | Estimate | HarnessError] = {}
        self._origins: dict[str, str] = {}
        self._submissions: dict[Path, Submission] = {}

    def fetches(self, alpha: float, items: dict[str, Item]) -> dict[str, Callable[..., Number]]:
        """Return the functions of the language, by name.

        Args:
            alpha: level of the intervals of estimates, two-sided.
            items: takes each piece of evidence, by its call.
        """
        return {name: self._at(name, alpha, items) for name in FETCHES}

    def _at(self, name: str, alpha: float, items: dict[str, Item]) -> Callable[..., Number]:
        function: Callable[..., tuple[Number | Estimate, str]] = getattr(self, f"_fetch_{name}")

        def fetch(*arguments: Any, **keywords: Any) -> Number:
            call = _call_text(name, arguments, keywords)
            if call not in self._kept:
                try:
                    _check_call(name, function, arguments, keywords)
                    self._kept[call], self._origins[call] = function(*arguments, **keywords)
                except (MissingExtraError, ModuleNotFoundError) as error:
                    self._kept[call] = MissingEvidenceError(str(error))
                except HarnessError as error:
                    self._kept[call] = error
            found = self._kept[call]
            if isinstance(found, HarnessError):
                raise found
            estimate = found if isinstance(found, Estimate) else None
            number = found.at(alpha) if isinstance(found, Estimate) else found
            texts = _specs(arguments) if FETCH_KINDS[name] == "reproduction" else ()
            chosen = [self._runs.read(text) for text in texts]
            items[call] = Item(
                kind=FETCH_KINDS[name],
                call=call,
                value=number.shown,
                origin=self._origins[call],
                seals=seals_of(chosen),
                estimate=estimate,
                num_params=num_params_of(chosen) if estimate else None,
                eval_modes=eval_modes_of(chosen),
            )
            return number

        return fetch

    def _fetch_count(
        self, model: str, what: str, *, vocab: int, context: int = 0, settings: str = ""
    ) -> tuple[Number, str]:
        from harness.plan import build_on_meta

        method, export = _build(model, vocab, context, settings)
        network = build_on_meta(method)
        counts = method.count_params(network)
        found = {
            **{f"part {name}": number for name, number in counts.parts.items()},
            "trained": sum(counts.parts.values()),
            "stored": method.count_stored(network, export),
            "effective": counts.effective,
            "active": counts.active,
        }
        value = found.get(what, found.get(f"part {what}"))
        if value is None:
            raise UsageError(f"count(): {model} has no part '{what}'. {suggest(what, found)}")
        return exact(float(value)), f"{model} built on the meta device, vocabulary {vocab:,}"

    def _fetch_flops(self, model: str, *, vocab: int, context: int = 0, settings: str = "") -> tuple[Number, str]:
        method, _ = _build(model, vocab, context, settings)
        tokens = method.task.context
        return exact(method.flops_per_step(tokens) / tokens), f"formula of {model}, a step of {tokens:,} tokens"

    def _fetch_measure(self, name: str, **arguments: Any) -> tuple[Number, str]:
        from harness.registry import claim_packages

        plugin, _, measure = name.partition(".")
        packages = claim_packages()
        if plugin not in packages:
            raise UsageError(f"measure(): no '{plugin}'. {suggest(plugin, packages)}")
        module_name = f"{packages[plugin]}.{MEASURES_MODULE}"
        if importlib.util.find_spec(module_name) is None:
            raise UsageError(f"measure(): {plugin} measures nothing; it has no {MEASURES_MODULE}.py")
        try:
            measures = importlib.import_module(module_name).MEASURES
        except ModuleNotFoundError as error:
            raise missing_extra(f"measure({name!r})", "train") from error
        if measure not in measures:
            raise UsageError(f"measure(): {plugin} has no '{measure}'. {suggest(measure, measures)}")
        if too_large := [key for key, value in arguments.items() if not _is_measurable(value)]:
            raise UsageError(f"measure(): {too_large[0]} is no number between 0 and {_LARGEST_ARGUMENT:g}")
        try:
            return exact(float(measures[measure](**arguments))), f"{module_name}, computed now"
        except HarnessError:
            raise
        except Exception as error:  # arguments of strangers, beyond what a measure was made for
            raise UsageError(f"measure({name!r}): {type(error).__name__}: {error}") from error

    def _place(self, folder: str) -> Path:
        """Return a folder inside the evidence folder."""
        if self._folder is None:
            raise MissingEvidenceError("no --evidence folder was given")
        place = (self._folder / folder).resolve()
        if not place.is_relative_to(self._folder.resolve()):
            raise UsageError(f"{folder} lies outside of the evidence folder")
        return place

    def _fetch_stated(self, folder: str, quantity: str, source: str, *, stage: str = "") -> tuple[Number, str]:
        place = self._place(folder)
        if place not in self._submissions:
            self._submissions[place] = read_submission(place)
        found = find_stated(self._submissions[place], quantity, source, stage)
        return found.number, f"{folder}/{found.place}"

    def _fetch_field(self, folder: str, file: str, key: str) -> tuple[Number, str]:
        place = self._place(folder)
        if Path(file).name != file:
            raise UsageError(f"field(): {file!r} is no name of a file")
        if not (place / file).is_file():
            raise MissingEvidenceError(f"{folder}/{file} is not there")
        value, text = read_json(place, file)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise MissingEvidenceError(f"{folder}/{file} has no number under {key}")
        line = index_lines(text).get(key)
        return exact(float(value)), f"{folder}/{file}{f':{line}' if line else ''} {key}"

    def _fetch_missing(self, what: str) -> tuple[Number, str]:
        raise MissingEvidenceError(what)

    def _fetch_runs(self, text: str) -> tuple[Number, str]:
        try:
            chosen = self._runs.select(text)
        except MissingEvidenceError:
            return exact(0.0), "none"
        return exact(float(len(chosen))), self._folders(text)

    def _fetch_mean(self, text: str, figure: str) -> tuple[Estimate, str]:
        return self._runs.mean(text, figure), self._folders(text)

    def _fetch_one_run(self, text: str, figure: str, *, tokens: int | None = None) -> tuple[Estimate, str]:
        return self._runs.one_run(text, figure, tokens), self._folders(text)

    def _fetch_difference(self, first: str, second: str, figure: str) -> tuple[Estimate, str]:
        return self._runs.difference(first, second, figure), self._folders(first, second)

    def _fetch_ratio(self, first: str, second: str, figure: str) -> tuple[Estimate, str]:
        return self._runs.ratio(first, second, figure), self._folders(first, second)

    def _folders(self, *texts: str) -> str:
        return "; ".join(self._runs.places(text) for text in texts)


def _is_measurable(value: Any) -> bool:
    """Whether an argument of a measure is a text, or a number that it can take; whole ones are sizes of arrays."""
    if isinstance(value, str):
        return True
    largest = _LARGEST_SIZE if isinstance(value, int) and value < _LARGEST_SIZE**2 else _LARGEST_ARGUMENT
    return isinstance(value, (int, float)) and 0 <= value <= largest


def _check_call(name: str, function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Refuse arguments that a fetch does not take.

    Raises:
        UsageError: one is missing, too many, of another kind, or a number below 0.
    """
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise UsageError(f"{name}(): {error}") from None
    for key, value in bound.arguments.items():
        wanted = signature.parameters[key].annotation
        if wanted == "str" and not isinstance(value, str):
            raise UsageError(f"{name}(): {key} is a text in quotes")
        if wanted in ("int", "int | None") and not (isinstance(value, int) and 0 < value <= MAX_INTEGER):
            raise UsageError(f"{name}(): {key} is a whole number above 0")


def _specs(arguments: Sequence[Any]) -> list[str]:
    """The arguments that say which runs: those of the form METHOD/PRESET."""
    return [each for each in arguments if isinstance(each, str) and "/" in each]


def _build(model: str, vocab: int, context: int, overrides: str) -> tuple[Any, Any]:
    from harness.method import Task
    from harness.registry import find_method
    from harness.settings import resolve_settings

    name, slash, preset = model.partition("/")
    if not slash:
        raise UsageError(f"{model!r}: write METHOD/PRESET")
    info = find_method(name)
    resolved = resolve_settings(info, preset, [part.strip() for part in overrides.split(";") if part.strip()])
    task = Task(vocab_size=vocab, context=context or resolved.train.context)
    return info.load()(resolved.model, task), resolved.export


def _call_text(name: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> str:
    parts = [json.dumps(part) if isinstance(part, str) else str(part) for part in arguments]
    parts += [f"{key}={json.dumps(value) if isinstance(value, str) else value}" for key, value in keywords.items()]
    return f"{name}({', '.join(parts)})"
