"""The whole pipeline in one call, checks, and bundles for Kaggle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from solution.api.inputs import CONFIGS, DEMO, Settings, read_settings, setting_texts
from solution.api.results import Parts
from solution.api.stage import stage
from solution.doctor.examine import examine
from solution.doctor.report import Report
from solution.formats.items import Reading
from solution.frames import ShownAsTable, frame
from solution.kaggle.bundle import make_bundle
from solution.kaggle.kernel import COMPETITION
from solution.kaggle.public import read_public
from solution.kaggle.upload import NAME, USER, Address
from solution.kaggle.wheels import PLATFORM, PYTHON, Wheels
from solution.pipeline.demo import run_demo as run_built_in
from solution.pipeline.exam import ANSWERS, Request
from solution.pipeline.exam import run_exam as run_folder
from solution.workdir import Workdir

if TYPE_CHECKING:
    import pandas as pd


@stage
def run_demo(workdir: str | Path = "demo_run", configs: str | Path = DEMO, *, settings: Settings | None = None) -> Path:
    """Run the whole pipeline on the built-in exam (the command `demo`): about a quarter of an hour on two cores.

    Returns:
        The working folder, for `load`.

    Raises:
        UserError: the settings are wrong, or a package that carries weights or text is not installed.
    """
    run_built_in(read_settings(configs, settings), Workdir.open(workdir), str(configs))
    return Path(workdir)


# More than seven parameters: each is an option of the command.
@stage
def run_exam(
    folder: str | Path,
    workdir: str | Path | None = None,
    configs: str | Path = DEMO,
    *,
    questions: str | Path | None = None,
    test: str | Path | None = None,
    corpus: str | None = None,
    count: int = 400,
    all_rankers: bool = False,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Path:
    """Run the whole pipeline on a folder of your own (the command `exam`); a second call does only what is missing.

    Args:
        folder: holds passages and, where there are any, questions.
        workdir: the folder to write; None: `answers` in the folder.
        questions, test, corpus: files that take the place of what would be recognised.
        count: questions that are made from the corpus where there are too few to learn from.
        all_rankers: take language models in also where there is no GPU.
        configs, settings: the settings.
        reading: how question files are to be read.

    Returns:
        The working folder, for `load`.

    Raises:
        UserError: the folder's files do not fit, or there is nothing to learn from.
    """
    given = (_path(questions), _path(test), corpus, _path(workdir), Path(configs), setting_texts(settings))
    run_folder(Request(Path(folder), *given, reading or Reading(), all_rankers, count))
    return Path(workdir) if workdir is not None else Path(folder) / ANSWERS


def _path(file: str | Path | None) -> Path | None:
    return None if file is None else Path(file)


class Checked(ShownAsTable):
    """What `run_doctor` found.

    Attributes:
        report: see `doctor.report.Report`.
    """

    def __init__(self, report: Report):
        self.report = report

    @property
    def ok(self) -> bool:
        """False where something is wrong; warnings are not."""
        return self.report.state != "error"

    def to_frame(self) -> pd.DataFrame:
        """A row for each finding: area, subject, state, found, remedy."""
        return frame([vars(finding) for finding in self.report.findings])


@stage
def run_doctor(
    workdir: str | Path = ".",
    configs: str | Path = CONFIGS,
    *,
    questions: str | Path | None = None,
    corpus: str | None = None,
    settings: Settings | None = None,
    reading: Reading | None = None,
) -> Checked:
    """Tell whether this machine, its packages and a working folder are fit (the command `doctor`). Changes nothing.

    Args:
        questions: those to answer; None: test.csv of the working folder, where there is one.
        configs, corpus, settings: as in training.

    Raises:
        UserError: the working folder is not there. What is wrong else is a finding.
    """
    Workdir.existing(workdir)
    found = examine(Path(workdir), Path(configs), _path(questions), corpus, setting_texts(settings), reading)
    return Checked(found)


# More than seven parameters: each is an option of the command.
@stage
def bundle(
    output: str | Path,
    workdir: str | Path = ".",
    configs: str | Path = CONFIGS,
    *,
    name: str = NAME,
    user: str = USER,
    competition: str = COMPETITION,
    wheels: str | Path | None = None,
    no_wheels: bool = False,
    skip: Sequence[str] = (),
    with_torch: bool = False,
    public_test: str | Path | None = None,
    python: str = PYTHON,
    platform: str = PLATFORM,
    models: bool = True,
) -> Parts:
    """Put all that a Kaggle kernel without a network needs into a folder.

    Args:
        output: the folder to write; its README says how to upload it.
        name, user, competition: of the data set and the kernel.
        wheels: a folder with the packages' wheels, in place of pip; no_wheels: the kernel has all packages.
        skip: packages that the kernel has too.
        with_torch: put torch and its CUDA in too.
        public_test: the competition's public test.csv: on these questions a kernel only proves every ranker.
        python, platform: of the kernel.
        models: put the base models in.
        workdir, configs: the working folder and the settings.

    Returns:
        Part -> bytes.

    Raises:
        UserError: something is missing, or the output cannot be written.
    """
    packages = Wheels(_path(wheels), no_wheels, list(skip), with_torch, python, platform)
    public = None if public_test is None else read_public(Path(public_test))
    address = Address(name, user, competition)
    sizes = make_bundle(Workdir.existing(workdir), Path(output), Path(configs), packages, address, models, public)
    return Parts(sizes)
