"""The verb tune-embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import retrieval
from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    CorpusOption,
    OverridesArgument,
    WorkdirOption,
)
from solution.command import command
from solution.config import EmbedderTuning
from solution.suggestions import program

_DEFAULT = EmbedderTuning()


# More than seven parameters: each is an option of the command line.
@command
def tune_embedder_verb(
    questions: Annotated[Path, typer.Option(help="Questions with a column `passage`, as `generate` makes them.")],
    output: Annotated[Path, typer.Option(help="The model folder to write.")],
    overrides: OverridesArgument = None,
    corpus: CorpusOption = None,
    exam: Annotated[
        Path | None,
        typer.Option(help="The exam, whose questions are refused. Default: WORKDIR/questions.csv, if it is there."),
    ] = None,
    epochs: Annotated[int, typer.Option()] = _DEFAULT.epochs,
    learning_rate: Annotated[float, typer.Option()] = _DEFAULT.learning_rate,
    batch_size: Annotated[int, typer.Option(help="Questions of a step.")] = _DEFAULT.batch_size,
    negatives: Annotated[int, typer.Option(help="Mined wrong passages of a question.")] = _DEFAULT.negatives,
    options: Annotated[bool, typer.Option(help="Learn the right option from the wrong ones too.")] = _DEFAULT.options,
    max_tokens: Annotated[int, typer.Option(help="Longer texts are cut in training.")] = _DEFAULT.max_tokens,
    held_out: Annotated[float, typer.Option(help="Share of documents to measure on.")] = _DEFAULT.held_out,
    seed: Annotated[int, typer.Option()] = _DEFAULT.seed,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Train the embedder on questions made from the corpus.

    The result is a folder that retrieval.embedder names. Wrong passages are mined with the untuned embedder, whose
    index is built where it is missing. Recall on the questions held out is printed, before and after.
    """
    facts = retrieval.tune_embedder(
        questions, output, configs, workdir, exam=exam, corpus=corpus, settings=overrides, epochs=epochs,
        learning_rate=learning_rate, batch_size=batch_size, negatives=negatives, options=options,
        max_tokens=max_tokens, held_out=held_out, seed=seed,
    )  # fmt: skip
    print(f"learnt from {facts['learnt']} questions; {facts['held_out']} held out, among {facts['pool']} passages:")
    for name in ("before", "after"):
        figures = ", ".join("{} {:.3f} [{:.3f}, {:.3f}]".format(what, *facts[name][what]) for what in facts[name])
        print(f"{name:7}{figures}")
    print(f"{output}: name it as retrieval.embedder, and make a new index ({program()} index)")
