"""Masks before training: what is measured on them, which of them, and where the rows go."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ResidualNet, make_batch
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.models import find_builder
from tools.mask_grid import MaskCell, MaskGrid, read_mask_grid
from tools.mask_quantities import (
    Reference,
    common_share,
    layer_quantities,
    path_quantities,
    ratio,
    shortcut_density,
)
from tools.mask_rows import COLUMNS, Pruner, add_row, make_row, read_rows
from tools.measure_masks import main, measure_masks, plan
from tools.site import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")

GRID = """
data = "digits"
model = "small-conv"
seeds = [1, 0]
sparsities = [0.9, 0.99]
per_class = 2

[[masks]]
methods = ["random", "snip"]
ablations = ["none", "shuffle"]

[[masks]]
methods = ["synflow"]
steps = [10]
ablations = ["none", "shuffle"]
sparsities = [0.9]

[[masks]]
methods = ["force"]
steps = [2, 3]
schedule = ["exponential", "linear"]
sparsities = [0.9]
seeds = [0]
"""


def write_grid(folder: Path, text: str = GRID) -> Path:
    path = folder / "masks.toml"
    path.write_text(text)
    return path


def fill(folder: Path, text: str = GRID, **options) -> pd.DataFrame:
    options = {"workers": 1, "progress": False, **options}
    return measure_masks(read_mask_grid(write_grid(folder, text)), folder / "out.csv", **options)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of the grid above, by two processes, as numbers."""
    folder = tmp_path_factory.mktemp("masks")
    fill(folder, workers=2)
    return pd.read_csv(folder / "out.csv", keep_default_na=False, na_values={"saliency": [""]})


def chain() -> tuple[nn.Module, tuple[Tensor, Tensor], pai.Mask]:
    """Return layers of 2, 3, 3 and 2 units, and a mask whose paths are counted by hand.

    The only path runs through unit 0 of all layers. Unit 2 of the first hidden layer and unit 1
    of the second have no incoming weight.
    """
    widths = (2, 3, 3, 2)
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    kept = [
        [[1, 0], [0, 1], [0, 0]],
        [[1, 0, 0], [0, 0, 0], [0, 0, 1]],
        [[1, 1, 0], [0, 0, 1]],
    ]
    mask = pai.Mask({f"{i}.weight": torch.tensor(m).bool() for i, m in enumerate(kept)})
    return nn.Sequential(*layers), (torch.ones(1, 2), torch.tensor([0])), mask


def test_layers_of_a_mask_counted_by_hand():
    *_, mask = chain()
    assert layer_quantities(mask) == {
        "emptied_units": 2 / 8,
        "emptied_layers": 0,
        "lowest_layer_density": 2 / 9,
        "lowest_layer_kept": 2,
        "output_density": 3 / 6,
        "output_rank": 1,
        "top_density": 2 / 9,
    }


def test_a_tie_has_the_best_rank_and_an_empty_layer_counts():
    *_, mask = chain()
    full = torch.ones(3, 2, dtype=torch.bool)
    tied = pai.Mask({**mask, "0.weight": mask["0.weight"] | full, "2.weight": full.T})
    assert layer_quantities(tied)["output_rank"] == 1
    beaten = layer_quantities(pai.Mask({**mask, "0.weight": full}))
    assert (beaten["output_rank"], beaten["emptied_units"]) == (2, 1 / 8)
    empty = layer_quantities(pai.Mask({**mask, "1.weight": torch.zeros(3, 3, dtype=torch.bool)}))
    assert (empty["emptied_layers"], empty["lowest_layer_kept"]) == (1, 0)
    assert empty["lowest_layer_density"] == empty["top_density"] == 0


def test_the_top_layers_are_the_last_third_without_the_output():
    densities = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0]
    mask = pai.Mask({str(i): (torch.arange(10) < 10 * d)[None] for i, d in enumerate(densities)})
    assert layer_quantities(mask)["top_density"] == pytest.approx((0.5 + 0.6) / 2)


