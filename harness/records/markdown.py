"""The README of a foreign record: tables, lists and headline sentences -> claims with their lines.

Only numbers whose meaning is plain are claims: cells of a table by seed, of a table "metric | value", of a training
curve, list items with a known label, and the score in title or headline. Ablations, other people's numbers and
prose are left alone: nobody is convicted by a sentence that may mean something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice

import re2

from harness.records.numbers import Printed, parse_number
from harness.records.readme_claims import Readme, make_reading
from harness.records.readme_tables import Line, find_tables, speaks_of_other_table, split_lines
from harness.records.submission import Problem, Reading, Statement
from harness.records.table_claims import TableReader
from harness.records.vocabulary import (
    Meaning,
    Quantity,
    Statistic,
    read_name,
    read_stage,
    speaks_of_other_runs,
)

MAX_README_BYTES = 4 * 2**20
MAX_README_CHARACTERS = 2**20
MAX_LINES = 20_000

_LABEL = re2.compile(
    r"^\s*(?:[-*+]|\d+\.)?\s*(?:\*\*|`|_)*([A-Za-z][^:=|]{1,60}?)(?:\*\*|`|_)*\s*(?:[:=]|≈)\s*(.{1,200})$"
)
_BPB_BEFORE = re.compile(
    r"(?:val[_ ]?)?(?:bpb|bpp)\W{0,8}?(?:of|is|:|=|≈|~)?\W{0,6}?(\d\.\d{2,10})(?![\d%x])(?!\s*nats)", re.I
)
_BPB_AFTER = re.compile(r"(?<![\d.+−-])(\d\.\d{3,10})\W{0,3}\s?(?:val[_ ]?)?(?:bpb|bpp)\b", re.I)
_DELTA_PAIR = re.compile(
    r"(?<![\d.])([-−+]?0?\.\d{3,6})\s*(?:BPB|BPP|bpb|bpp)\b[^.|\n]{0,60}?(?<![\d.])([-−+]?0?\.\d{3,6})\s*nats?\b(?!\s*/)"
    r"|(?<![\d.])([-−+]?0?\.\d{3,6})\s*nats?\b(?!\s*/)[^.|\n]{0,60}?(?<![\d.])([-−+]?0?\.\d{3,6})\s*(?:BPB|BPP|bpb|bpp)\b"
)
_STOPPED = re.compile(
    r"(?:stopped|stops|stopping|ended|finished)(?: early| by the (?:clock|cap|wallclock cap))? at\W{0,6}"
    r"([\d,]{3,9})(?:\s*/\s*[\d,]+)?\W{0,4}\s*(?:training )?steps?",
    re.I,
)
_STEPS_IN = re.compile(r"(?<![~\d,/])([\d,]{3,9})\s+(?:training )?steps in (?:600|599|10 ?min)", re.I)
_SCRIPT = re2.compile(r"(?:torchrun|python3?)\s(?:[^\n#]*?[^\w./#\n-])?([A-Za-z0-9_\-]+\.py)\b")
_LOSS_IN = re.compile(r"\bval[_ ]loss\W{0,8}(\d+\.\d{3,10})(?!\d*[%x])", re.I)
_NUM_SEEDS = re.compile(
    r"\b(\d{1,2})[- ]seeds? (?:mean|avg|average)|\b(?:mean|average) (?:of|over|across) (\d{1,2}) seeds", re.I
)
_MEAN_OF = re.compile(
    r"\b(?:mean|average)\b(?: val[_ ]?bpb)?(?: of| is)?\W{0,3}(\d\.\d{3,8})\W{0,3}(?:bits per byte|bits/byte|bpb)", re.I
)
_REACHED = re.compile(
    r"\b(?:reach|get|achieve|obtain|score|land)\w*\b[^.\d\n]{0,40}?(\d\.\d{3,8})"
    r"\W{0,3}(?:bits per byte|bits/byte|bpb)\b"
    r"|\bval[_ ]?bpb of\W{0,3}(\d\.\d{3,8})\b",
    re.I,
)
_SCORE = re.compile(r"\b(?:final )?score\W{1,6}(\d\.\d{3,8})\b", re.I)
_RUN_ITEM = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*+])?\s*\W{0,2}(?:run|exp|trial|attempt)[ _-]?\d+", re.I)
_IS_PLAN = re.compile(r"(?i)\b(?:targets?|goals?|next steps?|todo|expect(?:ed)?|hope|aim|plan(?:ned)?)\b")
# A labelled score counts as the headline in front of all sections, or in one on results.
_IS_OF_RECORD = re.compile(r"(?i)^\s*$|^\s*#\s|result|summary|score|metric|headline|tl;?dr|submission")
_SEED_ITEM = re.compile(r"^\s*[-*+]\s*\W{0,2}seed\W{0,3}(\d{1,12})\W{1,4}(\d\.\d{3,10})\b(.{0,200})$", re.I)
_BYTES_IN = re.compile(r"\b(\d{1,2},\d{3},\d{3})\s*(?:bytes|B)\b")
_SEED_LIST = re.compile(r"^\W{0,6}seeds\W{1,4}((?:\d{1,12}\W{0,3}(?:,|and)\W{0,3}){1,20}\d{1,12})\b", re.I)
_STD_IN = re.compile(r"\b(?:std|sd|σ)\W{0,4}(0?\.\d{3,8})\b", re.I)
_MEGABYTES = re.compile(r"(?<![\d.])(\d{1,2}\.\d{1,3}\s?Mi?B)\b(?!\s*(?:limit|cap|budget))")
_DELTA_IN = re.compile(
    r"(?<![\d.])(\d\.\d{3,8})\W{0,3}\s?(?:BPB|BPP|bpb).{0,30}?\b(?:delta|Δ|improvement|gain|by)\b\W{0,8}"
    r"([-−+]?0?\.\d{3,8})",
    re.I,
)
_MILLIONS = re.compile(r"(?<![\d.~])(\d{1,4}(?:\.\d+)?)\s?M(?:illion)? (?:total |trainable |model )?param", re.I)
_ANY_MILLIONS = re.compile(r"(?<![\d.~])(\d{1,4}(?:\.\d+)?)\s?M(?:illion)?\b(?! (?:tokens|bytes|steps))")
_OTHER_TIME = re.compile(r"(?i)\b(?:vs|versus|previously|formerly|originally|earlier)\b")
_THEIRS = re.compile(
    r"(?i)\bvs\.?\b|\bover (?:the|PR|#|our|baseline)|\bfrom\b|PR ?#|baseline|SOTA|previous|prior|merged"
)
MILLIONS_LABEL = "parameters"


def read_readme(raw: bytes, path: str) -> Readme:
    """Read a README: Markdown in any state, never an error.

    Args:
        raw: its bytes.
        path: its place in the folder.
    """
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    readme = Readme(text=text[:MAX_README_CHARACTERS])
    lines = list(islice(split_lines(readme.text), MAX_LINES))
    tables = find_tables(lines)
    for table in tables:
        if not readme.is_full:
            TableReader(path, readme).read(table)
    used = {number for table in tables for number in table.lines}
    headline = _Headline(path)
    for line in lines:
        if line.is_code:
            _read_command(line, path, readme)
        elif line.number not in used:
            _read_sentence(line, path, readme, headline)
        if readme.is_full:
            break
    if readme.is_full or len(text) > MAX_README_CHARACTERS or len(lines) == MAX_LINES:
        readme.problems.append(
            Problem(path=path, message=f"{path} is long or holds many numbers: not all of it was read")
        )
    _drop_variants(readme)
    return readme


def _drop_variants(readme: Readme) -> None:
    """Of several numbers of millions of parameters nobody knows which is the claimed one."""
    values = {claim.value for claim in readme.claims if claim.label == MILLIONS_LABEL}
    if len(values) > 1 or len({match[1] for match in _ANY_MILLIONS.finditer(readme.text)}) > 1:
        readme.claims = [claim for claim in readme.claims if claim.label != MILLIONS_LABEL]


@dataclass(slots=True)
class _Headline:
    path: str
    is_found: bool = False
    num_lines: int = 0
    section: str = ""
    section_line: int = 0


def _read_sentence(line: Line, path: str, readme: Readme, headline: _Headline) -> None:
    text = line.text
    if not text.strip():
        return
    headline.num_lines += 1
    if text.lstrip().startswith(">") or _IS_PLAN.search(text):
        # a quotation is of somebody else, a plan of no run
        return
    if text.lstrip().startswith("#") or text.rstrip().endswith((":", ":**")):
        headline.section, headline.section_line = text, line.number
    if text.lstrip().startswith("#") and not readme.title:
        readme.title = text.strip("# ")[:300]
    _read_pairs(line, path, readme)
    _read_seeds(line, path, readme, headline)
    _read_steps(line, path, readme)
    if headline.num_lines <= 25:
        if not headline.is_found:
            _read_headline(line, path, readme, headline)
        _read_beside_headline(line, path, readme)
    if not text.lstrip().startswith("#"):
        _read_label(line, path, readme)


def _read_headline(line: Line, path: str, readme: Readme, headline: _Headline) -> None:
    """The first score of a title or of a bold line; what stands behind "vs" or "PR" is somebody else's."""
    text = line.text
    is_title = text.lstrip().startswith("#")
    is_labelled = _LABEL.match(text) is not None and _IS_OF_RECORD.search(headline.section)
    if _SEED_ITEM.match(text) or _RUN_ITEM.match(text) or speaks_of_other_table(headline.section):
        return
    own = _THEIRS.split(text)[0]
    match = _REACHED.search(own) or _MEAN_OF.search(own)
    if is_title or "**" in text or is_labelled:
        match = _BPB_BEFORE.search(own) or _BPB_AFTER.search(own) or _SCORE.search(own) or match
    if match is None or read_stage(own[: match.start()]) in ("pre_quant", "pre_ttt"):
        return
    printed = parse_number(next(group for group in match.groups() if group))
    if printed is None:
        return
    reading = make_reading(printed, line.number, path, "headline", Meaning("bpb"))
    if reading is not None and 0.2 < reading.value < 8:
        is_mean = re.search(r"(?i)\bmean\b|\bavg\b|\baverage\b|\d-seed", text) is not None
        readme.claims.append(
            replace(reading, is_headline=True, statistic="mean" if is_mean else "value", context=text[:300])
        )
        headline.is_found = True


