"""The role `source`: a link to a file of the repository.

    {source}`book/results/digits.csv` or {source}`the rows <book/results/digits.csv>`

The address of the repository stands in `_config.yml` alone.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import ReferenceRole

from tools.site import source_url


class Source(ReferenceRole):
    """Make the link, and warn where there is no such file."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the link."""
        root = Path(self.env.srcdir)
        if not (root / self.target).is_file():
            message = f"There is no file {self.target} in the repository; mend its path."
            return [], [self.inliner.reporter.warning(message, line=self.lineno)]
        link = nodes.reference("", "", refuri=source_url(self.target, root))
        link += nodes.Text(self.title) if self.has_explicit_title else nodes.literal("", self.title)
        return [link], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the role."""
    app.add_role("source", Source())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
