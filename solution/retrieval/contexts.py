"""Contexts: for each question the passages that the rankers read, made once and kept in `WORKDIR/cache`."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import SCHEMA, atomic_file, content_hash
from solution.progress import say
from solution.questions import Questions, cell_text
from solution.retrieval.corpus import Document
from solution.retrieval.embedding import Embedder
from solution.retrieval.index import build_index, locate_index, open_index
from solution.retrieval.passages import passage_text, split_passages, token_offsets

KIND = "contexts"
_METADATA = b"solution"
_VERSION = 1  # of the way queries are made


@dataclass(frozen=True)
class ContextPassage:
    """A passage found for a question; `score` is its cosine to the query (1 where nothing was searched)."""

    id: str
    title: str
    text: str
    score: float
    retriever: str


@dataclass
class Contexts:
    """The contexts of n questions.

    Attributes:
        ids: the questions' ids, in order.
        passages: n lists, best passage first; empty where nothing was retrieved.
        option_scores: float32 [n, max_options], the best cosine of question + option to any
            passage, NaN where there is no option; or None.
    """

    ids: list[str]
    passages: list[list[ContextPassage]]
    option_scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def hash(self) -> str:
        """A hash of ids, texts and scores (to 4 decimals) that does not depend on the order of the questions."""
        rows = []
        for row, id_ in enumerate(self.ids):
            found = [(p.id, p.title, p.text, _rounded(p.score), p.retriever) for p in self.passages[row]]
            scores = None if self.option_scores is None else [_rounded(score) for score in self.option_scores[row]]
            rows.append((id_, content_hash(found, scores)))
        return content_hash(sorted(rows))

    def subset(self, rows: Sequence[int] | np.ndarray) -> Contexts:
        """The contexts at these positions, in the order given (or where a bool array [n] is true)."""
        places = np.asarray(rows)
        chosen = np.flatnonzero(places).tolist() if places.dtype == bool else [int(row) for row in rows]
        return Contexts(
            [self.ids[row] for row in chosen],
            [self.passages[row] for row in chosen],
            None if self.option_scores is None else self.option_scores[np.array(chosen, dtype=np.int64)],
        )


def _rounded(score: float) -> float | None:
    return None if np.isnan(score) else round(float(score), 4) + 0.0  # + 0.0: no minus zero


def build_contexts(questions: Questions, config: RetrievalConfig, workdir: Path, build: bool = True) -> Contexts:
    """The contexts of an exam, in the order of its questions; read from the cache when nothing has changed.

    Args:
        config: `source` index: the passages nearest to the query; column: the exam's column
            `context` is the one passage; none: no passages.
        build: whether an index that is not there may be built (where the corpus can be read).

    Raises:
        UserError: the index cannot be made or opened, or the column `context` is missing.
    """
    workdir = Path(workdir)
    if config.source == "none":
        return Contexts(list(questions.ids), [[] for _ in range(len(questions))])
    if config.source == "column":
        return _from_column(questions, config, workdir)
    embedder = Embedder(config.embedder, workdir / "cache")
    place = locate_index(config, workdir, embedder)
    about: dict[str, Any] = {"index": place.key, "query": config.query, "top_k": config.top_k}
    about["backend"] = config.backend
    if config.index == "hnsw":
        about["hnsw_ef_search"] = config.hnsw_ef_search
    cache = _Cache(questions, config, workdir, about)
    contexts = cache.read()
    if contexts is None:
        make = build_index if build and not place.folder.is_dir() else open_index
        contexts = _from_index(questions, config, make(config, workdir, embedder), embedder)
        cache.write(contexts)
    return contexts


def _from_index(questions: Questions, config: RetrievalConfig, index: Any, embedder: Embedder) -> Contexts:
    tails = [" ".join(filter(None, options)) for options in questions.options]
    if config.query == "prompt":
        tails = [""] * len(questions)
    queries = _fitted(embedder, questions.prompts, tails)
    vectors = embedder.encode(queries, config.batch_size, "embedding the questions", query=True)
    scores, rows = index.search(vectors, config.top_k)
    passages = []
    for found, places in zip(_cosines(scores, config).tolist(), rows.tolist(), strict=True):
        passages.append(
            [
                ContextPassage(passage.id, passage.title, passage.text, score, "dense")
                for score, place in zip(found, places, strict=True)
                if place >= 0
                for passage in [index.passages[place]]
            ]
        )
    table = None
    if config.option_scores:
        exists = questions.exists()
        vectors = _option_vectors(questions, config, embedder)
        best, _ = index.search(vectors, 1)
        table = np.full(exists.shape, np.nan, dtype=np.float32)
        table[exists] = _cosines(best[:, 0], config)
    return Contexts(list(questions.ids), passages, table)


def _cosines(scores: np.ndarray, config: RetrievalConfig) -> np.ndarray:
    """Of unit vectors: cos = 1 - d² / 2."""
    return scores if config.metric == "ip" else 1 + scores / 2


def _option_vectors(questions: Questions, config: RetrievalConfig, embedder: Embedder) -> np.ndarray:
    """The vectors of question + option, float32 [options of all questions, d], in the order of `exists`."""
    pairs = [
        (prompt, option)
        for prompt, options in zip(questions.prompts, questions.options, strict=True)
        for option in options
        if option
    ]
    texts = _fitted(embedder, [prompt for prompt, _ in pairs], [option for _, option in pairs])
    return embedder.encode(texts, config.batch_size, "embedding the options", query=True)


def _fitted(embedder: Embedder, prompts: Sequence[str], tails: Sequence[str]) -> list[str]:
    """ "prompt tail" for each pair; of a prompt too long for the embedder only its end is kept.

    The embedder cuts at the end, and there an option would be lost.
    """
    limit = embedder.max_tokens
    texts = [f"{prompt} {tail}" if tail else prompt for prompt, tail in zip(prompts, tails, strict=True)]
    # No tokenizer makes more tokens than bytes; only a text that may be too long is counted.
    long = [row for row, text in enumerate(texts) if len(text.encode()) >= limit]
    begins = {
        prompt: [begin for begin, _ in offsets]
        for prompt, offsets in _tokens(embedder, [prompts[row] for row in long]).items()
    }
    lengths = {tail: len(offsets) for tail, offsets in _tokens(embedder, [tails[row] for row in long]).items()}
    for row in long:
        prompt, tail = prompts[row], tails[row]
        room = max(limit - lengths[tail], limit // 2)
        if len(begins[prompt]) > room:
            texts[row] = f"{prompt[begins[prompt][-room] :]} {tail}".strip()
    return texts


def _tokens(embedder: Embedder, texts: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, token_offsets(embedder.tokenizer, distinct), strict=True))


# --- the exam's own column -----------------------------------------------------------------


def _from_column(questions: Questions, config: RetrievalConfig, workdir: Path) -> Contexts:
    values = questions.extra.get("context")
    if values is None:
        raise UserError(
            "retrieval.source is column and the question file has no column 'context'; add it, or set "
            "retrieval.source to index or none"
        )
    wrong = [id_ for id_, value in zip(questions.ids, values, strict=True) if isinstance(value, (list, dict))]
    if wrong:
        raise UserError(f"the context of question {wrong[0]} is not a text")
    texts = [cell_text(value) for value in values]
    passages = [
        [ContextPassage(id_, "", text, 1.0, "column")] if text else []
        for id_, text in zip(questions.ids, texts, strict=True)
    ]
    contexts = Contexts(list(questions.ids), passages)
    if not config.option_scores or not config.embedder.strip():
        return contexts
    try:
        embedder = Embedder(config.embedder, workdir / "cache")
    except UserError as error:
        raise UserError(f"{error}; or set retrieval.option_scores=false, and no embedder is needed") from None
    about = {
        "context": sorted(zip(questions.ids, texts, strict=True)),
        "embedder": embedder.fingerprint,
        "tokens": [config.passage_tokens, config.passage_overlap],
    }
    cache = _Cache(questions, config, workdir, about)
    kept = cache.read()
    if kept is None:
        kept = Contexts(contexts.ids, passages, _column_scores(questions, texts, config, embedder))
        cache.write(kept)
    return kept


def _column_scores(questions: Questions, texts: list[str], config: RetrievalConfig, embedder: Embedder) -> np.ndarray:
    """The best cosine of question + option to the parts of the question's own context; 0 where that is empty."""
    documents = (Document(str(row), "", text) for row, text in enumerate(texts) if text)
    tokens = min(config.passage_tokens, embedder.max_tokens)
    parts = list(split_passages(documents, embedder.tokenizer, tokens, min(config.passage_overlap, tokens - 1)))
    vectors = embedder.encode([passage_text(part) for part in parts], config.batch_size, "embedding the contexts")
    owner = np.array([int(part.id.partition("#")[0]) for part in parts], dtype=np.int64)
    exists = questions.exists()
    options = _option_vectors(questions, config, embedder)
    table = np.full(exists.shape, np.nan, dtype=np.float32)
    begin = 0
    for row in range(len(questions)):
        count = int(exists[row].sum())
        own = vectors[owner == row]
        cosines = options[begin : begin + count] @ own.T
        table[row, exists[row]] = cosines.max(axis=1) if len(own) else 0.0
        begin += count
    return table


