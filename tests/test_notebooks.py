"""The stored notebooks are those of the chapters, executed, and nbval can fail on them."""

from __future__ import annotations

import ast
import copy
import csv
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from fixtures.mini_book import make_mini_book, write_chapter
from nbformat import NotebookNode

from tools.convert import convert
from tools.labels import read_labels
from tools.notebooks import code_cells, stale_notebooks, update, without_outputs
from tools.site import ROOT, chapter_paths, notebook_path

CHECKED = "nbval-check-output"
MACHINE_PATH = re.compile(r"/(?:home|root|tmp|Users|work|usr|opt|var)/|[A-Z]:\\\\|site-packages")
each_chapter = pytest.mark.parametrize("chapter", chapter_paths(), ids=lambda path: path.stem)


def stored(chapter: Path) -> NotebookNode:
    return nbformat.read(notebook_path(chapter), as_version=4)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def own_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that a person wrote."""
    return [cell for cell in code_cells(notebook) if "install" not in tags(cell)]


def test_there_are_three_chapters_and_no_other_notebooks() -> None:
    names = {notebook_path(chapter).name for chapter in chapter_paths()}
    assert len(names) >= 3
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} == names


PARTS = [
    "Derivation",
    "In the package",
    "A picture before training",
    "The experiment",
    "Claims and findings",
    "What goes wrong",
    "Exercises",
    "Sources",
]


@each_chapter
def test_chapter_has_its_nine_parts(chapter: Path) -> None:
    opening, *rest = re.split(r"^## ", chapter.read_text(encoding="utf8"), flags=re.MULTILINE)
    assert "**You need**" in opening
    assert "**You will be able to**" in opening
    assert [part.partition("\n")[0] for part in rest] == PARTS


@each_chapter
def test_chapter_has_an_explorer_with_its_table(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf8")
    explorers = re.findall(r"^pai\.explorer\([\s\S]*?^```\n\n.*", text, re.MULTILINE)
    assert explorers
    assert all("table=" in it or "as a table" in it for it in explorers)


def test_the_chapters_run_within_fifteen_minutes() -> None:
    with (ROOT / "book" / "execution_times.csv").open(encoding="utf8") as file:
        seconds = {row["chapter"]: float(row["seconds"]) for row in csv.DictReader(file)}
    assert list(seconds) == [chapter.stem for chapter in chapter_paths()]
    assert sum(seconds.values()) < 900


@each_chapter
def test_notebook_is_the_one_made_from_its_chapter(chapter: Path) -> None:
    assert without_outputs(stored(chapter)) == convert(chapter)


@each_chapter
def test_notebook_was_executed_in_order(chapter: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(stored(chapter))]
    assert counts == list(range(1, len(counts) + 1))


@each_chapter
def test_no_output_is_an_error_or_names_this_machine(chapter: Path) -> None:
    for cell in code_cells(stored(chapter)):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            words = {k: v for k, v in output.get("data", {}).items() if "image" not in k}
            text = output.get("text", "") + str(words)
            # Pictures inside HTML are long random text.
            assert not MACHINE_PATH.search(re.sub(r"base64,[\w+/=]+", "", text)), cell.source


def should_show(cell: NotebookNode) -> bool:
    """Whether a cell prints, draws a captioned figure, or is compared by nbval."""
    prints = any(
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Call)
        and getattr(line.value.func, "id", "") == "print"
        for line in ast.parse(cell.source).body
    )
    return prints or "mystnb" in cell.metadata or CHECKED in tags(cell)


@each_chapter
def test_cells_that_show_something_have_outputs(chapter: Path) -> None:
    cells = [cell for cell in own_cells(stored(chapter)) if should_show(cell)]
    assert cells
    assert [cell.source for cell in cells if not cell.outputs] == []


@each_chapter
def test_a_cell_shows_one_picture(chapter: Path) -> None:
    """Figures that are left open at the end of a cell are all shown; an explorer closes its own."""
    for cell in own_cells(stored(chapter)):
        pictures = [it for it in cell.outputs if "image/png" in it.get("data", {})]
        assert len(pictures) <= 1, cell.source


@each_chapter
def test_derivations_are_compared(chapter: Path) -> None:
    assert sum(CHECKED in tags(cell) for cell in own_cells(stored(chapter))) >= 3


@each_chapter
def test_code_cells_are_short(chapter: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in own_cells(stored(chapter))]
    assert statistics.median(lengths) <= 6
    assert max(lengths) <= 25


def unchecked_equations(chapter: Path, root: Path = ROOT) -> list[str]:
    """The labels of a chapter's equations that no code cell after them checks."""
    text = chapter.read_text(encoding="utf8")
    labels = read_labels(root)
    names = [n for n, it in labels.items() if it.kind == "Equation" and it.page == chapter]
    return [name for name in names if not _checked_after(text, name)]


def _checked_after(text: str, name: str) -> bool:
    rest = text[text.index(f"({name})") :]
    return bool(re.search(rf"^# check\b.*(?<![\w-]){re.escape(name)}(?![\w-])", rest, re.MULTILINE))


