"""Run the code cells of a notebook in one process, in order, as Jupyter does: python notebook_cells.py NOTEBOOK."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    notebook = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    names = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