def test_paths_of_a_mask_counted_by_hand():
    model, batch, mask = chain()
    # Another number of weights lies on paths when these places are shuffled.
    seeds = {pai.effective_mask(model, batch, pai.shuffle(mask, seed=s)).kept: s for s in range(9)}
    shuffled, seed = max(seeds.items())
    found = path_quantities(Reference(model, batch), mask, seed=seed)
    # Kept are 7 weights; 3 lie on the one path.
    assert found["effective"] == pytest.approx(3 / 7)
    assert shuffled > 3
    assert found["effective_shuffled"] == pytest.approx(shuffled / 3)
    assert found["connected"] == 1
    cut = pai.Mask({**mask, "1.weight": torch.zeros(3, 3, dtype=torch.bool)})
    found = path_quantities(Reference(model, batch), cut, seed=0)
    assert (found["effective"], found["connected"]) == (0, 0)
    assert found["effective_shuffled"] != found["effective_shuffled"]  # NaN: of no weights


class Named(ResidualNet):
    """The residual network, in a block, with its shortcut called as torchvision calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {"conv1": self.conv1, "conv2": self.conv2, "downsample": nn.Sequential(self.shortcut)}
        )
        del self.conv1, self.conv2, self.shortcut


def test_shortcuts_are_compared_with_the_convolutions_of_their_block():
    mask = {n: torch.zeros_like(m) for n, m in pai.Mask.dense(Named()).items()}
    mask["stem.weight"][:] = True  # beside no shortcut
    mask["block.downsample.0.weight"].view(-1)[:3] = True
    mask["block.conv1.weight"].view(-1)[:30] = True
    assert shortcut_density(pai.Mask(mask)) == pytest.approx((3 / 12) / (30 / (108 + 144)))
    mask["block.conv1.weight"][:] = False
    assert pd.isna(shortcut_density(pai.Mask(mask)))
    assert pd.isna(shortcut_density(chain()[2]))


def dense_mask(name: str) -> pai.Mask:
    """Return the mask of a network for CIFAR-10 that keeps all, without drawing any weight."""
    with torch.device("meta"):
        weights = pai.prunable_parameters(find_builder(name)((3, 32, 32), 10))
    return pai.Mask({n: torch.ones(w.shape, dtype=torch.bool) for n, w in weights.items()})


@pytest.mark.parametrize(("name", "not_compared"), [("resnet20", "none"), ("resnet50", "conv3")])
def test_shortcuts_of_the_networks_at_hand(name: str, not_compared: str):
    mask = dense_mask(name)
    assert shortcut_density(mask) == 1
    for layer in mask:
        if any(word in layer for word in ("shortcut", "downsample", not_compared)):
            mask[layer].view(-1)[::2] = False
    assert shortcut_density(mask) == pytest.approx(0.5)


def test_a_chain_has_no_shortcuts():
    assert pd.isna(shortcut_density(dense_mask("vgg16")))


def test_gradients_are_those_of_the_package(network: nn.Module):
    batch = make_batch()
    reference = Reference(network, batch)
    mask = pai.prune(network, "magnitude", sparsity=0.6)
    saliency, norm = reference.totals(mask)
    assert saliency == pytest.approx(pai.kept_saliency(network, batch, mask=mask), rel=1e-12)
    assert norm == pytest.approx(pai.squared_gradient_norm(network, batch, mask=mask), rel=1e-12)
    assert reference.norm == pytest.approx(pai.squared_gradient_norm(network, batch), rel=1e-12)
    snip = pai.prune(network, "snip", batch, sparsity=0.6)
    by_snip = pai.kept_saliency(network, batch, mask=snip)
    assert reference.saliency_of_snip(0.6) == pytest.approx(by_snip, rel=1e-12)


def test_overlap_is_a_share_of_the_first_mask():
    first = pai.Mask({"w": torch.tensor([True, True, True, True, False])})
    second = pai.Mask({"w": torch.tensor([False, True, True, True, True])})
    third = pai.Mask({"w": torch.tensor([False, False, False, True, False])})
    assert (common_share(first, second), common_share(first, third)) == (3 / 4, 1 / 4)
    assert pd.isna(ratio(1.0, 0.0))
    assert pd.isna(ratio(float("inf"), 1.0))


TWO_TABLES = """
data = "cifar10-jpeg"
model = "vgg19"
seeds = [0, 1, 2]
sparsities = [0.95, 0.99]

