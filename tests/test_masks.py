"""Masks: counting, applying, attaching, storing."""

import copy
import re
from pathlib import Path

import pytest
import torch
from conftest import full_disk, make_batch, make_network, same_weights, unchanged, weights
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

import pai_lite as pai


def random_mask(model: nn.Module, sparsity: float = 0.5, seed: int = 0) -> pai.Mask:
    return pai.keep_top(pai.random(model, seed=seed), sparsity)


# Counting


def test_prunable_are_the_weights_of_linear_and_convolutional_layers():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3),
        nn.Conv2d(1, 2, 3),
        nn.Conv3d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.LayerNorm(4),
        nn.Embedding(3, 4),
        nn.Sequential(nn.Linear(2, 2)),
    )
    found = pai.prunable_parameters(model)
    assert list(found) == ["0.weight", "1.weight", "2.weight", "6.0.weight"]
    assert found["6.0.weight"] is model[6][0].weight


def test_trap_first_snip_code_prunes_biases(network):
    """Neither biases nor BatchNorm's parameters are pruned or counted."""
    mask = random_mask(network, 0.9)
    assert all(name.endswith("weight") for name in mask)
    assert all(dict(network.named_parameters())[name].dim() > 1 for name in mask)
    assert mask.size == sum(p.numel() for p in network.parameters() if p.dim() > 1)


def test_a_model_without_prunable_layer_is_refused():
    for call in (pai.prunable_parameters, pai.Mask.dense, pai.magnitude):
        with pytest.raises(ValueError, match=r"(?i)prunable|linear|conv"):
            call(nn.BatchNorm1d(3))


def test_counts_of_a_mask_by_hand():
    mask = pai.Mask(
        {
            "a.weight": torch.tensor([[True, False], [False, False]]),
            "b.weight": torch.tensor([[True, True, False, True]]),
        }
    )
    assert (mask.kept, mask.size) == (4, 8)
    assert mask.density == mask.sparsity == 0.5
    assert mask.layer_counts() == {"a.weight": 1, "b.weight": 3}
    assert mask.layer_density().to_dict() == {"a.weight": 0.25, "b.weight": 0.75}
    assert list(mask.layer_density().index) == list(mask) == ["a.weight", "b.weight"]


def test_the_dense_mask_keeps_all(network):
    mask = pai.Mask.dense(network)
    assert (mask.density, mask.sparsity) == (1.0, 0.0)
    before = weights(network)
    mask.apply_(network)
    assert same_weights(before, weights(network))


