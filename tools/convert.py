"""A chapter or an assignment in MyST Markdown becomes a notebook in plain Markdown.

Run `python -m tools.convert book/chapters/NN_name.md` to print what a chapter's
Markdown cells become; `tools.notebooks` writes the notebooks.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from tools.labels import DISPLAY_MATH, NUMBERED, chapter_number
from tools.myst import Block, Directive, Source, Text, parse_blocks, read_blocks
from tools.roles import Context, convert_roles
from tools.site import ROOT, colab_url, notebook_path, repository

ADMONITIONS = ("note", "tip", "warning", "important", "admonition")
METADATA = {
    "accelerator": "GPU",
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_READER_ADVICE = (
    "Without a GPU everything here runs on small data; with one, the training cells take CIFAR-10 "
    "and ResNet-20."
)
_STUDENT_ADVICE = (
    "Everything here runs without a GPU. On Colab, choose *File → Save a copy in Drive* first: "
    "what you write is lost otherwise."
)
_TARGET = re.compile(r"^\([\w:.-]+\)=[ \t]*\n?", re.MULTILINE)
_PAGE_LINK = re.compile(r"\]\((?!https?:)[^)\s]*(\.md|\.ipynb|#)[^)]*\)")
_HEADING = re.compile(r"^# (?=\S)", re.MULTILINE)


def convert(chapter: Path, root: Path = ROOT) -> NotebookNode:
    """The notebook of a chapter, without outputs.

    Raises ValueError, with file and line, at anything that the chapters' grammar does not know.
    """
    context = Context(Source(chapter), root)
    cells = [_badge_cell(chapter, root), _install_cell(chapter, root)]
    markdown: list[str] = []
    for block in read_blocks(context.source):
        if isinstance(block, Directive) and block.name in _CELLS:
            cells += [*_markdown_cells(markdown), *_CELLS[block.name](block, context)]
            markdown = []
        else:
            markdown.append(_render(block, context))
    cells += _markdown_cells(markdown)
    for position, cell in enumerate(cells):
        cell.id = hashlib.sha256(f"{chapter.stem} {position}".encode()).hexdigest()[:12]
    return new_notebook(cells=cells, metadata=METADATA)


def _badge_cell(chapter: Path, root: Path) -> NotebookNode:
    address = colab_url(notebook_path(chapter, root).relative_to(root).as_posix(), root)
    advice = _STUDENT_ADVICE if chapter.parent.name == "assignments" else _READER_ADVICE
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    return new_markdown_cell(f"[![Open in Colab]({badge})]({address})\n\n{advice}")


def _install_cell(chapter: Path, root: Path) -> NotebookNode:
    source = (
        "import importlib.util\n\n"
        'if importlib.util.find_spec("pai_lite") is None:\n'
        f'    %pip install -q "pai-lite @ git+{repository(root)}"'
    )
    if chapter.parent.name != "assignments":
        source += "\n\nimport pai_lite as pai\n\nprint(pai.setting())"
    return new_code_cell(source, metadata={"tags": ["install"]})


def _markdown_cells(parts: list[str]) -> list[NotebookNode]:
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip()
    return [new_markdown_cell(text)] if text else []


def _code_cells(block: Directive, context: Context) -> list[NotebookNode]:
    """The code cell and, when it draws a captioned figure, the caption below it."""
    metadata = _cell_metadata(block.options)
    cells = [new_code_cell("\n".join(block.body).rstrip(), metadata=metadata)]
    figure = block.options.get("mystnb", {}).get("figure")
    if figure:
        cells += _markdown_cells([_caption(figure["name"], figure["caption"], block, context)])
    return cells


def _raw_cells(block: Directive, _: Context) -> list[NotebookNode]:
    """A raw cell: in an assignment it says where a question, its solution and its tests begin."""
    return [new_raw_cell("\n".join(block.body))]


_CELLS = {"code-cell": _code_cells, "raw-cell": _raw_cells}


def _cell_metadata(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the cell; a folded cell is folded in JupyterLab and on Colab too."""
    if "hide-input" not in options.get("tags", []):
        return options
    return {**options, "jupyter": {"source_hidden": True}, "cellView": "form"}


