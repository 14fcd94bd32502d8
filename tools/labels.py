"""What every label of the book names, with its number.

The numbers are those that Sphinx gives on the page: by chapter, in order of appearance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.myst import Block, Directive, Source, Text, parse_blocks, read_blocks
from tools.site import chapter_paths

DISPLAY_MATH = re.compile(r"\$\$((?:(?!\$\$).)+)\$\$(?:[ \t]*\(([\w:.-]+)\))?", re.DOTALL)
NUMBERED = {
    "exercise": "Exercise",
    "prf:algorithm": "Algorithm",
    "prf:theorem": "Theorem",
    "prf:definition": "Definition",
}
_SECTION = re.compile(r"^\(([\w:.-]+)\)=[ \t]*\n+#+[ \t]+(.+?)[ \t]*$", re.MULTILINE)
_TITLE = re.compile(r"^#[ \t]+(.+?)[ \t]*$", re.MULTILINE)
_NOT_MARKDOWN = {"code-cell", "bibliography"}


@dataclass(frozen=True)
class Label:
    """The thing that a label names."""

    kind: str
    number: str
    title: str
    page: Path

    @property
    def name(self) -> str:
        """How a sentence speaks of it: "Figure 3.1", or a section's title."""
        return f"{self.kind} {self.number}" if self.number else self.title


def read_labels(root: Path) -> dict[str, Label]:
    """All labels of the book: sections of any page, numbered things of the chapters."""
    labels: dict[str, Label] = {}
    for page in sorted((root / "book").rglob("*.md")):
        text = page.read_text(encoding="utf8")
        for name, title in _SECTION.findall(text):
            labels[name] = Label("Section", "", title, page)
    for chapter in chapter_paths(root):
        labels.update(_chapter_labels(chapter))
    return labels


def page_title(page: Path) -> str:
    """The first heading of a page."""
    found = _TITLE.search(page.read_text(encoding="utf8"))
    return found[1] if found else page.stem


def chapter_number(chapter: Path) -> int:
    """3 for `03_connection_sensitivity.md`."""
    return int(chapter.stem.split("_")[0])


def _chapter_labels(chapter: Path) -> dict[str, Label]:
    source = Source(chapter)
    counts: Counter[str] = Counter()
    labels: dict[str, Label] = {}
    for kind, name, title, line in _numbered(read_blocks(source), source):
        counts[kind] += 1
        if name in labels:
            raise source.error(line, f"the label {name} is used twice; rename one of the two")
        number = f"{chapter_number(chapter)}.{counts[kind]}"
        labels[name] = Label(kind, number, title, chapter)
    return labels


def _numbered(blocks: list[Block], source: Source) -> Iterator[tuple[str, str, str, int]]:
    """Kind, label, title and line of the numbered things, in order of appearance."""
    for block in blocks:
        if isinstance(block, Text):
            for _, name in DISPLAY_MATH.findall("\n".join(block.lines)):
                if name:
                    yield "Equation", name, "", block.line
        elif isinstance(block, Directive):
            yield from _of_directive(block, source)


def _of_directive(block: Directive, source: Source) -> Iterator[tuple[str, str, str, int]]:
    if block.name in NUMBERED:
        label = _required(block, block.options.get("label"), ":label:", source)
        yield NUMBERED[block.name], label, block.argument, block.line
    figure = block.options.get("mystnb", {}).get("figure")
    if figure:
        yield "Figure", _required(block, figure.get("name"), "a name", source), "", block.line
    if block.name == "figure":
        label = _required(block, block.options.get("name"), ":name:", source)
        yield "Figure", label, "", block.line
    if block.name not in _NOT_MARKDOWN:
        yield from _numbered(parse_blocks(block.body, block.body_line, source), source)


def _required(block: Directive, label: str | None, what: str, source: Source) -> str:
    if not label:
        raise source.error(block.line, f"this {{{block.name}}} has no label; give it {what}")
    return label
