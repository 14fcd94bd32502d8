"""The rows of results: what was asked for, what came of it, and on what it was measured."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pai_lite.cells import Cell, Experiment
from pai_lite.data import Data
from pai_lite.masks import Mask
from pai_lite.precision import fast_dtype
from pai_lite.training import Run


def make_row(
    cell: Cell,
    experiment: Experiment,
    data: Data,
    mask: Mask | None,
    run: Run | None,
    prune_seconds: float,
    note: str = "",
) -> dict[str, Any]:
    """Return what was asked for and what came of it."""
    if run is not None and not math.isfinite(run.history["train_loss"].iloc[-1]):
        note = "diverged: the training loss is not finite"
    return {
        **asdict(cell),
        "reached": math.nan if mask is None else mask.sparsity,
        "options": json.dumps(dict(experiment.options.get(cell.method, {})), sort_keys=True),
        "model": experiment.model,
        "data": data.name,
        "recipe": json.dumps(asdict(experiment.recipe), sort_keys=True),
        "per_class": experiment.per_class,
        "epochs": experiment.recipe.epochs,
        "test_accuracy": math.nan if run is None else run.test_accuracy,
        "best_test_accuracy": best_accuracy(run),
        "prune_seconds": prune_seconds,
        "train_seconds": math.nan if run is None else run.seconds,
        "note": note,
        "hardware": hardware(data.device, experiment.precision),
        "version": version("pai-lite"),
        "commit": commit(),
    }


def best_accuracy(run: Run | None) -> float:
    """Return the test accuracy at the best validation, or NaN where there is none."""
    if run is None or run.history["validation_accuracy"].isna().all():
        return math.nan
    return run.best_test_accuracy


def hardware(device: torch.device, precision: str) -> str:
    """Return the device that the runs were measured on, and the dtype of mixed precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    fast = fast_dtype(precision, device, torch.float32)
    return name if fast is None else f"{name}, {str(fast).removeprefix('torch.')}"


@cache
def commit() -> str:
    """Return the commit of the checkout that the package runs from, or nothing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
