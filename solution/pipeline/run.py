"""The whole pipeline: index, contexts, folds, training, tuning, answers and the report, whatever the exam is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution import __version__
from solution.config import ContextView, RankerConfig, Run
from solution.ensemble.blend import blend
from solution.ensemble.deployment import deployment_of
from solution.ensemble.record import EnsembleRecord, about_all, load_ensemble
from solution.ensemble.rows import Scorer, ScoreRow, random_row
from solution.ensemble.table import print_table
from solution.ensemble.tune import run_tune
from solution.errors import UserError, check_together
from solution.exam import Contexts, Exam
from solution.files import content_hash, file_hash
from solution.inference.memory import watched
from solution.inference.outputs import Outputs
from solution.inference.submit import run_submission
from solution.inference.trained import TrainedRanker, context_requests, ranker_exams
from solution.metrics import credit_at_k
from solution.oof import load_oof
from solution.pipeline.finished import Finished
from solution.progress import say
from solution.questions import Questions, write_questions
from solution.rankers.base import predict_contexts
from solution.rankers.families import check_models, make_ranker
from solution.rankers.option_inputs import with_scores
from solution.report.run import PAGE, write_report
from solution.retrieval.contexts.build import build_views
from solution.suggestions import suggest
from solution.training.average import average_folds
from solution.training.extra import ExtraFiles
from solution.training.full import train_full
from solution.training.prepared import prepare
from solution.training.run import train_folds
from solution.workdir import Workdir


@dataclass(frozen=True)
class Job:
    """What a run of the pipeline is to do.

    Attributes:
        train: the questions to learn from; written to WORKDIR/questions.csv.
        test: the questions to answer, written to WORKDIR/test.csv; None: there are none. Where all their answers are
            known, they are scored.
        outputs: the files of the answers.
        scored: what the table of scores of `test` is called.
        configs: the folder of the settings, see `ensemble.tune.run_tune`.
    """

    run: Run
    workdir: Workdir
    train: Questions
    test: Questions | None
    outputs: Outputs
    scored: str
    configs: str | None = None

    @property
    def is_scored(self) -> bool:
        return self.test is not None and bool((self.test.answers >= 0).all())


class Clock:
    """Tells the steps of a run with the minutes since its beginning."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def step(self, text: str) -> None:
        say(f"[{(time.monotonic() - self._started) / 60:4.1f} min] {text}")


def run_pipeline(job: Job, clock: Clock) -> list[ScoreRow]:
    """Do every step that is not finished, and print the tables of scores.

    Returns:
        The rows of the table of `job.test`; none where these are not scored.

    Raises:
        UserError: see the steps.
    """
    run, workdir, train = job.run, job.workdir, job.train
    finished = Finished(workdir.exam)
    write_questions(workdir.questions, train)
    if job.test is not None:
        write_questions(workdir.test, job.test)
    clock.step("index, contexts and folds")
    files = ExtraFiles()
    check_together("the training cannot start", lambda: check_models(run.rankers), lambda: files.check(run))
    prepare(run, train, workdir, files)
    for done, config in enumerate(run.rankers):
        if config.has_model and not any(earlier.has_model for earlier in run.rankers[:done]):
            _tune_first(job, run.rankers[:done], clock)
        clock.step(f"training {config.name}")
        _train(config, job)
    clock.step("tuning the weights on the OOF files")
    record = _tuned(job, finished)
    print("\nOut of fold: each question answered by models that had not seen it")
    print_table(record["table"])
    print(record["reason"])
    rows: list[ScoreRow] = []
    if job.test is not None:
        clock.step(f"answers to {len(job.test)} questions")
        rows = _answered(job, job.test, record, finished)
    if rows:
        print(f"\n{job.scored}")
        print_table(rows)
    return rows


def _tune_first(job: Job, trained: Sequence[RankerConfig], clock: Clock) -> None:
    """Tune an ensemble of the rankers without a language model, where there is none yet: it can be asked while the
    others are trained, which takes most of the time."""
    run, workdir = job.run, job.workdir
    names = [config.name for config in trained if config.name in run.ensemble.rankers]
    rankers = [config.name for config in trained if config.name in names and config.role == "ranker"]
    if not rankers or workdir.ensemble.exists():
        return
    untracked = run.ensemble.model_copy(update={"trackers": []})
    part = run.model_copy(update={"rankers": list(trained), "ensemble": untracked})
    try:
        run_tune(workdir, run.ensemble.tune, names, run.ensemble.groups, deployment=deployment_of(part, job.configs))
    except UserError as error:  # such as a blend that is chosen and needs rankers that come later
        say(f"note: no ensemble can be asked before the others are trained: {error}")
        return
    command = suggest("serve", "--workdir", str(workdir.root), "--open")
    clock.step(
        f"a first ensemble of {', '.join(rankers)} can be asked while this goes on, in another terminal: {command}"
    )


def _train(config: RankerConfig, job: Job) -> None:
    """Train a ranker's folds, and make the weights that answer in their place."""
    alone = job.run.model_copy(update={"rankers": [config]})
    train_folds(alone, job.train, job.workdir, range(job.run.ensemble.folds))
    if config.answers_with == "average":
        average_folds(alone, job.workdir)
    elif config.answers_with == "full":
        train_full(alone, job.train, job.workdir)


