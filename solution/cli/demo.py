"""The verb demo."""

from __future__ import annotations

from pathlib import Path

from solution.api import whole
from solution.cli.options import (
    CONFIGS,
    ConfigsOption,
    OverridesArgument,
    WorkdirOption,
)
from solution.command import command


@command
def demo(
    overrides: OverridesArgument = None,
    workdir: WorkdirOption = Path("demo_run"),
    configs: ConfigsOption = CONFIGS / "demo",
) -> None:
    """The whole pipeline on the built-in exam: index, folds, training, tuning, submission, score."""
    whole.run_demo(workdir, configs, settings=overrides)
