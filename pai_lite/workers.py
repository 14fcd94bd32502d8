"""Worker processes: one function over many tasks, one single-threaded process a core."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain, islice
from threading import Thread
from typing import TypeVar

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int | None = None
) -> Generator[tuple[Task, Result], None, None]:
    """Call a function on every task, and yield each task with its result when it is done.

    A task runs on one thread, so that no result depends on how many processes there are. A single
    process or task needs none but this one. Where a task fails, the others are ended and its error
    is raised, with a note of its number; closing the generator ends them, too. The processes are
    joblib's: they take functions of a notebook, and end with this process, however that ends.

    Args:
        workers: processes; by default one for each core that this process may use.

    Raises:
        ValueError: ``workers`` is below 1.
        RuntimeError: a process was killed, for example for lack of memory.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}, which trains nothing: use 1 or more.")
    workers, remaining = workers or cpu_count(), iter(tasks)
    first = list(islice(remaining, 2))
    numbered_tasks = enumerate(chain(first, remaining))
    if workers == 1 or len(first) < 2:
        return (run_alone(function, number, task) for number, task in numbered_tasks)
    with parallel_config(backend="loky", inner_max_num_threads=1):
        pool = Parallel(
            n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
        )
        call = delayed(run_in_worker)
        return pool(call(os.getpid(), function, number, task) for number, task in numbered_tasks)


def run_in_worker(
    parent: int, function: Callable[[Task], Result], number: int, task: Task
) -> tuple[Task, Result]:
    """Return the task and its result, in a process that ends with its parent."""
    end_with(parent)
    return run_alone(function, number, task)


@cache
def end_with(parent: int) -> None:
    """End this process, even within a task, when its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def run_alone(function: Callable[[Task], Result], number: int, task: Task) -> tuple[Task, Result]:
    """Return the task and its result, computed on one thread."""
    with one_thread(), numbered(number):
        return task, function(task)


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
        error.add_note(f"This was number {number}, counted from 0.")
        raise