def _read_beside_headline(line: Line, path: str, readme: Readme) -> None:
    """Loss, deviation, size and number of seeds in a line with the headline; a number of parameters near the top."""
    text = line.text
    _read_delta(line, path, readme)
    if _is_about_others(text) or _RUN_ITEM.match(text):
        return
    statistic: Statistic = "mean" if "mean" in text.lower() else "value"
    is_bold = text.lstrip().startswith("#") or "**" in text
    has_score = is_bold and (_BPB_BEFORE.search(text) or _BPB_AFTER.search(text)) is not None
    for pattern, label, meaning, is_wanted in (
        (_LOSS_IN, "val_loss", Meaning("loss", "", statistic), is_bold),
        (_NUM_SEEDS, "number of seeds", Meaning("num_seeds"), is_bold),
        (_STD_IN, "std", Meaning("bpb", "", "std"), has_score),
        (_MEGABYTES, "size", Meaning("bytes_total"), has_score),
    ):
        match = pattern.search(text) if is_wanted else None
        printed = parse_number(next(group for group in match.groups() if group)) if match else None
        reading = make_reading(printed, line.number, path, label, meaning) if printed else None
        known = [(claim.line, claim.quantity, claim.statistic) for claim in readme.claims]
        if reading is not None and (line.number, reading.quantity, reading.statistic) not in known:
            readme.claims.append(replace(reading, context=text[:300]))
    match = _MILLIONS.search(text)
    printed = parse_number(match[1]) if match else None
    if printed is not None and (reading := make_reading(printed, line.number, path, MILLIONS_LABEL, Meaning("params"))):
        place = printed.last_place * 1e6
        readme.claims.append(replace(reading, value=printed.value * 1e6, last_place=place, text=f"{printed.text}M"))


