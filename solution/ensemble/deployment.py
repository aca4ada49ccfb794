"""What the tuned rankers are in a submission: which weights answer, whose scores they read, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from solution.config import DEFAULT, AnswerWith, RetrievalConfig, Run, TrackerName
from solution.ensemble.costs import Cost, measured_cost, with_sources
from solution.ensemble.record import about_all, load_ensemble
from solution.errors import UserError
from solution.oof import Oof, changed_sources, load_oof, signal_sources
from solution.progress import say
from solution.suggestions import suggest, typed_settings
from solution.weights import deployed_folders, differing_inputs, read_record, trained_folders
from solution.workdir import Workdir


@dataclass(frozen=True)
class Deployment:
    """The part of ensemble.json that is not tuned.

    Attributes:
        deployment: goes into the record as it is; it decides costs too.
        answer_with: ranker -> which weights answer in a submission, see `RankerConfig.answer_with`; of rankers that
            are not named the folds do.
        retrieval: of the settings, where a ranker needs it.
        trackers: see `EnsembleConfig.trackers`.
    """

    configs: str | None = None
    answer_with: Mapping[str, AnswerWith] = field(default_factory=dict)
    retrieval: RetrievalConfig | None = None
    trackers: Sequence[TrackerName] = ()


def deployment_of(run: Run, configs: Path | str | None) -> Deployment:
    """Which weights of each ranker answer, by the settings of now; a ranker whose folds are all alike has no others."""
    answer_with = {config.name: config.answers_with for config in run.rankers if config.folds_differ}
    retrieves = any(DEFAULT in run.reads(config) for config in run.rankers)
    retrieval = run.retrieval if retrieves else None
    return Deployment(None if configs is None else str(configs), answer_with, retrieval, run.ensemble.trackers)


def sources_of(workdir: Workdir, oof: Oof) -> dict[str, dict[str, Any]]:
    """The `about` of the rankers whose scores the others read, without those that are tuned themselves.

    Raises:
        UserError: OOF parts of one are missing, or are not those that were learnt from.
    """
    names = sorted({name for about in oof.about.values() for name in signal_sources(about)})
    if not names:
        return {}
    stored = load_oof(workdir, names)
    for reader, name in changed_sources(oof.about, stored):
        raise UserError(
            f"{reader} learnt from the scores of {name}, and these have changed since. Train {reader} again: "
            f"{suggest('train_fold', '--all-folds', '--ranker', reader)}"
        )
    return {name: stored.about[name] for name in names if name not in oof.about}


def answering_about(workdir: Workdir, known: Mapping[str, Any], deployment: Deployment) -> dict[str, dict[str, Any]]:
    """The `about` of each ranker's OOF files, with the weights that answer where these are not the folds.

    Args:
        known: ranker -> of its OOF files.

    Raises:
        UserError: a ranker is to answer with weights that are not trained.
    """
    about = dict(known)
    for name, answer_with in deployment.answer_with.items():
        if answer_with == "folds" or name not in about or not _answers(name, about):
            continue
        folders = deployed_folders(workdir, name, answer_with)
        seeds = ["--seeds", str(len(folders))] if answer_with == "full" and folders else []
        again = suggest("train_fold", f"--{answer_with}", *seeds, "--ranker", name, *typed_settings(name))
        if not folders:
            raise UserError(f"{name}.answer_with is {answer_with}, and there are no such weights: {again}")
        for folder in folders:
            differing = differing_inputs(read_record(folder, f"Train it again: {again}"), about[name])
            if differing:
                raise UserError(
                    f"the weights in {folder} and the OOF files of {name} were made with other {', '.join(differing)}. "
                    f"Make these weights again, or remove the folder: {again}"
                )
        about[name] = {**about[name], "answer_with": answer_with}
    return about


def note_untuned(workdir: Workdir, rankers: Iterable[str]) -> None:
    """Say which of these rankers' folds were made from other inputs than `ensemble.json` was tuned on, so that a
    submission leaves them out."""
    try:
        about = about_all(load_ensemble(workdir))
    except UserError:
        return  # there is none yet, or it is damaged, which the next command that needs it tells
    changed = [
        name
        for name in rankers
        if name in about and any(_differs(folder, about[name]) for folder in trained_folders(workdir, name))
    ]
    if changed:
        say(
            f"note: {workdir.ensemble} was tuned on other questions or settings than {', '.join(changed)} is trained "
            f"with now. Before a submission: {suggest('tune')}"
        )


def _differs(folder: Path, about: Mapping[str, Any]) -> bool:
    """Whether weights are known to be made from other inputs; damaged ones are told by what reads them."""
    try:
        return bool(differing_inputs(read_record(folder, ""), about))
    except (UserError, KeyError, TypeError, AttributeError):  # a file of another form, too
        return False


def _answers(name: str, about: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a ranker may answer in a submission: it may be blended, or another one reads its scores."""
    return about[name]["role"] == "ranker" or any(name in signal_sources(other) for other in about.values())


def costs_of(
    workdir: Workdir, rankers: Sequence[str], about: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float]
) -> dict[str, Cost]:
    """The cost of each ranker as training measured it, but for the seconds a question that were given."""
    answering = [name for name in about if _answers(name, about)]
    strange = sorted(set(seconds) - set(answering))
    if strange:
        raise UserError(f"--seconds {strange[0]}: no such ranker among those tuned ({', '.join(answering)})")
    costs = {name: measured_cost(workdir, name, about[name]) for name in answering}
    costs |= {name: replace(costs[name], seconds_per_question=value) for name, value in seconds.items()}
    return with_sources(costs, rankers, about)
