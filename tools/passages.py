"""The prose of a page, in passages: paragraphs, items of lists, cells of tables, captions.

Code, mathematics, code spans and roles are blanked out; what is left are words and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tools.labels import DISPLAY_MATH
from tools.myst import Block, Directive, Fence, Source, Text, parse_blocks, read_blocks

GIVEN = {"exercise", "solution"}
_SILENT = {"code-cell", "bibliography"}
_HIDDEN = re.compile(r"(?:\{[\w:.+-]+\})?(`+)(?!`).+?(?<!`)\1(?!`)|\]\([^)\s]*\)", re.DOTALL)
_MATH = re.compile(r"(?<!\\)\$((?:[^$\\]|\\.)+)\$", re.DOTALL)
_NUMBER_ALONE = re.compile(r"\d[\d,]*(?:\.\d+)?(?=\\%|$)")
_STARS = re.compile(r"^[★☆]{3} ·.*$", re.MULTILINE)
_PARAGRAPH = re.compile(r"(?:^(?!\s*$).*\n?)+", re.MULTILINE)
_SECTION = re.compile(r"^## +(.+?) *$", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s", re.MULTILINE)


@dataclass(frozen=True)
class Passage:
    """Words that belong together; the named identifiers are those of the whole table row."""

    line: int
    words: str
    source: str
    named: frozenset[str]
    given: bool
    section: str = ""


def read_passages(page: Path) -> list[Passage]:
    """The passages of a page, in order."""
    source, section, passages = Source(page), "", []
    for block in read_blocks(source):
        for passage in _of_block(block, source):
            section = section_in(passage.source) or section
            passages.append(replace(passage, section=section))
    return passages


def section_in(text: str) -> str:
    """The last heading of a section (##) that stands in a text; empty when there is none."""
    return (["", *_SECTION.findall(text)])[-1]


def _of_block(block: Block, source: Source, given: bool = False) -> Iterator[Passage]:
    if isinstance(block, Text):
        yield from _of_text("\n".join(block.lines), block.line, given)
    if not isinstance(block, Directive):
        return
    for words in _shown_with(block):
        yield _passage(words, block.line, words, given)
    if block.name not in _SILENT:
        for inner in parse_blocks(block.body, block.body_line, source):
            yield from _of_block(inner, source, given or block.name in GIVEN)


def _shown_with(block: Directive) -> Iterator[str]:
    """A directive's title, and the caption and alternative text of its picture."""
    shown = block.options.get("mystnb", {})
    image, figure = shown.get("image", {}), shown.get("figure", {})
    yield from filter(None, (block.argument, image.get("alt"), figure.get("caption")))


def _of_text(text: str, line: int, given: bool) -> Iterator[Passage]:
    text = _STARS.sub("", DISPLAY_MATH.sub(_blank, text))
    for paragraph in _PARAGRAPH.finditer(text):
        first = line + text.count("\n", 0, paragraph.start())
        if paragraph[0].lstrip().startswith("|"):
            yield from _of_table(paragraph[0], first, given)
            continue
        starts = [0, *(item.start() for item in _ITEM.finditer(paragraph[0]) if item.start())]
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            words = paragraph[0][start:end]
            yield _passage(words, first + paragraph[0].count("\n", 0, start), words, given)


def _of_table(table: str, line: int, given: bool) -> Iterator[Passage]:
    for below, row in enumerate(table.splitlines()):
        for cell in re.split(r"(?<!\\)\|", row):
            yield _passage(cell, line + below, row, given)


def _passage(text: str, line: int, whole: str, given: bool) -> Passage:
    """A passage, named after the code spans of the whole that it is part of."""
    words = _MATH.sub(_number_or_blank, _HIDDEN.sub(_blank, text))
    named = frozenset(re.findall(r"(?<![`}])`([^`\n]+)`", whole))
    return Passage(line, words, text, named, given)


def _number_or_blank(found: re.Match[str]) -> str:
    """A number does not stop being one when it is set as mathematics."""
    number = _NUMBER_ALONE.match(found[1].strip())
    plain = found[1].replace("\\", "").strip()
    return plain if number and plain.rstrip("%") == number[0] else _blank(found)


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def problem_data(page: Path) -> list[tuple[str, str]]:
    """What exercises and solutions set: for each its text and its Python, as the page shows it.

    The text of a solution is left out: it has to come from what was set.
    """
    source = Source(page)
    blocks = [b for b in read_blocks(source) if isinstance(b, Directive) and b.name in GIVEN]
    return [("\n".join(b.body) if b.name == "exercise" else "", _python(b, source)) for b in blocks]


def _python(block: Directive, source: Source) -> str:
    inner = parse_blocks(block.body, block.body_line, source)
    fences = (part for part in inner if isinstance(part, Fence))
    return "\n".join(line for fence in fences for line in fence.lines[1:-1])
