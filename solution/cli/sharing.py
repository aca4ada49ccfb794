"""The verbs push and pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.command import command
from solution.sharing.pull import pull_ensemble
from solution.sharing.push import Wishes, push_ensemble
from solution.suggestions import program
from solution.workdir import Workdir


@command
def push(
    workdir: Annotated[Path, typer.Argument(help="The folder with the trained ensemble.")],
    target: Annotated[str, typer.Argument(help="OWNER/NAME of the Hugging Face hub, or a folder, as ./shared.")],
    with_index: Annotated[
        bool, typer.Option("--with-index", help="Put the indexes in too, with the passages of the corpus.")
    ] = False,
    with_examples: Annotated[
        bool, typer.Option("--with-examples", help="Allow questions of the exam that prompts show as examples.")
    ] = False,
    licence: Annotated[
        str, typer.Option("--license", metavar="ID", help="For the model card, as apache-2.0. Default: other.")
    ] = "",
    public: Annotated[
        bool, typer.Option("--public", help="A repository that is made can be seen by everybody.")
    ] = False,
) -> None:
    """Share a trained ensemble: adapters, heads, settings, ensemble.json and a model card; never the questions.

    Base models are named and not copied.
    """
    size = push_ensemble(Workdir.existing(workdir), target, Wishes(with_index, with_examples, licence or None, public))
    print(f"{target}: {size / 1e6:,.1f} MB. To fetch it: {program()} pull {target} my_ensemble")


@command
def pull(
    source: Annotated[str, typer.Argument(help="OWNER/NAME of the Hugging Face hub, or a folder that push wrote.")],
    workdir: Annotated[Path, typer.Argument(help="A new folder.")],
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit of the repository.")] = None,
) -> None:
    """Fetch an ensemble that push has shared; `submit` answers from its folder."""
    pull_ensemble(source, workdir, revision)
    print(f"{workdir}: see its README.md. To answer: {program()} submit --workdir {workdir} --questions test.csv")
