"""Make the assignments: the students' notebooks, and what their instructors need.

python -m tools.assignments [--variant N] [name ...]

Every master in `book/assignments` becomes `notebooks/assignments/NAME.ipynb`, without solutions
and hidden tests, and in the ignored folder `_build/assignments/NAME` the executed solution, the
tests as otter-grader reads them, and a bundle for Gradescope.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from textwrap import indent

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_raw_cell

from pai_lite.files import whole_file
from tools.convert import convert
from tools.notebooks import METADATA, execute
from tools.site import ROOT, assignment_paths, notebook_path, repository

CONFIG = {"init_cell": False, "export_cell": False, "check_all_cell": False, "generate": True}
CONFIG |= {"tests": {"files": True}}
QUESTION = "# BEGIN QUESTION"
_TEST = re.compile(
    r'\A(?P<head>""" # BEGIN TEST CONFIG\n.*?# END TEST CONFIG\n)(?P<code>.*)', re.DOTALL
)
INSTRUCTORS = ROOT / "_build" / "assignments"
GRADESCOPE = Path(__file__).parent / "gradescope"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the assignments.")
    parser.add_argument("names", nargs="*", help="beginnings of assignment names, such as hw1")
    parser.add_argument("--variant", type=int, default=0, help="seed of the hidden tests' inputs")
    arguments = parser.parse_args()
    try:
        for master in assignment_paths():
            if any(master.stem.startswith(name) for name in arguments.names or [""]):
                student, folder = build(master, INSTRUCTORS, arguments.variant)
                _write(student, notebook_path(master))
                print(f"{master.stem}: {folder}", flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(
    master: Path, out: Path, variant: int = 0, *, run_tests: bool = True
) -> tuple[NotebookNode, Path]:
    """Make what instructors need, in a folder of ``out``.

    Args:
        variant: seed of the inputs that hidden tests draw.
        run_tests: let otter run the hidden tests on the solutions, too.

    Returns:
        The students' notebook, and the folder.

    Raises:
        ValueError: a cell of the master fails, or a hidden test fails on the solutions.
    """
    notebook = prepared(master, variant)
    execute(notebook, master.stem)
    folder = out / master.stem
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        made = otter_assign(notebook, Path(temporary), master.stem, run_tests=run_tests)
        student = student_notebook(made, master)
        (tests,) = (made / "autograder").glob("*-autograder_*.zip")
        with zipfile.ZipFile(tests, "a") as bundle:
            bundle.writestr("written.json", json.dumps(written_questions(notebook)))
        _copy(tests, folder / "autograder.zip")
        _copy(made / "autograder" / f"{master.stem}.ipynb", folder / "solution.ipynb")
    write_gradescope(folder)
    return student, folder


def prepared(master: Path, variant: int = 0) -> NotebookNode:
    """The notebook of a master as otter reads it: its configuration, and the variant put in."""
    notebook = convert(master)
    for cell in notebook.cells:
        cell.source = _TEST.sub(lambda test: _wrapped(test, variant), cell.source)
        if cell.source.startswith(QUESTION):
            cell.source += "\ncheck_cell: false"
    configuration = yaml.safe_dump({"name": master.stem, **CONFIG})
    notebook.cells.insert(0, new_raw_cell(f"# ASSIGNMENT CONFIG\n{configuration}"))
    return notebook


def _wrapped(test: re.Match[str], variant: int) -> str:
    """A test as a function: doctest, by which otter tests, would show every bare expression."""
    code = re.sub(r"\bVARIANT\b", str(variant), test["code"]).strip()
    return f"{test['head']}def hidden():\n{indent(code, '    ')}\nhidden()"


def otter_assign(
    notebook: NotebookNode, folder: Path, name: str, *, run_tests: bool = True
) -> Path:
    """Let otter split a notebook; return the folder that holds `student` and `autograder`."""
    master = folder / f"{name}.ipynb"
    nbformat.write(notebook, master)
    otter = Path(sys.executable).with_name("otter")
    options = ["--no-pdfs", *([] if run_tests else ["--no-run-tests"])]
    command = [otter, "assign", *options, master, folder / "made"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{name}: otter assign failed; mend the master.\n{done.stderr[-4000:]}")
    return folder / "made"


def student_notebook(made: Path, master: Path) -> NotebookNode:
    """The students' notebook that otter has made; `otter run` asks for the name in it."""
    notebook = nbformat.read(made / "student" / f"{master.stem}.ipynb", as_version=4)
    otter = {"assignment_name": master.stem}
    notebook.metadata = nbformat.from_dict({**METADATA, "otter": otter})
    for position, cell in enumerate(notebook.cells):
        cell.id = f"{master.stem[:8]}-{position:03d}".replace("_", "-")
    return notebook


def written_questions(notebook: NotebookNode) -> dict[str, float]:
    """The points of the questions that a person grades, which otter's tests leave out."""
    raw = (cell.source for cell in notebook.cells if cell.source.startswith(QUESTION))
    questions = (yaml.safe_load(source) for source in raw)
    return {q["name"]: q["points"] for q in questions if q.get("manual")}


def write_gradescope(folder: Path) -> None:
    """Write the bundle for Gradescope: its two scripts, and the tests."""
    with whole_file(folder / "gradescope.zip") as path, zipfile.ZipFile(path, "w") as bundle:
        for script in ("setup.sh", "run_autograder"):
            text = (GRADESCOPE / script).read_text(encoding="utf8")
            entry = zipfile.ZipInfo(script)
            entry.external_attr = 0o755 << 16
            bundle.writestr(entry, text.replace("@REPOSITORY@", repository()))
        bundle.write(folder / "autograder.zip", "autograder.zip")


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as path:
        shutil.copy(source, path)


def _write(notebook: NotebookNode, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary:
        nbformat.write(notebook, temporary)


if __name__ == "__main__":
    sys.exit(main())
