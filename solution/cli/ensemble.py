"""Verbs about the ensemble: folds, import-oof, tune, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    OverridesArgument,
    QuestionsOption,
    WorkdirOption,
    keep_exam_arguments,
    named_values,
    not_negative,
    read_exam,
    read_settings,
    reads_exam,
)
from solution.command import command
from solution.ensemble.deployment import deployment_of
from solution.ensemble.imported import import_oof as import_answers
from solution.ensemble.table import print_cascade, print_rankers, print_search, print_table
from solution.ensemble.tune import rankers_with_oof, run_tune
from solution.errors import UserError
from solution.folds import exam_folds, taken_back_when_refused
from solution.formats.items import Reading
from solution.metrics import bootstrap_interval, credit_at_k
from solution.progress import say
from solution.questions import LETTERS
from solution.report.run import write_report
from solution.workdir import Workdir


@command
@reads_exam
def folds(
    overrides: OverridesArgument = None,
    questions: QuestionsOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Part the questions into folds and show their balance."""
    run = read_settings(configs, overrides)
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    fold_of = exam_folds(exam, run.ensemble, folder.folds)
    keep_exam_arguments(folder)
    lacking = int((exam.answers < 0).sum())
    if lacking:
        say(f"note: {lacking} of {len(exam)} questions have no answer: this exam cannot be trained on")
    letters = LETTERS[: exam.max_options]
    print("fold  questions  " + "  ".join(f"{name:>4}" for name in letters))
    for k in range(run.ensemble.folds):
        inside = exam.answers[fold_of == k]
        counts = np.bincount(inside[inside >= 0], minlength=len(letters))
        print(f"{k:4}  {len(inside):9}  " + "  ".join(f"{count:4}" for count in counts))


@command
@reads_exam
def import_oof(
    file: Annotated[Path, typer.Argument(help="id and p_A,p_B,... or A,B,...: CSV, JSONL or parquet.")],
    overrides: OverridesArgument = None,
    name: Annotated[str, typer.Option(help="The ranker's name in the ensemble.")] = "",
    normalize: Annotated[bool, typer.Option("--normalize", help="Divide each row by its sum.")] = False,
    questions: QuestionsOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Add the out-of-fold probabilities that another program made: they join the blend of `tune`.

    Each must come from a model that was not trained on its question. For submit.py, give the same program's
    probabilities for the questions to answer with --add NAME=FILE.
    """
    if not name:
        raise UserError("give the ranker a name with --name NAME")
    run = read_settings(configs, overrides)
    exam = read_exam(questions, Workdir.at(workdir), reading=reading)
    folder = Workdir.open(workdir)
    with taken_back_when_refused(folder):
        fold_of = exam_folds(exam, run.ensemble, folder.folds)
        table = import_answers(name, file, exam, fold_of, run.ensemble.folds, folder, normalize)
    keep_exam_arguments(folder)
    credits = credit_at_k(table, exam.answers)
    low, high = bootstrap_interval(credits)
    print(f"{name}: {len(exam)} questions imported, MAP@3 {credits.mean():.4f} [{low:.3f}, {high:.3f}]")


@command
def tune(
    overrides: OverridesArgument = None,
    seconds_per_question: Annotated[
        float | None,
        typer.Option(min=0, help="What a submission may take: costly rankers read only the questions that need them."),
    ] = None,
    seconds: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=S", help="A ranker's seconds a question in a submission, where training differs."),
    ] = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Find the ensemble's weights from the OOF files alone and write WORKDIR/weights/ensemble.json."""
    run = read_settings(configs, overrides)
    folder = Workdir.existing(workdir)
    speeds = {
        name: not_negative(value, f"--seconds {name}") for name, value in named_values(seconds, "--seconds").items()
    }
    names = rankers_with_oof(folder, run)
    tuning, groups = run.ensemble.tune, run.ensemble.groups
    record = run_tune(folder, tuning, names, groups, speeds, seconds_per_question, deployment_of(run, configs))
    print_table(record["table"], {blend["title"]: blend["name"] for blend in record["candidates"]})
    print_rankers(record)
    print_cascade(record)
    print_search(record)
    print(record["reason"])


@command
@reads_exam
def report(
    questions: QuestionsOption = None,
    output: Annotated[Path | None, typer.Option(help="The folder to write. Default: WORKDIR/report.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Show MAP@3 by this column. Default: by every further column of 2 to 40 values."
        ),
    ] = None,
    gold: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="A column that begins the ids or titles of a question's right passages; see contexts.",
        ),
    ] = None,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Write what `tune` found as one HTML page and PNGs: scores, weights, calibration, the worst questions."""
    folder = Workdir.existing(workdir)
    given = questions is not None or folder.questions.exists()
    exam = read_exam(questions, folder, reading=reading) if given else None
    files = write_report(folder, exam, output or folder.root / "report", by or (), gold)
    print(f"{files[0]} and {len(files) - 1} plots beside it")
