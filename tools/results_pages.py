"""Write the pages of the book that are made from measured results.

python -m tools.results_pages [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pai_lite.files import whole_file
from tools import atlas, method_cards, scorecard
from tools.site import ROOT

#: What makes each page, by its path in the repository.
PAGES: dict[Path, Callable[[Path], str]] = {
    scorecard.PAGE: scorecard.make_page,
    atlas.PAGE: atlas.make_page,
    method_cards.PAGE: method_cards.make_page,
}


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the pages made from results.")
    parser.add_argument("--check", action="store_true", help="write nothing; list what is stale")
    check = parser.parse_args(arguments).check
    try:
        stale = stale_pages(ROOT)
        for page in stale:
            print(f"stale: {page}")
            if not check:
                write_page(page, ROOT)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return int(check and bool(stale))


def stale_pages(root: Path) -> list[str]:
    """The pages that are not what the results say; none where there are no claims."""
    if not (root / "book" / "claims.yml").exists():
        return []
    return [str(page) for page, make in PAGES.items() if stored(root / page) != make(root)]


def stored(path: Path) -> str | None:
    """The text of a page, or None where there is no such page."""
    return path.read_text(encoding="utf8") if path.exists() else None


def write_page(page: str, root: Path) -> None:
    """Write one page: the whole of it or nothing."""
    with whole_file(root / page) as temporary:
        temporary.write_text(PAGES[Path(page)](root), encoding="utf8")


if __name__ == "__main__":
    sys.exit(main())
