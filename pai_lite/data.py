"""Data: small image datasets, held whole on one device.

Images stay uint8 until a batch needs them; :meth:`Data.normalize` makes them float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pai_lite.downloads import default_root
from pai_lite.folders import FOLDERS, find_folder, read_folder
from pai_lite.lookup import look_up
from pai_lite.readers import READERS, read_npz, set_aside

DATA_NAMES = (*READERS, *FOLDERS)


@dataclass(frozen=True, eq=False)
class Split:
    """Images, uint8 (n, C, H, W), and their labels, int64 (n,), on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> Split:
        """Return the split on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A dataset in three splits that share no image, and its training split's statistics.

    ``mean`` and ``std`` are float32 (C,), for pixels scaled to [0, 1].
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    mean: Tensor
    std: Tensor

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """The device that holds the images."""
        return self.train.images.device

    def to(self, device: str | torch.device) -> Data:
        """Return the data on another device."""
        names = ("train", "validation", "test", "mean", "std")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images (..., C, H, W) as float32, (x / 255 - mean) / std per channel.

        Raises:
            ValueError: the images are not uint8, or have another number of channels.
        """
        channels = len(self.mean)
        if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] != channels:
            raise ValueError(
                f"normalize got images of dtype {images.dtype} and shape {tuple(images.shape)}; "
                f"it needs torch.uint8 and (..., {channels}, H, W), as in data.train.images."
            )
        mean, std = (value.to(images.device)[:, None, None] for value in (self.mean, self.std))
        return images.float().div_(255).sub_(mean).div_(std)  # in place: fewer passes over memory

    def batch(self, *, per_class: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw a class-balanced batch from the training split, without replacement.

        The same seed gives the same batch on every device; the global random state is not used.

        Returns:
            Normalized inputs, float32 (classes * per_class, C, H, W), and targets, int64
            (classes * per_class,), in shuffled order, on the data's device.

        Raises:
            ValueError: ``per_class`` is below 1, or a class has fewer training images than that.
        """
        _check_at_least_one("per_class", per_class)
        generator = torch.Generator().manual_seed(seed)
        labels = self.train.labels.cpu()
        drawn = torch.cat([_draw(labels, c, per_class, generator) for c in range(self.classes)])
        drawn = drawn[torch.randperm(len(drawn), generator=generator)].to(self.device)
        return self.normalize(self.train.images[drawn]), self.train.labels[drawn]

    def batches(
        self, count: int, *, per_class: int = 10, seed: int = 0
    ) -> list[tuple[Tensor, Tensor]]:
        """Return ``count`` batches; batch i is ``batch(per_class=per_class, seed=seed + i)``.

        Raises:
            ValueError: ``count`` is below 1; and as :meth:`batch`.
        """
        _check_at_least_one("count", count)
        return [self.batch(per_class=per_class, seed=seed + i) for i in range(count)]


def load_data(
    name: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    root: str | os.PathLike[str] | None = None,
    validation: float = 0.1,
    image_size: int | None = None,
) -> Data:
    """Load a dataset by name, from an ``.npz`` file, or from a folder of images, onto a device.

    A folder holds train/<class>/ with images, and test/<class>/ or val/<class>/, of which the
    first that is labelled becomes the test split; Tiny-ImageNet's val/val_annotations.txt labels
    val/images/. Images become RGB. What is too large for memory can be scored with
    :func:`stream_batches`.

    Args:
        name: "digits" (in scikit-learn, no network), "mnist", "fashion-mnist", "cifar10",
            "cifar100" (downloaded once); "tiny-imagenet" or "imagenet" (unpacked into the folder
            of that name below the root by yourself); the path of a folder; or the path of an
            ``.npz`` file with the keys x_train and x_test, uint8 (n, H, W) or (n, H, W, C) with
            C = 1 or 3, and y_train and y_test, integers (n,) from 0.
        device: where the images are to be.
        root: the folder of the downloads; by default the environment variable PAI_DATA, or
            ``~/.cache/pai_lite``.
        validation: the fraction of each class's training images, in [0, 0.5], that makes the
            validation split (rounded, always the same images; 0: an empty split).
        image_size: pixels a side to which the images of a folder are scaled and cropped at the
            centre. By default they keep their size, which must be the same for all.

    Raises:
        ValueError: an unknown name, ``validation`` out of range, an ``.npz`` file that is
            corrupt or holds something else, a folder of another layout, with a corrupt image or
            too many pixels, or an ``image_size`` for what is not a folder.
        FileNotFoundError: there is no such ``.npz`` file.
        DownloadError: no mirror delivered the archives.
    """
    if not 0 <= validation <= 0.5:
        raise ValueError(
            f"validation is {validation}, but it is the fraction of the training images to set "
            "aside: choose it in [0, 0.5], for example 0.1."
        )
    where = os.fspath(name)
    root = default_root() if root is None else Path(root)
    folder = None if where in READERS else find_folder(where, root)
    if folder is None and image_size is not None:
        raise ValueError(f"image_size is {image_size}, but only folders are resized: leave it out.")
    if folder is not None:
        name, arrays = folder.name, read_folder(folder, image_size)
    elif where.endswith(".npz"):
        name, arrays = Path(where).stem, read_npz(Path(where))
    else:
        read = look_up(READERS, where, "data (no name, no folder, no path that ends in .npz)")
        name, arrays = where, read(root)
    return _assemble(name, where, arrays, validation).to(device)


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, which makes an empty batch: use 1 or more.")


def _draw(labels: Tensor, label: int, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` random indices of one class, int64 (count,)."""
    members = (labels == label).nonzero().flatten()
    if len(members) < count:
        raise ValueError(
            f"Class {label} has {len(members)} training images, fewer than per_class={count}: "
            f"use a smaller per_class, or data with more images of class {label}."
        )
    return members[torch.randperm(len(members), generator=generator)[:count]]


def _assemble(name: str, where: str, arrays: Mapping[str, np.ndarray], validation: float) -> Data:
    """Check the four arrays, split off the validation images, and measure the rest."""
    train, test = (_checked_split(arrays, part, where) for part in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"{where}: images in x_train have shape {tuple(train.images.shape[1:])} as (C, H, W), "
            f"those in x_test {tuple(test.images.shape[1:])}: both must be the same."
        )
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    kept, aside = set_aside(train.labels, validation)
    train, held = (Split(train.images[i], train.labels[i]) for i in (kept, aside))
    return Data(name, classes, train, held, test, *_channel_statistics(train.images))


def _checked_split(arrays: Mapping[str, np.ndarray], part: str, where: str) -> Split:
    """Return the arrays x_<part> and y_<part> as a split, or say what is wrong with them."""
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]

    def refuse(key: str, found: str, right: str) -> ValueError:
        return ValueError(f"{where}: {key}_{part} {found}; it must {right}.")

    shape = x.shape if x.ndim == 4 else (*x.shape, 1)
    if x.dtype != np.uint8:
        raise refuse("x", f"has dtype {x.dtype}", "be uint8, with pixels from 0 to 255")
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise refuse("x", f"has shape {x.shape}", "be (n, H, W) or (n, H, W, C), C = 1 or 3")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise refuse("y", f"has dtype {y.dtype} and shape {y.shape}", "be integers of shape (n,)")
    if len(y) != len(x):
        raise refuse("y", f"has {len(y)} labels for {len(x)} images", "have one for each image")
    # More classes than training images is a mistake, and would make a network of that width.
    if y.min() < 0 or y.max() >= len(arrays["y_train"]):
        raise refuse("y", f"has labels from {y.min()} to {y.max()}", "count the classes 0..K-1")
    images = torch.from_numpy(np.ascontiguousarray(x.reshape(shape).transpose(0, 3, 1, 2)))
    return Split(images, torch.from_numpy(y.astype(np.int64)))


def _channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (C,) on [0, 1], exact from the counts of pixel values."""
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)])
    weights = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ values
    std = (weights * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std[(counts > 0).sum(1) == 1] = 1.0  # a constant channel has nothing to scale
    return mean.float(), std.float()
