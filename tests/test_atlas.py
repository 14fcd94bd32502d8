"""The results atlas shows every row of every results file of runs, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import t

import pai_lite as pai
from pai_lite.plots import STYLE
from tools.atlas import FIGURES, draw_figures, make_page, recipe_text
from tools.atlas_figures import CONTRAST, contrast, readable
from tools.atlas_rows import CONTROLS, FAMILIES, LATER, SPARSITY, read_runs, read_sections
from tools.pictures import THEMES
from tools.results_pages import stale_pages
from tools.site import ROOT

RESULTS = ROOT / "book" / "results"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository that has results and nothing else."""
    shutil.copytree(RESULTS, tmp_path / "book" / "results")
    return tmp_path


def rows_of(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / "book" / "results" / f"{name}.csv", dtype=str, keep_default_na=False)


def write_rows(rows: pd.DataFrame, root: Path, name: str) -> None:
    rows.to_csv(root / "book" / "results" / f"{name}.csv", index=False)


def only(root: Path, *names: str) -> None:
    """Leave these results files, and no sentences for others."""
    for path in (root / "book" / "results").iterdir():
        if path.stem not in names:
            path.unlink()


def section(page: str, name: str) -> str:
    """The text of one section."""
    return page.split(f"(atlas-{name})=")[1].split("(atlas-")[0]


def table(page: str, name: str) -> list[list[str]]:
    """The rows of a section's table, the heads first."""
    lines = re.findall(r"^\| (.+) \|$", section(page, name), re.MULTILINE)
    return [line.split(" | ") for line in lines if "---" not in line]


def test_the_committed_page_is_that_of_the_results() -> None:
    assert stale_pages(ROOT) == [], "run `make results-pages`"


def test_a_changed_row_changes_the_page(root: Path) -> None:
    before = make_page(root)
    assert make_page(root) == before
    rows = rows_of(root, "digits")
    rows.loc[1, "test_accuracy"] = "0.5"
    write_rows(rows, root, "digits")
    assert make_page(root) != before


def test_every_file_of_runs_has_a_section_and_others_have_none() -> None:
    page = make_page(ROOT)
    with_runs = {p.stem for p in RESULTS.glob("*.csv") if "prune_at" in p.read_text()[:200]}
    assert set(re.findall(r"^\(atlas-(\w+)\)=$", page, re.MULTILINE)) == with_runs
    assert "scoring_costs" not in page


def test_no_two_sections_have_one_title(root: Path) -> None:
    titles = re.findall("^## (.+)", make_page(ROOT), re.MULTILINE)
    assert len(set(titles)) == len(titles)
    only(root, "digits", "digits_large_batch", "digits_later")
    assert re.findall("^## (.+)", make_page(root), re.MULTILINE) == [
        "small-conv on digits: accuracy against sparsity, 10 images a class",
        "small-conv on digits: accuracy against sparsity, 100 images a class",
        "small-conv on digits: accuracy against the step of pruning",
    ]


@pytest.mark.parametrize("name", ["digits", "digits_controls", "digits_later", "mnist"])
def test_the_table_has_every_mean_with_its_interval(name: str) -> None:
    """Against Python's statistics and the t distribution, from the text of the file."""
    heads, *lines = table(make_page(ROOT), name)
    found = {
        (*line[: -len(values)], place): cell
        for line in lines
        for values in [line[len(line) - sum(h[0].isdigit() for h in heads) :]]
        for place, cell in zip(heads[-len(values) :], values, strict=True)
        if cell
    }
    masks = {"none": "as chosen", "shuffle": "shuffled within layers"}
    masks |= {"reinitialize": "new initial values", "invert": "inverted"}
    rows = rows_of(ROOT, name)
    rows = rows[rows["method"] != "dense"]
    wanted = {}
    for cell, its in rows.groupby(["method", "sparsity", "ablation", "prune_at"]):
        method, removed, step = cell[0], f"{100 * float(cell[1]):.4g}%", cell[3]
        key = {
            "digits_controls": (method, masks[cell[2]], removed),
            "digits_later": (f"{removed} removed", method, step),
        }.get(name, (method, removed))
        values = [100 * float(value) for value in its["test_accuracy"]]
        half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
        wanted[key] = (statistics.mean(values), half)
    assert found.keys() == wanted.keys()
    for key, (mean, half) in wanted.items():
        shown = [float(number) for number in found[key].split(" (")[0].split(" ± ")]
        assert shown == pytest.approx([mean, half], abs=0.0501), key


def test_two_seeds_have_a_mean_and_no_interval(root: Path) -> None:
    only(root, "digits")
    rows = rows_of(root, "digits")
    write_rows(rows[rows["seed"].isin(["0", "1"])], root, "digits")
    assert all("±" not in cell for line in table(make_page(root), "digits") for cell in line)
    assert all(
        line.points[["low", "high"]].isna().all(axis=None)
        for panel in read_sections(root)[0].panels
        for line in panel.lines
    )


def test_networks_without_an_accuracy_do_not_count_and_are_named(root: Path) -> None:
    only(root, "digits")
    rows = rows_of(root, "digits")
    failed = (rows["method"] == "snip") & (rows["sparsity"] == "0.99") & (rows["seed"] == "3")
    rows.loc[failed, ["test_accuracy", "note"]] = ["", "failed: no such thing."]
    write_rows(rows, root, "digits")
    page = make_page(root)
    line = next(line for line in table(page, "digits") if line[0] == "snip")
    assert line[-1].endswith("(4 seeds)")
    assert "1 had the note: failed: no such thing." in page


def test_every_method_belongs_to_one_family() -> None:
    assert sorted(m for family in FAMILIES.values() for m in family) == sorted(pai.METHODS)