[[masks]]
methods = ["random", "snip", "synflow"]

[[masks]]
methods = ["iter-snip", "force"]
sparsities = [0.9, 0.99]
steps = [20, 60]
schedule = ["exponential", "linear"]

[[masks]]
methods = ["force"]
"""


def test_a_grid_is_the_product_of_its_lists_and_names_a_mask_once(tmp_path: Path):
    path = tmp_path / "two.toml"
    path.write_text(TWO_TABLES)
    grid = read_mask_grid(path)
    assert (grid.data, grid.model, grid.per_class) == ("cifar10-jpeg", "vgg19", 10)
    assert MaskCell("force", 0.99, 2, "none", "20", "linear") in grid.cells
    assert MaskCell("synflow", 0.99, 0, "none", "100", "exponential") in grid.cells
    # The preset of the last table has 60 steps, and at 0.99 the table before has it, too.
    assert len(grid.cells) == 3 * (3 * 2 + 2 * 2 * 2 * 2 + 1)
    assert len(set(grid.cells)) == len(grid.cells)


@pytest.mark.parametrize("path", sorted((ROOT / "book/results").glob("masks_*.toml")), ids=str)
def test_every_grid_of_the_book_can_be_read(path: Path):
    grid = read_mask_grid(path)
    assert path.stem == f"masks_{grid.model}"
    assert all(len({c.seed for c in cells}) == 1 for cells in plan(grid.cells))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            GRID.replace("per_class", "per_clas"),
            "Unknown key of .*masks.toml 'per_clas'.*per_class",
        ),
        (GRID.replace("steps = [2, 3]", "rounds = [2, 3]"), "Unknown key of a table .*'rounds'"),
        (GRID.replace("seeds = [1, 0]", ""), "lacks seeds"),
        (GRID.replace('methods = ["force"]', ""), "lacks methods"),
        (GRID.replace('"force"', '"fource"'), "Unknown method 'fource'.*'force'"),
        (GRID.replace('"force"', '"snip"'), "'snip' scores the network once; leave steps"),
        (GRID.replace('"random"', '"lottery-ticket"'), "prunes a trained network"),
        (GRID.replace('"linear"', '"cubic"'), "Unknown schedule 'cubic'"),
        (GRID.replace('"shuffle"', '"invert"'), "Unknown ablation 'invert'"),
        (GRID.replace("0.99", "1.0"), "sparsity is 1.0"),
        (GRID.replace("[2, 3]", "[0]"), "steps is 0"),
        (GRID.replace("small-conv", "smal-conv"), "Unknown model 'smal-conv'"),
        ("data =", "is not TOML"),
    ],
)
def test_a_wrong_grid_is_refused(tmp_path: Path, wrong: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_mask_grid(write_grid(tmp_path, wrong))


def test_every_mask_has_its_row(measured: pd.DataFrame):
    assert list(measured) == list(COLUMNS)
    assert len(measured) == 2 * 2 * 2 * 2 + 2 * 2 + 4
    assert not measured.duplicated(
        ["method", "sparsity", "seed", "ablation", "steps", "schedule"]
    ).any()
    assert (measured.note == "").all()
    assert measured.reached.sub(measured.sparsity).abs().max() < 1e-3
    assert set(measured.data) == {"digits"}


def test_a_row_is_what_the_package_computes(measured: pd.DataFrame):
    data = pai.load_data("digits")
    model, batch = pai.build_model("small-conv", data, seed=1), data.batch(per_class=2, seed=1)
    mask = pai.prune(model, "synflow", batch, sparsity=0.9, steps=10, progress=False)
    row = measured.query("method == 'synflow' and sparsity == 0.9 and seed == 1").set_index(
        "ablation"
    )
    plain, moved = row.loc["none"], row.loc["shuffle"]
    dense = pai.squared_gradient_norm(model, batch)
    norm = pai.squared_gradient_norm(model, batch, mask=mask) / dense
    assert plain.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert plain.emptied_units == pytest.approx(pai.emptied_units(mask).mean())
    shuffled = pai.shuffle(mask, seed=1)
    assert moved.emptied_units == pytest.approx(pai.emptied_units(shuffled).mean())
    kept = pai.kept_saliency(model, batch, mask=shuffled)
    snip = pai.prune(model, "snip", batch, sparsity=0.9)
    base = pai.kept_saliency(model, batch, mask=snip)
    assert moved.saliency == pytest.approx(kept / base, rel=1e-4)
    assert moved.overlap_batch == plain.overlap_batch == ""


def test_snip_is_one_by_definition_and_overlaps_in_part(measured: pd.DataFrame):
    snip = measured.query("method == 'snip' and ablation == 'none'")
    assert snip.saliency.to_numpy() == pytest.approx(1, rel=1e-9)
    overlap = snip.overlap_batch.astype(float)
    assert ((overlap > 0) & (overlap < 1)).all()
    assert (snip.steps == "").all()


def test_what_has_a_row_is_not_measured_again(tmp_path: Path):
    text = GRID.replace('"random", "snip"', '"random"').replace("seeds = [1, 0]", "seeds = [0]")
    assert len(fill(tmp_path, text, limit=3)) == 3
    frame = read_rows(tmp_path / "out.csv")
    frame.loc[0, "note"] = "stays"
    frame.to_csv(tmp_path / "out.csv", index=False)
    rows = fill(tmp_path, text)
    assert len(rows) == 4 + 2 + 4
    assert rows.note.tolist() == ["stays"] + 9 * [""]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "masks.toml",
        "out.csv",
        "out.csv.lock",
    ]
    add_row(tmp_path / "out.csv", rows.loc[0].to_dict())
    assert len(read_rows(tmp_path / "out.csv")) == 10


def test_a_file_of_another_grid_or_kind_is_refused(tmp_path: Path):
    fill(tmp_path, limit=1)
    with pytest.raises(ValueError, match="holds rows with model small-conv; this grid has lenet"):
        fill(tmp_path, GRID.replace("small-conv", "lenet-300-100"))
    (tmp_path / "out.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is not a file of masks: it has no column"):
        fill(tmp_path)


def test_data_of_another_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    grid = write_grid(tmp_path, GRID.replace('"digits"', '"cifar10-jpeg"'))
    assert main([str(grid), "--out", str(tmp_path / "out.csv"), "--data", "digits"]) == 1
    assert (
        "digits holds data named 'digits'; this grid is for 'cifar10-jpeg'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out.csv").exists()


def test_a_mask_that_cannot_be_made_leaves_a_note():
    data = pai.load_data("digits")
    model, batch = pai.build_model("small-conv", data, seed=0), data.batch(per_class=2)
    reference = Reference(model, batch)
    broken = pai.copy_model(model)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    reference.model = broken
    grid = MaskGrid("digits", "small-conv", 2, ())
    pruner = Pruner(reference, data, "snip", 0, 2)
    row = make_row(MaskCell("snip", 0.9, 0), grid, data, pruner)
    assert row["note"].startswith("failed: ")
    assert "NaN" in row["note"]
    assert row["saliency"] == row["reached"] == ""
    assert (row["method"], row["sparsity"]) == ("snip", 0.9)
