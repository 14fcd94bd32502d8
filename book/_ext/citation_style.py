"""Lists of references are labelled by author and year, as the citations in the text are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style as UnsortedStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx

from tools.citations import reference


class AuthorYearLabels(BaseLabelStyle):
    """Labels such as "Lee et al., 2019"."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        """One label for each entry."""
        for entry in sorted_entries:
            found = reference(entry)
            yield f"{found.short}, {found.year}"


class AuthorYearStyle(UnsortedStyle):
    """The plain style, sorted and labelled by author and year."""

    default_sorting_style = "author_year_title"
    default_label_style = AuthorYearLabels


def setup(_app: Sphinx) -> dict[str, bool]:
    """Register the style under the name that `_config.yml` uses."""
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
