"""The verb exam."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import whole
from solution.cli.options import CONFIGS, ConfigsOption, OverridesArgument, reads_exam
from solution.command import command
from solution.formats.items import Reading
from solution.pipeline.plan import MIN_QUESTIONS


# More than seven parameters: each is an option of the command line.
@command
@reads_exam
def exam(
    folder: Annotated[Path, typer.Argument(help="Holds passages and, where there are any, questions.")],
    overrides: OverridesArgument = None,
    questions: Annotated[
        Path | None, typer.Option(help="The questions to learn from, where it is not plain which file they are.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The questions to answer, where it is not plain which file they are.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="The corpus, where it is not plain: a file, a folder, a pattern in quotes.")
    ] = None,
    count: Annotated[
        int,
        typer.Option(help=f"Questions made from the corpus where the folder has fewer than {MIN_QUESTIONS}.", min=1),
    ] = 400,
    all_rankers: Annotated[
        bool, typer.Option("--all-rankers", help="Take language models in also where there is no GPU.")
    ] = False,
    configs: ConfigsOption = CONFIGS / "demo",
    workdir: Annotated[
        Path | None, typer.Option(help="The folder to write. Default: `answers` in the folder itself.")
    ] = None,
    *,
    reading: Reading,
) -> None:
    """The whole pipeline on a folder of your own: index, folds, training, tuning, answers and a report.

    Which files are questions and which are the corpus is found out and told. Questions without answers are answered.
    Where there are too few with answers, practice questions are made from the corpus to learn from. A second call does
    only what is missing.
    """
    whole.run_exam(
        folder, workdir, configs, questions=questions, test=test, corpus=corpus, count=count, all_rankers=all_rankers,
        settings=overrides, reading=reading,
    )  # fmt: skip
