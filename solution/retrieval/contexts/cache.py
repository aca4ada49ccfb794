"""Contexts as they are stored in `WORKDIR/cache`."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import ContextPassage, Contexts
from solution.files import SCHEMA, atomic_file, content_hash
from solution.progress import say
from solution.questions import Questions
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
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_METADATA])
        rows = {row["id"]: row for row in table.to_pylist()}
        ordered = [rows[id_] for id_ in ids]
        scores = {
            kind: np.array([row[f"option_{kind}"] for row in ordered], dtype=np.float32) for kind in about["kinds"]
        }
        passages = [[ContextPassage(**p) for p in row["passages"]] for row in ordered]
        signals = {
            name: np.array([row[f"signal_{name}"] for row in ordered], dtype=np.float32)
            for name in about.get("signals", [])
        }
        contexts = Contexts(list(ids), passages, scores, key, signals)
        whole = (about["schema"], about["kind"], about["key"]) == (SCHEMA, KIND, key)
        if whole and len(table) == len(ids) and about["hash"] == contexts.hash:
            return contexts
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        pass
    return None


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
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = [(name, pa.string()) for name in ("id", "title", "text")]
        passage = pa.struct([*texts, ("score", pa.float64()), ("retriever", pa.string())])
        scores = contexts.option_scores
        about = {"schema": SCHEMA, "kind": KIND, "key": self.key, "hash": contexts.hash, "kinds": sorted(scores)}
        if contexts.signals:
            about["signals"] = list(contexts.signals)
        columns = [("id", pa.string()), ("passages", pa.list_(passage))]
        columns += [(f"option_{kind}", pa.list_(pa.float32())) for kind in sorted(scores)]
        columns += [(f"signal_{name}", pa.list_(pa.float32())) for name in contexts.signals]
        schema = pa.schema(columns, metadata={_METADATA: json.dumps(about).encode()})
        rows = [
            {
                "id": id_,
                "passages": [asdict(passage) for passage in contexts.passages[row]],
                **{f"option_{kind}": table[row].tolist() for kind, table in scores.items()},
                **{f"signal_{name}": table[row].tolist() for name, table in contexts.signals.items()},
            }
            for row, id_ in enumerate(contexts.ids)
        ]
        with atomic_file(self.path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
