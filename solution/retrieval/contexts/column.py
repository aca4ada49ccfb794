"""Contexts from the question file's own column `context`."""

from __future__ import annotations

from pathlib import Path

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
from solution.retrieval.search import embed_options
from solution.tables import cell_text


def own_contexts(questions: Questions) -> Contexts:
    """The column `context`, which must be there, as contexts: one passage a question, none where it is empty."""
    pairs = zip(questions.ids, _texts(questions), strict=True)
    passages = [[ContextPassage(id_, "", text, 1.0, "column")] if text else [] for id_, text in pairs]
    return Contexts(list(questions.ids), passages)


def _texts(questions: Questions) -> list[str]:
    return [cell_text(value) for value in questions.extra["context"]]


def column_contexts(questions: Questions, config: RetrievalConfig, workdir: Path) -> Contexts:
    values = questions.extra.get("context")
    if values is None:
        raise UserError(
            "retrieval.source is column and the question file has no column 'context'; add it, or set "
            "retrieval.source to index or none"
        )
    wrong = [id_ for id_, value in zip(questions.ids, values, strict=True) if isinstance(value, (list, dict))]
    if wrong:
        raise UserError(f"the context of question {wrong[0]} is not a text")
    texts = _texts(questions)
    empty = [id_ for id_, text in zip(questions.ids, texts, strict=True) if not text]
    if empty:
        say(f"note: the context is empty in {len(empty)} of {len(questions)} questions (first: id {empty[0]})")
    contexts = own_contexts(questions)
    contexts.key = contexts.hash
    if not is_stored(config):
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
    cache = ContextCache(questions, config, workdir, about)
    kept = cache.read()
    if kept is None:
        kept = Contexts(contexts.ids, contexts.passages, _column_scores(questions, texts, config, embedder))
        cache.write(kept)
    kept.key = cache.key
    return kept


def _column_scores(
    questions: Questions, texts: list[str], config: RetrievalConfig, embedder: Embedder
) -> dict[str, np.ndarray]:
    """The option scores from the question's own context; 0 where that is empty."""
    vectors = embed_options(questions, config, embedder)
    made: dict[str, np.ndarray] = {}
    if "sentence" in config.option_scores:
        own = [[ContextPassage(str(row), "", text, 1.0, "column")] for row, text in enumerate(texts)]
        made["sentence"] = sentence_scores(questions, own, vectors, config, embedder)
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
        made["passage"] = option_table(questions, best)
    return made
