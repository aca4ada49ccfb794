"""Seconds that a ranker takes to load and for each question, as measured when its folds were scored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from solution.config import RankerConfig
from solution.errors import UserError
from solution.families import FAMILIES
from solution.oof import IMPORTED, signal_sources
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
        sources: of the rankers whose scores it reads, by their names; they answer before it does.
    """

    seconds_per_question: float | None
    load_seconds: float = 0.0
    by_option: bool = False
    fold_seconds: float | None = None
    sources: Mapping[str, Cost] = field(default_factory=dict)

    def beyond(self, asked: Collection[str] = ()) -> Cost:
        """With the cost of the sources in it, but for those among the rankers that are asked before it anyway."""
        parts = [self, *(cost for name, cost in self.sources.items() if name not in asked)]
        seconds = [part.seconds_per_question for part in parts]
        return replace(
            self,
            seconds_per_question=None if None in seconds else sum(filter(None, seconds)),
            load_seconds=sum(part.load_seconds for part in parts),
            sources={},
        )


def with_sources(costs: Mapping[str, Cost], names: Iterable[str], about: Mapping[str, Any]) -> dict[str, Cost]:
    """The costs of these rankers, each with those of its sources.

    Args:
        costs: of these rankers and of their sources.
        about: ranker -> of its OOF files.
    """
    return {
        name: replace(costs[name], sources={source: costs[source] for source in signal_sources(about[name])})
        for name in names
    }


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