# --- on disk -------------------------------------------------------------------------------


class _Cache:
    """One exam's contexts in a parquet file, named by all that they depend on."""

    def __init__(self, questions: Questions, config: RetrievalConfig, workdir: Path, about: dict[str, Any]):
        self._ids, self._width = questions.ids, questions.max_options
        about = {"version": _VERSION, "source": config.source, "option_scores": config.option_scores, **about}
        self._key = content_hash(questions.content_hash(with_answers=False), about)
        self.path = workdir / "cache" / f"contexts-{self._key}.parquet"

    def read(self) -> Contexts | None:
        """The contexts, in the order of the questions; None when they are not there or not whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.path.exists():
            return None
        try:
            table = pq.read_table(self.path)
            about = json.loads((table.schema.metadata or {})[_METADATA])
            rows = {row["id"]: row for row in table.to_pylist()}
            ordered = [rows[id_] for id_ in self._ids]
            scores = None
            if ordered and ordered[0]["option_scores"] is not None:
                scores = np.array([row["option_scores"] for row in ordered], dtype=np.float32)
            contexts = Contexts(
                list(self._ids), [[ContextPassage(**p) for p in row["passages"]] for row in ordered], scores
            )
            whole = (about["schema"], about["kind"], about["key"]) == (SCHEMA, KIND, self._key)
            whole = whole and len(table) == len(self._ids) and about["hash"] == contexts.hash
            if whole and (scores is None or scores.shape == (len(self._ids), self._width)):
                return contexts
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            pass
        say(f"the contexts in {self.path} are corrupt and are made again")
        return None

    def write(self, contexts: Contexts) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = [(name, pa.string()) for name in ("id", "title", "text")]
        passage = pa.struct([*texts, ("score", pa.float64()), ("retriever", pa.string())])
        about = {"schema": SCHEMA, "kind": KIND, "key": self._key, "hash": contexts.hash}
        schema = pa.schema(
            [("id", pa.string()), ("passages", pa.list_(passage)), ("option_scores", pa.list_(pa.float32()))],
            metadata={_METADATA: json.dumps(about).encode()},
        )
        scores = contexts.option_scores
        rows = [
            {
                "id": id_,
                "passages": [asdict(found) for found in contexts.passages[row]],
                "option_scores": None if scores is None else scores[row].tolist(),
            }
            for row, id_ in enumerate(contexts.ids)
        ]
        with atomic_file(self.path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
