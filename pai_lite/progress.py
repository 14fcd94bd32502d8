"""Progress bars, on a terminal and in a notebook."""

from __future__ import annotations

import os
from typing import Any

from tqdm.auto import tqdm

from pai_lite.distributed import rank


def progress_bar(shown: bool, **options: Any) -> tqdm:
    """Return a progress bar, hidden where it is not wanted or TQDM_DISABLE is set.

    Of several processes that act as one, the first shows it.
    """
    # tqdm heeds that variable on a terminal, but not in a notebook.
    silenced = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(**options, disable=silenced or not shown or rank() > 0)