@pytest.mark.parametrize(
    "tensors", [{}, {"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.int64)}]
)
def test_a_mask_holds_at_least_one_tensor_and_only_booleans(tensors):
    with pytest.raises(ValueError, match=r"(?i)bool|empty|no tensor|at least one|no layer"):
        pai.Mask(tensors)


def test_overlap_by_hand():
    first = pai.Mask({"a": torch.tensor([True, True, False]), "b": torch.tensor([True, False])})
    second = pai.Mask({"a": torch.tensor([True, False, True]), "b": torch.tensor([True, False])})
    assert first.overlap(second) == second.overlap(first) == 0.5  # 2 in both, 4 in either
    assert first.overlap(first) == 1.0
    assert first.overlap(pai.Mask({name: ~tensor for name, tensor in first.items()})) == 0.0


@pytest.mark.parametrize("other", [{"b": torch.ones(3) > 0}, {"a": torch.ones(2) > 0}])
def test_masks_of_different_networks_have_no_overlap(other):
    with pytest.raises(ValueError, match=r"(?i)name|shape|network"):
        pai.Mask({"a": torch.ones(3) > 0}).overlap(pai.Mask(other))


# Applying and attaching


def test_apply_zeroes_what_is_removed_and_nothing_else(network):
    before, mask = weights(network), random_mask(network)
    identities = [id(p) for p in network.parameters()]
    assert mask.apply_(network) is mask
    after = weights(network)
    for name in before:
        expected = before[name] * mask[name] if name in mask else before[name]
        assert torch.equal(after[name], expected), name
    assert [id(p) for p in network.parameters()] == identities


def test_apply_zeroes_a_weight_that_is_infinite():
    model = nn.Linear(2, 1)
    model.weight.data = torch.tensor([[float("inf"), 2.0]])
    pai.Mask({"weight": torch.tensor([[False, True]])}).apply_(model)
    assert model.weight.tolist() == [[0.0, 2.0]]


def test_attached_masks_hold_through_training_with_momentum_and_weight_decay(network):
    mask = random_mask(network, 0.7)
    reference = copy.deepcopy(network)
    mask.apply_(reference)
    mask.attach(network)
    assert torch_prune.is_pruned(network)
    inputs, targets = make_batch()
    assert torch.equal(network(inputs), reference(inputs))

    before = network.get_parameter(next(iter(mask)) + "_orig").detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    network(inputs)
    for name in mask:
        layer = network.get_submodule(name.rpartition(".")[0])
        assert not layer.weight[~mask[name]].any(), name
        assert layer.weight[mask[name]].abs().min() > 0, name
    assert not torch.equal(before, network.get_parameter(next(iter(mask)) + "_orig"))


def misfits(model: nn.Module) -> dict[str, pai.Mask]:
    good = dict(pai.Mask.dense(model))
    name = next(iter(good))
    return {
        f"{name}|missing": pai.Mask({k: v for k, v in good.items() if k != name}),
        "extra.weight|": pai.Mask({**good, "extra.weight": torch.ones(2, 2) > 0}),
        f"{name}|shape": pai.Mask({**good, name: torch.ones(3, 7) > 0}),
        f"{name}|transposed": pai.Mask({**good, name: good[name].transpose(0, 1)}),
    }


def test_masks_that_do_not_fit_are_refused_by_name(network):
    for case, mask in misfits(network).items():
        for call in (mask.apply_, mask.attach):
            with (
                unchanged(network),
                pytest.raises(ValueError, match=f"The mask .*{re.escape(case.split('|')[0])}"),
            ):
                call(network)


# Copies


def test_copy_model_shares_no_memory(network):
    twin = pai.copy_model(network)
    assert same_weights(weights(network), weights(twin))
    with unchanged(network):
        for tensor in [*twin.parameters(), *twin.buffers()]:
            tensor.data.zero_()


def test_trap_deepcopy_after_torch_prune(network):
    """copy.deepcopy fails on such a model; ours says what to do, and that works."""
    mask = random_mask(network)
    mask.attach(network)
    network(make_batch()[0])
    batch = make_batch()
    for call in (
        lambda: pai.copy_model(network),
        lambda: pai.magnitude(network),
        lambda: pai.snip(network, batch),
        lambda: pai.prune(network, "snip", batch, sparsity=0.5),
    ):
        with pytest.raises(ValueError, match=r"prune\.remove"):
            call()
    for name in mask:
        torch_prune.remove(network.get_submodule(name.rpartition(".")[0]), "weight")
    assert same_weights(weights(pai.copy_model(network)), weights(network))


# Collapse


def test_a_collapsed_layer_is_named():
    scores = pai.Scores({"good.weight": torch.ones(4), "bottleneck.weight": torch.zeros(4)})
    with pytest.warns(pai.LayerCollapseWarning, match=r"bottleneck\.weight") as caught:
        mask = pai.keep_top(scores, 0.5)
    assert all("good.weight" not in str(warning.message) for warning in caught)
    assert mask.layer_counts()["bottleneck.weight"] == 0
    assert issubclass(pai.LayerCollapseWarning, UserWarning)


def test_no_warning_while_every_layer_keeps_a_weight(recwarn):
    pai.keep_top(pai.Scores({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([2.0, 1.0])}), 0.5)
    assert not list(recwarn)


def test_prune_names_a_collapsed_layer():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight.data.mul_(1e-6)
    with pytest.warns(pai.LayerCollapseWarning, match=r"1\.weight"):
        pai.prune(model, "magnitude", sparsity=0.9)


# Files


def test_save_and_load(network, tmp_path):
    mask = random_mask(network, 0.8)
    mask.save(tmp_path / "mask.safetensors")
    loaded = pai.Mask.load(tmp_path / "mask.safetensors")
    assert isinstance(loaded, pai.Mask)
    assert same_weights(dict(mask), dict(loaded))
    assert loaded.apply_(network) is loaded
    assert [path.name for path in tmp_path.iterdir()] == ["mask.safetensors"]


def test_save_a_mask_whose_tensors_are_views(tmp_path):
    flat = torch.arange(12) % 3 == 0
    mask = pai.Mask({"a": flat[:6].reshape(2, 3).t(), "b": flat[3:9].reshape(3, 2)})
    mask.save(str(tmp_path / "mask"))
    assert same_weights(dict(mask), dict(pai.Mask.load(str(tmp_path / "mask"))))


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "mask"
    model = nn.Linear(1000, 1000)
    old = pai.Mask.dense(model)
    old.save(path)
    with full_disk(200_000), pytest.raises((OSError, SafetensorError), match="too large"):
        random_mask(model).save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["mask"]
    assert same_weights(dict(pai.Mask.load(path)), dict(old))


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "floats":
        save_file({"a.weight": torch.ones(2, 2)}, path)
    else:
        path.write_bytes(
            {"truncated": content[:-3], "empty": b"", "garbage": b"not a mask" * 20}[how]
        )


@pytest.mark.parametrize("how", ["truncated", "empty", "garbage", "floats"])
def test_a_damaged_file_is_refused_by_name(how, tmp_path, network):
    path = tmp_path / "my-mask.safetensors"
    random_mask(network).save(path)
    damage(path, how)
    with pytest.raises(ValueError, match=r"my-mask|a\.weight"):
        pai.Mask.load(path)


def test_a_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        pai.Mask.load(tmp_path / "nowhere")


def test_a_mask_of_another_network_is_refused_after_loading(tmp_path):
    random_mask(make_network("conv")).save(tmp_path / "mask")
    with pytest.raises(ValueError, match=r"0\.weight"):
        pai.Mask.load(tmp_path / "mask").apply_(make_network("mlp"))


def test_masks_are_equal_when_their_tensors_are():
    kept = torch.tensor([True, False])
    assert pai.Mask({"w": kept}) == pai.Mask({"w": kept.clone()})
    assert pai.Mask({"w": kept}) != pai.Mask({"w": ~kept})
    assert pai.Mask({"w": kept}) != pai.Mask({"v": kept})
    assert pai.Mask({"w": kept}) != {"w": kept}


def test_a_mask_says_what_it_keeps():
    mask = pai.Mask({"a": torch.arange(1200) < 1000, "b": torch.zeros(800) > 0})
    assert repr(mask) == "Mask(2 layers, 1,000 of 2,000 weights kept, sparsity 50.00%)"
    assert mask.layer_density().name == "density"


def test_masks_that_keep_nothing_overlap_wholly():
    nothing = pai.Mask({"a": torch.zeros(3) > 0})
    assert nothing.overlap(nothing) == 1.0


def test_masks_attach_to_layers_within_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    mask = random_mask(model)
    assert mask.attach(model) is mask
    layers = {"0.weight": model[0], "1.0.weight": model[1][0], "1.1.weight": model[1][1]}
    assert list(mask) == list(layers)
    for name, layer in layers.items():
        assert torch.equal(layer.weight_mask.bool(), mask[name]), name


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*missing for mask; make it first"):
        pai.Mask.dense(nn.Linear(2, 2)).save(tmp_path / "missing" / "mask")
