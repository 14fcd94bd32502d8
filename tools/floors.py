"""Run the package's tests with the oldest versions that pyproject.toml allows.

python -m tools.floors

It needs nothing but Python itself, the oldest that is allowed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The tests of the tools, the book and the notebooks need packages that the package does without.
_OTHER_TESTS = re.compile(r"^(?:from|import) (?:tools|playwright)\b", re.MULTILINE)


def main() -> int:
    """Make the environment anew, install into it, and run the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    try:
        check_python(project["requires-python"])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    folder = ROOT / "_build" / "floors"
    venv.create(folder, clear=True, symlinks=True, with_pip=True)
    versions = folder / "versions.txt"
    versions.write_text("\n".join(floors(project)) + "\n", encoding="utf8")
    python = [str(folder / "bin" / "python"), "-m"]
    install = [*python, "pip", "install", "-q", "--editable", ".[test]", "-c", str(versions)]
    subprocess.run(install, cwd=ROOT, check=True)
    tests = [*python, "pytest", "-n", "2", "--dist", "loadfile", *map(str, unit_tests())]
    return subprocess.run(tests, cwd=ROOT).returncode


def check_python(wanted: str) -> None:
    """Raise ValueError unless this is the oldest Python allowed: others lack the oldest wheels."""
    oldest = wanted.removeprefix(">=")
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running != oldest:
        raise ValueError(
            f"this is Python {running}, and the oldest that pyproject.toml allows is {oldest}: "
            f"run make floors PYTHON=python{oldest}"
        )


def floors(project: dict[str, Any]) -> list[str]:
    """The least version of every package that the package and its tests ask for, as `==`."""
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["pdf"] + extras["ray"] + extras["test"]
    return [it.replace(">=", "==") for it in wanted if ">=" in it]


def unit_tests() -> list[Path]:
    """The test files that need the package alone."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [path for path in files if not _OTHER_TESTS.search(path.read_text(encoding="utf8"))]


if __name__ == "__main__":
    sys.exit(main())
