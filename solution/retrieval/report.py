"""How good the retrieval is on an exam with answers, and how one question's passages came to be found."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from solution.config import QueryForm, RetrievalConfig
from solution.errors import UserError
from solution.metrics import bootstrap_interval
from solution.questions import LETTERS, Questions, cell_text
from solution.retrieval.contexts import Contexts, Searcher, build_contexts, drop_similar, named, select
from solution.retrieval.fusion import Found, Ranking, fuse
from solution.retrieval.passages import Titled, passage_text
from solution.retrieval.store import Passages

DEPTHS = (1, 3, 5, 10)
_SPACE = re.compile(r"\W+")


class Gold:
    """What counts as the right passage of a question.

    With a column: a passage whose id or title is the column's value or begins with it (up to a character that is
    no letter and no digit), so a module "m45983" has the passages "m45983-1" and "m45983-1#0".
    Without one: a passage that contains the text of the right option. That is a weak label: long answers stand in
    no passage word for word, and short ones stand in many.

    Attributes:
        name: says which of the two it is.
        rows: the questions that can be judged: those with a value, or with an answer.

    Raises:
        UserError: the column is not there, or no question can be judged.
    """

    def __init__(self, questions: Questions, column: str | None):
        if column is None:
            self.name = "passages that contain the answer's text (weak labels)"
            values = [
                options[answer] if answer >= 0 else ""
                for options, answer in zip(questions.options, questions.answers.tolist(), strict=True)
            ]
            self._values = [_plain(value) for value in values]
            self._fits: Callable[[str, Any], bool] = lambda value, passage: value in _plain(passage_text(passage))
        else:
            if column not in questions.extra:
                there = ", ".join(questions.extra) or "none"
                raise UserError(f"the question file has no column {column!r} (its further columns: {there})")
            self.name = f"passages of the question's {column}"
            self._values = [cell_text(value).lower() for value in questions.extra[column]]
            self._fits = lambda value, passage: _begins(passage.id, value) or _begins(passage.title, value)
        self.rows = [row for row, value in enumerate(self._values) if value.strip()]
        if not self.rows:
            raise UserError(
                "no question has an answer, so no passage can be judged; give --gold COLUMN"
                if column is None
                else f"the column {column!r} is empty"
            )

    def hits(self, row: int, passages: Sequence[Any]) -> list[bool]:
        return [self._fits(self._values[row], passage) for passage in passages]


def _plain(text: str) -> str:
    """Words in lower case with single spaces, one at each end."""
    words = _SPACE.sub(" ", text.lower()).strip()
    return f" {words} " if words else ""


def _begins(text: str, value: str) -> bool:
    return text[: len(value)].lower() == value and not text[len(value) : len(value) + 1].isalnum()


def judge(gold: Gold, passages: Sequence[Sequence[Titled]]) -> dict[str, Any]:
    """Recall@k (the share of questions with a right passage among the first k) and MRR, with 95 % intervals.

    Args:
        passages: of all questions, best first; only the first ten count.

    Returns:
        `recall@k` and `mrr@10` -> [mean, low, high], by the percentile bootstrap over questions.
    """
    deepest = DEPTHS[-1]
    hits = np.zeros((len(gold.rows), deepest), dtype=bool)
    for i, row in enumerate(gold.rows):
        found = gold.hits(row, passages[row][:deepest])
        hits[i, : len(found)] = found
    any_hit = hits.any(axis=1)
    credits = {f"recall@{k}": hits[:, :k].any(axis=1).astype(float) for k in DEPTHS}
    credits[f"mrr@{deepest}"] = np.where(any_hit, 1 / (1 + hits.argmax(axis=1)), 0.0)
    return {
        name: [round(value, 4) for value in (float(credit.mean()), *bootstrap_interval(credit))]
        for name, credit in credits.items()
    }


def compare(questions: Questions, config: RetrievalConfig, gold: Gold, workdir: Path) -> list[dict[str, Any]]:
    """Each retriever of `config` alone and, of two, both fused, by every form of the query; then `config`'s reranker.

    Returns:
        Records of retriever, query, milliseconds a question, and what `judge` gives; of what may be reranked also
        `ceiling` (the recall that no reranking of the first `depth` can exceed) and `depth`.
    """
    depth = config.candidates if config.reranker is None else config.reranker.candidates
    # Enough for every row of the table, also for those that fuse nothing.
    deep = {"top_k": max(config.candidates, depth, DEPTHS[-1]), "option_scores": [], "reranker": None}
    reranking = None
    if config.reranker is not None:
        reranking = Searcher(questions, config.model_copy(update={"option_scores": []}), workdir)
        reranking.about()  # a reranker that is not trained is told now
    searcher = Searcher(questions, config.model_copy(update=deep), workdir)
    every = searcher.passages()
    rows = []
    for query in get_args(QueryForm):
        lists: dict[str, list[list[Ranking]]] = {}
        seconds: dict[str, float] = {}
        for retriever in config.retrievers:
            started = time.monotonic()
            lists[retriever] = searcher.rankings(retriever, query)
            seconds[retriever] = time.monotonic() - started
        together = list(lists)
        for names in [[name] for name in lists] + ([together] if len(together) > 1 else []):
            alone = len(names) == 1
            started = time.monotonic()
            rankings = [
                [replace(one, weight=1.0) if alone else one for part in own for one in part]
                for own in zip(*(lists[name] for name in names), strict=True)
            ]
            passages = select(rankings, every, config, DEPTHS[-1])
            spent = time.monotonic() - started + sum(seconds[name] for name in names)
            pools = (fuse(own, config.fusion, config.rrf_k)[:depth] for own in rankings)
            rows.append(
                {
                    "retriever": "+".join(names),
                    "query": query,
                    "ms_per_question": round(1000 * spent / len(questions), 2),
                    **judge(gold, passages),
                    "ceiling": _ceiling(gold, pools, every),
                    "depth": depth,
                }
            )
    if reranking is not None:
        rows.append(_reranked(questions, reranking, gold))
    return rows


def _ceiling(gold: Gold, fused: Iterable[Sequence[Found]], every: Passages) -> float:
    """The share of the judged questions with a right passage anywhere in their list."""
    judged = set(gold.rows)
    found = sum(row in judged and any(gold.hits(row, own)) for row, own in enumerate(named(fused, every)))
    return round(found / len(judged), 4)


def _reranked(questions: Questions, searcher: Searcher, gold: Gold) -> dict[str, Any]:
    config = searcher.config
    searcher.passages()  # opened before the clock starts, like those of the others
    started = time.monotonic()
    passages = [drop_similar(own, config, DEPTHS[-1]) for own in searcher.rerank(searcher.all_rankings())]
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
    """One question's passages, and at which place of which retriever's list, with which score, each was found."""
    one = questions.subset([row])
    made = build_contexts(one, config, workdir)
    yield f"{one.ids[0]}: {one.prompts[0]}"
    yield from (f"  {letter}" for letter in _options(one))
    places: dict[str, list[str]] = {}
    if config.source == "index":
        searcher = Searcher(one, config, workdir)
        every = searcher.passages()
        for ranking in searcher.all_rankings()[0]:
            pairs = zip(every.take(ranking.rows.tolist()), ranking.scores.tolist(), strict=True)
            for place, (found, score) in enumerate(pairs, 1):
                text = f"{ranking.retriever} ({ranking.query}): place {place}, {score:.3f}"
                places.setdefault(found.id, []).append(text)
    yield from _passages(made, places)


def _options(one: Questions) -> list[str]:
    right = int(one.answers[0])
    return [
        f"{LETTERS[i]}. {option}{'  (right)' if i == right else ''}"
        for i, option in enumerate(one.options[0])
        if option
    ]


def _passages(made: Contexts, places: dict[str, list[str]]) -> Iterator[str]:
    for number, passage in enumerate(made.passages[0], 1):
        head = f"{number:2} {passage.score:.4f} {passage.retriever} [{passage.id}] {passage.title}"
        yield f"  {head}: {passage.text[:120]}"
        yield from (f"       {text}" for text in places.get(passage.id, []))
