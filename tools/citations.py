"""Citations in words: author and year, with a link, from the BibTeX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pybtex.database import Entry, Person, parse_file
from pybtex.exceptions import PybtexError
from pybtex.richtext import Text


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography, ready for Markdown."""

    short: str
    authors: str
    year: str
    title: str
    venue: str
    url: str

    def parenthetical(self) -> str:
        """`Lee et al., 2019`, linked when there is an address."""
        return self._linked(f"{self.short}, {self.year}")

    def textual(self) -> str:
        """`Lee et al. (2019)`, linked when there is an address."""
        return self._linked(f"{self.short} ({self.year})")

    def full(self) -> str:
        """The entry in a list of references."""
        ending = f" {self.venue}." if self.venue else ""
        return f"{self.authors} ({self.year}). {self._linked(self.title)}.{ending}"

    def _linked(self, text: str) -> str:
        return f"[{text}]({self.url})" if self.url else text


def read_references(path: Path) -> dict[str, Reference]:
    """The entries of a BibTeX file by key; none when there is no file."""
    if not path.exists():
        return {}
    try:
        entries = parse_file(str(path)).entries
    except PybtexError as error:
        raise ValueError(f"{path}: {error}; mend the entry") from error
    return {key: reference(entry) for key, entry in entries.items()}


def reference(entry: Entry) -> Reference:
    """An entry of the bibliography in words."""
    people = entry.persons.get("author", [])
    surnames = [_plain(" ".join(p.prelast_names + p.last_names)) for p in people]
    venue = entry.fields.get("booktitle") or entry.fields.get("journal") or ""
    return Reference(
        short=surnames[0] + " et al." if len(surnames) > 2 else " and ".join(surnames),
        authors=_listed([_name(person) for person in people]),
        year=entry.fields.get("year", "n.d."),
        title=_plain(entry.fields["title"]),
        venue=_plain(venue),
        url=_url(entry),
    )


def _plain(latex: str) -> str:
    return str(Text.from_latex(latex))


def _name(person: Person) -> str:
    parts = person.first_names + person.middle_names + person.prelast_names + person.last_names
    return _plain(" ".join(parts))


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _url(entry: Entry) -> str:
    fields = entry.fields
    if "url" in fields:
        return fields["url"]
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    return f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else ""
