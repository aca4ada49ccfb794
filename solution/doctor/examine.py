"""All checks of the doctor, in order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from solution.doctor import folder, machine, options, pretraining
from solution.doctor.examined import Examined
from solution.doctor.report import Finding, Report, failure, guarded
from solution.doctor.submission import submission
from solution.formats.items import Reading


def examine(
    workdir: Path,
    configs: Path,
    questions: Path | None = None,
    corpus: str | None = None,
    overrides: Sequence[str] = (),
    reading: Reading | None = None,
) -> Report:
    """Run every check. Raises nothing: an error is a finding.

    Args:
        questions: those to answer; None: WORKDIR/test.csv where there is one.
        overrides: settings as on the command line of training.
        reading: how the question files are to be read.
    """
    report = Report()
    try:
        examined = Examined(workdir, configs, questions, corpus, overrides, reading)
    except Exception as error:  # noqa: BLE001 - see guarded
        report.findings.append(failure("Kaggle", "the bundle", error))
        return report
    checks: list[tuple[str, Callable[[Examined], Iterator[Finding]]]] = [
        ("machine", machine.machine),
        ("machine", machine.device_found),
        ("machine", machine.devices),
        ("machine", machine.four_bit),
        ("packages", machine.packages),
        ("settings", folder.settings),
        ("exam", folder.exam),
        ("exam", options.named),
        ("models", folder.models),
        ("models", options.read_alike),
        ("pretraining", pretraining.pretraining),
        ("extra questions", pretraining.extra),
        ("index", folder.indexes),
        ("weights and OOF", folder.weights),
        ("weights and OOF", folder.oof_files),
        ("contexts", folder.contexts),
        ("ensemble", folder.ensemble_file),
        ("submission", functools.partial(submission, report=report)),
    ]
    for area, check in checks:
        report.findings += guarded(area, area, lambda check=check: check(examined))  # type: ignore[misc]
    return report
