"""The scorecard: every claim with the verdict that the measured rows give it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tools import forest
from tools.cards import SCALES, badge, card
from tools.citations import Reference, read_references
from tools.claims import Claim, read_claims
from tools.evidence import FAILS, HOLDS, OPEN, PART, UNTESTED, Finding, judge
from tools.pictures import THEMES, save, shown_twice
from tools.site import bibliography_path, chapter_paths

NAMES = {"holds": HOLDS, "part": PART, "fails": FAILS, "open": OPEN, "untested": UNTESTED}
VERDICTS = tuple(NAMES.values())
IN_A_TABLE = re.compile(r"^\| `([a-z0-9-]+)` \|", re.MULTILINE)
#: Sources that are no papers: their heading, and what it is about.
OTHER_SOURCES = {
    "code": ("Public code", "What public code does otherwise than the papers say"),
    "book": ("This book", "What no source says in this form"),
}
PAGE = Path("book/scorecard.md")
FIGURES = Path("book/_figures")
TEMPLATE = Template(Path(__file__).with_name("scorecard_template.md").read_text(encoding="utf8"))


@dataclass(frozen=True)
class Judged:
    """A claim, the verdict that the rows give it, and what came of every check."""

    claim: Claim
    verdict: str
    findings: list[Finding]


def make_page(root: Path) -> str:
    """Return the page in Markdown."""
    judged = judge_all(root)
    references = read_references(bibliography_path(root))
    return TEMPLATE.substitute(
        intro=introduction(judged),
        counts=count_table(judged),
        not_run=not_run(judged),
        effects=sum(len(finding.effects) for it in judged for finding in it.findings),
        pictures=pictures(judged, references),
        claims_by_source="\n\n".join(sections(judged, references, chapters_by_claim(root))),
        **{name: badge(verdict) for name, verdict in NAMES.items()},
    )


def sections(
    judged: Sequence[Judged],
    references: dict[str, Reference],
    chapters: Mapping[str, Sequence[Path]],
) -> Iterator[str]:
    """Yield the heading of every source, and the cards of its claims."""
    for source, group in by_source(judged, references).items():
        yield source_head(source, group, references)
        for it in group:
            yield card(it.claim, it.verdict, it.findings, chapters.get(it.claim.id, []))


def draw_figures(root: Path) -> None:
    """Draw the pictures of all effects, where a book has claims."""
    if not (root / PAGE).exists():
        return
    references = read_references(bibliography_path(root))
    drawn = panels_by_source(judge_all(root), references)
    ends = forest.limits(panel for panels in drawn.values() for panel in panels)
    (root / FIGURES).mkdir(exist_ok=True)
    for source, panels in drawn.items():
        for theme in THEMES:
            figure = forest.draw(title(source, references), panels, ends, theme)
            save(figure, root / FIGURES / f"scorecard_{source}_{theme.name}.svg")


def judge_all(root: Path) -> list[Judged]:
    """Return all claims with their verdicts."""
    return [Judged(claim, *judge(claim, root)) for claim in read_claims(root)]


def chapters_by_claim(root: Path) -> dict[str, list[Path]]:
    """Return the chapters whose table names a claim."""
    found: dict[str, list[Path]] = {}
    for path in chapter_paths(root):
        for name in dict.fromkeys(IN_A_TABLE.findall(path.read_text(encoding="utf8"))):
            found.setdefault(name, []).append(path)
    return found


def by_source(
    judged: Iterable[Judged], references: dict[str, Reference]
) -> dict[str, list[Judged]]:
    """Return the claims of every source, the papers by year, and then what is no paper."""
    groups: dict[str, list[Judged]] = {}
    for it in judged:
        groups.setdefault(it.claim.source, []).append(it)
    years = {source: references[source].year for source in groups if source in references}
    order = sorted(groups, key=lambda key: (years.get(key, "9999"), title(key, references)))
    return {source: groups[source] for source in order}


def title(source: str, references: dict[str, Reference]) -> str:
    """Return a source as a heading names it."""
    if source not in references:
        return OTHER_SOURCES[source][0]
    return f"{references[source].short} ({references[source].year})"


def tally(judged: Iterable[Judged]) -> str:
    """Return the counts of verdicts in words, without those that do not occur."""
    counts = Counter(it.verdict for it in judged)
    return ", ".join(f"{verdict} {counts[verdict]}" for verdict in VERDICTS if counts[verdict])


def source_head(source: str, group: Sequence[Judged], references: dict[str, Reference]) -> str:
    """Return the heading of a source, with its counts."""
    cited = (
        f"{{cite:t}}`{source}`, *{references[source].title}*"
        if source in references
        else OTHER_SOURCES[source][1]
    )
    return f"### {title(source, references)}\n\n{cited}.\n{plural(group)}: {tally(group)}."


def plural(group: Sequence[Judged]) -> str:
    """Return how many claims there are."""
    return "1 claim" if len(group) == 1 else f"{len(group)} claims"


def links(group: Iterable[Judged]) -> str:
    """Return links to the claims of a group."""
    return ", ".join(f"[`{it.claim.id}`](#{it.claim.id})" for it in group)


def introduction(judged: Sequence[Judged]) -> str:
    """Return how many claims there are, and of how many papers."""
    sources = {it.claim.source for it in judged}
    others = [words for name, (words, _) in OTHER_SOURCES.items() if name in sources]
    named = [f"{len(sources - set(OTHER_SOURCES))} papers", *map(str.lower, others)]
    of = ", of ".join(named[:-1]) + f" and of {named[-1]}" if others else named[0]
    return f"{plural(judged)} of {of}, and what became of each when it was tested."


def headline(judged: Sequence[Judged]) -> str:
    """Return what became of all claims, as the README says it."""
    counts = Counter(it.verdict for it in judged)
    verdicts = ", ".join(f"{counts[verdict]} *{verdict}*" for verdict in VERDICTS)
    holding = Counter(it.claim.scale for it in judged if it.verdict == HOLDS)
    papers = sum(it.verdict != UNTESTED and it.claim.scale == "papers" for it in judged)
    return (
        f"The verdicts on {plural(judged)}: {verdicts}.\n{holding['identity']} of those that hold "
        f"are identities, {holding['examples']} are examples on small networks; {papers} verdicts "
        "rest on networks trained at the papers' scale."
    )


def count_table(judged: Sequence[Judged]) -> str:
    """Return the table of how many claims there are of every verdict and scale."""
    header = "| verdict | " + " | ".join([*SCALES, "all"]) + " |"
    rows = [header, "| --- |" + " ---: |" * (len(SCALES) + 1)]
    for verdict in VERDICTS:
        rows.append(count_row(badge(verdict), [it for it in judged if it.verdict == verdict]))
    return "\n".join([*rows, count_row("all", judged)])


def count_row(name: str, group: Sequence[Judged]) -> str:
    """Return a row of the table of counts."""
    counts = Counter(it.claim.scale for it in group)
    numbers = [*(counts[scale] for scale in SCALES), len(group)]
    return f"| {name} | " + " | ".join(map(str, numbers)) + " |"


def not_run(judged: Sequence[Judged]) -> str:
    """Return plainly what was not run, and what that leaves open."""
    untested = [it for it in judged if it.verdict == UNTESTED]
    tested = [it for it in judged if it.verdict != UNTESTED]
    papers = [it for it in tested if it.claim.scale == "papers"]
    small = [it for it in tested if it.claim.scale == "small"]
    lines = [
        f"Networks trained at the papers' scale decide {plural(papers)}: {links(papers)}."
        if papers
        else "No network was trained at the papers' scale: on the network and the data of the "
        "source, for as long as the source trains it.",
        f"Smaller networks, smaller data or shorter training decide {plural(small)}.\n"
        "Such a verdict says what happens there, and nothing certain about the source's own "
        "setting.",
    ]
    if untested:
        lines.append(f"Nothing at all was measured for {plural(untested)}: {links(untested)}.")
    return "\n\n".join(lines)


def panels_by_source(
    judged: Iterable[Judged], references: dict[str, Reference]
) -> dict[str, list[forest.Panel]]:
    """Return the panels of every source that has effects."""
    panels = {
        source: forest.panels([(it.claim, it.findings) for it in group])
        for source, group in by_source(judged, references).items()
    }
    return {source: drawn for source, drawn in panels.items() if drawn}


def pictures(judged: Sequence[Judged], references: dict[str, Reference]) -> str:
    """Return the pictures of all effects."""
    return "\n".join(
        shown_twice(f"scorecard_{source}", forest.alt_text(title(source, references), panels))
        for source, panels in panels_by_source(judged, references).items()
    )
