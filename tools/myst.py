"""Split a chapter into blocks: text, plain code fences, and directives.

Only the block structure is read here; `tools.convert` gives the blocks a meaning.
Every block knows its line in the source, so that a mistake can be named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# As in CommonMark, what follows a fence of backticks holds no backtick.
_OPENING = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}(?!.*`)|:{3,})(?P<info>.*)$")
_DIRECTIVE = re.compile(r"^\s*\{(?P<name>[^}]+)\}\s*(?P<argument>.*?)\s*$")


@dataclass(frozen=True)
class Source:
    """A file, and the sentence that names a place in it."""

    path: Path

    def error(self, line: int, message: str) -> ValueError:
        """A ValueError that begins with the file and the line."""
        return ValueError(f"{self.path}:{line}: {message}")


@dataclass(frozen=True)
class Text:
    """Markdown lines outside any fence."""

    line: int
    lines: list[str]


@dataclass(frozen=True)
class Fence:
    """A plain fenced block, fences included: it is copied as it stands."""

    line: int
    lines: list[str]


@dataclass(frozen=True)
class Directive:
    """A fenced block that opens with `{name} argument`, options apart from the body."""

    line: int
    indent: str
    name: str
    argument: str
    options: dict[str, Any] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)
    body_line: int = 0


Block = Text | Fence | Directive


def read_blocks(source: Source) -> list[Block]:
    """The blocks of a whole page, its front matter left out."""
    lines = source.path.read_text(encoding="utf8").splitlines()
    start = 0
    if lines and lines[0] == "---":
        start = lines.index("---", 1) + 1
    return parse_blocks(lines[start:], start + 1, source)


def parse_blocks(lines: list[str], first_line: int, source: Source) -> list[Block]:
    """Split lines into blocks; `first_line` is the number of the first one in the file."""
    blocks: list[Block] = []
    position = 0
    while position < len(lines):
        opening = _OPENING.match(lines[position])
        end = position + 1
        if opening:
            end = _closing(lines, position, opening["fence"], first_line, source) + 1
            fenced = lines[position:end]
            blocks.append(_fenced_block(fenced, opening, first_line + position, source))
        else:
            while end < len(lines) and not _OPENING.match(lines[end]):
                end += 1
            _no_broken_fence(lines[position:end], first_line + position, source)
            blocks.append(Text(first_line + position, lines[position:end]))
        position = end
    return blocks


def _no_broken_fence(lines: list[str], line: int, source: Source) -> None:
    """Markdown does not take ```{note} `x` as a fence: the page would show it raw."""
    for position, text in enumerate(lines):
        if re.match(r"^\s*(`{3,}|:{3,})\s*\{", text):
            message = "a title with backticks needs a fence of colons, :::{name} title"
            raise source.error(line + position, message)


def _closing(lines: list[str], start: int, fence: str, first_line: int, source: Source) -> int:
    closing = re.compile(rf"^\s*{fence[0]}{{{len(fence)},}}\s*$")
    for position in range(start + 1, len(lines)):
        if closing.match(lines[position]):
            return position
    raise source.error(first_line + start, f"{fence} is never closed; add a line of {fence}")


def _fenced_block(lines: list[str], opening: re.Match[str], line: int, source: Source) -> Block:
    head = _DIRECTIVE.match(opening["info"])
    if not head:
        return Fence(line, lines)
    indent = opening["indent"]
    inner = [text.removeprefix(indent) for text in lines[1:-1]]
    options, skipped = _options(inner, line + 1, source)
    body = inner[skipped:]
    body_line = line + 1 + skipped
    while body and not body[0].strip():
        body, body_line = body[1:], body_line + 1
    return Directive(line, indent, head["name"], head["argument"], options, body, body_line)


def _options(lines: list[str], line: int, source: Source) -> tuple[dict[str, Any], int]:
    """The options at the head of a directive, and how many lines they take."""
    if lines and lines[0].strip() == "---":
        end = next((i for i, text in enumerate(lines[1:], 1) if text.strip() == "---"), None)
        if end is None:
            raise source.error(line, "the option block is never closed; add a line of ---")
        return _yaml(lines[1:end], line, source), end + 1
    end = 0
    while end < len(lines) and re.match(r"^:[\w-]+:(\s|$)", lines[end]):
        end += 1
    return _yaml([text[1:] for text in lines[:end]], line, source), end


def _yaml(lines: list[str], line: int, source: Source) -> dict[str, Any]:
    try:
        return yaml.safe_load("\n".join(lines)) or {}
    except yaml.YAMLError as error:
        problem = str(error).replace("\n", " ")
        raise source.error(line, f"the options are not valid YAML: {problem}") from error
