"""The claims of the papers: `book/claims.yml`, read and checked against its schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMA = json.loads(Path(__file__).with_name("claims.schema.json").read_text(encoding="utf8"))


@dataclass(frozen=True)
class Check:
    """One comparison that a claim makes, or the tests that show it.

    Attributes:
        says: what is checked, for a reader.
        tests: node ids of tests; they decide an identity.
        no_rows: columns and values that no row of any results file has: nothing was measured.
        results: names of the results files whose rows are compared.
        quantity: column that is compared.
        of, against: columns and values of the rows compared; without against, `of` stands alone.
        where: columns and lists of values; an effect is the mean over all combinations.
        each: one column and its values; the check is made for each of them.
        holds_in: range in which the claim puts the effect; None is unbounded, and the other end
            is then not in the range.
    """

    says: str
    tests: tuple[str, ...] = ()
    no_rows: dict[str, Any] | None = None
    results: tuple[str, ...] = ()
    quantity: str = ""
    of: dict[str, Any] | None = None
    against: dict[str, Any] | None = None
    where: dict[str, list[Any]] | None = None
    each: dict[str, list[Any]] | None = None
    holds_in: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Claim:
    """What a source claims, on what, and our verdict.

    Attributes:
        source: key of the bibliography, "code" for public code, or "book" for our own.
        numbers: the source's own numbers, or "".
        scale: "identity" holds at any scale; "examples" is of a few small networks, in tests;
            "masks" is of the papers' networks, without training; "small" is of small networks or
            data; "papers" is of their networks and data.
        note: what may explain a difference, or "".
    """

    id: str
    source: str
    where: str
    claim: str
    made_on: str
    scale: str
    verdict: str
    checks: tuple[Check, ...]
    numbers: str = ""
    note: str = ""


def read_claims(root: Path) -> list[Claim]:
    """Return the claims of `book/claims.yml`, in its order.

    Raises:
        ValueError: the file does not fit the schema, or an id stands there twice.
    """
    path = root / "book" / "claims.yml"
    entries = yaml.safe_load(path.read_text(encoding="utf8"))
    check_schema(entries, path)
    ids = [entry["id"] for entry in entries]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise ValueError(f"{path}: {', '.join(sorted(twice))} stands there twice; keep one.")
    return [read_claim(entry) for entry in entries]


def check_schema(entries: Any, path: Path) -> None:
    """Raise a ``ValueError`` that names the claim and the field that do not fit the schema."""
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(entries)
    worst = jsonschema.exceptions.best_match(errors)
    if worst is None:
        return
    place = list(worst.absolute_path)
    entry = entries[place[0]] if place else {}
    name = entry.get("id", f"entry {place[0] + 1}") if place else "the file"
    field = " ".join(map(str, place[1:])) or "its fields"
    raise ValueError(f"{path}, {name}, {field}: {worst.message}")


def read_claim(entry: dict[str, Any]) -> Claim:
    """Return the claim of an entry that fits the schema."""
    return Claim(**{**entry, "checks": tuple(read_check(check) for check in entry["checks"])})


def read_check(entry: dict[str, Any]) -> Check:
    """Return the check of an entry; single values become lists of one."""
    fields = dict(entry)
    for name in ("tests", "results"):
        fields[name] = tuple(as_list(entry.get(name, [])))
    for name in ("where", "each"):
        fields[name] = {key: as_list(value) for key, value in entry.get(name, {}).items()}
    fields["holds_in"] = tuple(entry.get("holds_in", (None, None)))
    return Check(**fields)


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as a list of one."""
    return value if isinstance(value, list) else [value]
