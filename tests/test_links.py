"""Links of the built book: every one inside it leads somewhere, and every launch to its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from built import BUILT, page_paths, read_page

from tools.site import ROOT, assignment_paths, chapter_paths, colab_url, notebook_path

CHAPTER = "book/chapters/03_connection_sensitivity.html"

pytestmark = pytest.mark.skipif(not page_paths(), reason="no built book: run `make book`")


def anchors(path: Path) -> set[str]:
    """What the part of an address after # may name on a page."""
    return {it.get("id") for it in read_page(path).found} | {""}


def addresses(path: Path) -> set[str]:
    """All addresses that a page links to, loads or leads to."""
    found = read_page(path).found
    leads = {it.get("content").partition("url=")[2] for it in found if it.get("http-equiv")}
    return {it.get(name) for it in found for name in ("href", "src")} | leads


def broken_links(built: Path, path: str) -> list[str]:
    """The addresses inside the book that lead nowhere from a page."""
    page, broken = built / path, []
    for address in sorted(addresses(page)):
        parts = urlsplit(address)
        if not address or parts.scheme or parts.netloc:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.is_file() or (
            target.suffix == ".html" and unquote(parts.fragment) not in anchors(target)
        ):
            broken.append(address)
    return broken


def launches(path: Path) -> list[str]:
    """The addresses of Colab on a page."""
    found = [it.get("href") for it in read_page(path).found]
    return [it for it in found if urlsplit(it).netloc == "colab.research.google.com"]


def chapter_faults(built: Path, chapter: Path) -> list[str]:
    """What is wrong with the launch link and the download of a chapter's page."""
    page = built / "book" / "chapters" / f"{chapter.stem}.html"
    notebook = notebook_path(chapter)
    faults = []
    if launches(page) != [colab_url(notebook.relative_to(ROOT).as_posix())]:
        faults.append("it does not open its own notebook")
    elements = read_page(page).found
    downloads = [it.get("href") for it in elements if "download" in it.get("class").split()]
    copies = [page.parent / link for link in downloads if link.endswith(".ipynb")]
    if [copy.read_bytes() for copy in copies] != [notebook.read_bytes()]:
        faults.append("it does not offer its own notebook")
    return faults


def notebook_faults(path: Path, address: str) -> list[str]:
    """What is wrong with a notebook: it must be valid, and its badge must open it."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        return [f"not a notebook: {error}"]
    badges = re.findall(r"\]\((https://colab[^)]+)\)", notebook.cells[0].source)
    opened = [it for it in badges if "/assets/" not in it]
    return [] if opened == [address] else [f"its badge opens {opened}"]


@pytest.mark.parametrize("path", page_paths())
def test_links_inside_the_book_lead_somewhere(path: str) -> None:
    assert broken_links(BUILT, path) == []


@pytest.mark.parametrize("chapter", chapter_paths(), ids=lambda it: it.stem)
def test_a_chapter_launches_and_offers_its_own_notebook(chapter: Path) -> None:
    assert chapter_faults(BUILT, chapter) == []


@pytest.mark.parametrize("source", chapter_paths() + assignment_paths(), ids=lambda it: it.stem)
def test_a_notebook_is_valid_and_its_badge_opens_it(source: Path) -> None:
    path = notebook_path(source)
    assert notebook_faults(path, colab_url(path.relative_to(ROOT).as_posix())) == []


def test_every_notebook_belongs_to_a_page() -> None:
    known = {notebook_path(source) for source in chapter_paths() + assignment_paths()}
    assert set((ROOT / "notebooks").rglob("*.ipynb")) == known


def test_no_other_page_launches_a_notebook_that_is_not_there() -> None:
    known = {colab_url(it.relative_to(ROOT).as_posix()) for it in (ROOT / "notebooks").rglob("*")}
    for path in page_paths():
        assert set(launches(BUILT / path)) <= known, path


@pytest.fixture
def spoiled(tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of the built book with one text replaced in a chapter; the rest are links."""

    def spoil(old: str, new: str) -> Path:
        built = tmp_path / "html"
        no_static = shutil.ignore_patterns("_static")
        shutil.copytree(BUILT, built, ignore=no_static, copy_function=os.symlink)
        (built / "_static").symlink_to(BUILT / "_static")
        text = (built / CHAPTER).read_text(encoding="utf8")
        assert old in text
        (built / CHAPTER).unlink()
        (built / CHAPTER).write_text(text.replace(old, new), encoding="utf8")
        return built

    return spoil


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ('href="02_baselines.html"', 'href="02_nowhere.html"', "02_nowhere.html"),
        ('href="../notation.html"', 'href="../notation.html#no-id"', "../notation.html#no-id"),
        ('href="#sources"', 'href="#sauces"', "#sauces"),
        ('src="../../_images/', 'src="../../_pictures/', "../../_pictures/"),
    ],
    ids=["page", "anchor of a page", "anchor", "picture"],
)
def test_a_broken_link_is_found(
    spoiled: Callable[[str, str], Path], old: str, new: str, broken: str
) -> None:
    found = broken_links(spoiled(old, new), CHAPTER)
    assert found
    assert all(address.startswith(broken) for address in found)


def test_a_chapter_that_launches_anothers_notebook_is_found(
    spoiled: Callable[[str, str], Path],
) -> None:
    chapter = chapter_paths()[2]
    built = spoiled("blob/main/notebooks/03_connection", "blob/main/notebooks/02_connection")
    assert chapter_faults(built, chapter) == ["it does not open its own notebook"]


def test_a_download_that_is_not_the_notebook_is_found(
    spoiled: Callable[[str, str], Path],
) -> None:
    built = spoiled("Open in Colab", "Open in Colab")
    for copy in built.glob("_downloads/*/03_connection_sensitivity.ipynb"):
        text = copy.read_text(encoding="utf8")
        copy.unlink()
        copy.write_text(text + " ", encoding="utf8")
    assert chapter_faults(built, chapter_paths()[2]) == ["it does not offer its own notebook"]


def test_a_notebook_with_anothers_badge_or_no_cells_is_found(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    shutil.copy(notebook_path(chapter_paths()[0]), path)
    assert "its badge opens" in notebook_faults(path, colab_url("notebooks/n.ipynb"))[0]
    path.write_text('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', encoding="utf8")
    assert "not a notebook" in notebook_faults(path, "")[0]
    assert "not a notebook" in notebook_faults(tmp_path / "none.ipynb", "")[0]
