"""Who shall answer: a ranker's folds, their mean, or weights trained on all questions? Score and seconds of each.

    make demo
    python train_fold.py --configs configs/demo --workdir demo_run --average
    python train_fold.py --configs configs/demo --workdir demo_run --full --seeds 3
    python benchmarks/who_answers.py --workdir demo_run

Every ranker of the working folder that is trained answers questions that no weights have seen: those of `--questions`,
or the built-in exam's held-out part (`demo_run/test.csv`). MAP@3 stands with its 95 % bootstrap interval, the paired
difference to the folds beside it, and the seconds that scoring a question took with all weights that answer (loading
is left out). A ranker that reads other rankers' scores answers without them here. `equal weights` is the mean of the
rankers' probabilities.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from solution.config import RankerConfig
from solution.demo.exam import EXAM
from solution.exam import Exam
from solution.inference.trained import TrainedRanker
from solution.metrics import bootstrap_interval, credit_at_k
from solution.pipeline.run import predict_folds
from solution.questions import Questions, read_questions
from solution.retrieval.contexts.build import build_views
from solution.weights import FoldRecord, deployed_folders, read_record, read_retrievals, trained_folders
from solution.workdir import Workdir

Answers = dict[str, tuple[np.ndarray, float]]
"""Who answered -> probabilities [n, options], and seconds a question."""


def held_out(workdir: Workdir) -> Questions:
    """The questions of the built-in exam that `demo` keeps for its submission, with their answers."""
    ids = set(read_questions(workdir.root / "test.csv").ids)
    exam = read_questions(EXAM)
    return exam.subset([row for row, id_ in enumerate(exam.ids) if id_ in ids])


def sets_of_weights(workdir: Workdir, ranker: str) -> dict[str, list[Path]]:
    """The folders of each kind of weights that the ranker has."""
    full = deployed_folders(workdir, ranker, "full")
    kinds = {
        "folds": trained_folders(workdir, ranker),
        "average": deployed_folders(workdir, ranker, "average"),
        "full, 1 seed": full[:1],
    }
    if len(full) > 1:
        kinds[f"full, {len(full)} seeds"] = full
    return {kind: folders for kind, folders in kinds.items() if folders}


def exams_of(questions: Questions, record: FoldRecord, workdir: Workdir) -> list[Exam]:
    """The questions as the ranker reads them, answers hidden."""
    config = RankerConfig.model_validate(record["config"])
    contexts = {
        name: build_views(questions, retrieval, config.contexts, workdir.root)
        for name, retrieval in read_retrievals(record).items()
    }
    return [exam.hidden() for exam in Exam.views(config, questions, contexts)]


def answer(name: str, exams: Sequence[Exam], folders: list[Path], workdir: Workdir) -> tuple[np.ndarray, float]:
    """The mean of the probabilities of all these weights, and the seconds a question that scoring took."""
    config = RankerConfig.model_validate(read_record(folders[0], "")["config"])
    table, seconds = predict_folds(TrainedRanker(name, config, folders), exams, workdir)
    return table, seconds / len(exams[0])


def told(name: str, answers: Answers, right: np.ndarray) -> None:
    """Print a row for each kind of weights."""
    credits = {kind: credit_at_k(table, right) for kind, (table, _) in answers.items()}
    base = credits.get("folds")
    for kind, (_, seconds) in answers.items():
        credit = credits[kind]
        low, high = bootstrap_interval(credit)
        difference = ""
        if base is not None and kind != "folds":
            from_, to = bootstrap_interval(credit - base)
            difference = f"{(credit - base).mean():+.3f} [{from_:+.3f}, {to:+.3f}]"
        print(f"| {name} | {kind} | {credit.mean():.3f} [{low:.3f}, {high:.3f}] | {difference} | {seconds:.3f} |")


def blended(by_ranker: Mapping[str, Answers]) -> Answers:
    """The mean of all rankers' probabilities for each kind of weights that they all have."""
    kinds = [kind for kind in next(iter(by_ranker.values())) if all(kind in answers for answers in by_ranker.values())]
    blend: Answers = {}
    for kind in kinds:
        parts = [answers[kind] for answers in by_ranker.values()]
        table = np.mean([table for table, _ in parts], axis=0)
        blend[kind] = table, sum(seconds for _, seconds in parts)
    return blend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--questions", type=Path, help="with answers; else the built-in exam's held-out part")
    parser.add_argument("--rankers", help="names, with commas; else all that are trained")
    arguments = parser.parse_args()
    workdir = Workdir.open(arguments.workdir)
    questions = read_questions(arguments.questions) if arguments.questions else held_out(workdir)
    questions.require_answers("this comparison")
    names = (
        arguments.rankers.split(",") if arguments.rankers else sorted(path.name for path in workdir.weights.iterdir())
    )
    print("| ranker | who answers | MAP@3 | to the folds | seconds a question |\n|---|---|---|---|---|")
    by_ranker: dict[str, Answers] = {}
    for name in names:
        folders = trained_folders(workdir, name)
        if not folders or not RankerConfig.model_validate(read_record(folders[0], "")["config"]).folds_differ:
            continue
        exams = exams_of(questions, read_record(folders[0], ""), workdir)
        kinds = sets_of_weights(workdir, name)
        by_ranker[name] = {kind: answer(name, exams, folders, workdir) for kind, folders in kinds.items()}
        told(name, by_ranker[name], questions.answers)
    if any("average" in answers for answers in by_ranker.values()):
        for answers in by_ranker.values():  # trees have no mean: beside the means of the others their folds answer
            answers.setdefault("average", answers["folds"])
    if len(by_ranker) > 1:
        told("equal weights", blended(by_ranker), questions.answers)


if __name__ == "__main__":
    main()
