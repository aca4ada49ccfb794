"""What a reader of a corpus file gives: rows, whose cells have the same names whatever the form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.tables import listed

TEXT_COLUMNS = ("text", "passage", "content", "extract", "contents", "body", "page_content")
ID_COLUMNS = ("id", "_id")
COLUMNS = (*TEXT_COLUMNS, "title", "section", *ID_COLUMNS, "url")


class NotCorpus(UserError):
    """A file that is whole and holds no text for a corpus: in a folder it is left out."""


class NoTextColumn(NotCorpus):
    """A table that has no column of texts."""


@dataclass(frozen=True)
class Row:
    """A row of a corpus file.

    Attributes:
        where: its place in the file ("line 7").
        cells: `text` (or another of `TEXT_COLUMNS`) and what else is known of `id` (or `_id`), `title`, `section`,
            `url`; from a dump also `namespace`, `category` and `template`.
        is_article: of an encyclopedia, whatever its cells say.
    """

    path: Path
    where: str
    cells: Mapping[str, Any]
    is_article: bool = False


def text_column(cells: Iterable[str], where: str) -> str:
    """The name of the cell that holds the text.

    Raises:
        NoTextColumn: there is none.
    """
    names = list(cells)
    for name in TEXT_COLUMNS:
        if name in names:
            return name
    columns = f"{', '.join(TEXT_COLUMNS[:-1])} or {TEXT_COLUMNS[-1]}"
    raise NoTextColumn(f"the corpus {where}: no column {columns}; it has {listed(names)}")


def usual_names(names: Iterable[str]) -> dict[str, str]:
    """The names that are one of `COLUMNS` but for case and spaces ("Text", " Title"), with that column.

    None where a column of texts has its usual name: the first version read such tables without the others.
    """
    names = list(names)
    if any(name in names for name in TEXT_COLUMNS):
        return {}
    usual = {name: name.strip().casefold() for name in names if isinstance(name, str)}
    return {name: other for name, other in usual.items() if other != name and other in COLUMNS and other not in names}
