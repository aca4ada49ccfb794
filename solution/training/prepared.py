"""What the folds of an exam share: questions, folds and contexts, and the names of all that they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.config import ContextView, RankerConfig, Run, needs_contexts
from solution.errors import UserError
from solution.exam import Contexts, Exam, context_key, is_question
from solution.files import content_hash
from solution.folds import exam_folds, exam_with_folds_hash
from solution.learning import distributed
from solution.oof import SOURCES
from solution.questions import Questions
from solution.retrieval.contexts.build import build_views
from solution.retrieval.reranker.trained import Reranker
from solution.training.pretraining import Pretrained
from solution.training.scores import Scores
from solution.workdir import Workdir


@dataclass
class Prepared:
    """All that the folds of an exam share."""

    questions: Questions
    folds: np.ndarray
    contexts: dict[ContextView, Contexts] | None
    """By their names in the rankers' setting `contexts`; None: no ranker reads any."""
    start: Pretrained | None = None
    """What the folds of the ranker at hand start from; None: the base model."""

    scores: Scores | None = None
    """Those that the ranker at hand learns from, see `RankerConfig.signals_from`."""

    def exams(self, config: RankerConfig, run: Run) -> list[Exam]:
        """The exam with each of the contexts that a ranker reads."""
        return Exam.views(config, self.questions, self.contexts if needs_contexts(config, run.retrieval) else None)


def prepare(run: Run, questions: Questions, workdir: Workdir) -> Prepared:
    """Folds and contexts of an exam; made once, read from disk afterwards.

    Raises:
        UserError: an answer is missing, or the folds or contexts cannot be made.
    """
    questions.require_answers("training")
    folds = exam_folds(questions, run.ensemble, workdir.folds)
    reading = [config for config in run.rankers if needs_contexts(config, run.retrieval)]
    contexts = None
    if reading:
        views = [view for config in reading for view in config.contexts]
        contexts = build_views(questions, run.retrieval, views, workdir.root)
    return Prepared(questions, folds, contexts)


def inputs_of(config: RankerConfig, run: Run, prepared: Prepared, workdir: Workdir) -> dict[str, Any]:
    """All that a fold's weights and OOF part depend on, beside the number of the fold."""
    questions, contexts, reads = prepared.questions, prepared.contexts, needs_contexts(config, run.retrieval)
    exam = prepared.exams(config, run)[0]
    keys = [contexts[view].key for view in config.contexts] if reads and contexts is not None else ["none"]
    about = {
        "ranker": config.name,
        "family": config.family,
        "role": config.role,
        "folds": run.ensemble.folds,
        "questions": exam_with_folds_hash(questions, prepared.folds),
        "contexts": context_key(keys),
        "config": config.hash(),
        "retrieval": run.retrieval.hash() if reads else "none",
        "wording": content_hash(sorted((id_, is_question(exam, row)) for row, id_ in enumerate(questions.ids))),
    }
    if reads and run.retrieval.source == "index" and run.retrieval.reranker is not None:
        about["reranker"] = Reranker(run.retrieval.reranker, workdir.root).key
    if prepared.start is not None:
        about["pretrained"] = prepared.start.key
    if prepared.scores is not None:
        about[SOURCES] = prepared.scores.hashes
    return about


def require_same_inputs(key: str) -> None:
    """Raise `UserError` where this process would train on other inputs than the first one."""
    if distributed.from_main(lambda: key) != key:
        raise UserError(
            f"process {distributed.rank()} has other questions, contexts, folds or settings than the first: start all "
            "with the same command, and with a --workdir and files that all machines share"
        )
