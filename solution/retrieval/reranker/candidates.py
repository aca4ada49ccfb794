"""The passages that a reranker reads for each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from solution.config import RerankerSettings
from solution.exam import ContextPassage, passage_text
from solution.retrieval.fusion import Ranking, fuse, read_passages
from solution.retrieval.search import Searcher, query_tails


@dataclass(frozen=True)
class PassageList:
    """The texts that a cross-encoder reads for one question.

    Attributes:
        query: the question's text.
        texts: of n passages.
        priors: float [n], the scaled scores of retrieval; empty where there is no `retrieval_prior`.
    """

    query: str
    texts: list[str]
    priors: list[float]


@dataclass(frozen=True)
class LabelledList(PassageList):
    """A question to learn from.

    Attributes:
        right: bool [n], whether each passage is a right one; at least one is, and at least one is not.
    """

    right: list[bool]


@dataclass(frozen=True)
class Candidates:
    """The passages that retrieval offers a cross-encoder for one question, best first.

    Attributes:
        query, priors: as in `PassageList`.
        passages: n passages.
    """

    query: str
    passages: list[ContextPassage]
    priors: list[float]

    def first(self, count: int) -> Candidates:
        """The first `count` of them."""
        return Candidates(self.query, self.passages[:count], self.priors[:count])

    def read(self) -> PassageList:
        """Their texts."""
        return PassageList(self.query, [passage_text(passage) for passage in self.passages], self.priors)


def find_candidates(
    searcher: Searcher, lists: Sequence[list[Ranking]], settings: RerankerSettings, count: int
) -> list[Candidates]:
    """The `count` best passages of each question's lists, fused."""
    questions, config = searcher.questions, searcher.config
    tails = query_tails(questions, settings.query)
    fused = (fuse(rankings, config.fusion, config.rrf_k)[:count] for rankings in lists)
    found = read_passages(fused, searcher.passages())
    candidates = []
    for prompt, tail, passages in zip(questions.prompts, tails, found, strict=True):
        scores = [passage.score for passage in passages]
        priors = scaled_scores(scores, settings.candidates) if settings.retrieval_prior else []
        candidates.append(Candidates(f"{prompt} {tail}".strip(), passages, priors))
    return candidates


def scaled_scores(scores: Sequence[float], count: int) -> list[float]:
    """Falling scores, so scaled that the first is 1 and the last of the first `count` is 0; equal ones are all 1."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        return []
    last = values[min(count, len(values)) - 1]
    span = values[0] - last
    return ((values - last) / span if span > 0 else np.ones(len(values))).tolist()


def in_order(passages: Sequence[ContextPassage], scores: np.ndarray, threshold: float) -> list[ContextPassage]:
    """Passages by score, best first; of equal scores the one that stood first.

    Args:
        scores: float [n], any numbers; the passages get their softmax.
        threshold: passages with a lower share are left out, but never the best.
    """
    if not len(passages):
        return []
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-scores.round(9), kind="stable").tolist()
    return [
        replace(passages[i], score=float(shares[i]), retriever=f"{passages[i].retriever}, reranked")
        for place, i in enumerate(order)
        if place == 0 or shares[i] >= threshold
    ]
