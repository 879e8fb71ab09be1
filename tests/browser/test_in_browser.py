"""The page in a real browser: filters, sorting, themes, links, widths, paper, accessibility; no error, no request."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.browser
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["made_page", pytest.param("published_page", marks=pytest.mark.slow)])
def test_no_serious_fault_of_accessibility(open_tab, request, which: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_tab(request.getfixturevalue(which), color_scheme=scheme)
    # a card of each kind is opened; all of them would take axe a minute
    page.evaluate(
        "[...document.querySelectorAll('.cards')].forEach((each) => { each.querySelector('details').open = true; })"
    )
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        (each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("width", [320, 390, 900, 1440])
@pytest.mark.parametrize("which", ["made_page", "published_page"])
def test_no_width_scrolls_sideways(open_tab, request, which: str, width: int) -> None:
    page = open_tab(request.getfixturevalue(which), width=width)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def shown_rows(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "#claims-table tbody tr:not([hidden])", "rows => rows.map((row) => row.cells[0].textContent)"
    )
    return found


def test_claims_are_filtered_by_every_field(open_tab, made_page: str) -> None:
    page = open_tab(made_page)
    assert shown_rows(page) == ["paper.C1", "paper.C2", "paper.C3", "paper.C4"]
    page.select_option("#f-verdict", "contradicted")
    assert shown_rows(page) == ["paper.C2"]
    assert page.locator("#claim-cards details:visible").count() == 1
    assert page.locator("#f-count").inner_text() == "1 of 4"
    page.click("#filters button[type=reset]")
    page.locator("#f-count", has_text="all 4").wait_for()
    page.select_option("#f-kind", "reproduction")
    assert shown_rows(page) == ["paper.C3"]
    page.click("#filters button[type=reset]")
    page.locator("#f-count", has_text="all 4").wait_for()
    page.fill("#f-text", "TWELVE smaller")
    assert shown_rows(page) == ["paper.C2"]
    page.fill("#f-text", "no claim says this")
    assert shown_rows(page) == []
    # Enter in the search sends no form
    page.press("#f-text", "Enter")
    assert page.url == made_page


def test_a_count_of_the_first_screen_filters_the_claims(open_tab, published_page: str) -> None:
    page = open_tab(published_page)
    number = int(page.locator(".tally .contradicted .big").inner_text())
    page.click(".tally .contradicted a")
    assert len(shown_rows(page)) == number
    page.click(".sources li:nth-child(3) h3 a")
    assert {name.split(".")[0] for name in shown_rows(page)} == {"mpo"}


def column_of(page: Any, table: str, at: int) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map((row) => row.cells[{at}].textContent)"
    )
    return found


def test_tables_sort_by_value_and_what_is_missing_stays_last(open_tab, published_page: str) -> None:
    page = open_tab(published_page)
    table = "#records-tinyshakespeare table.sortable >> nth=0"
    heading = page.locator(table).locator("thead th", has_text="file bytes")
    sizes = "rows => rows.map((row) => Number(row.cells[4].textContent.replaceAll(',', '')))"
    rows = page.locator(table).locator("tbody tr")
    before = rows.evaluate_all(sizes)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert rows.evaluate_all(sizes) == sorted(before)
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert rows.evaluate_all(sizes) == sorted(before, reverse=True)
    seeds = page.locator("article[id^=records-] table.sortable", has_text="seed 2").filter(has_text="–").nth(0)
    third = seeds.locator("thead th", has_text="seed 2")
    column = third.evaluate("heading => heading.cellIndex")
    for _ in range(2):
        third.locator("button").click()
        rows = seeds.locator("tbody tr")
        cells = rows.evaluate_all("(rows, at) => rows.map((row) => row.cells[at].textContent)", column)
        missing = [cell == "–" for cell in cells]
        assert any(missing)
        assert missing == sorted(missing)


def test_the_theme_follows_the_system_until_one_is_chosen(open_tab, made_page: str) -> None:
    light, dark = "rgb(251, 250, 247)", "rgb(20, 21, 25)"
    page = open_tab(made_page, color_scheme="dark")
    assert page.evaluate(BACKGROUND) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(BACKGROUND) == light
    page.click("#theme")
    assert page.evaluate(BACKGROUND) == dark
    page.reload()
    assert page.evaluate(BACKGROUND) == dark
    assert page.locator("#theme").get_attribute("aria-label") == "Switch to the light theme"
    # drawings take the colours of the page
    assert page.evaluate("getComputedStyle(document.querySelector('svg.drawing text')).fill") != "rgb(28, 27, 25)"


def test_a_deep_link_opens_its_card_also_where_a_filter_hides_it(open_tab, made_page: str) -> None:
    page = open_tab(f"{made_page}#claim-paper.C2")
    card = page.locator("details", has=page.locator("[id='claim-paper.C2']"))
    assert card.get_attribute("open") is not None
    top = card.evaluate("element => element.getBoundingClientRect().top")
    assert 0 <= top < 900
    page.select_option("#f-verdict", "confirmed")
    page.evaluate("location.hash = '#claim-paper.C3'")
    page.wait_for_selector("[id='claim-paper.C3']", state="visible")
    record = page.locator("#records .body").first.get_attribute("id")
    page.fill("#r-text", "no record says this")
    page.evaluate("id => { location.hash = id; }", record)
    page.wait_for_selector(f"[id='{record}']", state="visible")


def test_a_deep_link_opens_its_card_without_a_script(open_tab, published_page: str) -> None:
    page = open_tab(f"{published_page}#claim-mpo.C6", java_script_enabled=False)
    assert page.locator("[id='claim-mpo.C6']").is_visible()
    assert page.locator("#claims-table tbody tr").count() > 50
    assert not page.locator("#filters").is_visible()


def test_everything_can_be_reached_by_the_keyboard(open_tab, made_page: str) -> None:
    page = open_tab(made_page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#claim-cards summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#claim-cards details").first.get_attribute("open") is not None


def test_a_number_says_where_it_comes_from(open_tab, published_page: str) -> None:
    page = open_tab(published_page)
    number = page.locator(".deck .n").first
    number.click()
    assert page.locator("#origin").inner_text() == "67 from report.json, field counts.claims"
    score = page.locator("#records-tinyshakespeare a.n[data-source*='record.json']").first
    source = score.get_attribute("data-source")
    score.click()
    folder = source.split("/record.json")[0]
    page.wait_for_selector(f"[id='record-{folder.replace('/', '-')}']", state="visible")
    # in its card a number names the field, the card the file
    page.locator(f"[data-file='{folder}/record.json'] [data-source='#metrics.tune.val_bpb']").click()
    assert page.locator("#origin").inner_text().endswith(f"from {folder}/record.json, field metrics.tune.val_bpb")


def test_paper_shows_all_and_no_buttons(open_tab, made_page: str) -> None:
    page = open_tab(made_page)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator(".bar").is_visible()
    assert not page.locator("#filters").is_visible()
    assert page.locator("[id='claim-paper.C4']").is_visible()
    assert len(page.pdf(format="A4")) > 20_000
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() < page.locator("details").count()


def test_a_page_on_folders_of_others_alone_has_their_audit_and_nothing_empty(open_tab, audit_page: str) -> None:
    page = open_tab(audit_page)
    assert page.locator(".bar li").all_inner_texts() == ["Audit", "Not verified", "Repeat it"]
    assert page.locator(".tally .contradicted .big").inner_text() == "1"
    page.locator("#audit tbody a").first.click()
    assert page.locator("#audit details .sheet").first.is_visible()
