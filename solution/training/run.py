"""Train rankers on folds: weights, metrics and OOF parts on disk; what is finished is not done again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from solution import oof
from solution.config import RankerConfig, Run
from solution.device import free_memory
from solution.errors import UserError, check_together
from solution.exam import Exam
from solution.files import atomic_folder, content_hash, sweep_leftovers
from solution.learning import distributed
from solution.learning.checkpoint import drop_checkpoint
from solution.learning.log import LOG, drop_log
from solution.learning.tracking import check_trackers, track, tracked
from solution.memory import PeakMemory
from solution.metrics import bootstrap_interval, credit_at_k, expected_random_map, map_at_k
from solution.option_references import naming_others
from solution.probabilities import widen
from solution.progress import say
from solution.questions import Questions
from solution.rankers.alike import Alike, described
from solution.rankers.base import Ranker, predict_contexts
from solution.rankers.families import check_models, make_ranker
from solution.rankers.option_inputs import with_scores
from solution.training.extra import ExtraFiles
from solution.training.merge import refuse_seen
from solution.training.nested import scores_without, soft_labels_without
from solution.training.prepared import Prepared, inputs_of, prepare, require_same_inputs
from solution.training.pretraining import PretrainingExams, pretrained, start_from
from solution.training.scores import read_scores
from solution.training.soft_labels import check_teachers, read_teacher
from solution.weights import FoldRecord, close_folder, fold_record, key_of_whole_folder, write_metrics, write_record
from solution.workdir import Workdir


def train_folds(run: Run, questions: Questions, workdir: Workdir, folds: Sequence[int]) -> None:
    """Train every ranker of the run on every fold named, and say each one's score.

    Raises:
        UserError: see `prepare`, `Ranker.fit`; or a fold is out of range.
    """
    wrong = [fold for fold in folds if not 0 <= fold < run.ensemble.folds]
    if wrong:
        raise UserError(
            f"fold {wrong[0]} is out of range: the ensemble has {run.ensemble.folds} folds, "
            f"0 to {run.ensemble.folds - 1}"
        )
    check_trackers(run.ensemble.trackers)
    exams, files = PretrainingExams(run.retrieval, questions, workdir), ExtraFiles()
    check_before_training(run, questions, workdir, exams, files)
    prepared = distributed.main_first(lambda: prepare(run, questions, workdir, files))
    named = {name for config in run.rankers for name in (*config.signals_from, *config.teachers)}
    for config in run.rankers:
        start = pretrained(config, run, workdir, exams)
        scores = read_scores(config, questions, prepared.folds, workdir)
        teacher = read_teacher(config, questions, prepared.folds, files, workdir)
        ready = replace(prepared, start=start, scores=scores, teacher=teacher)
        alike: Alike = {}
        scored = 0
        # A ranker that learns from its scores needs those of all folds; without training they cost no more than that.
        everywhere = config.name in named and not config.folds_differ
        for fold in range(run.ensemble.folds) if everywhere else folds:
            found = train_fold(config, run, ready, workdir, fold)
            if found is not None:
                alike |= found
                scored += int((prepared.folds == fold).sum())
        if scored and distributed.rank() == 0:
            if alike:
                say(f"note: {config.name} {described(alike, scored)}")
            _note_fixed_options(config, questions)


def check_before_training(
    run: Run, questions: Questions, workdir: Workdir, exams: PretrainingExams, files: ExtraFiles
) -> None:
    """Raise one `UserError` with all that is wrong with the models and files that the rankers' settings name."""
    check_together(
        "the training cannot start",
        lambda: check_models(run.rankers),
        lambda: exams.check(run),
        lambda: files.check(run),
        lambda: check_teachers(run, questions, files, workdir),
    )


def _note_fixed_options(config: RankerConfig, questions: Questions) -> None:
    """A note on options that stay in their places while the ranker sees the others in several orders."""
    shuffles = config.training.epochs > 0 and config.training.option_shuffle
    rows = naming_others(questions.options) if config.has_model and (shuffles or config.rotations > 1) else []
    if rows:
        say(
            f"note: {config.name}: in {len(rows)} of {len(questions)} questions an option names others (first: id "
            f"{questions.ids[rows[0]]}); it keeps its place, and so do options that are named by letters, while the "
            "other options are put into another order"
        )


