"""Contexts: for each question the passages that the rankers read, made once and kept in `WORKDIR/cache`."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from solution.config import ContextView, QueryForm, RetrievalConfig, Retriever
from solution.errors import UserError
from solution.files import SCHEMA, atomic_file, content_hash
from solution.progress import say
from solution.questions import LETTERS, Questions, cell_text
from solution.retrieval.approximate import search_settings
from solution.retrieval.corpus import Document
from solution.retrieval.embedding import Embedder
from solution.retrieval.fusion import Found, Ranking, distinct, fuse
from solution.retrieval.index import PassageIndex, build_index, find_embedder, locate_index, open_index
from solution.retrieval.lexical import LexicalIndex, build_lexical, locate_lexical, open_lexical
from solution.retrieval.passages import passage_text, sentences, split_passages, token_offsets
from solution.retrieval.store import Passages
from solution.suggestions import suggest

if TYPE_CHECKING:
    from solution.retrieval.rerank import Reranker

KIND = "contexts"
_METADATA = b"solution"
_VERSION = 1  # of the way queries are made
_PASSAGES_AT_ONCE = 1 << 16  # read together: their texts take some tens of megabytes


@dataclass(frozen=True)
class ContextPassage:
    """A passage found for a question.

    `score` is its cosine or BM25 score, or of several lists its fused score (1 where nothing was searched), or after a
    reranker its share among the candidates;
    `retriever` names all that found it: `dense+lexical`, or `dense+lexical, reranked`.
    """

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
        option_scores: kind of score -> float32 [n, max_options], NaN where there is no option.
            `passage`: the best cosine of question + option to any passage of the corpus;
            `sentence`: to any sentence of the question's own first passages.
        key: names what the contexts were made from (questions, corpus, embedder, settings): the same
            on every machine, where rounding may differ.
    """

    ids: list[str]
    passages: list[list[ContextPassage]]
    option_scores: dict[str, np.ndarray] = field(default_factory=dict)
    key: str = "none"

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def hash(self) -> str:
        """A hash of ids, texts and scores (to 4 decimals) that does not depend on the order of the questions."""
        rows = []
        for row, id_ in enumerate(self.ids):
            found = [(p.id, p.title, p.text, _rounded(p.score), p.retriever) for p in self.passages[row]]
            scores = {kind: [_rounded(score) for score in table[row]] for kind, table in self.option_scores.items()}
            rows.append((id_, content_hash(found, scores)))
        return content_hash(sorted(rows))

    def subset(self, rows: Sequence[int] | np.ndarray) -> Contexts:
        """The contexts at these positions, in the order given (or where a bool array [n] is true)."""
        places = np.asarray(rows)
        chosen = np.flatnonzero(places).tolist() if places.dtype == bool else [int(row) for row in rows]
        return Contexts(
            [self.ids[row] for row in chosen],
            [self.passages[row] for row in chosen],
            {kind: table[np.array(chosen, dtype=np.int64)] for kind, table in self.option_scores.items()},
            self.key,
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
    searcher = Searcher(questions, config, workdir, build)
    cache = _Cache(questions, config, workdir, searcher.about())
    contexts = cache.read()
    if contexts is None:
        contexts = _from_index(questions, config, searcher)
        cache.write(contexts)
    contexts.key = cache.key
    return contexts


def contexts_key(questions: Questions, config: RetrievalConfig, workdir: Path, embedder: Embedder) -> str:
    """What `build_contexts` would give as `Contexts.key` (source index), found without searching.

    Args:
        embedder: one made for `config.embedder`.

    Raises:
        UserError: there is no index to search.
    """
    searcher = Searcher(questions, config, workdir, build=False, embedder=embedder)
    return _Cache(questions, config, workdir, searcher.about()).key


def build_views(
    questions: Questions, config: RetrievalConfig, views: Iterable[ContextView], workdir: Path
) -> dict[ContextView, Contexts]:
    """`build_contexts` by all retrievers together (`fused`) or by one alone, for each of the views named.

    A source that does not search has the same contexts in every view.
    """
    made: dict[ContextView, Contexts] = {}
    for view in dict.fromkeys(views):
        own = config.view(view) if config.source == "index" else config
        same = next((other for other in made if config.view(other) == own), None)
        made[view] = build_contexts(questions, own, workdir) if same is None else made[same]
    return made


def _fuses(config: RetrievalConfig) -> bool:
    return len(config.retrievers) > 1 or config.query == "prompt_each_option"


def search_depth(config: RetrievalConfig) -> int:
    """How many passages are sought for each query."""
    more = _fuses(config) or config.drop_similar is not None
    reread = config.top_k if config.reranker is None else config.reranker.candidates
    return max(config.candidates, config.top_k, reread) if more else max(config.top_k, reread)


class Searcher:
    """The retrievers of `config` and what they find for an exam's questions. Each is opened when it is first needed.

    Args:
        build: whether an index that is not there may be built (where the corpus can be read).

    Raises:
        UserError: on first use: an index cannot be made or opened, or the two hold different passages.
    """

    def __init__(
        self,
        questions: Questions,
        config: RetrievalConfig,
        workdir: Path,
        build: bool = True,
        embedder: Embedder | None = None,
    ):
        self.questions, self.config = questions, config
        self.embedder = embedder or find_embedder(config, workdir)
        self._workdir, self._build = workdir, build
        self._vectors: dict[str, np.ndarray] = {}

    def about(self) -> dict[str, Any]:
        """All that the contexts depend on, beside the questions."""
        config = self.config
        about: dict[str, Any] = {"query": config.query, "top_k": config.top_k}
        if config.uses_vectors:
            about |= {"index": locate_index(config, self._workdir, self.embedder).key, "backend": config.backend}
            about |= search_settings(config)
        if config.retrievers != ["dense"]:
            about["retrievers"] = config.retrievers
        if "lexical" in config.retrievers:
            about["lexical"] = locate_lexical(config, self._workdir, self.embedder).key
        if _fuses(self.config):
            about |= {"fusion": config.fusion, "rrf_k": config.rrf_k, "dense_weight": config.dense_weight}
        if config.drop_similar is not None:
            about["drop_similar"] = config.drop_similar
        if self.reranker is not None:
            about["reranker"] = self.reranker.about(self.questions)
        if self.depth > config.top_k:
            about["candidates"] = self.depth
        return about

    @property
    def depth(self) -> int:
        """How many passages are sought for each query."""
        return search_depth(self.config)

    @functools.cached_property
    def reranker(self) -> Reranker | None:
        """Raises `UserError` where one is set and has not been trained with these settings."""
        if self.config.reranker is None:
            return None
        from solution.retrieval.rerank import Reranker

        return Reranker(self.config.reranker, self._workdir)

    @functools.cached_property
    def dense(self) -> PassageIndex:
        place = locate_index(self.config, self._workdir, self.embedder)
        make = build_index if self._build and not place.folder.is_dir() else open_index
        return make(self.config, self._workdir, self.embedder)

    @functools.cached_property
    def lexical(self) -> LexicalIndex:
        place = locate_lexical(self.config, self._workdir, self.embedder)
        make = build_lexical if self._build and not place.folder.is_dir() else open_lexical
        return make(self.config, self._workdir, self.embedder)

    def passages(self) -> Passages:
        """The passages whose rows the retrievers name."""
        if self.config.retrievers == ["lexical"]:
            return self.lexical.passages
        if "lexical" in self.config.retrievers and not self.lexical.passages.same_ids(self.dense.passages):
            raise UserError(
                f"the index {self.dense.key} and the lexical index {self.lexical.key} do not hold the same passages; "
                f"delete the older one in WORKDIR/cache and run `{suggest('index')}`"
            )
        return self.dense.passages

    def query_vectors(self, query: QueryForm) -> np.ndarray:
        """Vectors of the prompts and what the query form puts behind each, float32 [n, d]."""
        if query not in self._vectors:
            texts = _fitted(self.embedder, self.questions.prompts, query_tails(self.questions, query))
            title = "embedding the questions"
            self._vectors[query] = self.embedder.encode(texts, self.config.batch_size, title, query=True)
        return self._vectors[query]

    @functools.cached_property
    def option_vectors(self) -> np.ndarray:
        return _option_vectors(self.questions, self.config, self.embedder)

    def rankings(self, retriever: Retriever, query: QueryForm) -> list[list[Ranking]]:
        """The ranked lists of one retriever, for each question one, or one for each option (`prompt_each_option`)."""
        questions, k = self.questions, self.depth
        weight = self.config.dense_weight if retriever == "dense" else 1 - self.config.dense_weight
        if len(self.config.retrievers) == 1:
            weight = 1.0
        if query == "prompt_each_option":
            names = [[LETTERS[i] for i, option in enumerate(options) if option] for options in questions.options]
        else:
            names = [[query.replace("_", " ")]] * len(questions)
        scores, rows = self._dense(query, k) if retriever == "dense" else self._lexical(query, k)
        found = iter(zip(scores, rows, strict=True))
        made = []
        for own in names:
            lists = []
            for name in own:
                values, places = next(found)
                lists.append(Ranking(retriever, name, places[places >= 0], values[places >= 0], weight))
            made.append(lists)
        return made

    def _dense(self, query: QueryForm, k: int) -> tuple[np.ndarray, np.ndarray]:
        vectors = self.option_vectors if query == "prompt_each_option" else self.query_vectors(query)
        scores, rows = self.dense.search(vectors, k)
        return _cosines(scores, self.config), rows

    def _lexical(self, query: QueryForm, k: int) -> tuple[np.ndarray, np.ndarray]:
        if query == "prompt_each_option":
            return self.lexical.search([f"{prompt} {option}" for prompt, option in _pairs(self.questions)], k)
        tails = query_tails(self.questions, query)
        return self.lexical.search(
            [f"{prompt} {tail}" for prompt, tail in zip(self.questions.prompts, tails, strict=True)], k
        )

    def all_rankings(self) -> list[list[Ranking]]:
        """The lists of all retrievers, for each question, as the settings say."""
        each = [self.rankings(retriever, self.config.query) for retriever in self.config.retrievers]
        return [[ranking for lists in own for ranking in lists] for own in zip(*each, strict=True)]

    def rerank(self, lists: list[list[Ranking]]) -> list[list[ContextPassage]]:
        """The best passages of `all_rankings` in the reranker's order, those below its threshold left out."""
        from solution.retrieval.rerank import find_candidates

        settings = self.config.reranker
        assert settings is not None and self.reranker is not None
        candidates = find_candidates(self, lists, settings, settings.candidates)
        return self.reranker.rerank(self.questions, candidates, self._workdir / "cache")


def query_tails(questions: Questions, query: QueryForm) -> list[str]:
    """What stands behind each prompt in its one query."""
    if query == "prompt":
        return [""] * len(questions)
    return [" ".join(filter(None, options)) for options in questions.options]


def _pairs(questions: Questions) -> list[tuple[str, str]]:
    """Prompt and option, for all options of all questions, in the order of `exists`."""
    return [
        (prompt, option)
        for prompt, options in zip(questions.prompts, questions.options, strict=True)
        for option in options
        if option
    ]


def select(
    lists: Iterable[list[Ranking]], passages: Passages, config: RetrievalConfig, most: int
) -> list[list[ContextPassage]]:
    """The best passages of each question: its lists fused, the first `most` that are not nearly equal to another."""
    fused = (fuse(own, config.fusion, config.rrf_k) for own in lists)
    if config.drop_similar is None:
        fused = (own[:most] for own in fused)
    return [drop_similar(own, config, most) for own in named(fused, passages)]


def drop_similar(found: list[ContextPassage], config: RetrievalConfig, most: int) -> list[ContextPassage]:
    return [found[place] for place in distinct(found, config.drop_similar, most)]


def named(fused: Iterable[Sequence[Found]], passages: Passages) -> Iterator[list[ContextPassage]]:
    """The passages of each question's fused list, read for many questions together."""
    remaining = iter(fused)
    while block := list(_first(remaining, _PASSAGES_AT_ONCE)):
        read = iter(passages.take(one.row for own in block for one in own))
        for own in block:
            yield [
                ContextPassage(passage.id, passage.title, passage.text, one.score, "+".join(one.retrievers))
                for one, passage in zip(own, read, strict=False)
            ]


def _first(lists: Iterator[Sequence[Found]], most: int) -> Iterator[Sequence[Found]]:
    """Lists from the front, until they hold `most` passages."""
    held = 0
    for own in lists:
        yield own
        held += len(own)
        if held >= most:
            return


def _from_index(questions: Questions, config: RetrievalConfig, searcher: Searcher) -> Contexts:
    lists = searcher.all_rankings()
    every = searcher.passages()
    if config.reranker is None:
        passages = select(lists, every, config, config.top_k)
    else:
        passages = [drop_similar(own, config, config.top_k) for own in searcher.rerank(lists)]
    made = Contexts(list(questions.ids), passages)
    if "passage" in config.option_scores:
        best, _ = searcher.dense.search(searcher.option_vectors, 1)
        made.option_scores["passage"] = _table(questions, _cosines(best[:, 0], config))
    if "sentence" in config.option_scores:
        vectors = searcher.option_vectors
        made.option_scores["sentence"] = _sentence_scores(questions, passages, vectors, config, searcher.embedder)
    return made


def _table(questions: Questions, values: np.ndarray) -> np.ndarray:
    """Values of all existing options in a row -> float32 [n, max_options], NaN elsewhere."""
    exists = questions.exists()
    table = np.full(exists.shape, np.nan, dtype=np.float32)
    table[exists] = values
    return table


def _sentence_scores(
    questions: Questions,
    passages: Sequence[Sequence[ContextPassage]],
    vectors: np.ndarray,
    config: RetrievalConfig,
    embedder: Embedder,
) -> np.ndarray:
    """The best cosine of question + option (`vectors`) to any sentence, title in front; 0 where there is none."""
    texts = [
        [
            f"{passage.title}: {sentence}" if passage.title else sentence
            for passage in found[: config.sentence_passages]
            for sentence in sentences(passage.text)
        ]
        for found in passages
    ]
    flat = embedder.encode([text for row in texts for text in row], config.batch_size, "embedding the sentences")
    ends = np.cumsum([len(row) for row in texts])
    counts = questions.exists().sum(axis=1)
    best = np.zeros(len(vectors), dtype=np.float32)
    begin = 0
    for end, own, count in zip(ends, texts, counts, strict=True):
        if own:
            best[begin : begin + count] = (vectors[begin : begin + count] @ flat[end - len(own) : end].T).max(axis=1)
        begin += count
    return _table(questions, best)


def _cosines(scores: np.ndarray, config: RetrievalConfig) -> np.ndarray:
    """Of unit vectors: cos = 1 - d² / 2."""
    return scores if config.metric == "ip" else 1 + scores / 2


def _option_vectors(questions: Questions, config: RetrievalConfig, embedder: Embedder) -> np.ndarray:
    """The vectors of question + option, float32 [options of all questions, d], in the order of `exists`."""
    pairs = _pairs(questions)
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
    empty = [id_ for id_, text in zip(questions.ids, texts, strict=True) if not text]
    if empty:
        say(f"note: the context is empty in {len(empty)} of {len(questions)} questions (first: id {empty[0]})")
    passages = [
        [ContextPassage(id_, "", text, 1.0, "column")] if text else []
        for id_, text in zip(questions.ids, texts, strict=True)
    ]
    contexts = Contexts(list(questions.ids), passages)
    contexts.key = contexts.hash
    if not config.option_scores or not config.embedder.strip():
        return contexts
    try:
        embedder = Embedder(config.embedder, workdir / "cache")
    except UserError as error:
        raise UserError(f"{error}; or set retrieval.option_scores=[], and no embedder is needed") from None
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
    kept.key = cache.key
    return kept


def _column_scores(
    questions: Questions, texts: list[str], config: RetrievalConfig, embedder: Embedder
) -> dict[str, np.ndarray]:
    """The option scores from the question's own context; 0 where that is empty."""
    vectors = _option_vectors(questions, config, embedder)
    made: dict[str, np.ndarray] = {}
    if "sentence" in config.option_scores:
        own = [[ContextPassage(str(row), "", text, 1.0, "column")] for row, text in enumerate(texts)]
        made["sentence"] = _sentence_scores(questions, own, vectors, config, embedder)
    if "passage" in config.option_scores:
        documents = (Document(str(row), "", text) for row, text in enumerate(texts) if text)
        tokens = min(config.passage_tokens, embedder.max_tokens)
        parts = list(split_passages(documents, embedder.tokenizer, tokens, min(config.passage_overlap, tokens - 1)))
        embedded = embedder.encode([passage_text(part) for part in parts], config.batch_size, "embedding the contexts")
        owner = np.array([int(part.id.partition("#")[0]) for part in parts], dtype=np.int64)
        best = np.zeros(len(vectors), dtype=np.float32)
        begin = 0
        for row, count in enumerate(questions.exists().sum(axis=1)):
            cosines = vectors[begin : begin + count] @ embedded[owner == row].T
            best[begin : begin + count] = cosines.max(axis=1) if cosines.size else 0.0
            begin += count
        made["passage"] = _table(questions, best)
    return made


# --- on disk -------------------------------------------------------------------------------


def stored_contexts(workdir: Path, key: str, ids: Sequence[str]) -> Contexts | None:
    """The contexts of this key in the cache, in the order of `ids`; None when they are not there or not whole."""
    path = _path(workdir, key)
    return _read(path, key, ids) if path.exists() else None


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
        contexts = Contexts(list(ids), passages, scores, key)
        whole = (about["schema"], about["kind"], about["key"]) == (SCHEMA, KIND, key)
        if whole and len(table) == len(ids) and about["hash"] == contexts.hash:
            return contexts
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        pass
    return None


class _Cache:
    """One exam's contexts in a parquet file, named by all that they depend on."""

    def __init__(self, questions: Questions, config: RetrievalConfig, workdir: Path, about: dict[str, Any]):
        self._ids, self._width = questions.ids, questions.max_options
        self._kinds = sorted(set(config.option_scores))
        about = {"version": _VERSION, "source": config.source, "option_scores": self._kinds, **about}
        if "sentence" in self._kinds:
            about["sentence_passages"] = config.sentence_passages
        self.key = content_hash(questions.content_hash(with_answers=False), about)
        self.path = _path(workdir, self.key)

    def read(self) -> Contexts | None:
        """The contexts, in the order of the questions; None when they are not there or not whole."""
        if not self.path.exists():
            return None
        contexts = _read(self.path, self.key, self._ids)
        if contexts is not None:
            shapes = {table.shape for table in contexts.option_scores.values()}
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
        columns = [("id", pa.string()), ("passages", pa.list_(passage))]
        columns += [(f"option_{kind}", pa.list_(pa.float32())) for kind in sorted(scores)]
        schema = pa.schema(columns, metadata={_METADATA: json.dumps(about).encode()})
        rows = [
            {
                "id": id_,
                "passages": [asdict(found) for found in contexts.passages[row]],
                **{f"option_{kind}": table[row].tolist() for kind, table in scores.items()},
            }
            for row, id_ in enumerate(contexts.ids)
        ]
        with atomic_file(self.path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
