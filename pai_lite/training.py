"""Training one network, reproducibly, with or without a mask.

Removed weights stay removed: the mask is applied to the weights before the first step and again
after every step, so that neither momentum nor weight decay can bring one back.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from pai_lite.data import Data
from pai_lite.distributed import copy_buffers, data_parallel, mean_loss, on_first_rank, shared_loss
from pai_lite.files import whole_file
from pai_lite.lookup import look_up
from pai_lite.masks import Mask, check_fit, copy_model, preserved_modes
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe, augment, build_optimizer, build_scheduler


@dataclass(frozen=True)
class Run:
    """What a training run leaves.

    Attributes:
        model: the trained copy, in eval mode.
        history: one row an epoch: epoch, step, lr of its last step, train_loss,
            validation_accuracy, test_accuracy (fractions).
        seconds: wall-clock time of the training steps and evaluations.
    """

    model: nn.Module
    history: pd.DataFrame
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """The accuracy on the test split after the last epoch, a fraction."""
        return float(self.history["test_accuracy"].iloc[-1])

    @property
    def best_test_accuracy(self) -> float:
        """The test accuracy of the epoch that was best on the validation split, a fraction.

        Raises:
            ValueError: the data has no validation split.
        """
        if self.history["validation_accuracy"].isna().all():
            raise ValueError("The validation split is empty; load the data with validation=0.1.")
        best = self.history["validation_accuracy"].argmax()
        return float(self.history["test_accuracy"].iloc[best])


def fit(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    mask: Mask | None = None,
    seed: int = 0,
    stop_at: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Train a copy of the model; the model passed in stays as it is.

    The same arguments give the same weights, bit for bit on the CPU. Where ``torchrun`` started
    several processes, each takes its share of every batch, and all end with the same weights.

    Args:
        mask: the weights that stay; the others are zero throughout.
        seed: of the order of the images, of the augmentation, and of dropout.
        stop_at: stop after that many steps of the recipe, whose schedule is not shortened; this
            gives the weights to rewind to, or a network to prune later.
        checkpoint: a file written after every epoch. Where it exists, training goes on from it.
        progress: show a progress bar.

    Raises:
        ValueError: the mask or the data does not fit the model, ``stop_at`` is outside the
            recipe, or the checkpoint belongs to another run.
    """
    trainer = Trainer(model, data, recipe, mask, seed, stop_at)
    if checkpoint is not None:
        path, owner = Path(checkpoint), fingerprint(model, data, recipe, mask, [seed, stop_at])
        if path.exists():
            trainer.restore(path, owner)
    bar = progress_bar(progress, total=trainer.last_step, initial=trainer.step, unit="step")
    with bar, torch.random.fork_rng(devices=cuda_devices(data.device)):
        while trainer.step < trainer.last_step:
            # Dropout draws from the global generator: seed it anew every epoch, so that a resumed
            # run draws what an uninterrupted one does.
            torch.manual_seed(seed * 1_000_003 + trainer.step)
            bar.update(trainer.train_epoch())
            bar.set_postfix(test=f"{trainer.history[-1]['test_accuracy']:.3f}")
            if checkpoint is not None:
                on_first_rank(trainer.save, path, owner)
    trainer.model.eval()
    return Run(trainer.model, pd.DataFrame(trainer.history), trainer.seconds)


