"""Recipes by name: how the papers train their pruned networks.

A name is that of the paper and of the setting; mark is Frankle et al. 2021, "Missing the mark".
No paper warms the learning rate up. ``augment`` shifts by up to four pixels, as the papers do on
CIFAR and Tiny-ImageNet; on ImageNet they cut patches of random size, which :func:`fit` does not.
SNIP has no recipe here: its number of epochs is not in these papers, and those of them that
compare with SNIP train it by their own recipe.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pai_lite.lookup import look_up
from pai_lite.recipes import Recipe

step = partial(Recipe, schedule="step", augment=True)
# What the examples of PyTorch set for ImageNet; GraSP and FORCE refer to them.
pytorch_imagenet = partial(step, batch_size=256, weight_decay=1e-4)

# The recipe, where it stands, and what we set where the paper is silent.
TABLE: dict[str, tuple[Recipe, str]] = {
    "grasp-cifar": (
        step(epochs=160, weight_decay=1e-4),
        "Wang et al. 2020, section 5.1. Not in the text: momentum, augmentation and weight decay; "
        "all as in the authors' code for ResNet-32, which has 5e-4 for VGG-19.",
    ),
    "grasp-tiny-imagenet": (
        step(epochs=300, weight_decay=1e-4),
        "Wang et al. 2020, section 5.1. Not in the text: momentum, augmentation and weight decay; "
        "all as in the authors' code for ResNet-32, which has 5e-4 for VGG-19.",
    ),
    "grasp-imagenet": (
        pytorch_imagenet(epochs=150, milestones=(50 / 150, 100 / 150)),
        "Wang et al. 2020, section 5.1. Batch, learning rate, momentum and weight decay are the "
        "defaults of PyTorch's example, to which the text refers.",
    ),
    "force-cifar": (
        step(epochs=350, milestones=(150 / 350, 250 / 350)),
        "de Jorge et al. 2021, appendix A. The width of the random crop's border is ours.",
    ),
    "force-tiny-imagenet": (
        step(epochs=300),
        "de Jorge et al. 2021, appendix A. The width of the random crop's border is ours.",
    ),
    "force-imagenet": (
        pytorch_imagenet(epochs=90, milestones=(30 / 90, 60 / 90)),
        "de Jorge et al. 2021, appendix A: the defaults of PyTorch's example. The drops of the "
        "learning rate, at epochs 30 and 60, are ours.",
    ),
    "prospr-cifar": (
        step(epochs=200, batch_size=256),
        "Alizadeh et al. 2022, appendix A.2. Not in the text: momentum, ours 0.9.",
    ),
    "prospr-tiny-imagenet": (
        step(epochs=200, batch_size=256),
        "Alizadeh et al. 2022, appendix A.2. Not in the text: momentum, ours 0.9.",
    ),
    "prospr-imagenet": (
        step(epochs=100, batch_size=256, weight_decay=1e-4, milestones=(0.3, 0.6, 0.9)),
        "Alizadeh et al. 2022, appendix A.2. Not in the text: momentum, ours 0.9.",
    ),
    "mark-lenet": (
        Recipe(epochs=40, momentum=0.0, weight_decay=0.0, schedule="constant"),
        "Frankle et al. 2021, appendix A.3.",
    ),
    "mark-resnet20": (
        step(epochs=160, weight_decay=1e-4),
        "Frankle et al. 2021, appendices A.2 and A.3.",
    ),
    "mark-vgg16": (
        step(epochs=160, weight_decay=1e-4),
        "Frankle et al. 2021, appendices A.2 and A.3.",
    ),
    "mark-resnet18-tiny": (
        step(epochs=200, batch_size=256, lr=0.2, weight_decay=1e-4),
        "Frankle et al. 2021, appendices A.2 and A.3: their modified ResNet-18 and its "
        "augmentation; the other ResNet-18 differs in the patches that it is shown.",
    ),
    "mark-resnet50": (
        step(
            epochs=90,
            batch_size=1024,
            lr=0.4,
            weight_decay=1e-4,
            milestones=(30 / 90, 60 / 90, 80 / 90),
        ),
        "Frankle et al. 2021, appendices A.2 and A.3.",
    ),
}


def shorten(recipe: Recipe) -> Recipe:
    """Return the recipe with a tenth of the epochs; all else, milestones too, stays in step."""
    return replace(recipe, epochs=recipe.epochs // 10)


#: The papers' recipes by name, each also as "<name>-short" with a tenth of the epochs.
RECIPES: dict[str, Recipe] = {
    **{name: recipe for name, (recipe, _) in TABLE.items()},
    **{f"{name}-short": shorten(recipe) for name, (recipe, _) in TABLE.items()},
}

#: Where each recipe stands, and what we set where the paper is silent.
SOURCES: dict[str, str] = {name: source for name, (_, source) in TABLE.items()}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name in :data:`~pai_lite.paper_recipes.RECIPES`.

    Raises:
        ValueError: there is none; the message names the nearest and lists all.
    """
    return look_up(RECIPES, name, "recipe")
