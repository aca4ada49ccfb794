"""Contexts as they are stored in `WORKDIR/cache`."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import ContextPassage, Contexts
from solution.files import SCHEMA, atomic_file, content_hash
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.contexts.stored import (
    LARGE,
    StoredPassages,
    arrow_path,
    even_batches,
    is_stored_passages,
    passages_type,
    write_passages,
)
from solution.statements import VERSION as STATEMENTS

KIND = "contexts"
_METADATA = b"solution"
_VERSION = 1  # of the way queries are made


def is_stored(config: RetrievalConfig) -> bool:
    """Whether contexts of these settings are stored: those that a search or a model made.

    Others are made from the questions alone, at once: source none has no passages, and source column without option
    scores has only the text of the column.
    """
    if config.source == "column":
        return bool(config.option_scores and config.embedder.strip())
    return config.source == "index"


def stored_contexts(workdir: Path, key: str, ids: Sequence[str]) -> Contexts | None:
    """The contexts of this key (`Contexts.key`) in the cache, in the order of `ids`.

    Nothing is hashed but the file itself, whatever the source of the contexts was. None when it is not there or not
    whole.
    """
    path = _path(workdir, key)
    return _read(path, key, ids) if path.exists() else None


def stored_keys(workdir: Path) -> list[str]:
    """The keys of all contexts in the cache, in alphabetical order."""
    return sorted(path.stem.removeprefix("contexts-") for path in (Path(workdir) / "cache").glob("contexts-*.parquet"))


def _path(workdir: Path, key: str) -> Path:
    return Path(workdir) / "cache" / f"contexts-{key}.parquet"


def _read(path: Path, key: str, ids: Sequence[str]) -> Contexts | None:
    """A whole file of contexts of these questions; None when it is not that."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            about = json.loads(file.metadata.metadata[_METADATA])
            whole = (about["schema"], about["kind"], about["key"]) == (SCHEMA, KIND, key)
            if not whole or file.metadata.num_rows != len(ids):
                return None
            if len(ids) > LARGE and about.get("signals") is None:
                return _read_large(path, file, about, ids)
            contexts = _contexts(file.read(), about)
        if about["hash"] == contexts.hash:
            row_of = {id_: row for row, id_ in enumerate(contexts.ids)}
            contexts = contexts.subset([row_of[id_] for id_ in ids])
            contexts.key = key
            return contexts
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _read_large(path: Path, file: Any, about: dict[str, Any], ids: Sequence[str]) -> Contexts | None:
    """Contexts whose passages stay on disk. Their texts are checked once, while they are unpacked."""
    arrow, found = arrow_path(path), content_hash(about["key"], about["hash"])
    if not is_stored_passages(arrow, found):
        write_passages(arrow, _checked(file, about), found)
    kinds = about["kinds"]
    table = file.read(columns=["id", *(f"option_{kind}" for kind in kinds)])
    row_of = {id_: row for row, id_ in enumerate(table.column("id").to_pylist())}
    rows = np.array([row_of[id_] for id_ in ids], dtype=np.int64)
    scores = {kind: _table(table, f"option_{kind}")[rows] for kind in kinds}
    return Contexts(list(ids), StoredPassages(arrow, rows, found), scores, about["key"])


def _checked(file: Any, about: dict[str, Any]) -> Iterator[Any]:
    """The record batches of a file.

    Raises:
        ValueError: behind the last one, where they are not those that were written.
    """
    hashes: list[tuple[str, str]] = []
    for batch in even_batches(file):
        hashes += _contexts(batch, about).row_hashes()
        yield batch
    if content_hash(sorted(hashes)) != about["hash"]:
        raise ValueError("other rows than those that were written")


def _contexts(table: Any, about: dict[str, Any]) -> Contexts:
    """The contexts of a table or a record batch, in its order."""
    passages = [[ContextPassage(**p) for p in question] for question in table.column("passages").to_pylist()]
    scores = {kind: _table(table, f"option_{kind}") for kind in about["kinds"]}
    signals = {name: _table(table, f"signal_{name}") for name in about.get("signals", [])}
    return Contexts(table.column("id").to_pylist(), passages, scores, about["key"], signals, about.get("seconds"))


def _table(table: Any, column: str) -> np.ndarray:
    """A column of lists that are equally long, float32 [n, width]."""
    return np.array(table.column(column).to_pylist(), dtype=np.float32)


class ContextCache:
    """One exam's contexts in a parquet file, named by all that they depend on.

    Args:
        about: what they depend on beside the questions, their source and the option scores.
    """

    def __init__(self, questions: Questions, config: RetrievalConfig, workdir: Path, about: dict[str, Any]):
        self._ids, self._width = questions.ids, questions.max_options
        self._kinds = sorted(set(config.option_scores))
        about = {"version": _VERSION, "source": config.source, "option_scores": self._kinds, **about}
        if config.statements:
            about["statements"] = STATEMENTS
        if "sentence" in self._kinds:
            about["sentence_passages"] = config.sentence_passages
        self.key = content_hash(questions.content_hash(with_answers=False), about)
        self._workdir, self.path = workdir, _path(workdir, self.key)

    def part(self, about: dict[str, Any]) -> ContextCache:
        """The place of contexts of which only a part was made; `about` says which."""
        place = copy.copy(self)
        place.key = content_hash(self.key, about)
        place.path = _path(self._workdir, place.key)
        return place

    def read(self) -> Contexts | None:
        """The contexts, in the order of the questions; None when they are not there or not whole."""
        if not self.path.exists():
            return None
        contexts = _read(self.path, self.key, self._ids)
        if contexts is not None:
            shapes = {table.shape for table in (*contexts.option_scores.values(), *contexts.signals.values())}
            if shapes <= {(len(self._ids), self._width)}:
                return contexts
        say(f"the contexts in {self.path} are corrupt and are made again")
        return None

    def write(self, contexts: Contexts) -> None:
        self.write_parts([contexts])

    def write_parts(self, parts: Iterable[Contexts]) -> None:
        """Write contexts of which no more than a part is in memory at a time."""
        import pyarrow.parquet as pq

        with atomic_file(self.path) as temporary, contextlib.ExitStack() as open_files:
            writer: Any = None
            hashes: list[tuple[str, str]] = []
            for part in parts:
                rows = _table_of(part)
                if writer is None:
                    names: dict[str, Any] = {"kinds": sorted(part.option_scores)}
                    names |= {"signals": list(part.signals)} if part.signals else {}
                    names |= {} if part.seconds is None else {"seconds": part.seconds}
                    writer = open_files.enter_context(pq.ParquetWriter(temporary, rows.schema, compression="zstd"))
                writer.write_table(rows)
                hashes += part.row_hashes()
            about = {"schema": SCHEMA, "kind": KIND, "key": self.key, "hash": content_hash(sorted(hashes))}
            writer.add_key_value_metadata({_METADATA: json.dumps({**about, **names}).encode()})


def _table_of(contexts: Contexts) -> Any:
    """Contexts as they are stored."""
    import pyarrow as pa

    tables = {f"option_{kind}": contexts.option_scores[kind] for kind in sorted(contexts.option_scores)}
    tables |= {f"signal_{name}": table for name, table in contexts.signals.items()}
    columns = [("id", pa.string()), ("passages", passages_type()), *((name, pa.list_(pa.float32())) for name in tables)]
    arrays = [contexts.ids, [[asdict(passage) for passage in question] for question in contexts.passages]]
    return pa.table([*arrays, *(table.tolist() for table in tables.values())], schema=pa.schema(columns))
