"""Make the notebooks from the chapters and execute those whose code has changed.

python -m tools.notebooks [--check] [--force] [name ...]
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from tools.convert import METADATA, convert
from tools.site import ROOT, chapter_paths, notebook_path

CELL_SECONDS = 300


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make and execute the notebooks.")
    parser.add_argument("names", nargs="*", help="beginnings of chapter names, such as 03")
    parser.add_argument("--check", action="store_true", help="write nothing; list what is stale")
    parser.add_argument("--force", action="store_true", help="execute again what is not stale")
    arguments = parser.parse_args()
    if arguments.check:
        return _report(stale_notebooks(ROOT))
    try:
        for chapter in chosen(arguments.names):
            update(chapter, force=arguments.force)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def stale_notebooks(root: Path) -> list[str]:
    """The notebooks that are not what their chapter says, as names with a reason."""
    chapters = chapter_paths(root)
    expected = {notebook_path(chapter, root).name for chapter in chapters}
    stale = [
        f"{path.name}: no such chapter; delete it"
        for path in sorted((root / "notebooks").glob("*.ipynb"))
        if path.name not in expected
    ]
    for chapter in chapters:
        reason = staleness(convert(chapter, root), _stored(notebook_path(chapter, root)))
        if reason:
            stale.append(f"{chapter.stem}: {reason}")
    return stale


def staleness(made: NotebookNode, stored: NotebookNode | None) -> str:
    """Why a stored notebook is not the one made from the chapter; empty when it is."""
    if stored is None:
        return "no notebook yet"
    if not _executed(stored) or _code(made) != _code(stored):
        return "the code has changed"
    return "" if made == without_outputs(stored) else "the text has changed"


def update(chapter: Path, root: Path = ROOT, *, force: bool = False) -> None:
    """Bring one notebook up to date, executing it only when its code changed."""
    path = notebook_path(chapter, root)
    made, stored = convert(chapter, root), _stored(path)
    reason = staleness(made, stored)
    if force or stored is None or reason == "the code has changed":
        seconds = execute(made, chapter.stem)
        print(f"{chapter.stem}: executed in {seconds:.1f} s")
        record_time(chapter.stem, seconds, root)
    elif reason:
        copy_outputs(stored, made)
        print(f"{chapter.stem}: text refreshed, outputs kept")
    else:
        print(f"{chapter.stem}: up to date")
        return
    _write(made, path)


def execute(notebook: NotebookNode, name: str, kernel: str = "python3") -> float:
    """Run a notebook in place, in an empty folder; return the seconds it took.

    Raises ValueError when a cell fails or writes to stderr.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            coalesce_streams=True,  # or the timing of a kernel cuts what it prints into pieces
            kernel_name=kernel,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise ValueError(f"{name}: a cell failed; mend the chapter.\n{error}") from error
    _clean(notebook, name)
    return time.perf_counter() - started


def record_time(name: str, seconds: float, root: Path) -> None:
    """Write how long a notebook took into the table that a page of the book shows."""
    path = root / "book" / "execution_times.csv"
    rows = dict(csv.reader(path.open(encoding="utf8"))) if path.exists() else {}
    rows = {key: value for key, value in rows.items() if key[:2].isdigit()}
    rows[name] = f"{seconds:.0f}"
    lines = ["chapter,seconds", *(f"{key},{value}" for key, value in sorted(rows.items()))]
    path.write_text("\n".join(lines) + "\n", encoding="utf8")


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """A copy as it was before execution."""
    bare = copy.deepcopy(notebook)
    for cell in code_cells(bare):
        cell.outputs, cell.execution_count = [], None
    return bare


def copy_outputs(executed: NotebookNode, notebook: NotebookNode) -> None:
    """Give the code cells of a notebook the outputs of the executed one, in order."""
    for old, new in zip(code_cells(executed), code_cells(notebook), strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells of a notebook, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def chosen(names: list[str]) -> list[Path]:
    """The chapters whose names begin with one of these, or all."""
    chapters = [
        chapter
        for chapter in chapter_paths()
        if not names or any(chapter.stem.startswith(name) for name in names)
    ]
    if not chapters:
        raise ValueError(f"no chapter begins with {names}; see book/chapters/")
    return chapters


def _report(stale: list[str]) -> int:
    for line in stale:
        print(f"stale: {line}")
    if stale:
        print("Run `make notebooks`.")
    return 1 if stale else 0


def _stored(path: Path) -> NotebookNode | None:
    return nbformat.read(path, as_version=4) if path.exists() else None


def _executed(notebook: NotebookNode) -> bool:
    return all(cell.execution_count for cell in code_cells(notebook))


def _code(notebook: NotebookNode) -> list[tuple[str, list[str]]]:
    return [(cell.source, cell.metadata.get("tags", [])) for cell in code_cells(notebook)]


def _clean(notebook: NotebookNode, name: str) -> None:
    """Keep only what belongs to the chapter: no times, no versions of this machine."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise ValueError(f"{name}: a cell wrote to stderr; mend it.\n{output.text}")


def _write(notebook: NotebookNode, path: Path) -> None:
    """Write beside the old file, then put it in its place in one step."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
