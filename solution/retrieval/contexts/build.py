"""Contexts: for each question the passages that the rankers read, made once and kept in `WORKDIR/cache`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import SIGNALS, ContextView, RetrievalConfig
from solution.errors import UserError
from solution.exam import ContextPassage, Contexts
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.contexts.cache import ContextCache, is_stored, stored_contexts
from solution.retrieval.contexts.column import column_contexts
from solution.retrieval.contexts.option_scores import option_table, sentence_scores
from solution.retrieval.contexts.signals.build import made_by_step, make_signals, signal_inputs
from solution.retrieval.contexts.signals.limit import TimeLimit
from solution.retrieval.contexts.stored import LARGE
from solution.retrieval.embedding import Embedder
from solution.retrieval.fusion import Ranking, drop_similar, select
from solution.retrieval.reranker.candidates import find_candidates
from solution.retrieval.reranker.trained import Reranker
from solution.retrieval.search import Indexes, Searcher


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
        return column_contexts(questions, config, workdir)
    return searched_contexts(Searcher(questions, config, Indexes(config, workdir, build)), reranker_of(config, workdir))


def searched_contexts(searcher: Searcher, reranker: Reranker | None) -> Contexts:
    """The contexts that a searcher and a reranker give, from the cache or from a search.

    Raises:
        UserError: see `build_contexts`.
    """
    inputs = context_inputs(searcher, reranker)
    cache = ContextCache(searcher.questions, searcher.config, searcher.indexes.workdir, inputs)
    contexts = cache.read()
    if contexts is None and len(searcher.questions) > LARGE:
        # Part by part, so that their texts are never all in memory.
        count = len(searcher.questions)
        parts = (range(begin, min(begin + LARGE, count)) for begin in range(0, count, LARGE))
        cache.write_parts(_part(searcher, reranker, rows) for rows in parts)
        contexts = cache.read()
        if contexts is None:
            raise UserError(f"the contexts just written to {cache.path} cannot be read: is the disk full?")
    elif contexts is None:
        contexts = search_contexts(searcher, reranker)
        cache.write(contexts)
    contexts.key = cache.key
    return contexts


def _part(searcher: Searcher, reranker: Reranker | None, rows: range) -> Contexts:
    """The contexts of some of the questions; the tables of their options are as wide as those of all."""
    say(f"contexts of questions {rows.start + 1:,} to {rows.stop:,} of {len(searcher.questions):,}")
    contexts = search_contexts(searcher.part(rows), reranker)
    width = searcher.questions.max_options
    for kind, table in contexts.option_scores.items():
        missing = ((0, 0), (0, width - table.shape[1]))
        contexts.option_scores[kind] = np.pad(table, missing, constant_values=np.nan)
    return contexts


def _signal_cache(questions: Questions, config: RetrievalConfig, indexes: Indexes) -> ContextCache:
    # Signals depend on none of the option scores, which other rankers read.
    settings = config.model_copy(update={"option_scores": []})
    return ContextCache(questions, settings, indexes.workdir, signal_inputs(config, indexes))


def signal_contexts(
    questions: Questions, config: RetrievalConfig, indexes: Indexes, limit: TimeLimit | None = None
) -> Contexts:
    """The signals of the options, from the cache or made anew.

    Where the time does not do for all of them, those that are made are kept under another key: the next command makes
    the others too.

    Raises:
        UserError: see `make_signals`.
    """
    cache = _signal_cache(questions, config, indexes)
    contexts = cache.read()
    if contexts is None:
        _ = indexes.dense, indexes.lexical, indexes.sentences  # building one is not among the seconds
        started = time.monotonic()
        contexts = make_signals(questions, config, indexes, limit)
        contexts.seconds = round((time.monotonic() - started) / max(len(questions), 1), 5)
        made = made_by_step(contexts.signals, questions.exists())
        if any(count < len(questions) for count in made.values()):
            cache = cache.part(made)
        cache.write(contexts)
    contexts.key = cache.key
    return contexts


def contexts_key(
    questions: Questions, config: RetrievalConfig, view: ContextView, workdir: Path, embedder: Embedder
) -> str:
    """The `Contexts.key` that `build_views` would give for a view (source index), without searching.

    Args:
        embedder: one made for `config.embedder`.

    Raises:
        UserError: there is no index to search.
    """
    indexes = Indexes(config, workdir, build=False, embedder=embedder)
    if view == SIGNALS:
        return _signal_cache(questions, config, indexes).key
    config = config.view(view)
    searcher = Searcher(questions, config, indexes)
    return ContextCache(questions, config, workdir, context_inputs(searcher, reranker_of(config, workdir))).key


def reranker_of(config: RetrievalConfig, workdir: Path) -> Reranker | None:
    """The trained reranker of the settings; None where they have none.

    Raises:
        UserError: it has not been trained with these settings.
    """
    return None if config.reranker is None else Reranker(config.reranker, workdir)


def context_inputs(searcher: Searcher, reranker: Reranker | None) -> dict[str, Any]:
    """All that the contexts depend on, beside the questions."""
    inputs = searcher.about()
    return inputs if reranker is None else {**inputs, "reranker": reranker.about(searcher.questions)}


def reranked(searcher: Searcher, reranker: Reranker, lists: list[list[Ranking]]) -> list[list[ContextPassage]]:
    """The best passages of a searcher's lists in the reranker's order, those below its threshold left out."""
    settings = reranker.settings
    candidates = find_candidates(searcher, lists, settings, settings.candidates)
    return reranker.rerank(searcher.questions, candidates, searcher.indexes.workdir / "cache")


def build_views(
    questions: Questions,
    config: RetrievalConfig,
    views: Iterable[ContextView],
    workdir: Path,
    hidden: Sequence[str] | None = None,
    signal_limit: TimeLimit | None = None,
) -> dict[ContextView, Contexts]:
    """`build_contexts` by all retrievers together (`fused`) or by one alone, or the signals, for each view named.

    The views share the opened indexes, the embedder and the reranker. A source that does not search has the same
    contexts in every view.

    Args:
        hidden: for each question the id of a document that is not found for it, or ""; None: nothing is hidden.
        signal_limit: the time for the signals; None: as long as it takes.
    """
    if config.source != "index":
        return dict.fromkeys(views, build_contexts(questions, config, workdir))
    indexes, reranker = Indexes(config, workdir), reranker_of(config, workdir)
    return each_view(
        config,
        views,
        lambda settings: searched_contexts(Searcher(questions, settings, indexes, hidden), reranker),
        lambda: signal_contexts(questions, config, indexes, signal_limit),
    )


def each_view(
    config: RetrievalConfig,
    views: Iterable[ContextView],
    search: Callable[[RetrievalConfig], Contexts],
    signals: Callable[[], Contexts],
) -> dict[ContextView, Contexts]:
    """The contexts of each view; those of views that search alike are sought once.

    Args:
        search: gives the contexts by the settings of a view.
        signals: gives those of the view `signals`.
    """
    contexts: dict[ContextView, Contexts] = {}
    for view in dict.fromkeys(views):
        if view == SIGNALS:
            contexts[view] = signals()
            continue
        settings = config.view(view)
        same = next((other for other in contexts if other != SIGNALS and config.view(other) == settings), None)
        contexts[view] = search(settings) if same is None else contexts[same]
    return contexts


def open_views(
    questions: Questions,
    config: RetrievalConfig,
    views: Collection[ContextView],
    keys: Mapping[ContextView, str],
    workdir: Path,
) -> dict[ContextView, Contexts]:
    """The contexts that `build_views` has made of these questions and settings, here or in another process.

    Each is opened once, by its key: corpus, embedder and indexes are not looked at. Contexts that are not stored (see
    `cache.is_stored`) are made from the questions, without a search or a model, and need no key.

    Args:
        keys: `Contexts.key` of each view.

    Raises:
        UserError: contexts are not in the cache any more, or not whole; or the column `context` is missing.
    """
    if not is_stored(config):
        return build_views(questions, config, views, workdir)
    opened: dict[str, Contexts] = {}
    for key in dict.fromkeys(keys[view] for view in views):
        contexts = stored_contexts(workdir, key, questions.ids)
        if contexts is None:
            raise UserError(f"the contexts {key} in {workdir / 'cache'} are gone or corrupt; run the command again")
        opened[key] = contexts
    return {view: opened[keys[view]] for view in views}


def search_contexts(searcher: Searcher, reranker: Reranker | None) -> Contexts:
    """The contexts found by searching, with the option scores that the settings name; nothing is stored."""
    questions, config = searcher.questions, searcher.config
    lists = searcher.all_rankings()
    if reranker is None:
        passages = select(lists, searcher.passages(), config, config.top_k)
    else:
        searcher.passages()  # two indexes that do not belong together are refused before a model reads
        passages = [drop_similar(found, config, config.top_k) for found in reranked(searcher, reranker, lists)]
    contexts = Contexts(list(questions.ids), passages)
    if "passage" in config.option_scores:
        contexts.option_scores["passage"] = option_table(questions, searcher.best_passage_scores())
    if "sentence" in config.option_scores:
        vectors = searcher.option_vectors
        scores = sentence_scores(questions, passages, vectors, config, searcher.embedder)
        contexts.option_scores["sentence"] = scores
    return contexts
