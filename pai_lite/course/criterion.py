"""Calling the criterion of a student: in a confined process, on given networks and batches.

The process gets weights and one batch of training images for each call, and gives scores back. It
never gets validation or test images, and nothing is trained or tested in it. All that it is to
read is written before any of the student's code runs; what comes back is read as safetensors,
which hold numbers alone.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save_file
from torch import Tensor, nn

from pai_lite.course.kernel import Kernel, Outcome
from pai_lite.data import Data
from pai_lite.gradients import Batch
from pai_lite.masks import check_fit, prunable_parameters
from pai_lite.scores import Scores

SETUP_SECONDS = 300.0
#: Limit of loading a network and of saving scores, in which the code of the student may meddle.
OTHER_SECONDS = 60.0
NOTE_LENGTH = 300
SETUP = """
import torch
from collections.abc import Mapping
from safetensors.torch import load_file, save_file
from pai_lite.models import find_builder
"""
IMPORT = """
import criterion
if not callable(getattr(criterion, "criterion", None)):
    raise AttributeError("the file has no function criterion(model, batch)")
"""
# A criterion that draws random numbers gets the same ones each time.
PREPARE = """
torch.manual_seed({number})
model = find_builder({name!r})({input_shape!r}, {classes!r})
model.load_state_dict(load_file("network{number}.safetensors"))
batch = tuple(load_file("batch{number}.safetensors")[key] for key in ("inputs", "targets"))
"""
CALL = "scores = criterion.criterion(model, batch)"
SAVE = """
if not isinstance(scores, Mapping):
    raise TypeError(f"criterion returned a {{type(scores).__name__}}, not a mapping of scores")
save_file(
    {{str(n): torch.as_tensor(t).detach().cpu().clone().contiguous() for n, t in scores.items()}},
    "scores{number}.safetensors",
)
"""


class CriterionError(Exception):
    """What was wrong with a criterion, in words for the student."""


@dataclass(frozen=True, eq=False)
class Start:
    """A network before it is pruned, and the batch that it is scored on, both on the CPU.

    Attributes:
        number: of the seed, from 0; the seed itself is the teacher's.
    """

    data: Data
    number: int
    seed: int
    model: nn.Module
    batch: Batch


@dataclass(frozen=True)
class Scored:
    """The scores of one network, and the seconds that the criterion took."""

    scores: Scores
    seconds: float


def score(path: Path, name: str, starts: Sequence[Start], seconds: float) -> list[Scored]:
    """Call the criterion of a file on every network, all in one confined process.

    Args:
        path: a Python file with a function ``criterion(model, batch)``.
        name: of the network, as for :func:`pai_lite.build_model`.
        seconds: limit of one call.

    Raises:
        CriterionError: it failed on one of them, took too long, or returned no scores of it.
        RuntimeError: the process could not be set up, which is no fault of the student.
    """
    with Kernel() as kernel:
        (kernel.folder / "criterion.py").write_bytes(path.read_bytes())
        for number, start in enumerate(starts):
            _write(start, number, kernel.folder)
        setup = kernel.run(SETUP, SETUP_SECONDS)
        if setup.status != "ok":
            raise RuntimeError(f"The process for {path.name} did not start: {setup.error}")
        _run(kernel, IMPORT, seconds)
        return [_call(kernel, name, start, i, seconds) for i, start in enumerate(starts)]


def _write(start: Start, number: int, folder: Path) -> None:
    """Write the weights of a network and its batch, (n, C, H, W) and (n,), into a folder."""
    inputs, targets = start.batch
    save_file(start.model.state_dict(), folder / f"network{number}.safetensors")
    save_file({"inputs": inputs, "targets": targets}, folder / f"batch{number}.safetensors")


def _call(kernel: Kernel, name: str, start: Start, number: int, seconds: float) -> Scored:
    """Call the criterion on one network; the time is that of the call alone."""
    shape, classes = start.data.input_shape, start.data.classes
    values = {"name": name, "number": number, "input_shape": shape, "classes": classes}
    _run(kernel, PREPARE.format(**values), OTHER_SECONDS)
    begin = time.perf_counter()
    _run(kernel, CALL, seconds)
    taken = time.perf_counter() - begin
    _run(kernel, SAVE.format(number=number), OTHER_SECONDS)
    return Scored(read_scores(kernel.folder / f"scores{number}.safetensors", start.model), taken)


def _run(kernel: Kernel, code: str, seconds: float) -> None:
    """Run code beside that of the student; raise a ``CriterionError`` unless it went well."""
    outcome = kernel.run(code, seconds)
    if outcome.status != "ok":
        raise CriterionError(_note(outcome, seconds)[:NOTE_LENGTH])


def _note(outcome: Outcome, seconds: float) -> str:
    """Say in plain words what went wrong."""
    if outcome.status == "timeout":
        return f"It took longer than {seconds:g} seconds and was stopped."
    if outcome.status == "died":
        return f"Its process is gone: {outcome.error}."
    return f"It raised {outcome.error}"


def read_scores(path: Path, model: nn.Module) -> Scores:
    """Read scores that a student's process has written, as float64 in the order of the layers.

    Raises:
        CriterionError: the file is not there, or holds no finite scores of the network's shapes.
    """
    weights = prunable_parameters(model)
    size = sum(weight.numel() for weight in weights.values())
    try:
        tensors = load(_read_plain(path, limit=16 * size + 2**20))
        check_fit(tensors, model, "set of scores")
        return Scores({name: _real(name, tensors[name]) for name in weights})
    except ValueError as error:
        raise CriterionError(str(error)[:NOTE_LENGTH]) from error
    except Exception as error:  # the bytes are the student's: whatever they hold, the others go on
        raise CriterionError(f"Its scores cannot be read: {error}"[:NOTE_LENGTH]) from error


def _real(name: str, tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        raise ValueError(f"The scores of {name} are complex; they must be real numbers.")
    return tensor.double()


def _read_plain(path: Path, limit: int) -> bytes:
    """Read a file that may have become a link, a pipe that never ends, or too large."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise ValueError("What it left in the place of its scores is no file of their size.")
        return file.read(limit)
