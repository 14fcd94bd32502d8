"""The licences of what others wrote and the built book serves, in one file of the book."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from tools.site import ROOT

HERE = Path(__file__).parent
LICENCES = "licences.txt"
HEAD = """The book itself and its package pai_lite are under the MIT licence:

{own}
The pages also use the works below, which this book serves without change.
"""


def read_works() -> list[dict[str, Any]]:
    """The entries of works.yml."""
    return yaml.safe_load((HERE / "works.yml").read_text(encoding="utf8"))


def owners(path: str, works: list[dict[str, Any]]) -> list[str]:
    """The works to which a file below _static belongs."""
    return [it["work"] for it in works if any(fnmatchcase(path, one) for one in it["files"])]


def write_licences(static: Path) -> None:
    """Write the licences of all works into a folder of static files."""
    parts = [HEAD.format(own=(ROOT / "LICENSE").read_text(encoding="utf8"))]
    for work in read_works():
        files = "".join(f"  {name}\n" for name in work["files"])
        parts.append(f"{work['work']}\n{'=' * len(work['work'])}\n{files}\n{_text(work, static)}")
    (static / LICENCES).write_text("\n\n".join(parts), encoding="utf8")


def _text(work: dict[str, Any], static: Path) -> str:
    """The licence of one work, in full."""
    if "beside" in work:
        return (static / work["beside"]).read_text(encoding="utf8")
    if "text" in work:
        terms = (HERE / f"{work['text']}.txt").read_text(encoding="utf8")
        return f"{work['holder']}\n\n{terms}"
    texts = list(_packaged(work["package"]))
    if not texts:
        raise ValueError(
            f"The package {work['package']} has no licence file; "
            "put the text into tools/licences and name it in works.yml."
        )
    return "\n".join(texts)


def _packaged(package: str) -> Iterator[str]:
    """The licence files of an installed package."""
    for path in distribution(package).files or []:
        if path.name.upper().startswith(("LICENSE", "LICENCE")) and ".dist-info" in str(path):
            yield path.read_text(encoding="utf8")
