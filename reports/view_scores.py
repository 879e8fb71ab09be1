"""Scores, costs and seeds of the contenders of each table; what is unlike never shares one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.ledger import NONE_TEXT, Cell, Column, Ledger, Sheet, columns, words
from reports.view_bytes import Bar, byte_bars, shade

Fields = Mapping[str, Any]
# heading, key of a contender, style, meaning
_COLUMNS = (
    ("bits/byte", "mean_bpb", "bpb", "mean over seeds, test split, scored from the stored file"),
    ("sd", "sd_bpb", "bpb", "standard deviation over seeds"),
    ("accuracy", "token_accuracy", "percent", "of tokens"),
    ("file bytes", "artifact_bytes", "count", "size of the stored file"),
    ("stored", "stored", "count", "stored parameters: unique coded numbers, scales included"),
    ("effective", "effective", "count", "parameters of the dense equivalent"),
    ("active", "active", "count", "parameters multiplied for each token"),
    ("steps", "steps", "count", "optimiser steps, ancestors included"),
    ("tokens", "tokens", "count", "tokens trained on, ancestors included"),
    ("FLOPs", "flops", "power", "operations of training, ancestors included"),
    ("seconds", "seconds", "tenths", "wall clock; only where all runs were on one machine"),
    ("peak MB", "peak_memory_bytes", "megabytes", "peak memory of training"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupView:
    """One table of contenders with what belongs to it.

    Attributes:
        group: of the document.
        headline: what it shows, in a sentence.
        conditions: on what text, in which mode, on which machine.
        sheets: contenders, pairs, seeds, tuning.
        bars: stored bytes by part.
        part_names: those that have a shade, by their bytes over all bars; then "other".
        notes: what to beware of.
        command: repeats it.
    """

    group: Fields
    headline: str
    conditions: Sequence[Cell]
    sheets: Sequence[Sheet]
    bars: Sequence[Bar]
    part_names: Sequence[str]
    notes: Sequence[str]
    command: str


def group_views(ledger: Ledger) -> Iterator[GroupView]:
    """Yield the tables, comparisons first."""
    for index, group in enumerate(ledger.document["groups"]):
        names, bars = shade(list(byte_bars(ledger, index, group)))
        yield GroupView(
            group=group,
            headline=_headline(group),
            conditions=list(_conditions(ledger, index, group)),
            sheets=list(_sheets(ledger, index, group)),
            bars=bars,
            part_names=names,
            notes=list(_notes(group)),
            command=_command(ledger, group),
        )


def _headline(group: Fields) -> str:
    if group["problem"]:
        return f"Cannot be compared: {group['problem']}"
    if group["kind"] == "comparison":
        won = (
            f"{group['winner']} is better than each other one"
            if group["winner"]
            else "no contender is shown to be better than each other one"
        )
        return f"One budget for all: {won}."
    first = group["contenders"][0]["name"]
    return (
        f"Lowest mean: {first}. These runs were not made to match; differences beyond chance are judged in comparisons."
    )


def _conditions(ledger: Ledger, index: int, group: Fields) -> Iterator[Cell]:
    if not group["contenders"]:
        return
    path, mode = f"groups.{index}", group["eval_mode"]
    yield words(f"{group['data']}, ")
    yield ledger.computed(f"{path}.test_bytes", "count")
    yield words(f" bytes of test text; eval mode {mode['mode']}, window ")
    yield ledger.computed(f"{path}.eval_mode.context", "count")
    yield words(", stride ")
    yield ledger.computed(f"{path}.eval_mode.stride", "count")
    yield words("; ")
    yield ledger.computed(f"{path}.num_runs", "count")
    yield words(f" runs on {', '.join(group['machines'])}.")
    if "matched" in group:
        yield words(f" Matched: {', '.join(group['matched']) or 'nothing'}.")
    if group["is_partial"]:
        yield words(" PARTIAL: only a part of the split was scored.", style="fail")


def _sheets(ledger: Ledger, index: int, group: Fields) -> Iterator[Sheet]:
    if not group["contenders"]:
        return
    yield _contenders_sheet(ledger, index, group)
    yield _seeds_sheet(ledger, index, group)
    if group.get("relations"):
        yield _relations_sheet(ledger, index, group)
    if group.get("tuning"):
        yield _tuning_sheet(ledger, index, group)


def _contenders_sheet(ledger: Ledger, index: int, group: Fields) -> Sheet:
    contenders = group["contenders"]
    shown = [each for each in _COLUMNS if any(one[each[1]] is not None for one in contenders)]
    has_front = "artifact_bytes" not in group.get("matched", ())
    rows = []
    for at, each in enumerate(contenders):
        numbers = [ledger.computed(f"groups.{index}.contenders.{at}.{key}", style) for _, key, style, _ in shown]
        front = [words("yes" if each["is_on_front"] else "")] if has_front else []
        rows.append([words(each["name"]), *numbers, *front])
    heads = [Column(name=name, is_number=True, hint=hint) for name, _, _, hint in shown]
    front_head = Column(name="front", hint="no other one is better in both bits/byte and file bytes")
    return Sheet(
        title="Scores and costs",
        columns=[Column(name="contender"), *heads, *([front_head] if has_front else [])],
        rows=rows,
    )


def _seeds_sheet(ledger: Ledger, index: int, group: Fields) -> Sheet:
    """One row a contender, one column a seed: every run that a mean is of."""
    seeds = sorted({run["seed"] for each in group["contenders"] for run in each["seeds"]})
    rows = []
    for at, each in enumerate(group["contenders"]):
        path = f"groups.{index}.contenders.{at}"
        runs = {run["seed"]: run for run in each["seeds"]}
        own = [
            ledger.number(f"{runs[seed]['folder']}/record.json#metrics.test.val_bpb", "bpb")
            if seed in runs
            else words("")
            for seed in seeds
        ]
        low, high = (ledger.computed(f"{path}.{key}", "bpb") for key in ("low_bpb", "high_bpb"))
        rows.append(
            [
                words(each["name"]),
                ledger.computed(f"{path}.n", "count"),
                *own,
                ledger.computed(f"{path}.mean_bpb", "bpb"),
                ledger.computed(f"{path}.sd_bpb", "bpb"),
                low,
                high,
            ]
        )
    names = ["contender", "n", *(f"seed {seed}" for seed in seeds), "mean", "sd", "95% from", "to"]
    return Sheet(
        title="Seeds, bits/byte",
        columns=columns(*names, numbers="|".join(names[1:])),
        rows=rows,
        note="95%: Student's t interval of the mean over seeds; none for a single seed.",
    )


def _relations_sheet(ledger: Ledger, index: int, group: Fields) -> Sheet:
    rows = []
    for at, each in enumerate(group["relations"]):
        path = f"groups.{index}.relations.{at}"
        rows.append(
            [
                words(each["first"]),
                words(each["second"]),
                ledger.computed(f"{path}.difference", "signed"),
                ledger.computed(f"{path}.over_seeds.low", "signed"),
                ledger.computed(f"{path}.over_seeds.high", "signed"),
                ledger.computed(f"{path}.over_text.low", "signed"),
                ledger.computed(f"{path}.over_text.high", "signed"),
                ledger.computed(f"{path}.p_holm", "p"),
                ledger.computed(f"{path}.visible_bpb", "bpb"),
                words(each["verdict"], style="settled" if each["better"] else ""),
            ]
        )
    names = ("A", "B", "A − B", "seeds from", "seeds to", "text from", "text to", "p (Holm)", "visible", "verdict")
    return Sheet(
        title="Pairs, bits/byte",
        columns=columns(*names, numbers="|".join(names[2:9])),
        rows=rows,
        note="Below zero A is better. 95% intervals over seeds (paired) and over the test text (block bootstrap); p by "
        "both errors, corrected for the number of pairs (Holm); visible: the smallest difference that these seeds "
        "would settle.",
    )


def _tuning_sheet(ledger: Ledger, index: int, group: Fields) -> Sheet:
    rows = []
    width = max(len(each["tune_bpb"]) for each in group["tuning"])
    for at, each in enumerate(group["tuning"]):
        path = f"groups.{index}.tuning.{at}"
        trials = [ledger.computed(f"{path}.tune_bpb.{nth}.bpb", "bpb") for nth in range(width)]
        best = NONE_TEXT if each["best"] is None else f"trial {each['best']}"
        rows.append([words(each["contender"]), ledger.computed(f"{path}.num_trials", "count"), *trials, words(best)])
    names = ["contender", "trials", *(f"trial {nth}" for nth in range(width)), "chosen"]
    return Sheet(
        title="Tuning, bits/byte of the tune split",
        columns=columns(*names, numbers="|".join(names[1:-1])),
        rows=rows,
        note="The same points of the learning rates for everyone; every trial is kept. Trial 0 is the preset as it is.",
    )


def trend_sheets(ledger: Ledger) -> Iterator[Sheet]:
    """Yield for each comparison at several sizes how the difference of each pair goes with size."""
    names = ("A", "B", "seeds", "slope", "95% from", "to", "p (Holm)", "with size")
    for index, ladder in enumerate(ledger.document["ladders"]):
        rows = []
        for at, each in enumerate(ladder["trends"]):
            path = f"ladders.{index}.trends.{at}"
            rows.append(
                [
                    words(each["first"]),
                    words(each["second"]),
                    ledger.computed(f"{path}.num_seeds", "count"),
                    ledger.computed(f"{path}.slope", "signed"),
                    ledger.computed(f"{path}.low", "signed"),
                    ledger.computed(f"{path}.high", "signed"),
                    ledger.computed(f"{path}.p_holm", "p"),
                    words(each["verdict"]),
                ]
            )
        if rows:
            yield Sheet(
                title=f"Differences with size: {ladder['folder']}",
                columns=columns(*names, numbers="|".join(names[2:7])),
                rows=rows,
                note="Bits/byte of A - B more for each doubling of the stored parameters, between the sizes run.",
            )


def _notes(group: Fields) -> Iterator[str]:
    yield from group.get("notes", ())
    for each in group.get("incomplete", ()):
        yield f"not complete: {each['cell']}: {each['why']}"
    few = [each["name"] for each in group["contenders"] if len(each["seeds"]) < 3]
    if few and group["kind"] == "records":
        yield f"fewer than 3 seeds, which a difference between methods needs: {', '.join(few)}"


def _command(ledger: Ledger, group: Fields) -> str:
    if group["kind"] == "comparison":
        return f"harness compare --resume {group['folder']} --show-only"
    return f"harness show {' '.join(ledger.document['paths'])}"