@each_chapter
def test_every_labelled_equation_is_checked(chapter: Path) -> None:
    assert unchecked_equations(chapter) == []


@each_chapter
def test_chapter_has_exercises_with_solutions(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf8")
    names = re.findall(r"\{exercise\}.*\n:label: ([\w-]+)", text)
    assert len(names) >= 5
    assert sorted(re.findall(r"\{solution\} ([\w-]+)", text)) == sorted(names)


def test_an_unchecked_equation_is_found(tmp_path: Path) -> None:
    root = make_mini_book(tmp_path)
    chapters = chapter_paths(root)
    assert unchecked_equations(chapters[0], root) == []
    assert unchecked_equations(chapters[1], root) == ["eq-second-short", "eq-second-inner"]


# What `python -m tools.notebooks` does with a chapter that changed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_mini_book(tmp_path)
    for chapter in chapter_paths(root)[1:]:
        chapter.unlink()
    (root / "book" / "index.md").write_text("# A book\n", encoding="utf8")
    return root


def test_text_is_refreshed_without_execution(root: Path) -> None:
    (chapter,) = chapter_paths(root)
    update(chapter, root)
    times = (root / "book" / "execution_times.csv").read_text(encoding="utf8").splitlines()
    assert times[0] == "chapter,seconds"
    assert [line.split(",")[0] for line in times[1:]] == ["01_first"]
    path = notebook_path(chapter, root)
    # A value that no execution could give shows that the outputs were kept.
    path.write_text(path.read_text(encoding="utf8").replace('"2\\n"', '"4242\\n"'))
    chapter.write_text(chapter.read_text(encoding="utf8").replace("A labelled", "One labelled"))
    assert stale_notebooks(root) == ["01_first: the text has changed"]
    update(chapter, root)
    assert stale_notebooks(root) == []
    assert "4242" in path.read_text(encoding="utf8")
    assert "One labelled" in path.read_text(encoding="utf8")
    update(chapter, root, force=True)
    assert "4242" not in path.read_text(encoding="utf8")


def test_changed_code_is_executed(root: Path) -> None:
    (chapter,) = chapter_paths(root)
    update(chapter, root)
    chapter.write_text(chapter.read_text(encoding="utf8").replace("1 + 1", "40 + 2"))
    assert stale_notebooks(root) == ["01_first: the code has changed"]
    update(chapter, root)
    assert '"42\\n"' in notebook_path(chapter, root).read_text(encoding="utf8")
    chapter.unlink()
    assert stale_notebooks(root) == ["01_first.ipynb: no such chapter; delete it"]


@pytest.mark.parametrize(
    ("code", "message"),
    [("1 / 0", "ZeroDivisionError"), ("import warnings\nwarnings.warn('no')", "stderr")],
)
def test_a_bad_cell_leaves_no_notebook(root: Path, code: str, message: str) -> None:
    chapter = write_chapter(root, f"```{{code-cell}}\n{code}\n```")
    with pytest.raises(ValueError, match=message):
        update(chapter, root)
    assert not notebook_path(chapter, root).exists()


# nbval


def nbval(notebook: NotebookNode, folder: Path) -> int:
    """The exit status of nbval over one notebook."""
    nbformat.write(notebook, folder / "it.ipynb")
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", "-q", *options, "it.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode


def up_to_first_checked(notebook: NotebookNode) -> NotebookNode:
    """A copy that ends with the first cell whose output is compared."""
    short = copy.deepcopy(notebook)
    end = next(i for i, cell in enumerate(short.cells) if CHECKED in tags(cell))
    short.cells = short.cells[: end + 1]
    return short


def with_one_digit_changed(notebook: NotebookNode) -> NotebookNode:
    """A copy in which one digit of the last cell's output is another one."""
    changed = copy.deepcopy(notebook)
    for output in changed.cells[-1].outputs:
        holder = output if "text" in output else output.data
        key = "text" if "text" in output else "text/plain"
        digit = re.search(r"\d", holder[key])
        if digit:
            other = str((int(digit[0]) + 1) % 10)
            holder[key] = holder[key][: digit.start()] + other + holder[key][digit.end() :]
            return changed
    raise AssertionError("the first compared cell shows no number; print one")


def assert_nbval_sees_one_changed_value(notebook: NotebookNode, folder: Path) -> None:
    short = up_to_first_checked(notebook)
    assert nbval(short, folder) == 0
    assert nbval(with_one_digit_changed(short), folder) == 1


def test_nbval_fails_on_one_changed_value_of_the_sample(root: Path, tmp_path: Path) -> None:
    (chapter,) = chapter_paths(root)
    update(chapter, root)
    notebook = nbformat.read(notebook_path(chapter, root), as_version=4)
    assert_nbval_sees_one_changed_value(notebook, tmp_path)


@each_chapter
def test_nbval_fails_on_one_changed_value(chapter: Path, tmp_path: Path) -> None:
    assert_nbval_sees_one_changed_value(stored(chapter), tmp_path)
