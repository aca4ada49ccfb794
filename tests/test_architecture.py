"""docs/architecture.md: its picture is that of the contract, and every file that it names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_picture_is_that_of_the_contract() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "rooms.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_files_of_the_table_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [row for row in page.partition("## To change X, open Y")[2].splitlines() if row.startswith("| ")][2:]
    assert len(rows) >= 20
    for row in rows:
        folder = ""  # a name without a folder lies beside the one before it
        for name in re.findall(r"`([\w/]+\.(?:py|css))`", row.split("|")[2]):
            folder = name.rpartition("/")[0] if "/" in name else folder
            assert (ROOT / "solution" / name).is_file() or (ROOT / "solution" / folder / name).is_file(), name
