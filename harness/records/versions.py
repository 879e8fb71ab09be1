"""From the JSON of any known schema version to a checked record, with errors that name the field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import cast

from pydantic import ValidationError

from harness.errors import RecordError
from harness.records.safeio import JSON
from harness.records.schema import SCHEMA_VERSION, Record

# From version n to n + 1, on plain JSON. Empty: version 1 is the first that was published.
Upgrade = Callable[[dict[str, JSON]], dict[str, JSON]]
UPGRADES: Mapping[int, Upgrade] = {}


def upgrade(
    data: dict[str, JSON], *, upgrades: Mapping[int, Upgrade] = UPGRADES, target: int = SCHEMA_VERSION
) -> dict[str, JSON]:
    """Bring the content of a record up to the current version, one version at a time.

    Raises:
        RecordError: it has no version, or one that this program does not know.
    """
    version = data.get("schema")
    if isinstance(version, bool) or not isinstance(version, int):
        raise RecordError(f"record.json: schema is {version!r:.40}, expected a version number up to {target}")
    if version > target:
        raise RecordError(
            f"record.json: schema {version} is newer than {target}, the newest this program reads. "
            "Update claims-harness."
        )
    while version < target:
        if version not in upgrades:
            raise RecordError(f"record.json: schema {version} is not known; versions up to {target} are read")
        try:
            data = {**upgrades[version](data), "schema": version + 1}
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise RecordError(f"record.json: is not a record of schema {version} ({error!r:.80})") from error
        version += 1
    return data


def parse_record(value: JSON) -> tuple[Record, tuple[str, ...]]:
    """Check the content of a `record.json`, of any version this program knows.

    Returns:
        The record, and the keys that it does not know (dotted paths), which were left out.

    Raises:
        RecordError: names the first field that is wrong, what was expected and what stands there.
    """
    if not isinstance(value, dict):
        raise RecordError(f"record.json holds a {type(value).__name__}, expected an object")
    data = upgrade(value)
    try:
        return Record.model_validate(data), ()
    except ValidationError as error:
        unknown = [entry["loc"] for entry in error.errors() if entry["type"] == "extra_forbidden"]
        if not unknown:
            raise _describe(error) from error
    pruned = copy.deepcopy(data)
    for place in unknown:
        _remove(pruned, place)
    try:
        return Record.model_validate(pruned), tuple(".".join(map(str, place)) for place in unknown)
    except ValidationError as error:
        raise _describe(error) from error


def _remove(data: JSON, place: tuple[int | str, ...]) -> None:
    for key in place[:-1]:
        data = cast("dict[int | str, JSON]", data)[key]
    del cast("dict[int | str, JSON]", data)[place[-1]]


def _describe(error: ValidationError) -> RecordError:
    errors = error.errors()
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    got = f" (got {first['input']!r:.60})" if place and first["type"] != "missing" else ""
    more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
    return RecordError(f"record.json: {f'{place}: ' if place else ''}{message}{got}{more}")


def record_json_schema() -> dict[str, JSON]:
    """Return the JSON Schema of `record.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Record.model_json_schema(by_alias=True),
        "title": f"claims-harness record, version {SCHEMA_VERSION}",
    }
