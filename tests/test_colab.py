"""Colab: installing replaces nothing there, and its old Jupyter executes the notebooks.

pip resolves for the Python that runs these tests, which may not be Colab's.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from fixtures.project import copy_project
from nbformat.v4 import new_code_cell, new_notebook
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.colab import (
    LISTS,
    make_environment,
    make_kernel,
    packages_of,
    pip,
    read_list,
    run,
)
from tools.notebooks import code_cells
from tools.site import ROOT, assignment_paths, chapter_paths, notebook_path

NOTEBOOKS = [notebook_path(page) for page in [*chapter_paths(), *assignment_paths()]]


class Claimed(NamedTuple):
    """The Python of an environment, and the versions that it claims to have."""

    python: Path
    versions: dict[str, str]


each_list = pytest.mark.parametrize("published", LISTS, ids=lambda path: path.stem)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def floors() -> list[Requirement]:
    """What runs on Colab needs, and the least version of each."""
    return [
        Requirement(it)
        for it in project()["dependencies"] + project()["optional-dependencies"]["notebooks"]
    ]


@contextmanager
def network() -> Iterator[None]:
    """Skip the test where the package index cannot be reached; whatever else fails, fails."""
    try:
        yield
    except ConnectionError as error:
        pytest.skip(str(error).splitlines()[0])


# What the install cell does to Colab's packages


def installed_by(notebook: Path) -> list[str]:
    """The arguments of pip in a notebook's install cell."""
    cells = nbformat.read(notebook, as_version=4).cells
    (source,) = [it.source for it in cells if "install" in it.metadata.get("tags", [])]
    (line,) = re.findall(r"^ *%pip (.+)$", source, re.MULTILINE)
    return shlex.split(line)


def claim(versions: dict[str, str], packages: Path) -> None:
    """Let an environment say that it has packages, of which it has nothing but the names."""
    for name, version in versions.items():
        folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (folder / "INSTALLER").write_text("pip\n")
        (folder / "RECORD").touch()


@pytest.fixture(scope="module", params=LISTS, ids=lambda path: path.stem)
def claimed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Claimed:
    """An environment that claims to have what Colab has."""
    folder = tmp_path_factory.mktemp("colab")
    versions = read_list(request.param)
    python = make_environment(folder)
    claim(versions, packages_of(folder))
    return Claimed(python, versions)


def resolve(source: Path, python: Path) -> set[str]:
    """What the install cell would install, with the project from a folder instead of its address.

    pip builds the project's metadata on its own, as it does on Colab, and installs nothing.
    """
    command, *arguments = [
        re.sub(r"git\+\S+", source.as_uri(), it) for it in installed_by(NOTEBOOKS[0])
    ]
    report = source / "report.json"
    with network():
        pip(command, "--dry-run", "--report", str(report), *arguments, python=python)
    items = json.loads(report.read_text(encoding="utf8"))["install"]
    return {canonicalize_name(item["metadata"]["name"]) for item in items}


def require(requirement: str, source: Path) -> None:
    """Put a requirement among a project's, in place of the one that names the same package."""
    path, name = source / "pyproject.toml", Requirement(requirement).name
    text = re.sub(rf'\n    "{name}>=[^"]+",', "", path.read_text(encoding="utf8"))
    text = text.replace("\ndependencies = [", f'\ndependencies = [\n    "{requirement}",')
    path.write_text(text, encoding="utf8")
    assert requirement in tomllib.loads(text)["project"]["dependencies"]


def test_every_notebook_installs_the_same_with_pip() -> None:
    assert len(NOTEBOOKS) > len(chapter_paths())
    arguments = {tuple(installed_by(notebook)) for notebook in NOTEBOOKS}
    ((command, *_, requirement),) = arguments
    assert command == "install"
    assert requirement.startswith("pai-lite @ git+https://")


def test_installing_replaces_nothing_on_colab(claimed: Claimed, tmp_path: Path) -> None:
    installed = resolve(copy_project(tmp_path / "source"), claimed.python)
    assert "pai-lite" in installed
    assert installed.isdisjoint(claimed.versions)


def test_a_floor_above_colabs_version_replaces_it(claimed: Claimed, tmp_path: Path) -> None:
    source = copy_project(tmp_path / "source")
    for requirement in ("numpy>=2.1", "ipywidgets>=8"):
        require(requirement, source)
    installed = resolve(source, claimed.python)
    assert {"numpy", "ipywidgets"} <= installed & claimed.versions.keys()


def test_a_torch_that_does_not_exist_fails_to_resolve(claimed: Claimed, tmp_path: Path) -> None:
    source = copy_project(tmp_path / "source")
    require("torch>=99", source)
    with pytest.raises(ValueError, match="No matching distribution found for torch>=99"):
        resolve(source, claimed.python)


@each_list
def test_colab_meets_every_floor(published: Path) -> None:
    versions = read_list(published)
    missing = {it.name for it in floors() if it.name not in versions}
    # Colab has its own interface instead of JupyterLab; the other one is installed by the cell.
    assert missing == {"torch-pruning", "jupyterlab"}
    unmet = [
        it for it in floors() if it.name not in missing and versions[it.name] not in it.specifier
    ]
    assert unmet == []


def test_only_an_index_out_of_reach_skips_the_check(
    claimed: Claimed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(pytest.skip.Exception, match="could not reach the package index"):
        resolve(copy_project(tmp_path / "source"), claimed.python)


# Notebooks in a kernel with Colab's Jupyter


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The versions of the newest list, of which there is a kernel."""
    versions = read_list(LISTS[-1])
    with network():
        make_kernel(tmp_path_factory.mktemp("kernel"), versions)
    return versions


def quickest_chapter() -> Path:
    with (ROOT / "book" / "execution_times.csv").open(encoding="utf8") as file:
        name = min(csv.DictReader(file), key=lambda row: float(row["seconds"]))["chapter"]
    return next(path for path in chapter_paths() if path.stem == name)


def test_the_kernel_has_colabs_versions(versions: dict[str, str]) -> None:
    assert {versions[it] for it in ("ipython", "ipywidgets")} == {"7.34.0", "7.7.1"}
    source = "import IPython, ipywidgets\nprint(IPython.__version__, ipywidgets.__version__)"
    notebook = new_notebook(cells=[new_code_cell(source)])
    run(notebook, "versions", versions)
    assert notebook.cells[-1].outputs[0].text == "7.34.0 7.7.1\n"


def test_another_kernel_is_noticed(versions: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="this kernel is not like Colab's"):
        run(new_notebook(), "empty", versions, kernel="python3")


def test_a_chapter_runs_on_colabs_jupyter(versions: dict[str, str]) -> None:
    chapter = quickest_chapter()
    assert "pai.explorer(" in chapter.read_text(encoding="utf8")
    notebook = nbformat.read(notebook_path(chapter), as_version=4)
    run(notebook, chapter.stem, versions)
    shown = [
        output.data for cell in code_cells(notebook) for output in cell.outputs if "data" in output
    ]
    assert any("pai-explorer" in data.get("text/html", "") for data in shown)


def test_the_assignments_begin_on_colabs_jupyter(versions: dict[str, str]) -> None:
    cells = [
        cell
        for page in assignment_paths()
        for cell in code_cells(nbformat.read(notebook_path(page), as_version=4))
        if "import pai_lite as pai" in cell.source
    ]
    assert len(cells) >= len(assignment_paths())
    run(new_notebook(cells=cells), "assignments", versions)
