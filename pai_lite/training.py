"""Training one network, reproducibly, with or without a mask.

Removed weights stay removed: the mask is applied to the weights before the first step and again
after every step, so that neither momentum nor weight decay can bring one back.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from pai_lite.data import Data
from pai_lite.distributed import on_first_rank
from pai_lite.masks import Mask
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
from pai_lite.trainer import Trainer


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
    precision: str = "float32",
    compile: bool = False,
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
        precision: "float32", by default, so that a run means the same on every device;
            "bfloat16" or "float16" for mixed precision, which trains to the same accuracy up to
            the noise between seeds; or "auto", mixed on a GPU, with bfloat16 where it has it.
            The weights stay float32. A network of another dtype computes in its own.
        compile: compile the network with ``torch.compile``, which pays in long runs on a GPU.
        progress: show a progress bar.

    Raises:
        ValueError: the mask or the data does not fit the model, ``stop_at`` is outside the
            recipe, the precision is unknown, or the checkpoint belongs to another run.
    """
    trainer = Trainer(model, data, recipe, mask, seed, stop_at, precision, compile)
    if checkpoint is not None:
        numbers = [seed, stop_at, str(trainer.format.fast)]
        path, owner = Path(checkpoint), fingerprint(model, data, recipe, mask, numbers)
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
    return finish(trainer)


def finish(trainer: Trainer) -> Run:
    """Return what a run leaves whose last step is taken."""
    return Run(trainer.trained(), pd.DataFrame(trainer.history), trainer.seconds)


def fingerprint(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    mask: Mask | None,
    numbers: list[int | str | None],
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
