"""Contexts from the question file's own column `context`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.exam import ContextPassage, Contexts, passage_text
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.contexts.cache import ContextCache, is_stored
from solution.retrieval.contexts.option_scores import option_table, sentence_scores
from solution.retrieval.corpus import Document
from solution.retrieval.embedding import Embedder
from solution.retrieval.passages import split_passages
from solution.retrieval.prefixes import Prefixes, warn_of_unset
from solution.retrieval.search import embed_options
from solution.tables import cell_text
from solution.words import SCRIPTS_VERSION, other_scripts


def own_contexts(questions: Questions) -> Contexts:
    """The column `context`, which must be there, as contexts: one passage a question, none where it is empty."""
    texts = zip(questions.ids, map(cell_text, questions.extra["context"]), strict=True)
    passages = [[ContextPassage(id_, "", text, 1.0, "column")] if text else [] for id_, text in texts]
    return Contexts(list(questions.ids), passages)


def column_contexts(questions: Questions, config: RetrievalConfig, workdir: Path) -> Contexts:
    """The contexts from the question file's column; option scores are stored in the cache.

    Raises:
        UserError: there is no such column, a cell of it is not a text, or the embedder cannot be found.
    """
    _check_column(questions)
    contexts = own_contexts(questions)
    contexts.key = contexts.hash
    if not is_stored(config):
        return contexts
    try:
        prefixes = Prefixes.of(config)
        warn_of_unset(config.embedder, prefixes)
        embedder = Embedder(config.embedder, workdir / "cache", prefixes)
    except UserError as error:
        raise UserError(f"{error}; or set retrieval.option_scores=[], and no embedder is needed") from None
    texts = [question[0].text if question else "" for question in contexts.passages]
    about: dict[str, Any] = {
        "context": sorted(zip(questions.ids, texts, strict=True)),
        "embedder": embedder.fingerprint,
        "tokens": [config.passage_tokens, config.passage_overlap],
    }
    if other_scripts(texts):
        about["scripts"] = SCRIPTS_VERSION
    if prefixes != Prefixes():
        about["prefixes"] = list(prefixes)
    cache = ContextCache(questions, config, workdir, about)
    scored = cache.read()
    if scored is None:
        scored = Contexts(contexts.ids, contexts.passages, _option_scores(questions, texts, config, embedder))
        cache.write(scored)
    scored.key = cache.key
    return scored


def scored_column(questions: Questions, config: RetrievalConfig, embedder: Embedder | None) -> Contexts:
    """`column_contexts` made anew by an embedder that is there, or without option scores; nothing is stored.

    Raises:
        UserError: see `column_contexts`.
    """
    _check_column(questions)
    contexts = own_contexts(questions)
    if embedder is not None:
        texts = [question[0].text if question else "" for question in contexts.passages]
        contexts.option_scores = _option_scores(questions, texts, config, embedder)
    return contexts


def _check_column(questions: Questions) -> None:
    values = questions.extra.get("context")
    if values is None:
        raise UserError(
            "retrieval.source is column and the question file has no column 'context'; add it, or set "
            "retrieval.source to index or none"
        )
    rows = list(zip(questions.ids, values, strict=True))
    wrong = [id_ for id_, value in rows if isinstance(value, (list, dict))]
    if wrong:
        raise UserError(f"the context of question {wrong[0]} is not a text")
    empty = [id_ for id_, value in rows if not cell_text(value)]
    if empty:
        say(f"note: the context is empty in {len(empty)} of {len(questions)} questions (first: id {empty[0]})")


def _option_scores(
    questions: Questions, texts: list[str], config: RetrievalConfig, embedder: Embedder
) -> dict[str, np.ndarray]:
    """The option scores from the question's own context; 0 where that is empty."""
    vectors = embed_options(questions, config, embedder)  # [options of all questions, d]
    scores: dict[str, np.ndarray] = {}
    if "sentence" in config.option_scores:
        passages = [[ContextPassage(str(row), "", text, 1.0, "column")] for row, text in enumerate(texts)]
        scores["sentence"] = sentence_scores(questions, passages, vectors, config, embedder)
    if "passage" in config.option_scores:
        # Contexts are cut as a corpus is; a part's id begins with its question's row.
        documents = (Document(str(row), "", text) for row, text in enumerate(texts) if text)
        tokens = min(config.passage_tokens, embedder.max_tokens)
        parts = list(split_passages(documents, embedder.tokenizer, tokens, min(config.passage_overlap, tokens - 1)))
        embedded = embedder.encode([passage_text(part) for part in parts], config.batch_size, "embedding the contexts")
        row_of = np.array([int(part.id.partition("#")[0]) for part in parts], dtype=np.int64)
        best = np.zeros(len(vectors), dtype=np.float32)
        begin = 0
        for row, count in enumerate(questions.exists().sum(axis=1)):
            cosines = vectors[begin : begin + count] @ embedded[row_of == row].T  # [options, parts]
            best[begin : begin + count] = cosines.max(axis=1) if cosines.size else 0.0
            begin += count
        scores["passage"] = option_table(questions, best)
    return scores
