"""Answers that another program made, put into the OOF store."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from solution import oof
from solution.answers_file import read_answers
from solution.config import RANKER_NAME
from solution.errors import UserError
from solution.files import file_hash
from solution.folds import exam_with_folds_hash
from solution.questions import Questions
from solution.workdir import Workdir


def import_oof(
    name: str, path: Path, questions: Questions, folds: np.ndarray, count: int, workdir: Workdir, normalize: bool
) -> np.ndarray:
    """Put another program's out-of-fold answers into the OOF store as those of the ranker `name`.

    Args:
        folds: int [n], the exam's folds.
        count: how many folds.

    Returns:
        The probabilities, float32 [n, max_options].

    Raises:
        UserError: see `read_answers`; or the name is not usable or taken by a ranker that was trained here.
    """
    if not re.fullmatch(RANKER_NAME, name):
        raise UserError(f"--name {name!r}: use small letters, digits, _ and - (at most 64)")
    questions.require_answers("import-oof")
    stored = _stored_parts(workdir, name)
    if stored and not is_imported(workdir, name):
        raise UserError(f"{workdir.oof / name} holds the OOF files of a ranker trained here; give another --name")
    table = read_answers(path, questions, normalize, folds)
    about = {
        "ranker": name,
        "family": oof.IMPORTED,
        "role": "ranker",
        "folds": count,
        "questions": exam_with_folds_hash(questions, folds),
        "contexts": "none",
        "config": file_hash(path),
    }
    for earlier in stored:
        earlier.unlink()
    for fold in range(count):
        rows = np.flatnonzero(folds == fold)
        oof.write_oof(workdir.oof_part(name, fold), questions.subset(rows), table[rows], about | {"fold": fold})
    return table


def is_imported(workdir: Workdir, name: str) -> bool:
    """True for a ranker whose OOF files another program made."""
    parts = _stored_parts(workdir, name)
    return bool(parts) and oof.read_about(parts[0]).get("family") == oof.IMPORTED


def _stored_parts(workdir: Workdir, name: str) -> list[Path]:
    return sorted((workdir.oof / name).glob("fold_*.parquet"))
