"""Whether a record and its `config.toml` are of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

from harness.records.safeio import JSON
from harness.records.schema import Record

SETTINGS_SECTIONS = ("model", "train", "export")


class Difference(NamedTuple):
    """A key of which record and `config.toml` have unlike values; None is absent."""

    key: str
    recorded: JSON
    configured: JSON


def config_differences(record: Record, config: Mapping[str, JSON]) -> list[Difference]:
    """List where `config.toml` differs from a record in method, data or a setting (seed and budget are rules apart)."""
    recorded, configured = _flatten(_configured_part(record)), _flatten(config)
    configured["data"] = _corpus(configured.get("data"))
    sections = tuple(f"{name}." for name in SETTINGS_SECTIONS)
    keys = dict.fromkeys([*recorded, *(key for key in configured if key.startswith(sections))])
    found = (Difference(key, recorded.get(key), configured.get(key)) for key in keys)
    return [each for each in found if each.recorded != each.configured]


def _configured_part(record: Record) -> dict[str, JSON]:
    """Return what of a record must stand in its `config.toml`."""
    settings = cast("dict[str, JSON]", record.settings.model_dump(mode="json"))
    return {
        "method": record.method.name,
        "preset": record.preset,
        "encoding_errors": record.data.encoding_errors,
        "data": _corpus(record.data.name),
        **settings,
    }


def _corpus(name: JSON) -> JSON:
    """Return the kind of a corpus: `text` of `text:some/path`, since a path may be written in many ways."""
    return name.partition(":")[0] if isinstance(name, str) else name


def _flatten(table: Mapping[str, JSON], prefix: str = "") -> dict[str, JSON]:
    """Return the leaves by dotted key, without nulls: TOML has none."""
    flat: dict[str, JSON] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = [child for child in value if child is not None]
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
