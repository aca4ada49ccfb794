"""Seconds that a ranker takes to load and for each question, as measured when its folds were scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from solution.config import RankerConfig
from solution.errors import UserError
from solution.families import FAMILIES
from solution.oof import IMPORTED
from solution.weights import answering_folders, read_metrics, read_record
from solution.workdir import Workdir


@dataclass(frozen=True)
class Cost:
    """The time of a ranker in a submission.

    Attributes:
        seconds_per_question: of all weights that answer (all folds, or all seeds of the training on all questions);
            None where it was not measured.
        load_seconds: until its first fold is loaded.
        by_option: whether a question with half of its options costs half.
        fold_seconds: seconds a question of one fold.
    """

    seconds_per_question: float | None
    load_seconds: float = 0.0
    by_option: bool = False
    fold_seconds: float | None = None


def measured_cost(workdir: Workdir, name: str, about: Mapping[str, Any]) -> Cost:
    """The cost that training measured, from `metrics.json` of a ranker's folds; an imported ranker costs nothing.

    Args:
        about: of its OOF files, with `answer_with` as in `RankerAbout`.
    """
    if about.get("family") == IMPORTED:
        return Cost(0.0, fold_seconds=0.0)
    seconds: list[float] = []
    loads = [0.0]
    for fold in range(int(about["folds"])):
        try:
            facts = read_metrics(workdir.fold_weights(name, fold), "")
            seconds.append(float(facts["score_seconds_per_question"]))
            loads.append(float(facts.get("load_seconds") or 0.0))
        except (UserError, OSError, KeyError, TypeError, ValueError):
            break
    if not seconds:
        return Cost(None)
    mean = sum(seconds) / len(seconds)
    differ = True
    try:
        record = read_record(workdir.fold_weights(name, 0), "")
        differ = RankerConfig.model_validate(record["config"]).folds_differ
    except (UserError, OSError, KeyError, TypeError, ValueError):
        pass
    folders = answering_folders(workdir, name, about.get("answer_with", "folds"), int(about["folds"]))
    passes = len(folders) if differ else 1
    family = FAMILIES.get(str(about.get("family")))
    return Cost(mean * passes, max(loads), family is not None and family.by_option, mean)
