"""How fast networks train on a GPU, by engine: ``python -m benchmarks.engine --out engine.csv``.

Every row is written as soon as it is measured. Rates are steps of one network a second, summed over
the networks that train together. The share of the byte floor is that rate over the one at which the
bytes that a step of ResNet-20 must move, about 2 GB in float32 at batch 128, could be copied.
With ``--limit`` a small network is measured for a few steps, also on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

import pai_lite as pai
from benchmarks.training import Contiguous, load
from pai_lite.lockstep import Lockstep
from pai_lite.trainer import Trainer

FLOOR = 2e9  # bytes that a step of ResNet-20 at batch 128 reads and writes in float32
BATCH = 128
RECIPE = pai.Recipe(epochs=50, batch_size=BATCH, lr=0.05, schedule="constant", augment=True)


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        engine: "eager" trains one network, "compile" and "reduce-overhead" one that is compiled,
            "lockstep" several together.
        together: networks.
        channels_last: whether the channels of images lie last.
    """

    engine: str
    together: int = 1
    precision: str = "float32"
    channels_last: bool = True


@dataclass(frozen=True)
class Row:
    """One measured rate; unit "steps/s" is of steps of one network, and so on."""

    what: str
    network: str
    together: int
    precision: str
    channels_last: bool
    rate: float
    unit: str
    over_eager: float
    floor_share: float
    peak_bytes: int
    prepare_seconds: float
    note: str
    hardware: str
    torch: str


def cases(limit: bool) -> Iterator[Case]:
    """Yield the cases, the first of which the others are compared with; the slow ones last."""
    most = (1, 2) if limit else (1, 2, 4, 8, 16, 32)
    precisions = ("float32", "bfloat16") if limit else ("float32", "bfloat16", "float16")
    for precision in precisions:
        for last in (True, False):
            yield Case("eager", 1, precision, last)
            yield from (Case("lockstep", k, precision, last) for k in most)
    if not limit:
        for engine in ("compile", "reduce-overhead"):
            yield from (Case(engine, 1, precision) for precision in ("float32", "bfloat16"))
        yield from (Case("lockstep, compile", k, "bfloat16") for k in (1, 8, 32))


def make_trainers(case: Case, network: str, data: pai.Data) -> list[Trainer]:
    """Return the trainers of a case."""
    models = [pai.build_model(network, data, seed=seed) for seed in range(case.together)]
    models = models if case.channels_last else [Contiguous(model) for model in models]
    compiled = case.engine in ("compile", "lockstep, compile")
    options = {"precision": case.precision, "compile": compiled}
    trainers = [Trainer(model, data, RECIPE, **options) for model in models]
    if case.engine == "reduce-overhead":
        (only,) = trainers
        only.network = torch.compile(only.network, mode="reduce-overhead", dynamic=False)
    return trainers


def stepper(case: Case, trainers: list[Trainer]) -> Callable[[], object]:
    """Return a function that takes the steps of one epoch; graphs are captured here."""
    for trainer in trainers:
        trainer.model.train()
    if case.engine.startswith("lockstep"):
        lockstep = Lockstep(trainers)
        if not lockstep.captured:
            lockstep.capture()
        return lockstep.take_steps
    (only,) = trainers

    def epoch() -> None:
        for inputs, targets in only.minibatches():
            if case.engine == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            only.update(inputs, targets)
            only.advance()

    return epoch


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return how long a call takes by the clock, with all that it starts on a GPU."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    synchronize()
    begin = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - begin


