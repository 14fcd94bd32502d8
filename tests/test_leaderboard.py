"""The leaderboard: a real run with good and bad submissions, what is kept, ranks, and the page."""

import math
import os
import textwrap
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import pai_lite as pai
from pai_lite.__main__ import main

pytest.importorskip("jupyter_client")

from pai_lite.course import criterion, leaderboard
from pai_lite.course.box import landlock_version
from pai_lite.course.criterion import CriterionError, read_scores, score
from pai_lite.course.kernel import Kernel
from pai_lite.course.leaderboard_page import estimate, standings, write_page
from pai_lite.course.trials import Settings, make_starts, split_anew

SNIP_BY_HAND = """
    import torch.nn.functional as F

    def criterion(model, batch):
        inputs, targets = batch
        F.cross_entropy(model(inputs), targets).backward()
        weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
        return {n: (p * p.grad).abs() for n, p in weights.items()}
    """
ENDLESS = """
    def criterion(model, batch):
        while True:
            pass
    """
# It says what it was able to do.
HOSTILE = """
    import os
    import numpy as np

    def criterion(model, batch):
        done = []
        for name, act in {{
            "read": lambda: np.load("{secret}")["x_test"],
            "wrote": lambda: open("{outside}", "w").close(),
            "deleted": lambda: os.remove("{submission}"),
        }}.items():
            try:
                act()
                done.append(name)
            except OSError:
                pass
        raise RuntimeError(f"<i>{{done}}</i> of {{sorted(os.listdir())}}")
    """
NAMES = "{n: torch.rand(p.shape) for n, p in model.named_parameters() if p.ndim > 1}"
BAD = {
    "return {n: p.sum(0) for n, p in model.named_parameters() if p.ndim > 1}": "has shape",
    f"return {{n: t / 0 * 0 for n, t in {NAMES}.items()}}": "NaN or infinite",
    f"return {{n + 'x': t for n, t in {NAMES}.items()}}": "lacks ['0.weight'",
    f"return {{n: t + 1j for n, t in {NAMES}.items()}}": "are complex",
    "return model(batch[0])": "returned a Tensor, not a mapping",
    "raise KeyError('layer')": "It raised KeyError: 'layer'",
    "import os; os._exit(0)": "Its process is gone",
}