class Trainer:
    """The state of one training run: everything that a checkpoint has to hold."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        mask: Mask | None,
        seed: int,
        stop_at: int | None,
    ) -> None:
        self.model, self.data, self.recipe, self.mask = copy_model(model), data, recipe, mask
        check_data(self.model, data)
        self.dtype = next(self.model.parameters()).dtype
        all_steps = recipe.epochs * -(-len(data.train) // recipe.batch_size)
        if stop_at is not None and not 1 <= stop_at <= all_steps:
            raise ValueError(
                f"stop_at is {stop_at}; the recipe has {all_steps} steps on this data, "
                f"so it must lie in 1 to {all_steps}."
            )
        self.last_step = stop_at or all_steps
        self.removed = removed_weights(self.model, mask)
        self.zero_removed()
        self.network = data_parallel(self.model)
        self.optimizer = build_optimizer(self.model, recipe)
        self.scheduler = build_scheduler(self.optimizer, recipe, all_steps)
        self.generator = torch.Generator().manual_seed(seed)
        self.step, self.seconds, self.history = 0, 0.0, []
        self.lr = recipe.lr

    @torch.no_grad()
    def zero_removed(self) -> None:
        """Set the removed weights to zero."""
        for weight, removed in self.removed:
            weight.masked_fill_(removed, 0.0)

    def train_epoch(self) -> int:
        """Train for one epoch, or up to the last step, and return the number of steps."""
        begin, losses = time.perf_counter(), []
        self.model.train()
        for inputs, targets in self.minibatches():
            losses.append(self.train_step(inputs, targets))
        copy_buffers(self.model)
        self.seconds += time.perf_counter() - begin
        self.history.append(
            {
                "epoch": len(self.history) + 1,
                "step": self.step,
                "lr": self.lr,
                "train_loss": mean_loss(losses),
                "validation_accuracy": accuracy(self.model, self.data, "validation"),
                "test_accuracy": accuracy(self.model, self.data, "test"),
            }
        )
        return len(losses)

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the normalised batches of one epoch, in an order drawn from the seed."""
        train, size = self.data.train, self.recipe.batch_size
        order = torch.randperm(len(train), generator=self.generator)
        for index in order.split(size)[: self.last_step - self.step]:
            index = index.to(train.images.device)
            images = train.images[index]
            if self.recipe.augment:
                images = augment(images, self.generator)
            yield self.data.normalize(images).to(self.dtype), train.labels[index]

    def train_step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Take one step and return the loss before it, detached."""
        loss = shared_loss(self.network, inputs, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.zero_removed()
        self.lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.step += 1
        return loss.detach()

    def save(self, path: Path, owner: str) -> None:
        """Write the state and the run's fingerprint to the path: the whole file or nothing."""
        state = {
            "owner": owner,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        with whole_file(path) as temporary:
            torch.save(state, temporary)

    def restore(self, path: Path, owner: str) -> None:
        """Go on from a state that :meth:`save` wrote for the same run.

        Raises:
            ValueError: the file is damaged or belongs to another run.
        """
        remedy = "Use another path, or delete it to start anew."
        try:
            state = torch.load(path, map_location=self.data.device, weights_only=True)
            same_run = dict(state)["owner"] == owner
        except Exception as error:
            raise ValueError(f"{path} is not a checkpoint of fit: {error}. {remedy}") from error
        if not same_run:
            raise ValueError(
                f"{path} belongs to another run: the model's initial weights, data, recipe, mask, "
                f"seed or stop_at differ. {remedy}"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = list(state["history"])


def removed_weights(model: nn.Module, mask: Mask | None) -> list[tuple[Tensor, Tensor]]:
    """Return pairs (weight, boolean tensor that marks its removed entries)."""
    if mask is None:
        return []
    check_fit(mask, model, "mask")
    weights = {name: model.get_parameter(name).data for name in mask}
    return [(weight, ~mask[name].to(weight.device)) for name, weight in weights.items()]


@torch.no_grad()
def accuracy(model: nn.Module, data: Data, split: str = "test") -> float:
    """Return the fraction of a split that the model classifies rightly, in eval mode.

    Args:
        split: "train", "validation" or "test"; an empty split gives NaN.

    Raises:
        ValueError: there is no such split.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    images = look_up(splits, split, "split")
    dtype = next(model.parameters()).dtype
    right = torch.zeros((), dtype=torch.int64, device=data.device)
    with preserved_modes(model):
        model.eval()
        for x, y in zip(images.images.split(1000), images.labels.split(1000), strict=True):
            right += (model(data.normalize(x).to(dtype)).argmax(1) == y).sum()
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


def fingerprint(
    model: nn.Module, data: Data, recipe: Recipe, mask: Mask | None, numbers: list[int | None]
) -> str:
    """Return a hash of all that decides a run: two runs with the same hash are the same run."""
    digest = hashlib.sha256()
    described = {"recipe": asdict(recipe), "data": data.name, "numbers": numbers}
    digest.update(json.dumps(described, sort_keys=True).encode())
    splits = (data.train, data.validation, data.test)
    images = [tensor for split in splits for tensor in (split.images, split.labels)]
    tensors = [*model.state_dict().values(), *(mask or {}).values(), *images]
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cuda_devices(device: torch.device) -> list[torch.device]:
    """Return the CUDA devices whose random state a run on that device touches."""
    return [device] if device.type == "cuda" else []
