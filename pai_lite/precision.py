"""How a network computes: the order in which its images lie in memory, and mixed precision.

In mixed precision convolutions and matrix products are computed with 16 bits, and all else, the
weights among it, is held and computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pai_lite.data import Data
from pai_lite.lookup import look_up
from pai_lite.masks import preserved_modes

PRECISIONS = ("float32", "auto", "bfloat16", "float16")


@dataclass(frozen=True)
class Format:
    """How the inputs of a network are laid out, and how it computes.

    Attributes:
        dtype: of weights, inputs and outputs.
        layout: of the images in memory.
        fast: dtype of convolutions and matrix products in mixed precision, or None.
    """

    dtype: torch.dtype
    layout: torch.memory_format
    fast: torch.dtype | None

    def inputs(self, data: Data, images: Tensor) -> Tensor:
        """Return what the network gets for uint8 images."""
        return data.normalize(images).to(self.dtype, memory_format=self.layout)

    def outputs(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Return the network's outputs, so that a loss is computed in the dtype of the weights."""
        if self.fast is None:
            return network(inputs)
        # Each weight is used once a pass: there is nothing to cache, and CUDA graphs need none.
        with torch.autocast(inputs.device.type, dtype=self.fast, cache_enabled=False):
            return network(inputs).to(self.dtype)


def choose_format(model: nn.Module, data: Data, precision: str) -> Format:
    """Return how the model computes on this data.

    Raises:
        ValueError: there is no such precision.
    """
    dtype = next(model.parameters()).dtype
    fast = fast_dtype(precision, data.device, dtype)
    lasting = Format(dtype, torch.channels_last, fast)
    plain = Format(dtype, torch.contiguous_format, fast)
    return lasting if takes_channels_last(model, lasting, data) else plain


def fast_dtype(precision: str, device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """Return the dtype of a precision's convolutions, or None where it is that of the weights."""
    look_up(dict.fromkeys(PRECISIONS), precision, "precision")
    if dtype != torch.float32 or precision == "float32":
        return None
    if precision != "auto":
        return getattr(torch, precision)
    if device.type != "cuda":
        return None
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


@torch.no_grad()
def takes_channels_last(model: nn.Module, lasting: Format, data: Data) -> bool:
    """Say whether the model convolves images, and computes where their channels lie last.

    Residual networks then train up to 1.4 times as fast on a CPU. A model that takes views of its
    activations, as in ``x.view(n, -1)``, fails there.
    """
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return False
    with preserved_modes(model):
        try:
            lasting.outputs(model.eval(), lasting.inputs(data, data.train.images[:2]))
        except RuntimeError:
            return False
    return True