def _read_delta(line: Line, path: str, readme: Readme) -> None:
    """A former score and the difference to it: "SOTA: 1.1147 BPB. Delta: -0.0250"."""
    match = _DELTA_IN.search(line.text)
    numbers = [parse_number(group) for group in match.groups()] if match else []
    if len(numbers) != 2 or not _is_about_others(line.text):
        return
    former, delta = (
        Reading(quantity="bpb", value=number.value, origin="claimed", source="readme", path=path, line=line.number,
                text=number.text, label=label, last_place=number.last_place)
        for number, label in zip(numbers, ("former score", "difference"), strict=True) if number is not None
    )  # fmt: skip
    readme.gaps.append((former, delta))


def _is_about_others(text: str) -> bool:
    return re.search(r"(?i)\bvs\b|\bversus\b|baseline|PR ?#|\bsota\b|previous|\bfrom\b|\bprior\b", text) is not None


def _read_label(line: Line, path: str, readme: Readme) -> None:
    """A list item or line "label: value"."""
    match = _LABEL.match(line.text)
    if match is None:
        return
    label, rest = match[1], match[2]
    meaning = read_name(label)
    if meaning is None or meaning.is_reference or meaning.statistic == "delta" or _is_sentence(label):
        return
    if meaning.quantity == "seed":
        if (seed := re.match(r"[*`\s]*(\d{1,12})[*`\s]*$", rest)) is not None:
            readme.seeds.append(_seed(seed[1], line, path, "seed"))
        return
    printed = parse_number(rest, whole=False)
    if printed is None or printed.rest.startswith(("/", "x", "->", "→", "to ", "-", "over ")):
        return
    if _is_about_others(line.text):
        return
    reading = make_reading(printed, line.number, path, label, meaning)
    if reading is not None:
        readme.claims.append(replace(reading, context=line.text[:300]))