@dataclass(frozen=True)
class Bench:
    """The network, data and machine of all rows."""

    network: str
    data: pai.Data
    bandwidth: float
    hardware: str

    def row(self, what: str, case: Case, rate: float, unit: str, **others: object) -> Row:
        """Return a row with what all have in common."""
        empty = {"over_eager": float("nan"), "floor_share": float("nan")}
        empty |= {"peak_bytes": 0, "prepare_seconds": 0.0, "note": ""}
        settings = (case.together, case.precision, case.channels_last, rate, unit)
        return Row(
            *(what, self.network, *settings),
            **{**empty, **others},
            hardware=self.hardware,
            torch=torch.__version__,
        )

    def measure(self, case: Case, eager: float) -> Row:
        """Return the rate of a case, or the error that it ended with."""
        cuda = self.data.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        try:
            trainers = make_trainers(case, self.network, self.data)
            call = stepper(case, trainers)
            call()  # once for nothing: libraries choose their kernels
            prepared = time.perf_counter() - begin
            taken = min(seconds(call, self.data.device) for _ in range(2))
        except Exception as error:  # one case that fails must not end the others
            return self.row(case.engine, case, 0.0, "steps/s", note=f"{error!r:.300}")
        rate = case.together * -(-len(self.data.train) // BATCH) / taken
        floor = FLOOR / (1 if case.precision == "float32" else 2)
        return self.row(
            *(case.engine, case, rate, "steps/s"),
            over_eager=rate / eager if eager else 1.0,
            floor_share=rate * floor / self.bandwidth if self.network == "resnet20" else 0.0,
            peak_bytes=torch.cuda.max_memory_allocated() if cuda else 0,
            prepare_seconds=prepared,
        )

    def loader(self) -> Row:
        """Return how many batches a second the loader makes, without a network."""
        case = Case("eager")
        (trainer,) = make_trainers(case, self.network, self.data)
        drawn = [batch.to(self.data.device) for batch in trainer.draw()]

        def load_all() -> None:
            for batch in drawn:
                trainer.make_batch(batch)

        load_all()
        taken = seconds(load_all, self.data.device)
        return self.row("batches of the loader", case, len(drawn) / taken, "batches/s")

    def whole_runs(self, case: Case) -> Row:
        """Return how many networks a second fit_many trains, evaluations and all."""
        models = [pai.build_model(self.network, self.data, seed=i) for i in range(case.together)]
        train = partial(pai.fit_many, workers=1, precision=case.precision, progress=False)
        recipe = replace(RECIPE, epochs=2)
        taken = seconds(lambda: train(models, self.data, recipe), self.data.device)
        name = f"fit_many, {recipe.epochs} epochs of {len(self.data.train)} images"
        return self.row(name, case, case.together / taken, "networks/s")


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Return the bytes a second that a copy on the device reads and writes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * size / min(seconds(lambda: target.copy_(source), device) for _ in range(5))


def all_rows(limit: bool) -> Iterator[Row]:
    """Measure and yield one row after another."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, shape = ("small-conv", (BATCH, 3, 8, 8)) if limit else ("resnet20", (6400, 3, 32, 32))
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    bandwidth = copy_bandwidth(device, 2**24 if limit else 2**31)
    bench = Bench(network, load(shape).to(device), bandwidth, hardware)
    yield bench.row("copy of memory", Case("eager"), bandwidth, "bytes/s")
    yield bench.loader()
    eager = 0.0
    for case in cases(limit):
        row = bench.measure(case, eager)
        eager = eager or row.rate
        yield row
    for together in (1, 2) if limit else (1, 32):
        yield bench.whole_runs(replace(Case("fit_many"), together=together))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine")
    parser.add_argument("--out", type=Path, required=True, help="CSV file, written row by row")
    parser.add_argument("--limit", action="store_true", help="a small network and few steps")
    options = parser.parse_args()
    with options.out.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
        writer.writeheader()
        for row in all_rows(options.limit):
            writer.writerow(asdict(row))
            file.flush()
            where = (
                f"{row.together:2d} x {row.precision:9s} channels last: {row.channels_last!s:5s}"
            )
            print(f"{row.what:32s} {where} {row.rate:12.4g} {row.unit} {row.note}", flush=True)
            if row.rate and row.unit == "steps/s":
                print(f"    {row.over_eager:.2f} x eager, {row.floor_share:.1%} of the byte floor")


if __name__ == "__main__":
    main()
