"""The functions that fetch evidence, and a note of everything that was fetched: what, from where, how much."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.claims.fetches import FETCH_KINDS, FETCHES
from harness.claims.quantities import Number, exact
from harness.claims.reproduction import Estimate, MissingEvidenceError, Runs
from harness.errors import HarnessError, MissingExtraError, UsageError, missing_extra, suggest
from harness.records.safeio import index_lines, read_json

MEASURES_MODULE = "measures"


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A piece of evidence.

    Attributes:
        kind: construction, record or reproduction.
        call: as in the expression.
        value: as a person reads it.
        origin: folders, or what was counted or computed.
        seals: hashes of the claims that the runs were sealed for; one empty text for each run that was not.
    """

    kind: str
    call: str
    value: str
    origin: str
    seals: tuple[str, ...] = ()


class Evidence:
    """Where evidence comes from. Fetches are kept, so that a predicate can be asked again at another level.

    Args:
        runs: our own records.
        folder: record folders of others, for `field`; None where there are none.
    """

    def __init__(self, runs: Runs, folder: Path | None) -> None:
        self._runs, self._folder = runs, folder
        self._kept: dict[str, Number | Estimate | HarnessError] = {}
        self._origins: dict[str, str] = {}

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
                    self._kept[call], self._origins[call] = function(*arguments, **keywords)
                except MissingExtraError as error:
                    self._kept[call] = MissingEvidenceError(str(error))
                except HarnessError as error:
                    self._kept[call] = error
            found = self._kept[call]
            if isinstance(found, HarnessError):
                raise found
            number = found.at(alpha) if isinstance(found, Estimate) else found
            seals = self._runs.seals(_specs(arguments)) if FETCH_KINDS[name] == "reproduction" else ()
            items[call] = Item(
                kind=FETCH_KINDS[name], call=call, value=number.shown, origin=self._origins[call], seals=seals
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
        return exact(float(measures[measure](**arguments))), f"{module_name}, computed now"

    def _fetch_field(self, folder: str, file: str, key: str) -> tuple[Number, str]:
        if self._folder is None:
            raise MissingEvidenceError("no --evidence folder was given")
        place = (self._folder / folder).resolve()
        if not place.is_relative_to(self._folder.resolve()) or Path(file).name != file:
            raise UsageError(f"field(): {folder}/{file} lies outside of the evidence folder")
        if not (place / file).is_file():
            raise MissingEvidenceError(f"{self._folder / folder / file} is not there")
        value, text = read_json(place, file)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise MissingEvidenceError(f"{folder}/{file} has no number under {key}")
        line = index_lines(text).get(key)
        return exact(float(value)), f"{folder}/{file}{f':{line}' if line else ''} {key}"

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
        return "; ".join(", ".join(path.name for path in self._runs.select(text).values()) for text in texts)


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
