"""Read a page as a browser would, as far as its tests need it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "input", "img", "hr"}


@dataclass
class Element:
    """An element with its attributes, what is in it, and all text below it."""

    tag: str
    attributes: dict[str, str]
    parts: list[Element | str] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        return [part for part in self.parts if isinstance(part, Element)]

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def find(self, tag: str = "", **attributes: str) -> list[Element]:
        """All elements below with a tag and attributes; the value "" asks for the attribute only."""
        found = [
            child
            for child in self.children
            if (not tag or child.tag == tag)
            and all(
                key in child.attributes and value in ("", child.attributes[key]) for key, value in attributes.items()
            )
        ]
        return found + [one for child in self.children for one in child.find(tag, **attributes)]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self.open: list[Element] = [self.root]

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.open[-1].parts.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in {each.tag for each in self.open}:
            while self.open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def numbers_of(element: Element, file: str = "") -> Iterator[tuple[str, str]]:
    """Yield source and text of every number; inside an element with data-file a source may be a field of that."""
    for child in element.children:
        own = child.attributes.get("data-file", file)
        if (source := child.attributes.get("data-source")) is not None:
            yield (own + source if source.startswith("#") else source), child.text.strip()
        yield from numbers_of(child, own)


def parse_page(html: str) -> Element:
    """Return the tree of a page."""
    parser = _Parser()
    parser.feed(html)
    return parser.root
