"""Grading notebooks that nobody has read: what they earned stays, and nothing else is harmed."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pai_lite.course.box import landlock_version
from pai_lite.course.bundle import Assignment, Question, _case, read_assignment, same_text
from pai_lite.course.grade import Graded, Limits, grade, written_answers
from pai_lite.course.kernel import FILE_SIZE, MEMORY, TEXT_LIMIT, Kernel
from pai_lite.course.submissions import find_notebooks, grade_submissions
from pai_lite.files import whole_file

needs_landlock = pytest.mark.skipif(
    landlock_version() == 0, reason="this machine has no Landlock to confine a process with"
)
LIMITS = Limits(cell=4, submission=90)
SQUARE, HALF = "def square(x):\n    return x * x", "def half(x):\n    return x / 2"
CHECKS = {"q1": 'check("tiny.1", square)', "q2": 'check("tiny.2", half)'}
GIVEN = "def check(name, answer):\n    print('given')"


def case(call: str, wanted: str, points: float, hint: str = "Look again.") -> dict:
    code = f">>> def hidden():\n...     print({call})\n>>> hidden()\n{wanted}\n"
    return {
        "code": code,
        "hidden": True,
        "locked": False,
        "points": points,
        "failure_message": hint,
    }


def write_bundle(path: Path) -> Path:
    questions = {
        "q1": [case("square(3), square(-7003)", "9 49042009", 2), case("square(1.5)", "2.25", 1)],
        "q2": [case("half(3), half(8)", "1.5 4.0", 3, "Half of <b>eight</b>.")],
    }
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("otter_config.json", json.dumps({"assignment_name": "tiny_numbers"}))
        bundle.writestr("written.json", json.dumps({"q3": 4}))
        for name, cases in questions.items():
            test = {"name": name, "points": None, "suites": [{"cases": cases}]}
            bundle.writestr(f"tests/{name}.py", f"OK_FORMAT = True\n\ntest = {test!r}\n")
    return path


def make_notebook(*, square: str = SQUARE, half: str = HALF, answer: str = "Because."):
    code = [GIVEN, square, CHECKS["q1"], half, CHECKS["q2"]]
    prompt = new_markdown_cell(
        "<!-- BEGIN QUESTION -->\n\n**Question 3** (4 points, written).\nWhy?"
    )
    end = new_markdown_cell("<!-- END QUESTION -->")
    cells = [*map(new_code_cell, code), prompt, new_markdown_cell(answer), end]
    return new_notebook(cells=cells)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "autograder.zip")


@pytest.fixture
def tiny(bundle: Path) -> Assignment:
    return read_assignment(bundle)


def marks(graded: Graded, assignment: Assignment) -> dict[str, float]:
    return {q.name: graded.points(q) for q in assignment.questions if not q.written}


def test_an_assignment_is_read_in_the_order_of_its_questions(tiny: Assignment) -> None:
    assert [(q.name, q.points, q.written) for q in tiny.questions] == [
        ("q1", 3, False), ("q2", 3, False), ("q3", 4, True),
    ]  # fmt: skip
    assert tiny.name == "tiny_numbers"
    assert tiny.possible == 10


@pytest.mark.parametrize("content", [b"no archive", None])
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "it.zip"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="make assignments"):
        read_assignment(path)


@pytest.mark.parametrize(
    ("printed", "wanted", "same"),
    [
        ("[1.0001, 2]", "[1.0, 2]", True),
        ("[1.01, 2]", "[1.0, 2]", False),
        ("[1.0, 3]", "[1.0, 2]", False),
        ("[1.0, 2.0]", "[1.0, 2]", False),
        ("[-0.0]", "[0.0]", True),
        ("[-1.0]", "[1.0]", False),
        ("['a', 1]", "['b', 1]", False),
        ("1.0 2.0", "1.0", False),
        (" 1.0\n", "1.0\n", True),
        ("nan", "1.0", False),
        ("1e-05", "1.0001e-05", True),
        ("", "0", False),
    ],
)
def test_texts_agree_when_their_numbers_do(printed: str, wanted: str, same: bool) -> None:
    assert same_text(printed, wanted) == same


def test_a_right_notebook_earns_everything_and_its_answer_is_read(tiny: Assignment) -> None:
    graded = grade(make_notebook(), tiny, LIMITS)
    assert marks(graded, tiny) == {"q1": 3, "q2": 3}
    assert graded.written == {"q3": "Because."}
    assert graded.problems == []


def test_a_question_is_graded_without_its_check(tiny: Assignment) -> None:
    notebook = make_notebook()
    notebook.cells = [cell for cell in notebook.cells if "tiny.1" not in cell.source]
    assert marks(grade(notebook, tiny, LIMITS), tiny) == {"q1": 3, "q2": 3}


def test_a_half_right_function_earns_its_half(tiny: Assignment) -> None:
    wrong = "def square(x):\n    return abs(x) * 3 if x == 3 else x * x if x < 0 else 2.25"
    graded = grade(make_notebook(square=wrong, half=HALF.replace("2", "3")), tiny, LIMITS)
    assert marks(graded, tiny) == {"q1": 3, "q2": 0}
    graded = grade(make_notebook(square="def square(x):\n    return int(x) ** 2"), tiny, LIMITS)
    assert marks(graded, tiny) == {"q1": 2, "q2": 3}


FATAL = {
    "raises": "raise RuntimeError('no')",
    "no syntax": "def half(x:",
    "ends its process": "import os\nos._exit(1)",
    "is ended by a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "loops": "while True:\n    pass",
    "loops and cannot be interrupted": (
        "while True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass"
    ),
    "takes all memory": "x = bytearray(2**36)",
    "asks": "input('name?')",
    "exits": "import sys\nsys.exit(0)",
}


@pytest.mark.parametrize("code", FATAL.values(), ids=FATAL)
def test_what_was_earned_before_and_after_a_failing_cell_stays(tiny: Assignment, code: str) -> None:
    notebook = make_notebook()
    notebook.cells.insert(3, new_code_cell(code))
    graded = grade(notebook, tiny, LIMITS)
    assert marks(graded, tiny) == {"q1": 3, "q2": 3}
    assert len(graded.problems) == 1
    assert graded.problems[0].startswith("Code cell 4")


@pytest.mark.parametrize("body", ["while True: pass", "import os; os._exit(0)"])
def test_a_function_that_never_returns_costs_only_its_own_question(
    tiny: Assignment, body: str
) -> None:
    graded = grade(make_notebook(square=f"def square(x):\n    {body}"), tiny, LIMITS)
    assert marks(graded, tiny) == {"q1": 0, "q2": 3}


def test_a_submission_has_a_limit_of_its_own(tiny: Assignment) -> None:
    graded = grade(make_notebook(half="import time\ntime.sleep(60)"), tiny, Limits(60, 5))
    assert marks(graded, tiny) == {"q1": 3, "q2": 0}
    assert graded.problems[-1] == "It was stopped after 5 seconds."
    assert graded.seconds < 30


CHEATS = {
    "rebinds the checker and what compares": (
        "import builtins, math\n"
        "check = lambda *a, **k: print('Correct.')\n"
        "math.isclose = lambda *a, **k: True\n"
        "builtins.print = lambda *a, **k: None"
    ),
    "prints what might be wanted": "print('9 49042009')\nprint('2.25')",
    "always equal": "class Any:\n    __eq__ = lambda *a: True\ndef square(x): return Any()",
    "prints the visible numbers": "def square(x):\n    return 4",
    "writes scores": "open('scores.csv', 'w').write('submission,q1\\nann__tiny,3')",
}


@pytest.mark.parametrize("name", ["line", "source", "each"])
def test_a_hidden_test_sees_the_students_own_names(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case = _case({"code": f">>> print({name})\n5\n", "points": 1})
    exec(case.source, {name: 5})
    assert capsys.readouterr().out == case.wanted == "5\n"


@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
def test_a_cheat_earns_nothing(tiny: Assignment, code: str) -> None:
    assert marks(grade(make_notebook(square=code), tiny, LIMITS), tiny)["q1"] == 0


def test_the_wanted_text_is_not_in_the_process_of_the_student(tiny: Assignment) -> None:
    spy = (
        "import gc, sys\n"
        "def square(x):\n"
        "    frame, seen = sys._getframe(), []\n"
        "    while frame:\n"
        "        seen.append(repr(frame.f_locals))\n"
        "        frame = frame.f_back\n"
        "    seen += [repr(o) for o in gc.get_objects() if isinstance(o, (list, tuple, dict))]\n"
        "    return any(str(int('7003') ** 2) in text and 'hidden()' in text for text in seen)\n"
    )
    first = tiny.questions[0].cases[0]
    assert "49042009" in first.wanted
    with Kernel() as kernel:
        kernel.run(spy, 5)
        assert kernel.run(first.source, 30).text == "False False\n"
        assert kernel.run(f"{first.source}\n# {7003 * 7003}", 30).text == "True True\n"


def test_a_hidden_test_leaves_no_trace_in_the_process(tiny: Assignment) -> None:
    trace = "print('hidden' in str({**globals()}), 'hidden' in str(In))"
    with Kernel() as kernel:
        kernel.run(SQUARE, 5)
        before = kernel.run("print(sorted(globals()))", 5).text
        assert kernel.run(tiny.questions[0].cases[0].source, 20).text == "9 49042009\n"
        assert kernel.run("print(sorted(globals()))", 5).text == before
        assert kernel.run(trace, 5).text == "False False\n"
        kernel.run("left = 'hidden'", 5)
        assert kernel.run(trace, 5).text == "True False\n"


def test_a_kernel_has_limits(tiny: Assignment) -> None:
    pytest.importorskip("resource")
    kinds = ["RLIMIT_FSIZE", "RLIMIT_CORE", *["RLIMIT_DATA"] * (sys.platform == "linux")]
    shown = f"import resource; print([resource.getrlimit(getattr(resource, k)) for k in {kinds}])"
    limits = [FILE_SIZE, 0, MEMORY][: len(kinds)]
    with Kernel() as kernel:
        assert kernel.run(shown, 5).text == f"{[(limit, limit) for limit in limits]}\n"


def test_megabytes_of_output_are_cut(tiny: Assignment) -> None:
    with Kernel() as kernel:
        outcome = kernel.run("print('x' * 5_000_000)", 20)
        assert (outcome.status, len(outcome.text)) == ("ok", TEXT_LIMIT)
        assert kernel.run("while True: print('y' * 1000)", 2).status == "timeout"
        assert kernel.run("print(1)", 5).text == "1\n"
    flood = make_notebook(square=f"print('x' * 2_000_000)\n{SQUARE}")
    assert marks(grade(flood, tiny, LIMITS), tiny) == {"q1": 3, "q2": 3}


@needs_landlock
def test_a_kernel_reads_and_writes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("solution")
    attempts = {
        f"open({str(secret)!r}).read()": "PermissionError",
        f"open({str(secret)!r}, 'w')": "PermissionError",
        f"import os; os.remove({str(secret)!r})": "PermissionError",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})": "PermissionError",
        "import os; os.kill(os.getppid(), 9)": "PermissionError",
        "import socket; socket.create_connection(('127.0.0.1', 9))": "PermissionError",
        f"import subprocess; subprocess.run(['rm', {str(secret)!r}], check=True)": "CalledProcess",
    }
    with Kernel() as kernel:
        for code, error in attempts.items():
            outcome = kernel.run(code, 10)
            assert outcome.status == "error", code
            assert error in outcome.error, code
        assert kernel.run("open('own.txt', 'w').write('1'); print(open('own.txt').read())", 5).text
        assert kernel.run("import shutil; shutil.rmtree('.', ignore_errors=True)", 5).status == "ok"
        assert kernel.run("print(1)", 5).text == "1\n"
    assert secret.read_text() == "solution"


def test_forged_messages_end_only_their_own_kernel(tiny: Assignment) -> None:
    forge = (
        "from ipykernel.kernelapp import IPKernelApp\n"
        "app = IPKernelApp.instance()\n"
        "app.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b'signature', b'{', b'', b'', b''])\n"
        "import time\n"
        "time.sleep(2)"
    )
    with Kernel() as kernel:
        outcome = kernel.run(forge, 10)
    assert outcome.status == "died"
    assert "cannot be read" in outcome.error
    assert marks(grade(make_notebook(square=forge), tiny, LIMITS), tiny) == {"q1": 0, "q2": 3}


def test_a_kernel_leaves_no_folder_and_no_secret_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_TOKEN", "secret")
    with Kernel() as kernel:
        folder = kernel.folder
        shown = kernel.run("import os; print('COURSE_TOKEN' in os.environ, os.getcwd())", 5).text
        assert shown == f"False {folder}\n"
    assert not folder.parent.exists()


def test_written_answers_are_found_by_their_number() -> None:
    notebook = make_notebook(answer="_Type your answer here, replacing this text._")
    assert dict(written_answers(notebook)) == {"q3": ""}
    notebook.cells.insert(-1, new_markdown_cell("And so on."))
    assert dict(written_answers(notebook)) == {"q3": "And so on."}


@pytest.fixture
def handed_in(tmp_path: Path) -> Path:
    folder = tmp_path / "handed in"
    right = make_notebook(answer="<script>alert(1)</script>")
    for name, notebook in {"ann/tiny": right, "bob/tiny": make_notebook(half="x = 1")}.items():
        (folder / name).parent.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    (folder / "broken.ipynb").write_text("{")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "copy.ipynb").write_text("{")
    return folder


def test_a_folder_becomes_a_table_and_pages(handed_in: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scores = grade_submissions(handed_in, bundle, out, limits=LIMITS, workers=2)
    by_name = scores.set_index("submission")
    assert list(by_name.index) == ["ann__tiny", "bob__tiny", "broken"]
    assert by_name["total"].tolist() == [6, 3, 0]
    assert by_name["q3"].isna().all()
    assert by_name["written_ungraded"].tolist() == [1, 1, 1]
    assert "no notebook" in by_name.loc["broken", "note"]
    page = (out / "feedback" / "ann__tiny.html").read_text()
    assert "6 of 10 points" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    page = (out / "feedback" / "bob__tiny.html").read_text()
    assert "Half of &lt;b&gt;eight&lt;/b&gt;." in page
    assert "half(3)" not in page, "the text of a hidden test is on the page"


def test_points_of_written_answers_are_added_up_and_kept(
    handed_in: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    grade_submissions(handed_in, bundle, out, limits=LIMITS)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "graded").iterdir()}
    rows = list(csv.DictReader((out / "written.csv").open()))
    rows[0] |= {"points": "2.5", "comment": "Too short."}
    with whole_file(out / "written.csv") as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    scores = grade_submissions(handed_in, bundle, out, limits=LIMITS).set_index("submission")
    assert scores.loc["ann__tiny", ["q3", "total", "written_ungraded"]].tolist() == [2.5, 8.5, 0]
    assert {path: path.stat().st_mtime_ns for path in (out / "graded").iterdir()} == stamps
    assert "Too short." in (out / "feedback" / "ann__tiny.html").read_text()
    nbformat.write(make_notebook(half="x = 2"), handed_in / "ann" / "tiny.ipynb")
    scores = grade_submissions(handed_in, bundle, out, limits=LIMITS).set_index("submission")
    assert scores.loc["ann__tiny", ["q2", "q3"]].tolist() == [0, 2.5]


def test_points_out_of_range_are_refused(handed_in: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    grade_submissions(handed_in, bundle, out, limits=LIMITS)
    written = (out / "written.csv").read_text().replace("q3,4,,", "q3,4,5,", 1)
    (out / "written.csv").write_text(written)
    with pytest.raises(ValueError, match=r"5 points to ann__tiny for q3, which has 4"):
        grade_submissions(handed_in, bundle, out, limits=LIMITS)


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no notebook"):
        find_notebooks(tmp_path)


def test_the_command_grades_a_folder(handed_in: Path, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pai_lite", "grade", handed_in, "--tests", bundle]
    done = subprocess.run(
        [*command, "--out", tmp_path / "out"], capture_output=True, text=True, check=True
    )
    assert "ann__tiny" in done.stdout
    done = subprocess.run(
        [*command, "--out", bundle / "x"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2


def test_the_bundle_for_gradescope_grades_the_one_submission(
    handed_in: Path, bundle: Path, tmp_path: Path
) -> None:
    root = tmp_path / "autograder"
    for part in ("source", "submission", "results"):
        (root / part).mkdir(parents=True)
    (root / "source" / "autograder.zip").write_bytes(bundle.read_bytes())
    nbformat.write(make_notebook(half="x = 1"), root / "submission" / "tiny.ipynb")
    script = Path(__file__).parent.parent / "tools" / "gradescope" / "run_autograder"
    environment = os.environ | {"AUTOGRADER_ROOT": str(root), "PAI_PYTHON": sys.executable}
    subprocess.run(["bash", script], env=environment, check=True)
    results = json.loads((root / "results" / "results.json").read_text())
    assert [(t["score"], t["max_score"]) for t in results["tests"]] == [(2, 2), (1, 1), (0, 3)]
    assert results["tests"][2]["output"] == "Half of <b>eight</b>."


def test_a_question_without_tests_is_written() -> None:
    assert Question("q1", 3).written
