"""One training run, step by step: all its state, and what a step does to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pai_lite.data import Data
from pai_lite.distributed import copy_buffers, data_parallel, mean_loss, shared_loss
from pai_lite.evaluation import accuracy_in, check_data
from pai_lite.files import whole_file
from pai_lite.masks import Mask, check_fit, copy_model
from pai_lite.precision import choose_format
from pai_lite.recipes import Recipe, build_optimizer, build_scheduler, crop, draw_crops


class Trainer:
    """The state of one training run: everything that a checkpoint has to hold."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        mask: Mask | None = None,
        seed: int = 0,
        stop_at: int | None = None,
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        self.model, self.data, self.recipe, self.mask = copy_model(model), data, recipe, mask
        check_data(self.model, data)
        self.format = choose_format(self.model, data, precision)
        all_steps = recipe.epochs * -(-len(data.train) // recipe.batch_size)
        if stop_at is not None and not 1 <= stop_at <= all_steps:
            raise ValueError(
                f"stop_at is {stop_at}; the recipe has {all_steps} steps on this data, "
                f"so it must lie in 1 to {all_steps}."
            )
        self.last_step = stop_at or all_steps
        self.model.to(memory_format=self.format.layout)  # before anything refers to its weights
        self.removed = removed_weights(self.model, mask)
        self.zero_removed()
        self.network = data_parallel(self.model)
        if compile:
            self.network = torch.compile(self.network, dynamic=False)
        scaled = self.format.fast == torch.float16
        self.scaler = torch.amp.GradScaler(data.device.type, enabled=scaled)
        # One kernel updates all weights; it alone leaves out a step whose gradient overflowed
        # without asking the device.
        fused = scaled or data.device.type == "cuda"
        self.optimizer = build_optimizer(self.model, recipe, fused=fused)
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
            losses.append(self.update(inputs, targets))
            self.advance()
        copy_buffers(self.model)
        self.seconds += time.perf_counter() - begin
        self.record(mean_loss(losses))
        return len(losses)

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the normalised batches of one epoch, in an order drawn from the seed."""
        for drawn in self.draw():
            yield self.make_batch(drawn.to(self.data.device))

    def draw(self) -> Iterator[Tensor]:
        """Draw the batches of one epoch: the numbers of the images, and how they are cropped.

        Each is int64 (1, n), or (4, n) where the recipe augments, on the CPU.
        """
        order = torch.randperm(len(self.data.train), generator=self.generator)
        for numbers in order.split(self.recipe.batch_size)[: self.last_step - self.step]:
            augment = self.recipe.augment
            crops = [draw_crops(len(numbers), self.generator)] if augment else []
            yield torch.cat([numbers[None], *crops])

    def make_batch(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and targets of a batch that was drawn."""
        images = self.data.train.images.index_select(0, drawn[0])
        if self.recipe.augment:
            images = crop(images, drawn[1:])
        return self.format.inputs(self.data, images), self.data.train.labels[drawn[0]]

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Change the weights as one step does, and return the loss before it, detached."""
        loss = shared_loss(self.outputs, inputs, targets)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.zero_removed()
        return loss.detach()

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return what the network makes of inputs."""
        return self.format.outputs(self.network, inputs)

    def advance(self) -> None:
        """Count a step, and set the learning rate of the next."""
        self.lr = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.step += 1

    def record(self, train_loss: float) -> None:
        """Evaluate the network, and add the row of an epoch to the history."""
        self.history.append(
            {
                "epoch": len(self.history) + 1,
                "step": self.step,
                "lr": self.lr,
                "train_loss": train_loss,
                "validation_accuracy": self.accuracy("validation"),
                "test_accuracy": self.accuracy("test"),
            }
        )

    def accuracy(self, split: str) -> float:
        """Return the accuracy on a split, computed as in training."""
        return accuracy_in(self.format, self.model, self.data, split)

    def trained(self) -> nn.Module:
        """Return the network in eval mode, with weights that lie in memory as usual."""
        return self.model.eval().to(memory_format=torch.contiguous_format)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that a step changes, beside the scale of the loss."""
        averages = [s["momentum_buffer"] for s in self.optimizer.state.values()]
        return [*self.model.parameters(), *self.model.buffers(), *averages]

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs to go on from here."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }

    def save(self, path: Path, owner: str) -> None:
        """Write the state and the run's fingerprint to the path: the whole file or nothing."""
        with whole_file(path) as temporary:
            torch.save({"owner": owner, **self.state()}, temporary)

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
                f"seed, stop_at or precision differ. {remedy}"
            )
        for name in ("model", "optimizer", "scheduler", "scaler"):
            getattr(self, name).load_state_dict(state[name])
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
