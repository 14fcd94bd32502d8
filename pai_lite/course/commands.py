"""The commands for a course: ``grade`` and ``leaderboard``."""

from __future__ import annotations

import argparse

LEADERBOARD = """\
Evaluate criteria that students have written, and render a page.

A submission is a file NAME.py with one function:

  def criterion(model, batch):
      ...
      return {name: scores}

batch is one pair (inputs, targets). The mapping has, for each prunable weight, its name and a
tensor of scores of its shape; larger means keep. The file may import torch, numpy and pai_lite,
and gets no other file. It runs in a confined process, once for each data set and seed, on the CPU.
Masks are chosen, and networks trained and tested, outside of that process, which never gets
validation or test images.

Writes leaderboard.csv, a row for each network, and leaderboard.html: criteria ranked by test
accuracy at the highest sparsity, with intervals over seeds; the changes when masks are shuffled
within layers and when weights are drawn again; seconds, and a note where a criterion failed.
What was evaluated is kept in DIR and not evaluated again while file and settings stay.

Students know neither the seeds nor, with the digits, which images are tested; but the digits come
with scikit-learn. An .npz file of your own hides its images as well. Keep DIR/seed_base.txt and
DIR/kept to yourself.
"""


def add_grade(commands: argparse._SubParsersAction) -> None:
    """Add the command that grades submissions."""
    grade = commands.add_parser(
        "grade",
        help="grade a folder of submitted notebooks",
        description="Grade notebooks with the hidden tests that `make assignments` has made. Each "
        "runs in a process and a folder of its own. Writes scores.csv, a page of feedback for each "
        "submission, and written.csv, in which you enter the points of written answers; run the "
        "same again to add them up.",
    )
    grade.add_argument("submissions", help="folder of .ipynb files, or one of them")
    grade.add_argument("--tests", required=True, help="autograder.zip of the assignment")
    where = grade.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", help="folder of the scores and pages")
    where.add_argument("--gradescope", metavar="FILE", help="write Gradescope's results.json alone")
    grade.add_argument(
        "--cell-seconds", type=float, default=60, help="limit of a cell or a test (default: 60)"
    )
    grade.add_argument(
        "--minutes", type=float, default=15, help="limit of a submission (default: 15)"
    )
    grade.add_argument("--workers", type=int, default=1, help="graded at once (default: 1)")
    grade.set_defaults(run=run_grade)


def run_grade(args: argparse.Namespace) -> None:
    """Grade the submissions, and say where the scores are."""
    # Only here: they need Jupyter, which the rest of the package does without.
    try:
        from pai_lite.course.grade import Limits
        from pai_lite.course.gradescope import write_gradescope_results
        from pai_lite.course.submissions import grade_submissions
    except ImportError as error:
        raise ImportError(f"Grading needs {error.name}: pip install jupyterlab") from error
    limits = Limits(cell=args.cell_seconds, submission=60 * args.minutes)
    if args.gradescope:
        write_gradescope_results(args.submissions, args.tests, args.gradescope, limits=limits)
        return
    scores = grade_submissions(
        args.submissions, args.tests, args.out, limits=limits, workers=args.workers
    )
    print(scores.drop(columns=["note"]).to_string(index=False, na_rep=""))
    print(f"{args.out} has scores.csv, a page for each in feedback, and written.csv to fill in.")


def add_leaderboard(commands: argparse._SubParsersAction) -> None:
    """Add the command that evaluates students' criteria."""
    board = commands.add_parser(
        "leaderboard",
        help="evaluate students' pruning criteria, and rank them on a page",
        description=LEADERBOARD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    board.add_argument("submissions", help="folder of files NAME.py, or one of them")
    board.add_argument("--out", required=True, metavar="DIR", help="folder of the table and page")
    board.add_argument(
        "--data", action="append", help="name or .npz file; may be repeated (default: digits)"
    )
    board.add_argument("--model", default="small-conv", help="network (default: small-conv)")
    board.add_argument(
        "--sparsity", type=float, action="append", help="may be repeated (default: 0.9 and 0.98)"
    )
    board.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    board.add_argument(
        "--seed-base",
        type=int,
        help="the first seed, which you keep to yourself (default: drawn once and kept in DIR)",
    )
    board.add_argument("--epochs", type=int, default=12, help="of a training (default: 12)")
    board.add_argument(
        "--seconds", type=float, default=60, help="limit of a call of a criterion (default: 60)"
    )
    board.add_argument("--workers", type=int, help="processes on a CPU (default: one a core)")
    board.add_argument("--device", default="cpu", help="cpu or cuda, to train on (default: cpu)")
    board.set_defaults(run=run_leaderboard_command)


def run_leaderboard_command(args: argparse.Namespace) -> None:
    """Evaluate the criteria, and say where the page is."""
    try:
        from pai_lite.course.leaderboard import run_leaderboard
        from pai_lite.course.trials import Settings
    except ImportError as error:
        raise ImportError(f"The leaderboard needs {error.name}: pip install jupyterlab") from error
    settings = Settings(
        data=tuple(args.data or ("digits",)),
        model=args.model,
        sparsities=tuple(args.sparsity or (0.9, 0.98)),
        seeds=args.seeds,
        epochs=args.epochs,
        seconds=args.seconds,
    )
    options = {"seed_base": args.seed_base, "device": args.device, "workers": args.workers}
    rows = run_leaderboard(args.submissions, args.out, settings, **options)
    failed = rows.loc[rows["test_accuracy"].isna(), "submission"].nunique()
    print(f"{args.out} has leaderboard.html and leaderboard.csv. Failed submissions: {failed}.")
