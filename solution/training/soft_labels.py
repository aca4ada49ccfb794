"""Soft labels (`training.soft_labels`): a teacher's probabilities as a part of what a ranker is to say.

Which probabilities are safe? A student that leaves fold k out learns from questions of the other folds. The teacher's
OOF probabilities of such a question, in fold j, come from a training on all folds but j, fold k among them. The teacher
has seen the answers of fold k, and what it says of fold j depends on them: which letter is right how often, which
subjects are asked for, facts that both folds share. The student would be scored on answers that it has been told in a
roundabout way. It is the leak of stacking (`training.nested`), and the cure is the same: the student that leaves fold k
out is taught fold j by teachers that left out both. That takes K (K - 1) / 2 further trainings of the teacher, shared
with the rankers that read its scores by `signals_from`. (The teacher of fold k alone would do without them, but it was
trained on fold j, and says of these questions little more than their right answers.) A teacher that is not trained has
nothing to tell. With `--full` no fold is scored, and the OOF probabilities are taken as they are.

Of an imported ranker or a file nothing tells what it was trained on, and it cannot be trained again: it is refused
unless the settings say that it is `independent` of the exam.

A teacher that itself learns from other rankers' scores or soft labels would need trainings without every three folds,
and is refused; so is a ranker with a trained teacher as a source of `signals_from`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from solution.answers_file import read_answers
from solution.config import RankerConfig, Run
from solution.errors import UserError
from solution.files import content_hash
from solution.oof import IMPORTED, read_about
from solution.questions import Questions, joined
from solution.suggestions import suggest
from solution.training.extra import ExtraFiles, extra_questions
from solution.training.scores import read_oof_scores
from solution.weights import read_record
from solution.workdir import Workdir


@dataclass(frozen=True)
class Teacher:
    """A teacher's probabilities, NaN in the rows of questions of which it has none.

    Attributes:
        table: float32 [n, width], of the exam; of a ranker its OOF probabilities.
        extra: float32 [m, width], of the training-only questions; None: it has none of them.
        key: a hash of what it says.
        trained: its name, where it was trained here on this exam.
    """

    table: np.ndarray
    extra: np.ndarray | None
    key: str
    trained: str | None = None


def check_teachers(run: Run, questions: Questions, files: ExtraFiles, workdir: Workdir) -> None:
    """Raise one `UserError` for the teachers of all rankers, before any is trained."""
    problems = []
    for config in run.rankers:
        try:
            _check_sources(config, run, workdir)
            if config.teachers:
                _check_ranker(config, run, workdir)
            elif config.training.soft_labels is not None:
                _of_file(config, questions, files)
        except UserError as error:
            problems += [f"{config.name}: {problem}" for problem in error.problems]
    if problems:
        raise UserError.join(problems, "rankers cannot learn from others")


def _check_sources(config: RankerConfig, run: Run, workdir: Workdir) -> None:
    for name in config.signals_from:
        source = _settings_of(name, run, workdir)
        if source is not None and source.teachers:
            raise UserError(
                f"signals_from names {name}, which learns from {source.teachers[0]} (training.soft_labels): name "
                "rankers without a teacher of this folder"
            )


def _check_ranker(config: RankerConfig, run: Run, workdir: Workdir) -> None:
    (name,), soft = config.teachers, config.training.soft_labels
    assert soft is not None
    teacher = _settings_of(name, run, workdir)
    if teacher is None:
        part = next(iter(sorted((workdir.oof / name).glob("fold_*.parquet"))), None)
        if part is None or read_about(part).get("family") != IMPORTED:
            raise UserError(
                f"training.soft_labels.from names {name}, which is no ranker of these settings or of {workdir.oof}. "
                f"Train it first: {suggest('train_fold', '--all-folds', '--ranker', name)}"
            )
        if not soft.independent:
            raise UserError(_unknown(f"the imported ranker {name}"))
    elif teacher.signals_from or teacher.training.soft_labels is not None:
        raise UserError(
            f"training.soft_labels.from names {name}, which learns from other rankers itself: name one without "
            "signals_from and soft_labels"
        )


def _unknown(what: str) -> str:
    return (
        f"training.soft_labels: nothing tells whether {what} was trained on questions of this exam, whose answers "
        "would reach the scores of their own folds. If it was on none, set training.soft_labels.independent=true; else "
        "train it here, and name it"
    )


def _settings_of(name: str, run: Run, workdir: Workdir) -> RankerConfig | None:
    """The settings of a ranker of the run, or else of one that is trained in the folder; None: there is none."""
    own = next((config for config in run.rankers if config.name == name), None)
    if own is not None or not workdir.fold_weights(name, 0).is_dir():
        return own
    record = read_record(workdir.fold_weights(name, 0), "Train that fold again.")
    return RankerConfig.model_validate(record["config"])


def read_teacher(
    config: RankerConfig, questions: Questions, folds: np.ndarray, files: ExtraFiles, workdir: Workdir
) -> Teacher | None:
    """The teacher that a ranker's soft labels come from; None without soft labels.

    Args:
        folds: int [n], of the questions.

    Raises:
        UserError: OOF parts are missing, corrupt, or of other questions or folds; or see `read_answers`.
    """
    if config.training.soft_labels is None:
        return None
    if not config.teachers:
        return _of_file(config, questions, files)
    (name,) = config.teachers
    scores = read_oof_scores([name], config.name, questions, folds, workdir)
    imported = scores.families[name] == IMPORTED
    return Teacher(scores.tables[name], None, scores.hashes[name], None if imported else name)


def _of_file(config: RankerConfig, questions: Questions, files: ExtraFiles) -> Teacher:
    """The teacher whose probabilities are in a file.

    An id that both the exam and a file of training-only questions have means the exam's question, and one that several
    such files have means the first one's.
    """
    soft = config.training.soft_labels
    assert soft is not None
    if not soft.independent:
        raise UserError(_unknown(soft.teacher))
    parts = [questions]
    if config.training.extra:
        extra, _ = extra_questions(config, files)
        parts.append(replace(extra, ids=_own_ids(extra.ids, set(questions.ids))))
    table = read_answers(Path(soft.teacher), joined(parts), is_part=True)
    own, more = table[: len(questions)], table[len(questions) :]
    return Teacher(own, more if len(parts) > 1 else None, content_hash(own.tobytes(), more.tobytes()))


def _own_ids(ids: Sequence[str], known: set[str]) -> list[str]:
    """The ids of training-only questions as their files have them; one that is known already keeps its mark."""
    own = []
    for id_ in ids:
        plain = id_.partition(":")[2]
        own.append(id_ if plain in known else plain)
        known.add(plain)
    return own
