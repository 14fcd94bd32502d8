"""The README: its code runs as it stands, and it names every method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pai_lite as pai

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf8")


@pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
def test_the_code_runs_block_after_block(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(block, scope)
    printed = capsys.readouterr().out
    accuracy = float(re.search(r"sparsity 95.00%\) ([\d.]+)", printed)[1])
    assert accuracy > 0.5
    assert re.search(r"ratio +[\d.]+ +[\d.]+ +[\d.]+", printed)


def test_every_method_is_named_and_every_name_is_a_method() -> None:
    table = README.split("| family | names |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([\w-]+)`", table)) == set(pai.METHODS)
