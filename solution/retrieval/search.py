"""Searching: the passages that each retriever ranks highest for an exam's questions. No reranker is known here."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import QueryForm, RetrievalConfig, Retriever
from solution.errors import UserError
from solution.files import content_hash
from solution.questions import LETTERS, Questions
from solution.retrieval.approximate import search_settings
from solution.retrieval.bm25 import LexicalIndex, Postings
from solution.retrieval.dense import PassageIndex, as_cosines
from solution.retrieval.embedding import Embedder
from solution.retrieval.fusion import Ranking
from solution.retrieval.index import build_index, open_index
from solution.retrieval.lexical import build_lexical, open_lexical
from solution.retrieval.passages import token_offsets
from solution.retrieval.places import DENSE, LEXICAL, SENTENCES, IndexPlace, find_embedder, locate
from solution.retrieval.sentence_index import build_sentences, open_sentences
from solution.retrieval.store import Passages
from solution.statements import statement
from solution.suggestions import suggest


def _fuses(config: RetrievalConfig) -> bool:
    return len(config.retrievers) > 1 or config.query == "prompt_each_option"


def search_depth(config: RetrievalConfig) -> int:
    """The number of passages that are sought for each query."""
    more = _fuses(config) or config.drop_similar is not None
    kept_or_reranked = config.top_k if config.reranker is None else config.reranker.candidates
    depth = max(config.top_k, kept_or_reranked)
    return max(config.candidates, depth) if more else depth


class Indexes:
    """The dense, the lexical and the sentence index of some settings, each sought and opened once: when first needed.

    Searchers may share one object if their settings differ only in how they search: in retrievers, depth, query or
    option scores.

    Attributes:
        workdir: the working folder.

    Args:
        build: whether an index that is not there may be built (where the corpus can be read).
        embedder: one made already for `config.embedder`.

    Raises:
        UserError: the embedder cannot be found; on first use: an index cannot be made or opened.
    """

    def __init__(self, config: RetrievalConfig, workdir: Path, build: bool = True, embedder: Embedder | None = None):
        self._config, self.workdir, self._build = config, Path(workdir), build
        self.embedder = embedder or find_embedder(config, self.workdir)

    @functools.cached_property
    def dense_place(self) -> IndexPlace:
        return locate(DENSE, self._config, self.workdir, self.embedder)

    @functools.cached_property
    def lexical_place(self) -> IndexPlace:
        return locate(LEXICAL, self._config, self.workdir, self.embedder)

    @functools.cached_property
    def sentence_place(self) -> IndexPlace:
        return locate(SENTENCES, self._config, self.workdir, self.embedder)

    @functools.cached_property
    def dense(self) -> PassageIndex:
        get = build_index if self._build else open_index
        return get(self._config, self.workdir, self.embedder, self.dense_place)

    @functools.cached_property
    def lexical(self) -> LexicalIndex:
        get = build_lexical if self._build else open_lexical
        return get(self._config, self.workdir, self.embedder, self.lexical_place)

    @functools.cached_property
    def sentences(self) -> Postings:
        if not self._build:
            return open_sentences(self._config, self.workdir, self.embedder, self.sentence_place)
        _ = self.lexical  # is built where it is missing: the sentences are those of its passages
        return build_sentences(self._config, self.sentence_place, self.lexical_place)

    def require_same_passages(self) -> None:
        """Raise `UserError` where the dense and the lexical index hold different passages."""
        if not self.lexical.passages.same_ids(self.dense.passages):
            raise UserError(
                f"the index {self.dense.key} and the lexical index {self.lexical.key} do not hold the same "
                f"passages; delete the older one in WORKDIR/cache and run `{suggest('index')}`"
            )


class Searcher:
    """The retrievers of `config`, and the passages that they find for an exam's questions.

    Args:
        indexes: those of `config`, or of settings that differ only in how they search.
        hidden: for each question the id of a document that is not found for it, or ""; None: nothing is hidden.

    Raises:
        UserError: on first use: an index cannot be made or opened, or the two hold different passages.
    """

    def __init__(
        self,
        questions: Questions,
        config: RetrievalConfig,
        indexes: Indexes,
        hidden: Sequence[str] | None = None,
    ):
        self.questions, self.config, self.indexes = questions, config, indexes
        self.embedder = indexes.embedder
        self.hidden = hidden
        self._vectors: dict[str, np.ndarray] = {}

    def part(self, rows: Sequence[int]) -> Searcher:
        """A searcher of some of the questions, with the same indexes."""
        hidden = None if self.hidden is None else [self.hidden[row] for row in rows]
        return Searcher(self.questions.subset(rows), self.config, self.indexes, hidden)

    def about(self) -> dict[str, Any]:
        """All settings and indexes that decide the lists; the questions and the reranker are not among them."""
        config = self.config
        about: dict[str, Any] = {"query": config.query, "top_k": config.top_k}
        if config.uses_vectors:
            about |= {"index": self.indexes.dense_place.key, "backend": config.backend}
            about |= search_settings(config)
        if config.query_prefix is not None:
            about["query_prefix"] = config.query_prefix
        if config.passage_prefix is not None:
            about["passage_prefix"] = config.passage_prefix  # the sentences of option scores have it too
        if config.retrievers != ["dense"]:
            about["retrievers"] = config.retrievers
        if "lexical" in config.retrievers:
            about["lexical"] = self.indexes.lexical_place.key
        if _fuses(config):
            about |= {"fusion": config.fusion, "rrf_k": config.rrf_k, "dense_weight": config.dense_weight}
        if config.drop_similar is not None:
            about["drop_similar"] = config.drop_similar
        if self.depth > config.top_k:
            about["candidates"] = self.depth
        if self.hidden is not None:
            about["hidden"] = content_hash(list(self.hidden))
        return about

    @property
    def depth(self) -> int:
        """The number of passages of a query's list."""
        return search_depth(self.config)

    @functools.cached_property
    def hidden_rows(self) -> list[np.ndarray] | None:
        """int64 [h] for each question: the passages of its hidden document; None where nothing is hidden."""
        if self.hidden is None:
            return None
        rows = self.passages().rows_of_documents(filter(None, self.hidden))
        return [rows.get(document, np.zeros(0, dtype=np.int64)) for document in self.hidden]

    @property
    def _hidden_most(self) -> int:
        """The most passages that are hidden from a question: so many more are sought."""
        return max(map(len, self.hidden_rows or []), default=0)

    def passages(self) -> Passages:
        """The passages whose rows the retrievers name."""
        indexes, retrievers = self.indexes, self.config.retrievers
        if retrievers == ["lexical"]:
            return indexes.lexical.passages
        if "lexical" in retrievers:
            indexes.require_same_passages()
        return indexes.dense.passages

    def query_vectors(self, query: QueryForm) -> np.ndarray:
        """Vectors of the prompts and what the query form puts behind each, float32 [n, d]."""
        if query not in self._vectors:
            texts = fitted(self.embedder, self.questions.prompts, query_tails(self.questions, query))
            title = "embedding the questions"
            self._vectors[query] = self.embedder.encode(texts, self.config.batch_size, title, query=True)
        return self._vectors[query]

    @functools.cached_property
    def option_vectors(self) -> np.ndarray:
        return embed_options(self.questions, self.config, self.embedder)

    def rankings(self, retriever: Retriever, query: QueryForm) -> list[list[Ranking]]:
        """The ranked lists of one retriever, for each question one, or one for each option (`prompt_each_option`)."""
        questions, depth = self.questions, self.depth
        weight = self.config.dense_weight if retriever == "dense" else 1 - self.config.dense_weight
        if len(self.config.retrievers) == 1:
            weight = 1.0
        if query == "prompt_each_option":
            names = [[LETTERS[i] for i, option in enumerate(options) if option] for options in questions.options]
        else:
            names = [[query.replace("_", " ")]] * len(questions)
        k = depth + self._hidden_most
        scores, rows = self._dense(query, k) if retriever == "dense" else self._lexical(query, k)
        results = iter(zip(scores, rows, strict=True))  # one for each query
        rankings = []
        for question, queries in enumerate(names):
            lists = []
            for name in queries:
                query_scores, query_rows = next(results)
                there = query_rows >= 0
                if self.hidden_rows is not None:
                    there &= ~np.isin(query_rows, self.hidden_rows[question])
                lists.append(Ranking(retriever, name, query_rows[there][:depth], query_scores[there][:depth], weight))
            rankings.append(lists)
        return rankings

    def _dense(self, query: QueryForm, k: int) -> tuple[np.ndarray, np.ndarray]:
        vectors = self.option_vectors if query == "prompt_each_option" else self.query_vectors(query)
        scores, rows = self.indexes.dense.search(vectors, k)
        return as_cosines(scores, self.config), rows

    def _lexical(self, query: QueryForm, k: int) -> tuple[np.ndarray, np.ndarray]:
        if query == "prompt_each_option":
            return self.indexes.lexical.search([f"{prompt} {option}" for prompt, option in _pairs(self.questions)], k)
        tails = query_tails(self.questions, query)
        return self.indexes.lexical.search(
            [f"{prompt} {tail}" for prompt, tail in zip(self.questions.prompts, tails, strict=True)], k
        )

    def best_passage_scores(self) -> np.ndarray:
        """The best cosine of question + option to any passage, float32 [options of all questions]."""
        scores, rows = self.indexes.dense.search(self.option_vectors, 1 + self._hidden_most)
        if self.hidden_rows is not None:
            counts = self.questions.exists().sum(axis=1)
            hidden = [rows for rows, count in zip(self.hidden_rows, counts, strict=True) for _ in range(count)]
            seen = np.array([~np.isin(found, gone) for found, gone in zip(rows, hidden, strict=True)])
            scores = np.where(seen, scores, -np.inf).max(axis=1, keepdims=True)
        return as_cosines(scores[:, 0], self.config)

    def all_rankings(self) -> list[list[Ranking]]:
        """The lists of all retrievers, for each question, as the settings say."""
        by_retriever = [self.rankings(retriever, self.config.query) for retriever in self.config.retrievers]
        return [[ranking for lists in question for ranking in lists] for question in zip(*by_retriever, strict=True)]


def query_tails(questions: Questions, query: QueryForm) -> list[str]:
    """The text behind each prompt in its one query: nothing, or the options."""
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


def embed_options(questions: Questions, config: RetrievalConfig, embedder: Embedder) -> np.ndarray:
    """The vectors of question + option, float32 [options of all questions, d], in the order of `exists`."""
    pairs = _pairs(questions)
    if config.statements:
        pairs = [(stated, "") if (stated := statement(*pair)) else pair for pair in pairs]
    texts = fitted(embedder, [prompt for prompt, _ in pairs], [option for _, option in pairs])
    return embedder.encode(texts, config.batch_size, "embedding the options", query=True)


def fitted(embedder: Embedder, prompts: Sequence[str], tails: Sequence[str]) -> list[str]:
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
