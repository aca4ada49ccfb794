"""A part of a page in docs/ that a script draws, between two comments."""

from __future__ import annotations

import sys
from pathlib import Path


def redraw(page: Path, begin: str, end: str, drawn: str, complaint: str) -> int:
    """Put `drawn` between the comments of the page; with --check only say if it is old.

    Returns:
        The exit code: 1 where it was asked for a check, and the page is old (`complaint` is printed).
    """
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    new = f"{before}{begin}\n{drawn}\n{end}{after}"
    if "--check" in sys.argv[1:]:
        if new != text:
            print(f"{page.name}: {complaint}", file=sys.stderr)
        return int(new != text)
    page.write_text(new, encoding="utf-8")
    return 0
