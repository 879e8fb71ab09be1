"""Names of places, curves from logs, labels of points, ids of drawings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.curves import NUM_POINTS, read_curve
from reports.document import rounded
from reports.labels import place_labels, short_names
from reports.places import Places, slug_of
from reports.plots import Figure
from reports.svg import inline_svg


def test_absolute_roots_are_known_by_their_last_name(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "records", tmp_path / "b" / "records"
    places = Places([first, second, Path("comparisons/x")])
    assert places.label(first / "one") == "records/one"
    assert places.label(second / "one") == "records-2/one"
    assert places.label(Path("comparisons/x/cell")) == "comparisons/x/cell"
    found = places.relabel({"message": f"{second}/one: wrong", "numbers": [1.5, f"in {first}"]})
    assert found == {"message": "records-2/one: wrong", "numbers": [1.5, "in records"]}


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_a_slug_can_be_an_id(text: str) -> None:
    slug = slug_of(text)
    assert slug
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in slug)


def test_computed_numbers_lose_what_processors_differ_in() -> None:
    assert rounded({"a": [1.2345678901234567, 3, "x", None]}) == {"a": [1.23456789, 3, "x", None]}


def write_log(folder: Path, losses: list[float]) -> Path:
    steps = [{"step": at + 1, "loss_nats": loss, "tokens": 64 * (at + 1)} for at, loss in enumerate(losses)]
    lines = [{"event": "start"}, *({"event": "step", **step} for step in steps)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_short_curve_is_taken_whole_with_medians_of_neighbours(tmp_path: Path) -> None:
    # medians of (5), (5 1 4), (5 1 4 9 3), (4 9 3) and (3)
    found = read_curve(write_log(tmp_path, [5.0, 1.0, 4.0, 9.0, 3.0]))
    assert found == [(64, 5.0), (128, 4.0), (192, 4.0), (256, 4.0), (320, 3.0)]


def test_a_long_curve_keeps_its_ends(tmp_path: Path) -> None:
    points = read_curve(write_log(tmp_path, [10.0 - 0.001 * at for at in range(5000)]))
    assert len(points) <= NUM_POINTS
    assert points[0] == (64, 10.0)
    assert points[-1] == (64 * 5000, pytest.approx(10 - 4.999))


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "step", "loss_nats": NaN, "tokens": 1}',
        '{"event": "step", "loss_nats": "2", "tokens": 1}',
        '{"event": "step", "loss_nats": true, "tokens": 1}',
        '{"event": "step", "tokens": 1}',
        '{"event": "step"',
        "[]",
    ],
)
def test_a_broken_log_has_no_curve(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_text(f"{line}\n")
    assert read_curve(tmp_path) == []
    assert read_curve(tmp_path / "nowhere") == []


def test_names_lose_what_most_end_with() -> None:
    names = ["dense/small, 200steps", "mpo/small, 200steps", "mpo/small, 100steps from x"]
    assert short_names(names) == ["dense/small", "mpo/small", "mpo/small, 100steps from x"]
    same = short_names(["x" * 50 + "a", "x" * 50 + "b"])
    assert len(set(same)) == 2


def test_labels_stand_beside_their_points_and_not_on_each_other() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(8, 4))
    axes = drawing.add_subplot()
    axes.set_xlim(0, 2)
    axes.set_ylim(0, 1)
    # the first two would write over each other, the last has no room at its right
    points = [(0.5, 0.5, "the first of them"), (0.55, 0.51, "the second of them"), (1.95, 0.2, "at the edge")]
    place_labels(drawing, axes, points, colour="#000000")
    renderer = FigureCanvasAgg(drawing).get_renderer()
    first, second, edge = (text.get_window_extent(renderer) for text in axes.texts)
    assert not first.overlaps(second)
    assert edge.x1 < axes.transData.transform((1.95, 0.2))[0]
    assert axes.bbox.x0 <= first.x0


def test_a_drawing_takes_the_colours_of_the_page_and_keeps_its_ids_to_itself() -> None:
    svg = (
        b'<?xml version="1.0"?>\n<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" viewBox="0 0 10 10">\n'
        b'<metadata>a date</metadata><defs><style type="text/css">*{stroke: red}</style></defs>\n'
        b'<g id="figure_1"><path id="m1" style="fill: #b3361b"/><use xlink:href="#m1" clip-path="url(#m1)"/>'
        b"<text style=\"font: 8px 'DejaVu Sans'; text-anchor: middle\">a &lt;b&gt;</text></g></svg>"
    )
    found = inline_svg(Figure(slug="one", title="t", caption="c", group="", svg=svg, png=b""))
    assert found.startswith('<svg viewBox="0 0 10 10" role="img" aria-labelledby="one-title"')
    assert 'id="one-m1"' in found
    assert 'href="#one-m1" clip-path="url(#one-m1)"' in found
    assert "figure_1" not in found
    assert "fill: var(--accent)" in found
    assert "font-size: 8px; font-family: inherit" in found
    assert "a &lt;b&gt;" in found
    assert not any(word in found for word in ("metadata", "<style", "a date"))
