"""Training-only questions (`training.extra`): read, weighed, and kept away from the folds whose answers they tell."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solution.config import MOST_WEIGHT, EnsembleConfig, ExtraQuestions, RankerConfig, Run
from solution.errors import UserError
from solution.exam import Exam, Supervision, context_key, is_question
from solution.files import content_hash
from solution.folds import group_questions
from solution.formats.items import Reading
from solution.formats.names import CONTEXTS, key_of
from solution.progress import say
from solution.questions import Questions, joined, read_questions
from solution.retrieval.contexts.build import build_views
from solution.tables import cell_text, shown
from solution.workdir import Workdir

WEIGHT = "weight"
"""The column of a file of training-only questions that says how much each counts."""


@dataclass(frozen=True)
class ExtraExam:
    """A ranker's training-only questions, m of them.

    Attributes:
        exam: with the contexts that the ranker is trained on, and the questions' weights.
        near: bool [m, folds], true where a question of the fold is the same or nearly the same, or shares a context.
        key: a hash of questions, weights and contexts.
    """

    exam: Exam
    near: np.ndarray
    key: str

    def without(self, left_out: Collection[int], soft: np.ndarray | None = None) -> Exam:
        """The questions of a training that leaves these folds out.

        Args:
            soft: a teacher's probabilities, float32 [m, width].
        """
        supervision = self.exam.supervision
        assert supervision is not None
        exam = self.exam if soft is None else replace(self.exam, supervision=replace(supervision, teacher=soft))
        return exam.subset(np.flatnonzero(~self.near[:, sorted(left_out)].any(axis=1)))


class ExtraFiles:
    """The files of training-only questions of a command, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, Questions] = {}

    def of(self, settings: ExtraQuestions) -> Questions:
        """The questions of a file that count for something.

        Raises:
            UserError: it cannot be read, or lacks answers, or a weight is not a number from 0 to `MOST_WEIGHT`.
        """
        reading = settings.model_dump(exclude={"weight"})
        key = content_hash(reading)
        if key not in self._read:
            name = reading.pop("questions")
            questions = read_questions(Path(name), reading=Reading(**reading))
            questions.require_answers(f"training.extra ({name})")
            counting = _row_weights(questions, name) > 0
            if not counting.any():
                raise UserError(f"{name}: the weight of every question is 0")
            self._read[key] = questions.subset(counting)
        return self._read[key]

    def check(self, run: Run) -> None:
        """Raise one `UserError` for the files of all rankers, before anything is made, retrieved or loaded."""
        problems = []
        for config in run.rankers:
            for settings in config.training.extra:
                try:
                    questions = self.of(settings)
                    reads = run.reads(config).values()
                    if any(each.source == "column" for each in reads) and "context" not in questions.extra:
                        raise UserError(
                            f"retrieval.source is column, and {settings.questions} has no column 'context': name it "
                            "(columns: {context: ...}), or leave the file out"
                        )
                except UserError as error:
                    problems.append(f"{config.name}: training.extra: {error}")
        if problems:
            raise UserError.join(problems, "training.extra cannot be used")


def _row_weights(questions: Questions, name: str) -> np.ndarray:
    """The column `weight` of a file, float64 [m], 1 where it is empty or missing.

    Raises:
        UserError: a cell is not a number from 0 to `MOST_WEIGHT`.
    """
    weights = np.ones(len(questions))
    for row, cell in enumerate(map(cell_text, questions.extra.get(WEIGHT, []))):
        try:
            weights[row] = float(cell or 1)
        except ValueError:
            weights[row] = np.nan
    wrong = np.flatnonzero(~((weights >= 0) & (weights <= MOST_WEIGHT)))
    if len(wrong):
        cell = cell_text(questions.extra[WEIGHT][wrong[0]])
        raise UserError(
            f"{name}: the column {WEIGHT} must hold numbers from 0 to {MOST_WEIGHT:,.0f}, and holds {shown(cell)!r} "
            f"(id {questions.ids[wrong[0]]}, {len(wrong)} rows)"
        )
    return weights


