"""The program that runs a student's code: a Jupyter kernel that is kept in its own folder.

python box.py SETTINGS

It imports nothing of the package. On Linux, Landlock keeps it from writing outside its folder, from
reading more than Python, the system's libraries and the package, from opening connections, and
from sending signals to other programs, as far as the kernel of the machine knows how.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import sys
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
NO_NEW_PRIVILEGES = 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
USE_DEVICE = 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | USE_DEVICE
CONNECT_TCP = 1 << 1
SIGNALS = 1 << 1
#: The rights over files that each version of Landlock knows, from version 1.
FILE_RIGHTS = (1 << 13, 1 << 14, 1 << 15, 1 << 15, 1 << 16)
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/sys", "/dev", "/opt")
DEVICES = ("/dev/null", "/dev/zero", *glob.glob("/dev/nvidia*"))


class Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr: what is forbidden unless a rule allows it."""

    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr: what is allowed in a folder."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """Return the version of Landlock that this machine has, or 0."""
    if sys.platform != "linux":
        return 0
    return max(0, ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, 1))


def confine(folder: str, readable: Iterable[str], listable: Iterable[str]) -> None:
    """Let this process write in the folder alone, for good; do nothing without Landlock.

    Raises:
        OSError: Landlock is there and refuses.
    """
    version = landlock_version()
    if version == 0:
        return
    everything = FILE_RIGHTS[min(version, len(FILE_RIGHTS)) - 1] - 1
    rules = Ruleset(everything)
    rules.network = CONNECT_TCP if version >= 4 else 0
    rules.scoped = SIGNALS if version >= 6 else 0
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(CREATE_RULESET, ctypes.byref(rules), size, 0)
    _allow(ruleset, [folder, *DEVICES], everything)
    _allow(ruleset, [*SYSTEM, *readable], EXECUTE | READ_FILE | READ_DIR)
    _allow(ruleset, listable, READ_DIR)
    if ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError("prctl refused to give up new privileges")
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def limit_memory_and_files(memory: int, file_size: int) -> None:
    """Limit the bytes of memory of this process, and the bytes of each file that it writes."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    for kind, limit in ((resource.RLIMIT_FSIZE, file_size), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (limit, limit))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in filter(os.path.exists, paths):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = rights if os.path.isdir(path) else rights & OF_FILES
        rule = PathBeneath(allowed, opened)
        _call(ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
        os.close(opened)


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused; see `dmesg`")
    return result


def main() -> None:
    """Confine this process, then become the kernel that the settings describe."""
    with open(sys.argv[1], encoding="utf8") as file:
        settings = json.load(file)
    sys.path[0] = ""  # not the folder of this file
    from ipykernel.kernelapp import IPKernelApp

    limit_memory_and_files(settings["memory"], settings["file_size"])
    confine(settings["folder"], settings["readable"], settings["listable"])
    IPKernelApp.launch_instance(argv=["-f", settings["connection"], "--log-level=50"])


if __name__ == "__main__":
    main()
