"""The command line: ``python -m pai_lite prune`` prunes, trains, and prints a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pandas as pd
import torch

from pai_lite.data import DATA_NAMES, load_data
from pai_lite.methods import METHODS
from pai_lite.models import MODELS
from pai_lite.recipes import SCHEDULES, Recipe
from pai_lite.sweep import DENSE, sweep

EXAMPLE = """example:
  python -m pai_lite prune --data digits --model small-conv --method snip --sparsity 0.95
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m pai_lite", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    prune = commands.add_parser(
        "prune",
        help="prune a network before training, train it, and compare it with baselines",
        description="Prune a network at initialization, train it, and print its test accuracy "
        "beside baselines that start from the same initial weights.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_what(prune)
    add_how(prune)
    return parser


def add_what(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is pruned."""
    what = parser.add_argument_group("what to prune")
    what.add_argument(
        "--data", required=True, help=f"{', '.join(DATA_NAMES)}, or the path of an .npz file"
    )
    what.add_argument(
        "--model", required=True, help=f"{', '.join(MODELS)}, or a name of torchvision.models"
    )
    what.add_argument("--method", required=True, help=", ".join(METHODS))
    what.add_argument(
        "--sparsity", required=True, type=float, help="fraction of weights removed, in [0, 1)"
    )
    what.add_argument(
        "--baseline",
        action="append",
        choices=[DENSE, *METHODS],
        help="method to print beside it; may be repeated (default: random)",
    )
    what.add_argument(
        "--per-class", type=int, default=10, help="images of each class scored (default: 10)"
    )
    what.add_argument("--seed", type=int, default=0, help="of weights and data (default: 0)")


def add_how(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the network is trained."""
    default = Recipe()
    how = parser.add_argument_group("how to train")
    for name in ("epochs", "batch_size", "lr", "momentum", "weight_decay"):
        value = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        how.add_argument(option, type=type(value), default=value, help=f"default: {value}")
    how.add_argument("--schedule", choices=SCHEDULES, default=default.schedule)
    how.add_argument("--augment", action="store_true", help="shift and flip the images")
    cuda = "cuda" if torch.cuda.is_available() else "cpu"
    how.add_argument("--device", default=cuda, help=f"cpu or cuda (default here: {cuda})")


def run_prune(args: argparse.Namespace) -> pd.DataFrame:
    """Run the command and return the table that it prints."""
    recipe = Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        schedule=args.schedule,
        augment=args.augment,
    )
    data = load_data(args.data, device=args.device)
    methods = dict.fromkeys([args.method, *(args.baseline or ["random"])])
    rows = sweep(
        data,
        args.model,
        list(methods),
        [args.sparsity],
        seeds=[args.seed],
        recipe=recipe,
        per_class=args.per_class,
    )
    return rows[["method", "reached", "seed", "test_accuracy", "prune_seconds", "train_seconds"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 where the input is wrong."""
    args = build_parser().parse_args(arguments)
    try:
        table = run_prune(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = table.rename(columns={"reached": "sparsity"})
    formats = {
        "sparsity": "{:.2%}".format,
        "test_accuracy": "{:.2%}".format,
        "prune_seconds": "{:.2f}".format,
        "train_seconds": "{:.1f}".format,
    }
    print(table.to_string(index=False, formatters=formats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
