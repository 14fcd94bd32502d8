"""The results atlas: a page with a section for every results file of runs, made from its rows.

`python -m tools.results_pages` writes the page; `python -m tools.build_book` draws its figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from pai_lite.cells import DENSE
from pai_lite.paper_recipes import RECIPES
from pai_lite.recipes import Recipe
from tools.atlas_figures import draw_all, figure_stem
from tools.atlas_rows import (
    CONTROLS,
    LATER,
    SPARSITY,
    Line,
    Panel,
    Section,
    percent,
    read_sections,
    steps_in,
)
from tools.intervals import FEWEST
from tools.pictures import shown_twice

PAGE = Path("book/results-atlas.md")
FIGURES = Path("book/_figures")
#: By kind, the end of a section's title, the columns that name a line, and what the others are.
KINDS = {
    SPARSITY: ("accuracy against sparsity", ["method"], "% of weights removed"),
    CONTROLS: ("controls", ["method", "mask"], "% of weights removed"),
    LATER: ("accuracy against the step of pruning", ["sparsity", "method"], "step of pruning"),
}
HEAD = """\
<!-- Made by `make results-pages` from the files in book/results/; do not edit. -->

# Results atlas

Every file of measured runs, drawn in the same way.
A section says what was trained, shows it, and has the numbers in a folded table.

* A marker is the mean of the test accuracy after the last epoch over the seeds.
* A band is Student's 95% interval of that mean.
  It is drawn where there are at least three seeds; an interval of three seeds is wide.
  What of it lies above 100% is cut off.
* The dashed line is the mean of the dense network.
* Grey lines are the methods of the other panels.
* The axis of accuracies is logarithmic in the error, which is $100\\%$ minus the accuracy.
  Differences near the top can be seen this way.
* The axis of sparsities is logarithmic in the density, the fraction of weights that is kept.

