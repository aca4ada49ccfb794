"""The whole pipeline on the built-in exam, from the index to the score of the submission."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from solution.config import ContextView, Run
from solution.demo.exam import read_demo_exam
from solution.ensemble.blend import blend
from solution.ensemble.record import EnsembleRecord
from solution.ensemble.rows import Scorer, ScoreRow, random_row
from solution.ensemble.table import print_table
from solution.ensemble.tune import deployment_of, run_tune
from solution.exam import Contexts, Exam
from solution.inference.memory import watched
from solution.inference.outputs import Outputs
from solution.inference.submit import run_submission
from solution.inference.trained import TrainedRanker, context_requests, ranker_exams
from solution.metrics import credit_at_k
from solution.progress import say
from solution.questions import Questions, write_questions
from solution.rankers.base import predict_contexts
from solution.rankers.families import check_models, make_ranker
from solution.retrieval.contexts.build import build_views
from solution.training.run import prepare, train_folds
from solution.workdir import Workdir


def run_demo(run: Run, workdir: Workdir, configs: str | None = None) -> None:
    """Index, contexts, folds, training, tuning, submission, and the held-out score of every ranker.

    Args:
        configs: the folder of the settings, see `ensemble.tune.run_tune`.

    Raises:
        UserError: a package that carries weights or text is not installed, or see the steps.
    """
    started = time.monotonic()

    def step(text: str) -> None:
        say(f"[{(time.monotonic() - started) / 60:4.1f} min] {text}")

    train, held_out = read_demo_exam()
    write_questions(workdir.questions, train)
    write_questions(workdir.test, held_out)
    step(f"{len(train)} questions to train on, {len(held_out)} held out; {run.ensemble.folds} folds")
    step("index, contexts and folds")
    check_models(run.rankers)
    prepare(run, train, workdir)
    for config in run.rankers:
        step(f"training {config.name}")
        train_folds(run.model_copy(update={"rankers": [config]}), train, workdir, range(run.ensemble.folds))
    step("tuning the weights on the OOF files")
    names = [config.name for config in run.rankers]
    deployment = deployment_of(run, configs)
    record = run_tune(workdir, run.ensemble.tune, names, run.ensemble.groups, deployment=deployment)
    print("\nOut of fold, on the training part")
    print_table(record["table"])
    print(record["reason"])
    step("submission for the held-out part")
    outputs = Outputs(workdir.root / "submission.csv", ranked=workdir.root / "ranked.jsonl")
    blended, answers = run_submission(workdir, held_out, outputs)
    step("the rankers and baselines that the ensemble left out, for the table")
    print(f"\nHeld out: {len(held_out)} questions that nothing was trained or tuned on")
    print_table(held_out_rows(run, workdir, record, held_out, blended, answers))
    step(f"done; the answers are in {outputs.submission}")


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
    left_out = [config.name for config in run.rankers if config.name not in answers]
    rankers = [TrainedRanker.read(workdir, name, record["about"][name], []) for name in left_out]
    contexts: dict[str, dict[ContextView, Contexts]] = {}
    for request in context_requests(rankers):
        views = build_views(held_out, request.config, request.views, workdir.root)
        contexts.setdefault(request.config.hash(), {}).update(views)
    for ranker in rankers:
        answers[ranker.name] = predict_folds(ranker, ranker_exams(ranker, held_out, contexts), workdir)
    blendable = [config.name for config in run.rankers if config.role == "ranker"]
    equal = blend(answers, {name: 1 / len(blendable) for name in blendable}, exists)
    scorer = Scorer(right, credit_at_k(equal, right), samples, seed)
    rows = [scorer.row(config.name, config.role, answers[config.name]) for config in run.rankers]
    rows.append(random_row(exists))
    rows.append(scorer.row("equal weights", "equal", equal))
    rows.append(scorer.row(f"submitted ({record['choice']})", "tuned_nested", blended, shipped=True))
    return rows


def predict_folds(ranker: TrainedRanker, exams: Sequence[Exam], workdir: Workdir) -> np.ndarray:
    """The mean of what a ranker's folds answer, float32 [n, max_options]; the base model is loaded once and freed.

    Args:
        exams: the questions with each of the ranker's contexts, see `ranker_exams`.
    """
    folders = ranker.asked_folders
    total = np.zeros(exams[0].questions.exists().shape, dtype=np.float64)
    with watched(ranker.name, len(exams[0])) as watch:
        model = make_ranker(ranker.config, workdir.cache)
        for folder in folders:
            model.load(folder)
            watch.loaded(model)
            total += predict_contexts(model, exams)
        del model
    return (total / len(folders)).astype(np.float32)
