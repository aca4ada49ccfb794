"""The command line of train_fold.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import training
from solution.cli.options import (
    APP_SETTINGS,
    CONFIGS,
    HERE,
    ConfigsOption,
    CorpusOption,
    OverridesArgument,
    QuestionsOption,
    WorkdirOption,
    reads_exam,
)
from solution.command import command
from solution.errors import UserError
from solution.formats.items import Reading
from solution.learning import distributed

train_fold_app = typer.Typer(**APP_SETTINGS)  # type: ignore[arg-type]


# More than seven parameters: each is an option of the command line.
@train_fold_app.command()
@command
@reads_exam
def train_fold(
    overrides: OverridesArgument = None,
    fold: Annotated[int | None, typer.Option(help="Which fold is left out and scored, from 0.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="On all questions, for `answer_with: full`: no fold is left out or scored.")
    ] = False,
    average: Annotated[
        bool,
        typer.Option("--average", help="Make one set of weights of the trained folds, for `answer_with: average`."),
    ] = False,
    rank: Annotated[
        int | None, typer.Option(min=1, help="With --average: bring the mean of LoRA's changes to this rank.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="With --full: train so many times, and average.")] = 1,
    all_folds: Annotated[bool, typer.Option("--all-folds", help="Every fold in turn.")] = False,
    ranker: Annotated[
        str | None, typer.Option(help="Only this ranker: the name of its file in the configs folder.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Only the ranker of this file.")] = None,
    questions: QuestionsOption = None,
    corpus: CorpusOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    *,
    reading: Reading,
) -> None:
    """Train rankers on all folds but one and write weights, metrics and OOF probabilities (or on all, with --full).

    What is finished is not done again; a run that was killed goes on from its last checkpoint.

    On several GPUs or machines: accelerate launch train_fold.py ..., or torchrun.
    """
    distributed.start()
    if [all_folds, fold is not None, full, average].count(True) != 1:
        raise UserError("give one of --fold K, --all-folds, --full and --average")
    what: training.What = "full" if full else "average" if average else "folds"
    training.train(
        configs, workdir, what=what, fold=fold, seeds=seeds, rank=rank, ranker=ranker, config=config,
        questions=questions, corpus=corpus, settings=overrides, reading=reading,
    )  # fmt: skip
    if average:
        return
    distributed.finish()
