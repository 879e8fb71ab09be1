"""What the page says, that strangers' texts are texts, that unlike scores stay apart, that it is the same each time."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from page_parser import parse_page
from report_factory import HOSTILE, make_evidence, make_ladder, only_given_claims, write_claims

from harness.tables import clean
from reports.command import write_report


def test_the_first_screen_answers(site) -> None:
    page = parse_page(site.html)
    hero = page.find("section", id="top")[0]
    tally = [re.sub(r"\s+", " ", item.text).strip() for item in hero.find("ul")[0].find("li")]
    assert [item.split(" ")[0] for item in tally] == ["1", "1", "1", "1", "0"]
    sentence = re.sub(r"\s+", " ", page.find("ol")[0].text)
    assert "Of 4 claims 1 holds, 1 does not hold, 1 is open and 1 cannot be checked." in sentence


def test_every_claim_record_and_folder_can_be_linked_to(site) -> None:
    page = parse_page(site.html)
    ids = [element.attributes["id"] for element in page.find(id="")]
    assert len(ids) == len(set(ids)), "an id stands twice"
    assert {f"claim-paper.C{at}" for at in (1, 2, 3, 4)} <= set(ids)
    linked = {
        link.attributes["href"][1:] for link in page.find("a", href="") if link.attributes["href"].startswith("#")
    }
    assert linked <= set(ids), linked - set(ids)
    assert any(one.startswith("record-") for one in ids)
    assert any(one.startswith("audit-") for one in ids)


def test_nothing_comes_from_elsewhere(site) -> None:
    page = parse_page(site.html)
    for tag in ("link", "iframe", "img", "object", "embed", "base"):
        assert not page.find(tag), tag
    assert not page.find(src="")
    for link in page.find("a", href=""):
        assert re.match(r"https?://|#|report\.(md|json)$|figures/", link.attributes["href"]), link.attributes
    assert "default-src 'none'" in page.find("meta", **{"http-equiv": ""})[0].attributes["content"]


def test_texts_of_strangers_are_texts(site) -> None:
    html, markdown = site.html, site.markdown
    page = parse_page(html)
    assert len(page.find("script")) == 1
    handlers = [(e.tag, key) for e in page.find() for key in e.attributes if key.startswith("on")]
    assert handlers == []
    assert page.text.count(clean(HOSTILE)) > 10
    for text in (html, markdown):
        assert all(c.isprintable() or c == "\n" for c in text), [c for c in text if not c.isprintable() and c != "\n"][
            :3
        ]
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert not [link for link in page.find("a", href="") if link.attributes["href"].startswith("javascript")]


def test_rows_of_markdown_have_as_many_cells_as_their_heads(site) -> None:
    width = 0
    checked = 0
    for line in site.markdown.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line)) - 1
        width = width or cells
        assert cells == width, line
        checked += 1
    assert checked > 60


def test_unlike_scores_share_no_table(site) -> None:
    groups = [each for each in site.document["groups"] if each["kind"] == "records"]
    assert len(groups) == 3
    folders = [{run["folder"] for each in group["contenders"] for run in each["seeds"]} for group in groups]
    apart = {"records/other-window", "records/partial", "records/plain-seed1"}
    assert all(len(own & apart) == 1 for own in folders)
    partial = next(group for group in groups if group["is_partial"])
    assert "PARTIAL" in partial["title"]
    article = parse_page(site.html).find("article", id=partial["slug"])[0]
    assert "only a part of the split was scored" in article.text


def test_what_was_not_verified_is_said(site) -> None:
    gaps = parse_page(site.html).find("section", id="gaps")[0].text
    for words in ("Artifacts were not decoded", "the run is failed", "paper.C3", "days", "not published: everything"):
        assert words in gaps, words


def test_a_folder_of_others_is_audited(site) -> None:
    audit = parse_page(site.html).find("section", id="audit")[0]
    assert "submissions/theirs" in audit.text
    assert audit.find("span", **{"class": "badge fail"})
    assert site.document["counts"]["foreign"] == 1


def test_a_comparison_shows_pairs_and_seeds(site) -> None:
    article = parse_page(site.html).find("article", id="comparison-pair")[0]
    captions = [caption.text for caption in article.find("caption")]
    assert captions == ["Scores and costs", "Seeds, bits/byte", "Pairs, bits/byte"]
    assert "harness compare --resume comparisons/pair --show-only" in article.text


def test_a_comparison_at_several_sizes_shows_how_differences_go_with_size(tmp_path: Path, monkeypatch) -> None:
    only_given_claims(monkeypatch)
    write_report([make_ladder(tmp_path / "ladder")], tmp_path / "site")
    page = parse_page((tmp_path / "site" / "index.html").read_text())
    assert {group.attributes["id"] for group in page.find("article")} == {"comparison-small", "comparison-large"}
    tables = [each for each in page.find("table") if each.find("caption")[0].text == "Differences with size: ladder"]
    (row,) = tables[0].find("tbody")[0].find("tr")
    # the same runs at both sizes: no slope, and nothing settled
    assert [cell.text for cell in row.find("td")][2] == "+0.0000"
    assert row.find("td")[-1].text == "not settled"


def test_figures_are_drawn_and_named(site) -> None:
    names = {path.name for path in (site.out / "figures").iterdir()}
    for stem in ("pareto-comparison-pair", "curves-comparison-pair", "rate-distortion"):
        assert {f"{stem}.svg", f"{stem}.png"} <= names
    page = parse_page(site.html)
    drawings = page.find("svg", role="img")
    assert len(drawings) * 2 == len(names)
    titles = {heading.attributes["id"] for heading in page.find("h4", id="")}
    assert {each.attributes["aria-labelledby"] for each in drawings} <= titles
    for path in (site.out / "figures").glob("*.svg"):
        assert not re.search(rb"<dc:date|Created with|/home/|/tmp/", path.read_bytes())
    assert (site.out / "figures" / "rate-distortion.png").stat().st_size < 60_000


def test_the_same_files_give_the_same_bytes_wherever_they_lie(site, tmp_path: Path, monkeypatch) -> None:
    only_given_claims(monkeypatch)
    elsewhere = tmp_path / "quite" / "another place"
    elsewhere.mkdir(parents=True)
    for path in site.paths:
        shutil.copytree(path, elsewhere / path.name)
    shutil.copy(site.claims, elsewhere)
    # relative paths there, absolute ones before
    monkeypatch.chdir(elsewhere)
    write_report([Path(path.name) for path in site.paths], Path("out"), claim_files=[Path(site.claims.name)])
    for path in sorted(each for each in site.out.rglob("*") if each.is_file()):
        ours = (elsewhere / "out" / path.relative_to(site.out)).read_bytes()
        assert ours == path.read_bytes(), path.name
        assert str(site.root).encode() not in ours, path.name


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    only_given_claims(monkeypatch)
    paths = make_evidence(tmp_path, is_hostile=False)
    out = tmp_path / "site"
    write_report(paths[:1], out)
    (out / "mine.txt").write_text("stays")
    (out / "figures" / "old.svg").write_text("goes")
    write_report(paths[:1], out)
    assert (out / "mine.txt").read_text() == "stays"
    assert not (out / "figures" / "old.svg").exists()


def test_an_altered_reply_is_not_shown(tmp_path: Path, monkeypatch) -> None:
    only_given_claims(monkeypatch)
    paths = make_evidence(tmp_path, is_hostile=False)
    reply = next(paths[0].rglob("reply.md"))
    reply.write_text("we take it all back")
    write_report(paths[:1], tmp_path / "site")
    html = (tmp_path / "site" / "index.html").read_text()
    assert "was altered after it was filed" in html
    assert "take it all back" not in html


def test_a_reply_to_an_earlier_version_says_so(tmp_path: Path, monkeypatch) -> None:
    only_given_claims(monkeypatch)
    paths = make_evidence(tmp_path, is_hostile=False)
    record = paths[0] / "plain-seed1" / "record.json"
    record.write_text(record.read_text() + "\n")
    write_report(paths[:1], tmp_path / "site")
    html = (tmp_path / "site" / "index.html").read_text()
    assert "We ran it again." in html
    assert "to an earlier version of this" in html


def test_the_document_is_json_that_two_reports_can_be_compared_by(site) -> None:
    text = (site.out / "report.json").read_text()
    assert json.loads(text) == site.document
    assert len(text.splitlines()) > 40


@pytest.mark.parametrize("is_given", [True, False])
def test_claims_are_optional(tmp_path: Path, monkeypatch, is_given: bool) -> None:
    only_given_claims(monkeypatch)
    paths = make_evidence(tmp_path, is_hostile=False)
    claims = [write_claims(tmp_path / "paper.toml")] if is_given else []
    written = write_report(paths[:1], tmp_path / "site", claim_files=claims)
    assert written.num_claims == 4 * is_given
    assert written.num_records == 6
