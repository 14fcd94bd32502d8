"""Tasks on a real Ray cluster of this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import CLASSES, INPUT_SHAPE, make_data, make_network
from test_grid import fill, measured

import pai_lite as pai
from pai_lite.cluster import check_gpus, map_on_ray
from pai_lite.results import read_text

# Read when Ray is imported. With this token none in the home folder is looked for, or left there.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install ray")

ROOT = Path(__file__).parents[1]
CORES = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster as `ray start --head` makes it, on loopback; it ends with the tests."""
    # Paths of sockets may not be long, so pytest's folders are of no use here.
    folder, port = tempfile.mkdtemp(prefix="ray", dir="/tmp"), free_port()
    settings = {
        "node-ip-address": "127.0.0.1",
        "port": port,
        "num-cpus": CORES,
        "num-gpus": 0,
        "object-store-memory": 10**8,
        "temp-dir": folder,
        "include-dashboard": "false",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = Path(sys.executable).with_name("ray")
    head = subprocess.Popen(
        [command, "start", "--head", "--block", "--disable-usage-stats", *options],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in head.stdout:
        if "Ray runtime started" in line:
            break
    else:
        pytest.fail("ray start did not start a cluster")
    yield f"127.0.0.1:{port}"
    head.terminate()
    head.wait(timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def connection(address: str) -> Iterator[None]:
    """Stay connected, so that workers live on from test to test."""
    ray.init(address, logging_level="error")
    yield
    ray.shutdown()


def train(seed: int) -> pai.Run:
    recipe = pai.Recipe(epochs=2, batch_size=8, augment=True)
    data, model = make_data(INPUT_SHAPE, CLASSES), make_network("conv", seed)
    mask = pai.prune(model.float(), "snip", data.batch(per_class=2, seed=seed), sparsity=0.5)
    return pai.fit(model, data, recipe, mask=mask, seed=seed, progress=False)


def die_once(number: int, *, folder: Path) -> int:
    """End the worker without a word in the middle of a task, the first time that it is begun."""
    begun = folder / str(number)
    if number == 1 and not begun.exists():
        begun.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def complain(number: int) -> int:
    if number == 2:
        raise ValueError(f"{number} is wrong; use another.")
    return number


def threads(_task: int) -> int:
    """Return the number of threads, and leave another behind."""
    found = torch.get_num_threads()
    torch.set_num_threads(2)
    return found


def linger(number: int, *, folder: Path) -> None:
    """Take two minutes, and write down that they are over; the first task is done at once."""
    if number > 0:
        time.sleep(120)
        (folder / f"done{number}").touch()


def meet(number: int, *, folder: Path) -> bool:
    """Return whether two of these tasks ran at the same time."""
    (folder / f"here{number}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("here*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(list(folder.glob("here*"))) == 2


def test_an_address_where_no_cluster_is() -> None:
    with pytest.raises(ConnectionError, match=r"No Ray cluster answers at 127.0.0.1:\d+: .*start"):
        list(map_on_ray(threads, [0], address=f"127.0.0.1:{free_port()}"))


def test_an_address_is_connected_to_and_left_again(address: str) -> None:
    with pytest.raises(ValueError, match=r"0\.25, and the Ray cluster has 0 GPUs"):
        list(map_on_ray(threads, [0], address=address, gpus_per_task=0.25))
    assert not ray.is_initialized()
    check_gpus(available=1.0, needed=1.0)


def test_a_network_trained_on_ray_is_the_network_trained_here(connection: None) -> None:
    found = dict(map_on_ray(train, [0, 1]))
    assert sorted(found) == [0, 1]
    for seed, run in found.items():
        here = train(seed)
        # Not to the last bit: sums of floats may depend on where a process has its tensors.
        torch.testing.assert_close(run.model.state_dict(), here.model.state_dict())
        pd.testing.assert_frame_equal(run.history, here.history)


def test_what_a_task_raises_is_raised_here(connection: None) -> None:
    with pytest.raises(ValueError, match=r"^2 is wrong; use another.\nThis was number 1"):
        list(map_on_ray(complain, [1, 2, 3]))


def test_every_task_has_one_thread(connection: None) -> None:
    assert sorted(map_on_ray(threads, range(6))) == [(number, 1) for number in range(6)]


# The tests that end workers come last: a new one takes seconds to import PyTorch.
def test_a_task_whose_worker_is_killed_is_begun_again(connection: None, tmp_path: Path) -> None:
    function = partial(die_once, folder=tmp_path)
    found = dict(map_on_ray(function, range(4)))
    assert (tmp_path / "1").exists()
    assert found == {0: 0, 1: 1, 2: 4, 3: 9}


def test_a_task_that_always_kills_its_worker_is_given_up(connection: None) -> None:
    with pytest.raises(RuntimeError, match="Ray gave up on task 0"):
        list(map_on_ray(die, [7], retries=0))


def test_closing_the_iterator_cancels_what_is_not_done(connection: None, tmp_path: Path) -> None:
    results = map_on_ray(partial(linger, folder=tmp_path), range(4))
    assert next(results) == (0, None)
    results.close()
    # Two tasks meet where both cores are free; one that lingers on would keep one of them.
    assert dict(map_on_ray(partial(meet, folder=tmp_path), range(CORES))) == {0: True, 1: True}
    assert list(tmp_path.glob("done*")) == []


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    with pytest.raises(ImportError, match=r"pip install ray"):
        list(map_on_ray(threads, [0]))


def test_a_grid_on_ray_has_the_rows_of_a_local_one(connection: None, tmp_path: Path) -> None:
    for name, engine in {"local": None, "ray": map_on_ray}.items():
        (tmp_path / name).mkdir()
        fill(tmp_path / name, engine=engine)
    local, ray_rows = (
        measured(read_text(tmp_path / name / "results.csv")) for name in ("local", "ray")
    )
    assert len(local) == 10
    assert ray_rows.equals(local)
