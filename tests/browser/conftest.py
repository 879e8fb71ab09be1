"""A browser, where there is one: Debian's Chromium, driven by Playwright; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_factory import make_evidence, make_foreign, only_given_claims, write_claims

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")  # its event loop is over when these tests are
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra browser)")
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed (extra browser)")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def made_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with strangers' texts everywhere, a failing folder, replies and sweeps."""
    from reports.command import write_report

    root = tmp_path_factory.mktemp("browsed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        only_given_claims(monkeypatch)
        claims = write_claims(root / "paper.toml", is_hostile=True)
        return write_report(make_evidence(root), root / "site", claim_files=[claims]).page.as_uri()


@pytest.fixture(scope="session")
def audit_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page on folders of others alone."""
    from reports.command import write_report

    root = tmp_path_factory.mktemp("audited")
    make_foreign(root / "submissions" / "theirs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        only_given_claims(monkeypatch)
        return write_report([root / "submissions"], root / "site").page.as_uri()


@pytest.fixture(scope="session")
def published_page() -> str:
    return (ROOT / "reports" / "published" / "index.html").as_uri()


class Tab:
    """A page with what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.errors.append("a dialog opened"), dialog.dismiss()))
        page.on("request", lambda request: self.errors.append(request.url) if request.url.startswith("http") else None)


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Any]:
    """Open a page in a window of its own; any error in it fails the test at its end."""
    tabs: list[Tab] = []

    def opened(url: str, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
        tab = Tab(context.new_page())
        tabs.append(tab)
        tab.page.goto(url)
        return tab.page

    yield opened
    for tab in tabs:
        tab.page.context.close()
    assert [error for tab in tabs for error in tab.errors] == []
