"""The scorecard says what the claims and the rows give, and nothing is missing on it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tools import forest, results_pages
from tools.cards import card, measured
from tools.claims import Check, Claim, read_claims
from tools.evidence import FAILS, HOLDS, OPEN, UNTESTED, Effect, Finding, judge
from tools.pictures import THEMES, save
from tools.results_pages import stale_pages
from tools.scorecard import PAGE, VERDICTS, chapters_by_claim, judge_all, make_page, not_run
from tools.shown import decimals, effect_words, number, range_words
from tools.site import ROOT

CLAIMS = read_claims(ROOT)
TEXT = (ROOT / PAGE).read_text(encoding="utf8")
CARDS = {part.split("`", 1)[0]: part for part in TEXT.split("\n#### `")[1:]}


def test_page_is_what_claims_and_rows_give() -> None:
    assert stale_pages(ROOT) == [], "Run `make results-pages`."


def test_every_claim_has_one_card() -> None:
    assert TEXT.count("\n#### ") == len(CARDS)
    assert sorted(CARDS) == sorted(claim.id for claim in CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_card_says_what_was_found_and_where_to_look(claim: Claim) -> None:
    text = CARDS[claim.id]
    assert f'data-verdict="{claim.verdict}" data-scale="{claim.scale}"' in text
    assert f">{claim.verdict}</b>" in text
    assert claim.claim in text
    chapters = re.findall(r"\[Chapter \d+\]\(chapters/(\d\d_\w+\.md)#claims-and-findings\)", text)
    assert chapters == [path.name for path in chapters_by_claim(ROOT)[claim.id]] != []
    for check in claim.checks:
        assert check.says in text
        for name in check.results:
            assert f"<book/results/{name}.csv>" in text
        for test in check.tests:
            path, name = test.split("::")
            assert f"`{name} <{path}>`" in text


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_card_holds_every_effect(claim: Claim) -> None:
    for finding in judge(claim, ROOT)[1]:
        for effect in finding.effects:
            words = effect_words(effect, finding.check)
            assert f"**{words}**, {effect.seeds} seeds" in CARDS[claim.id]


def counts() -> pd.DataFrame:
    """The table of counts on the page."""
    lines = re.findall(r"^\| .+ \|$", TEXT.split("## What was not run")[0], re.MULTILINE)
    cells = [[re.sub("<[^>]+>", "", cell).strip() for cell in line.split("|")[1:-1]]
             for line in lines]  # fmt: skip
    table = pd.DataFrame(cells[2:], columns=cells[0]).set_index("verdict")
    return table.astype(int)


def test_counts_add_up() -> None:
    table = counts()
    assert table.loc["all", "all"] == len(CLAIMS)
    assert (table.drop(columns="all").sum(axis=1) == table["all"]).all()
    assert (table.drop(index="all").sum() == table.loc["all"]).all()
    for claim in CLAIMS:
        table.loc[claim.verdict, claim.scale] -= 1
    assert not table.loc[list(VERDICTS), ["identity", "examples", "masks", "small", "papers"]].any(
        axis=None
    )


def test_what_was_not_run_is_named() -> None:
    said = TEXT.split("## What was not run")[1].split("\n## ")[0]
    untested = {claim.id for claim in CLAIMS if claim.verdict == UNTESTED}
    trained = {c.id for c in CLAIMS if c.scale == "papers" and c.verdict != UNTESTED}
    assert set(re.findall(r"\(#([a-z0-9-]+)\)", said)) == untested | trained
    assert ("No network was trained at the papers' scale" in said) == (not trained)
    small = sum(claim.scale == "small" and claim.verdict != UNTESTED for claim in CLAIMS)
    assert f"decide {small} claim" in said


def test_claims_tested_at_the_scale_of_papers_are_named() -> None:
    it = next(it for it in judge_all(ROOT) if it.verdict == HOLDS)
    fields = {name: getattr(it.claim, name) for name in Claim.__dataclass_fields__}
    at_scale = type(it)(Claim(**fields | {"scale": "papers"}), HOLDS, it.findings)
    assert f"decide 1 claim: [`{it.claim.id}`](#{it.claim.id})." in not_run([at_scale])


def test_one_changed_number_makes_the_page_stale(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_figures"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    assert make_page(tmp_path) == TEXT
    path = tmp_path / "book" / "results" / "digits.csv"
    rows = pd.read_csv(path, dtype=str)
    place = (rows.method == "grasp") & (rows.sparsity == "0.95") & (rows.seed == "0")
    rows.loc[place, "test_accuracy"] = "0.1"
    rows.to_csv(path, index=False)
    assert str(PAGE) in stale_pages(tmp_path)


def test_the_check_fails_while_a_page_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book").mkdir()
    shutil.copytree(ROOT / "book" / "results", tmp_path / "book" / "results")
    for name in ("claims.yml", "references.bib"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book")
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    monkeypatch.setattr(results_pages, "ROOT", tmp_path)
    assert results_pages.main(["--check"]) == 1
    assert results_pages.main([]) == 0
    assert results_pages.main(["--check"]) == 0


# --- numbers and words ----------------------------------------------------------------------------

DIFFERENCE = Check("a", quantity="test_accuracy", against={"method": "b"}, holds_in=(-0.02, None))


def effect(mean: float, low: float, high: float, outcome: str = HOLDS, name: str = "") -> Effect:
    """An effect of five seeds, on rows made by hand."""
    rows = pd.DataFrame({"model": "tiny", "data": "mnist", "epochs": 3, "seed": range(5),
                         "hardware": "CPU", "test_accuracy": 0.9})  # fmt: skip
    return Effect(name, mean, low, high, 5, outcome, rows)


@pytest.mark.parametrize(
    ("check", "found", "words"),
    [
        (DIFFERENCE, effect(0.0512, -0.01, 0.1124), "+5.1 [−1.0, 11.2] points"),
        (DIFFERENCE, effect(-0.0004, -0.0006, -0.0002), "−0.040 [−0.060, −0.020] points"),
        (Check("a", quantity="test_accuracy"), effect(0.5, 0.25, 0.75), "50 [25, 75]%"),
        (Check("a", quantity="saliency"), effect(2.5, 2.0, 3.0), "2.50 [2.00, 3.00]"),
        (Check("a", quantity="connected"), effect(1, 1, 1), "100% each time"),
        (Check("a", quantity="connected"), effect(0.9, 0.7, 1.1), "90 [70, 100]%"),
        (
            Check("a", quantity="output_density"),
            effect(4e-5, -2e-5, 1e-4),
            "0.0040 [0.0000, 0.0100]%",
        ),
        (DIFFERENCE, effect(-0.015, -0.015, -0.015), "−1.5 points each time"),
        (DIFFERENCE, effect(0.015, 0.015, 0.015), "+1.5 points each time"),
    ],
)
def test_effect_in_words(check: Check, found: Effect, words: str) -> None:
    assert effect_words(found, check) == words


def test_long_numbers_are_in_powers_of_ten() -> None:
    assert number(-1.234e9, 0) == "−1.23e+09"
    assert number(3.2e-7, 8) == "0.00000032"
    assert (number(-0.004, 2, signed=True), number(0.0, 1, signed=True)) == ("0.00", "0.0")
    assert (decimals(20), decimals(0.2), decimals(0)) == (0, 2, 2)


@pytest.mark.parametrize(
    ("holds_in", "words"),
    [((0, None), "above 0"), ((None, 0), "below 0"), ((-0.02, None), "at least −2 points"),
     ((None, 0.005), "at most 0.5 points"), ((-0.01, 0.01), "from −1 to 1 points"),
     ((0.02, 0.02), "exactly 2 points")],
)  # fmt: skip
def test_range_in_words(holds_in: tuple[float | None, float | None], words: str) -> None:
    check = Check("a", quantity="test_accuracy", against={"method": "b"}, holds_in=holds_in)
    assert range_words(check) == words


def test_many_effects_and_checks_are_folded() -> None:
    some = (effect(0.01, 0.0, 0.02, name="snip"), effect(-0.04, -0.05, -0.03, FAILS, "grasp"))
    findings = [Finding(DIFFERENCE, FAILS, some)] + [Finding(DIFFERENCE, HOLDS, some[:1])] * 5
    claim = Claim("toy-claim", "code", "here", "It is.", "toys", "small", OPEN, (), note="Why.")
    text = card(claim, OPEN, findings, [])
    head, *folded = text.split("<details>")
    assert "1 of 2 hold, means from −4.00 to +1.00 points; claimed: at least −2 points" in head
    assert [re.search("<summary>(.*)</summary>", part)[1] for part in folded] == [
        "2 effects", "2 more checks",
    ]  # fmt: skip
    assert "\n  - " in folded[0]
    assert "grasp: **−4.0 [−5.0, −3.0] points**, 5 seeds" in folded[0]
    assert folded[0].count("\n- ") == 3
    assert "*Note.* Why." in folded[1]


def test_what_was_measured_counts_every_row_once() -> None:
    finding = Finding(DIFFERENCE, HOLDS, (effect(0, 0, 0),))
    masks = finding.effects[0].rows.drop(columns=["epochs", "hardware"]).assign(seed=range(5, 10))
    other = Finding(DIFFERENCE, HOLDS, (Effect("", 0, 0, 0, 5, HOLDS, masks),))
    assert measured([finding, finding, other]) == (
        "`tiny` on MNIST: 3 epochs, 5 seeds, 5 networks, CPU; "
        "`tiny` on MNIST: 5 seeds, 5 masks, hardware not noted"
    )


# --- the pictures ---------------------------------------------------------------------------------


def toy_panels() -> list[forest.Panel]:
    """Three effects in points and one ratio, of two claims."""
    claims = [Claim(f"toy-{i}", "code", "here", "It is.", "toys", "small", OPEN, ()) for i in "ab"]
    ratio = Check("a", quantity="saliency", holds_in=(0.99, 1.04))
    points = (effect(0.3, 0.1, 0.5), effect(-0.05, -0.06, -0.04, FAILS), effect(0, -0.1, 0.1, OPEN))
    return forest.panels([
        (claims[0], [Finding(ratio, HOLDS, (effect(1.0, 0.995, 1.01),))]),
        (claims[1], [Finding(DIFFERENCE, FAILS, points)]),
    ])  # fmt: skip


def test_pictures_draw_every_effect_where_it_is(tmp_path: Path) -> None:
    panels = toy_panels()
    assert [panel.label for panel in panels] == [
        forest.ACCURACY,
        "kept saliency over one-shot SNIP's",
    ]
    ends = forest.limits(panels)
    assert ends[forest.ACCURACY] == (pytest.approx(-10), pytest.approx(50))
    assert ends[panels[1].label] == (0.99, 1.04)
    ax = forest.draw("Toys", panels, ends, THEMES[0]).axes[0]
    drawn = [np.asarray(line.get_xdata(), float) for line in ax.lines]
    for shown in panels[0].effects:
        assert any(np.array_equal(x, [shown.low, shown.high]) for x in drawn)
        assert any(np.array_equal(x, [shown.mean]) for x in drawn)
    assert ax.get_xlim()[0] < -10 < 50 < ax.get_xlim()[1]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["toy-b"]


def test_effects_of_all_magnitudes_are_told_apart() -> None:
    check = Check("a", quantity="gradient_norm", against={"method": "b"}, holds_in=(0, None))
    claim = Claim("toy-a", "code", "here", "It is.", "toys", "small", OPEN, ())
    some = tuple(effect(10.0**i, 10.0**i, 10.0**i) for i in range(-2, 3))
    panels = forest.panels([(claim, [Finding(check, HOLDS, some)])])
    ax = forest.draw("Toys", panels, forest.limits(panels), THEMES[0]).axes[0]
    places = ax.transData.transform([(10.0**i, 0) for i in range(-2, 3)])[:, 0]
    assert (np.diff(places) > 0.1 * ax.bbox.width).all()


def test_pictures_are_the_same_at_every_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for theme in THEMES:
            panels = toy_panels()
            figure = forest.draw("Toys", panels, forest.limits(panels), theme)
            save(figure, tmp_path / folder / f"toys_{theme.name}.svg")
    for theme in THEMES:
        name = f"toys_{theme.name}.svg"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a/toys_light.svg").read_text() != (tmp_path / "a/toys_dark.svg").read_text()


def test_alternative_text_counts() -> None:
    assert forest.alt_text("Toys", toy_panels()) == (
        "Toys, 4 effects of 2 claims with their intervals: does not hold 1, holds 2, open 1."
    )
