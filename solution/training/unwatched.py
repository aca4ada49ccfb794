"""A training that no fold watches: on all questions, or where two folds are left out."""

from __future__ import annotations

import numpy as np

from solution.config import RankerConfig
from solution.suggestions import suggest
from solution.weights import read_metrics
from solution.workdir import Workdir


def unwatched_settings(config: RankerConfig) -> RankerConfig:
    """The ranker's settings, to be trained for as long as `trained_share` says: nothing tells when to stop."""
    training = config.training.model_copy(update={"evaluations_per_epoch": 0, "keep": "last", "patience": None})
    return config.model_copy(update={"training": training})


def trained_share(config: RankerConfig, folds: int, workdir: Workdir) -> float:
    """The share of the steps that the ranker is trained for, in (0, 1].

    With `keep: best` it is the mean, over the folds, of the share at which the best MAP@3 was reached: there is
    no fold here to watch.

    Raises:
        UserError: a fold that is needed has not been trained.
    """
    if not config.trains or config.training.keep != "best":
        return 1.0
    again = suggest("train_fold", "--all-folds", "--ranker", config.name)
    remedy = f"With keep: best, the folds tell when to stop. Train them first: {again}"
    shares = []
    for fold in range(folds):
        facts = read_metrics(workdir.fold_weights(config.name, fold), remedy)
        # Written since this setting is known; a fold that went through all its steps has done as many as planned.
        planned = facts.get("planned_steps", facts["steps"])
        shares.append(facts.get("kept_step", planned) / max(planned, 1))
    return round(float(np.mean(shares)), 4)
