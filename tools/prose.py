"""Which measured numbers of a page's prose are tied to something, and which are not.

A number is measured when it stands before "%", "points", "times" or a unit of time, in "x of y",
or has a decimal point. It is tied when one of these holds:

* its sentence (a line of the source, a caption, or a cell of a table) cites a source;
* a claim that its paragraph or its row of a table names by id has the number in its `claim` or
  its `numbers`;
* it has a decimal point, and an output shows it, to the precision written;
* it is a whole percentage, and an output or the code has it;
* it is another number, and an assertion has it as a bound;
* it has no unit and a decimal point, or is a number of points, and the code sets it, points as
  a fraction;
* it stands in an exercise, which may invent its numbers; or in a solution, and the text of an
  exercise or the code of a solution has it.

Code and outputs are those of the same section in the stored notebook; sections that look back,
such as "Claims and findings", may use the whole chapter. Percentages and points are also looked
for as fractions. A formula is not prose, so exact arithmetic stands in one: $3 / 8 = 0.375$.

The limits: equal digits may belong to something else, and whole numbers without such a unit are
not looked at. So this finds numbers that come from nowhere; it cannot tell that a number stands
in the wrong sentence.

python -m tools.prose [page ...]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tools.grounds import DIGITS, Grounds, read_claimed, read_given, read_grounds
from tools.passages import Passage, read_passages
from tools.site import ROOT, chapter_paths

_ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_ONES += " fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {word: Decimal(value) for value, word in enumerate(_ONES.split(), 1)}
WORDS |= {word: Decimal(10 * value) for value, word in enumerate(_TENS.split(), 2)}
WORDS |= {"half": Decimal("0.5"), "hundred": Decimal(100), "thousand": Decimal(1000)}
_WORD = rf"(?:{'|'.join(WORDS)})\b"
_NUMBER = rf"(?<![\w.-])(?:{DIGITS}|{_WORD})"
_NEXT = rf"(?:,? (?:and|or|to|against) |, | ?/ ?|\s?[–-]\s?)(?:{DIGITS}|{_WORD})"
_UNIT = (
    r"%|percent\b|(?:percentage |accuracy |full |more )?points?\b|times\b|[x×](?!\w)"
    r"|(?:milli)?seconds?\b|minutes?\b|hours?\b"
)
_EACH = re.compile(rf"{DIGITS}|\b{_WORD}", re.IGNORECASE)
_MEASURED = re.compile(
    rf"(?P<numbers>{_NUMBER}(?:{_NEXT})*)(?: an?)?[\s-]?(?P<unit>{_UNIT})"
    rf"|(?P<part>{_NUMBER})\s(?:out\s)?of\s(?:(?:the|these|those|all)\s)?{_NUMBER}"
    r"|(?<!ection )(?<!ppendix )(?<!able )(?<!ython )(?<![\w.-])\d+\.\d+(?!\w|\.\d)",
    re.IGNORECASE,
)
HOW = (
    "cite its source in this sentence, name the claim that holds it, let a cell of this section "
    "print it or assert it as a bound, or word the sentence without it"
)


@dataclass(frozen=True)
class Measured:
    """A number of the prose with its unit, as written; `phrase` is what it stands in."""

    line: int
    number: str
    unit: str
    phrase: str
    passage: Passage

    @property
    def values(self) -> set[Decimal]:
        """What the number says; of percentages and points, the fraction as well."""
        value = WORDS.get(self.number.lower()) or Decimal(self.number.replace(",", ""))
        return {value, value.scaleb(-2)} if self.is_share else {value}

    @property
    def is_share(self) -> bool:
        """Whether it may also be written as a fraction."""
        return self.unit == "%" or "point" in self.unit


def measured_numbers(page: Path) -> list[Measured]:
    """The measured numbers in a page's prose."""
    return [found for passage in read_passages(page) for found in _in_passage(passage)]


def untied(page: Path, root: Path = ROOT) -> list[str]:
    """A sentence for every measured number of a page that is tied to nothing."""
    grounds, claimed, given = read_grounds(page, root), read_claimed(root), read_given(page)
    return [
        f"{page.relative_to(root)}:{found.line}: {found.number!r} in {found.phrase!r} "
        f"is tied to nothing: {HOW}"
        for found in measured_numbers(page)
        if not (
            is_cited(found, claimed)
            or is_grounded(found, grounds.get(found.passage.section, Grounds()))
            or (found.passage.given and found.values & given)
        )
    ]


def is_cited(found: Measured, claimed: dict[str, frozenset[Decimal]]) -> bool:
    """Whether the sentence cites a source, or the passage names a claim that holds the number."""
    sentence = found.passage.source.splitlines()[found.line - found.passage.line]
    named = found.passage.named & claimed.keys()
    return "{cite" in sentence or any(found.values & claimed[name] for name in named)


def is_grounded(found: Measured, grounds: Grounds) -> bool:
    """Whether the code of the section shows, sets or asserts the number."""
    values, decimal = found.values, "." in found.number
    if values & grounds.bounds:
        return True
    if found.unit == "%" and not decimal:
        return bool(values & (grounds.settings | grounds.outputs))
    if decimal and any(_rounds_to(shown, value) for shown in grounds.outputs for value in values):
        return True
    typed = {min(values)} if "point" in found.unit else values
    return found.unit in ("", "point", "points") and bool(typed & grounds.settings)


def _in_passage(passage: Passage) -> Iterator[Measured]:
    for found in _MEASURED.finditer(passage.words):
        line = passage.line + passage.words.count("\n", 0, found.start())
        if (found["part"] or "").lower() == "one":
            continue  # "one of two" is a way of speaking
        phrase, unit = " ".join(found[0].split()), _unit(found)
        for number in _EACH.findall(found["numbers"] or found[0]):
            yield Measured(line, number, unit, phrase, passage)


def _unit(found: re.Match[str]) -> str:
    """The last word of the unit; "of" in "x of y"; empty for a number that stands alone."""
    last = (found["unit"] or "").lower().split()[-1:] or ["of" if found["part"] else ""]
    return "%" if last == ["percent"] else last[0]


def _rounds_to(shown: Decimal, value: Decimal) -> bool:
    """Whether an output says the value, at the precision in which the value is written."""
    places = value.as_tuple().exponent
    near = abs(shown - value) * 2 <= Decimal(1).scaleb(places)
    return near and shown.as_tuple().exponent <= places


def main() -> int:
    """The command line: list what is untied in the pages named, or in all chapters."""
    pages = [Path(name).resolve() for name in sys.argv[1:]] or chapter_paths()
    found = [message for page in pages for message in untied(page)]
    print("\n".join(found) or "Every measured number is tied to something.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
