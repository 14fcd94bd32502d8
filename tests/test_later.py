"""Pruning later: at a step of training, after training, and with the weights rewound."""

import pytest
import torch
from conftest import same_weights, unchanged, weights

import pai_lite as pai

RECIPE = pai.Recipe(epochs=2, batch_size=64, lr=0.05)


@pytest.fixture(scope="module")
def setting() -> tuple[torch.nn.Module, pai.Data]:
    data = pai.load_data("digits")
    return pai.build_model("small-conv", data), data


def later(setting, method: str, **options) -> pai.Ticket:
    model, data = setting
    return pai.prune_later(model, method, data, RECIPE, sparsity=0.9, progress=False, **options)


def trained(setting, step: int | None = None) -> torch.nn.Module:
    model, data = setting
    return pai.fit(model, data, RECIPE, stop_at=step, progress=False).model


def test_magnitude_after_ranks_the_trained_weights(setting):
    with unchanged(setting[0]):
        ticket = later(setting, "magnitude-after")
    assert same_weights(weights(ticket.model), weights(trained(setting)))
    w = {n: p.detach().abs() for n, p in pai.prunable_parameters(trained(setting)).items()}
    cut = torch.cat([x.flatten() for x in w.values()]).sort(descending=True).values
    k = ticket.mask.kept
    assert k == round(0.1 * ticket.mask.size)
    assert all(torch.equal(ticket.mask[n], x >= cut[k - 1]) for n, x in w.items())
    assert ticket.mask.overlap(pai.prune(setting[0], "magnitude", sparsity=0.9)) < 0.9


def test_a_lottery_ticket_has_the_mask_from_the_end_and_the_weights_from_the_start(setting):
    ticket = later(setting, "lottery-ticket")
    assert ticket.mask == later(setting, "magnitude-after").mask
    assert same_weights(weights(ticket.model), weights(setting[0]))
    assert ticket.model is not setting[0]


def test_a_lottery_ticket_can_be_rewound_to_a_later_step(setting):
    ticket = later(setting, "lottery-ticket", rewind_to=5)
    assert ticket.mask == later(setting, "magnitude-after").mask
    assert same_weights(weights(ticket.model), weights(trained(setting, 5)))


@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "synflow"])
def test_any_method_prunes_at_any_step(setting, method):
    batch = setting[1].batch(per_class=2)
    ticket = later(setting, method, batches=batch, prune_at=7)
    middle = trained(setting, 7)
    assert same_weights(weights(ticket.model), weights(middle))
    assert ticket.mask == pai.prune(middle, method, batch, sparsity=0.9)
    assert ticket.mask != pai.prune(setting[0], method, batch, sparsity=0.9)


def test_at_step_zero_it_is_pruning_at_initialization(setting):
    batch = setting[1].batch(per_class=2)
    ticket = later(setting, "snip", batches=batch)
    assert ticket.mask == pai.prune(setting[0], "snip", batch, sparsity=0.9)
    assert same_weights(weights(ticket.model), weights(setting[0]))


def test_the_seed_of_training_decides_the_ticket(setting):
    first, second = (later(setting, "magnitude-after", training_seed=seed) for seed in (0, 1))
    assert first.mask != second.mask


def test_options_reach_the_criterion(setting):
    tickets = [later(setting, "random", prune_at=3, seed=seed) for seed in (0, 0, 1)]
    assert tickets[0].mask == tickets[1].mask != tickets[2].mask


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_at": -1}, "stop_at is -1"),
        ({"prune_at": 10**6}, "stop_at is 1000000"),
        ({"rewind_to": -2}, "stop_at is -2"),
    ],
)
def test_a_step_outside_the_recipe_is_refused(setting, options, message):
    with pytest.raises(ValueError, match=message):
        later(setting, "magnitude-after", **options)
