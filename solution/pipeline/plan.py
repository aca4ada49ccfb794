"""Decisions about an exam of your own: what is learnt from, by which rankers, in how many folds and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from solution.config import RankerConfig, Run
from solution.config_files import parse_overrides
from solution.device import choose_device
from solution.errors import UserError
from solution.folds import group_questions
from solution.generation.exam import Wish
from solution.generation.stored import StoredExam, with_fewer_options
from solution.pipeline.folder import QuestionFile
from solution.progress import say
from solution.questions import Questions
from solution.tables import cell_text
from solution.training.pretraining import PretrainingExams
from solution.workdir import Workdir

MIN_QUESTIONS = 40
"""With fewer answered questions nothing is trained on them: each fold would learn from some twenty."""
_LEAST_SCORED = 4
"""Answered questions; with fewer there are no two folds of two questions, whose OOF scores an ensemble is tuned on."""
_REMEDY = 'Give a larger corpus, a glossary ("term: definition"), or questions with answers'
_THREE_FOLDS = 60
"""From so many questions on there are three folds (or more, where the settings say so); below it two."""
_GROUP_COLUMNS = ("module", "article", "chapter", "section", "lesson", "unit", "topic", "passage", "source", "group")
"""Columns that tell what a question is about, the first that fits: its questions must not lie in several folds."""
_LARGEST_GROUP = 0.2
"""Of the questions: with a larger one in a column, folds by its groups could not be of like size."""


@dataclass(frozen=True)
class Plan:
    """What a run learns from and answers.

    Attributes:
        run: the settings, with the folds, the group column and the rankers that fit these questions.
        train: the questions to learn from.
        made: they were made from the corpus.
        test: the questions to answer; None: there are none.
        notes: sentences that the head of the report must say.
        trained: whether `train` is learnt from; False: its questions are only scored.
    """

    run: Run
    train: Questions
    made: bool
    test: QuestionFile | None
    notes: list[str]
    trained: bool = True


class NotEnough(UserError):
    """A corpus gives too few questions to learn from."""


def make_plan(
    run: Run, exam: QuestionFile | None, test: QuestionFile | None, wish: Wish, workdir: Workdir, typed: Sequence[str]
) -> Plan:
    """Decide what is learnt from: the questions of the file, or, where these are too few, questions of the corpus.

    Args:
        wish: of the questions that may be made.
        typed: names of the settings that the command line gives; these are kept as they are.

    Raises:
        UserError: there are too few questions, and the corpus gives none.
    """
    if exam is not None and len(exam.questions) >= MIN_QUESTIONS:
        return Plan(_fitted(run, exam.questions, typed), exam.questions, False, test, [])
    try:
        train = _practice(run, [file.questions for file in (exam, test) if file is not None], wish, workdir)
    except NotEnough as error:
        if exam is None:
            raise UserError(
                "the folder has no questions with answers, and at least "
                f"{_LEAST_SCORED} are needed to score the rankers that need no training: {error}. {_REMEDY}"
            ) from None
        return _untrained(run, exam.questions, test, typed, str(error))
    notes = [
        f"Learnt from {len(train)} practice questions that were made from the corpus by rules, not by a person. The "
        "scores below are scores on such questions, which are easier to find in the corpus than those of an exam: "
        "expect less of a real one."
    ]
    if exam is None:
        notes.append("The folder has no questions with answers.")
    else:
        notes.append(
            f"The {len(exam.questions)} questions of {exam.name} are too few to learn from (fewer than "
            f"{MIN_QUESTIONS})" + (". They are answered and scored instead." if test is None else ", and are not used.")
        )
    return Plan(_fitted(run, train, typed), train, True, test or exam, notes)


def _practice(run: Run, known: Sequence[Questions], wish: Wish, workdir: Workdir) -> Questions:
    """Questions made from the corpus, none of which is nearly one of those that are known.

    Raises:
        NotEnough: there are fewer than `MIN_QUESTIONS`.
    """
    prompts = [prompt for questions in known for prompt in questions.prompts]
    without = Questions([str(row) for row in range(len(prompts))], prompts, [[] for _ in prompts], _unknown(prompts))
    wish = replace(wish, without=without if prompts else None)
    try:
        made = with_fewer_options(
            lambda some: StoredExam.of(run.retrieval, some, workdir.cache).read(), wish, MIN_QUESTIONS
        )
    except UserError as error:
        raise NotEnough(str(error)) from None
    if len(made) < MIN_QUESTIONS:
        raise NotEnough(
            f"the corpus {run.retrieval.corpus} gives {len(made)} questions, and to learn from them takes "
            f"{MIN_QUESTIONS}. To practise with them nothing need be learnt: `serve --corpus FILE` shows them on a page"
        )
    if len(made) < wish.count:
        say(f"note: the corpus gives {len(made)} questions of {made.max_options} options, not {wish.count}")
    return made


def _unknown(prompts: Sequence[str]) -> np.ndarray:
    return np.full(len(prompts), -1, dtype=np.int64)


def _untrained(run: Run, few: Questions, test: QuestionFile | None, typed: Sequence[str], why: str) -> Plan:
    """A plan without training, for a few questions and a corpus of which none can be made.

    Raises:
        UserError: no ranker answers without training, or a single question cannot be parted.
    """
    rankers = [config for config in run.rankers if not config.folds_differ]
    if len(few) < _LEAST_SCORED or not any(config.role == "ranker" for config in rankers):
        raise UserError(f"{len(few)} questions with answers are too few to learn from, and {why}. {_REMEDY}")
    left_out = ", ".join(config.name for config in run.rankers if config.folds_differ)
    say(f"note: {why}")
    notes = [
        f"Nothing was trained: {len(few)} questions with answers are too few (fewer than {MIN_QUESTIONS}), and the "
        "corpus gives no others. Only rankers that need no training answer"
        + (f"; left out: {left_out}." if left_out else ".")
    ]
    return Plan(_fitted(_with_rankers(run, rankers), few, typed), few, False, test, notes, trained=False)


# --- rankers -------------------------------------------------------------------------------


def rankers_for(run: Run) -> tuple[Run, list[str]]:
    """The settings without the rankers that are slow here: language models where there is no GPU.

    Returns:
        The settings, and the names of the rankers left out.
    """
    if choose_device().kind == "cuda":
        return run, []
    slow = [config.name for config in run.rankers if config.has_model and config.generative]
    return _with_rankers(run, [config for config in run.rankers if config.name not in slow]), slow


def without_vain_pretraining(run: Run, train: Questions, workdir: Workdir) -> Run:
    """The settings without a pretraining on generated questions of which the corpus gives too few."""
    exams = PretrainingExams(run.retrieval, train, workdir)
    rankers = []
    for config in run.rankers:
        if config.pretraining is not None and config.pretraining.is_generated:
            try:
                count, why = len(exams.of(config.pretraining)), ""
            except UserError as error:
                count, why = 0, f": {error}"
            if count < MIN_QUESTIONS:
                say(f"note: {config.name} is not pretrained, since the corpus gives {count} questions for it{why}")
                config = config.model_copy(update={"pretraining": None})
        rankers.append(config)
    return run.model_copy(update={"rankers": rankers})


def _with_rankers(run: Run, rankers: Sequence[RankerConfig]) -> Run:
    """The settings with these of their rankers alone; the others' scores are no signals and no soft labels either."""
    names = [config.name for config in rankers]
    groups = {group: kept for group, of in run.ensemble.groups.items() if len(kept := _those(of, names)) > 1}
    listed = {"rankers": _those(names, run.ensemble.rankers), "groups": groups}
    left = []
    for config in rankers:
        changes: dict[str, Any] = {"signals_from": _those(config.signals_from, names)}
        if set(config.teachers) & {other.name for other in run.rankers} - set(names):
            changes["training"] = config.training.model_copy(update={"soft_labels": None})
        left.append(config.model_copy(update=changes))
    return run.model_copy(update={"rankers": left, "ensemble": run.ensemble.model_copy(update=listed)})


