"""Two processes on this machine, started by torchrun, against one.

Run by torchrun, this file is also what the two processes do: see :func:`act_as_one`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CLASSES, INPUT_SHAPE, make_batch, make_data, make_network, same_weights
from conftest import weights as state_of

import pai_lite as pai
from pai_lite.distributed import mean_over_ranks, process_group, rank, ranks, select_gpu, share

ROOT = Path(__file__).parents[1]
RANKS = 2
METHODS = ("random", "magnitude", "snip", "iter-snip", "force", "grasp", "grasp-it", "synflow")
PROSPR = ("prospr", "prospr-first-order")
NETWORKS = ("mlp", "conv", "residual")
OPTIONS: dict[str, dict[str, Any]] = {
    "iter-snip": {"steps": 3},
    "force": {"steps": 3},
    "grasp-it": {"steps": 3},
    "synflow": {"steps": 3},
    "prospr": {"steps": 2, "lr": 0.5, "momentum": 0.9},
    "prospr-first-order": {"steps": 2, "lr": 0.5, "momentum": 0.9},
}
SPLITS = {"evenly": ([0, 1], [2, 3]), "unevenly": ([0], [1, 2, 3])}
RECIPE = pai.Recipe(epochs=2, batch_size=8, lr=0.1, weight_decay=1e-3, augment=True)
# The last batch of 8 has 5 images, which 2 ranks cannot share evenly, or 3, too few to share.
SIZES = (21, 27)


def batches(numbers: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [make_batch(seed=number) for number in numbers]


def mask_of(kind: str, method: str, data: Any) -> pai.Mask:
    options = OPTIONS.get(method, {})
    return pai.prune(make_network(kind), method, data, sparsity=0.6, progress=False, **options)


def train(kind: str, size: int, checkpoint: Path | None = None) -> pai.Run:
    model, data = make_network(kind), make_data(INPUT_SHAPE, CLASSES, sizes=(size, 10, 10))
    mask = pai.keep_top(pai.magnitude(model), 0.5)
    return pai.fit(model, data, RECIPE, mask=mask, checkpoint=checkpoint, progress=False)


def run_as_dict(run: pai.Run) -> dict[str, Any]:
    return {"state": state_of(run.model), "history": run.history.to_dict("list")}


def act_as_one(folder: Path) -> dict[str, Any]:
    """What each rank does, and keeps for the tests."""
    me, found = rank(), {}
    found["ranks"] = ranks()
    total = torch.full((2,), me + 1.0, dtype=torch.float64)
    found["mean"] = mean_over_ranks({"a": total, "b": 10 * total[:1]}, count=me + 1)
    found["share"] = [share(torch.arange(n)) for n in (9, 3)]
    for kind in NETWORKS:
        for method in METHODS:
            for split, numbers in SPLITS.items():
                found[kind, method, split] = mask_of(kind, method, batches(numbers[me]))
        for method in PROSPR:
            found[kind, method] = mask_of(kind, method, batches([me, 2 + me, 4 + me]))
    for split, numbers in SPLITS.items():
        found["grasp", split] = pai.grasp(make_network("residual"), batches(numbers[me]))
    for kind in ("mlp", "conv"):
        for size in SIZES:
            found["fit", kind, size] = run_as_dict(train(kind, size))
    path = folder / f"checkpoint{me}.pt"
    found["saved"] = [run_as_dict(train("conv", 21, checkpoint=path))]
    found["checkpoints"] = sorted(p.name for p in folder.glob("checkpoint*"))
    found["saved"].append(run_as_dict(train("conv", 21, checkpoint=folder / "checkpoint0.pt")))
    retrained = pai.fit(
        train("mlp", 21).model, make_data(INPUT_SHAPE, CLASSES), RECIPE, progress=False
    )
    found["again"] = state_of(pai.copy_model(retrained.model))
    print("The first rank prints this.")
    return found


def torchrun(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, "--nproc-per-node", str(RANKS), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks computed."""
    folder = tmp_path_factory.mktemp("ranks")
    printed = torchrun([__file__, str(folder)]).stdout
    both = [torch.load(folder / f"{i}.pt", weights_only=False) for i in range(RANKS)]
    return [{**one, "printed": printed} for one in both]


def same_masks(first: pai.Mask, second: pai.Mask) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_the_mean_counts_every_batch_once(found: list[dict]) -> None:
    for one in found:
        assert one["ranks"] == RANKS
        assert torch.equal(one["mean"]["a"], torch.ones(2, dtype=torch.float64))
        assert torch.equal(one["mean"]["b"], torch.full((1,), 10.0, dtype=torch.float64))


