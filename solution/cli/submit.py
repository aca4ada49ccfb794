"""The command line of submit.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import exams
from solution.cli.options import APP_SETTINGS, OverridesArgument, named_values, reads_exam
from solution.command import command
from solution.formats.items import Reading

submit_app = typer.Typer(**APP_SETTINGS)  # type: ignore[arg-type]


# More than seven parameters, and many lines: each parameter is an option of the command line.
@submit_app.command()
@command
@reads_exam
def submit(
    overrides: OverridesArgument = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="The questions to answer. Default: WORKDIR/test.csv, in a Kaggle kernel the competition's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Kaggle's file: id,prediction. Default: submission.csv (in a kernel in /kaggle/working)."),
    ] = None,
    ranked: Annotated[Path | None, typer.Option(help="Also write every option in order, as JSON lines.")] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Also write id and p_A, p_B, ... (CSV or parquet).")
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="An imported ranker's probabilities for these questions."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When to end with the best answer so far: 8h30m, 90m, 45s or seconds."),
    ] = None,
    ranker_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="A ranker that finishes no batch for so long is left out.")
    ] = "30m",
    strict: Annotated[
        bool, typer.Option("--strict", help="End with an error when a ranker was left out; the answer is written.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="How much may be used, as 16GiB: of each GPU, else of the machine."),
    ] = None,
    devices: Annotated[
        str,
        typer.Option(
            metavar="DEVICES",
            help="Those that share each ranker's questions: auto (all GPUs, else the CPU), cuda:0,cuda:1, a number, or "
            "cpu,cpu.",
        ),
    ] = "auto",
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not compare weights and index with their hashes.")
    ] = False,
    full_run: Annotated[
        bool,
        typer.Option("--full-run", help="In a kernel: answer the competition's public questions whole, not a sample."),
    ] = False,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Folder whose weights/ and cache/ are used, or a bundle. Default: this one, or a kernel's bundle."
        ),
    ] = None,
    *,
    reading: Reading,
) -> None:
    """Answer every question with the ensemble in WORKDIR/weights, one model in memory at a time. Uses no network.

    An answer is in OUTPUT from the first second on and gets better; a run that was killed goes on when it is started
    again. Exit codes: 0 done (also at the deadline), 2 an error, 130 and 143 ended by SIGINT or SIGTERM, with the
    best answer until then written.
    """
    exams.submit(
        workdir, questions, output, ranked=ranked, probabilities=probabilities,
        add=named_values(add, "--add", "NAME=FILE"), deadline=deadline, ranker_timeout=ranker_timeout, strict=strict,
        memory=memory, devices=devices, verify=not no_verify, full_run=full_run, settings=overrides,
        reading=reading,
    )  # fmt: skip
