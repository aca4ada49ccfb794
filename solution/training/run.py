"""Train rankers on folds: weights, metrics and OOF parts on disk; what is finished is not done again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution import oof
from solution.config import TRAINED_FAMILIES, ContextView, RankerConfig, RetrievalConfig, Run
from solution.errors import UserError
from solution.files import (
    MANIFEST,
    atomic_folder,
    content_hash,
    read_manifest,
    sweep_leftovers,
    write_json,
    write_manifest,
)
from solution.folds import exam_folds
from solution.metrics import bootstrap_interval, credit_at_k, expected_random_map, map_at_k
from solution.models import locate_model
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.contexts import Contexts, build_views
from solution.retrieval.rerank import Reranker
from solution.training import distributed
from solution.workdir import Workdir

KIND = "fold's weights"


def needs_contexts(config: RankerConfig, retrieval: RetrievalConfig) -> bool:
    """Whether the ranker reads anything that retrieval makes."""
    return retrieval.source != "none" and (
        config.family == "similarity" or config.retrieval_prior or (config.family != "longest" and config.passages > 0)
    )


@dataclass
class Prepared:
    """All that the folds of an exam share."""

    questions: Questions
    folds: np.ndarray
    contexts: dict[ContextView, Contexts] | None
    """By what the rankers' `contexts` call them; None: no ranker reads any."""


def prepare(run: Run, questions: Questions, workdir: Workdir) -> Prepared:
    """Folds and contexts of an exam; made once, read from disk afterwards.

    Raises:
        UserError: an answer is missing, or the folds or contexts cannot be made.
    """
    questions.require_answers("training")
    folds = exam_folds(questions, run.ensemble, workdir.folds)
    reading = [config for config in run.rankers if needs_contexts(config, run.retrieval)]
    contexts = None
    if reading:
        views = [view for config in reading for view in config.contexts]
        contexts = build_views(questions, run.retrieval, views, workdir.root)
    return Prepared(questions, folds, contexts)


def context_key(config: RankerConfig, contexts: Mapping[ContextView, Contexts]) -> str:
    """Names what the contexts that a ranker reads were made from."""
    keys = [contexts[view].key for view in config.contexts]
    return keys[0] if len(keys) == 1 else content_hash(keys)


def check_models(rankers: Sequence[RankerConfig]) -> None:
    """Raise one `UserError` for all models and packages that cannot be found, before anything is loaded."""
    from solution.training.log import tensorboard_problem

    problems = []
    if any(config.trains and config.training.tensorboard for config in rankers):
        problem = tensorboard_problem()
        problems += [problem] if problem else []
    for config in rankers:
        if config.family in TRAINED_FAMILIES:
            try:
                locate_model(config.model, config.revision)
            except UserError as error:
                problems.append(f"{config.name}: {error}")
    if problems:
        raise UserError.join(problems, "models are missing")


def train_folds(run: Run, questions: Questions, workdir: Workdir, folds: Sequence[int]) -> None:
    """Train every ranker of the run on every fold named and print what each scored.

    Raises:
        UserError: see `prepare`, `Ranker.fit`; or a fold is out of range.
    """
    wrong = [fold for fold in folds if not 0 <= fold < run.ensemble.folds]
    if wrong:
        raise UserError(
            f"fold {wrong[0]} is out of range: the ensemble has {run.ensemble.folds} folds, "
            f"0 to {run.ensemble.folds - 1}"
        )
    check_models(run.rankers)
    prepared = distributed.main_first(lambda: prepare(run, questions, workdir))
    for config in run.rankers:
        for fold in folds:
            train_fold(config, run, prepared, workdir, fold)


