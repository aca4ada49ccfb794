"""Several ranked lists of passages made into one, and passages that say the same dropped from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from solution.config import RetrievalConfig
from solution.exam import ContextPassage, Titled, passage_text
from solution.retrieval.store import Passages
from solution.words import search_words


@dataclass(frozen=True)
class Ranking:
    """The passages that one retriever found for one query, best first.

    Attributes:
        retriever: its name.
        query: the parts of the question that it was made of: `prompt`, `prompt and options`, or an option's letter.
        rows: int64 [m], the passages.
        scores: float [m], cosines or BM25 scores.
        weight: of the list among others.
    """

    retriever: str
    query: str
    rows: np.ndarray
    scores: np.ndarray
    weight: float = 1.0


@dataclass(frozen=True)
class FusedPassage:
    """A passage of the fused list, its score, and the retrievers that found it, in the order of the lists."""

    row: int
    score: float
    retrievers: tuple[str, ...]


def fuse(rankings: Sequence[Ranking], method: Literal["rrf", "weighted"], rrf_k: int) -> list[FusedPassage]:
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
            FusedPassage(row, score, (only.retriever,))
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
    return [FusedPassage(row, scores[row], tuple(finders[row])) for row in order]


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
        these = set(search_words(passage_text(passage)))
        if all(len(these & others) < threshold * len(these | others) for others in words):
            taken.append(place)
            words.append(these)
            if len(taken) == most:
                break
    return taken


_PASSAGES_AT_ONCE = 1 << 16  # read together: their texts take some tens of megabytes


def select(
    lists: Iterable[list[Ranking]], passages: Passages, config: RetrievalConfig, most: int
) -> list[list[ContextPassage]]:
    """The best passages of each question: its lists fused, the first `most` that are not nearly equal to another."""
    fused = (fuse(rankings, config.fusion, config.rrf_k) for rankings in lists)
    if config.drop_similar is None:
        fused = (found[:most] for found in fused)  # only these are read
    return [drop_similar(found, config, most) for found in read_passages(fused, passages)]


def drop_similar(found: list[ContextPassage], config: RetrievalConfig, most: int) -> list[ContextPassage]:
    """The first `most` of a question's passages, without those nearly equal to an earlier one (see `distinct`)."""
    return [found[place] for place in distinct(found, config.drop_similar, most)]


def read_passages(fused: Iterable[Sequence[FusedPassage]], passages: Passages) -> Iterator[list[ContextPassage]]:
    """The passages of each question's fused list with their texts, which are read for many questions together."""
    remaining = iter(fused)
    while block := list(_first(remaining, _PASSAGES_AT_ONCE)):
        texts = iter(passages.take(found.row for question in block for found in question))
        for question in block:
            # Each question takes as many texts as it has passages.
            yield [
                ContextPassage(passage.id, passage.title, passage.text, found.score, "+".join(found.retrievers))
                for found, passage in zip(question, texts, strict=False)
            ]


def _first(lists: Iterator[Sequence[FusedPassage]], most: int) -> Iterator[Sequence[FusedPassage]]:
    """Lists from the front, until they hold `most` passages."""
    held = 0
    for question in lists:
        yield question
        held += len(question)
        if held >= most:
            return