def _is_sentence(label: str) -> bool:
    """Whether what stands before a ":" or "=" is more than a label: a number, a sum, or a bracket that goes on."""
    return re.search(r"\d\.\d|\d{3}| \+ ", label) is not None or label.count("(") != label.count(")")


def _seed(digits: str, line: Line, path: str, label: str) -> Reading:
    return Reading(
        quantity="seed",
        value=float(digits),
        origin="claimed",
        source="readme",
        path=path,
        line=line.number,
        text=digits.lstrip("0") or "0",
        label=label,
        is_reference=True,
    )


def _read_seeds(line: Line, path: str, readme: Readme, headline: _Headline) -> None:
    """A list of seeds, and an item "seed 42: 1.1178 (15,857,300 bytes)"."""
    if (listed := _SEED_LIST.match(line.text)) is not None:
        readme.seeds += [_seed(digits, line, path, "list of seeds") for digits in re.findall(r"\d+", listed[1])]
    if (item := _SEED_ITEM.match(line.text)) is None or _is_about_others(line.text):
        return
    seed = item[1].lstrip("0") or "0"
    texts = [(Meaning("bpb"), item[2])]
    if (size := _BYTES_IN.search(item[3])) is not None:
        texts.append((Meaning("bytes_total"), size[1]))
    for meaning, text in texts:
        printed = parse_number(text)
        reading = make_reading(printed, line.number, path, "item of a seed", meaning) if printed else None
        if reading is not None:
            is_other = speaks_of_other_table(headline.section)
            readme.claims.append(
                replace(reading, seed=seed, table=headline.section_line, is_reference=is_other, context=line.text[:300])
            )


def _read_pairs(line: Line, path: str, readme: Readme) -> None:
    for match in _DELTA_PAIR.finditer(line.text):
        bpb, nats = (match[1], match[2]) if match[1] else (match[4], match[3])
        first, second = parse_number(bpb), parse_number(nats)
        if first is None or second is None or not 0 < abs(first.value) < 0.5:
            continue
        readme.pairs.append(
            (
                _difference(first, "bpb", "difference in bits a byte", line, path),
                _difference(second, "loss", "difference in nats", line, path),
            )
        )


def _difference(number: Printed, quantity: Quantity, label: str, line: Line, path: str) -> Reading:
    return Reading(
        quantity=quantity,
        value=abs(number.value),
        origin="claimed",
        source="readme",
        path=path,
        line=line.number,
        text=number.text,
        label=label,
        last_place=number.last_place,
        statistic="delta",
        context=line.text[:300],
    )


def _read_steps(line: Line, path: str, readme: Readme) -> None:
    match = _STOPPED.search(line.text) or _STEPS_IN.search(line.text)
    if match is None or (printed := parse_number(match[1])) is None:
        return
    before = line.text.partition(match[0])[0]
    if _OTHER_TIME.search(line.text) or speaks_of_other_runs(before):
        return
    reading = make_reading(printed, line.number, path, "steps at the stop", Meaning("steps"))
    if reading is not None:
        readme.claims.append(replace(reading, context=line.text[:300]))


def _read_command(line: Line, path: str, readme: Readme) -> None:
    match = _SCRIPT.search(line.text.replace("\\", "").partition("#")[0])
    if match is not None:
        readme.commands.append(Statement(path=path, line=line.number, text=match[1]))
