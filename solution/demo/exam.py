"""The built-in exam: 510 questions, a part of them held out from training and tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from solution.questions import Questions, read_questions

EXAM = Path(__file__).with_name("exam.csv")
HELD_OUT = "heldout"


def read_demo_exam() -> tuple[Questions, Questions]:
    """The built-in exam's training part and its held-out part."""
    exam = read_questions(EXAM)
    held_out = np.array([part == HELD_OUT for part in exam.extra["part"]])
    return exam.subset(np.flatnonzero(~held_out)), exam.subset(np.flatnonzero(held_out))
