"""The verb tune-embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    CorpusOption,
    OverridesArgument,
    WorkdirOption,
    read_exam,
    read_settings,
)
from solution.command import command
from solution.config import EmbedderTuning
from solution.config_files import settings_given
from solution.errors import UserError
from solution.folds import repeated_questions
from solution.questions import Questions, read_questions
from solution.retrieval.embedder_tuning.tune import check_output, tune_embedder
from solution.suggestions import program
from solution.workdir import Workdir

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
    settings = settings_given(
        EmbedderTuning, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, negatives=negatives,
        options=options, max_tokens=max_tokens, held_out=held_out, seed=seed,
    )  # fmt: skip
    retrieval = read_settings(configs, overrides, corpus).retrieval
    if retrieval.source != "index":
        raise UserError(f"retrieval.source is {retrieval.source!r}: no embedder searches (set retrieval.source=index)")
    check_output(output)
    folder = Workdir.at(workdir)
    made = read_exam(questions, folder)
    _refuse_exam(made, questions, exam or folder.questions, exam is not None)
    facts = tune_embedder(made, retrieval, Workdir.open(workdir), output, settings)
    print(f"learnt from {facts['learnt']} questions; {facts['held_out']} held out, among {facts['pool']} passages:")
    for name in ("before", "after"):
        figures = ", ".join("{} {:.3f} [{:.3f}, {:.3f}]".format(what, *facts[name][what]) for what in facts[name])
        print(f"{name:7}{figures}")
    print(f"{output}: name it as retrieval.embedder, and make a new index ({program()} index)")


def _refuse_exam(made: Questions, path: Path, exam: Path, named: bool) -> None:
    """Refuse to learn from an exam's questions: their contexts would be better than those of other questions.

    Args:
        path: of the questions to learn from.
        named: whether the exam must be there.

    Raises:
        UserError: one of them is a question of the exam.
    """
    if (named or exam.is_file()) and (same := repeated_questions(made, read_questions(exam))):
        raise UserError(
            f"{len(same)} questions of {path} (first: id {same[0]}) are questions of {exam}: the embedder would have "
            "seen them, and scores on them would be too high. Remove them (`generate --without` leaves them out)"
        )
