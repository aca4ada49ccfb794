"""Training on all questions: weights that answer in the place of the folds' (`answer_with: full`)."""

from __future__ import annotations

import time
from typing import Any

from solution.config import RankerConfig, Run
from solution.device import free_memory
from solution.exam import Exam
from solution.files import content_hash
from solution.learning import distributed
from solution.learning.checkpoint import drop_checkpoint
from solution.learning.log import drop_log
from solution.learning.tracking import check_trackers, tracked
from solution.memory import PeakMemory
from solution.progress import say
from solution.questions import Questions
from solution.rankers.base import Ranker, predict_contexts
from solution.rankers.families import make_ranker
from solution.rankers.option_inputs import with_scores
from solution.training.extra import ExtraFiles
from solution.training.prepared import Prepared, inputs_of, prepare, require_same_inputs
from solution.training.pretraining import PretrainingExams, pretrained, start_from
from solution.training.run import check_before_training, extra_facts, write_weights
from solution.training.scores import read_scores
from solution.training.soft_labels import read_teacher
from solution.training.unwatched import trained_share, unwatched_settings
from solution.weights import fold_record, key_of_whole_folder
from solution.workdir import Workdir

_TIMED = 32
"""Questions that are scored after the training: for the seconds that they take, and to see that they can be."""


def train_full(run: Run, questions: Questions, workdir: Workdir, seeds: int = 1) -> None:
    """Train every ranker of the run on all questions, `seeds` times, each time from another seed.

    A ranker whose folds are all alike (one that is not trained) is left out: its first fold answers.

    Raises:
        UserError: see `training.run.prepare` and `Ranker.fit`; or `keep: best` has no folds to tell the step to end at.
    """
    check_trackers(run.ensemble.trackers)
    exams, files = PretrainingExams(run.retrieval, questions, workdir), ExtraFiles()
    check_before_training(run, questions, workdir, exams, files)
    prepared = distributed.main_first(lambda: prepare(run, questions, workdir, files))
    for config in run.rankers:
        if not config.folds_differ:
            say(f"{config.name}: is not trained, and answers alike with or without --full")
            continue
        prepared.start = pretrained(config, run, workdir, exams)
        prepared.scores = read_scores(config, prepared.questions, prepared.folds, workdir)
        prepared.teacher = read_teacher(config, prepared.questions, prepared.folds, files, workdir)
        share = trained_share(config, run.ensemble.folds, workdir)
        for number in range(seeds):
            _train(config, run, prepared, workdir, number, share)


def full_settings(config: RankerConfig, number: int) -> RankerConfig:
    """The settings of the ranker's `number`-th training on all questions: each time the draws are others."""
    return unwatched_settings(config).model_copy(update={"seed": config.seed + 1000 * number})


def _train(config: RankerConfig, run: Run, prepared: Prepared, workdir: Workdir, number: int, share: float) -> None:
    """Train one ranker from one seed, and write its weights whole or not at all."""
    name, settings = config.name, full_settings(config, number)
    exams = prepared.exams(config, run)
    if prepared.scores is not None:
        exams = with_scores(exams, prepared.scores.tables, prepared.questions.exists())
    folder, checkpoint = workdir.full_weights(name, number), workdir.full_checkpoint(name, number)
    logs = workdir.full_logs(name, number)

    # What is trained already, from the same inputs and with the same settings, is kept.
    about = {**inputs_of(config, run, prepared, workdir), "seed": settings.seed, "share": share}
    key = content_hash("full", about)
    require_same_inputs(key)
    if distributed.from_main(lambda: key_of_whole_folder(folder)) == key:
        say(f"{name} on all questions, seed {settings.seed}: already trained, nothing has changed")
        return

    free_memory()
    peak, started = PeakMemory(), time.monotonic()
    ranker = make_ranker(settings, workdir.cache)
    start_from(ranker, prepared.start, share)
    # No fold is scored: the teacher's OOF probabilities are taken as they are.
    soft = None if prepared.teacher is None else prepared.teacher.table
    lesson = prepared.learnt_from(config, exams[0], soft=soft)
    with tracked(run.ensemble.trackers, workdir.tracking, f"{name}/full_{number}", settings.model_dump(mode="json")):
        facts = ranker.fit(lesson, exams[0].subset([]), checkpoint, logs) | extra_facts(lesson)
    seconds = _seconds_per_question(ranker, exams)
    if distributed.rank() > 0:
        return
    metrics = {
        "questions": len(prepared.questions),
        "seconds": round(time.monotonic() - started, 1),
        "score_seconds_per_question": seconds,
        "load_seconds": round(getattr(ranker, "load_seconds", 0.0), 2),
        "peak_memory_mib": peak.mib(),
        **prepared.signal_facts(config, run),
        **facts,
    }
    write_weights(ranker, folder, logs, fold_record(config, run.reads(config), about), metrics, key)
    drop_checkpoint(checkpoint)
    drop_log(logs)
    say(_told(name, settings.seed, metrics))


def _seconds_per_question(ranker: Ranker, exams: list[Exam]) -> float:
    """Seconds that the trained ranker takes for a question, measured on the first ones."""
    part = [exam.subset(range(min(_TIMED, len(exam)))).hidden() for exam in exams]
    started = time.monotonic()
    predict_contexts(ranker, part)
    return round((time.monotonic() - started) / len(part[0]), 4)


def _told(name: str, seed: int, metrics: dict[str, Any]) -> str:
    more = f" and {metrics['extra_questions']} training-only ones" if metrics.get("extra_questions") else ""
    text = f"{name} on all {metrics['questions']} questions{more}, seed {seed}: {metrics['seconds']:.0f} s"
    if metrics.get("loss"):
        losses = metrics["loss"][-20:]
        text += f", {metrics['steps']} steps, loss {sum(losses) / len(losses):.3f} at the end"
    return text
