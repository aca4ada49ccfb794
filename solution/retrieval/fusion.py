"""Several ranked lists of passages made into one, and passages that say the same dropped from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import ContextPassage, Titled, passage_text
from solution.retrieval.store import Passages

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Ranking:
    """What one retriever found for one query, best first.

    Attributes:
        retriever: who found it.
        query: what the query was made of: `prompt`, `prompt and options`, or an option's letter.
        rows: int64 [found], the passages.
        scores: float [found], cosines or BM25 scores.
        weight: how much the list counts among others.
    """

    retriever: str
    query: str
    rows: np.ndarray
    scores: np.ndarray
    weight: float = 1.0


@dataclass(frozen=True)
class Found:
    """A passage of the fused list, its score, and the retrievers that found it, in the order of the lists."""

    row: int
    score: float
    retrievers: tuple[str, ...]


def fuse(rankings: Sequence[Ranking], method: Literal["rrf", "weighted"], rrf_k: int) -> list[Found]:
    """One list of the passages of all lists, best first; of equal scores the lower row first.

    One list alone keeps its scores. Of several, a passage's score is the weighted sum over the lists it is in:
    `rrf`: of 1 / (rrf_k + place), places from 1 (reciprocal rank fusion, Cormack et al. 2009);
    `weighted`: of its score there, scaled so that the list runs from 1 to 0 (CombSUM of Fox and Shaw 1994 with the
    scaling of Lee 1997); a list whose scores are all equal counts 1 for each.
    Weights are scaled to the sum 1, so the best possible score is 1 / (rrf_k + 1) or 1.
    """
    if len(rankings) == 1:
        (only,) = rankings
        return [
            Found(row, score, (only.retriever,))
            for row, score in zip(only.rows.tolist(), only.scores.tolist(), strict=True)
        ]
    whole = sum(ranking.weight for ranking in rankings)
    scores: dict[int, float] = {}
    finders: dict[int, dict[str, None]] = {}
    for ranking in rankings:
        values = 1 / (rrf_k + 1 + np.arange(len(ranking.rows))) if method == "rrf" else _scaled(ranking.scores)
        for row, value in zip(ranking.rows.tolist(), (values * (ranking.weight / whole)).tolist(), strict=True):
            scores[row] = scores.get(row, 0.0) + value
            finders.setdefault(row, {})[ranking.retriever] = None
    # Rounded, so that sums of the same parts in another order are ties.
    order = sorted(scores, key=lambda row: (-round(scores[row], 12), row))
    return [Found(row, scores[row], tuple(finders[row])) for row in order]


def _scaled(scores: np.ndarray) -> np.ndarray:
    if len(scores) == 0:
        return np.zeros(0)
    wide = scores.astype(np.float64)
    span = wide.max() - wide.min()
    return (wide - wide.min()) / span if span > 0 else np.ones(len(wide))


def distinct(passages: Sequence[Titled], threshold: float | None, most: int) -> list[int]:
    """The places of the first `most` passages, in order, without those nearly equal to one already taken.

    Args:
        threshold: the least share of common words among all words of two passages (Jaccard; the resemblance of
            Broder 1997, of single words) that makes them nearly equal; None: all are taken.
    """
    if threshold is None:
        return list(range(min(most, len(passages))))
    taken: list[int] = []
    words: list[set[str]] = []
    for place, passage in enumerate(passages):
        own = set(_WORD.findall(passage_text(passage).lower()))
        if all(len(own & other) < threshold * len(own | other) for other in words):
            taken.append(place)
            words.append(own)
            if len(taken) == most:
                break
    return taken


_PASSAGES_AT_ONCE = 1 << 16  # read together: their texts take some tens of megabytes


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
