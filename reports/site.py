"""The page: one HTML file that needs nothing else (jinja2, autoescape on)."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from harness.tables import clean
from reports.svg import inline_svg
from reports.view import Page
from reports.view_claims import VERDICT_WORDS

TEMPLATES = "reports.templates"


def render_html(page: Page) -> str:
    """Return the page as HTML; every text of a record or a claim is escaped, control characters are made visible."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )
    script = _read("page.js")
    environment.filters["lines"] = lambda text: str(text).splitlines()
    return environment.get_template("page.html").render(
        page=page,
        document=page.document,
        # our own files and drawings: the only texts that are not escaped
        style=Markup(_read("style.css")),
        script=Markup(script),
        # the browser runs this script and no other
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        replies_to=page.replies_to,
        drawing=lambda figure: Markup(inline_svg(figure)),
        verdicts=list(VERDICT_WORDS),
        kinds=sorted({kind for card in page.cards for kind in card.claim["kinds"]}),
    )


def _read(name: str) -> str:
    return resources.files(TEMPLATES).joinpath(name).read_text(encoding="utf-8")
