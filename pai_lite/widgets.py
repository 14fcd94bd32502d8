"""An explorer that needs no kernel: a slider over pictures that were drawn beforehand.

It is one piece of HTML, so that it works in the built book, in Jupyter and on Colab, without a
network and without a widget manager.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import NAMESPACE_OID, uuid5

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Runs once the pictures stand on the page; the slider's position chooses the one that is shown.
SCRIPT = """
(function (box) {
  var slider = box.querySelector("input"), value = box.querySelector("output");
  var frames = box.querySelectorAll("img");
  slider.addEventListener("input", function () {
    frames.forEach(function (frame, i) { frame.hidden = i !== Number(slider.value); });
    value.textContent = frames[slider.value].dataset.label;
    slider.setAttribute("aria-valuetext", value.textContent);
  });
})(document.getElementById("%s"));
"""


@dataclass(frozen=True)
class Explorer:
    """Pictures and the slider that chooses among them; a notebook shows it as it is.

    Attributes:
        markup: the HTML.
    """

    markup: str

    def _repr_html_(self) -> str:
        return self.markup


def explorer(frames: Mapping[str, Figure], *, label: str, alt: str) -> Explorer:
    """Return a slider over figures, and close the figures.

    Args:
        frames: figures by the value that the slider shows for them, in order.
        label: what the slider moves, for example "sparsity".
        alt: what the pictures show, for those who cannot see them; the value is added.

    Raises:
        ValueError: there is no figure.
    """
    if not frames:
        raise ValueError("An explorer needs at least one figure; an empty mapping was given.")
    labels = list(frames)
    # The same frames give the same id, so that notebooks do not change when they are run again.
    box = f"explorer-{uuid5(NAMESPACE_OID, label + alt + repr(labels)).hex[:12]}"
    images = "".join(
        f'<img src="data:image/png;base64,{encode(figure)}" data-label="{html.escape(name)}" '
        f'alt="{html.escape(f"{alt} {label}: {name}.")}"{" hidden" if i else ""}>'
        for i, (name, figure) in enumerate(frames.items())
    )
    head = (
        f'<label for="{box}-slider">{html.escape(label)}: <output>{html.escape(labels[0])}'
        f'</output></label><input id="{box}-slider" type="range" min="0" '
        f'max="{len(labels) - 1}" value="0" step="1" aria-valuetext="{html.escape(labels[0])}">'
    )
    return Explorer(
        f'<div class="pai-explorer" id="{box}">{head}{images}</div><script>{SCRIPT % box}</script>'
    )


def encode(figure: Figure) -> str:
    """Return a figure as PNG in base64, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
