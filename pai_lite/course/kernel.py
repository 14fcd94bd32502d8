"""Running code that is not trusted: a process, a folder and time limits of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any, Literal

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

import pai_lite
from pai_lite.downloads import default_root

BOX = Path(__file__).with_name("box.py")
MEMORY = 12 * 2**30
FILE_SIZE = 2**30
START_SECONDS = 120.0
#: How long an interrupted cell may take to stop before its process is killed.
GRACE_SECONDS = 3.0
#: More than this is not kept of what a cell prints.
TEXT_LIMIT = 100_000
PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")

Status = Literal["ok", "error", "timeout", "died"]


@dataclass(frozen=True)
class Outcome:
    """What came of running some code.

    Attributes:
        status: "ok"; "error", an exception; "timeout", it was interrupted; "died", its process
            has ended or was killed.
        text: what it printed, cut.
        error: name and message of the exception, cut.
    """

    status: Status
    text: str = ""
    error: str = ""


class _Manager(KernelManager):
    """Starts the box in the place of an ordinary kernel."""

    settings: Path

    @property
    def kernel_spec(self) -> KernelSpec:
        """The command that starts the kernel."""
        command = [sys.executable, str(BOX), str(self.settings)]
        return KernelSpec(argv=command, display_name="box", language="python")


class Kernel:
    """A kernel in a new folder, which is its working folder and its home; a context manager.

    Where the machine has Landlock, the code cannot write outside the folder; see ``box``.

    Attributes:
        folder: where the code runs; it is deleted at the end.
    """

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="pai-box-")).resolve()
        self.folder = self._root / "work"
        (self.folder / "tmp").mkdir(parents=True)

        connection = self._root / "connection.json"
        self._manager = _Manager(connection_file=str(connection))
        self._manager.settings = self._root / "settings.json"
        settings = json.dumps(self._settings(connection))
        self._manager.settings.write_text(settings, encoding="utf8")
        self._client: BlockingKernelClient = self._manager.blocking_client()

    def __enter__(self) -> Kernel:
        try:
            self._manager.start_kernel(cwd=str(self.folder), env=self._environment())
            self._client.load_connection_info(self._manager.get_connection_info())
            self._client.start_channels()
            self._client.wait_for_ready(timeout=START_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        shutil.rmtree(self._root, ignore_errors=True)

    def run(self, code: str, seconds: float) -> Outcome:
        """Run code for at most so long; after "died" the kernel is of no more use."""
        try:
            return self._run(code, seconds)
        except Exception as error:  # the code can forge messages: whatever they do, others go on
            self._manager.shutdown_kernel(now=True)
            return Outcome("died", error=f"its process sent what cannot be read: {error}"[:500])

    def _run(self, code: str, seconds: float) -> Outcome:
        request = self._client.execute(code, store_history=False, allow_stdin=False)
        deadline, late = time.monotonic() + seconds, False
        text, size, error = [], 0, ""
        while True:
            message = self._next_message(request)
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout" and size < TEXT_LIMIT:
                text.append(content["text"])
                size += len(content["text"])
            elif kind == "error":
                error = f"{content['ename']}: {content['evalue']}"[:500]
            elif kind == "status" and content["execution_state"] == "idle":
                status = "timeout" if late else "error" if error else "ok"
                return Outcome(status, "".join(text)[:TEXT_LIMIT], error)
            elif kind == "none" and not self._manager.is_alive():
                return Outcome("died", error="its process ended")
            if time.monotonic() > deadline:
                if late:
                    self._manager.shutdown_kernel(now=True)
                    return Outcome("died", error=f"it was stopped after {seconds:.0f} seconds")
                self._manager.interrupt_kernel()
                deadline, late = time.monotonic() + GRACE_SECONDS, True

    def _next_message(self, request: str) -> dict[str, Any]:
        """Return the next message about a request, or one of the type "none" after a moment."""
        nothing = {"msg_type": "none", "content": {}}
        try:
            message = self._client.get_iopub_msg(timeout=0.3)
        except Empty:
            return nothing
        return message if message["parent_header"].get("msg_id") == request else nothing

    def _settings(self, connection: Path) -> dict[str, Any]:
        package = Path(pai_lite.__file__).resolve().parent
        python = {sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.realpath(sys.executable)}
        results = package.parent / "book" / "results"
        readable = [*python, package, results, default_root(), self._root]
        return {
            "connection": str(connection),
            "folder": str(self.folder),
            "readable": [str(path) for path in readable],
            # Python lists the folder in which it looks for a package.
            "listable": [str(package.parent)],
            "memory": MEMORY,
            "file_size": FILE_SIZE,
        }

    def _environment(self) -> dict[str, str]:
        """The variables of the process: nothing secret is among them."""
        folder = str(self.folder)
        names = ("HOME", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "JUPYTER_CONFIG_DIR")
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = dict.fromkeys(names, folder) | {"TMPDIR": f"{folder}/tmp"}
        settings = {
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        return passed | own | settings | {"PAI_DATA": str(default_root())}
