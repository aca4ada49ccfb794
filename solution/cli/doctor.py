"""The verb doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import whole
from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    CorpusOption,
    OverridesArgument,
    WorkdirOption,
    reads_exam,
)
from solution.command import EXIT_USER_ERROR, command
from solution.doctor.report import print_report
from solution.formats.items import Reading


@command
@reads_exam
def doctor(
    overrides: OverridesArgument = None,
    questions: Annotated[
        Path | None, typer.Option(help="The questions to answer. Default: WORKDIR/test.csv where there is one.")
    ] = None,
    corpus: CorpusOption = None,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object in place of the table.")] = False,
    *,
    reading: Reading,
) -> None:
    """Tell whether this machine, its packages and the working folder are fit, and what submit.py would do.

    Changes nothing. Ends with exit code 2 when something is wrong (warnings are not).
    """
    found = whole.run_doctor(workdir, configs, questions=questions, corpus=corpus, settings=overrides, reading=reading)
    print_report(found.report, json_)
    if not found.ok:
        raise typer.Exit(EXIT_USER_ERROR)
