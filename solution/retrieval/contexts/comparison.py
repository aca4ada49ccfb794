"""Recall of the retrievers on an exam with answers (--report), and the search for one question (--explain)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from solution.config import QueryForm, RetrievalConfig
from solution.exam import Contexts
from solution.questions import LETTERS, Questions
from solution.retrieval.contexts.build import build_contexts, reranked, reranker_of, searched_contexts
from solution.retrieval.fusion import FusedPassage, Ranking, drop_similar, fuse, read_passages, select
from solution.retrieval.gold import DEPTHS, Gold, judge
from solution.retrieval.reranker.trained import Reranker
from solution.retrieval.search import Indexes, Searcher
from solution.retrieval.store import Passages


def compare(questions: Questions, config: RetrievalConfig, gold: Gold, workdir: Path) -> list[dict[str, Any]]:
    """Each retriever of `config` alone and, of two, both fused, by every form of the query; then `config`'s reranker.

    Returns:
        Records of retriever, query, milliseconds a question, and what `judge` gives; of what may be reranked also
        `ceiling` (the recall that no reranking of the first `depth` can exceed) and `depth`.
    """
    depth = config.candidates if config.reranker is None else config.reranker.candidates
    # Enough for every row of the table, also for those that fuse nothing.
    deep = {"top_k": max(config.candidates, depth, DEPTHS[-1]), "option_scores": [], "reranker": None}
    reranker = reranker_of(config, workdir)  # one that is not trained is refused before anything is searched
    if reranker is not None:
        reranker.models(questions)
    indexes = Indexes(config, workdir)
    searcher = Searcher(questions, config.model_copy(update=deep), indexes)
    searcher.passages()  # opened before a clock starts
    rows: list[dict[str, Any]] = []
    for query in get_args(QueryForm):
        rows += _compared(searcher, config, query, gold, depth)
    if reranker is not None:
        plain = Searcher(questions, config.model_copy(update={"option_scores": []}), indexes)
        rows.append(_reranked(plain, reranker, gold))
    return rows


def _compared(
    searcher: Searcher, config: RetrievalConfig, query: QueryForm, gold: Gold, depth: int
) -> Iterator[dict[str, Any]]:
    """The records of one form of the query: of each retriever alone, then of all fused."""
    lists: dict[str, list[list[Ranking]]] = {}  # retriever -> for each question its lists
    seconds: dict[str, float] = {}
    for retriever in config.retrievers:
        started = time.monotonic()
        lists[retriever] = searcher.rankings(retriever, query)
        seconds[retriever] = time.monotonic() - started
    every, together = searcher.passages(), list(lists)
    for names in [[name] for name in lists] + ([together] if len(together) > 1 else []):
        alone = len(names) == 1
        started = time.monotonic()
        rankings = [
            [replace(ranking, weight=1.0) if alone else ranking for part in parts for ranking in part]
            for parts in zip(*(lists[name] for name in names), strict=True)
        ]
        passages = select(rankings, every, config, DEPTHS[-1])
        spent = time.monotonic() - started + sum(seconds[name] for name in names)
        pools = (fuse(question, config.fusion, config.rrf_k)[:depth] for question in rankings)
        yield {
            "retriever": "+".join(names),
            "query": query,
            "ms_per_question": round(1000 * spent / len(searcher.questions), 2),
            **judge(gold, passages),
            "ceiling": _ceiling(gold, pools, every),
            "depth": depth,
        }


def _ceiling(gold: Gold, fused: Iterable[Sequence[FusedPassage]], every: Passages) -> float:
    """The share of the judged questions with a right passage anywhere in their list."""
    judged = set(gold.rows)
    lists = enumerate(read_passages(fused, every))
    with_right = sum(row in judged and any(gold.hits(row, passages)) for row, passages in lists)
    return round(with_right / len(judged), 4)


def _reranked(searcher: Searcher, reranker: Reranker, gold: Gold) -> dict[str, Any]:
    """The record of the reranked passages."""
    questions, config = searcher.questions, searcher.config
    searcher.passages()  # opened before the clock starts, like those of the others
    started = time.monotonic()
    found = reranked(searcher, reranker, searcher.all_rankings())
    passages = [drop_similar(question, config, DEPTHS[-1]) for question in found]
    spent = time.monotonic() - started
    return {
        "retriever": "+".join([*config.retrievers, "reranker"]),
        "query": config.query,
        "ms_per_question": round(1000 * spent / len(questions), 2),
        **judge(gold, passages),
    }


def table(rows: Sequence[dict[str, Any]], gold: Gold, questions: int) -> Iterator[str]:
    """The lines of the table of `compare`."""
    yield (
        f"right: {gold.name}; {len(gold.rows)} of {questions} questions judged; 95 % intervals in brackets; "
        f"ceiling: recall@{rows[0]['depth']}, the most that reranking so many could bring to the front"
    )
    measures = [f"recall@{k}" for k in DEPTHS] + [f"mrr@{DEPTHS[-1]}"]
    width = max(15, *(len(row["retriever"]) + 1 for row in rows))
    yield (
        f"{'retriever':{width}}{'query':20}"
        + "".join(f"{name:>22}" for name in measures)
        + f"{'ceiling':>9}{'ms/question':>13}"
    )
    for row in rows:
        cells = ("{:.3f} [{:.3f}, {:.3f}]".format(*row[name]) for name in measures)
        yield (
            f"{row['retriever']:{width}}{row['query']:20}"
            + "".join(f"{cell:>22}" for cell in cells)
            + (f"{row['ceiling']:9.3f}" if "ceiling" in row else " " * 9)
            + f"{row['ms_per_question']:13.2f}"
        )


def explain(questions: Questions, row: int, config: RetrievalConfig, workdir: Path) -> Iterator[str]:
    """Lines on one question's passages, and on the places and scores that each has in the retrievers' lists."""
    one = questions.subset([row])
    places: dict[str, list[str]] = {}
    if config.source == "index":
        searcher = Searcher(one, config, Indexes(config, workdir))
        contexts = searched_contexts(searcher, reranker_of(config, workdir))
        places = _places(searcher)
    else:
        contexts = build_contexts(one, config, workdir)
    yield f"{one.ids[0]}: {one.prompts[0]}"
    yield from (f"  {letter}" for letter in _options(one))
    yield from _passages(contexts, places)


def _places(searcher: Searcher) -> dict[str, list[str]]:
    """Passage id -> a text for each list of the first question that it is in."""
    every = searcher.passages()
    places: dict[str, list[str]] = {}
    for ranking in searcher.all_rankings()[0]:
        passages = zip(every.take(ranking.rows.tolist()), ranking.scores.tolist(), strict=True)
        for place, (passage, score) in enumerate(passages, 1):
            text = f"{ranking.retriever} ({ranking.query}): place {place}, {score:.3f}"
            places.setdefault(passage.id, []).append(text)
    return places


def _options(one: Questions) -> list[str]:
    right = int(one.answers[0])
    return [
        f"{LETTERS[i]}. {option}{'  (right)' if i == right else ''}"
        for i, option in enumerate(one.options[0])
        if option
    ]


def _passages(contexts: Contexts, places: dict[str, list[str]]) -> Iterator[str]:
    for number, passage in enumerate(contexts.passages[0], 1):
        head = f"{number:2} {passage.score:.4f} {passage.retriever} [{passage.id}] {passage.title}"
        yield f"  {head}: {passage.text[:120]}"
        yield from (f"       {text}" for text in places.get(passage.id, []))
