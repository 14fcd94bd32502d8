"""Folders of images: train/<class>/ and test/<class>/ or val/<class>/, as ImageNet has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pai_lite.progress import progress_bar

Samples = list[tuple[str, int]]  # paths of images and their classes

# The folders of each name, below the root of the downloads.
FOLDERS = {"tiny-imagenet": ("tiny-imagenet", "tiny-imagenet-200"), "imagenet": ("imagenet",)}
LARGEST = 2**34  # bytes that are read into memory: ImageNet fits at 64 pixels a side
LAYOUT = (
    "A folder of images needs train/<class>/, and test/<class>/ or val/<class>/ with the same "
    "class names (or val/images/ and val/val_annotations.txt, as in Tiny-ImageNet)."
)


@dataclass(frozen=True)
class Listing:
    """The names of the classes, in order, and the images for training and test."""

    classes: tuple[str, ...]
    train: Samples
    test: Samples


def find_folder(name: str, root: Path) -> Path | None:
    """Return the folder of that name or path, or None where it is neither.

    Raises:
        ValueError: a name of :data:`FOLDERS` is not there.
    """
    if name not in FOLDERS:
        return Path(name) if Path(name).is_dir() else None
    for path in (root / folder for folder in FOLDERS[name]):
        if path.is_dir():
            return path
    raise ValueError(
        f"{name} is not at {root / name}, and is not downloaded for you: unpack it there, set "
        f"PAI_DATA to its parent, or give the path of its folder. {LAYOUT}"
    )


def list_folder(folder: Path) -> Listing:
    """List the images of a folder; those for test are in test/, or, without labels there, in val/.

    Raises:
        ValueError: the folder has another layout, or a class of it has no image.
    """
    train = list_classes(folder / "train")
    classes = tuple(dict.fromkeys(Path(path).relative_to(folder).parts[1] for path, _ in train))
    for part in (folder / "test", folder / "val"):
        test = list_classes(part, classes) or list_annotated(part, classes)
        if train and test:
            return Listing(classes, train, test)
    parts = [folder, *(folder / part for part in ("train", "test", "val"))]
    held = "; ".join(f"{part.name}/ holds {contents(part)}" for part in parts if part.is_dir())
    raise ValueError(f"{folder} has no labelled {'test' if train else 'train'}: {held}. {LAYOUT}")


def list_classes(part: Path, classes: tuple[str, ...] = ()) -> Samples:
    """Return the images in the folders of a part; none where these are not among the classes."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset  # slow to import

    found = sorted(path.name for path in part.iterdir() if path.is_dir()) if part.is_dir() else []
    if not found or (classes and not set(found) <= set(classes)):
        return []
    # A part may lack a class: numbers come from train/, not from the part's own folders.
    numbers = {name: number for number, name in enumerate(classes or found) if name in found}
    try:
        return make_dataset(part, numbers, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise ValueError(f"{part}: {error}. Add images, or remove the empty folders.") from error


def list_annotated(part: Path, classes: tuple[str, ...]) -> Samples:
    """Return Tiny-ImageNet's validation images, labelled by lines "file <tab> class <tab> ..."."""
    notes, numbers = part / "val_annotations.txt", {name: i for i, name in enumerate(classes)}
    samples = []
    for line in notes.read_text().splitlines() if notes.is_file() else ():
        file, label, *_ = [*line.split("\t"), ""]
        if label not in numbers or not (part / "images" / file).is_file():
            raise ValueError(
                f"{notes} has the line {line!r}; it must begin with a file of {part / 'images'}, "
                "a tab, and a class of train/. Unpack the archive again."
            )
        samples.append((str(part / "images" / file), numbers[label]))
    return samples


def contents(folder: Path) -> str:
    """Return the first names in a folder, and how many there are."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return f"{', '.join(names[:4])}{', ...' * (len(names) > 4)} ({len(names)} in all)"


def open_image(path: str) -> Image.Image:
    """Return an image in RGB, decoded.

    Raises:
        ValueError: the file is not an image, or is damaged.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # damaged bytes raise errors of many kinds
        raise ValueError(
            f"{path} cannot be read as an image ({error}): fetch it again, or delete it."
        ) from error


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to ``size`` pixels and crop at the centre."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def read_folder(folder: Path, image_size: int | None) -> dict[str, np.ndarray]:
    """Return the four arrays of a folder, images (n, H, W, 3).

    Raises:
        ValueError: as :func:`list_folder` and :func:`open_image`, ``image_size`` is not positive,
            or without it the images differ in size, or they need more than LARGEST bytes.
    """
    listing = list_folder(folder)
    shape = check_size(folder, listing, image_size)
    arrays = {}
    for part, samples in (("train", listing.train), ("test", listing.test)):
        arrays[f"x_{part}"] = np.empty((len(samples), *shape, 3), np.uint8)
        arrays[f"y_{part}"] = np.array([label for _, label in samples])
        name = f"{folder.name}/{part}"
        with progress_bar(True, iterable=samples, desc=name, unit="image") as bar:
            for row, (path, _) in zip(arrays[f"x_{part}"], bar, strict=True):
                row[:] = read_pixels(path, image_size, shape)
    return arrays


def read_pixels(path: str, image_size: int | None, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels (H, W, 3) of one image, or raise a ``ValueError`` for another shape."""
    image = open_image(path)
    pixels = np.asarray(image if image_size is None else square(image, image_size))
    if pixels.shape[:2] != shape:
        raise ValueError(
            f"{path} has shape {pixels.shape[:2]} as (H, W), the first image {shape}: "
            "give image_size=, to which all are scaled and cropped."
        )
    return pixels


def check_size(folder: Path, listing: Listing, image_size: int | None) -> tuple[int, int]:
    """Return (H, W) of the images, or raise a ``ValueError`` where memory cannot hold them."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size is {image_size} pixels; it must be positive, for example 64.")
    width, height = (image_size,) * 2 if image_size else open_image(listing.train[0][0]).size
    count = len(listing.train) + len(listing.test)
    if count * 3 * width * height > LARGEST:
        raise ValueError(
            f"{folder} has {count} images, {count * 3 * width * height / 2**30:.0f} GiB at "
            f"{width} x {height} pixels; {LARGEST / 2**30:.0f} are read into memory at most. Use a "
            "smaller image_size, or score with stream_batches, which holds a batch at a time."
        )
    return height, width
