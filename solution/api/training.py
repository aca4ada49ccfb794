"""The stages of training: folds, train-fold, import-oof, tune, report, merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from solution.api.evaluation import scores_of
from solution.api.inputs import (
    CONFIGS,
    ExamLike,
    Settings,
    check_choice,
    keep_exam_arguments,
    read_exam,
    read_settings,
    setting_texts,
)
from solution.api.results import Files, Rows, Scores, Tuned
from solution.api.stage import stage
from solution.config import Run
from solution.ensemble.deployment import deployment_of, note_untuned
from solution.ensemble.imported import import_oof as import_answers
from solution.ensemble.tune import rankers_with_oof, run_tune
from solution.errors import UserError
from solution.folds import exam_folds, taken_back_when_refused
from solution.formats.items import Reading
from solution.learning import distributed
from solution.progress import say
from solution.questions import LETTERS, Questions
from solution.report.run import write_report
from solution.training.average import average_folds
from solution.training.full import train_full
from solution.training.merge import Dtype, Merged, merge_fold
from solution.training.run import train_folds
from solution.weights import has_metrics, read_metrics, trained_folders
from solution.workdir import Workdir

What = Literal["folds", "full", "average"]


@stage
def make_folds(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    questions: ExamLike | None = None,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Rows:
    """Part the questions into folds (the command `folds`).

    Args:
        configs: the folder of the settings.
        workdir: the working folder, made when it is missing.
        questions: the exam; None: questions.csv of the working folder.
        settings: settings in place of those in the files.

    Returns:
        A row for each fold: fold, questions, and how many have each letter as their answer.

    Raises:
        UserError: the settings or the exam are wrong.
    """
    run = read_settings(configs, settings)
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    fold_of = exam_folds(exam, run.ensemble, folder.folds)
    keep_exam_arguments(folder)
    lacking = int((exam.answers < 0).sum())
    if lacking:
        say(f"note: {lacking} of {len(exam)} questions have no answer: this exam cannot be trained on")
    letters = LETTERS[: exam.max_options]
    rows = []
    for fold in range(run.ensemble.folds):
        inside = exam.answers[fold_of == fold]
        counts = np.bincount(inside[inside >= 0], minlength=len(letters)).tolist()
        rows.append({"fold": fold, "questions": len(inside), **dict(zip(letters, counts, strict=True))})
    return Rows(rows, ["fold", "questions", *letters])


# More than seven parameters: each is an option of the command.
@stage
def train(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    what: What = "folds",
    fold: int | None = None,
    seeds: int = 1,
    rank: int | None = None,
    ranker: str | None = None,
    config: str | Path | None = None,
    questions: ExamLike | None = None,
    corpus: str | Path | None = None,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Rows:
    """Train rankers (the command `train-fold`); what is finished is not done again.

    A run that was killed goes on from its last checkpoint when it is called again.

    Args:
        what: `folds`: on all folds but one, and write OOF probabilities of that one; `full`: on all questions;
            `average`: one set of weights made of the trained folds.
        fold: only this fold, from 0; None: every fold in turn.
        seeds: of `full`: train so many times.
        rank: of `average`: bring the mean of LoRA's changes to this rank.
        ranker: only the ranker of this name; config: only that of this file.
        questions: the exam; None: questions.csv of the working folder.
        corpus: in place of that of the settings.
        configs, workdir, settings: see `make_folds`.

    Returns:
        A row for each trained fold of these rankers: ranker, fold, map3, seconds.

    Raises:
        UserError: the settings, the exam or a model are not usable.
    """
    _check_training(what, fold, seeds, rank)
    if ranker is not None and config is not None:
        raise UserError("give either --ranker NAME or --config FILE, not both")
    run = read_settings(configs, settings, corpus, ranker, None if config is None else Path(config))
    if what == "average":
        if distributed.rank() == 0:
            average_folds(run, Workdir.open(workdir), rank)
        return _trained(run, Workdir.at(workdir))
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    with taken_back_when_refused(folder):
        try:
            if what == "full":
                train_full(run, exam, folder, seeds)
            else:
                train_folds(run, exam, folder, range(run.ensemble.folds) if fold is None else [fold])
        finally:
            keep_exam_arguments(folder)
    return _trained(run, folder)


def _check_training(what: What, fold: int | None, seeds: int, rank: int | None) -> None:
    check_choice("what", what, get_args(What))
    if seeds < 1:
        raise UserError(f"seeds is {seeds}: give 1 or more")
    if rank is not None and what != "average":
        raise UserError("--rank is for --average: LoRA's rank in training is lora.r in the ranker's settings")
    if seeds > 1 and what != "full":
        raise UserError("--seeds is for --full: folds are trained with the seed of the ranker's settings")
    if fold is not None and what != "folds":
        raise UserError("give one of --fold K, --all-folds, --full and --average")


def _trained(run: Run, workdir: Workdir) -> Rows:
    """The figures of each fold of these rankers; a note where the ensemble was tuned before they were trained."""
    if distributed.rank() == 0:
        note_untuned(workdir, [config.name for config in run.rankers])
    rows = []
    for config in run.rankers:
        for folder in trained_folders(workdir, config.name):
            facts = read_metrics(folder, "Train that fold again.") if has_metrics(folder) else {}
            fold = int(folder.name.rpartition("_")[2])
            named = {"map3": facts.get("map3"), "seconds": facts.get("seconds")}
            rows.append({"ranker": config.name, "fold": fold, **named})
    return Rows(rows, ["ranker", "fold", "map3", "seconds"])


# More than seven parameters: each is an option of the command.
@stage
def import_oof(
    file: str | Path,
    name: str,
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    normalize: bool = False,
    questions: ExamLike | None = None,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Scores:
    """Add the out-of-fold probabilities that another program made: they join the blend of `tune`.

    Args:
        file: id and p_A, p_B, ... or A, B, ...: CSV, JSONL or parquet.
        name: the ranker's name in the ensemble.
        normalize: divide each row by its sum.
        configs, workdir, questions, settings: see `make_folds`.

    Returns:
        The scores of these answers.

    Raises:
        UserError: the file does not answer this exam.
    """
    if not name:
        raise UserError("give the ranker a name with --name NAME")
    run = read_settings(configs, settings)
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    with taken_back_when_refused(folder):
        fold_of = exam_folds(exam, run.ensemble, folder.folds)
        table = import_answers(name, Path(file), exam, fold_of, run.ensemble.folds, folder, normalize)
    keep_exam_arguments(folder)
    return scores_of(table, exam.answers, exam.exists())


@stage
def tune(
    configs: str | Path = CONFIGS,
    workdir: str | Path = ".",
    *,
    seconds_per_question: float | None = None,
    seconds: Mapping[str, float] | None = None,
    settings: Settings | None = None,
) -> Tuned:
    """Find the ensemble's weights from the OOF files alone, and write `weights/ensemble.json`.

    Args:
        seconds_per_question: what a submission may take: costly rankers then read only the questions that need them.
        seconds: ranker -> its seconds a question in a submission, where training differs.
        configs, workdir, settings: see `make_folds`.

    Raises:
        UserError: OOF files are missing or do not belong together.
    """
    run = read_settings(configs, settings)
    folder = Workdir.existing(workdir)
    names, tuning = rankers_with_oof(folder, run), run.ensemble.tune
    deployment = deployment_of(run, configs)
    record = run_tune(folder, tuning, names, run.ensemble.groups, dict(seconds or {}), seconds_per_question, deployment)
    return Tuned(record)


@stage
def make_report(
    workdir: str | Path = ".",
    *,
    questions: ExamLike | None = None,
    output: str | Path | None = None,
    by: Sequence[str] = (),
    gold: str | None = None,
    reading: Reading | None = None,
) -> Files:
    """Write what `tune` found as one HTML page and plots (the command `report`).

    Args:
        questions: the exam; None: questions.csv of the working folder, where it is there.
        output: the folder to write; None: `report` in the working folder.
        by: columns to report by; none: every further column of 2 to 40 values.
        gold: a column that begins the ids or titles of a question's right passages.

    Returns:
        The page, then the plots.

    Raises:
        UserError: nothing is tuned, or matplotlib is not installed.
    """
    folder = Workdir.existing(workdir)
    given = questions is not None or folder.questions.exists()
    exam: Questions | None = read_exam(questions, folder, reading=reading) if given else None
    place = Path(output) if output is not None else folder.root / "report"
    return Files(write_report(folder, exam, place, by, gold))


@stage
def merge(
    ranker: str,
    fold: int,
    output: str | Path,
    workdir: str | Path = ".",
    *,
    dtype: Dtype = "float32",
    settings: Settings | None = None,
) -> Merged:
    """Write a trained fold as a stand-alone model: LoRA added to the base weights, with tokenizer, head and settings.

    Args:
        ranker: one that was trained with LoRA or QLoRA.
        output: the folder to write; it must not be there yet.
        dtype: of the merged weights.
        settings: the settings of the fold that have changed since, such as where its base model lies.

    Raises:
        UserError: no such fold or dtype, or the output is there.
    """
    check_choice("dtype", dtype, get_args(Dtype))
    return merge_fold(Workdir.existing(workdir), ranker, fold, Path(output), dtype, setting_texts(settings))
