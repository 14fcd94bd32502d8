"""The sweep, the command line, and the figures: what a reader calls first."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest

import pai_lite as pai
from pai_lite.__main__ import main

matplotlib.use("Agg")
SHORT = pai.Recipe(epochs=2)


@pytest.fixture(scope="module")
def digits() -> pai.Data:
    return pai.load_data("digits")


@pytest.fixture(scope="module")
def rows(digits: pai.Data) -> pd.DataFrame:
    return pai.sweep(
        digits,
        "lenet-300-100",
        ["dense", "random", "snip"],
        [0.5, 0.9],
        seeds=[0, 1],
        recipe=SHORT,
        progress=False,
    )


def test_sweep_has_one_row_a_cell_and_dense_once_a_seed(rows: pd.DataFrame) -> None:
    counts = rows.groupby(["method", "sparsity"]).size().to_dict()
    assert counts == {
        ("dense", 0.0): 2, ("random", 0.5): 2, ("random", 0.9): 2, ("snip", 0.5): 2,
        ("snip", 0.9): 2,
    }  # fmt: skip
    assert (rows["reached"] - rows["sparsity"]).abs().max() < 1e-4
    assert rows["test_accuracy"].between(0, 1).all()


def test_a_sweep_row_is_what_prune_and_fit_give_by_hand(
    rows: pd.DataFrame, digits: pai.Data
) -> None:
    model = pai.build_model("lenet-300-100", digits, seed=1)
    mask = pai.prune(model, "snip", digits.batch(per_class=10, seed=1), sparsity=0.9)
    run = pai.fit(model, digits, SHORT, mask=mask, seed=1, progress=False)
    row = rows.query("method == 'snip' and sparsity == 0.9 and seed == 1").iloc[0]
    assert row["test_accuracy"] == run.test_accuracy
    assert row["best_test_accuracy"] == run.best_test_accuracy


def test_random_masks_differ_between_seeds(rows: pd.DataFrame) -> None:
    accuracies = rows.query("method == 'random' and sparsity == 0.9")["test_accuracy"]
    assert accuracies.nunique() == 2


@pytest.mark.parametrize(
    ("methods", "sparsities", "message"),
    [(["random", "sinp"], [0.5], "snip"), (["random"], [0.5, 1.0], "sparsity is 1.0")],
)
def test_sweep_checks_everything_before_it_trains(
    digits: pai.Data, methods: list[str], sparsities: list[float], message: str
) -> None:
    untrainable = pai.Recipe(epochs=10**9)
    with pytest.raises(ValueError, match=message):
        pai.sweep(digits, "small-conv", methods, sparsities, seeds=[0], recipe=untrainable)


def test_the_command_prints_the_method_beside_its_baseline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = "prune --data digits --model lenet-300-100 --method snip --sparsity 0.95 --epochs 3"
    assert main(arguments.split()) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert re.match(r" *method +sparsity +seed +test_accuracy", lines[0])
    assert [line.split()[:3] for line in lines[1:]] == [
        ["snip", "95.00%", "0"],
        ["random", "95.00%", "0"],
    ]


def test_the_command_starts_from_a_recipe_and_changes_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(
        "pai_lite.__main__.sweep", lambda *a, recipe, **o: found.append(recipe) or pai.sweep(
            *a, recipe=SHORT, **o
        )
    )  # fmt: skip
    command = "prune --data digits --model lenet-300-100 --method snip --sparsity 0.5"
    assert main(f"{command} --recipe mark-resnet20-short --lr 0.3".split()) == 0
    assert found == [replace(pai.RECIPES["mark-resnet20-short"], lr=0.3)]
    assert main(f"{command} --recipe mark-resnet".split()) == 2
    assert "Did you mean 'mark-resnet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "digit"}, "Did you mean 'digits'"),
        ({"--data": "missing.npz"}, "missing.npz"),
        ({"--model": "resnet"}, "Did you mean 'resnet20'"),
        ({"--method": "snap"}, "Did you mean 'snip'"),
        ({"--sparsity": "95"}, "sparsity is 95.0"),
        ({"--epochs": "0"}, "epochs is 0"),
        ({"--per-class": "100000"}, "100000"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    change: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--data": "digits", "--model": "small-conv", "--method": "snip", "--sparsity": "0.5"}
    arguments = [word for pair in {**options, **change}.items() for word in pair]
    assert main(["prune", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (error,) = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert message in error


def test_help_names_every_method_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["prune", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in [*pai.METHODS, *pai.MODELS])


def test_accuracy_figure_shows_means_and_the_spread(rows: pd.DataFrame) -> None:
    ax = pai.plot_accuracy(rows)
    container = next(c for c in ax.containers if c.get_label() == "snip")
    expected = 100 * rows.query("method == 'snip'").groupby("sparsity")["test_accuracy"].mean()
    assert container.lines[0].get_ydata() == pytest.approx(expected.to_list())
    assert container.lines[0].get_xdata() == pytest.approx([0.5, 0.1], rel=0.1)
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"dense", "random", "snip"}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["90", "50"]
    plt.close(ax.figure)


def test_density_figure_breaks_where_a_layer_is_empty(digits: pai.Data) -> None:
    model = pai.build_model("lenet-300-100", digits)
    tensors = dict(pai.Mask.dense(model))
    tensors["3.weight"] = tensors["3.weight"] & False
    ax = pai.plot_layer_density({"snip": pai.Mask(tensors)})
    heights = ax.lines[0].get_ydata()
    assert heights[0] == heights[2] == 1.0
    assert heights[1] != heights[1]
    plt.close(ax.figure)


def test_explorer_holds_one_labelled_picture_a_frame_and_shows_the_first() -> None:
    others = plt.get_fignums()
    frames = {name: plt.figure(figsize=(1, 1)) for name in ("50%", "<90%>")}
    markup = pai.explorer(frames, label="sparsity", alt="Density.")._repr_html_()
    images = re.findall(r"<img [^>]*>", markup)
    assert len(images) == 2
    assert [" hidden" in image for image in images] == [False, True]
    assert 'alt="Density. sparsity: &lt;90%&gt;."' in images[1]
    assert 'max="1"' in markup
    assert plt.get_fignums() == others


def test_the_same_frames_give_the_same_markup_and_no_frame_is_an_error() -> None:
    def build() -> str:
        return pai.explorer({"a": plt.figure()}, label="x", alt="y").markup

    assert build() == build()
    with pytest.raises(ValueError, match="at least one figure"):
        pai.explorer({}, label="x", alt="y")


def test_several_controls_are_sliders_over_numbers_and_menus_of_words() -> None:
    frames = {(s, m): plt.figure() for m in ("snip", "force") for s in ("90%", "98%")}
    table = pd.DataFrame({"accuracy": [0.5]})
    markup = pai.explorer(frames, label=("sparsity", "method"), alt="A.", table=table).markup
    assert re.findall(r'alt="([^"]*)"', markup) == [
        f"A. sparsity: {s}, method: {m}." for s in ("90%", "98%") for m in ("snip", "force")
    ]
    assert markup.count('type="range"') == 1
    assert re.findall(r"<option[^>]*>(\w+)", markup) == ["snip", "force"]
    assert re.search("<details>.*0.5.*</details>", markup, re.DOTALL)


def test_the_values_of_a_control_may_be_numbers() -> None:
    one = pai.explorer({0.5: plt.figure(), 0.9: plt.figure()}, label="sparsity", alt="A.").markup
    assert re.findall(r'alt="([^"]*)"', one) == ["A. sparsity: 0.5.", "A. sparsity: 0.9."]
    assert one.count('type="range"') == 1
    two = {(steps, name): plt.figure() for steps in (1, 10) for name in ("snip", "force")}
    markup = pai.explorer(two, label=("steps", "criterion"), alt="A.").markup
    assert 'alt="A. steps: 10, criterion: force."' in markup


def test_a_missing_combination_is_named() -> None:
    frames = {("1", "a"): plt.figure(), ("2", "b"): plt.figure()}
    with pytest.raises(ValueError, match="no figure for steps: 1, method: b"):
        pai.explorer(frames, label=("steps", "method"), alt="x")
    with pytest.raises(ValueError, match="one value for each label"):
        pai.explorer(frames, label="steps", alt="x")
    plt.close("all")


def test_setting_names_things_that_exist() -> None:
    here = pai.setting()
    data = pai.load_data("digits")
    assert pai.build_model(here.model, data) is not None
    assert 0 not in here.sparsities
    assert len(here.seeds) >= 1
