"""Roles inside a paragraph, such as {eq} and {cite}, as plain Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tools.citations import read_references
from tools.labels import Label, page_title, read_labels
from tools.myst import Source
from tools.site import ROOT, bibliography_path, colab_url

_CODE_OR_ROLE = re.compile(
    r"(?P<code>(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|\{(?P<role>[A-Za-z][\w:.+-]*)\}`(?P<content>[^`]+)`",
    re.DOTALL,
)
_WITH_TARGET = re.compile(r"^(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)


@dataclass
class Context:
    """What the conversion of one chapter needs to know; `cited` grows as it goes."""

    source: Source
    root: Path = ROOT
    cited: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the labels and the bibliography of the book."""
        self.labels = read_labels(self.root)
        self.references = read_references(bibliography_path(self.root))

    def label(self, name: str, line: int) -> Label:
        """What a label names, or an error at this line."""
        if name not in self.labels:
            raise self.source.error(line, f"no label {name!r} in the book; check its spelling")
        return self.labels[name]

    def link(self, text: str, page: Path) -> str:
        """Text linked to another chapter's notebook; plain for this page and other pages."""
        if page == self.source.path or page.parent.name != "chapters":
            return text
        if self.source.path.parent.name == "assignments":
            # Its file is handed around alone.
            return f"[{text}]({colab_url(f'notebooks/{page.stem}.ipynb', self.root)})"
        return f"[{text}]({page.stem}.ipynb)"


def convert_roles(text: str, line: int, context: Context) -> str:
    """Replace every role of a text that begins at this line; code spans stay."""

    def replace(found: re.Match[str]) -> str:
        if found["code"]:
            return found[0]
        at = line + text.count("\n", 0, found.start())
        return _role(found["role"], " ".join(found["content"].split()), at, context)

    return _CODE_OR_ROLE.sub(replace, text)


def _role(role: str, content: str, line: int, context: Context) -> str:
    if role in ("cite", "cite:p", "cite:t"):
        return _cite(role, content, line, context)
    found = _WITH_TARGET.match(content)
    text, target = (found["text"], found["target"]) if found else ("", content)
    if role == "term":
        return text or target
    if role == "doc":
        return _document(text, target, line, context)
    if role in ("ref", "numref", "prf:ref", "eq"):
        return _reference(role, text, context.label(target, line), context)
    known = "cite, cite:p, cite:t, doc, eq, numref, prf:ref, ref, term"
    raise context.source.error(line, f"unknown role {{{role}}}; the chapters use only {known}")


def _reference(role: str, text: str, label: Label, context: Context) -> str:
    if role == "eq":
        return context.link(f"({label.number})", label.page)
    if role == "numref" and text:
        text = text.replace("%s", label.number).replace("{number}", label.number)
    return context.link(text or label.name, label.page)


def _document(text: str, target: str, line: int, context: Context) -> str:
    folder = context.root if target.startswith("/") else context.source.path.parent
    page = (folder / f"{target.lstrip('/')}.md").resolve()
    if not page.exists():
        raise context.source.error(line, f"no page {target!r}; give its path without .md")
    return context.link(text or page_title(page), page)


def _cite(role: str, content: str, line: int, context: Context) -> str:
    keys = [key.strip() for key in content.split(",")]
    for key in keys:
        if key not in context.references:
            raise context.source.error(line, f"{key!r} is not in book/references.bib; add it")
        if key not in context.cited:
            context.cited.append(key)
    entries = [context.references[key] for key in keys]
    if role == "cite:t":
        return ", ".join(entry.textual() for entry in entries)
    return "(" + "; ".join(entry.parenthetical() for entry in entries) + ")"
