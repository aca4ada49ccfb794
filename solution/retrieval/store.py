"""The passages of an index by row: read from their file when they are asked for, so that any number of them fits."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from solution.errors import UserError
from solution.retrieval.passages import Passage

PASSAGES = "passages.parquet"
COLUMNS = ["id", "title", "text"]
_GROUPS_KEPT = 32  # of 4,096 passages: about 100 MiB


class Passages(Sequence[Passage]):
    """The passages in a parquet file that `shards.write_passages` wrote.

    A row group is read whole, and the last ones stay in memory: ask for many passages together (`take`).

    Args:
        remedy: what to do when the file cannot be read.

    Raises:
        UserError: the file cannot be read, here or later.
    """

    def __init__(self, path: Path, remedy: str):
        import pyarrow.parquet as pq

        self._path, self._remedy = path, remedy
        with self._readable():
            self._file = pq.ParquetFile(path, memory_map=True)
            if lacking := set(COLUMNS) - set(self._file.schema_arrow.names):
                raise ValueError(f"it has no column {min(lacking)}")
            metadata = self._file.metadata
            counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, row: int) -> Passage: ...
    @overload
    def __getitem__(self, row: slice) -> list[Passage]: ...
    def __getitem__(self, row: int | slice) -> Passage | list[Passage]:
        if isinstance(row, slice):
            return self.take(range(*row.indices(len(self))))
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        return self.take([int(row) % len(self)])[0]

    def take(self, rows: Iterable[int]) -> list[Passage]:
        """The passages of these rows (not negative), in their order; each row group is read once."""
        asked = np.fromiter(rows, dtype=np.int64)
        groups = np.searchsorted(self._starts, asked, side="right") - 1
        passages: list[Any] = [None] * len(asked)
        for group in np.unique(groups).tolist():
            columns = self._columns(group)
            for place in np.flatnonzero(groups == group).tolist():
                inside = int(asked[place] - self._starts[group])
                passages[place] = Passage(*(column[inside].as_py() for column in columns))
        return passages

    def same_ids(self, other: Passages) -> bool:
        """Whether these are the passages of `other`, by their ids, which are compared a row group at a time."""
        if not np.array_equal(self._starts, other._starts):
            return False
        return all(mine.equals(theirs) for mine, theirs in zip(self._ids(), other._ids(), strict=True))

    def rows_of_documents(self, documents: Iterable[str]) -> dict[str, np.ndarray]:
        """int64 [p] for each of these documents that has passages: their rows (see `passages.split_passages`)."""
        wanted = set(documents)
        rows: dict[str, list[int]] = {}
        for group, ids in enumerate(self._ids()):
            for place, id_ in enumerate(ids.to_pylist()):
                document = id_ if id_ in wanted else id_.rpartition("#")[0]
                if document in wanted:
                    rows.setdefault(document, []).append(int(self._starts[group]) + place)
        return {document: np.array(places, dtype=np.int64) for document, places in rows.items()}

    def _ids(self) -> Iterator[Any]:
        for group in range(len(self._starts) - 1):
            yield self._read(group, ["id"])[0]

    def _columns(self, group: int) -> list[Any]:
        if group not in self._kept:
            self._kept[group] = self._read(group, COLUMNS)
            while len(self._kept) > _GROUPS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]

    def _read(self, group: int, columns: list[str]) -> list[Any]:
        with self._readable():
            table = self._file.read_row_group(group, columns=columns)
            return [table.column(name).combine_chunks() for name in columns]

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            message = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{self._path} is corrupt ({message}). {self._remedy}") from None
