"""Every claim has a verdict, and the measured rows and the tests agree with it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import ttest_1samp

from tools.citations import read_references
from tools.claims import Check, Claim, read_claims
from tools.evidence import FAILS, HOLDS, OPEN, PART, UNTESTED, effects_of, judge, verdict
from tools.intervals import student_interval
from tools.site import ROOT, bibliography_path, chapter_paths

CLAIMS = read_claims(ROOT)
TESTS = sorted({test for claim in CLAIMS for check in claim.checks for test in check.tests})
IN_A_TABLE = re.compile(r"^\| `([a-z0-9-]+)` \|", re.MULTILINE)

# The claims that the book set out to test.
PLANNED = """
snip-product snip-topk snip-collapse snip-batches snip-steady
grasp-taylor grasp-sign grasp-identity grasp-ntk grasp-norm grasp-layers grasp-random
grasp-extreme grasp-batch grasp-invert grasp-abs
synflow-path synflow-conserve synflow-critical synflow-float64 synflow-neurons synflow-skips
force-one force-schedule force-saliency force-exponential force-local force-extreme force-skip
force-norm force-grasp-it force-iter-grasp force-counts force-iter-snip
prospr-chain prospr-zero prospr-first prospr-resnet20 prospr-vgg16 prospr-four prospr-structured
prospr-cost
mark-random mark-shuffle mark-reinit mark-invert mark-variance mark-later mark-iterative
mark-effective mark-output mark-lenet
"""


@pytest.mark.parametrize("claim", [pytest.param(c, id=f"{c.id}: {c.verdict}") for c in CLAIMS])
def test_verdict(claim: Claim) -> None:
    found, findings = judge(claim, ROOT)
    seen = [
        f"{finding.check.says}: {finding.outcome}"
        + "".join(
            f"\n    {e.name or 'effect'} {e.mean:.4f} [{e.low:.4f}, {e.high:.4f}], "
            f"{e.seeds} seeds: {e.outcome}"
            for e in finding.effects
        )
        for finding in findings
    ]
    assert claim.verdict == found, (
        f"claims.yml says that {claim.id} {claim.verdict!r}, the rows say {found!r}:\n"
        + "\n".join(seen)
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What became of every test that a claim names, run once and all together."""
    report = tmp_path_factory.mktemp("claims") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    subprocess.run(
        [*command, f"--junitxml={report}", *TESTS], cwd=ROOT, check=False, capture_output=True
    )
    found: dict[str, set[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname').replace('.', '/')}.py::{case.get('name').split('[')[0]}"
        found.setdefault(name, set()).add(case[0].tag if len(case) else "passed")
    return found


@pytest.mark.parametrize("test", TESTS)
def test_identities_pass(test: str, outcomes: dict[str, set[str]]) -> None:
    assert outcomes.get(test) == {"passed"}


def test_no_planned_claim_is_left_out() -> None:
    assert set(PLANNED.split()) <= {claim.id for claim in CLAIMS}


def test_chapters_and_claims_name_each_other() -> None:
    named = {
        name for path in chapter_paths() for name in IN_A_TABLE.findall(path.read_text("utf8"))
    }
    known = {claim.id for claim in CLAIMS}
    families = {name.split("-")[0] for name in known}
    assert {name for name in named if name.split("-")[0] in families} <= known
    assert known <= named


def test_sources_are_in_the_bibliography() -> None:
    keys = set(read_references(bibliography_path()))
    assert {claim.source for claim in CLAIMS} <= keys | {"code", "book"}


def test_identities_and_examples_rest_on_tests_and_the_rest_on_rows() -> None:
    for claim in CLAIMS:
        by_rows = any(check.results or check.no_rows for check in claim.checks)
        assert (claim.scale in ("identity", "examples")) == (not by_rows), claim.id


# --- how a verdict is found, on rows made by hand -------------------------------------------------


def write_rows(root: Path, values: dict[tuple[str, float], list[float]], name: str = "toy") -> Path:
    """Write a results file: the accuracies of every method and sparsity, one a seed."""
    rows = [
        {"method": m, "sparsity": s, "seed": seed, "ablation": "none", "prune_at": "0", "acc": a}
        for (m, s), accuracies in values.items()
        for seed, a in enumerate(accuracies)
    ]
    folder = root / "book" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    return root


def difference(**changed: object) -> Check:
    """A check that snip is above random."""
    fields = {
        "says": "snip is above random",
        "results": ("toy",),
        "quantity": "acc",
        "of": {"method": "snip"},
        "against": {"method": "random"},
        "where": {"sparsity": [0.9, 0.98]},
        "holds_in": (0, None),
    }
    return Check(**fields | changed)


TOY = {
    ("snip", 0.9): [0.9, 0.92, 0.91, 0.9],
    ("snip", 0.98): [0.8, 0.82, 0.85, 0.8],
    ("random", 0.9): [0.8, 0.8, 0.81, 0.82],
    ("random", 0.98): [0.5, 0.6, 0.55, 0.5],
}


def test_effect_is_the_mean_difference_with_a_paired_interval(tmp_path: Path) -> None:
    (effect,) = effects_of(difference(), write_rows(tmp_path, TOY))
    table = {cell: np.array(values) for cell, values in TOY.items()}
    snip = (table["snip", 0.9] + table["snip", 0.98]) / 2
    random = (table["random", 0.9] + table["random", 0.98]) / 2
    oracle = ttest_1samp(snip - random, 0.0).confidence_interval(0.95)
    assert effect.mean == pytest.approx(np.mean(snip - random))
    assert (effect.low, effect.high) == pytest.approx((oracle.low, oracle.high))
    assert (effect.seeds, effect.outcome, len(effect.rows)) == (4, HOLDS, 16)


@pytest.mark.parametrize(
    ("holds_in", "outcome"),
    [((0, None), HOLDS), ((None, 0), FAILS), ((0.2, None), OPEN), ((0.1, 0.3), HOLDS),
     ((0.0, 0.1), FAILS), ((0.19, 0.21), OPEN)],
)  # fmt: skip
def test_outcome_is_where_the_interval_lies(
    tmp_path: Path, holds_in: tuple[float | None, float | None], outcome: str
) -> None:
    (effect,) = effects_of(difference(holds_in=holds_in), write_rows(tmp_path, TOY))
    assert effect.outcome == outcome


@pytest.mark.parametrize(
    ("holds_in", "outcome"), [((0, None), FAILS), ((None, 0), FAILS), ((0, 0), HOLDS)]
)
def test_no_difference_is_neither_above_nor_below(
    tmp_path: Path, holds_in: tuple[float | None, float | None], outcome: str
) -> None:
    same = {("snip", 0.9): [0.1, 0.1, 0.1], ("random", 0.9): [0.1, 0.1, 0.1]}
    check = difference(where={"sparsity": [0.9]}, holds_in=holds_in)
    (effect,) = effects_of(check, write_rows(tmp_path, same))
    assert effect.outcome == outcome


def test_each_is_examined_for_itself(tmp_path: Path) -> None:
    check = difference(of={"method": "snip"}, where={}, each={"sparsity": [0.9, 0.98]})
    found = list(effects_of(check, write_rows(tmp_path, TOY)))
    assert [effect.name for effect in found] == ["0.9", "0.98"]
    assert [round(effect.mean, 6) for effect in found] == [0.1, 0.28]


def test_two_seeds_are_too_few(tmp_path: Path) -> None:
    write_rows(tmp_path, {cell: values[:2] for cell, values in TOY.items()})
    with pytest.raises(ValueError, match="2 seeds; an interval needs 3"):
        list(effects_of(difference(), tmp_path))


def test_a_seed_without_all_its_rows_does_not_count(tmp_path: Path) -> None:
    write_rows(tmp_path, TOY | {("random", 0.98): [0.5, 0.6, 0.55]})
    (effect,) = effects_of(difference(), tmp_path)
    assert effect.seeds == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"results": ("toys",)}, "Unknown results file 'toys'. Did you mean 'toy'"),
        ({"quantity": "accuracy"}, "Unknown quantity 'accuracy'"),
        ({"of": {"methods": "snip"}}, "Unknown column of toy 'methods'"),
        ({"where": {}}, "several rows of one seed"),
        ({"of": {"method": "snipe"}}, "rests on 0 seeds"),
    ],
)
def test_checks_that_mean_nothing_are_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    write_rows(tmp_path, TOY)
    with pytest.raises(ValueError, match=message):
        list(effects_of(difference(**changed), tmp_path))


