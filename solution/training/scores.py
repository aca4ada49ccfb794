"""The OOF scores of the rankers that another ranker names in `signals_from`, as signals of its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.config import RankerConfig
from solution.errors import UserError
from solution.folds import exam_with_folds_hash
from solution.oof import load_oof
from solution.questions import Questions
from solution.suggestions import suggest
from solution.workdir import Workdir


@dataclass(frozen=True)
class Scores:
    """The scores of the rankers that another ranker learns from.

    Attributes:
        tables: ranker -> its OOF probabilities, float32 [n, width], in the order of the exam.
        hashes: ranker -> `Oof.parts_hash`.
        families: ranker -> its family, as its OOF parts have it.
    """

    tables: dict[str, np.ndarray]
    hashes: dict[str, str]
    families: dict[str, str]


def read_scores(config: RankerConfig, questions: Questions, folds: np.ndarray, workdir: Workdir) -> Scores | None:
    """The scores of the rankers that `signals_from` names; None where it names none.

    Args:
        folds: int [n], of the questions.

    Raises:
        UserError: OOF parts are missing, corrupt, or of other questions or folds.
    """
    if not config.signals_from:
        return None
    return read_oof_scores(config.signals_from, config.name, questions, folds, workdir)


def read_oof_scores(
    names: Sequence[str], reader: str, questions: Questions, folds: np.ndarray, workdir: Workdir
) -> Scores:
    """The OOF scores of these rankers, from which the ranker `reader` learns; see `read_scores`."""
    try:
        oof = load_oof(workdir, names)
    except UserError as error:
        raise UserError(f"{reader} learns from the scores of {', '.join(names)}: {error}") from None
    wanted = exam_with_folds_hash(questions, folds)
    for name in names:
        if oof.about[name]["questions"] != wanted:
            raise UserError(
                f"{reader} learns from the scores of {name}, whose OOF parts are of other questions or folds. "
                f"Train it again: {suggest('train_fold', '--all-folds', '--ranker', name)}"
            )
    row_of = {id_: row for row, id_ in enumerate(oof.ids)}
    rows = [row_of[id_] for id_ in questions.ids]
    return Scores(
        {name: oof.probabilities[name][rows] for name in names},
        {name: oof.parts_hash(name) for name in names},
        {name: str(oof.about[name]["family"]) for name in names},
    )
