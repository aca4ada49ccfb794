"""The passages of a large exam's contexts, read from disk question by question: their texts are never all in memory.

Beside `contexts-KEY.parquet`, which is compressed and read from front to end, lies the same in an Arrow file, mapped
into memory: there any question is read at once.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from solution.exam import ContextPassage
from solution.files import SCHEMA, atomic_file

LARGE = 16_384
"""Questions whose contexts are made, and kept in memory, together; of more they are read from disk."""
BATCH = 4096
"""Rows of a record batch."""
_METADATA = b"solution"


class StoredPassages(Sequence[list[ContextPassage]]):
    """The passages of each of n questions, in an Arrow file.

    Args:
        path: of the file.
        rows: int64 [n], the row of each question.
        key: names the content of the whole file.
    """

    def __init__(self, path: Path, rows: np.ndarray, key: str):
        self._path, self._rows, self.key = path, rows, key

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> list[ContextPassage]: ...
    @overload
    def __getitem__(self, place: slice) -> StoredPassages: ...
    def __getitem__(self, place: int | slice) -> list[ContextPassage] | StoredPassages:
        if isinstance(place, slice):
            return StoredPassages(self._path, self._rows[place], self.key)
        batch, inside = divmod(int(self._rows[place]), BATCH)
        found = _batch(self._path, batch).column(0)[inside].as_py()
        return [ContextPassage(**passage) for passage in found]

    def __iter__(self) -> Iterator[list[ContextPassage]]:
        return (self[place] for place in range(len(self)))

    def subset(self, rows: Sequence[int]) -> StoredPassages:
        """Those at these places."""
        return StoredPassages(self._path, self._rows[np.asarray(rows, dtype=np.int64)], self.key)

    @property
    def identity(self) -> list[Any]:
        """A JSON value that is another where any passage is another."""
        return [self.key, self._rows.tolist()]


@functools.lru_cache(maxsize=128)
def _batch(path: Path, number: int) -> Any:
    """A record batch of the file; its texts stay on disk until they are looked at."""
    return _reader(path).get_batch(number)


@functools.lru_cache(maxsize=8)
def _reader(path: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path)))


def arrow_path(parquet: Path) -> Path:
    """The place of the Arrow file of a file of contexts."""
    return parquet.with_suffix(".arrow")


def is_stored_passages(path: Path, key: str) -> bool:
    """Whether an Arrow file is there and holds this content; see `StoredPassages.key`."""
    import pyarrow as pa

    try:
        metadata = _reader(path).schema.metadata or {}
        return bool(json.loads(metadata[_METADATA]) == {"schema": SCHEMA, "key": key})
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return False


def write_passages(path: Path, batches: Iterator[Any], key: str) -> None:
    """Write the passages of the record batches of a file of contexts, each of `BATCH` rows, the last of the rest."""
    import pyarrow as pa

    _reader.cache_clear()
    _batch.cache_clear()
    about = {_METADATA: json.dumps({"schema": SCHEMA, "key": key}).encode()}
    with atomic_file(path) as temporary:
        schema = pa.schema([pa.field("passages", passages_type())], metadata=about)
        with pa.ipc.new_file(str(temporary), schema) as writer:
            for batch in batches:
                writer.write_batch(pa.record_batch([batch.column("passages")], schema=schema))


def passages_type() -> Any:
    """The Arrow type of a question's passages."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("id", "title", "text")]
    return pa.list_(pa.struct([*texts, ("score", pa.float64()), ("retriever", pa.string())]))


def even_batches(file: Any) -> Iterator[Any]:
    """The rows of a parquet file in record batches of `BATCH`, the last of the rest."""
    import pyarrow as pa

    # Its own batches end where a row group does: what is left of one is joined with the next.
    left = None
    for batch in file.iter_batches(BATCH):
        table = pa.Table.from_batches([batch])
        table = table if left is None else pa.concat_tables([left, table])
        while len(table) >= BATCH:
            yield _joined(table.slice(0, BATCH))
            table = table.slice(BATCH)
        left = table
    if left is not None and len(left):
        yield _joined(left)


def _joined(table: Any) -> Any:
    return table.combine_chunks().to_batches()[0]