def write(path: Path, code: str, **values: object) -> Path:
    text = textwrap.dedent(code)
    path.write_text(text.format(**values) if values else text, encoding="utf8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder, arguments and rows of a run with a baseline and three submissions."""
    root = tmp_path_factory.mktemp("course")
    (root / "hand_in").mkdir()
    np.savez(root / "secret.npz", x_test=np.zeros(3))
    good = write(root / "hand_in" / "good.py", SNIP_BY_HAND)
    write(root / "hand_in" / "endless.py", ENDLESS)
    paths = {"secret": root / "secret.npz", "outside": root / "outside", "submission": good}
    write(root / "hand_in" / "<script>alert(1)<.py", HOSTILE, **paths)
    arguments = ["leaderboard", str(root / "hand_in"), "--out", str(root / "out")]
    for option in ("sparsity 0.9", "seeds 2", "seed-base 4711", "epochs 1", "workers 1"):
        arguments += f"--{option}".split()
    arguments += ["--seconds", "5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "BASELINES", ("snip",))
        assert main(arguments) == 0
        yield root, arguments, pd.read_csv(root / "out" / "leaderboard.csv")


def rows_of(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["submission"] == name].set_index(["control", "seed"])


def test_the_criterion_written_by_hand_trains_the_networks_of_the_baseline(run):
    _, _, frame = run
    good, snip = (rows_of(frame, name) for name in ("good", "snip"))
    assert len(good) == 6
    assert good["test_accuracy"].equals(snip["test_accuracy"])
    assert good["test_accuracy"].nunique() > 3  # seeds and controls do differ
    assert (good["prune_seconds"] > 0).all()
    assert good["reached"].to_numpy() == pytest.approx(0.9, abs=1e-4)


def test_rows_are_those_of_a_training_outside_of_the_leaderboard(run):
    _, _, frame = run
    data = split_anew(pai.load_data("digits"), 4711)
    model, batch = pai.build_model("small-conv", data, seed=4712), data.batch(seed=4712)
    mask = pai.keep_top(pai.snip(model, batch), 0.9)
    shuffled = pai.shuffle(mask, seed=4712)
    for control, used in (("none", mask), ("shuffle", shuffled)):
        found = pai.fit(model, data, pai.Recipe(epochs=1), mask=used, seed=4712, progress=False)
        accuracy = rows_of(frame, "good").loc[(control, 1), "test_accuracy"]
        # Older pandas reads the last digit of a number otherwise than it was written.
        assert accuracy == pytest.approx(found.test_accuracy, rel=1e-14)


def test_a_failure_has_a_note_and_no_accuracy_and_the_rest_go_on(run):
    _, _, frame = run
    endless = rows_of(frame, "endless")
    assert len(endless) == 6
    assert endless["test_accuracy"].isna().all()
    assert set(endless["note"]) == {"It took longer than 5 seconds and was stopped."}


def test_code_reaches_nothing_outside_of_its_folder(run):
    root, _, frame = run
    (note,) = set(rows_of(frame, "<script>alert(1)<")["note"])
    for file in ("network0.safetensors", "batch1.safetensors", "criterion.py"):
        assert file in note
    if landlock_version():
        assert "<i>[]</i>" in note
        assert not (root / "outside").exists()
        assert (root / "hand_in" / "good.py").exists()


def test_what_was_evaluated_is_kept_until_the_file_changes(run, monkeypatch):
    root, arguments, frame = run
    asked = []

    def evaluate(entry, starts, settings, workers):
        asked.append(entry.name)
        return leaderboard.failed_rows("again", starts, settings)

    monkeypatch.setattr(leaderboard, "evaluate", evaluate)
    assert main(arguments) == 0
    assert asked == []
    pd.testing.assert_frame_equal(pd.read_csv(root / "out" / "leaderboard.csv"), frame)
    elsewhere = [*arguments[:-1], "6"]
    copies = root / "copies"
    copies.mkdir()
    write(copies / "good.py", SNIP_BY_HAND)
    assert main(["leaderboard", str(copies), *arguments[2:]]) == 0
    assert asked == []  # the same file, whatever its folder
    write(copies / "good.py", SNIP_BY_HAND + "\n    # changed")
    assert main(["leaderboard", str(copies), *arguments[2:]]) == 0
    assert asked == ["good"]
    assert main(["leaderboard", str(copies), *elsewhere[2:]]) == 0
    assert asked == ["good", "snip", "good"]  # another limit is another setting
    assert main(arguments) == 0  # the page of the other tests


class Checker(HTMLParser):
    """Follows the elements of a page, and fails where one is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.seen, self.images = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        if dict(attrs).get("role") == "img":
            self.images.append(dict(attrs).get("aria-label"))

    def handle_startendtag(self, tag, _attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_escapes_what_students_wrote(run):
    root, _, _ = run
    page = (root / "out" / "leaderboard.html").read_text(encoding="utf8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "script" not in checker.seen
    assert "i" not in checker.seen
    assert "&lt;script&gt;alert(1)&lt;" in page
    (alt,) = checker.images
    assert alt.startswith("Test accuracy of 2 criteria")
    assert "ranks within the interval mean nothing" in page
    assert "4711" not in page + (root / "out" / "leaderboard.csv").read_text(encoding="utf8")


@pytest.fixture(scope="module")
def starts():
    return make_starts(Settings(seeds=1), 7, "cpu")


def test_a_file_without_the_function_is_told_so(starts, tmp_path, one_kernel):
    with pytest.raises(CriterionError, match="has no function criterion"):
        score(write(tmp_path / "empty.py", "x = 1"), "small-conv", starts, 5)


@pytest.mark.parametrize("body", BAD)
def test_bad_criteria_get_a_note_in_plain_words(body, starts, tmp_path, one_kernel):
    path = write(tmp_path / "bad.py", f"import torch\ndef criterion(model, batch):\n    {body}")
    with pytest.raises(CriterionError) as error:
        score(path, "small-conv", starts, 5)
    assert BAD[body] in str(error.value)


@pytest.fixture
def one_kernel(monkeypatch):
    """One kernel for all tests of this module that need a new one, since each takes seconds."""
    monkeypatch.setattr(criterion, "Kernel", Again)


class Again:
    """A kernel that is used again, without what it has imported of a student's."""

    kernel: Kernel | None = None

    def __enter__(self):
        if Again.kernel is None:
            Again.kernel = Kernel().__enter__()
        forget = "import sys; sys.dont_write_bytecode = True; sys.modules.pop('criterion', None)"
        Again.kernel.run(forget, 30)
        for file in Again.kernel.folder.glob("scores*"):
            file.unlink()
        return Again.kernel

    def __exit__(self, kind, error, trace):
        if error is not None and "gone" in str(error):
            Again.end()

    @classmethod
    def end(cls):
        if cls.kernel is not None:
            cls.kernel.__exit__()
        cls.kernel = None


@pytest.fixture(scope="module", autouse=True)
def no_kernel_is_left():
    yield
    Again.end()


@pytest.mark.parametrize("kind", ["missing", "text", "link", "pipe", "folder", "large"])
def test_what_lies_in_the_place_of_scores_does_not_matter(kind, starts, tmp_path):
    path, model = tmp_path / "scores0.safetensors", starts[0].model
    if kind == "text":
        path.write_text("scores")
    elif kind == "link":
        save_file(dict(pai.magnitude(model)), tmp_path / "other")
        path.symlink_to(tmp_path / "other")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(bytes(3 * 2**20))
    with pytest.raises(CriterionError):
        read_scores(path, model)


def test_scores_are_read_in_the_order_of_the_layers(starts, tmp_path):
    model = starts[0].model
    scores = pai.magnitude(model)
    save_file({n: scores[n].to(torch.bfloat16) for n in list(scores)[::-1]}, tmp_path / "s")
    found = read_scores(tmp_path / "s", model)
    assert list(found) == list(scores)
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}


def test_digits_are_split_anew_by_the_seed():
    data = pai.load_data("digits")
    one, same, other = (split_anew(data, seed) for seed in (1, 1, 2))
    for name in ("train", "validation", "test"):
        assert len(getattr(one, name)) == len(getattr(data, name))
    assert one.test.images.equal(same.test.images)
    assert not one.test.images.equal(other.test.images)
    sums = [
        torch.cat([d.train.images, d.validation.images, d.test.images]).sum((1, 2, 3)).sort().values
        for d in (data, one)
    ]
    assert sums[0].equal(sums[1])
    normal = one.normalize(one.train.images)
    assert float(normal.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normal.std(correction=0)) == pytest.approx(1, abs=1e-5)


def made(name: str, accuracies: dict[str, list[float]], note: str = "") -> list[dict]:
    """Rows of a criterion with the same accuracies by seed on two data sets, half apart."""
    return [
        {"kind": "submission", "submission": name, "data": data, "model": "small-conv"}
        | {"sparsity": 0.9, "control": control, "seed": seed, "reached": 0.9, "note": note}
        | {"test_accuracy": value + change, "prune_seconds": 0.1}
        for data, change in (("a", -0.1), ("b", 0.1))
        for control, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_ranks_intervals_and_paired_changes():
    same = {"none": [0.7, 0.8, 0.9], "shuffle": [0.6, 0.7, 0.8], "reinitialize": [0.7, 0.9, 0.8]}
    lower = {control: [0.5] * 3 for control in same}
    failed = {control: [math.nan] * 3 for control in same}
    rows = made("bad", failed, "It raised E") + made("low", lower)
    rows += made("first", same) + made("also", same)
    found = standings(pd.DataFrame(rows))
    assert [(one.name, one.rank) for one in found] == [
        ("first", 1),
        ("also", 1),
        ("low", 3),
        ("bad", None),
    ]
    first = found[0]
    assert first.accuracies[0.9].mean == pytest.approx(80)
    assert first.accuracies[0.9].half == pytest.approx(4.30265 * 10 / 3**0.5, rel=1e-5)
    assert first.by_data["b", 0.9].mean == pytest.approx(90)
    assert first.shuffled.text("+") == "−10.0 ± 0.0"
    assert first.reinitialized.mean == pytest.approx(0)
    assert found[-1].note == "It raised E"
    assert found[-1].accuracies[0.9].text() == ""


def test_two_seeds_have_no_interval():
    assert estimate(np.array([1.0, 2.0])).text() == "1.5"


def test_a_page_without_any_accuracy_has_no_figure(tmp_path):
    failed = {control: [math.nan] * 3 for control in ("none", "shuffle", "reinitialize")}
    path = tmp_path / "page.html"
    write_page(pd.DataFrame(made("$x_{1$", failed, "No.")), Settings(sparsities=(0.9,)), path)
    assert "<svg" not in path.read_text(encoding="utf8")


def test_names_with_dollar_signs_are_drawn_as_they_are(tmp_path):
    some = {control: [0.5, 0.6, 0.7] for control in ("none", "shuffle", "reinitialize")}
    path = tmp_path / "page.html"
    write_page(pd.DataFrame(made("$x_{1$", some)), Settings(sparsities=(0.9,)), path)
    assert path.read_text(encoding="utf8").count("$x_{1$") >= 3


def test_the_seed_base_is_drawn_once(tmp_path):
    path = tmp_path / "seed_base.txt"
    drawn = leaderboard.keep_seed_base(None, path)
    assert drawn == leaderboard.keep_seed_base(None, path)
    assert leaderboard.keep_seed_base(3, path) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": 0}, "seeds=0"),
        ({"seconds": 0.0}, "seconds=0"),
        ({"sparsities": (1.0,)}, "sparsity is 1.0"),
        ({"model": "small"}, "small-conv"),
        ({"epochs": 0}, "epochs is 0"),
        ({"data": ("a/x.npz", "b/x.npz")}, "given twice"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Settings(**wrong)


def test_a_folder_without_submissions_is_refused(tmp_path, capsys):
    (tmp_path / ".hidden.py").touch()
    assert main(["leaderboard", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no submission (NAME.py)" in capsys.readouterr().err
