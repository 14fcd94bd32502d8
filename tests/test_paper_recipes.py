"""Recipes named after the papers: the numbers, as a table typed from the papers' texts."""

from dataclasses import asdict

import pytest
from torch import nn

import pai_lite as pai
from pai_lite.paper_recipes import RECIPES, SOURCES, find_recipe
from pai_lite.recipes import build_optimizer, build_scheduler

# name, section: epochs, batch, lr, epochs of the drops by ten, weight decay, momentum, augmented.
# None: the paper's text is silent.
PAPERS = {
    # Wang et al. 2020, section 5.1
    "grasp-cifar": (160, 128, 0.1, (80, 120), None, None, None),
    "grasp-tiny-imagenet": (300, 128, 0.1, (150, 225), None, None, None),
    "grasp-imagenet": (150, None, None, (50, 100), None, None, None),
    # de Jorge et al. 2021, appendix A; for ImageNet "default settings" of PyTorch's example
    "force-cifar": (350, 128, 0.1, (150, 250), 5e-4, 0.9, True),
    "force-tiny-imagenet": (300, 128, 0.1, (150, 225), 5e-4, 0.9, True),
    "force-imagenet": (90, 256, 0.1, (30, 60), 1e-4, 0.9, True),
    # Alizadeh et al. 2022, appendix A.2
    "prospr-cifar": (200, 256, 0.1, (100, 150), 5e-4, None, True),
    "prospr-tiny-imagenet": (200, 256, 0.1, (100, 150), 5e-4, None, True),
    "prospr-imagenet": (100, 256, 0.1, (30, 60, 90), 1e-4, None, True),
    # Frankle et al. 2021, appendix A.3, and A.2 for the augmentation
    "mark-lenet": (40, 128, 0.1, (), 0.0, 0.0, False),
    "mark-resnet20": (160, 128, 0.1, (80, 120), 1e-4, 0.9, True),
    "mark-vgg16": (160, 128, 0.1, (80, 120), 1e-4, 0.9, True),
    "mark-resnet18-tiny": (200, 256, 0.2, (100, 150), 1e-4, 0.9, True),
    "mark-resnet50": (90, 1024, 0.4, (30, 60, 80), 1e-4, 0.9, True),
}
# Where the text is silent: PyTorch's example (ImageNet) and the authors' code (ResNet-32).
CHOSEN = {
    "grasp-cifar": {"weight_decay": 1e-4},
    "grasp-tiny-imagenet": {"weight_decay": 1e-4},
    "grasp-imagenet": {"batch_size": 256, "lr": 0.1, "weight_decay": 1e-4},
}


def rates(recipe, steps_per_epoch):
    """Return the learning rate of every epoch's first step, as training would set it."""
    optimizer = build_optimizer(nn.Linear(1, 1), recipe)
    steps = recipe.epochs * steps_per_epoch
    schedule, found = build_scheduler(optimizer, recipe, steps), []
    for step in range(steps):
        if step % steps_per_epoch == 0:
            found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_has_the_numbers_of_its_paper(name):
    recipe = RECIPES[name]
    epochs, batch, lr, _, decay, momentum, augment = PAPERS[name]
    assert recipe.epochs == epochs
    paper = {"batch_size": batch, "lr": lr, "weight_decay": decay, "momentum": momentum}
    silent = {"momentum": 0.9, **CHOSEN.get(name, {})}
    for field, value in paper.items():
        assert getattr(recipe, field) == (silent[field] if value is None else value), field
    assert recipe.augment == (True if augment is None else augment)
    assert not recipe.nesterov


@pytest.mark.parametrize("name", PAPERS)
def test_the_rate_drops_by_ten_at_the_epochs_that_the_paper_names(name):
    recipe, drops = RECIPES[name], PAPERS[name][3]
    expected = [recipe.lr * 0.1 ** sum(e >= drop for drop in drops) for e in range(recipe.epochs)]
    assert rates(recipe, 2) == pytest.approx(expected)


def test_milestones_fall_on_the_exact_step_of_a_cifar_epoch():
    # 391 steps an epoch, as in table A.3: 150 / 350 is not a binary fraction.
    for name, epochs in (("force-cifar", (150, 250)), ("mark-resnet50", (30, 60, 80))):
        recipe = RECIPES[name]
        steps = recipe.epochs * 391
        assert [round(m * steps) for m in recipe.milestones] == [e * 391 for e in epochs]


@pytest.mark.parametrize("name", PAPERS)
def test_short_is_the_same_recipe_in_a_tenth_of_the_epochs(name):
    long, short = asdict(RECIPES[name]), asdict(RECIPES[f"{name}-short"])
    assert short.pop("epochs") * 10 == long.pop("epochs")
    assert short == long


def test_every_recipe_has_a_short_one_and_a_source_and_nothing_else_is_listed():
    assert set(RECIPES) == {n + suffix for n in PAPERS for suffix in ("", "-short")}
    assert set(SOURCES) == set(PAPERS)
    assert all(
        "20" in source and ("section" in source or "append" in source)
        for source in SOURCES.values()
    )


def test_a_recipe_is_found_by_name_and_a_mistake_is_named():
    assert find_recipe("mark-lenet") is RECIPES["mark-lenet"]
    with pytest.raises(ValueError, match=r"recipe 'mark-lnet'.*'mark-lenet'.*Known: grasp-cifar"):
        find_recipe("mark-lnet")


def test_a_short_recipe_trains():
    data = pai.load_data("digits")
    model = pai.build_model("lenet-300-100", data)
    run = pai.fit(model, data, find_recipe("mark-lenet-short"), progress=False)
    assert len(run.history) == 4
    assert run.test_accuracy > 0.8
