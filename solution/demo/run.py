"""The whole pipeline on the built-in exam: a part of it is never trained on, and is what the last table scores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import Run
from solution.progress import say
from solution.questions import Questions, read_questions, write_questions
from solution.workdir import Workdir

EXAM = Path(__file__).with_name("exam.csv")
HELD_OUT = "heldout"


def read_demo_exam() -> tuple[Questions, Questions]:
    """The built-in exam's training part and its held-out part."""
    exam = read_questions(EXAM)
    held_out = np.array([part == HELD_OUT for part in exam.extra["part"]])
    return exam.subset(np.flatnonzero(~held_out)), exam.subset(np.flatnonzero(held_out))


def run_demo(run: Run, workdir: Workdir, configs: str | None = None) -> None:
    """Index, contexts, folds, training, tuning, submission, and the held-out score of every ranker.

    Args:
        configs: the folder of the settings, see `ensemble.tune.run_tune`.

    Raises:
        UserError: a package that carries weights or text is not installed, or see the steps.
    """
    from solution.ensemble.table import print_table
    from solution.ensemble.tune import run_tune
    from solution.inference.submit import run_submission
    from solution.training.run import check_models, prepare, train_folds

    started = time.monotonic()

    def step(text: str) -> None:
        say(f"[{(time.monotonic() - started) / 60:4.1f} min] {text}")

    train, held_out = read_demo_exam()
    write_questions(workdir.root / "questions.csv", train)
    write_questions(workdir.root / "test.csv", held_out)
    step(f"{len(train)} questions to train on, {len(held_out)} held out; {run.ensemble.folds} folds")
    step("index, contexts and folds")
    check_models(run.rankers)
    prepare(run, train, workdir)
    for config in run.rankers:
        step(f"training {config.name}")
        train_folds(run.model_copy(update={"rankers": [config]}), train, workdir, range(run.ensemble.folds))
    step("tuning the weights on the OOF files")
    names = [config.name for config in run.rankers]
    record = run_tune(workdir, run.ensemble.tune, names, run.ensemble.groups, configs=configs)
    print("\nOut of fold, on the training part")
    print_table(record["table"])
    print(record["reason"])
    step("submission for the held-out part")
    submission = workdir.root / "submission.csv"
    blended, answers = run_submission(workdir, held_out, submission, ranked=workdir.root / "ranked.jsonl")
    step("the rankers and baselines that the ensemble left out, for the table")
    print(f"\nHeld out: {len(held_out)} questions that nothing was trained or tuned on")
    print_table(held_out_rows(run, workdir, record, held_out, blended, answers))
    step(f"done; the answers are in {submission}")


def held_out_rows(
    run: Run,
    workdir: Workdir,
    record: dict[str, Any],
    held_out: Questions,
    blended: np.ndarray,
    answers: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """The held-out table: every ranker and baseline alone, random, equal weights, the ensemble as submitted."""
    from solution.ensemble.blend import blend
    from solution.ensemble.table import Row, random_row, score_row
    from solution.inference.submit import TrainedRanker, predict_folds, ranker_exams
    from solution.metrics import credit_at_k

    exists, right = held_out.exists(), held_out.answers
    samples, seed = run.ensemble.tune.bootstrap_samples, run.ensemble.tune.seed
    for config in run.rankers:
        if config.name not in answers:
            ranker = TrainedRanker(workdir, config.name, record["about"][config.name], [])
            exams = ranker_exams([ranker], held_out, workdir)[config.name]
            answers[config.name] = predict_folds(ranker, exams, workdir)
    blendable = [config.name for config in run.rankers if config.role == "ranker"]
    equal = blend(answers, {name: 1 / len(blendable) for name in blendable}, exists)
    equal_credits = credit_at_k(equal, right)

    def row(name: str, kind: Any, table: np.ndarray, **more: Any) -> Row:
        return score_row(name, kind, table, right, equal_credits, samples, seed, **more)

    rows = [row(config.name, config.role, answers[config.name]) for config in run.rankers]
    rows.append(random_row(exists))
    rows.append(row("equal weights", "equal", equal))
    rows.append(row(f"submitted ({record['choice']})", "tuned_nested", blended, shipped=True))
    return [each.record() for each in rows]
