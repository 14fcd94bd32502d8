"""Analysis: what is left of a network's gradients, kernel and units after pruning.

Every function that takes a model leaves it as it found it, as a criterion does.
"""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pai_lite.criteria import grad_norm, snip
from pai_lite.gradients import (
    Batch,
    Batches,
    check_inputs,
    check_targets,
    iterate,
    leaves,
    scoring_mode,
)
from pai_lite.masks import Mask
from pai_lite.scores import Scores


def squared_gradient_norm(
    model: nn.Module, batches: Batches, *, mask: Mask | None = None, batchnorm: str = "train"
) -> float:
    """Return g'g, the squared norm of the loss's gradient in the weights that are kept.

    g is the gradient of the mean cross-entropy at the pruned network m * w, averaged over the
    batches. The papers call g'g itself the gradient norm; divide by its value without a mask to
    have the dense network at 1.

    Source: Wang et al. 2020, eq. 6 and figure 2; de Jorge et al. 2021, figure 6b.

    Args:
        batches, batchnorm: as for :func:`snip`.
        mask: of the pruned network; all weights are kept without one.

    Raises:
        ValueError: as :func:`snip`.
    """
    return kept_total(grad_norm(model, batches, mask=mask, batchnorm=batchnorm), mask)


def kept_saliency(
    model: nn.Module, batches: Batches, *, mask: Mask | None = None, batchnorm: str = "train"
) -> float:
    """Return the sum of abs(w * g) over the weights that are kept: what FORCE maximises.

    g is the gradient of the mean cross-entropy at the pruned network m * w, averaged over the
    batches before the absolute value is taken.

    Source: de Jorge et al. 2021, eq. 6 and figure 4a.

    Args:
        batches, mask, batchnorm: as for :func:`squared_gradient_norm`.

    Raises:
        ValueError: as :func:`snip`.
    """
    return kept_total(snip(model, batches, mask=mask, batchnorm=batchnorm), mask)


def kept_total(scores: Scores, mask: Mask | None) -> float:
    """Return the sum of the scores over the weights that are kept, in float64."""
    if mask is not None:
        scores = Scores({n: s * mask[n].to(s.device) for n, s in scores.items()})
    return float(layer_totals(scores).sum())


def ntk(
    model: nn.Module, batch: Batch, *, mask: Mask | None = None, batchnorm: str = "train"
) -> Tensor:
    """Return the neural tangent kernel of the logits on one batch, J J'.

    J holds the derivatives of all logits of the batch in the prunable weights that are kept, at
    the pruned network m * w. With BatchNorm in train mode a logit depends on the other inputs of
    the batch too. J is found by one backward pass a logit and held as a whole:
    n * classes * kept numbers, 110 MB for ResNet-20 with ten images and ten classes.

    Source: Wang et al. 2020, eq. 2.

    Args:
        batch: one pair (inputs, targets); the targets do not matter.
        mask, batchnorm: as for :func:`squared_gradient_norm`.

    Returns:
        A float64 matrix of shape (n * classes, n * classes). Class c of input i has row
        i * classes + c.

    Raises:
        ValueError: the batch or the mask does not fit the model, or there are several batches.
    """
    with scoring_mode(model, batchnorm), torch.enable_grad():
        weights = leaves(model, mask)
        outputs = logits(model, weights, batch)
        jacobian = kept_jacobian(outputs, weights, mask or Mask.dense(model))
    kernel = torch.zeros(len(jacobian), len(jacobian), dtype=torch.float64, device=outputs.device)
    for columns in jacobian.split(2**16, dim=1):  # float64 only for a part of J at a time
        part = columns.double()
        kernel += part @ part.T
    return kernel


