"""The picture in docs/architecture.md, drawn from the layers contract in setup.cfg. With --check: say if it is old.

usage: python docs/rooms.py [--check]
"""

from __future__ import annotations

import configparser
import sys
from pathlib import Path

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


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    drawn = f"{before}{BEGIN}\n{picture()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if drawn != page:
            print(f"{PAGE.name}: the picture is not that of setup.cfg; run: python docs/rooms.py", file=sys.stderr)
        return int(drawn != page)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
