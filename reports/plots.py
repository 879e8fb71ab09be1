"""Figures of the report (matplotlib): the same document gives the same bytes; no clock, no name of a machine."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from harness.method import BYTES_TOLERANCE
from reports.axes import format_count, set_bytes_axis, set_room
from reports.labels import place_labels, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Fields = Mapping[str, Any]
INK, MUTED, FAINT, ACCENT, PAPER = "#1c1b19", "#6a675f", "#cfccc4", "#b3361b", "#fffefb"
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "claims-harness",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
}
_PNG_DPI = 96
# A tenth of a point is not seen, and more digits would differ between processors; only in places, never in texts.
_PLACES = re.compile(rb' (?:d|x|y|points|transform)="[^"]*"')
_DIGITS = re.compile(rb"(\d+\.\d)\d+")
_NUM_COLOURS = 64
_MAX_PANELS, _MAX_LABELS = 12, 24
_DOTS = "Large dots are means, bars their 95% intervals (three seeds or more), small dots single seeds."


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        slug: name of its files.
        title: what it shows, for those who do not see it, too.
        caption: how to read it.
        group: slug of the table that it belongs to; empty for none.
        svg: the drawing.
        png: the same in pixels.
    """

    slug: str
    title: str
    caption: str
    group: str
    svg: bytes
    png: bytes


def draw_figures(document: Fields) -> list[Figure]:
    """Draw every figure of a document."""
    import matplotlib as mpl

    with mpl.rc_context(cast("Any", _SETTINGS)):
        return [*_draw_groups(document["groups"]), *_draw_sweeps(document["sweeps"])]


def _draw_groups(groups: Sequence[Fields]) -> Iterator[Figure]:
    for group in groups:
        shown = [each for each in group["contenders"] if each["artifact_bytes"]]
        if len(shown) > 1 and _are_matched(shown):
            yield _finish(
                _ranking(shown),
                slug=f"scores-{group['slug']}",
                title=f"Bits per byte at matched file bytes: {group['title']}",
                caption=f"{_DOTS} All files have the same size within 2%, so there is no trade of size to show. "
                "The axis does not begin at zero.",
                group=group["slug"],
            )
        elif len(shown) > 1:
            yield _finish(
                _pareto(shown),
                slug=f"pareto-{group['slug']}",
                title=f"Bits per byte against file bytes: {group['title']}",
                caption=f"{_DOTS} Filled and on the line: no other contender is better in both. At most 24 are named. "
                "The vertical axis does not begin at zero.",
                group=group["slug"],
            )
        yield from _draw_curves(group)


def _are_matched(contenders: Sequence[Fields]) -> bool:
    sizes = [each["artifact_bytes"] for each in contenders]
    return bool(max(sizes) <= min(sizes) * (1 + BYTES_TOLERANCE))


def _draw_curves(group: Fields) -> Iterator[Figure]:
    by_tokenizer: dict[str, list[Fields]] = {}
    for each in group["curves"]:
        if any(len(run["points"]) > 1 for run in each["runs"]):
            by_tokenizer.setdefault(each["tokenizer_sha256"], []).append(each)
    for nth, curves in enumerate(by_tokenizer.values()):
        left_out = f" The first {_MAX_PANELS} of {len(curves)} contenders." if len(curves) > _MAX_PANELS else ""
        yield _finish(
            _curves(curves[:_MAX_PANELS]),
            slug=f"curves-{group['slug']}{f'-{nth + 1}' if nth else ''}",
            title=f"Training loss against tokens: {group['title']}",
            caption="Nats a token while training, median of up to 7 neighbouring steps; every seed of one contender "
            f"over one seed of each other.{left_out} Tokens on a logarithmic axis; the vertical axis does not "
            "begin at zero.",
            group=group["slug"],
        )


def _draw_sweeps(sweeps: Sequence[Fields]) -> Iterator[Figure]:
    by_text: dict[tuple[str, str], list[Fields]] = {}
    for sweep in sweeps:
        by_text.setdefault((sweep["split_sha256"], str(sweep["eval_mode"])), []).append(sweep)
    for nth, members in enumerate(by_text.values()):
        yield _finish(
            _rate_distortion(members),
            slug=f"rate-distortion{f'-{nth + 1}' if nth else ''}",
            title="Rate and distortion: bits per byte of the tune split against file bytes of the same network",
            caption="Each line is one stored network under coarser and coarser steps (harness quantise --sweep); left "
            "and low is better. Bytes on a logarithmic axis; the vertical axis does not begin at zero.",
            group="",
        )


def _finish(drawing: Drawing, **texts: str) -> Figure:
    """Write a drawing; no date, no version."""
    from PIL import Image

    svg, pixels, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    drawing.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, facecolor="none")
    drawing.savefig(pixels, format="png", dpi=_PNG_DPI, metadata={"Software": None}, facecolor=PAPER)
    with Image.open(pixels) as image:
        image.convert("RGB").quantize(_NUM_COLOURS).save(png, format="png", optimize=True)
    places_cut = _PLACES.sub(lambda match: _DIGITS.sub(rb"\1", match[0]), svg.getvalue())
    return Figure(**texts, svg=places_cut, png=png.getvalue())


