"""The verb bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.api import whole
from solution.cli.options import (
    CONFIGS,
    HERE,
    ConfigsOption,
    WorkdirOption,
    listed,
)
from solution.command import command
from solution.errors import UserError
from solution.kaggle.check import check_bundle
from solution.kaggle.kernel import COMPETITION
from solution.kaggle.upload import NAME, USER
from solution.kaggle.wheels import PLATFORM, PYTHON


# More than seven parameters: each is an option of the command line.
@command
def bundle(
    output: Annotated[Path | None, typer.Option(help="The folder to write.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only try a bundle: install it and submit, in a new environment, offline."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the data set and the kernel, as in their addresses.")] = "",
    user: Annotated[str, typer.Option(help="Your name on Kaggle.")] = "",
    competition: Annotated[str, typer.Option(help="Whose test.csv the kernel answers.")] = "",
    wheels: Annotated[Path | None, typer.Option(help="A folder with the packages' wheels, in place of pip.")] = None,
    no_wheels: Annotated[bool, typer.Option("--no-wheels", help="The kernel has all packages.")] = False,
    skip: Annotated[
        str,
        typer.Option(metavar="NAME,NAME", help="Packages that the kernel has too, with what only they need."),
    ] = "",
    with_torch: Annotated[
        bool, typer.Option("--with-torch", help="Put torch and its CUDA in too, in place of those of Kaggle's image.")
    ] = False,
    public_test: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The competition's public test.csv: on exactly these questions a kernel only proves every ranker. "
            "With --check: what the bundle is tried on.",
        ),
    ] = None,
    python: Annotated[str, typer.Option(help="The kernel's Python. Default: 3.12, Kaggle's.")] = "",
    platform: Annotated[str, typer.Option(help="The kernel's platform tag. Default: manylinux_2_35_x86_64.")] = "",
    no_models: Annotated[bool, typer.Option("--no-models", help="Leave the base models out.")] = False,
    configs: ConfigsOption = CONFIGS,
    workdir: WorkdirOption = HERE,
) -> None:
    """Put all that a Kaggle kernel without a network needs into a folder: wheels, program, weights, index, models.

    Its README says how to upload it. Packages come in the versions that are installed here.
    """
    if (output is None) == (check is None):
        raise UserError("give either --output DIR (make a bundle) or --check DIR (try one)")
    if check is not None:
        checked = check_bundle(check, public_test)
        for step, seconds in checked.seconds.items():
            print(f"{step:24} {seconds:7.1f} s")
        for line in checked.remarks:
            print(line)
        print(f"{check}: installed without a network, and {checked.questions} questions answered")
        return
    skipped = listed(skip)
    assert output is not None
    sizes = whole.bundle(
        output, workdir, configs, name=name or NAME, user=user or USER, competition=competition or COMPETITION,
        wheels=wheels, no_wheels=no_wheels, skip=skipped, with_torch=with_torch, public_test=public_test,
        python=python or PYTHON, platform=platform or PLATFORM, models=not no_models,
    )  # fmt: skip
    for part, size in sizes.items():
        if size:
            print(f"{part:10} {size / 1e6:12,.1f} MB")
    print(f"{'together':10} {sum(sizes.values()) / 1e6:12,.1f} MB in {output}; its README.md says how to upload it")
