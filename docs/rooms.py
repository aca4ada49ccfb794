"""The picture in docs/architecture.md, drawn from the layers contract in setup.cfg. With --check: say if it is old.

usage: python docs/rooms.py [--check]
"""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

from drawn import redraw

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by docs/rooms.py -->", "<!-- end of the picture -->"


def layers() -> list[list[str]]:
    """The rooms of each layer, from the top."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["importlinter:contract:layers"]["layers"].split("\n")
    return [[room.strip() for room in line.replace(":", "|").split("|")] for line in lines if line.strip()]


def picture() -> str:
    """The layers as a Mermaid flow chart: an arrow means "may import from this layer and from all below it"."""
    rooms = [" · ".join(layer) for layer in layers()]
    boxes = [f'  layer{number}["{names}"]' for number, names in enumerate(rooms)]
    arrows = [f"  layer{number} --> layer{number + 1}" for number in range(len(rooms) - 1)]
    return "\n".join(["```mermaid", "flowchart TB", *boxes, *arrows, "```"])


if __name__ == "__main__":
    sys.exit(redraw(PAGE, BEGIN, END, picture(), "the picture is not that of setup.cfg; run: python docs/rooms.py"))
