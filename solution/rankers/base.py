"""What every ranker is, and the exam that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from solution.config import RankerConfig
from solution.errors import UserError
from solution.questions import Questions
from solution.retrieval.contexts import ContextPassage, Contexts


@dataclass
class Exam:
    """Questions with their contexts.

    Attributes:
        questions: n questions.
        passages: n lists of passages, best first; empty where nothing was retrieved.
        option_scores: kind -> float32 [n, max_options], see `Contexts`.
    """

    questions: Questions
    passages: list[list[ContextPassage]]
    option_scores: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def join(cls, questions: Questions, contexts: Contexts | None) -> Exam:
        """Questions with contexts made for them, or closed-book."""
        if contexts is None:
            return cls(questions, [[] for _ in range(len(questions))])
        return cls(questions, contexts.passages, contexts.option_scores)

    @classmethod
    def views(cls, config: RankerConfig, questions: Questions, contexts: Mapping[Any, Contexts] | None) -> list[Exam]:
        """An exam for each of the contexts that the ranker reads (by their name in `contexts`); one if closed-book."""
        if contexts is None:
            return [cls.join(questions, None)]
        return [cls.join(questions, contexts[view]) for view in config.contexts]

    def __len__(self) -> int:
        return len(self.questions)

    def subset(self, rows: Sequence[int] | np.ndarray) -> Exam:
        rows = [int(row) for row in rows]
        return Exam(
            self.questions.subset(rows),
            [self.passages[row] for row in rows],
            {kind: table[rows] for kind, table in self.option_scores.items()},
        )

    def prior(self, config: RankerConfig) -> np.ndarray:
        """The option score that the ranker asks for, float32 [n, max_options], 0 where there is no option.

        Raises:
            UserError: retrieval did not make it.
        """
        if config.option_score not in self.option_scores:
            raise UserError(
                f"the ranker {config.name} uses the option score {config.option_score!r}, and retrieval does not make "
                f"it: add it to retrieval.option_scores (and set a retrieval.source other than none)"
            )
        # A fold's questions may all have fewer options than the exam that the scores were made for.
        return np.nan_to_num(self.option_scores[config.option_score][:, : self.questions.max_options])

    def hidden(self) -> Exam:
        """The same exam with its answers taken out: what `predict` is given."""
        blank = Questions(
            self.questions.ids,
            self.questions.prompts,
            self.questions.options,
            np.full(len(self), -1, dtype=np.int64),
            {name: values for name, values in self.questions.extra.items() if name != "answer"},
        )
        return Exam(blank, self.passages, self.option_scores)


def predict_contexts(ranker: Ranker, exams: Sequence[Exam]) -> np.ndarray:
    """What a ranker says of the same questions with each of several contexts, blended as its config says.

    Returns:
        float32 [n, max_options], see `Ranker.predict`.
    """
    answers = np.stack([ranker.predict(exam) for exam in exams]).astype(np.float64)
    if len(exams) == 1:
        return answers[0].astype(np.float32)
    blend = ranker.config.context_blend
    table = answers.max(axis=0) if blend != "mean" else answers.mean(axis=0)
    if blend == "max_mean":
        table += answers.mean(axis=0)
    return (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


class Ranker(Protocol):
    """A model that gives each option of a question a probability."""

    config: RankerConfig

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        """Train on `train`; `valid` is only watched. Killed and called again, goes on from `checkpoint`.

        Args:
            logs: a folder for what is told while training (`log.csv`, event files); None: nothing is written.

        Returns:
            JSON-able facts for metrics.json: losses, evaluations, trainable parameters.

        Raises:
            UserError: an answer is missing, or the loss is stuck or not finite.
        """

    def predict(self, exam: Exam) -> np.ndarray:
        """float32 [n, max_options]: rows sum to 1 over the options that exist, 0 elsewhere."""

    def save(self, folder: Path) -> None:
        """Write adapter and head into an existing folder."""

    def load(self, folder: Path) -> None:
        """Take the adapter and head of `save`; on the second call the base model stays in memory.

        Raises:
            UserError: the folder's files do not fit this ranker or are corrupt.
        """


def masked_softmax(scores: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """Softmax over the options that exist, float32 [n, width]; 0 elsewhere."""
    scores = np.where(exists, scores.astype(np.float64), -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
