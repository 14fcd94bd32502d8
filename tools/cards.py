"""One claim of the scorecard: what is claimed, what was found, and where to look."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import indent

import pandas as pd

from tools.claims import Claim
from tools.evidence import HOLDS, UNTESTED, Effect, Finding
from tools.shown import effect_words, number, range_words, shown, unit

SCALES = {
    "identity": "identity, at any scale",
    "examples": "examples, on small networks",
    "masks": "masks of the papers' networks",
    "small": "smaller networks or data",
    "papers": "the papers' networks and data",
}
DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar10-jpeg": "CIFAR-10 (JPEG)"}
VISIBLE = 4  # checks that are not folded away


def card(claim: Claim, verdict: str, findings: Sequence[Finding], chapters: Sequence[Path]) -> str:
    """Return the section of a claim."""
    lines = [check_item(finding) for finding in findings]
    hidden = lines[VISIBLE:]
    parts = [
        f"#### `{claim.id}`",
        badge_line(claim, verdict),
        claim.claim,
        "\n".join(lines[:VISIBLE]),
        folded(f"{len(hidden)} more {'check' if len(hidden) == 1 else 'checks'}", hidden),
        f"*{'Where' if claim.source == 'code' else 'Claimed'}.* {sentence(claimed(claim))}",
        f"*Measured.* {sentence(measured(findings))}" if measured(findings) else "",
        f"*Note.* {claim.note}" if claim.note else "",
        "*See.* " + " · ".join([*chapter_links(chapters), *file_links(findings)]),
    ]
    return "\n\n".join(part for part in parts if part)


def badge(outcome: str) -> str:
    """Return an outcome in bold, for the style sheet to colour and to mark."""
    return f'<b class="outcome {outcome.replace(" ", "-")}">{outcome}</b>'


def badge_line(claim: Claim, verdict: str) -> str:
    """Return the verdict and the scale; the filters read them here."""
    data = {"verdict": verdict, "scale": claim.scale, "source": claim.source}
    fields = " ".join(f'data-{name}="{html.escape(value)}"' for name, value in data.items())
    scale = "" if verdict == UNTESTED else f" · {SCALES[claim.scale]}"
    return f'<p class="claim-verdict" {fields}>{badge(verdict)}{scale}</p>'


def check_item(finding: Finding) -> str:
    """Return what a check found, with its effects folded away below, as an item of a list."""
    line = check_line(finding)
    return f"{line}\n\n{indent(effects_of(finding), '  ')}\n" if len(finding.effects) > 1 else line


def check_line(finding: Finding) -> str:
    """Return what a check found in one line."""
    check, effects = finding.check, finding.effects
    start = f"- {badge(finding.outcome)} {check.says}"
    if check.tests:
        tests = (test.split("::") for test in check.tests)
        links = [f"{{source}}`{name} <{path}>`" for path, name in tests]
        return f"{start}: {', '.join(links)}"
    if not effects:
        return start
    if len(effects) == 1:
        return f"{start}: {found(effects[0], finding)}; claimed: {range_words(check)}"
    holding = sum(effect.outcome == HOLDS for effect in effects)
    means = sorted(shown(effect, check).mean for effect in effects)
    least, most = (number(mean, 2, bool(check.against)) for mean in (means[0], means[-1]))
    span = f"all means {least}" if least == most else f"means from {least} to {most}"
    return (
        f"{start}: {holding} of {len(effects)} hold, {span}{unit(check)}; "
        f"claimed: {range_words(check)}"
    )


def found(effect: Effect, finding: Finding) -> str:
    """Return the mean of an effect, its interval, and its seeds."""
    return f"**{effect_words(effect, finding.check)}**, {effect.seeds} seeds"


def effects_of(finding: Finding) -> str:
    """Return all effects of a check, folded away."""
    names = [name for name in finding.check.each or {} if name != "method"]
    lines = [
        f"- {badge(effect.outcome)} {' '.join([*names, effect.name])}: {found(effect, finding)}"
        for effect in finding.effects
    ]
    return folded(f"{len(lines)} effects", lines)


def folded(summary: str, lines: Sequence[str]) -> str:
    """Return a list behind a line that opens it; nothing for an empty list."""
    body = "\n".join(lines)
    text = f"<details>\n<summary>{html.escape(summary)}</summary>\n\n{body}\n\n</details>"
    return text if lines else ""


def claimed(claim: Claim) -> str:
    """Return where the source claims it, on what, and with which numbers."""
    where = claim.where  # names of repositories keep their letters
    if claim.source != "code":
        where = where[:1].upper() + where[1:]
    place = f"{where}, on {claim.made_on}"
    return f"{place}: {claim.numbers}" if claim.numbers else place


def sentence(text: str) -> str:
    """Return a text that ends with a full stop."""
    return text if text.endswith(".") else f"{text}."


def measured(findings: Iterable[Finding]) -> str:
    """Return what the rows were measured on: network, data, epochs, seeds, how many, hardware."""
    rows = [effect.rows for finding in findings for effect in finding.effects]
    if not rows:
        return ""
    frame = pd.concat(rows).drop_duplicates()
    frame = frame.reindex(columns=[*frame, *({"epochs", "hardware"} - set(frame))])
    return "; ".join(
        group_words(*names, group)
        for names, group in frame.groupby(["model", "data", "epochs"], dropna=False, sort=False)
    )


def group_words(model: str, data: str, epochs: float, rows: pd.DataFrame) -> str:
    """Return what the rows of one network and data set were measured on."""
    trained = f"{epochs:.0f} epochs, " if pd.notna(epochs) else ""
    what = "networks" if trained else "masks"
    hardware = ", ".join(sorted(rows["hardware"].dropna().unique())) or "hardware not noted"
    seeds = rows["seed"].nunique()
    return (
        f"`{model}` on {DATA.get(data, data)}: {trained}{seeds} seeds, {len(rows)} {what}, "
        f"{hardware}"
    )


def chapter_links(chapters: Iterable[Path]) -> list[str]:
    """Return links to the tables of claims of chapters."""
    return [
        f"[Chapter {int(path.stem[:2])}](chapters/{path.name}#claims-and-findings)"
        for path in chapters
    ]


def file_links(findings: Iterable[Finding]) -> list[str]:
    """Return links to the files of rows behind the findings."""
    names = dict.fromkeys(name for finding in findings for name in finding.check.results)
    return [f"{{source}}`{name}.csv <book/results/{name}.csv>`" for name in names]