Two intervals that overlap do not show that two methods are equal.
The {doc}`scorecard <scorecard>` has intervals of differences.
"""


def make_page(root: Path) -> str:
    """Return the page as Markdown.

    Raises:
        ValueError: a results file cannot be drawn, or a sentence is written for no file.
    """
    sections, looks = read_sections(root), read_looks(root)
    if unknown := set(looks) - {section.name for section in sections}:
        raise ValueError(f"book/results/atlas.yml names {min(unknown)}, which is no file of runs.")
    bodies = [
        section_text(section, title(section, sections), looks.get(section.name, ""), root)
        for section in sections
    ]
    return "\n".join([HEAD, *bodies])


def draw_figures(root: Path) -> None:
    """Draw the figures that the page shows."""
    draw_all(read_sections(root), root / FIGURES)


def read_looks(root: Path) -> dict[str, str]:
    """Return the sentences that say what to look at, by the name of the results file."""
    path = root / "book" / "results" / "atlas.yml"
    return yaml.safe_load(path.read_text(encoding="utf8")) if path.exists() else {}


def title(section: Section, sections: list[Section]) -> str:
    """Return the title of a section, with what tells it from others that would have the same."""
    same = [other for other in sections if plain_title(other) == plain_title(section)]
    for column, unit in {"per_class": "images a class", "epochs": "epochs"}.items():
        values = {other.rows[column].iloc[0] for other in same}
        if len(values) == len(same) > 1:
            return f"{plain_title(section)}, {section.rows[column].iloc[0]} {unit}"
    return plain_title(section)


def plain_title(section: Section) -> str:
    """Return what was trained, and what is drawn."""
    setting = section.rows.iloc[0]
    return f"{setting['model']} on {setting['data']}: {KINDS[section.kind][0]}"


def section_text(section: Section, head: str, look: str, root: Path) -> str:
    """Return a section under its head: what was trained, the figures, the table."""
    lines = [
        f"(atlas-{section.name})=",
        f"## {head}",
        "",
        *(f"* {fact}" for fact in facts(section)),
        "",
        *([look, ""] if look else []),
        "::::{div} atlas-panels",
        *(shown_twice(figure_stem(section, p), alternative(section, p)) for p in section.panels),
        "::::",
        "",
        *table_text(section),
        "",
        *provenance(section, root),
        "",
    ]
    return "\n".join(lines)


def facts(section: Section) -> Iterator[str]:
    """Yield what was trained, computed from the rows."""
    rows = section.rows
    methods = rows.loc[rows["method"] != DENSE, "method"].nunique()
    sparsities = sorted(set(rows["sparsity"]) - {0.0})
    seeds = counted(rows["seed"].nunique(), "seed")
    reach = " to ".join(dict.fromkeys(f"{percent(s)}%" for s in (sparsities[0], sparsities[-1])))
    yield (
        f"{counted(len(rows), 'network')}: {counted(methods, 'method')} at "
        f"{counted(len(sparsities), 'sparsity')}, {reach}, {seeds}."
    )
    if section.kind == LATER:
        yield f"They were pruned after {listed(map(str, steps_in(rows)))} steps of training."
    yield recipe_text(rows["recipe"].iloc[0])
    yield f"Methods that look at data saw {rows['per_class'].iloc[0]} images of each class."
    seconds = float(f"{rows['train_seconds'].median():.2g}")
    yield f"Trained on {listed(sorted(set(rows['hardware'])))}, {seconds:g} seconds a network."
    for note, count in rows.loc[rows["note"] != "", "note"].value_counts().items():
        yield f"Of these networks, {count} had the note: {note}."


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 seed, 2 seeds, 2 sparsities."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def recipe_text(recipe: str) -> str:
    """Return how the networks were trained, from the column recipe."""
    settings = json.loads(recipe)
    made = Recipe(**settings | {"milestones": tuple(settings["milestones"])})
    names = [f"`{name}`" for name, known in RECIPES.items() if known == made]
    called = f", that of {listed(names)}" if names else ""
    rate = {
        "constant": "constant",
        "cosine": "falling to 0 along a cosine",
        "one-cycle": "rising to its highest value and falling again in one cycle",
        "step": f"times {made.gamma:g} after "
        + listed(f"{100 * at:.3g}%" for at in made.milestones),
    }[made.schedule]
    momentum = f"{'Nesterov momentum' if made.nesterov else 'momentum'} {made.momentum:g}"
    return (
        f"Recipe{called}: {counted(made.epochs, 'epoch')} of stochastic gradient descent with "
        f"batches of {made.batch_size}, learning rate {made.lr:g} {rate}, {momentum}, weight "
        f"decay {made.weight_decay:g}, {'shifts and flips' if made.augment else 'no augmentation'}."
    )


def provenance(section: Section, root: Path) -> Iterator[str]:
    """Yield where the rows stand, and the command that makes them."""
    csv, grid = (f"results/{section.name}.{end}" for end in ("csv", "toml"))
    versions = listed(sorted(set(section.rows["version"])))
    commits = listed(f"`{commit}`" for commit in sorted(set(section.rows["commit"]) - {""}))
    of_commit = f", at commit {commits}" if commits else ""
    yield (
        f"The rows are in {{download}}`{section.name}.csv <{csv}>` "
        f"({{source}}`in the repository <book/{csv}>`), made with version {versions}{of_commit}."
    )
    if section.borrowed:
        yield f"The networks for comparison are those of {listed_code(section.borrowed)}."
    if (root / "book" / grid).exists():
        command = f"python -m pai_lite grid book/{grid} --out {section.name}.csv"
        yield from ("The command that makes them:", "", "```bash", command, "```")


def alternative(section: Section, panel: Panel) -> str:
    """Return what a panel shows, in words: where each line begins and ends."""
    setting = section.rows.iloc[0]
    ends = "; ".join(line_in_words(line, section) for line in panel.lines)
    return f"{setting['model']} on {setting['data']}, {panel.title}. Test accuracy: {ends}."


def line_in_words(line: Line, section: Section) -> str:
    """Return the first and the last mean of a line."""
    if line.points.empty:
        return f"{line.label} none"
    ends = list(line.points["mean"].items())
    places = dict.fromkeys((ends[0], ends[-1]))
    at = "step " if section.kind == LATER else "sparsity "
    return f"{line.label} " + ", ".join(
        f"{mean:.1f}% at {at}{heading(place, section)}" for place, mean in places
    )


def table_text(section: Section) -> Iterator[str]:
    """Yield the folded table of all means, with half the width of each interval."""
    lines = [(panel, line) for panel in section.panels for line in panel.lines]
    places = sorted({place for _, line in lines for place in line.points.index})
    most = max(int(line.points["seeds"].max()) for _, line in lines)
    _, names, across = KINDS[section.kind]
    yield from ("<details>", "<summary>The numbers</summary>", "")
    over = f"mean over {counted(most, 'seed')} and half of its 95% interval"
    yield f"Test accuracy in %, by {across}: {over}."
    for place in section.dense.index:
        yield f"The dense network has {cell_text(section.dense, place, most)}."
    heads = [*names, *(heading(place, section) for place in places)]
    yield from ("", f"| {' | '.join(heads)} |")
    yield "|" + " --- |" * len(names) + " ---: |" * len(places)
    for panel, line in lines:
        called = [panel.title, line.label][-len(names) :]
        cells = [cell_text(line.points, place, most) for place in places]
        yield f"| {' | '.join([*called, *cells])} |"
    yield from ("", "</details>")


def heading(place: float, section: Section) -> str:
    """Return a place on the horizontal axis."""
    return str(place) if section.kind == LATER else f"{percent(place)}%"


def cell_text(points: pd.DataFrame, place: float, most: int) -> str:
    """Return a mean with half its interval; fewer seeds than elsewhere are named."""
    if place not in points.index:
        return ""
    seeds, mean, _, high = points.loc[place]
    half = f" ± {high - mean:.1f}" if seeds >= FEWEST else ""
    return f"{mean:.1f}{half}" + (f" ({seeds:.0f} seeds)" if seeds < most else "")


def listed(words: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """Return words as they stand in a sentence: a, b and c."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def listed_code(names: tuple[str, ...]) -> str:
    """Return the names of results files as they stand in a sentence."""
    return listed(tuple(f"`{name}.csv`" for name in names))
