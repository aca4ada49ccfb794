"""Scores of a trained ranker that know nothing of a fold: what another ranker may learn from when it leaves it out.

A ranker's OOF scores of a question come from a training on all other folds. A second ranker that leaves fold k out and
learns from the first one's scores of the other folds therefore sees labels of fold k, in a roundabout way, and its OOF
score of fold k may be too high (target leakage; that stacking must be cross-validated as a whole: van der Laan, Polley
and Hubbard 2007, "Super Learner"). So the first ranker is trained once more for every two folds, on all others, and
scores both: with K folds, K (K - 1) / 2 trainings on (K - 2) / K of the questions.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from solution import oof
from solution.config import DEFAULT, RankerConfig, Run
from solution.device import free_memory
from solution.errors import UserError
from solution.files import content_hash
from solution.learning import distributed
from solution.learning.checkpoint import drop_checkpoint
from solution.probabilities import widen
from solution.progress import say
from solution.questions import Questions
from solution.rankers.base import predict_contexts
from solution.rankers.families import make_ranker
from solution.suggestions import suggest
from solution.training.extra import ExtraFiles
from solution.training.prepared import Prepared, inputs_of, prepare, require_same_inputs
from solution.training.pretraining import PretrainingExams, pretrained, start_from
from solution.training.scores import Scores
from solution.training.soft_labels import read_teacher
from solution.training.unwatched import trained_share, unwatched_settings
from solution.weights import read_record, read_retrievals
from solution.workdir import Workdir


def scores_without(scores: Scores, fold: int, run: Run, prepared: Prepared, workdir: Workdir) -> dict[str, np.ndarray]:
    """The scores that a ranker learns from which leaves `fold` out: ranker -> probabilities, float32 [n, width].

    Those of the fold's own questions are the OOF ones, as in a submission; those of the others come, where the named
    ranker is trained, from trainings that left both folds out. These are done now where they are missing.

    Raises:
        UserError: the weights of a named ranker are missing, or see `Ranker.fit`.
    """
    return {name: _without(name, table, fold, run, prepared, workdir) for name, table in scores.tables.items()}


def soft_labels_without(fold: int, run: Run, prepared: Prepared, workdir: Workdir) -> np.ndarray | None:
    """What the ranker's teacher says without any knowledge of `fold`, float32 [n, width]; None without a teacher.

    Raises:
        UserError: see `scores_without`.
    """
    teacher = prepared.teacher
    if teacher is None or teacher.trained is None:
        return None if teacher is None else teacher.table
    return _without(teacher.trained, teacher.table, fold, run, prepared, workdir)


def _without(name: str, table: np.ndarray, fold: int, run: Run, prepared: Prepared, workdir: Workdir) -> np.ndarray:
    again = suggest("train_fold", "--all-folds", "--ranker", name)
    record = read_record(workdir.fold_weights(name, 0), f"Train it again: {again}")
    config = RankerConfig.model_validate(record["config"])
    if not config.folds_differ:
        return table
    stored = read_retrievals(record)
    retrieval = stored.pop(DEFAULT, run.retrieval)
    own_run = run.model_copy(
        update={"rankers": [config], "retrieval": retrieval, "retrievals": {**run.retrievals, **stored}}
    )
    own = distributed.main_first(lambda: prepare(own_run, prepared.questions, workdir))
    own.teacher = read_teacher(config, own.questions, own.folds, ExtraFiles(), workdir)
    own.start = pretrained(config, own_run, workdir, PretrainingExams(retrieval, prepared.questions, workdir))
    result = table.copy()
    for other in sorted(set(prepared.folds.tolist()) - {fold}):
        _train_pair(config, own_run, own, workdir, (min(fold, other), max(fold, other)))
        rows = np.flatnonzero(own.folds == other)
        result[rows] = _stored(workdir, name, other, fold, prepared.questions.subset(rows))
    return result


def _train_pair(config: RankerConfig, run: Run, prepared: Prepared, workdir: Workdir, pair: tuple[int, int]) -> None:
    """Train a ranker on all folds but two, and write its scores of these two, unless they are there."""
    # What is there already, from the same inputs and with the same settings, is kept.
    about = inputs_of(config, run, prepared, workdir)
    parts = {fold: {"fold": fold, "without": other, **about} for fold, other in (pair, pair[::-1])}
    require_same_inputs(content_hash(pair, about))
    if distributed.from_main(lambda: all(_is_there(workdir, part) for part in parts.values())):
        return
    settings, share = unwatched_settings(config), trained_share(config, run.ensemble.folds, workdir)
    free_memory()
    started = time.monotonic()
    exams = prepared.exams(config, run)
    checkpoint = workdir.pair_checkpoint(config.name, *pair)
    ranker = make_ranker(settings, workdir.cache)
    start_from(ranker, prepared.start, share)
    soft = None if prepared.teacher is None else prepared.teacher.table  # an independent one, see `check_teachers`
    ranker.fit(prepared.learnt_from(config, exams[0], pair, soft), exams[0].subset([]), checkpoint)
    for fold, part in parts.items():
        rows = prepared.folds == fold
        scored = prepared.questions.subset(rows)
        probabilities = predict_contexts(ranker, [exam.subset(rows).hidden() for exam in exams])
        if distributed.rank() == 0:
            place = workdir.nested_part(config.name, fold, part["without"])
            oof.write_oof(place, scored, widen(probabilities, prepared.questions.max_options), part)
    distributed.from_main(lambda: drop_checkpoint(checkpoint))
    say(f"{config.name} without folds {pair[0]} and {pair[1]}: {time.monotonic() - started:.0f} s")


def _is_there(workdir: Workdir, about: dict[str, Any]) -> bool:
    path = workdir.nested_part(about["ranker"], about["fold"], about["without"])
    try:
        stored = oof.read_oof(path).about
    except UserError:
        return False
    return all(stored.get(name) == value for name, value in about.items())


def _stored(workdir: Workdir, name: str, fold: int, without: int, questions: Questions) -> np.ndarray:
    """The scores of a fold's questions by a ranker that left out another fold too, float32 [fold, width]."""
    part = oof.read_oof(workdir.nested_part(name, fold, without))
    row_of = {id_: row for row, id_ in enumerate(part.ids)}
    return np.nan_to_num(part.probabilities[[row_of[id_] for id_ in questions.ids]])