def _tuned(job: Job, finished: Finished) -> EnsembleRecord:
    """The ensemble, tuned now where its OOF files or settings have changed."""
    run, workdir = job.run, job.workdir
    names = [config.name for config in listed(run)]
    deployment = deployment_of(run, job.configs)
    key = {
        "version": __version__,
        "oof": load_oof(workdir, names).files,
        "tune": run.ensemble.tune.hash(),
        "groups": run.ensemble.groups,
        "answer_with": dict(deployment.answer_with),
        "configs": job.configs,
    }
    if finished.has("tune", key):
        say("tuned already, nothing has changed")
        return load_ensemble(workdir)
    record = run_tune(workdir, run.ensemble.tune, names, run.ensemble.groups, deployment=deployment)
    finished.add("tune", key, [workdir.ensemble])
    return record


def _answered(job: Job, test: Questions, record: EnsembleRecord, finished: Finished) -> list[ScoreRow]:
    """Answer the questions, or find them answered; the rows of scores where the answers are known."""
    outputs = job.outputs
    key = {"ensemble": file_hash(job.workdir.ensemble), "questions": test.content_hash()}
    if finished.has("answers", key):
        say("answered already, nothing has changed")
        return list(finished.result("answers"))
    blended, answers = run_submission(job.workdir, test, outputs)
    rows = held_out_rows(job.run, job.workdir, record, test, blended, answers) if job.is_scored else []
    used = {name for name, weight in record["weights"].items() if weight > 0}
    if used <= set(answers):  # else a ranker failed, and may answer the next time
        finished.add("answers", key, outputs.answers, rows)
    return rows


def report_of(job: Job, clock: Clock) -> Path:
    """The report, written anew where anything in it has changed."""
    workdir, finished = job.workdir, Finished(job.workdir.exam)
    page = workdir.root / "report" / PAGE
    key: dict[str, Any] = {
        "version": __version__,
        "ensemble": file_hash(workdir.ensemble),
        "questions": content_hash(job.train.content_hash(), job.train.extra),
        "notes": finished.notes,
    }
    clock.step("report")
    if finished.has("report", key):
        say("written already, nothing has changed")
    else:
        write_report(workdir, job.train, page.parent)
        finished.add("report", key, [page])
    return page


def held_out_rows(
    run: Run,
    workdir: Workdir,
    record: EnsembleRecord,
    held_out: Questions,
    blended: np.ndarray,
    answers: dict[str, np.ndarray],
) -> list[ScoreRow]:
    """The held-out table: every ranker and baseline alone, random, equal weights, the ensemble as submitted."""
    exists, right = held_out.exists(), held_out.answers
    samples, seed = run.ensemble.tune.bootstrap_samples, run.ensemble.tune.seed
    say("the rankers and baselines that the ensemble left out, for the table")
    left_out = [config.name for config in run.rankers if config.name not in answers]
    rankers = [TrainedRanker.read(workdir, name, about_all(record)[name], []) for name in left_out]
    contexts: dict[str, dict[ContextView, Contexts]] = {}
    for request in context_requests(rankers):
        views = build_views(held_out, request.config, request.views, workdir.root)
        contexts.setdefault(request.config.hash(), {}).update(views)
    for ranker in rankers:  # in the order of the run: those whose scores another one reads come first
        scores = {name: answers[name] for name in ranker.config.signals_from}
        exams = with_scores(ranker_exams(ranker, held_out, contexts), scores, exists)
        answers[ranker.name], _ = predict_folds(ranker, exams, workdir)
    blendable = [config.name for config in listed(run) if config.role == "ranker"]
    equal = blend(answers, {name: 1 / len(blendable) for name in blendable}, exists)
    scorer = Scorer(right, credit_at_k(equal, right), samples, seed)
    rows = [scorer.row(config.name, config.role, answers[config.name]) for config in listed(run)]
    rows.append(random_row(exists))
    rows.append(scorer.row("equal weights", "equal", equal))
    rows.append(scorer.row(f"submitted ({record['choice']})", "tuned_nested", blended, shipped=True))
    return rows


def listed(run: Run) -> list[RankerConfig]:
    """The rankers that `ensemble.rankers` lists, without those that are there only because others read their scores."""
    return [config for config in run.rankers if config.name in run.ensemble.rankers]


def predict_folds(ranker: TrainedRanker, exams: Sequence[Exam], workdir: Workdir) -> tuple[np.ndarray, float]:
    """The mean of what a ranker's folds answer, float32 [n, max_options], and the seconds that scoring took.

    The base model is loaded once and freed; loading is not among the seconds.

    Args:
        exams: the questions with each of the ranker's contexts, see `ranker_exams`.
    """
    folders, seconds = ranker.asked_folders, 0.0
    total = np.zeros(exams[0].questions.exists().shape, dtype=np.float64)
    with watched(ranker.name, len(exams[0])) as watch:
        model = make_ranker(ranker.config, workdir.cache)
        for folder in folders:
            model.load(folder)
            watch.loaded(model)
            started = time.monotonic()
            total += predict_contexts(model, exams)
            seconds += time.monotonic() - started
        del model
    return (total / len(folders)).astype(np.float32), seconds
