"""Every file of others that the book serves has its licence in the book."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.licences import LICENCES, owners, read_works, write_licences
from tools.site import ROOT

STATIC = ROOT / "_build" / "html" / "_static"
OWN = ROOT / "book" / "_static"
GRANTS = ("Permission is hereby granted", "Redistribution and use", "terms and conditions")

pytestmark = pytest.mark.skipif(not STATIC.exists(), reason="no built book: run `make book`")


def served() -> list[str]:
    """The files below _static that are not this book's own."""
    files = [path.relative_to(STATIC) for path in STATIC.rglob("*") if path.is_file()]
    own = {path.relative_to(OWN) for path in OWN.rglob("*")} | {Path(LICENCES)}
    return sorted(path.as_posix() for path in files if path not in own)


def test_every_served_file_belongs_to_exactly_one_work() -> None:
    works = read_works()
    found = {path: owners(path, works) for path in served()}
    assert {path: names for path, names in found.items() if len(names) != 1} == {}


def test_every_work_is_served() -> None:
    works = read_works()
    names = {name for path in served() for name in owners(path, works)}
    assert {work["work"] for work in works if work["files"]} == names


def test_a_file_of_an_unknown_work_is_noticed() -> None:
    assert owners("vendor/new/thing.js", read_works()) == []


def test_the_book_holds_the_licence_of_every_work_in_full() -> None:
    text = (STATIC / LICENCES).read_text(encoding="utf8")
    sections = dict(zip([it["work"] for it in read_works()], split_at_works(text), strict=True))
    for work, section in sections.items():
        assert any(grant in section for grant in GRANTS), work
        assert "opyright" in section or "CC BY 4.0" in section, work


def split_at_works(text: str) -> list[str]:
    """The part of the file that belongs to each work, in order."""
    parts = []
    for work in reversed(read_works()):
        head = f"{work['work']}\n{'=' * len(work['work'])}\n"
        text, part = text.rsplit(head, 1)
        parts.append(part)
    return parts[::-1]


def test_a_page_links_to_the_licences() -> None:
    page = (ROOT / "_build" / "html" / "book" / "how-to-use.html").read_text(encoding="utf8")
    assert f'href="../_static/{LICENCES}"' in page


def test_a_package_without_a_licence_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [{"work": "none", "package": "sphinx-mathjax-offline", "files": []}]
    monkeypatch.setattr("tools.licences.read_works", lambda: works)
    with pytest.raises(ValueError, match=r"sphinx-mathjax-offline has no licence.*works\.yml"):
        write_licences(tmp_path)
