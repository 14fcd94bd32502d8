"""The pages of the built book, for the tests that read them without a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from tools.site import ROOT

BUILT = ROOT / "_build" / "html"


def page_paths(built: Path = BUILT) -> list[str]:
    """The pages that people read, below the folder of the built book."""
    paths = sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))
    return [path for path in paths if not path.startswith(("_static/", "_sources/"))]


@dataclass(frozen=True)
class Element:
    """An element: its name, its attributes, and whether it is a part of the article."""

    name: str
    attributes: dict[str, str]
    in_article: bool

    def get(self, attribute: str) -> str:
        """The value of an attribute, or nothing."""
        return self.attributes.get(attribute, "")


@dataclass
class Elements(HTMLParser):
    """Reads a page as a plain list, far faster than a tree of large pages is built."""

    found: list[Element] = field(default_factory=list)
    title: str = ""
    inside: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.inside |= {tag} & {"article", "title"}
        values = {name: value or "" for name, value in attrs}
        self.found.append(Element(tag, values, "article" in self.inside))

    def handle_endtag(self, tag: str) -> None:
        """Note that the article or the title has ended."""
        self.inside.discard(tag)

    def handle_data(self, data: str) -> None:
        """Note the title."""
        if "title" in self.inside:
            self.title += data


def read_elements(markup: str) -> Elements:
    """The elements of a text of HTML."""
    reader = Elements()
    reader.feed(markup)
    return reader


@cache
def read_page(path: Path) -> Elements:
    """The elements of a page, read once."""
    return read_elements(path.read_text(encoding="utf8"))
