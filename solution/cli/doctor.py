"""The verb doctor."""

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
    reads_exam,
)
from solution.command import EXIT_USER_ERROR, command
from solution.doctor.examine import examine
from solution.doctor.report import print_report
from solution.formats.items import Reading
from solution.workdir import Workdir


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
    Workdir.existing(workdir)
    report = examine(workdir, configs, questions, corpus, overrides or (), reading)
    print_report(report, json_)
    if report.state == "error":
        raise typer.Exit(EXIT_USER_ERROR)
