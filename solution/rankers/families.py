"""The ranker that a config's `family` names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from solution.config import RankerConfig
from solution.errors import UserError
from solution.families import FAMILIES
from solution.learning.log import tensorboard_problem
from solution.models import locate_model
from solution.rankers.base import Ranker
from solution.rankers.trained_head import check_head


def make_ranker(config: RankerConfig, cache: Path) -> Ranker:
    """The ranker of a config; no model is loaded yet.

    Args:
        cache: the folder in which a converted model is kept.
    """
    family = FAMILIES[config.family]
    name = family.streamed if config.stream and family.streamed is not None else family.ranker
    module, kind = name.split(".")
    # Imported here: the families with a model load torch, and a submission's first process must stay small.
    ranker: Ranker = getattr(importlib.import_module(f"solution.rankers.{module}"), kind)(config, cache)
    return ranker


def check_models(rankers: Sequence[RankerConfig]) -> None:
    """Raise one `UserError` for all models and packages that cannot be found or used, before anything is loaded."""
    problems = []
    if any(config.trains and config.training.tensorboard for config in rankers):
        problem = tensorboard_problem()
        problems += [problem] if problem else []
    for config in rankers:
        if config.has_model:
            try:
                locate_model(config.model, config.revision)
                check_head(config)
            except UserError as error:
                problems.append(f"{config.name}: {error}")
    if problems:
        raise UserError.join(problems, "models cannot be used")
