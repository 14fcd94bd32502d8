"""Ablations: what of a pruned network can be exchanged without harm.

Each takes one thing away: the places of the weights within a layer, or their initial values. A
method that is right about that thing should suffer. A third ablation turns the order of the scores
around: :func:`~pai_lite.invert`.

Source: Frankle et al. 2021, section 5.
"""

from __future__ import annotations

import torch
from torch import nn

from pai_lite.masks import PRUNABLE_LAYERS, Mask, copy_model
from pai_lite.models import initialize
from pai_lite.scores import Scores, keep_top_per_layer


def shuffle(mask: Mask, *, seed: int = 0) -> Mask:
    """Return a mask with the same number of weights in each layer, at random places.

    Source: Frankle et al. 2021, section 5.

    Args:
        seed: of the places; the global generators are not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.rand(t.shape, generator=generator) for name, t in mask.items()}
    placed = keep_top_per_layer(Scores(noise), mask.layer_counts())
    return Mask({name: tensor.to(mask[name].device) for name, tensor in placed.items()})


def reinitialize(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy with other initial weights, drawn as :func:`~pai_lite.build_model` draws them.

    Weights are Kaiming normal and biases 0; BatchNorm and whatever else has parameters goes back
    to PyTorch's initial values. The copy has no gradients. The same seed gives the same weights
    on every device.

    Source: Frankle et al. 2021, section 5.

    Args:
        model: one whose initial weights came from that distribution, before or after training.
        seed: of the new weights; the global generators are not touched.

    Raises:
        ValueError: as :func:`~pai_lite.copy_model`, or a module holds parameters and does not say
            how they are drawn.
    """
    check_can_be_drawn(model)
    fresh = copy_model(model)
    device = next(fresh.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh.cpu().apply(initialize)
    return fresh.to(device)


def check_can_be_drawn(model: nn.Module) -> None:
    """Raise a ``ValueError`` where a parameter would keep its value."""
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_parameters(recurse=False)]
        if (
            own
            and not isinstance(module, PRUNABLE_LAYERS)
            and not hasattr(module, "reset_parameters")
        ):
            raise ValueError(
                f"{', '.join(own)} of {name or 'the model'} ({type(module).__name__}) cannot be "
                "drawn again: the module has no method reset_parameters. Give it one, or build a "
                "new model with another seed."
            )