def train_fold(config: RankerConfig, run: Run, prepared: Prepared, workdir: Workdir, fold: int) -> Alike | None:
    """Train one ranker on all folds but `fold` and write its weights, metrics and OOF part of `fold`.

    Returns:
        The options of the fold's questions that it could not tell apart; None where the fold was trained before.

    Raises:
        UserError: another process has other inputs, or the ranker cannot be trained (see `Ranker.fit`).
    """
    questions = prepared.questions
    place = _Place.of(workdir, config.name, fold)

    # What is trained already, from the same inputs and with the same settings, is kept.
    about = {"fold": fold, **inputs_of(config, run, prepared, workdir)}
    key = content_hash(about)
    require_same_inputs(key)
    if distributed.from_main(lambda: _is_finished(place, about, key)):
        say(f"{config.name} fold {fold}: already trained, nothing has changed")
        return None

    exams = prepared.exams(config, run)
    if prepared.scores is not None:
        tables = scores_without(prepared.scores, fold, run, prepared, workdir)
        exams = with_scores(exams, tables, questions.exists())
    lesson = prepared.learnt_from(config, exams[0], {fold}, soft_labels_without(fold, run, prepared, workdir))

    # The ranker learns from the other folds and answers this one, whose answers are hidden from it.
    inside = prepared.folds == fold  # bool [n]
    if config.merged:
        refuse_seen(config, questions.subset(inside))
    free_memory()
    clock = _Clock()
    ranker = make_ranker(config, workdir.cache)
    start_from(ranker, prepared.start)
    scored = questions.subset(inside)
    settings = {**config.model_dump(mode="json"), "fold": fold}
    with tracked(run.ensemble.trackers, workdir.tracking, f"{config.name}/fold_{fold}", settings):
        facts = ranker.fit(lesson, exams[0].subset(inside), place.checkpoint, place.logs) | extra_facts(lesson)
        facts |= prepared.signal_facts(config, run)
        clock.trained()
        probabilities = predict_contexts(ranker, [exam.subset(inside).hidden() for exam in exams])  # [fold, width]
        probabilities = widen(probabilities, questions.max_options)
        clock.scored()
        metrics = _metrics(probabilities, scored, clock, ranker) | facts
        track({f"oof_{name}": metrics[name] for name in ("map3", "precision1")})

    # One process writes: first the weights, then the OOF part, so that neither is there without the other for long.
    if distributed.rank() > 0:
        return ranker.alike
    write_weights(ranker, place.weights, place.logs, fold_record(config, run.reads(config), about), metrics, key)
    oof.write_oof(place.oof_part, scored, probabilities, about)
    drop_checkpoint(place.checkpoint)
    drop_log(place.logs)
    low, high = metrics["interval"]
    say(
        f"{config.name} fold {fold}: MAP@3 {metrics['map3']:.3f} [{low:.3f}, {high:.3f}] on {len(scored)} questions "
        f"(random {metrics['random_map3']:.3f}), {metrics['seconds']:.0f} s"
    )
    return ranker.alike


@dataclass(frozen=True)
class _Place:
    """The files of one fold of one ranker."""

    weights: Path
    oof_part: Path
    checkpoint: Path
    logs: Path

    @classmethod
    def of(cls, workdir: Workdir, ranker: str, fold: int) -> _Place:
        places = (workdir.fold_weights, workdir.oof_part, workdir.checkpoint, workdir.logs)
        return cls(*(place(ranker, fold) for place in places))


class _Clock:
    """Seconds and memory of one fold, from the making of this object on."""

    def __init__(self) -> None:
        self.peak = PeakMemory()
        self._started = self._trained = self._scored = time.monotonic()

    def trained(self) -> None:
        self._trained = time.monotonic()

    def scored(self) -> None:
        self._scored = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._scored - self._started

    @property
    def scoring_seconds(self) -> float:
        return self._scored - self._trained


def _is_finished(place: _Place, about: dict[str, Any], key: str) -> bool:
    """True where weights and OOF part are there, whole, and made from the same inputs and settings."""
    if place.oof_part.parent.is_dir():
        sweep_leftovers(place.oof_part.parent, place.oof_part.name)
    if key_of_whole_folder(place.weights) != key or not place.oof_part.is_file():
        return False
    try:
        stored = oof.read_oof(place.oof_part).about
    except UserError as error:
        say(f"{error} -> training it again")
        return False
    return all(stored.get(name) == value for name, value in about.items())


def _metrics(probabilities: np.ndarray, scored: Questions, clock: _Clock, ranker: Ranker) -> dict[str, Any]:
    """The part of `metrics.json` about the fold's own questions, beside the facts of the training.

    Args:
        probabilities: float32 [n, width] of these questions.
    """
    credits = credit_at_k(probabilities, scored.answers)
    return {
        "map3": round(float(credits.mean()), 6),
        "interval": [round(bound, 6) for bound in bootstrap_interval(credits)],
        "precision1": round(map_at_k(probabilities, scored.answers, k=1), 6),
        "random_map3": round(expected_random_map(scored.exists().sum(axis=1)), 6),
        "questions": len(scored),
        "seconds": round(clock.seconds, 1),
        "score_seconds_per_question": round(clock.scoring_seconds / len(scored), 4),
        "load_seconds": round(getattr(ranker, "load_seconds", 0.0), 2),
        **_overflows(ranker),
        "peak_memory_mib": clock.peak.mib(),
        "options_read_alike": ranker.alike,
    }


def extra_facts(lesson: Exam) -> dict[str, int]:
    """The number of training-only questions among those that were learnt from, for `metrics.json`; nothing where the
    ranker has none."""
    return {} if lesson.supervision is None else {"extra_questions": int(lesson.supervision.is_extra.sum())}


def _overflows(ranker: Ranker) -> dict[str, int]:
    """In float16 the number of the fold's questions that overflowed, and were scored again in float32."""
    device = getattr(ranker, "device", None)
    if device is None or not device.may_overflow:
        return {}
    return {"float32_questions": len(getattr(ranker, "float32_ids", ()))}


def write_weights(
    ranker: Ranker, folder: Path, logs: Path, record: FoldRecord, metrics: dict[str, Any], key: str
) -> None:
    """A folder of trained weights in `weights/`, whole or not at all; `logs` has the log of their training."""
    with atomic_folder(folder) as temporary:
        ranker.save(temporary)
        if ranker.config.trains:
            shutil.copyfile(logs / LOG, temporary / LOG)
        write_metrics(temporary, metrics)
        write_record(temporary, record)
        close_folder(temporary, key)
