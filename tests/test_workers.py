"""Worker processes: what comes back, what fails, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from joblib import cpu_count

from pai_lite.workers import map_unordered

ROOT = Path(__file__).parents[1]


def facts(x: int) -> tuple[int, int, int]:
    return x * x, os.getpid(), torch.get_num_threads()


def leave_pid(folder: Path, seconds: float) -> None:
    """Sleep; a text fails."""
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


def die_at(bad: int, x: int) -> int:
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


# What comes back


def test_every_task_is_yielded_once_with_the_result_of_one_thread():
    found = dict(map_unordered(facts, range(20), workers=2))
    assert {task: result[0] for task, result in found.items()} == {i: i * i for i in range(20)}
    processes = {result[1] for result in found.values()}
    assert 1 <= len(processes) <= 2
    assert os.getpid() not in processes
    assert {result[2] for result in found.values()} == {1}


@pytest.mark.parametrize(("workers", "tasks"), [(1, [2, 0, 1]), (2, [4]), (2, [])])
def test_one_worker_or_one_task_needs_no_other_process(workers, tasks):
    torch.set_num_threads(2)
    try:
        found = list(map_unordered(facts, tasks, workers=workers))
        assert torch.get_num_threads() == 2, "as before"
    finally:
        torch.set_num_threads(1)
    assert found == [(task, (task * task, os.getpid(), 1)) for task in tasks]


def test_a_task_that_is_done_is_yielded_before_one_that_is_not(tmp_path):
    found = map_unordered(partial(leave_pid, tmp_path), [600.0, 0.0], workers=2)
    assert next(found) == (0.0, None)
    found.close()
    assert eventually(lambda: not any(map(alive, pids(tmp_path)))), "closing ends the other"


def test_workers_are_by_default_as_many_as_there_are_cores():
    found = list(map_unordered(facts, range(8)))
    assert len({pid for _, (_, pid, _) in found}) <= cpu_count()


def test_functions_of_a_notebook_can_be_sent():
    assert sorted(map_unordered(lambda x: x + 1, [1, 2, 3], workers=2)) == [(1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused_at_the_call(workers):
    with pytest.raises(ValueError, match=f"workers is {workers}"):
        map_unordered(facts, [1, 2], workers=workers)


# What fails


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_task_has_its_number_and_ends_the_others(tmp_path, workers):
    tasks = [0.0, 0.0, "text", 600.0] if workers == 1 else [600.0, 0.0, "text"]
    found = map_unordered(partial(leave_pid, tmp_path), tasks, workers=workers)
    with pytest.raises(TypeError, match="str") as caught:
        list(found)
    assert "number 2" in caught.value.__notes__[-1]
    if workers == 2:
        assert eventually(lambda: not any(map(alive, pids(tmp_path))))


def test_a_killed_process_is_told():
    with pytest.raises(RuntimeError, match=r"(?s)memory.*SIGKILL"):
        list(map_unordered(partial(die_at, 3), range(6), workers=2))


def test_a_killed_program_takes_its_processes_along(tmp_path):
    script = f"""
        import sys
        from functools import partial
        from pathlib import Path
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
        from test_workers import leave_pid
        from pai_lite.workers import map_unordered
        list(map_unordered(partial(leave_pid, Path({str(tmp_path)!r})), [600.0] * 2, workers=2))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    assert eventually(lambda: len(pids(tmp_path)) == 2, 120)
    process.kill()
    process.wait()
    assert eventually(lambda: not any(map(alive, pids(tmp_path))))
