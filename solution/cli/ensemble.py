"""Verbs about the ensemble: folds, import-oof, tune, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import training
from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    OverridesArgument,
    QuestionsOption,
    WorkdirOption,
    named_values,
    not_negative,
    reads_exam,
)
from solution.command import command
from solution.ensemble.table import print_cascade, print_rankers, print_search, print_table
from solution.formats.items import Reading


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
    table = training.make_folds(configs, workdir, questions=questions, settings=overrides, reading=reading)
    letters = [name for name in table.columns if name not in ("fold", "questions")]
    print("fold  questions  " + "  ".join(f"{name:>4}" for name in letters))
    for row in table:
        print(f"{row['fold']:4}  {row['questions']:9}  " + "  ".join(f"{row[name]:4}" for name in letters))


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
    scores = training.import_oof(
        file, name, configs, workdir, normalize=normalize, questions=questions, settings=overrides, reading=reading
    )
    interval = f"[{scores.low:.3f}, {scores.high:.3f}]"
    print(f"{name}: {scores.questions} questions imported, MAP@3 {scores.map3:.4f} {interval}")


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
    given = named_values(seconds, "--seconds").items()
    speeds = {name: not_negative(value, f"--seconds {name}") for name, value in given}
    tuned = training.tune(
        configs, workdir, seconds_per_question=seconds_per_question, seconds=speeds, settings=overrides
    )
    record = tuned.record
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
    files = training.make_report(workdir, questions=questions, output=output, by=by or (), gold=gold, reading=reading)
    print(f"{files[0]} and {len(files) - 1} plots beside it")
