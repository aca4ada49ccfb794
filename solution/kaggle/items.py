"""The files that a bundle is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solution.files import MANIFEST, read_json


@dataclass(frozen=True)
class Item:
    """A file of the bundle.

    Attributes:
        target: its place in the bundle, with "/".
        link: whether a second name will do, since the file is never written again.
    """

    source: Path
    target: str
    link: bool = False


def folder_items(folder: Path, target: str, link: bool) -> list[Item]:
    """The files that a folder's manifest names, and the manifest."""
    names = [*read_json(folder / MANIFEST, "the manifest", "")["files"], MANIFEST]
    return [Item(folder / name, f"{target}/{name}", link) for name in names]


def tail(text: str, lines: int) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
