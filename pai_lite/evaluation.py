"""What a network makes of data: its accuracy, and whether the two fit."""

from __future__ import annotations

import torch
from torch import nn

from pai_lite.data import Data
from pai_lite.lookup import look_up
from pai_lite.masks import copy_model, preserved_modes
from pai_lite.precision import Format, choose_format


def accuracy(model: nn.Module, data: Data, split: str = "test") -> float:
    """Return the fraction of a split that the model classifies rightly, in eval mode.

    Args:
        split: "train", "validation" or "test"; an empty split gives NaN.

    Raises:
        ValueError: there is no such split.
    """
    return accuracy_in(choose_format(model, data, "float32"), model, data, split)


@torch.no_grad()
def accuracy_in(form: Format, model: nn.Module, data: Data, split: str) -> float:
    """Return the accuracy of a model that computes in that format."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    images = look_up(splits, split, "split")
    right = torch.zeros((), dtype=torch.int64, device=data.device)
    with preserved_modes(model):
        model.eval()
        for x, y in zip(images.images.split(1000), images.labels.split(1000), strict=True):
            right += (form.outputs(model, form.inputs(data, x)).argmax(1) == y).sum()
    return int(right) / len(images) if len(images) else float("nan")


def check_data(model: nn.Module, data: Data) -> None:
    """Raise a ``ValueError`` where the model does not take the data's images or classes."""
    parameter = next(model.parameters())
    device, dtype = parameter.device, parameter.dtype
    if device != data.device:
        raise ValueError(
            f"The model is on {device}, the data on {data.device}; "
            f"move one of them, for example with data.to({str(device)!r})."
        )
    try:
        with torch.no_grad():
            outputs = copy_model(model).eval()(data.normalize(data.train.images[:2]).to(dtype))
    except RuntimeError as error:
        raise ValueError(
            f"The model does not take images of shape {data.input_shape}: {error}"
        ) from error
    if outputs.shape[1] < data.classes:
        raise ValueError(
            f"The model has {outputs.shape[1]} outputs; {data.name} has {data.classes} classes."
        )
