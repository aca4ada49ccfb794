"""The verb generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import exams
from solution.cli.options import CONFIGS, ConfigsOption, CorpusOption, OverridesArgument, listed
from solution.command import command
from solution.generation.drafts import KINDS
from solution.questions import MAX_OPTIONS, MIN_OPTIONS


# More than seven parameters: each is an option of the command line.
@command
def generate(
    count: Annotated[int, typer.Option(help="Questions to make.", min=1)],
    output: Annotated[Path, typer.Option(help="The exam to write; its ending tells the form (.csv, .gift, ...).")],
    overrides: OverridesArgument = None,
    corpus: CorpusOption = None,
    options: Annotated[int, typer.Option(help="Options of a question.", min=MIN_OPTIONS, max=MAX_OPTIONS)] = 5,
    kinds: Annotated[str, typer.Option(help="Kinds of questions, separated by commas.")] = ",".join(KINDS),
    seed: Annotated[int, typer.Option(help="Another one draws other questions.", min=0)] = 0,
    without: Annotated[
        Path | None, typer.Option(metavar="EXAM", help="Leave out near-duplicates of this exam's questions.")
    ] = None,
    at_most: Annotated[
        bool, typer.Option("--at-most", help="Write what there is where the corpus has not enough questions.")
    ] = False,
    configs: ConfigsOption = CONFIGS,
) -> None:
    """Make an exam from the passages of an English corpus, without a model: see docs/generated_exams.md.

    Kinds: cloze (a sentence with a blank), term (which term has this definition), definition (which has this term).
    The columns `passage`, `title` and `kind` tell what each question was made from.
    """
    names = listed(kinds)
    exam = exams.generate(
        count, output, configs, corpus=corpus, options=options, kinds=names, seed=seed, without=without,
        at_most=at_most, settings=overrides,
    )  # fmt: skip
    made = exam.questions.extra["kind"]
    by_kind = ", ".join(f"{made.count(kind)} {kind}" for kind in exams.chosen_kinds(names))
    print(f"{output}: {len(exam)} questions ({by_kind})")