def train_fold(config: RankerConfig, run: Run, prepared: Prepared, workdir: Workdir, fold: int) -> None:
    """Train one ranker on all folds but `fold` and write its weights, metrics and OOF part of `fold`."""
    from solution.rankers.base import Exam, predict_contexts
    from solution.rankers.families import make_ranker
    from solution.rankers.prompts import is_question

    questions, contexts = prepared.questions, prepared.contexts
    uses = needs_contexts(config, run.retrieval)
    exams = Exam.views(config, questions, contexts if uses else None)
    exam = exams[0]
    about = {
        "ranker": config.name,
        "family": config.family,
        "role": config.role,
        "fold": fold,
        "folds": run.ensemble.folds,
        "questions": content_hash(questions.content_hash(), fold_hash(prepared)),
        "contexts": context_key(config, contexts) if uses and contexts is not None else "none",
        "config": config.hash(),
        "retrieval": run.retrieval.hash() if uses else "none",
        "wording": content_hash(sorted((id_, is_question(exam, row)) for row, id_ in enumerate(questions.ids))),
    }
    if uses and run.retrieval.source == "index" and run.retrieval.reranker is not None:
        about["reranker"] = Reranker(run.retrieval.reranker, workdir.root).key
    key = content_hash(about)
    target, part = workdir.fold_weights(config.name, fold), workdir.oof_part(config.name, fold)
    if distributed.from_main(lambda: key) != key:
        raise UserError(
            f"process {distributed.rank()} has other questions, contexts, folds or settings than the first: start all "
            "with the same command, and with a --workdir and files that all machines share"
        )
    if distributed.from_main(lambda: _finished(target, part, about, key)):
        say(f"{config.name} fold {fold}: already trained, nothing has changed")
        return
    valid_exam = exam.subset(np.flatnonzero(prepared.folds == fold))
    if config.merged:
        from solution.training.merge import refuse_seen

        refuse_seen(config, valid_exam.questions)
    started = time.monotonic()
    from solution.device import free_memory
    from solution.memory import PeakMemory
    from solution.training.checkpoint import drop_checkpoint
    from solution.training.log import LOG, drop_log

    free_memory()
    peak = PeakMemory()
    train_exam = exam.subset(np.flatnonzero(prepared.folds != fold))
    ranker = make_ranker(config, workdir.cache)
    checkpoint = workdir.checkpoint(config.name, fold)
    logs = workdir.logs(config.name, fold)
    facts = ranker.fit(train_exam, valid_exam, checkpoint, logs)
    scoring = time.monotonic()
    left_out = np.flatnonzero(prepared.folds == fold)
    probabilities = predict_contexts(ranker, [each.subset(left_out).hidden() for each in exams])
    probabilities = widen(probabilities, questions.max_options)
    done = time.monotonic()
    if distributed.rank() > 0:
        return
    answers = valid_exam.questions.answers
    credits = credit_at_k(probabilities, answers)
    low, high = bootstrap_interval(credits)
    metrics: dict[str, Any] = {
        "map3": round(float(credits.mean()), 6),
        "interval": [round(low, 6), round(high, 6)],
        "precision1": round(map_at_k(probabilities, answers, k=1), 6),
        "random_map3": round(expected_random_map(valid_exam.questions.exists().sum(axis=1)), 6),
        "questions": len(answers),
        "seconds": round(done - started, 1),
        "score_seconds_per_question": round((done - scoring) / len(answers), 4),
        "load_seconds": round(getattr(ranker, "load_seconds", 0.0), 2),
        "peak_memory_mib": peak.mib(),
        **facts,
    }
    with atomic_folder(target) as temporary:
        ranker.save(temporary)
        if config.trains:
            shutil.copyfile(logs / LOG, temporary / LOG)
        write_json(temporary / "metrics.json", metrics)
        write_json(
            temporary / "ranker.json",
            {
                "about": about,
                "config": config.model_dump(mode="json"),
                "retrieval": run.retrieval.model_dump(mode="json") if uses else None,
            },
        )
        write_manifest(temporary, KIND, key=key)
    oof.write_oof(part, valid_exam.questions, probabilities, about)
    drop_checkpoint(checkpoint)
    drop_log(logs)
    say(
        f"{config.name} fold {fold}: MAP@3 {metrics['map3']:.3f} [{low:.3f}, {high:.3f}] on {len(answers)} questions "
        f"(random {metrics['random_map3']:.3f}), {metrics['seconds']:.0f} s"
    )


def widen(probabilities: np.ndarray, width: int) -> np.ndarray:
    """Append columns of 0: a fold's questions may all have fewer options than the exam's."""
    return np.pad(probabilities, ((0, 0), (0, width - probabilities.shape[1])))


def fold_hash(prepared: Prepared) -> str:
    """A hash of which question is in which fold: OOF of other folds does not belong together."""
    return content_hash(sorted(zip(prepared.questions.ids, prepared.folds.tolist(), strict=True)))


def _finished(target: Path, part: Path, about: dict[str, Any], key: str) -> bool:
    for path in (target, part):
        if path.parent.is_dir():
            sweep_leftovers(path.parent, path.name)
    if not (target / MANIFEST).is_file() or not part.is_file():
        return False
    try:
        manifest = read_manifest(target, KIND, "")
        stored = oof.read_oof(part).about
    except UserError as error:
        say(f"{error} -> training it again")
        return False
    return manifest.get("key") == key and all(stored.get(name) == value for name, value in about.items())
