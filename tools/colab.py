"""Execute notebooks in a kernel that has Colab's versions of Jupyter's packages.

python -m tools.colab [name ...]

`tests/colab` holds the lists of its packages that Colab publishes. A throw-away environment gets
those packages of the newest list that make up a kernel. All else is taken from the environment
that runs this: PyTorch and its like, and Python itself, of which Colab may have another version.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tools.notebooks import chosen, execute
from tools.site import ROOT, notebook_path

LISTS = sorted((ROOT / "tests" / "colab").glob("*.txt"))
NAME = "colab"
# The packages that chapters can tell apart, by what they are imported as.
MODULES = {
    "IPython": "ipython",
    "ipykernel": "ipykernel",
    "ipywidgets": "ipywidgets",
    "jupyter_client": "jupyter-client",
    "traitlets": "traitlets",
}
# What these need and a newer Jupyter has not.
COMPANIONS = (
    "backcall",
    "decorator",
    "entrypoints",
    "ipython-genutils",
    "matplotlib-inline",
    "nest-asyncio",
    "pickleshare",
    "prompt-toolkit",
    "widgetsnbextension",
)
_CHECK = """\
import importlib

wanted = {wanted}
found = {{name: importlib.import_module(name).__version__ for name in wanted}}
assert found == wanted, f"this kernel is not like Colab's: {{found}}"
del importlib, wanted, found"""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Execute the notebooks with Colab's Jupyter.")
    parser.add_argument("names", nargs="*", help="beginnings of chapter names, such as 03")
    versions = read_list(LISTS[-1])
    with tempfile.TemporaryDirectory() as folder:
        try:
            chapters = chosen(parser.parse_args().names)
            make_kernel(Path(folder), versions)
            for chapter in chapters:
                notebook = nbformat.read(notebook_path(chapter), as_version=4)
                print(f"{chapter.stem}: {run(notebook, chapter.stem, versions):.1f} s", flush=True)
        except (ConnectionError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def read_list(path: Path) -> dict[str, str]:
    """The versions of a list of Colab's packages, by their normalised names."""
    lines = path.read_text(encoding="utf8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def make_kernel(folder: Path, versions: dict[str, str]) -> None:
    """Make an environment in a folder, and a kernel of it that Jupyter finds as `colab`."""
    python = make_environment(folder)
    names = [*MODULES.values(), *COMPANIONS]
    pip("install", "-q", "--no-deps", *(f"{it}=={versions[it]}" for it in names), python=python)
    # Its own packages come first on the path, then those of the environment that runs this.
    lines = [*site.getsitepackages(), str(ROOT)]
    (packages_of(folder) / "ours.pth").write_text("\n".join(lines) + "\n", encoding="utf8")
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = folder / "share" / "jupyter" / "kernels" / NAME / "kernel.json"
    kernel.parent.mkdir(parents=True)
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}  # or the debugger warns at every start
    about = {"argv": command, "display_name": "Colab", "language": "python", "env": quiet}
    kernel.write_text(json.dumps(about), encoding="utf8")
    os.environ["JUPYTER_PATH"] = str(folder / "share" / "jupyter")


def make_environment(folder: Path) -> Path:
    """Make an empty virtual environment without pip; return its Python."""
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def packages_of(folder: Path) -> Path:
    """The folder into which an environment installs."""
    (packages,) = (folder / "lib").glob("python*/site-packages")
    return packages


def run(notebook: NotebookNode, name: str, versions: dict[str, str], kernel: str = NAME) -> float:
    """Execute a notebook in the kernel, once it has shown its versions; return the seconds.

    Raises ValueError when a cell fails or writes to stderr, or the kernel has other versions.
    """
    wanted = {module: versions[package] for module, package in MODULES.items()}
    notebook.cells.insert(0, new_code_cell(_CHECK.format(wanted=wanted)))
    return execute(notebook, name, kernel)


def pip(*arguments: str, python: Path) -> None:
    """Run our pip for another environment, whose Python is given.

    Raises ConnectionError when the package index could not be reached, else ValueError with what
    pip says.
    """
    command = [sys.executable, "-m", "pip", "--python", str(python), *arguments]
    # Whatever holds this machine's packages back does not hold back Colab's.
    unheld = os.environ | {"PIP_CONSTRAINT": os.devnull}
    result = subprocess.run(command, capture_output=True, text=True, env=unheld)
    # An index that answers lists the versions that it has.
    if result.returncode and all(
        it in result.stderr for it in ("connection broken by", "(from versions: none)")
    ):
        raise ConnectionError(f"pip could not reach the package index.\n{result.stderr}")
    if result.returncode:
        raise ValueError(f"pip {' '.join(arguments)} failed.\n{result.stderr}")


if __name__ == "__main__":
    sys.exit(main())
