"""Several networks trained together, each a step at a time: on a GPU in one CUDA graph.

A step of a small network is hundreds of kernels, each of which takes a GPU less time than it takes
the processor to launch it. So the steps of all networks, each on a stream of its own, are captured
once in a graph, and launched together from then on. The graph reads where in the epoch it is, and
the learning rate, from the device; losses stay there until the epoch ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from pai_lite.trainer import Trainer

WARM_UP = 3  # steps before the capture, in which libraries choose their kernels


class Lockstep:
    """Trainers of one recipe on one data set that take their steps together.

    The networks must not draw random numbers: they would draw them from one another.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers, first = trainers, trainers[0]
        images, device = len(first.data.train), first.data.device
        size = min(first.recipe.batch_size, images)
        counts = {size: images // size, images % size: 1}
        streams = [torch.cuda.Stream(device) for _ in trainers] if device.type == "cuda" else []
        self.stretches = [Stretch(trainers, n, count, streams) for n, count in counts.items() if n]
        self.lr = torch.zeros((), device=device)
        self.captured = not streams  # nothing to capture on a CPU
        self.drawn = self.draw()

    @property
    def done(self) -> bool:
        """Whether the last step is taken."""
        return self.trainers[0].step == self.trainers[0].last_step

    def draw(self) -> list[list[Tensor]]:
        """Return for each network the batches of its next epoch."""
        return [list(trainer.draw()) for trainer in self.trainers]

    def train_epoch(self) -> None:
        """Train each network for one epoch, or up to the last step."""
        begin = time.perf_counter()
        for trainer in self.trainers:
            trainer.model.train()
        if not self.captured:
            self.capture()
        losses = self.take_steps()
        self.drawn = self.draw()  # while the device is still at work
        means = torch.stack([torch.cat(parts).mean().double() for parts in losses]).tolist()
        seconds = (time.perf_counter() - begin) / len(self.trainers)
        for trainer, mean in zip(self.trainers, means, strict=True):
            trainer.seconds += seconds
            trainer.record(mean)

    def take_steps(self) -> list[list[Tensor]]:
        """Take the steps of an epoch, and return for each network its losses, still on the way."""
        losses: list[list[Tensor]] = [[] for _ in self.trainers]
        rest = self.drawn
        for stretch in self.stretches:
            part = [batches[: stretch.count] for batches in rest]
            rest = [batches[stretch.count :] for batches in rest]
            if not part[0]:
                break
            stretch.load(part)
            for _ in part[0]:
                self.lr.fill_(self.trainers[0].optimizer.param_groups[0]["lr"])
                stretch.run()
                for trainer in self.trainers:
                    trainer.advance()
            for found, own in zip(losses, stretch.losses, strict=True):
                found.append(own[: len(part[0])])
        return losses

    def capture(self) -> None:
        """Capture the steps of each stretch in a CUDA graph; the networks stay as they are."""
        pool = None  # shared, because no two of the graphs run at a time
        with rates_from(self.lr, self.trainers), restored(self.trainers):
            for stretch in self.stretches:
                stretch.warm_up()
            for stretch in self.stretches:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    stretch.step()
                stretch.graph, pool = graph, graph.pool()
        self.captured = True


class Stretch:
    """Successive steps on batches of one size, of every network.

    Attributes:
        size: images a batch.
        count: the most steps.
        losses: for each network the losses of the steps taken, on the device.
        graph: of one step of every network, once it is captured.
    """

    def __init__(
        self,
        trainers: Sequence[Trainer],
        size: int,
        count: int,
        streams: Sequence[torch.cuda.Stream],
    ) -> None:
        device, rows = trainers[0].data.device, 4 if trainers[0].recipe.augment else 1
        self.trainers, self.streams, self.count = trainers, streams, count
        shape = (len(trainers), count, rows, size)
        self.drawn = torch.zeros(shape, dtype=torch.int64, device=device)
        self.losses = [torch.zeros(count, dtype=t.format.dtype, device=device) for t in trainers]
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def load(self, batches: list[list[Tensor]]) -> None:
        """Put the batches of each network, at most as many as steps, onto the device."""
        stacked = torch.stack([torch.stack(own) for own in batches])
        self.drawn[:, : stacked.shape[1]].copy_(stacked)
        self.at.zero_()

    def run(self) -> None:
        """Take one step of every network."""
        if self.graph is None:
            self.step()
        else:
            self.graph.replay()

    def step(self) -> None:
        """Take one step of every network, each on its stream, without the graph."""
        with forked(self.streams):
            for number in range(len(self.trainers)):
                with torch.cuda.stream(self.streams[number]) if self.streams else nullcontext():
                    self.step_one(number)
        self.at += 1

    def step_one(self, number: int) -> None:
        """Take one step of one network, on the batch that the device is at."""
        trainer = self.trainers[number]
        drawn = self.drawn[number].index_select(0, self.at)[0]
        loss = trainer.update(*trainer.make_batch(drawn))
        losses = self.losses[number]
        losses.index_copy_(0, self.at, loss.to(losses.dtype)[None])

    def warm_up(self) -> None:
        """Take a few steps on the first batch."""
        for _ in range(WARM_UP):
            self.at.zero_()
            self.step()


@contextmanager
def forked(streams: Sequence[torch.cuda.Stream]) -> Iterator[None]:
    """Let the streams begin where the current one is, and the current one go on after them.

    They are joined after an error too: a capture could not end otherwise.
    """
    if not streams:
        yield
        return
    current = torch.cuda.current_stream()
    for stream in streams:
        stream.wait_stream(current)
    try:
        yield
    finally:
        for stream in streams:
            current.wait_stream(stream)


@contextmanager
def rates_from(lr: Tensor, trainers: Sequence[Trainer]) -> Iterator[None]:
    """Let the optimizers read their learning rate from a tensor, which a graph does ever after."""
    groups = [trainer.optimizer.param_groups[0] for trainer in trainers]
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = lr
    try:
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


@contextmanager
def restored(trainers: Sequence[Trainer]) -> Iterator[None]:
    """Give all that a step changes its values back afterwards, in place."""
    tensors = [tensor for trainer in trainers for tensor in trainer.tensors()]
    values = [tensor.detach().clone() for tensor in tensors]
    scales = [trainer.scaler.state_dict() for trainer in trainers]
    yield
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
    for trainer, scale in zip(trainers, scales, strict=True):
        trainer.scaler.load_state_dict(scale)
