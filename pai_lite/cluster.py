"""Tasks on a Ray cluster: the same function, the same results, more machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from pai_lite.workers import numbered, one_thread

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_on_ray(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    gpus_per_task: float = 0.0,
    address: str | None = None,
    retries: int = 3,
) -> Generator[tuple[Task, Result], None, None]:
    """Yield (task, function(task)) for every task, in the order in which Ray finishes them.

    A task runs on one core with one thread, as in :func:`map_unordered`, so that its result is
    the same. Where a task fails its error is raised, with a note of its number, and the others are
    cancelled, as they are when the generator is closed.

    Args:
        function: can be pickled; it is sent once, not with every task. On other machines
            the same version of this package has to be installed.
        gpus_per_task: the share of a GPU that a task takes, for example 0.25 for four at a time.
        address: of the cluster, as "10.0.0.1:6379"; "local" starts one on this machine. By
            default it is that of the environment variable RAY_ADDRESS, else a cluster that runs
            on this machine, else a local one. Where the cluster asks for a token, set
            RAY_AUTH_MODE=token, as for every program that connects to it.
        retries: how often a task is begun again whose worker was lost.

    Raises:
        ImportError: Ray is not installed.
        ValueError: the cluster has fewer GPUs than one task needs.
        ConnectionError: there is no cluster at the address.
        RuntimeError: the worker of a task was lost more often than it is retried.
        Exception: what the function raises.
    """
    with connected(address) as cluster:
        check_gpus(cluster.cluster_resources().get("GPU", 0.0), gpus_per_task)
        remote = cluster.remote(run_alone).options(
            num_cpus=1, num_gpus=gpus_per_task, max_retries=retries
        )
        sent = cluster.put(function)
        pending = {remote.remote(sent, task): (i, task) for i, task in enumerate(tasks)}
        try:
            while pending:
                (done,), _ = cluster.wait(list(pending), num_returns=1)
                number, task = pending.pop(done)
                with numbered(number):
                    result = fetch(cluster, done, number)
                yield task, result
        finally:
            for reference in pending:
                cluster.cancel(reference, force=True)


@contextmanager
def connected(address: str | None) -> Iterator[ModuleType]:
    """Give the ray module, connected; a connection that was there before stays.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    # Set before Ray is imported: a local cluster reports nothing to its makers, and a task that
    # takes no GPU is not told that there is none.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError("Ray is not installed; install it with: pip install ray.") from error
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address)
    ray.init(address, include_dashboard=False, logging_level="warning")
    try:
        yield ray
    finally:
        ray.shutdown()


def check_address(address: str | None) -> None:
    """Raise a ``ConnectionError`` where nothing answers; Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "local", "auto", or none
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"No Ray cluster answers at {address}: {error}. Start one with: ray start --head"
        ) from error


def check_gpus(available: float, needed: float) -> None:
    """Raise a ``ValueError`` where Ray would wait for a GPU for ever."""
    if needed > available:
        raise ValueError(
            f"gpus_per_task is {needed}, and the Ray cluster has {available:g} GPUs; use "
            "gpus_per_task=0 to run on its CPUs, or start it with more."
        )


def run_alone(function: Callable[[Task], Result], task: Task) -> Result:
    """Run the task in this process with one thread."""
    with one_thread():
        return function(task)


def fetch(cluster: ModuleType, reference: Any, number: int) -> Any:
    """Return the result of a task that is done, or raise what it raised.

    Raises:
        RuntimeError: Ray gave the task up.
    """
    try:
        return cluster.get(reference)
    except cluster.exceptions.RayTaskError as error:
        raise error.cause from error
    except cluster.exceptions.RayError as error:
        raise RuntimeError(
            f"Ray gave up on task {number}, whose worker was lost: {error} "
            "If it ran out of memory, let fewer tasks run at a time on a machine."
        ) from error
