"""The command line: ``prune`` a network, fill a ``grid``, ``report`` on it, ``grade`` a course."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import matplotlib.pyplot as plt
import torch

from pai_lite.cells import DENSE
from pai_lite.cluster import map_on_ray
from pai_lite.course.commands import add_grade, add_leaderboard
from pai_lite.data import DATA_NAMES, load_data
from pai_lite.distributed import process_group
from pai_lite.grid import read_grid, run_grid
from pai_lite.methods import METHODS
from pai_lite.models import MODELS
from pai_lite.paper_recipes import RECIPES, find_recipe
from pai_lite.plots import plot_accuracy
from pai_lite.precision import PRECISIONS
from pai_lite.recipes import SCHEDULES, Recipe
from pai_lite.report import compare_pairs, summarize
from pai_lite.results import cells_in, read_results
from pai_lite.sweep import sweep

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ENGINES = ("local", "ray")
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
    prune.set_defaults(run=run_prune)
    add_grid(commands)
    add_report(commands)
    add_grade(commands)
    add_leaderboard(commands)
    return parser


def add_what(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is pruned."""
    what = parser.add_argument_group("what to prune")
    what.add_argument(
        "--data", required=True, help=f"{', '.join(DATA_NAMES)}, an .npz file, or a folder"
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
    how.add_argument("--recipe", help=f"start from one of {', '.join(RECIPES)}")
    for name in ("epochs", "batch_size", "lr", "momentum", "weight_decay"):
        value = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        how.add_argument(option, type=type(value), help=f"default: {value}, or the recipe's")
    how.add_argument("--schedule", choices=SCHEDULES)
    how.add_argument("--augment", action="store_true", default=None, help="shift and flip images")
    how.add_argument("--device", default=DEVICE, help=f"cpu or cuda (default here: {DEVICE})")


def add_grid(commands: argparse._SubParsersAction) -> None:
    """Add the command that fills a results file."""
    grid = commands.add_parser(
        "grid",
        help="prune and train every network of a grid, resumably",
        description="Add a row to a CSV file for every network of a grid. What has a row is "
        "skipped: run the command again after an interruption.",
    )
    grid.add_argument("file", help="TOML file: data, model, methods, sparsities, seeds, recipe")
    grid.add_argument("--out", required=True, help="CSV file of the results")
    grid.add_argument("--workers", type=int, help="processes on a CPU (default: one a core)")
    grid.add_argument("--limit", type=int, help="train at most so many networks")
    grid.add_argument(
        "--engine", choices=ENGINES, default="local", help="where tasks run (default: local)"
    )
    grid.add_argument(
        "--gpus-per-task", type=float, default=0.0, help="share of a GPU that a task of Ray takes"
    )
    grid.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the training; auto is mixed where the GPU is fast at it (default: float32)",
    )
    grid.add_argument("--device", default=DEVICE, help=f"cpu or cuda (default here: {DEVICE})")
    grid.set_defaults(run=run_grid_command)


def add_report(commands: argparse._SubParsersAction) -> None:
    """Add the command that summarizes a results file."""
    report = commands.add_parser(
        "report",
        help="print means, intervals and paired differences of results",
        description="Print mean, standard deviation and 95%% bootstrap interval over seeds.",
    )
    report.add_argument("file", help="CSV file that grid has written")
    report.add_argument("--against", help="also print differences from this method, by seed")
    report.add_argument("--figure", help="draw accuracy against sparsity into this file")
    report.set_defaults(run=run_report)


def run_grid_command(args: argparse.Namespace) -> None:
    """Fill the results file, and say how many rows it has."""
    grid = read_grid(args.file)
    ray = partial(map_on_ray, gpus_per_task=args.gpus_per_task)
    options = {"engine": ray if args.engine == "ray" else None}
    options |= {"device": args.device, "workers": args.workers, "limit": args.limit}
    options |= {"precision": args.precision}
    rows = run_grid(grid, args.out, **options)
    done = len(cells_in(rows) & set(grid.cells))
    print(f"{args.out} has {done} of the grid's {len(grid.cells)} networks.")


def run_report(args: argparse.Namespace) -> None:
    """Print the tables, and draw the figure where one is asked for."""
    frame = read_results(args.file)
    percent = dict.fromkeys(("mean", "std", "low", "high"), "{:.2%}".format)
    formats = {"sparsity": "{:.2%}".format, **percent}
    print(summarize(frame).to_string(index=False, formatters=formats, na_rep=""))
    if args.against is not None:
        print(f"\nabove {args.against}, in pairs of one seed")
        pairs = compare_pairs(frame, args.against)
        print(pairs.to_string(index=False, formatters=formats, na_rep=""))
    if args.figure is not None:
        with plt.style.context("pai_lite.book"):
            figure = plot_accuracy(frame[frame["ablation"] == "none"]).figure
            figure.savefig(args.figure)
        plt.close(figure)
    bad = frame[frame["note"] != ""]
    if len(bad):
        print(f"\n{len(bad)} networks failed or diverged; see the column note.")


def run_prune(args: argparse.Namespace) -> None:
    """Prune and train the method and its baselines, and print a row for each."""
    given = {f.name: getattr(args, f.name, None) for f in fields(Recipe)}
    start = find_recipe(args.recipe) if args.recipe else Recipe()
    recipe = replace(start, **{name: value for name, value in given.items() if value is not None})
    with process_group(args.device):
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
        columns = ["method", "reached", "seed", "test_accuracy", "prune_seconds", "train_seconds"]
        formats = {
            "sparsity": "{:.2%}".format,
            "test_accuracy": "{:.2%}".format,
            "prune_seconds": "{:.2f}".format,
            "train_seconds": "{:.1f}".format,
        }
        table = rows[columns].rename(columns={"reached": "sparsity"})
        print(table.to_string(index=False, formatters=formats))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 where the input is wrong."""
    args = build_parser().parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
