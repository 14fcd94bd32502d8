"""Print the table of costs, and write it as CSV where asked.

    python -m benchmarks --out book/results/scoring_costs.csv

Times are ratios within one run on one thread; the calls that are compared take turns, and medians
over the rounds are shown. u is one forward and backward pass of the same model in train mode on
the same batch; memory is counted in the peak of such a pass. The targets are for one CPU thread.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pandas as pd
import torch

import pai_lite as pai
from benchmarks.rows import FULL, QUICK, Row, all_rows
from pai_lite.files import whole_file

LINE = "{:62s} {:20s} {:>15s} {:>8s}  {}"


def main() -> None:
    """Run the command."""
    options = parser().parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pai.LayerCollapseWarning)  # noise empties layers
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)  # fail now, not after minutes
    rows = show(all_rows(QUICK if options.quick else FULL, options.device))
    if options.out:
        with whole_file(options.out) as path:
            table(rows, options.device).to_csv(path, index=False)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=summary())
    made.add_argument("--quick", action="store_true", help="one round on a tiny network")
    made.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    made.add_argument("--out", type=Path, help="also write the table to this CSV file")
    return made


def summary() -> str:
    """Return the first line of this file."""
    return (__doc__ or "").partition("\n")[0]


def show(rows: Iterable[Row]) -> list[Row]:
    """Print each row as soon as it is measured, and how many targets are met."""
    print(LINE.format("what", "network", "measured", "at most", "met"))
    shown = []
    for row in rows:
        at_most = "" if row.at_most is None else f"{row.at_most:.3g}"
        measured = f"{round(row.measured, 3) + 0.0:.3f} {row.unit:6s}"  # + 0.0 makes -0 a 0
        print(LINE.format(row.what, row.network, measured, at_most, row.met), flush=True)
        shown.append(row)
    targets = [row for row in shown if row.at_most is not None]
    print(f"{sum(row.met == 'yes' for row in targets)} of {len(targets)} targets met")
    return shown


def table(rows: list[Row], device: str) -> pd.DataFrame:
    """Return the rows with what they were measured on."""
    run = {
        "date": date.today().isoformat(),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    return pd.DataFrame([{**asdict(row), "met": row.met, **run} for row in rows])


def hardware(device: str) -> str:
    """Return the name of the GPU or of the processor."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


if __name__ == "__main__":
    main()
