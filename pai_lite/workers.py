"""Worker processes: one function over many tasks, one single-threaded process a core."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")

SENDING = "What is sent must be defined in a module that a new process can import; or use workers=1"
GUARD = "A script must call it below `if __name__ == '__main__':`, as new processes import it"
MEMORY = "The system may have run out of memory: use fewer workers"


def map_unordered(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Call a function on every task, and yield each task with its result when it is done.

    A process runs on one thread, so that no result depends on how many there are. A single
    process or task needs none but this one. The function is sent to each process once: put what
    all tasks share into it with ``functools.partial``; its tensors are then shared through a file
    in memory. A task is taken from the iterable when a process is free. Where a task fails, the
    others are ended and its error is raised, with a note of its number. Closing the iterator, or
    an interrupt, ends all processes; they end with this one, too, however that ends.

    Args:
        workers: processes; by default one for each core that this process may use.

    Raises:
        ValueError: ``workers`` is below 1, or the function or a task cannot be pickled.
        RuntimeError: a process was killed or did not start.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, which does nothing: use 1 or more.")
    remaining = iter(tasks)
    first = list(islice(remaining, workers or usable_cores()))
    if len(first) < 2:
        return in_this_process(function, chain(first, remaining))
    return in_processes(function, first, remaining)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def in_this_process(
    function: Callable[[Task], Result], tasks: Iterable[Task]
) -> Iterator[tuple[Task, Result]]:
    """Yield the tasks in their order, each with its result."""
    for number, task in enumerate(tasks):
        with one_thread(), numbered(number):
            result = function(task)
        yield task, result


def in_processes(
    function: Callable[[Task], Result], first: list[Task], remaining: Iterator[Task]
) -> Iterator[tuple[Task, Result]]:
    """Yield the tasks as they are done; as many processes as first tasks."""
    tasks = enumerate(chain(first, remaining))
    running: dict[Connection, tuple[int, Task]] = {}
    with started(function, len(first)) as processes:

        def give_next(connection: Connection) -> None:
            for number, task in islice(tasks, 1):
                send(connection, pickled(task, f"Task {number}"))
                running[connection] = number, task

        for connection in processes:
            give_next(connection)
        while running:
            for connection in wait(list(running)):
                number, task = running.pop(connection)
                with numbered(number):
                    result = receive(connection, processes[connection], MEMORY)
                give_next(connection)  # before the caller works on the result
                yield task, result


@contextmanager
def started(function: Callable[[Any], Any], count: int) -> Iterator[dict[Connection, BaseProcess]]:
    """Start processes that wait for tasks, and give them by connection; end them at the end."""
    processes: dict[Connection, BaseProcess] = {}
    try:
        # With a file, as the shared memory of many containers is smaller than a data set.
        with TemporaryDirectory(prefix="pai_lite-", ignore_cleanup_errors=True) as folder:
            path = save(function, Path(folder))
            for _ in range(count):
                connection, process = start(path)
                processes[connection] = process
            for connection, process in processes.items():
                receive(connection, process, GUARD)
        yield processes
    finally:
        for process in processes.values():
            process.kill()
        for connection, process in processes.items():
            process.join()
            connection.close()


def save(function: Callable[[Any], Any], folder: Path) -> Path:
    """Write the function, with what it holds, to a new file in the folder."""
    with clear_when_not_picklable("The function"):
        torch.save(function, folder / "function")
    return folder / "function"


def start(path: Path) -> tuple[Connection, BaseProcess]:
    """Start one process, and return the connection to it."""
    context = get_context("spawn")  # a fork of a process with threads may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()  # else its end would not be seen here
    return ours, process


def send(connection: Connection, message: bytes) -> None:
    """Send a task; that the process is gone is found when its result is received."""
    with suppress(OSError):
        connection.send_bytes(message)


def receive(connection: Connection, process: BaseProcess, remedy: str) -> Any:
    """Return the next result of a process, or raise the error that it met."""
    try:
        message = connection.recv_bytes()
    except (EOFError, OSError) as error:
        process.join()
        ending = f"A worker process ended with exit code {process.exitcode}"
        raise RuntimeError(f"{ending} (-9: it was killed). {remedy}.") from error
    result, error = pickle.loads(message)
    if error is not None:
        raise error
    return result


def serve(path: Path, connection: Connection) -> None:
    """Load the function, say so, and call it on one task after another: the worker's side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it goes to all; the parent ends the others
    Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        function = torch.load(path, mmap=True, weights_only=False)
    except Exception as error:
        connection.send_bytes(failure(error))
        return
    connection.send_bytes(pickle.dumps((None, None)))
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            connection.send_bytes(call(function, connection.recv_bytes()))


def end_with_parent() -> None:
    """Wait for the end of the parent, and end this process, even within a task."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def call(function: Callable[[Any], Any], task: bytes) -> bytes:
    """Return the pickled pair of a result and None, or of None and an error."""
    try:
        # Plain pickling copies tensors; torch's own would keep a file open for each.
        return pickle.dumps((function(pickle.loads(task)), None))
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> bytes:
    """Return the pickled pair of None and the error, which notes where it was raised.

    An error that cannot be pickled becomes a ``RuntimeError``.
    """
    where = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In a worker process:\n{where}")
    return pickle.dumps((None, error))


def pickled(task: Any, name: str) -> bytes:
    """Return a task as bytes."""
    with clear_when_not_picklable(name):
        return pickle.dumps(task)


@contextmanager
def clear_when_not_picklable(name: str) -> Iterator[None]:
    """Turn the errors of pickling into a ``ValueError`` with the remedy."""
    try:
        yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"{name} cannot be sent to a process: {error}. {SENDING}.") from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def numbered(number: int) -> Iterator[None]:
    """Note the number of the task on its error."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was task {number}, counted from 0.")
        raise
