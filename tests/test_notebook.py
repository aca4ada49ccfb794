"""The tutorial notebook: it runs, tiny, from its first cell to its last, and holds no outputs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import forked
from pipeline import ROOT

from solution.config import LoraSettings

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def test_the_notebook_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"TUTORIAL_FAST": "1", "TUTORIAL_FOLDER": str(tmp_path / "tutorial_run")}
    command = [str(ROOT / "tests" / "notebook_cells.py"), str(NOTEBOOK)]
    done = forked.run(command, tmp_path, environment, 600)
    assert done.returncode == 0, done.stderr[-3000:]
    by_hand, by_package = re.findall(r"by hand (\S+), by the package (\S+)", done.stdout)[0]
    assert by_hand == by_package
    assert "held out: MAP@3" in done.stdout
    assert len((tmp_path / "tutorial_run" / "submission.csv").read_text().splitlines()) == 6


def test_the_notebook_holds_no_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 15
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert not [name for name in LoraSettings.model_fields if f"| `{name}` |" not in text or f'"{name}": ' not in text]
    assert "find_spec" in "".join(code[0]["source"])  # installs the package where it is missing