def test_an_unknown_method_is_drawn_too(root: Path) -> None:
    only(root, "digits")
    rows = rows_of(root, "digits")
    write_rows(rows.replace({"method": {"grasp-it": "mine"}}), root, "digits")
    panels = {panel.title: panel for panel in read_sections(root)[0].panels}
    assert [line.label for line in panels["Other"].lines] == ["mine"]
    behind = {line.label for line in panels["Other"].behind}
    assert behind == set(rows.method) - {"grasp-it", "dense"}


def test_kinds_of_files() -> None:
    kinds = {section.name: section.kind for section in read_sections(ROOT)}
    wanted = {"digits": SPARSITY, "mnist": SPARSITY, "digits_controls": CONTROLS}
    assert wanted.items() <= kinds.items()
    assert kinds["digits_later"] == LATER


def test_what_a_file_lacks_is_borrowed_from_a_file_of_the_same_setting(root: Path) -> None:
    only(root, "digits", "digits_controls", "mnist")
    whole = {section.name: section for section in read_sections(root)}["digits_controls"]
    assert whole.borrowed == ("digits",)  # the dense network
    rows = rows_of(root, "digits_controls")
    only(root, "digits", "mnist")
    # Under a name that comes before that of the lender.
    write_rows(rows[rows["ablation"] != "none"], root, "controls")
    lent = {section.name: section for section in read_sections(root)}["controls"]
    assert lent.borrowed == ("digits",)
    assert len(lent.rows) == len(rows) * 3 / 4  # the file itself is as it is
    for ours, theirs in zip(lent.panels, sorted_like(whole.panels, lent.panels), strict=True):
        assert [line.label for line in ours.lines] == [line.label for line in theirs.lines]
        pd.testing.assert_frame_equal(ours.lines[0].points, theirs.lines[0].points)
    assert "those of `digits.csv`" in section(make_page(root), "controls")


def sorted_like(panels: tuple, others: tuple) -> list:
    """The panels in the order of others, by their titles."""
    return [next(p for p in panels if p.title == other.title) for other in others]


def test_nothing_is_borrowed_from_another_recipe(root: Path) -> None:
    only(root, "digits", "digits_controls")
    rows = rows_of(root, "digits")
    rows["recipe"] = rows["recipe"].str.replace('"epochs": 12', '"epochs": 13')
    write_rows(rows, root, "digits")
    section = {section.name: section for section in read_sections(root)}["digits_controls"]
    assert section.borrowed == ()
    assert section.dense.empty


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("model", "vgg16", r"digits.csv holds rows with model .*vgg16.*; give each"),
        ("per_class", "1", r"per_class 1 and 10; give each"),
        ("seed", "1", r"several rows of .*'method': 'dense'"),
        ("ablation", "shuffle", None),
    ],
)
def test_rows_that_are_not_of_one_grid(
    root: Path, column: str, value: str, message: str | None
) -> None:
    rows = rows_of(root, "digits")
    rows.loc[rows.index[rows["method"] == "dense"][0], column] = value
    write_rows(rows, root, "digits")
    if message is None:
        read_runs(root)
        return
    with pytest.raises(ValueError, match=message):
        read_runs(root)


def test_steps_with_ablations_or_with_methods_after_training_are_refused(root: Path) -> None:
    rows = rows_of(root, "digits_later")
    write_rows(rows.assign(ablation=["shuffle", *rows["ablation"][1:]]), root, "digits_later")
    with pytest.raises(ValueError, match="ablations and several steps; give each a file"):
        read_runs(root)
    last = rows.iloc[[0]].assign(method="lottery-ticket", prune_at="end")
    write_rows(pd.concat([rows, last]), root, "digits_later")
    with pytest.raises(ValueError, match="lottery-ticket, which has none"):
        read_runs(root)


def test_a_sentence_for_no_file_is_refused(root: Path) -> None:
    (root / "book" / "results" / "atlas.yml").write_text("digit: Look.\n")
    with pytest.raises(ValueError, match=r"atlas.yml names digit, which is no file of runs"):
        make_page(root)


def test_what_was_trained_is_said_from_the_rows() -> None:
    text = section(make_page(ROOT), "digits")
    assert "405 networks: 16 methods at 5 sparsities, 80% to 99%, 5 seeds." in text
    assert "12 epochs of stochastic gradient descent with batches of 128" in text
    assert "grid book/results/digits.toml --out digits.csv" in text


def test_a_recipe_of_a_paper_has_its_name() -> None:
    recipe = pai.RECIPES["mark-resnet20"]
    text = recipe_text(json.dumps(asdict(recipe), sort_keys=True))
    assert text.startswith("Recipe, that of `grasp-cifar`, `mark-resnet20` and `mark-vgg16`: 160")
    assert "times 0.1 after 50% and 75%" in text
    assert text.endswith("shifts and flips.")


def test_figures_are_those_of_the_page_and_the_same_every_time(root: Path) -> None:
    only(root, "digits_later", "digits")
    draw_figures(root)
    drawn = {path.name: path.read_bytes() for path in (root / FIGURES).iterdir()}
    assert set(re.findall(r"_figures/(\S+)", make_page(root))) == set(drawn)
    draw_figures(root)
    assert drawn == {path.name: path.read_bytes() for path in (root / FIGURES).iterdir()}
    light = [content for name, content in drawn.items() if "light" in name]
    assert len(light) == len(drawn) / 2
    assert all(b"<dc:date>" not in content for content in light)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_lines_stand_out_from_the_page(theme) -> None:
    for color, _ in STYLE.values():
        shown = readable(color, theme)
        assert contrast(shown, theme.ground) >= CONTRAST
        assert shown == color.lower() or contrast(color, theme.ground) < CONTRAST


def test_contrast_ratios_are_those_of_the_guidelines() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
