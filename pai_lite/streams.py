"""Streams: batches read from a folder while they are scored, so that no data set is too large."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pai_lite.downloads import default_root
from pai_lite.folders import (
    LAYOUT,
    Listing,
    Samples,
    find_folder,
    list_folder,
    open_image,
    square,
)

# Of ImageNet, for pixels scaled to [0, 1]; measuring those of a folder would take a pass over it.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Images(Dataset):
    """Images read one at a time, each as uint8 (3, size, size), and their classes."""

    def __init__(self, samples: Samples, size: int, augment: bool, seed: int) -> None:
        self.samples, self.size, self.augment, self.seed = samples, size, augment, seed

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image and its class."""
        from torchvision.transforms.v2 import functional  # slow to import

        path, label = self.samples[index]
        image = open_image(path)
        image = self.cut_patch(image, index) if self.augment else square(image, self.size)
        return functional.pil_to_tensor(image), label

    def cut_patch(self, image: Image, index: int) -> Image:
        """Cut a random patch and flip it at random, the same for each image whoever reads it."""
        from torchvision.transforms import v2

        patch = v2.RandomResizedCrop(self.size, scale=(0.1, 1.0), ratio=(0.8, 1.25))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed * 1_000_003 + index)
            return v2.RandomHorizontalFlip()(patch(image))


class Stream:
    """Batches (inputs, targets), read anew, and the same, every time that it is iterated over.

    It holds one batch at a time and takes the place of data in :func:`build_model`.

    Attributes:
        classes: the number of classes.
        input_shape: (3, H, W) of one image.
        device: of the batches.
    """

    def __init__(
        self, loader: DataLoader, classes: int, size: int, device: str | torch.device
    ) -> None:
        self.loader, self.classes, self.input_shape = loader, classes, (3, size, size)
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches, normalized with ImageNet's mean and standard deviation."""
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, STD))
        for images, labels in self.loader:
            inputs = (images.to(self.device).float() / 255 - mean) / std
            yield inputs, labels.to(self.device)


def stream_batches(
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    image_size: int = 224,
    count: int | None = None,
    seed: int = 0,
    augment: bool = False,
    device: str | torch.device = "cpu",
    workers: int = 0,
) -> Stream:
    """Return batches of training images of a folder that does not fit into memory.

    Images are drawn at random without replacement; the same seed gives the same batches. The
    global random state is not used. Memory does not grow with the number of batches where the
    criterion looks at one after the other, as :func:`snip` does.

    Source: of the random patches, Frankle et al. 2021, appendix A.2.

    Args:
        folder: laid out as for :func:`load_data`, or "imagenet" or "tiny-imagenet".
        batch_size: images a batch; what is left over is not used.
        image_size: pixels a side, to which images are scaled and cropped at the centre.
        count: of batches; by default as many as the images fill.
        seed: of the order of the images, and of the patches.
        augment: cut a patch of random size and flip it at random, in place of the centre.
        device: of the batches.
        workers: processes that read images; 0 reads them in this one.

    Returns:
        An iterable of inputs, float32 (batch_size, 3, H, W), and targets, int64 (batch_size,).

    Raises:
        ValueError: the folder has another layout or too few images, a number is not positive, or,
            while reading, an image is damaged.
    """
    for name, value in (("batch_size", batch_size), ("image_size", image_size), ("count", count)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more.")
    listing = list_images(os.fspath(folder), (count or 1) * batch_size)
    used = (count or len(listing.train) // batch_size) * batch_size
    order = torch.randperm(len(listing.train), generator=torch.Generator().manual_seed(seed))
    loader = DataLoader(
        Images(listing.train, image_size, augment, seed),
        batch_size=batch_size,
        sampler=order[:used].tolist(),
        num_workers=workers,
        generator=torch.Generator(),  # else a seed for the workers moves the global random state
    )
    return Stream(loader, len(listing.classes), image_size, device)


def list_images(folder: str, needed: int) -> Listing:
    """List the images of a folder, given by path or name, that has enough for training.

    Raises:
        ValueError: there is no such folder, it has another layout, or too few images.
    """
    path = find_folder(folder, default_root())
    if path is None:
        raise ValueError(f"There is no folder {folder!r}. {LAYOUT}")
    listing = list_folder(path)
    if len(listing.train) < needed:
        raise ValueError(
            f"{path} has {len(listing.train)} training images; count batches of batch_size need "
            f"{needed}: use a smaller batch_size or count."
        )
    return listing
