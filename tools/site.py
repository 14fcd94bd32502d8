"""Where the project lives: its folders, and the address of its repository.

The address stands in `_config.yml` and nowhere else; every link is made here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


@cache
def config(root: Path = ROOT) -> dict[str, Any]:
    """The contents of `_config.yml`."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))


def repository(root: Path = ROOT) -> str:
    """The web address of the repository, without a slash at the end."""
    return config(root)["repository"]["url"].rstrip("/")


def branch(root: Path = ROOT) -> str:
    """The branch that links point to."""
    return config(root)["repository"]["branch"]


def source_url(path: str, root: Path = ROOT) -> str:
    """The page of a file of the repository."""
    return f"{repository(root)}/blob/{branch(root)}/{path}"


def colab_url(path: str, root: Path = ROOT) -> str:
    """The address that opens a notebook of the repository in Colab."""
    owner_and_name = repository(root).removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{owner_and_name}/blob/{branch(root)}/{path}"


def chapter_paths(root: Path = ROOT) -> list[Path]:
    """The chapters in order: `book/chapters/NN_name.md`."""
    return sorted((root / "book" / "chapters").glob("[0-9][0-9]_*.md"))


def assignment_paths(root: Path = ROOT) -> list[Path]:
    """The masters of the assignments, with solutions: `book/assignments/*.md`."""
    return sorted((root / "book" / "assignments").glob("*.md"))


def notebook_path(page: Path, root: Path = ROOT) -> Path:
    """The notebook made from a chapter, or the students' made from an assignment."""
    folder = "assignments" if page.parent.name == "assignments" else ""
    return root / "notebooks" / folder / f"{page.stem}.ipynb"


def bibliography_path(root: Path = ROOT) -> Path:
    """The BibTeX file that chapters cite from."""
    return root / "book" / "references.bib"
