"""Drawn parts of the docs are those of their sources, and every file that docs/architecture.md names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("script", ["rooms.py", "experiments.py"])
def test_what_is_drawn_is_that_of_its_source(script: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / script, "--check"], capture_output=True, text=True)
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