def _new_drawing(width: float, height: float, *, left: float = 0.62, low: float = 0.5, top: float = 0.12) -> Drawing:
    """Return a drawing with margins in inches, which take no measuring of texts as other layouts do."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(width, height))
    drawing.subplots_adjust(
        left=left / width, bottom=low / height, right=1 - 0.12 / width, top=1 - top / height, wspace=0.12, hspace=0.3
    )
    return drawing


def _ranking(contenders: Sequence[Fields]) -> Drawing:
    """Contenders by rising mean, one a row."""
    drawing = _new_drawing(7.6, 0.36 * len(contenders) + 0.75, left=1.9)
    axes = drawing.add_subplot()
    for row, each in enumerate(reversed(contenders)):
        _mark(axes, each, "x", row, is_filled=each is contenders[0])
    axes.set_yticks(range(len(contenders)), reversed(short_names([each["name"] for each in contenders])), color=INK)
    axes.set_ylim(-0.6, len(contenders) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel("bits per byte, test")
    return drawing


def _mark(axes: Axes, contender: Fields, along: str, place: float, *, is_filled: bool) -> None:
    """Draw a mean with its seeds and its interval, along one axis at a place of the other."""

    def at(value: float) -> tuple[float, float]:
        return (value, place) if along == "x" else (place, value)

    colour = ACCENT if is_filled else INK
    own = [run["val_bpb"] for run in contender["seeds"]]
    if contender["low_bpb"] is not None and len(own) > 2:
        ends = (at(contender["low_bpb"]), at(contender["high_bpb"]))
        axes.plot(*zip(*ends, strict=True), color=colour, linewidth=0.9, zorder=3)
    xs, ys = zip(*map(at, own), strict=True)
    axes.scatter(xs, ys, s=7, color=MUTED, linewidths=0, zorder=3)
    face = ACCENT if is_filled else PAPER
    x, y = at(contender["mean_bpb"])
    axes.scatter([x], [y], s=34, facecolor=face, edgecolor=colour, linewidths=1.2, zorder=4)


def _pareto(contenders: Sequence[Fields]) -> Drawing:
    drawing = _new_drawing(7.6, 4.3)
    axes = drawing.add_subplot()
    names = short_names([each["name"] for each in contenders])
    sizes = [each["artifact_bytes"] for each in contenders]
    axes.set_ylabel("bits per byte, test")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    front = sorted((each["artifact_bytes"], each["mean_bpb"]) for each in contenders if each["is_on_front"])
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color=ACCENT, linewidth=1.0, drawstyle="steps-post", zorder=2)
    for each in contenders:
        _mark(axes, each, "y", each["artifact_bytes"], is_filled=each["is_on_front"])
    set_bytes_axis(axes, sizes)
    set_room(axes, sizes, [value for each in contenders for value in _extent(each)])
    named = sorted(zip(contenders, names, strict=True), key=lambda pair: not pair[0]["is_on_front"])[:_MAX_LABELS]
    points = [(each["artifact_bytes"], each["mean_bpb"], name) for each, name in named]
    corners = [
        corner for (x, y), (next_x, next_y) in pairwise(front) for corner in ((x, y), (next_x, y), (next_x, next_y))
    ]
    place_labels(drawing, axes, points, colour=INK, line=corners)
    return drawing


def _extent(contender: Fields) -> list[float]:
    values = [run["val_bpb"] for run in contender["seeds"]]
    if contender["low_bpb"] is not None and len(values) > 2:
        values += [contender["low_bpb"], contender["high_bpb"]]
    return values


def _curves(curves: Sequence[Fields]) -> Drawing:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    num_columns = min(4, len(curves))
    num_rows = -(-len(curves) // num_columns)
    drawing = _new_drawing(2.25 * num_columns + 0.7, 1.75 * num_rows + 0.6, top=0.25)
    panels = drawing.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False).flat
    names = short_names([each["name"] for each in curves])
    for panel, own, name in zip(panels, curves, names, strict=False):
        for other in curves:
            if other is not own:
                # every other point is enough of what only stands behind
                _draw_points(panel, other["runs"][0]["points"][::2], color=FAINT, linewidth=0.8, zorder=1)
        for run in own["runs"]:
            _draw_points(panel, run["points"], color=ACCENT, linewidth=1.1, zorder=3)
        panel.set_title(name, fontsize=8.0)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(numticks=5))
        panel.xaxis.set_major_formatter(FuncFormatter(format_count))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_locator(MaxNLocator(4))
    for panel in list(panels)[len(curves) :]:
        panel.set_visible(False)
    drawing.text(0.5, 0.02, "tokens trained on", fontsize=9.0, color=MUTED, ha="center")
    drawing.text(0.008, 0.5, "nats a token", fontsize=9.0, color=MUTED, va="center", rotation="vertical")
    return drawing


def _draw_points(panel: Axes, points: Sequence[Sequence[float]], **style: Any) -> None:
    if points:
        panel.plot(*zip(*points, strict=True), **style)


def _rate_distortion(sweeps: Sequence[Fields]) -> Drawing:
    drawing = _new_drawing(7.6, 4.3)
    axes = drawing.add_subplot()
    lines = [sorted((point["artifact_bytes"], point["val_bpb"]) for point in sweep["points"]) for sweep in sweeps]
    names = short_names([sweep["name"] for sweep in sweeps])
    axes.set_ylabel("bits per byte, tune")
    axes.grid(axis="y")
    dashes = ("-", "--", "-.", ":")
    kinds = list(dict.fromkeys(names))
    for line, name in zip(lines, names, strict=True):
        at = kinds.index(name)
        axes.plot(
            *zip(*line, strict=True),
            color=ACCENT if at == 0 else INK,
            linestyle=dashes[at % 4],
            linewidth=1.1,
            marker="o",
            markersize=3,
        )
    sizes, scores = ([point[at] for line in lines for point in line] for at in (0, 1))
    set_bytes_axis(axes, sizes)
    set_room(axes, sizes, scores)
    firsts = [(line[0][0], line[0][1], name) for line, name in zip(lines, names, strict=True)]
    place_labels(
        drawing,
        axes,
        list({name: (x, y, name) for x, y, name in firsts}.values()),
        colour=INK,
        line=[point for line in lines for point in line],
    )
    return drawing
