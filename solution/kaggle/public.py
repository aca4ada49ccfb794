"""Kaggle's public run: "Save and run all" shows a kernel only the competition's public questions, the rerun all.

An answer to the public questions counts for nothing once the competition's own questions are scored, and hours of a GPU
would be spent on it. So a run on them proves every ranker on a sample. The questions are known by their content: a file
with as many questions, one of them changed, gets the full run.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from solution.files import content_hash
from solution.questions import Questions, read_questions

PROVEN = 20
"""How many questions every ranker reads in a public run."""
# Kaggle sets it in the run that it scores. Whatever the questions are then, their answers count.
_RERUN = "KAGGLE_IS_COMPETITION_RERUN"


def read_public(path: Path) -> Questions:
    """The questions of a competition's test.csv, read as a submission reads them: rows that are wrong are mended.

    Raises:
        UserError: see `read_questions`.
    """
    return read_questions(path, [])


def public_hash(questions: Questions) -> str:
    """A hash of ids, prompts and options, the same however the file is written.

    The order of rows and columns, other columns, the ends of lines, quotes and the form of the table do not matter.
    """
    same = replace(
        questions,
        prompts=[_with_unix_lines(text) for text in questions.prompts],
        options=[[_with_unix_lines(text) for text in options] for options in questions.options],
    )
    return content_hash("public questions", same.content_hash(with_answers=False))


def _with_unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sample_to_prove(questions: Questions, known_hash: str | None) -> np.ndarray | None:
    """The questions that every ranker reads in a public run, bool [n]; None: this is none, and all of them are read.

    Half of the sample are the longest questions, which take the most memory; the others are spread over the file.

    Args:
        known_hash: `public_hash` of the competition's public questions; None: not known.
    """
    if known_hash is None or os.environ.get(_RERUN) or public_hash(questions) != known_hash:
        return None
    lengths = questions.option_lengths().sum(axis=1) + [len(prompt) for prompt in questions.prompts]
    chosen = np.zeros(len(questions), dtype=bool)
    chosen[np.argsort(-lengths, kind="stable")[: PROVEN // 2]] = True
    others = np.flatnonzero(~chosen)
    spread = np.linspace(0, len(others) - 1, min(len(others), PROVEN - int(chosen.sum()))).round().astype(int)
    chosen[others[spread]] = True
    return chosen
