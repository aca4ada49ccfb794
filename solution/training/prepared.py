"""What the folds of an exam share: questions, folds and contexts, and the names of all that they are made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from solution.config import SIGNALS, ContextView, RankerConfig, RetrievalConfig, Run
from solution.errors import UserError
from solution.exam import Contexts, Exam, Supervision, context_key, is_question
from solution.files import content_hash
from solution.folds import exam_folds, exam_with_folds_hash
from solution.learning import distributed
from solution.oof import SOURCES
from solution.questions import Questions
from solution.retrieval.contexts.build import build_views
from solution.retrieval.reranker.trained import rerankers_key
from solution.training.extra import ExtraExam, ExtraFiles, prepare_extra
from solution.training.pretraining import Pretrained
from solution.training.scores import Scores
from solution.training.soft_labels import Teacher
from solution.weights import SIGNAL_SECONDS
from solution.workdir import Workdir


@dataclass
class Prepared:
    """All that the folds of an exam share."""

    questions: Questions
    folds: np.ndarray
    contexts: dict[str, dict[ContextView, Contexts]]
    """By the hash of their retrieval's settings, and by their names in the rankers' setting `contexts`."""
    start: Pretrained | None = None
    """What the folds of the ranker at hand start from; None: the base model."""

    scores: Scores | None = None
    """Those that the ranker at hand learns from, see `RankerConfig.signals_from`."""

    teacher: Teacher | None = None
    """That of the ranker at hand, see `TrainingSettings.soft_labels`."""

    extra: dict[str, ExtraExam] = field(default_factory=dict)
    """The training-only questions of the rankers that have some, by ranker."""

    def exams(self, config: RankerConfig, run: Run) -> list[Exam]:
        """The exam with each of the contexts that a ranker reads."""
        return Exam.views(config, self.questions, self.read_by(config, run))

    def read_by(self, config: RankerConfig, run: Run) -> dict[str, dict[ContextView, Contexts]]:
        """The contexts that a ranker reads, by the name of their retrieval; empty: none."""
        return {name: self.contexts[retrieval.hash()] for name, retrieval in run.reads(config).items()}

    def signal_facts(self, config: RankerConfig, run: Run) -> dict[str, float]:
        """The seconds a question that making the ranker's signals took, for `metrics.json`; nothing where it reads none
        or where this is not known."""
        views = self.read_by(config, run).values()
        seconds = [contexts[SIGNALS].seconds for contexts in views if SIGNALS in config.contexts]
        known = [each for each in seconds if each is not None]
        return {SIGNAL_SECONDS: round(sum(known), 5)} if known and len(known) == len(seconds) else {}

    def learnt_from(
        self,
        config: RankerConfig,
        exam: Exam,
        left_out: Collection[int] = (),
        soft: np.ndarray | None = None,
    ) -> Exam:
        """The questions that a ranker learns from when these folds are left out; training-only ones stand behind those
        of the exam.

        Args:
            exam: the first of `exams`.
            soft: a teacher's probabilities that know nothing of these folds, float32 [n, width].
        """
        if soft is not None:
            exam = replace(exam, supervision=Supervision.of(len(exam), teacher=soft))
        within = exam.subset(~np.isin(self.folds, sorted(left_out))) if left_out else exam
        extra = self.extra.get(config.name)
        if extra is None:
            return within
        return within.followed_by(extra.without(left_out, None if self.teacher is None else self.teacher.extra))


def prepare(run: Run, questions: Questions, workdir: Workdir, files: ExtraFiles | None = None) -> Prepared:
    """Folds and contexts of an exam and of the training-only questions; made once, read from disk afterwards.

    Args:
        files: what is read already of the training-only questions.

    Raises:
        UserError: an answer is missing, or the folds or contexts cannot be made.
    """
    questions.require_answers("training")
    folds = exam_folds(questions, run.ensemble, workdir.folds)
    views: dict[str, list[ContextView]] = {}
    retrievals = {}
    for config in run.rankers:
        for retrieval in run.reads(config).values():
            retrievals[retrieval.hash()] = retrieval
            views.setdefault(retrieval.hash(), []).extend(config.contexts)
    # One retrieval after the other: each frees its indexes and its embedder before the next begins.
    contexts = {key: build_views(questions, each, views[key], workdir.root) for key, each in retrievals.items()}
    extra = prepare_extra(run, questions, folds, workdir, files or ExtraFiles())
    return Prepared(questions, folds, contexts, extra=extra)


def inputs_of(config: RankerConfig, run: Run, prepared: Prepared, workdir: Workdir) -> dict[str, Any]:
    """All that a fold's weights and OOF part depend on, beside the number of the fold."""
    questions, contexts, retrievals = prepared.questions, prepared.read_by(config, run), run.reads(config)
    exam = prepared.exams(config, run)[0]
    keys = [views[view].key for views in contexts.values() for view in config.contexts] or ["none"]
    about = {
        "ranker": config.name,
        "family": config.family,
        "role": config.role,
        "folds": run.ensemble.folds,
        "questions": exam_with_folds_hash(questions, prepared.folds),
        "contexts": context_key(keys),
        "config": config.hash(),
        "retrieval": retrievals_hash(retrievals),
        "wording": content_hash(sorted((id_, is_question(exam, row)) for row, id_ in enumerate(questions.ids))),
    }
    if (reranker := rerankers_key(retrievals.values(), workdir.root)) is not None:
        about["reranker"] = reranker
    if prepared.start is not None:
        about["pretrained"] = prepared.start.key
    if config.name in prepared.extra:
        about["extra"] = prepared.extra[config.name].key
    if prepared.teacher is not None:
        about["soft_labels"] = prepared.teacher.key
    if prepared.scores is not None:
        about[SOURCES] = prepared.scores.hashes
    return about


def retrievals_hash(retrievals: Mapping[str, RetrievalConfig]) -> str:
    """The hash of a ranker's only retrieval; of several, one of them all and their names, which its signals have in
    front."""
    hashes = [[name, retrieval.hash()] for name, retrieval in retrievals.items()]
    if len(hashes) > 1:
        return content_hash(hashes)
    return hashes[0][1] if hashes else "none"


def require_same_inputs(key: str) -> None:
    """Raise `UserError` where this process would train on other inputs than the first one."""
    if distributed.from_main(lambda: key) != key:
        raise UserError(
            f"process {distributed.rank()} has other questions, contexts, folds or settings than the first: start all "
            "with the same command, and with a --workdir and files that all machines share"
        )
