"""The benchmarks: that they run, and that what they compare with is correct. No times."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_batch, make_network, unchanged

import pai_lite as pai
from benchmarks import grid, plain
from benchmarks.measure import peak_bytes, ratio, times
from benchmarks.rows import Row

ROOT = Path(__file__).parents[1]
MEGABYTE = 2**20


def megabyte() -> torch.Tensor:
    return torch.zeros(MEGABYTE, dtype=torch.uint8)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pd.DataFrame]:
    """What the quick run prints, and what it writes into a new folder."""
    out = tmp_path_factory.mktemp("benchmarks") / "results" / "costs.csv"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, pd.read_csv(out, keep_default_na=False)


def test_quick_run_prints_every_row_and_how_many_targets_are_met(quick) -> None:
    printed, table = quick
    lines = printed.splitlines()
    assert lines[0].split() == ["what", "network", "measured", "at", "most", "met"]
    assert len(lines) == len(table) + 2
    for line, what in zip(lines[1:], table.what, strict=False):
        assert line.startswith(what)
    met, targets = (table.met == "yes").sum(), (table.at_most != "").sum()
    assert lines[-1] == f"{met} of {targets} targets met"


def test_table_has_every_target_of_the_paper_methods(quick) -> None:
    _, table = quick
    what = " | ".join(table.what[table.at_most != ""])
    for name in ("snip", "grasp", "prospr first-order", "prospr over plain unroll", "memory"):
        assert name in what
    for name in ("force", "exact-k over torch.topk", "synflow over plain loop"):
        assert name in what


def test_table_names_what_it_was_measured_on(quick) -> None:
    _, table = quick
    assert set(table.torch) == {torch.__version__}
    assert set(table.threads.astype(int)) == {1}
    assert (table.hardware != "").all()
    assert pd.to_datetime(table.date).notna().all()


def test_target_is_met_up_to_its_bound() -> None:
    row = Row("snip", "resnet20", 1.1, "u", 1.1)
    assert row.met == "yes"
    assert Row("snip", "resnet20", 1.11, "u", 1.1).met == "no"
    assert Row("grad_norm", "resnet20", 1.0, "u").met == ""


def test_calls_take_turns_and_ratio_is_the_median_over_the_rounds() -> None:
    order: list[str] = []
    found = times({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, "cpu")
    assert order == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}
    assert ratio([2.0, 9.0, 8.0], [1.0, 1.0, 2.0]) == 4.0


def test_peak_counts_what_is_held_at_a_time() -> None:
    def one_after_another() -> None:
        for _ in range(3):
            megabyte()

    def together() -> None:
        held = [megabyte() for _ in range(3)]
        del held

    assert peak_bytes(one_after_another, "cpu") == pytest.approx(MEGABYTE, rel=1e-3)
    assert peak_bytes(together, "cpu") == pytest.approx(3 * MEGABYTE, rel=1e-3)


def test_peak_leaves_out_what_was_there_before() -> None:
    before = [megabyte() for _ in range(4)]

    def release_then_hold() -> None:
        before.clear()
        megabyte()

    assert peak_bytes(release_then_hold, "cpu") == pytest.approx(MEGABYTE, rel=1e-3)


def test_peak_counts_what_a_backward_pass_holds() -> None:
    x = torch.zeros(MEGABYTE // 4, requires_grad=True)

    def backward() -> None:
        torch.autograd.grad(x.exp().exp().sum(), x)

    # Both results are kept for the backward pass, which makes the first gradient beside them.
    assert peak_bytes(backward, "cpu") == pytest.approx(3 * MEGABYTE, rel=1e-3)


def test_plain_grasp_is_grasp(network) -> None:
    batch = make_batch()
    expected = pai.grasp(network.train(), batch)
    for name, score in plain.grasp(network, batch).items():
        torch.testing.assert_close(score, expected[name], rtol=1e-9, atol=1e-14)


def test_plain_synflow_chooses_what_synflow_does(network) -> None:
    # No sparser: a unit with one weight on either side would give the two the same score.
    batch, sparsity = make_batch(), 0.5
    steps = pai.prune_steps(network, "synflow", batch, sparsity=sparsity, steps=4)
    loop = plain.synflow(network, batch, sparsity, steps=4)
    with unchanged(network):
        for step, mask in zip(steps, loop, strict=True):
            assert {name: int(m.sum()) for name, m in mask.items()} == step.mask.layer_counts()
            for name, kept in step.mask.items():
                assert torch.equal(mask[name].bool(), kept)


def test_path_norm_network_has_no_biases_and_batchnorm_is_the_identity() -> None:
    model = make_network("conv")
    with unchanged(model):
        neutral = plain.path_norm_network(model)
    x = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    assert torch.equal(neutral[1](x), x)
    assert all(not p.any() for name, p in neutral.named_parameters() if name.endswith("bias"))


def test_one_pass_is_the_gradient_of_all_parameters() -> None:
    model, batch = make_network("residual").train(), make_batch()
    found = plain.one_pass(model, batch)
    torch.nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_a_grid_is_timed_against_its_networks_one_by_one(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["grid", "--data", "digits", "--limit", "2"])
    grid.main()
    *table, together, alone, ratio = capsys.readouterr().out.splitlines()
    assert len(table) == 1 + 2
    assert together.startswith("2 networks as a grid")
    assert float(ratio.removeprefix("ratio: ")) > 0
    assert "one by one" in alone