def test_rows_without_a_number_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, TOY | {("snip", 0.9): [0.9, float("nan"), 0.9, 0.9]})
    with pytest.raises(ValueError, match="rows without acc"):
        list(effects_of(difference(), tmp_path))


def claim_of(*checks: Check) -> Claim:
    return Claim("toy-claim", "code", "here", "It holds.", "toys", "small", HOLDS, checks)


def test_nothing_measured_is_said_only_where_nothing_was(tmp_path: Path) -> None:
    write_rows(tmp_path, TOY)
    absent = Check("No grasp", no_rows={"method": "grasp"})
    assert judge(claim_of(absent), tmp_path)[0] == UNTESTED
    with pytest.raises(ValueError, match=r"toy-claim: toy\.csv has rows of .*'snip'"):
        judge(claim_of(Check("No snip", no_rows={"method": "snip"})), tmp_path)


@pytest.mark.parametrize("test", ["tests/test_masks.py::test_no_such", "tests/test_no.py::test_a"])
def test_a_test_that_is_not_there_is_refused(test: str) -> None:
    with pytest.raises(ValueError, match="Unknown test of"):
        judge(claim_of(Check("A test", tests=(test,))), ROOT)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([HOLDS, HOLDS], HOLDS), ([HOLDS, UNTESTED], HOLDS), ([HOLDS, OPEN], PART),
     ([HOLDS, FAILS], PART), ([FAILS, OPEN], FAILS), ([OPEN], OPEN), ([UNTESTED], UNTESTED)],
)  # fmt: skip
def test_verdict_of_outcomes(outcomes: list[str], expected: str) -> None:
    assert verdict(outcomes) == expected


