"""Rules that divide works into training, tuning and test text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import DataError

Split = Literal["train", "tune", "test"]
SPLITS: tuple[Split, ...] = ("train", "tune", "test")
HELD_OUT_SHARE = 0.05
_BLANK_LINE = re.compile(rb"\n[ \t]*\r?\n+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One play, one file, one document.

    Attributes:
        name: what messages call it.
        data: the text, UTF-8.
    """

    name: str
    data: bytes


Splits = Mapping[Split, tuple[Work, ...]]
SplitRule = Callable[[Sequence[Work]], Splits]


def split_by_name(tune: Sequence[str], test: Sequence[str]) -> SplitRule:
    """Make a rule that takes the named works for tuning and test, and trains on all others."""

    def rule(works: Sequence[Work]) -> Splits:
        return {
            "train": tuple(work for work in works if work.name not in tune and work.name not in test),
            "tune": tuple(work for work in works if work.name in tune),
            "test": tuple(work for work in works if work.name in test),
        }

    return rule


def _is_character_start(text: bytes, place: int) -> bool:
    return place >= len(text) or text[place] & 0xC0 != 0x80


def cut_at_paragraph(text: bytes, target: int) -> int:
    """Find the place nearest to `target` where a paragraph starts, or else a character.

    Args:
        text: UTF-8.
        target: wanted place, in bytes; paragraphs farther than 2.5% of the text are not considered.
    """
    reach = len(text) // 40
    low, high = max(target - reach, 0), min(target + reach, len(text))
    borders = [low + match.end() for match in _BLANK_LINE.finditer(text[low:high])]
    if borders:
        return min(borders, key=lambda place: abs(place - target))
    while not _is_character_start(text, target):
        target += 1
    return target


def cut_work(work: Work, tune_at: int, test_at: int) -> Splits:
    """Cut one work in three.

    Args:
        work: the work.
        tune_at: first byte of the tuning part.
        test_at: first byte of the test part.
    """
    places = {"train": (0, tune_at), "tune": (tune_at, test_at), "test": (test_at, len(work.data))}
    return {
        split: (Work(name=f"{work.name} ({split})", data=work.data[places[split][0] : places[split][1]]),)
        for split in SPLITS
    }


def cut_at_shares(work: Work) -> Splits:
    """Cut one work at the paragraphs near 90% and 95% of its bytes.

    Raises:
        DataError: fewer than three characters.
    """
    size = len(work.data)
    tune_at = cut_at_paragraph(work.data, int(size * (1 - 2 * HELD_OUT_SHARE)))
    test_at = cut_at_paragraph(work.data, int(size * (1 - HELD_OUT_SHARE)))
    if not 0 < tune_at < test_at < size:
        starts = [place for place in range(size) if _is_character_start(work.data, place)]
        if len(starts) < 3:
            raise DataError(
                f"{work.name}: {size} bytes of text cannot be split into training, tuning and test text. "
                "Give a longer text"
            )
        tune_at, test_at = starts[-2:]
    return cut_work(work, tune_at, test_at)


def cut_tiny_shakespeare(works: Sequence[Work]) -> Splits:
    """Split as published: the last 10% is test; the last 5% before it, from a paragraph on, is for tuning."""
    (work,) = works
    test_at = int(0.9 * len(work.data))
    return cut_work(work, cut_at_paragraph(work.data, int(0.85 * len(work.data))), test_at)


def _take_held_out(groups: list[list[Work]], total_bytes: int, num_left: int) -> list[list[Work]]:
    """Remove groups until 5% of the bytes are taken, none beyond 10%; take at least one, leave `num_left`."""

    def num_bytes(group: Sequence[Work]) -> int:
        return sum(len(work.data) for work in group)

    taken: list[list[Work]] = []
    taken_bytes = 0
    for group in list(groups):
        if taken_bytes >= HELD_OUT_SHARE * total_bytes or len(groups) == num_left:
            break
        if taken_bytes + num_bytes(group) <= 2 * HELD_OUT_SHARE * total_bytes:
            taken.append(group)
            taken_bytes += num_bytes(group)
            groups.remove(group)
    if not taken:
        taken.append(min(groups, key=num_bytes))
        groups.remove(taken[0])
    return taken


def split_by_content(works: Sequence[Work]) -> Splits:
    """Split by whole works, about 5% for tuning and 5% for test, in the order of the hashes of their texts.

    Works with the same text stay together. Of fewer than three unlike works each one is cut in three.

    Raises:
        DataError: too little text to split.
    """
    by_hash: dict[bytes, list[Work]] = {}
    for work in works:
        by_hash.setdefault(hashlib.sha256(work.data).digest(), []).append(work)
    if len(by_hash) < 3:
        parts = [cut_at_shares(work) for work in works]
        return {split: tuple(piece for part in parts for piece in part[split]) for split in SPLITS}
    groups = [by_hash[digest] for digest in sorted(by_hash)]
    total_bytes = sum(len(work.data) for work in works)
    test = _take_held_out(groups, total_bytes, num_left=2)
    tune = _take_held_out(groups, total_bytes, num_left=1)
    place = {id(work): index for index, work in enumerate(works)}

    def in_order(chosen: list[list[Work]]) -> tuple[Work, ...]:
        return tuple(sorted((work for group in chosen for work in group), key=lambda work: place[id(work)]))

    return {"train": in_order(groups), "tune": in_order(tune), "test": in_order(test)}
