"""An explorer that needs no kernel: sliders and menus over pictures that were drawn beforehand.

It is one piece of HTML, so that it works in the built book, in Jupyter and on Colab, without a
network and without a widget manager.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from uuid import NAMESPACE_OID, uuid5

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

# Runs once the pictures stand on the page. The positions of the controls are the digits of the
# number of the picture that is shown, the last control changing fastest.
SCRIPT = """
(function (box) {
  var controls = box.querySelectorAll("input, select"), frames = box.querySelectorAll("img");
  function show() {
    var place = 0;
    controls.forEach(function (control) {
      var values = JSON.parse(control.dataset.values), value = values[control.value];
      place = place * values.length + Number(control.value);
      control.setAttribute("aria-valuetext", value);
      var output = box.querySelector("output[for=" + control.id + "]");
      if (output) { output.textContent = value; }
    });
    frames.forEach(function (frame, i) { frame.hidden = i !== place; });
  }
  controls.forEach(function (control) { control.addEventListener("input", show); });
})(document.getElementById("%s"));
"""


@dataclass(frozen=True)
class Explorer:
    """Pictures and the controls that choose among them; a notebook shows it as it is.

    Attributes:
        markup: the HTML.
    """

    markup: str = field(repr=False)  # notebooks keep the text beside the HTML

    def _repr_html_(self) -> str:
        return self.markup


def explorer(
    frames: Mapping[Hashable, Figure],
    *,
    label: str | tuple[str, ...],
    alt: str,
    table: pd.DataFrame | None = None,
) -> Explorer:
    """Return controls over figures, and close the figures.

    A control whose values are numbers is a slider, any other a menu; both work by keyboard.

    Args:
        frames: figures by the value, a text or a number, that the control shows for them, in
            order. Of several controls, by the tuple of their values, with a figure for every
            combination.
        label: what the control moves, for example "sparsity"; a tuple where there are several.
        alt: what the pictures show, for those who cannot see them; the values are added.
        table: the same in numbers, folded away below the picture.

    Raises:
        ValueError: there is no figure, a key has another number of values than there are labels,
            or a combination of values has no figure.
    """
    names = (label,) if isinstance(label, str) else label
    by_values = {
        tuple(map(str, key if isinstance(key, tuple) else (key,))): figure
        for key, figure in frames.items()
    }
    values = check_frames(by_values, names)
    # The same frames give the same id, so that notebooks do not change when they are run again.
    box = f"explorer-{uuid5(NAMESPACE_OID, repr((names, alt, values))).hex[:12]}"
    controls = "".join(
        control(f"{box}-{i}", name, options)
        for i, (name, options) in enumerate(zip(names, values, strict=True))
    )
    images = "".join(
        image(by_values[key], f"{alt} {describe(names, key)}.", hidden=i > 0)
        for i, key in enumerate(product(*values))
    )
    return Explorer(
        f'<div class="pai-explorer" id="{box}">{controls}{images}{folded(table)}</div>'
        f"<script>{SCRIPT % box}</script>"
    )


def check_frames(frames: Mapping[tuple[str, ...], Figure], names: Sequence[str]) -> list[list[str]]:
    """Return the values of each control, in order, when every combination has its figure."""
    if not frames:
        raise ValueError("An explorer needs at least one figure; an empty mapping was given.")
    for key in frames:
        if len(key) != len(names):
            raise ValueError(f"The frame {key} needs one value for each label of {tuple(names)}.")
    values = [list(dict.fromkeys(column)) for column in zip(*frames, strict=True)]
    for key in product(*values):
        if key not in frames:
            raise ValueError(f"There is no figure for {describe(names, key)}; draw one.")
    return values


def describe(names: Sequence[str], key: Sequence[str]) -> str:
    """Return the position of all controls in words."""
    return ", ".join(f"{name}: {value}" for name, value in zip(names, key, strict=True))


def control(name: str, label: str, values: list[str]) -> str:
    """Return a slider over numbers, or a menu of anything else, at its first value."""
    shared = f'id="{name}" data-values="{html.escape(json.dumps(values))}"'
    text, first = html.escape(label), html.escape(values[0])
    if all(is_number(value) for value in values):
        return (
            f'<label for="{name}">{text}: <output for="{name}">{first}</output></label>'
            f'<input {shared} type="range" min="0" max="{len(values) - 1}" value="0" step="1" '
            f'aria-valuetext="{first}">'
        )
    options = "".join(
        f'<option value="{i}">{html.escape(v)}</option>' for i, v in enumerate(values)
    )
    return f'<label for="{name}">{text}</label><select {shared}>{options}</select>'


def is_number(value: str) -> bool:
    """Say whether a label begins as a number does, as "0.95", "98%" and "< 3" do."""
    return value.lstrip("+-<> ")[:1].isdigit()


def image(figure: Figure, alt: str, *, hidden: bool) -> str:
    """Return the element of one picture."""
    source = f"data:image/png;base64,{encode(figure)}"
    return f'<img src="{source}" alt="{html.escape(alt)}"{" hidden" if hidden else ""}>'


def folded(table: pd.DataFrame | None) -> str:
    """Return a table that is folded away, or nothing."""
    if table is None:
        return ""
    return f"<details><summary>The same in numbers</summary>{table.to_html(border=0)}</details>"


def encode(figure: Figure) -> str:
    """Return a figure as PNG of at most 256 colours in base64, and close it.

    Line art needs no more, and many frames make a notebook that much smaller.
    """
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(256).save(reduced, format="png", optimize=True)
    return base64.b64encode(reduced.getvalue()).decode()