def extra_questions(config: RankerConfig, files: ExtraFiles) -> tuple[Questions, np.ndarray]:
    """A ranker's training-only questions of all files, their ids made distinct, and their weights, float64 [m]."""
    parts, weights = [], []
    for number, settings in enumerate(config.training.extra):
        questions = files.of(settings)
        parts.append(replace(questions, ids=[f"extra{number}:{id_}" for id_ in questions.ids]))
        weights.append(settings.weight * _row_weights(questions, settings.questions))
    return joined(parts), np.concatenate(weights)


def folds_near(extra: Questions, exam: Questions, folds: np.ndarray, ensemble: EnsembleConfig) -> np.ndarray:
    """In which folds a question stands that must share a fold with a training-only one, bool [m, folds].

    They are the questions with which `group_questions` would group it in one exam of both: those that are the same or
    nearly the same, those of the same context (unless `group_column` is `none`), and those of the same value in
    `group_column`. Groups chain, as there.

    Args:
        folds: int [n], of the exam.
    """
    both = joined([_comparable(exam), _comparable(extra)])
    groups = group_questions(both, ensemble.group_column, ensemble.near_duplicate, ensemble.folds, contexts_too=True)
    held = np.zeros((groups.max() + 1, ensemble.folds), dtype=bool)
    held[groups[: len(exam)], folds] = True
    near: np.ndarray = held[groups[len(exam) :]]
    return near


def _comparable(questions: Questions) -> Questions:
    """The questions with columns of contexts under names that are the same in all files (`Article`, `article`)."""
    columns: dict[str, list[object]] = {}
    for name, values in questions.extra.items():
        key = key_of(name)
        columns.setdefault(key if key in ("context", *CONTEXTS) else name, values)
    return replace(questions, extra=columns)


def prepare_extra(
    run: Run, exam: Questions, folds: np.ndarray, workdir: Workdir, files: ExtraFiles
) -> dict[str, ExtraExam]:
    """The training-only questions of the rankers that have some, by ranker, with their contexts. What must not be used
    is counted and told.

    Args:
        folds: int [n], of the exam.

    Raises:
        UserError: see `ExtraFiles.of` and `build_views`.
    """
    found = {}
    near_of: dict[str, np.ndarray] = {}
    for config in run.rankers:
        if not config.training.extra:
            continue
        questions, weights = extra_questions(config, files)
        place = content_hash([settings.model_dump(exclude={"weight"}) for settings in config.training.extra])
        if place not in near_of:
            near_of[place] = folds_near(questions, exam, folds, run.ensemble)
        near = near_of[place]
        say(told(config, questions, near))
        parts = [_with_contexts(config, run, files.of(settings), workdir) for settings in config.training.extra]
        whole = parts[0][0]
        for part, _ in parts[1:]:
            whole = whole.followed_by(part)
        supervision = Supervision.of(len(weights), weights, is_extra=True)
        wording = [is_question(whole, row) for row in range(len(whole))]
        contexts = [key for _, key in parts]
        key = content_hash(questions.content_hash(), weights.tobytes(), contexts, wording, near.tobytes())
        found[config.name] = ExtraExam(replace(whole, questions=questions, supervision=supervision), near, key)
    return found


def _with_contexts(config: RankerConfig, run: Run, questions: Questions, workdir: Workdir) -> tuple[Exam, str]:
    """The questions of one file with the contexts that the ranker is trained on, and a name of these contexts."""
    reads, first = run.reads(config), config.model_copy(update={"contexts": config.contexts[:1]})
    if not config.learns_signals:  # with several contexts it is trained on the first
        reads = dict(list(reads.items())[:1])
    contexts = {name: build_views(questions, each, first.contexts, workdir.root) for name, each in reads.items()}
    keys = [views[view].key for views in contexts.values() for view in first.contexts] or ["none"]
    return Exam.views(first, questions, contexts)[0], context_key(keys)


def told(config: RankerConfig, questions: Questions, near: np.ndarray) -> str:
    """A line on a ranker's training-only questions.

    Args:
        near: bool [m, folds].
    """
    names = ", ".join(settings.questions for settings in config.training.extra)
    rows = np.flatnonzero(near.any(axis=1))
    text = f"{config.name} trains on {len(questions)} questions of {names} too"
    if not len(rows):
        return f"{text}; none of them repeats a question of the exam"
    first = questions.ids[rows[0]].partition(":")[2]
    return (
        f"{text}; {len(rows)} of them (first: id {first}) repeat a question of the exam, nearly or by their context, "
        "and are left out of every training that leaves this question out"
    )