def ntk_spectrum(
    model: nn.Module, batch: Batch, *, mask: Mask | None = None, batchnorm: str = "train"
) -> pd.DataFrame:
    """Return the NTK's eigenvalues and how much of the output gradient lies along each.

    The output gradient is the derivative of the mean cross-entropy in all logits of the batch,
    a vector v. With eigenvectors u_i and eigenvalues e_i the squared gradient norm is
    ``v.T @ J @ J.T @ v``, the sum of ``e_i * (u_i @ v)**2``. (The last line of the paper's
    equation has the targets in the place of v.)

    Source: Wang et al. 2020, eq. 9.

    Args:
        batch: inputs and targets; here the targets matter.
        mask, batchnorm: as for :func:`ntk`.

    Returns:
        A table with one row an eigenvector, the largest eigenvalue first, and columns
        ``eigenvalue`` (e_i) and ``squared_projection`` (``(u_i @ v)**2``).

    Raises:
        ValueError: as :func:`ntk`, a target is not a class of the model, or the kernel is not
            finite.
    """
    kernel = ntk(model, batch, mask=mask, batchnorm=batchnorm)
    if not torch.isfinite(kernel).all():
        raise ValueError(
            "The kernel has entries that are NaN or infinite. "
            "Look for inputs that are not normalised or a network that has diverged."
        )
    eigenvalues, vectors = torch.linalg.eigh(kernel)
    along = vectors.T @ output_gradient(model, batch, mask, batchnorm)
    columns = {"eigenvalue": eigenvalues, "squared_projection": along.square()}
    return pd.DataFrame({name: column.flip(0).cpu().numpy() for name, column in columns.items()})


def logits(model: nn.Module, weights: dict[str, Tensor], batch: Batch) -> Tensor:
    """Return the outputs for the one batch, shape (n, classes), computed with the given weights."""
    batches = list(iterate(batch))
    if len(batches) > 1:
        raise ValueError(
            f"{len(batches)} batches were given; the kernel is that of one. "
            "Pass one pair (inputs, targets)."
        )
    inputs, targets = batches[0]
    check_inputs(model, inputs, targets)
    # The forward pass updates BatchNorm's statistics: let it update a copy.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return functional_call(model, {**weights, **buffers}, (inputs,))


def kept_jacobian(outputs: Tensor, weights: dict[str, Tensor], mask: Mask) -> Tensor:
    """Return the derivatives of every output, row by row, in the kept weights."""
    kept = [mask[name].to(weight.device) for name, weight in weights.items()]
    jacobian = outputs.new_empty(outputs.numel(), mask.kept)
    for row, output in zip(jacobian, outputs.flatten(), strict=True):
        gradients = torch.autograd.grad(
            output, list(weights.values()), retain_graph=True, materialize_grads=True
        )
        row.copy_(torch.cat([g[k] for g, k in zip(gradients, kept, strict=True)]))
    return jacobian.detach()


def output_gradient(model: nn.Module, batch: Batch, mask: Mask | None, batchnorm: str) -> Tensor:
    """Return the gradient of the mean cross-entropy in the logits, shape (n * classes,)."""
    _, targets = next(iterate(batch))
    with scoring_mode(model, batchnorm), torch.enable_grad():
        outputs = logits(model, leaves(model, mask), batch).detach().double().requires_grad_()
        check_targets(outputs, targets)
        (gradient,) = torch.autograd.grad(F.cross_entropy(outputs, targets), outputs)
    return gradient.flatten()


def layer_totals(scores: Scores) -> pd.Series:
    """Return the sum of the scores of each layer, in float64, indexed by parameter name.

    For SynFlow on a chain of layers without bias all totals are the path norm.

    Source: Tanaka et al. 2020, theorem 1; Frankle et al. 2021, appendix D.1.
    """
    totals = {name: float(score.double().sum()) for name, score in scores.items()}
    return pd.Series(totals, name="total")


def unit_sparsity(mask: Mask) -> pd.Series:
    """Return the fraction of incoming weights removed from each neuron or output channel.

    The series is indexed by layer and unit: parameter name and row of the weight tensor.

    Source: Frankle et al. 2021, figure 5.
    """
    by_layer = {
        name: pd.Series((~tensor).flatten(1).double().mean(1).cpu().numpy())
        for name, tensor in mask.items()
    }
    return pd.concat(by_layer, names=["layer", "unit"]).rename("sparsity")


def emptied_units(mask: Mask) -> pd.Series:
    """Return for each neuron or output channel whether all its incoming weights are removed.

    The series is indexed as that of :func:`unit_sparsity`. Its mean is the share in the whole
    network, ``.groupby("layer", sort=False).mean()`` the share in each layer. The outputs of the
    last layer count as units.

    Source: Frankle et al. 2021, section 5 and figure 5, "neuron collapse".
    """
    return (unit_sparsity(mask) == 1.0).rename("emptied")
