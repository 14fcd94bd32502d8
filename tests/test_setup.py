"""The set-up: one address, one list of dependencies, and plain words when something is missing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from fixtures.project import copy_project

from tools.chromium import find_chromium
from tools.floors import check_python, floors, unit_tests
from tools.site import ROOT, colab_url, repository, source_url

CONDA_NAMES = {"torch": "pytorch"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SKIPPED = {".git", ".venv", "_build", "build", "__pycache__", ".ipynb_checkpoints"}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def test_environment_yml_is_in_step_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))
    *packages, by_pip = environment["dependencies"]
    listed = {*packages, *by_pip["pip"]} - {"-e ."}
    wanted = project()["dependencies"] + project()["optional-dependencies"]["notebooks"]
    renamed = {re.sub(r"^[\w-]+", lambda n: CONDA_NAMES.get(n[0], n[0]), it) for it in wanted}
    assert listed == renamed | {f"python{project()['requires-python']}", "pip"}


def test_installing_leaves_the_torch_of_colab_alone() -> None:
    notebooks = project()["optional-dependencies"]["notebooks"]
    for requirement in project()["dependencies"] + notebooks:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), f"{requirement} is not a floor only"


def source_files() -> list[Path]:
    """The files that people write: what is built from them is left out."""
    files = []
    for folder, names, here in os.walk(ROOT):
        names[:] = [name for name in names if name not in SKIPPED and "egg-info" not in name]
        files += [Path(folder, name) for name in here if not name.endswith(".ipynb")]
    return files


def test_the_address_of_the_repository_stands_in_one_place() -> None:
    address = repository().removeprefix("https://")
    found = [path for path in source_files() if address.encode() in path.read_bytes()]
    assert found == [ROOT / "_config.yml"]


def test_an_installed_package_holds_the_measured_results(tmp_path: Path) -> None:
    source = copy_project(tmp_path / "source")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", tmp_path / "it", "."]
    subprocess.run(command, cwd=source, check=True)
    installed = {path.name for path in (tmp_path / "it" / "pai_lite" / "measured").iterdir()}
    assert installed == {path.name for path in (ROOT / "book" / "results").glob("*.csv")}
    assert (tmp_path / "it" / "pai_lite" / "book.mplstyle").exists()
    code = "import pai_lite as pai; print(pai.__file__, len(pai.measured('scoring_costs')))"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "it")}
    shown = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).split()
    assert Path(shown[0]).is_relative_to(tmp_path)
    assert int(shown[1]) > 0


def test_links_are_made_from_the_address(tmp_path: Path) -> None:
    config = "repository:\n  url: https://github.com/someone/fork/\n  branch: dev\n"
    (tmp_path / "_config.yml").write_text(config)
    assert source_url("a/b.md", tmp_path) == "https://github.com/someone/fork/blob/dev/a/b.md"
    assert colab_url("n.ipynb", tmp_path) == (
        "https://colab.research.google.com/github/someone/fork/blob/dev/n.ipynb"
    )


def make_with(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run `make book` in an empty project with this script as its Python."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    script = folder / "some-python"
    script.write_text(f"#!/bin/sh\n{python}\n")
    script.chmod(0o755)
    command = ["make", "book", f"PYTHON={script}"]
    environment = {key: value for key, value in os.environ.items() if "MAKE" not in key}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("exit 1", "Python 3.11 or newer is needed"),
        ('case "$2" in *version_info*) exit 0;; *) exit 1;; esac', "has no venv: install it"),
    ],
    ids=["too old", "without venv"],
)
def test_make_says_what_to_install(tmp_path: Path, python: str, message: str) -> None:
    result = make_with(tmp_path, python)
    assert result.returncode != 0
    lines = result.stdout.strip().splitlines()
    assert [line for line in lines if not line.startswith("make")] == lines[:1]
    assert message in lines[0]
    assert not (tmp_path / ".venv").exists()


def test_the_version_stands_in_every_place_that_names_it() -> None:
    version = project()["version"]
    assert importlib.metadata.version(project()["name"]) == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert citation["version"] == version
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert f"{citation['title']}*, version {version}." in readme
    assert citation["authors"][0]["name"] in readme
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    dated = r"^## \[([\d.]+)\] - (?:Unreleased|\d{4}-\d\d-\d\d)$"
    assert re.findall(dated, changes, re.MULTILINE)[0] == version


def test_the_citation_has_what_its_format_requires() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["license"] == project()["license"]


def test_lint_reads_every_notebook() -> None:
    ruff = Path(sys.executable).with_name("ruff")
    shown = subprocess.check_output([ruff, "check", "--show-files", "."], cwd=ROOT, text=True)
    read = {Path(line) for line in shown.splitlines()}
    assert set((ROOT / "notebooks").rglob("*.ipynb")) <= read


def test_every_make_target_is_in_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf8").replace("\\\n", " ")
    targets = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert sorted(re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)) == sorted(targets)


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf8").rstrip().endswith("make test")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf8")
    yaml.safe_load(text)
    used = re.findall(r"uses: (.+)", text)
    assert used
    assert [it for it in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", it)] == []


def test_ci_tests_every_supported_python() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf8")
    versions = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]


def test_ci_tests_the_oldest_versions_with_the_oldest_python() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf8")
    steps = yaml.safe_load(text)["jobs"]["floors"]["steps"]
    assert steps[-1]["run"] == "make floors"
    assert project()["requires-python"] == f">={steps[1]['with']['python-version']}"


def test_every_package_is_held_at_its_floor() -> None:
    held = floors(project())
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", it) for it in held)
    assert {it.replace("==", ">=") for it in held} >= set(project()["dependencies"])


def test_the_oldest_versions_meet_the_tests_of_the_package() -> None:
    names = {path.name for path in unit_tests()}
    assert {"test_criteria.py", "test_structured.py", "test_training.py"} <= names
    assert names.isdisjoint({"test_notebooks.py", "test_browser.py", "test_setup.py"})


def test_a_newer_python_is_told_which_one_is_wanted() -> None:
    check_python(f">={sys.version_info.major}.{sys.version_info.minor}")
    with pytest.raises(ValueError, match=r"run make floors PYTHON=python3\.1$"):
        check_python(">=3.1")


@pytest.mark.skipif("GITHUB_ACTIONS" not in os.environ, reason="elsewhere a browser may be missing")
def test_the_browser_tests_are_not_skipped_on_github() -> None:
    assert find_chromium(), "install Chromium or Chrome in the workflow, or no page is looked at"
