"""The verb merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from solution.api import training
from solution.cli.options import (
    HERE,
    OverridesArgument,
    WorkdirOption,
)
from solution.command import command
from solution.suggestions import suggest


@command
def merge(
    ranker: Annotated[str, typer.Option(help="A ranker that was trained with LoRA or QLoRA.")],
    fold: Annotated[int, typer.Option(help="Which of its trained folds, from 0.")],
    output: Annotated[Path, typer.Option(help="The folder to write; it must not be there yet.")],
    overrides: OverridesArgument = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the merged weights; bfloat16 takes half the room.")
    ] = "float32",
    workdir: WorkdirOption = HERE,
) -> None:
    """Write a trained fold as a stand-alone model: LoRA added to the base weights, with tokenizer, head and settings.

    The settings are those that the fold was trained with; `model=FOLDER` tells where a base model is that has moved.
    """
    merged = training.merge(ranker, fold, output, workdir, dtype=dtype, settings=overrides)
    print(f"{merged.folder}: {merged.size / 1e6:.1f} MB, {dtype}")
    print(f"its probabilities differ from the adapter's by {merged.difference:.1g} at most")
    print(f"as a ranker: {suggest('train_fold', '--config', str(merged.settings), '--fold', str(fold))}")
    print("(other folds of the exam that it was trained on are refused; another exam takes --all-folds)")
    print("elsewhere: transformers' AutoModel classes load the folder")
