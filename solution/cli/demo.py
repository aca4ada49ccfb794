"""The verb demo."""

from __future__ import annotations

from pathlib import Path

from solution.cli.options import (
    CONFIGS,
    ConfigsOption,
    OverridesArgument,
    WorkdirOption,
    read_settings,
)
from solution.command import command
from solution.pipeline.demo import run_demo
from solution.workdir import Workdir


@command
def demo(
    overrides: OverridesArgument = None,
    workdir: WorkdirOption = Path("demo_run"),
    configs: ConfigsOption = CONFIGS / "demo",
) -> None:
    """The whole pipeline on the built-in exam: index, folds, training, tuning, submission, score."""
    run = read_settings(configs, overrides)
    run_demo(run, Workdir.open(workdir), str(configs))
