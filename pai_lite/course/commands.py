"""The commands for a course: ``grade`` and ``leaderboard``."""

from __future__ import annotations

import argparse


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
        raise ImportError(
            f"Grading needs {error.name}: pip install 'pai-lite[notebooks]'"
        ) from error
    limits = Limits(cell=args.cell_seconds, submission=60 * args.minutes)
    if args.gradescope:
        write_gradescope_results(args.submissions, args.tests, args.gradescope, limits=limits)
        return
    scores = grade_submissions(
        args.submissions, args.tests, args.out, limits=limits, workers=args.workers
    )
    print(scores.drop(columns=["note"]).to_string(index=False, na_rep=""))
    print(f"{args.out} has scores.csv, a page for each in feedback, and written.csv to fill in.")
