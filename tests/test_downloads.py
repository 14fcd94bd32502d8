"""Downloads against a local server that serves well, stalls, drips, truncates, lies and fails."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torchvision import datasets

from pai_lite import downloads
from pai_lite.data import load_data
from pai_lite.downloads import ARCHIVES, Archive, DownloadError, default_root, fetch

BODY = bytes(range(256)) * 1200  # more than one chunk


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how the rest is served: /good/name, /lie/name, ..."""

    def do_GET(self):
        self.server.requests.append(self.path)
        how, name = self.path[1:].split("/", 1)
        if how in ("404", "500"):
            self.send_error(int(how))
            return
        body = self.server.files[name]
        self.send_response(200)
        if how != "endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may leave early, as it should
            getattr(self, how)(body)

    def good(self, body):
        self.wfile.write(body)

    def lie(self, body):
        self.wfile.write(bytes(len(body)))

    def truncate(self, body):
        self.wfile.write(body[: len(body) // 2])

    def endless(self, body):
        while not self.server.stopped.is_set():
            self.wfile.write(body)

    def stall(self, body):
        self.wfile.write(body[:1000])
        self.server.stopped.wait(20)

    def drip(self, body):
        """Never silent for long, and never done."""
        for i in range(len(body)):
            self.wfile.write(body[i : i + 1])
            if self.server.stopped.wait(0.05):
                return

    def steady(self, body):
        """About 20 kB/s: too slow while there is another mirror, good enough for the last."""
        for i in range(0, len(body), 2000):
            self.wfile.write(body[i : i + 2000])
            if self.server.stopped.wait(0.1):
                return

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.files, server.stopped = [], {"file.bin": BODY}, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()
    thread.join()


def archive(server, *ways, body=BODY, name="file.bin", path=None):
    urls = tuple(way if "://" in way else f"{server.url}/{way}/{name}" for way in ways)
    return Archive(path or f"raw/{name}", len(body), hashlib.sha256(body).hexdigest(), urls)


def files_below(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once(server, tmp_path):
    wanted = archive(server, "good")
    path = fetch(wanted, tmp_path)
    assert path == tmp_path / "raw" / "file.bin"
    assert path.read_bytes() == BODY
    assert files_below(tmp_path) == ["file.bin"]
    assert fetch(wanted, tmp_path) == path
    assert server.requests == ["/good/file.bin"]


BAD = {
    "404": "HTTP Error 404",
    "500": "HTTP Error 500",
    "lie": "its SHA-256 is not",
    "truncate": f"sent {len(BODY) // 2} bytes instead of {len(BODY)}",
    "endless": rf"sent \d+ bytes or more instead of {len(BODY)}",
    "stall": "timed out",
    "drip": r"slower than \d+ kB/s for \d s",
    "http://127.0.0.1:9/closed": "refused",
}


@pytest.mark.parametrize("way", BAD)
def test_the_next_mirror_is_used(server, tmp_path, way, caplog):
    path = fetch(archive(server, way, "good"), tmp_path, timeout=0.4)
    assert path.read_bytes() == BODY
    assert files_below(tmp_path) == ["file.bin"]
    assert server.requests[-1] == "/good/file.bin"
    assert re.search(BAD[way], caplog.text)


@pytest.mark.parametrize("way", BAD)
def test_a_failure_says_why_and_leaves_nothing(server, tmp_path, way):
    wanted = archive(server, way)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=BAD[way]) as caught:
        fetch(wanted, tmp_path, timeout=0.4)
    assert time.monotonic() - start < 4  # not the server's 20 seconds
    assert wanted.urls[0] in str(caught.value)
    assert files_below(tmp_path) == []


def test_the_message_names_each_mirror_and_the_remedy(server, tmp_path):
    wanted = archive(server, "404", "lie", "truncate")
    with pytest.raises(OSError, match=r"No mirror delivered file\.bin") as caught:
        fetch(wanted, tmp_path, timeout=0.4)
    lines = str(caught.value).splitlines()
    for line, url, why in zip(lines[1:], wanted.urls, ("404", "SHA-256", "sent"), strict=False):
        assert line.strip().startswith(url)
        assert why in line
    assert len(lines) == 5
    for part in (str(tmp_path / "raw" / "file.bin"), wanted.sha256, 'load_data("digits")'):
        assert part in lines[-1]


def test_mirrors_are_tried_in_order_and_no_more_than_needed(server, tmp_path):
    fetch(archive(server, "404", "500", "good", "lie"), tmp_path)
    assert server.requests == ["/404/file.bin", "/500/file.bin", "/good/file.bin"]


def test_a_slow_mirror_is_left_for_another_but_the_last_may_be_slow(server, tmp_path):
    body = BODY[:20_000]
    server.files["slow.bin"] = body
    wanted = archive(server, "steady", "steady", body=body, name="slow.bin")
    path = fetch(wanted, tmp_path, timeout=0.4)
    assert path.read_bytes() == body
    assert len(server.requests) == 2


@pytest.mark.parametrize("content", [b"", BODY[:-1], BODY + b"x", bytes(len(BODY))])
def test_a_corrupt_cached_file_is_fetched_again(server, tmp_path, content):
    wanted = archive(server, "good")
    path = tmp_path / "raw" / "file.bin"
    path.parent.mkdir()
    path.write_bytes(content)
    assert fetch(wanted, tmp_path).read_bytes() == BODY
    assert files_below(tmp_path) == ["file.bin"]


def test_a_file_put_there_by_hand_needs_no_network(tmp_path):
    wanted = archive(None, "http://127.0.0.1:9/closed")
    path = tmp_path / "raw" / "file.bin"
    path.parent.mkdir()
    path.write_bytes(BODY)
    assert fetch(wanted, tmp_path) == path


def test_several_at_once_do_not_harm_each_other(server, tmp_path):
    wanted = archive(server, "lie", "good")
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: fetch(wanted, tmp_path), range(8)))
    assert {path.read_bytes() for path in paths} == {BODY}
    assert files_below(tmp_path) == ["file.bin"]


