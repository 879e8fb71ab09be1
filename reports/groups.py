"""Which runs may share a table: those of a comparison, and others that were scored on one text in one eval mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.compare_views import contender_name
from harness.record_views import Found, group_comparable
from harness.verify.across import settings_key
from reports.contenders import describe_group
from reports.gather import Material
from reports.places import Places, Slugs

Fields = dict[str, Any]


def comparison_groups(material: Material, places: Places) -> Iterator[Fields]:
    """Yield the comparisons, each with what `harness compare` says of it."""
    slugs = Slugs()
    by_folder = {found.folder.resolve(): found for found in material.records}
    for each in material.grids:
        label = places.label(each.folder)
        head = {
            "kind": "comparison",
            "slug": slugs.free("comparison", label.partition("/")[2] or label),
            "title": label,
            "folder": label,
        }
        if each.data is None or not each.data["contenders"]:
            yield {**head, "problem": each.problem or "no complete cell", "contenders": [], "curves": []}
            continue
        used = {contender["name"] for contender in each.data["contenders"]}
        members: dict[str, list[Found]] = {}
        for cell in each.grid.cells(each.folder):
            found = by_folder.get(cell.folder.resolve())
            if cell.contender.name in used and found is not None and found.record.status == "complete":
                members.setdefault(cell.contender.name, []).append(found)
        kept = ("relations", "matched", "winner", "notes", "incomplete", "tuning")
        said = {key: each.data[key] for key in kept if key in each.data}
        if "tuning" in said:  # numbers of trials are keys there
            said["tuning"] = [
                {**one, "tune_bpb": [{"trial": int(key), "bpb": bpb} for key, bpb in one["tune_bpb"].items()]}
                for one in said["tuning"]
            ]
        said["incomplete"] = [{"cell": key, "why": why} for key, why in each.data.get("incomplete", {}).items()]
        yield {**head, "problem": "", **describe_group(members, places), **said}


def record_groups(material: Material, places: Places) -> Iterator[Fields]:
    """Yield the other scored runs, put together where `harness show` puts them into one table."""
    grids = [each.folder.resolve() for each in material.grids]
    loose = [found for found in material.records if _is_loose(found, grids)]
    groups = [
        (text, chosen)
        for text, members in group_comparable(loose).items()
        for is_partial in (False, True)
        if (chosen := [each for each in members if _is_partial(each) == is_partial])
    ]
    names = Counter(chosen[0].record.data.name for _, chosen in groups)
    slugs = Slugs()
    for text, chosen in groups:
        name, partial = chosen[0].record.data.name, ", PARTIAL" if _is_partial(chosen[0]) else ""
        yield {
            "kind": "records",
            "slug": slugs.free("records", name),
            "title": f"Runs on {name if names[name] == 1 else text}{partial}",
            "problem": "",
            **describe_group(_by_contender(chosen), places),
        }


def _is_partial(found: Found) -> bool:
    return found.record.metrics.test is not None and found.record.metrics.test.partial


def _is_loose(found: Found, grids: Sequence[Path]) -> bool:
    is_scored = found.record.status == "complete" and found.record.metrics.test is not None
    return is_scored and not any(found.folder.resolve().is_relative_to(grid) for grid in grids)


def _by_contender(found: Sequence[Found]) -> dict[str, list[Found]]:
    """Put the seeds of one thing together: of one name and alike in every setting.

    Of one name with other settings, or with a seed that is there already, is a variant of its own.
    """
    variants: dict[str, list[tuple[str, dict[int, Found]]]] = {}
    for each in found:
        key, seed = settings_key(each.record), each.record.seed
        own = variants.setdefault(contender_name(each.record), [])
        runs = next((runs for known, runs in own if known == key and seed not in runs), None)
        if runs is None:
            own.append((key, runs := {}))
        runs[seed] = each
    return {
        name if nth == 0 else f"{name} (variant {nth + 1})": list(runs.values())
        for name, own in variants.items()
        for nth, (_, runs) in enumerate(own)
    }
