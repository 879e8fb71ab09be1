"""Things of one name on one page: records, claim files, claims, folders whose paths begin alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from record_factory import make_record, put
from report_factory import make_comparison, make_foreign, only_given_claims, write_claims

from harness.errors import UsageError
from harness.responses import file_response
from reports.command import write_report
from reports.places import Places


@pytest.fixture(autouse=True)
def _only_given_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    only_given_claims(monkeypatch)


def document_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_each_claim_shows_the_numbers_of_its_own_file(tmp_path: Path) -> None:
    make_record(tmp_path / "records" / "a")
    files = [tmp_path / name / "claims.toml" for name in ("first", "second")]
    for path in files:
        path.parent.mkdir()
        write_claims(path)
    text = files[1].read_text()
    files[1].write_text(text.replace('"1,000"', '"7,777"').replace('id = "paper"', 'id = "other"'))
    write_report([tmp_path / "records"], tmp_path / "site", claim_files=files)
    document = document_of(tmp_path / "site")
    printed = {
        claim["name"]: document["files"][claim["file"]]["facts"]["before"]["value"] for claim in document["claims"]
    }
    assert (printed["paper.C1"], printed["other.C1"]) == ("1,000", "7,777")
    markdown = (tmp_path / "site" / "report.md").read_text()
    assert markdown.count("7,777 |") == 2  # in the cards of C1 and C2


def test_a_claim_file_given_twice_is_judged_once(tmp_path: Path) -> None:
    make_record(tmp_path / "records" / "a")
    path = write_claims(tmp_path / "claims.toml")
    written = write_report([tmp_path / "records"], tmp_path / "site", claim_files=[path, path])
    assert written.num_claims == 4


def test_two_claims_of_one_name_are_refused(tmp_path: Path) -> None:
    make_record(tmp_path / "records" / "a")
    files = [write_claims(tmp_path / name) for name in ("one.toml", "two.toml")]
    with pytest.raises(UsageError, match=r"claim paper.C1 stands in .*/one.toml, too; give its source another id"):
        write_report([tmp_path / "records"], tmp_path / "site", claim_files=files)


def test_a_reply_stands_at_the_record_that_it_is_to(tmp_path: Path) -> None:
    for parent in ("p", "q"):
        make_record(tmp_path / "records" / parent / "same", seed=1)
    reply = tmp_path / "reply.md"
    reply.write_text("we disagree")
    file_response(str(tmp_path / "records" / "p" / "same"), reply)
    write_report([tmp_path / "records"], tmp_path / "site")
    (response,) = document_of(tmp_path / "site")["responses"]
    assert response["subjects"] == ["records/p/same"]
    assert (tmp_path / "site" / "index.html").read_text().count("we disagree") == 1
    assert (tmp_path / "site" / "report.md").read_text().count("we disagree") == 1


def test_a_reply_to_a_folder_of_others_stands_on_page_and_in_markdown(tmp_path: Path) -> None:
    make_foreign(tmp_path / "submissions" / "theirs")
    reply = tmp_path / "reply.md"
    reply.write_text("we disagree")
    file_response(str(tmp_path / "submissions" / "theirs"), reply)
    write_report([tmp_path / "submissions"], tmp_path / "site")
    for name in ("index.html", "report.md"):
        assert (tmp_path / "site" / name).read_text().count("we disagree") == 1, name


def test_a_root_is_replaced_as_a_whole_path_only() -> None:
    places = Places([Path("/records")])
    said = "see /records/a/log, /records and submissions/records/b, /records-old, x/records."
    assert places.relabel(said) == "see records/a/log, records and submissions/records/b, /records-old, x/records."


def test_folders_above_have_one_name_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record(tmp_path / "records" / "a")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_report([Path("../records")], Path("site"))
    document = document_of(Path("site"))
    assert [each["folder"] for each in document["records"]] == ["records/a"]
    assert {each["record"] for each in (*document["audit"]["records"], *document["audit"]["findings"])} == {"records/a"}


def test_an_interrupted_report_can_be_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_record(tmp_path / "records" / "a")
    with monkeypatch.context() as patch:
        patch.setattr("reports.command.render_html", lambda page: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_report([tmp_path / "records"], tmp_path / "site")
    write_report([tmp_path / "records"], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_file()


def ids_of(out: Path) -> list[str]:
    return re.findall(r'<[a-z0-9]+ [^<>]*?\bid="([^"]+)"', (out / "index.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("names", [("claims", "scores"), ("比較", "記録"), ("a b", "a-b"), ("n" * 240, "m" * 240)])
def test_comparisons_of_any_names_have_ids_and_figures_of_their_own(names: tuple[str, str], tmp_path: Path) -> None:
    folders = [make_comparison(tmp_path / name, seeds=(0,)) for name in names]
    write_report(folders, tmp_path / "site")
    ids = ids_of(tmp_path / "site")
    assert len(ids) == len(set(ids))
    slugs = [group["slug"] for group in document_of(tmp_path / "site")["groups"]]
    assert all((tmp_path / "site" / "figures" / f"curves-{slug}.svg").is_file() for slug in slugs)
    assert len(set(slugs)) == 2


def test_texts_of_any_names_have_figures_of_their_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("текст", "文字", "t" * 300)):
        record = make_record(tmp_path / "records" / f"r{seed}", seed=seed)
        put("data.name", name)(record)
        put("data.splits.test.sha256", str(seed) * 64)(record)
    written = write_report([tmp_path / "records"], tmp_path / "site")
    assert len(list((tmp_path / "site" / "figures").glob("*.svg"))) == written.num_figures == 3


def test_another_test_split_of_one_corpus_is_another_table(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        record = make_record(tmp_path / "records" / f"r{seed}", seed=seed)
        put("data.splits.test.sha256", str(seed) * 64)(record)
    write_report([tmp_path / "records"], tmp_path / "site")
    assert [group["num_runs"] for group in document_of(tmp_path / "site")["groups"]] == [1, 1, 1]