def test_an_interrupt_leaves_nothing(server, tmp_path):
    wanted = archive(server, "stall")
    code = (  # a shell may have made its background jobs deaf to SIGINT
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pai_lite.downloads import *\n"
        f"fetch({wanted!r}, Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not files_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [name for name in files_below(tmp_path) if name.endswith(".part")]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert files_below(tmp_path) == []


def test_a_file_is_as_readable_as_any_other(server, tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    mode = fetch(archive(server, "good"), tmp_path).stat().st_mode
    assert mode == (tmp_path / "plain").stat().st_mode


def test_the_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("PAI_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("PAI_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "pai_lite"


def test_every_archive_has_a_hash_a_size_and_two_mirrors():
    assert set(ARCHIVES) == {"mnist", "fashion-mnist", "cifar10", "cifar100"}
    every = [one for archives in ARCHIVES.values() for one in archives]
    assert len({one.sha256 for one in every}) == len(every) == 10
    for one in every:
        assert re.fullmatch("[0-9a-f]{64}", one.sha256)
        assert one.size > 0
        assert len({url.split("/")[2] for url in one.urls}) == len(one.urls) >= 2
        assert all(url.endswith("/" + os.path.basename(one.path)) for url in one.urls)


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_the_archives_lie_where_torchvision_looks(name, kind):
    names = [resource[0] for resource in getattr(datasets, kind).resources]
    assert [one.path for one in ARCHIVES[name]] == [f"{kind}/raw/{file}" for file in names]


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_the_cifar_archive_is_the_one_torchvision_knows(name, kind):
    assert [one.path for one in ARCHIVES[name]] == [getattr(datasets, kind).filename]
    assert getattr(datasets, kind).url in ARCHIVES[name][0].urls


# End to end: tiny archives in the real formats.


def idx(array):
    """The format of MNIST's files: two zeros, the type (8: uint8), the dimensions, the bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def serve(server, monkeypatch, name, bodies, *ways):
    """Serve the bodies as the archives of that dataset, at the places of the real ones."""
    served = []
    for body, real in zip(bodies, ARCHIVES[name], strict=True):
        file = os.path.basename(real.path)
        server.files[file] = body
        served.append(archive(server, *ways, body=body, name=file, path=real.path))
    monkeypatch.setitem(downloads.ARCHIVES, name, tuple(served))


def tiny(shape, rng):
    return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_end_to_end(server, monkeypatch, tmp_path, name):
    rng = np.random.default_rng(0)
    x, y = tiny((40, 28, 28), rng), np.arange(40, dtype=np.uint8) % 10
    x_test, y_test = tiny((10, 28, 28), rng), np.arange(10, dtype=np.uint8)
    serve(server, monkeypatch, name, map(idx, (x, y, x_test, y_test)), "lie", "good")
    data = load_data(name, root=tmp_path, validation=0)
    assert (data.name, data.classes, data.input_shape) == (name, 10, (1, 28, 28))
    assert np.array_equal(data.train.images[:, 0].numpy(), x)
    assert np.array_equal(data.train.labels.numpy(), y)
    assert np.array_equal(data.test.images[:, 0].numpy(), x_test)
    assert np.array_equal(data.test.labels.numpy(), y_test)
    assert data.train.labels.dtype == torch.int64
    count = len(server.requests)
    monkeypatch.setenv("PAI_DATA", str(tmp_path))
    assert torch.equal(load_data(name).test.images, data.test.images)
    assert len(server.requests) == count == 8


def cifar_archive(monkeypatch, kind, parts, label_key):
    """A tar.gz of pickled batches, whose MD5 values are made known to torchvision."""
    meta = pickle.dumps({kind.meta["key"]: [str(i) for i in range(10)]})
    contents = {kind.meta["filename"]: meta}
    for name, images, labels in parts:
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        contents[name] = pickle.dumps({"data": flat, label_key: labels.tolist()})
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    *train, test = ([name, md5[name]] for name, _, _ in parts)
    monkeypatch.setattr(kind, "train_list", train)
    monkeypatch.setattr(kind, "test_list", [test])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5[kind.meta["filename"]]})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind", "files", "key"),
    [
        ("cifar10", datasets.CIFAR10, ("data_batch_1", "data_batch_2", "test_batch"), "labels"),
        ("cifar100", datasets.CIFAR100, ("train", "test"), "fine_labels"),
    ],
)
def test_cifar_end_to_end(server, monkeypatch, tmp_path, name, kind, files, key):
    rng = np.random.default_rng(0)
    parts = [(file, tiny((20, 32, 32, 3), rng), np.arange(20) % 10) for file in files]
    body = cifar_archive(monkeypatch, kind, parts, key)
    serve(server, monkeypatch, name, [body], "truncate", "good")
    data = load_data(name, root=tmp_path, validation=0)
    assert (data.name, data.classes, data.input_shape) == (name, 10, (3, 32, 32))
    train = np.concatenate([images for _, images, _ in parts[:-1]])
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), train)
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), parts[-1][1])
    assert np.array_equal(data.test.labels.numpy(), parts[-1][2])
    assert torch.equal(load_data(name, root=tmp_path).test.images, data.test.images)
    assert len(server.requests) == 2
    assert files_below(tmp_path) == [kind.filename]


def test_nothing_is_unpickled_that_was_not_verified(server, monkeypatch, tmp_path):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    kind = datasets.CIFAR10
    parts = [(f, np.zeros((2, 32, 32, 3), np.uint8), np.arange(2)) for f in ("a", "b")]
    good = cifar_archive(monkeypatch, kind, parts, "labels")
    serve(server, monkeypatch, "cifar10", [good], "good")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("a", "b", "batches.meta"):
            content = pickle.dumps(Evil())
            member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    server.files[kind.filename] = buffer.getvalue()
    root = tmp_path / "root"
    root.mkdir()
    (root / kind.filename).write_bytes(buffer.getvalue())
    with pytest.raises(DownloadError):
        load_data("cifar10", root=root)
    assert not marker.exists()
