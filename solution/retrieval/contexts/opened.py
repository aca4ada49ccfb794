"""A retrieval whose indexes and models stay open, for questions that come one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from solution.config import ContextView, RetrievalConfig
from solution.exam import ContextPassage, Contexts
from solution.questions import Questions
from solution.retrieval.contexts.build import each_view, reranker_of, search_contexts
from solution.retrieval.contexts.cache import is_stored
from solution.retrieval.contexts.column import scored_column
from solution.retrieval.contexts.option_scores import NearSentence, nearest_sentences
from solution.retrieval.contexts.signals.build import make_signals
from solution.retrieval.embedding import RememberingEmbedder
from solution.retrieval.places import find_embedder
from solution.retrieval.search import Indexes, Searcher, embed_options


class OpenRetrieval:
    """What `build_views` does, with the indexes, the embedder and the reranker opened once; nothing is stored.

    Args:
        workdir: the working folder; an index that is not there is built where the corpus can be read.

    Raises:
        UserError: the embedder or the reranker is not usable; on first use: an index is not.
    """

    def __init__(self, config: RetrievalConfig, workdir: Path):
        self.config = config
        searches = config.source == "index"
        self._embedder = find_embedder(config, workdir, RememberingEmbedder) if is_stored(config) else None
        self._indexes = Indexes(config, workdir, embedder=self._embedder) if searches else None
        self._reranker = reranker_of(config, workdir) if searches else None

    def warm_up(self, views: Iterable[ContextView]) -> None:
        """Open all that the views need, so that the first question does not wait for it."""
        trial = Questions(["trial"], ["Which is a word?"], [["word", "sign"]], np.full(1, -1), {"context": ["A word."]})
        self.views(trial, views)

    def views(self, questions: Questions, views: Iterable[ContextView]) -> dict[ContextView, Contexts]:
        """The contexts of questions, one for each view named; see `build_views`.

        Raises:
            UserError: an index cannot be made or opened, or the column `context` is missing.
        """
        config, indexes = self.config, self._indexes
        if config.source == "none":
            return dict.fromkeys(views, Contexts(list(questions.ids), [[] for _ in range(len(questions))]))
        if indexes is None:
            return dict.fromkeys(views, scored_column(questions, config, self._embedder))
        return each_view(
            config,
            views,
            lambda settings: search_contexts(Searcher(questions, settings, indexes), self._reranker),
            lambda: make_signals(questions, config, indexes),
        )

    def nearest_sentences(
        self, questions: Questions, passages: Sequence[Sequence[ContextPassage]]
    ) -> list[list[NearSentence]] | None:
        """See `option_scores.nearest_sentences`; None where this retrieval has no embedder."""
        if self._embedder is None:
            return None
        vectors = embed_options(questions, self.config, self._embedder)
        return nearest_sentences(questions, passages, vectors, self.config, self._embedder)
