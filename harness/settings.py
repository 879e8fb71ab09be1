"""From a preset and `--set key=value` to checked settings of model, training and export."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import UsageError, suggest
from harness.method import ExportSettings, Method, Settings
from harness.records.safeio import MAX_INTEGER
from harness.registry import MethodInfo
from harness.training.recipe import Recipe

Model = TypeVar("Model", bound=BaseModel)
SECTIONS = ("model", "train", "export")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The checked settings of one run."""

    model: Settings
    train: Recipe
    export: ExportSettings

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain values by section, in the form of the record and of `config.toml`."""
        return {section: getattr(self, section).model_dump(mode="json") for section in SECTIONS}


def parse_value(text: str) -> Any:
    """Read the right side of `--set key=value` as TOML, else as plain text: `3`, `0.1`, `true`, `[1, 2]`, `muon`."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _locate(key: str, info: MethodInfo, fields: Mapping[str, Iterable[str]]) -> tuple[str, str]:
    """Find the section of a key: `degree`, `model.degree`, `train.matrix_lr`, `legendre.degree`."""
    prefix, dot, rest = key.partition(".")
    if dot and prefix in (*SECTIONS, info.name):
        section = "model" if prefix == info.name else prefix
        return section, rest
    sections = [section for section in SECTIONS if key in fields[section]]
    if not sections:
        raise UsageError(f"--set {key}: no such setting. {suggest(key, {name for s in fields.values() for name in s})}")
    if len(sections) > 1:
        raise UsageError(f"--set {key} is ambiguous; write {' or '.join(f'{section}.{key}' for section in sections)}")
    return sections[0], key


def _validate(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageError(f"{where}.{key}: no such setting. {suggest(key, model.model_fields)}") from error
        message = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise UsageError(f"{where}{f'.{key}' if key else ''}: {message}{got}") from error


def _check_integers(value: Any, where: str) -> None:
    """Refuse whole numbers that a record cannot hold."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UsageError(f"{where}: {value} is beyond the {MAX_INTEGER:,} that a record holds")
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        _check_integers(child, f"{where}.{key}")


def validate_settings(method: type[Method], values: Mapping[str, Any]) -> RunSettings:
    """Check settings by section, as stored in a record or a `config.toml`.

    Raises:
        UsageError: a key is unknown or a value is out of its range; names the key.
    """
    for section in SECTIONS:
        _check_integers(values.get(section, {}), section)
    return RunSettings(
        model=_validate(method.settings_class, values.get("model", {}), "model"),
        train=_validate(Recipe, values.get("train", {}), "train"),
        export=_validate(ExportSettings, values.get("export", {}), "export"),
    )


def resolve_settings(
    info: MethodInfo, preset: str, overrides: Iterable[str], *, pretrained: bool = False
) -> RunSettings:
    """Apply `--set` overrides (`key=value`) to a preset of a method and check the result.

    Args:
        info: the method.
        preset: its name.
        overrides: each `key=value`.
        pretrained: whether a pretrained model is compressed, which has presets and settings of its own.

    Raises:
        UsageError: an override is not `key=value`, its key is unknown or ambiguous, or its value is refused.
    """
    method = info.load(pretrained=pretrained)
    chosen = info.preset(preset, pretrained=pretrained)
    values = {section: dict(getattr(chosen, section)) for section in SECTIONS}
    fields = {
        "model": method.settings_class.model_fields,
        "train": Recipe.model_fields,
        "export": ExportSettings.model_fields,
    }
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {override}: write it as key=value, for example --set train.matrix_lr=0.02")
        section, name = _locate(key.strip(), info, fields)
        values[section][name] = parse_value(text.strip())
    return validate_settings(method, values)