def _caption(name: str, caption: str, block: Directive, context: Context) -> str:
    label = context.label(name, block.line)
    text = " ".join(convert_roles(caption, block.line, context).split())
    return f"*{label.name}. {text}*"


def _render(block: Block, context: Context) -> str:
    if isinstance(block, Text):
        return _text(block, context)
    if isinstance(block, Directive):
        text = _directive(block, context)
        return "\n".join(block.indent + line if line else "" for line in text.split("\n"))
    return "\n".join(block.lines)


def _text(block: Text, context: Context) -> str:
    text = "\n".join(block.lines)
    link = _PAGE_LINK.search(text)
    if link:
        line = block.line + text.count("\n", 0, link.start())
        raise context.source.error(line, f"link {link[0]!r} to a page; use {{doc}} or {{ref}}")
    text = DISPLAY_MATH.sub(lambda math: _display_math(math, block, context), text)
    text = convert_roles(text, block.line, context)
    text = _TARGET.sub("", text)
    if context.source.path.parent.name == "assignments":
        return text
    return _HEADING.sub(f"# {chapter_number(context.source.path)}. ", text)


def _display_math(math: re.Match[str], block: Text, context: Context) -> str:
    if not math[2]:
        return math[0]
    label = context.label(math[2], block.line)
    # The lines stay as many as they were, so that later errors name the right line.
    body = math[1].rstrip()
    ending = "\n" * (math[1].count("\n") - body.count("\n"))
    return f"$${body} \\tag{{{label.number}}}{ending or ' '}$$"


def _directive(block: Directive, context: Context) -> str:
    if block.name in ADMONITIONS:
        title = block.argument if block.name == "admonition" else block.name.capitalize()
        return _box(title, block, context)
    if block.name in NUMBERED:
        return _numbered(block, context)
    if block.name == "prf:proof":
        return _box("Proof", block, context)
    if block.name == "solution":
        exercise = context.label(block.argument, block.line)
        return _details(f"Solution to {exercise.name}", block, context)
    if block.name in ("figure", "image"):
        return _image(block, context)
    if block.name == "bibliography":
        entries = sorted(context.references[key].full() for key in context.cited)
        return "\n".join(f"- {entry}" for entry in entries)
    raise context.source.error(
        block.line, f"unknown directive {{{block.name}}}; see the grammar in tools/convert.py"
    )


def _body(block: Directive, context: Context) -> str:
    blocks = parse_blocks(block.body, block.body_line, context.source)
    return "\n".join(_render(part, context) for part in blocks).strip()


def _box(title: str, block: Directive, context: Context) -> str:
    if "dropdown" in str(block.options.get("class", "")):
        return _details(title, block, context)
    text = f"**{convert_roles(title, block.line, context)}**\n\n{_body(block, context)}"
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _details(title: str, block: Directive, context: Context) -> str:
    # The blank lines make Markdown and code inside the HTML element render.
    return f"<details>\n<summary>{title}</summary>\n\n{_body(block, context)}\n\n</details>"


def _numbered(block: Directive, context: Context) -> str:
    label = context.label(block.options["label"], block.line)
    if block.name == "exercise":
        title = convert_roles(block.argument, block.line, context)
        return f"**{label.name}: {title}**\n\n{_body(block, context)}"
    title = f"{label.name} ({block.argument})" if block.argument else label.name
    return _box(title, block, context)


def _image(block: Directive, context: Context) -> str:
    """The picture itself, inside the notebook: Colab has only the notebook's file."""
    path = context.source.path.parent / block.argument
    if not path.exists():
        raise context.source.error(block.line, f"no image {block.argument!r}; check the path")
    kind = mimetypes.guess_type(path.name)[0]
    data = base64.b64encode(path.read_bytes()).decode()
    image = f"![{block.options.get('alt', '')}](data:{kind};base64,{data})"
    if block.name == "image":
        return image
    return f"{image}\n\n{_caption(block.options['name'], _body(block, context), block, context)}"


if __name__ == "__main__":
    notebook = convert(Path(sys.argv[1]).resolve())
    nbformat.validate(notebook)
    print("\n\n".join(cell.source for cell in notebook.cells))
