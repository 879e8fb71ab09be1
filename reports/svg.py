"""A drawing made part of a page: colours and letters are the page's own, ids are its own, no style of it leaks."""

from __future__ import annotations

import re

from reports.plots import ACCENT, FAINT, INK, MUTED, PAPER, Figure

_THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FAINT: "var(--rule)",
    ACCENT: "var(--accent)",
    PAPER: "var(--paper)",
}
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
_FONT = re.compile(r"font: ((?:\d+ )?)([\d.]+px) [^;\"]+")
_HEAD = re.compile(r"<svg[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.S)
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<defs>\s*</defs>|<!--.*?-->", re.S)


def inline_svg(figure: Figure) -> str:
    """Return a figure as an element of a page, named for those who do not see it.

    Args:
        figure: as drawn; its texts were written by matplotlib, which escapes them.
    """
    text = figure.svg.decode()
    text = _DROPPED.sub("", text[text.index("<svg") :])
    # only ids that something refers to are kept
    used = {name for _, name in _REFERENCE.findall(text)}
    text = _ID.sub(lambda match: f'id="{figure.slug}-{match[1]}"' if match[1] in used else "", text)
    text = _REFERENCE.sub(lambda match: f"{match[1]}{figure.slug}-{match[2]}", text)
    text = text.replace("xlink:href", "href")
    text = _FONT.sub(r"font-size: \2; font-family: inherit", text)
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    label = f'<svg viewBox="\\1" role="img" aria-labelledby="{figure.slug}-title" class="drawing">'
    return re.sub(r"\s*\n\s*", "\n", _HEAD.sub(label, text, count=1)).replace("<g >", "<g>").strip()
