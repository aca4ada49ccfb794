"""The verb serve."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated

import typer

from solution.api.inputs import read_noted
from solution.cli.options import HERE, WorkdirOption, listed
from solution.command import command
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.formats.items import Reading
from solution.memory import parse_memory
from solution.web.answerer import MakeAnswerer
from solution.web.ensemble import GENERATED, EnsembleAnswerer, generated_exam
from solution.web.exams import PractiseExam, Shelf
from solution.web.limits import Limits
from solution.web.passages import PassageAnswerer, corpus_to_practise
from solution.workdir import Workdir

_QUESTIONS = 10


# More than seven parameters: each is an option of the command line.
@command
def serve(
    workdir: WorkdirOption = HERE,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="How much may be used, as 16GiB: of the GPU, or without one of the machine."),
    ] = None,
    rankers: Annotated[str | None, typer.Option(metavar="NAME,...", help="Ask only these rankers.")] = None,
    exam: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Offer this exam to practise with; may be repeated.")
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=Limits().questions, help="Offer an exam of N questions made from the corpus."
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="Practise on this corpus, such as a PDF file, without an ensemble (of 10 questions)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 opens the page to other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also take requests for this host, as behind a proxy; may be repeated."),
    ] = None,
    opens: Annotated[bool, typer.Option("--open/--no-browser", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a web page: ask a question and see why, and practise with an exam. See docs/page.md.

    To practise with questions from a text of your own, nothing is trained: serve --corpus my.pdf --open

    It loads nothing from other hosts, and listens to this machine only unless --host says otherwise.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        # Here: it needs the packages of the extra `web`, which may not be installed.
        from solution.web.serve import Address, listen, run_server
    except ModuleNotFoundError as error:
        if (error.name or "solution").startswith("solution"):
            raise
        raise UserError(f"the page needs the package {error.name}; run: pip install starlette uvicorn") from None
    if corpus is not None and (memory is not None or rankers is not None or workdir != HERE):
        raise UserError("--corpus practises without an ensemble: leave out --workdir, --memory and --rankers")
    exams = [
        PractiseExam.of(path.name, read_noted(path, Reading(expects_answers=True)), Limits()) for path in exam or []
    ]
    address = Address(host, port, allow_host or [])
    if corpus is not None:
        listen(address).close()  # a port that is taken is told before the questions are made
        documents, made = corpus_to_practise(corpus, generate or _QUESTIONS)
        shelf = Shelf([*exams, PractiseExam.of(GENERATED, made, Limits())], Limits())
        run_server(functools.partial(PassageAnswerer, documents), shelf, address, Path(corpus).name, opens, "#practise")
        return
    folder = Workdir.existing(workdir)
    answerer = _ensemble(folder, memory, rankers)
    shelf = Shelf(exams, Limits(), [generated_exam(folder, generate)] if generate is not None else [])
    run_server(answerer, shelf, address, folder.root.resolve().name, opens)


def _ensemble(folder: Workdir, memory: str | None, rankers: str | None) -> MakeAnswerer:
    """What loads the ensemble of a working folder.

    Raises:
        UserError: an option is wrong, or `ensemble.json`: that is told before the server starts.
    """
    load_ensemble(folder)
    chosen = None if rankers is None else listed(rankers)
    amount = None if memory is None else parse_memory(memory)
    return functools.partial(EnsembleAnswerer, folder, amount, chosen)