def test_interval_needs_three_values() -> None:
    assert np.isnan(student_interval(np.array([0.1, 0.2]))).all()


# --- the file, and what happens when it or the rows change ----------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the claims and the results."""
    shutil.copytree(ROOT / "book" / "results", tmp_path / "book" / "results")
    shutil.copy(ROOT / "book" / "claims.yml", tmp_path / "book")
    return tmp_path


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("verdict", None, r"snip-product, verdict: None is not one of"),
        ("verdict", "confirmed", "'confirmed' is not one of"),
        ("checks", [], "snip-product, checks: \\[\\]"),
        ("colour", "red", "'colour' was unexpected"),
    ],
)
def test_a_claim_without_verdict_or_check_is_refused(
    copy: Path, field: str, value: object, message: str
) -> None:
    path = copy / "book" / "claims.yml"
    entries = yaml.safe_load(path.read_text("utf8"))
    entries[0][field] = value
    path.write_text(yaml.safe_dump(entries), "utf8")
    with pytest.raises(ValueError, match=message):
        read_claims(copy)


@pytest.mark.parametrize("field", ["verdict", "checks", "source", "scale"])
def test_a_field_that_is_missing_is_named(copy: Path, field: str) -> None:
    path = copy / "book" / "claims.yml"
    entries = yaml.safe_load(path.read_text("utf8"))
    del entries[0][field]
    path.write_text(yaml.safe_dump(entries), "utf8")
    with pytest.raises(ValueError, match=f"snip-product.*'{field}' is a required property"):
        read_claims(copy)


def test_an_id_stands_there_once(copy: Path) -> None:
    path = copy / "book" / "claims.yml"
    path.write_text(path.read_text("utf8") * 2, "utf8")
    with pytest.raises(ValueError, match="stands there twice"):
        read_claims(copy)


def test_one_changed_number_changes_a_verdict(copy: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.id == "grasp-random")
    path = copy / "book" / "results" / "digits.csv"
    rows = pd.read_csv(path, dtype=str)
    place = (rows.method == "grasp") & (rows.sparsity == "0.95") & (rows.seed == "0")
    rows.loc[place, "test_accuracy"] = "0.1"
    rows.to_csv(path, index=False)
    assert judge(claim, ROOT)[0] == claim.verdict != judge(claim, copy)[0]