def _those(names: Sequence[str], among: Sequence[str]) -> list[str]:
    return [name for name in names if name in among]


def typed_names(overrides: Sequence[str]) -> list[str]:
    """The dotted names of the settings on a command line."""
    return [".".join(path) for path, _ in parse_overrides(overrides)]


# --- folds ---------------------------------------------------------------------------------


def _fitted(run: Run, train: Questions, typed: Sequence[str]) -> Run:
    """The settings with as many folds as suit the questions, and the group column that they have."""
    changes: dict[str, Any] = {}
    if "ensemble.folds" not in typed:
        changes["folds"] = run.ensemble.folds if len(train) >= _THREE_FOLDS else 2
    folds = changes.get("folds", run.ensemble.folds)
    if "ensemble.group_column" not in typed:
        changes["group_column"] = _group_column(train, run.ensemble.group_column, folds, run.ensemble.near_duplicate)
    return run.model_copy(update={"ensemble": run.ensemble.model_copy(update=changes)})


def _group_column(train: Questions, set_: str | None, folds: int, near_duplicate: float) -> str | None:
    """The column by which the folds are parted: that of the settings where it is there, else one that fits."""
    columns = {name.strip().lower(): name for name in reversed(train.extra)}
    for name in ([set_] if set_ in train.extra else []) + [columns[key] for key in _GROUP_COLUMNS if key in columns]:
        if not any(cell_text(value) for value in train.extra[name]):
            continue
        sizes = np.bincount(group_questions(train, name, near_duplicate))
        if len(sizes) >= 3 * folds and sizes.max() <= _LARGEST_GROUP * len(train):
            return name
    return None