def test_the_ranks_share_every_row_once_or_have_all_of_too_few(found: list[dict]) -> None:
    shares, few = zip(*(one["share"] for one in found), strict=True)
    assert sorted(torch.cat(shares).tolist()) == list(range(9))
    assert abs(len(shares[0]) - len(shares[1])) == 1
    assert all(part.tolist() == [0, 1, 2] for part in few)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_all_ranks_choose_the_mask_of_one_process_over_all_batches(
    found: list[dict], kind: str, method: str, split: str
) -> None:
    alone = mask_of(kind, method, batches([0, 1, 2, 3]))
    for one in found:
        assert same_masks(one[kind, method, split], alone)


@pytest.mark.parametrize("split", SPLITS)
def test_a_rank_with_one_batch_multiplies_h_with_the_gradient_of_all(
    found: list[dict], split: str
) -> None:
    alone = pai.grasp(make_network("residual"), batches([0, 1, 2, 3]))
    for one in found:
        for name, score in alone.items():
            torch.testing.assert_close(one["grasp", split][name], score, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("method", PROSPR)
def test_prospr_steps_on_the_batches_of_all_ranks_together(found: list[dict], method: str) -> None:
    pairs = [batches([t, t + 1]) for t in (0, 2, 4)]
    joined = [tuple(map(torch.cat, zip(*pair, strict=True))) for pair in pairs]
    alone = mask_of("mlp", method, joined)  # no BatchNorm: its statistics are those of a rank
    assert not same_masks(mask_of("mlp", method, batches([0, 2, 4])), alone)
    for one in found:
        assert same_masks(one["mlp", method], alone)
    for kind in NETWORKS:
        assert same_masks(found[0][kind, method], found[1][kind, method])


@pytest.mark.parametrize("size", SIZES)
def test_training_on_two_ranks_is_training_on_one(found: list[dict], size: int) -> None:
    alone = train("mlp", size)
    for one in found:
        run = one["fit", "mlp", size]
        for name, tensor in state_of(alone.model).items():
            torch.testing.assert_close(run["state"][name], tensor, rtol=1e-10, atol=1e-12)
        for column, values in alone.history.to_dict("list").items():
            assert run["history"][column] == pytest.approx(values, rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_ranks_end_alike_and_pruned(found: list[dict], kind: str, size: int) -> None:
    first, second = (one["fit", kind, size] for one in found)
    assert same_weights(first["state"], second["state"])  # BatchNorm's statistics too
    assert first["history"] == second["history"]
    mask = pai.keep_top(pai.magnitude(make_network(kind)), 0.5)
    for name, kept in mask.items():
        trained = first["state"][name]
        assert (trained[~kept] == 0).all()
        assert (trained[kept] != make_network(kind).state_dict()[name][kept]).all()


def test_batchnorm_sees_the_share_of_a_rank(found: list[dict]) -> None:
    alone = state_of(train("conv", 21).model)
    trained = found[0]["fit", "conv", 21]["state"]
    assert int(trained["1.num_batches_tracked"]) == 6
    assert not torch.equal(trained["1.running_mean"], alone["1.running_mean"])
    assert all(tensor.isfinite().all() for tensor in trained.values())


def test_one_rank_writes_the_checkpoint_and_all_go_on_from_it(found: list[dict]) -> None:
    for one in found:
        written, read = one["saved"]
        assert one["checkpoints"] == ["checkpoint0.pt"]
        assert same_weights(written["state"], read["state"])
        assert written["history"] == read["history"]


def test_a_network_from_several_ranks_can_be_trained_again_and_copied(found: list[dict]) -> None:
    assert same_weights(found[0]["again"], found[1]["again"])


def test_only_the_first_rank_prints(found: list[dict]) -> None:
    assert found[0]["printed"].count("The first rank prints this.") == 1


def test_the_command_line_runs_on_two_ranks_as_on_one() -> None:
    command = "prune --data digits --model small-conv --method snip --sparsity 0.9 --epochs 1"
    lines = torchrun(["-m", "pai_lite", *command.split(), "--device", "cpu"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["method", "snip", "random"]
    assert all("90.00%" in line for line in lines[1:])


def test_alone_nothing_is_shared(capsys: pytest.CaptureFixture[str]) -> None:
    with process_group("cuda"):
        print("printed")
        assert (rank(), ranks()) == (0, 1)
    assert capsys.readouterr().out == "printed\n"
    totals = {"a": torch.tensor([3.0, 6.0])}
    assert mean_over_ranks(totals, 3)["a"].tolist() == [1.0, 2.0]
    assert share(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = torch.cuda.device_count()
    monkeypatch.setenv("LOCAL_RANK", str(gpus))
    with pytest.raises(ValueError, match=f"more processes than the {gpus} GPUs.*--nproc-per-node"):
        select_gpu()


if __name__ == "__main__":
    with process_group("cpu"):
        results = act_as_one(Path(sys.argv[1]))
        torch.save(results, Path(sys.argv[1], f"{rank()}.pt"))
