"""What contributors read and fill in: recipes that name what exists, forms, and hooks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tools.site import ROOT

PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "RELEASING.md")]
RECIPES = ("A chapter", "A criterion", "A claim", "A data set")
FOLDER = ROOT / ".github" / "ISSUE_TEMPLATE"
FORMS = [path for path in sorted(FOLDER.glob("*.yml")) if path.stem != "config"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf8"))["repos"]
PATH = re.compile(
    r"`(?:\.venv/bin/\S+ (?:-m pytest )?)?((?:\.?\w+/)+[\w.-]*|\w+\.(?:md|yml|toml|cff))`"
)
TARGET = re.compile(r"`make ([a-z-]+)[^`]*`")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def recipe(title: str) -> list[str]:
    """The lines of a recipe that are not empty."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line]


def missing(text: str) -> list[str]:
    """The paths and the make targets that a text names and that do not exist."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf8"), re.MULTILINE))
    paths = [path for path in PATH.findall(text) if "NN_" not in path]
    return [path for path in paths if not (ROOT / path).exists()] + [
        name for name in TARGET.findall(text) if name not in targets
    ]


@each_page
def test_every_path_and_target_exists(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    assert len(PATH.findall(text)) > 8
    assert len(TARGET.findall(text)) > 4
    assert missing(text) == []


def test_a_path_and_a_target_that_are_not_there_are_found() -> None:
    text = "Edit `tools/none.py`, `NONE.md` and `tools/site.py`, then run `make none ARGS=1`."
    assert missing(text) == ["tools/none.py", "NONE.md", "none"]


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_has_less_than_ten_lines(title: str) -> None:
    assert 3 <= len(recipe(title)) < 10


def test_names_that_recipes_use_are_where_they_say() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    places = re.findall(r"`(\w+)` (?:of|in) `([\w/]+\.py)`", text)
    assert len(places) >= 3
    for name, path in places:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf8")), (name, path)


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_requires(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf8"))
    assert {"name", "description", "body"} <= set(content)
    assert any(field.get("validations", {}).get("required") for field in content["body"])
    ids = [field["id"] for field in content["body"]]
    assert len(set(ids)) == len(ids)
    for field in content["body"]:
        assert field["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]


def test_there_is_a_form_for_text_code_and_claims() -> None:
    assert [form.stem for form in FORMS] == ["claim", "code", "text"]


def test_hooks_are_of_this_repository_and_run_from_its_environment() -> None:
    (local,) = HOOKS
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
