"""Readers: where the images come from; each returns the four arrays of an ``.npz`` file.

The keys are x_train, y_train, x_test, y_test; images are (n, H, W) or (n, H, W, C).
Folders of images are read in :mod:`pai_lite.folders`.
Whether the arrays are sound is checked in one place, :mod:`pai_lite.data`.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pai_lite.downloads import ARCHIVES, fetch

Arrays = dict[str, np.ndarray]
KEYS = ("x_train", "y_train", "x_test", "y_test")
SPLIT_SEED = 0  # fixed: everyone has the same training, validation and test images


def set_aside(labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Return ascending indices (kept, set aside): round(fraction * n) of each class's n images."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    aside = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = order[labels[order] == label]
        aside[members[: round(fraction * len(members))]] = True
    return (~aside).nonzero().flatten(), aside.nonzero().flatten()


def read_digits() -> Arrays:
    """Return scikit-learn's digits, 0..16 stretched to 0..255, a fifth of each class for test."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)
    train, test = (i.numpy() for i in set_aside(torch.from_numpy(digits.target), 0.2))
    parts = (images[train], digits.target[train], images[test], digits.target[test])
    return dict(zip(KEYS, parts, strict=True))


def read_npz(path: Path) -> Arrays:
    """Return the four arrays of a file; nothing in it is ever unpickled."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: give the path of an .npz file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an .npz archive: write it with numpy.savez_compressed.")
    arrays, key = {}, "the archive"
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive)
            for key in (key for key in KEYS if key in names):
                arrays[key] = np.asarray(archive[key])
    except Exception as error:  # damaged bytes raise errors of zipfile, zlib, numpy and others
        raise ValueError(
            f"{path}: {key} cannot be read ({error}): write the file again, with plain arrays, "
            "with numpy.savez_compressed."
        ) from error
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f"{path} lacks the keys {', '.join(missing)} and has {', '.join(names) or 'none'}: "
            f"it needs {', '.join(KEYS)}."
        )
    return arrays


def read_torchvision(name: str, class_name: str, root: Path) -> Arrays:
    """Fetch and verify the archives, unpack them aside, and let torchvision read them.

    Only the archives are kept: what is unpacked from a verified archive a moment ago is whole,
    which nobody knows of files that another process unpacked, or stopped unpacking, last week.
    """
    from torchvision import datasets  # slow to import
    from torchvision.datasets.utils import extract_archive

    paths = {archive.path: fetch(archive, root) for archive in ARCHIVES[name]}
    with tempfile.TemporaryDirectory() as folder:
        for place, path in paths.items():
            target = Path(folder, place).parent
            target.mkdir(parents=True, exist_ok=True)
            extract_archive(path, target)
        read = getattr(datasets, class_name)
        sets = [read(folder, train=train) for train in (True, False)]
    arrays = (np.asarray(array) for part in sets for array in (part.data, part.targets))
    return dict(zip(KEYS, arrays, strict=True))


# What reads each dataset, given the folder of the downloads.
READERS: dict[str, Callable[[Path], Arrays]] = {
    "digits": lambda _: read_digits(),
    "mnist": partial(read_torchvision, "mnist", "MNIST"),
    "fashion-mnist": partial(read_torchvision, "fashion-mnist", "FashionMNIST"),
    "cifar10": partial(read_torchvision, "cifar10", "CIFAR10"),
    "cifar100": partial(read_torchvision, "cifar100", "CIFAR100"),
}
