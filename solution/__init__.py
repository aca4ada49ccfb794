"""LLM Science Exam: open-book multiple-choice questions, ranked by an ensemble that reads what it retrieves.

The names in `__all__` are the Python API (docs/api.md); everything else may change from version to version. Importing
the package loads none of it: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

import solution.noise  # noqa: F401 - silences other libraries before anything imports them, commands and notebooks alike

__version__ = "0.1.0"

# Name -> the module that has it. `exam`, `demo`, `folds`, `report` and `doctor` are modules of this package: the
# functions of these commands have longer names. Type checkers read `__init__.pyi`.
_PLACES = {
    "Answered": "solution.api.results",
    "Checked": "solution.api.whole",
    "EmbedderGain": "solution.api.results",
    "Ensemble": "solution.api.ensemble",
    "ExamTable": "solution.api.results",
    "Explanation": "solution.interactive.answers",
    "Files": "solution.api.results",
    "Gain": "solution.api.results",
    "Parts": "solution.api.results",
    "Questions": "solution.questions",
    "Ranking": "solution.api.results",
    "Reading": "solution.formats.items",
    "Rows": "solution.api.results",
    "Scores": "solution.api.results",
    "Tuned": "solution.api.results",
    "UserError": "solution.errors",
    "bundle": "solution.api.whole",
    "contexts": "solution.api.retrieval",
    "convert": "solution.api.exams",
    "evaluate": "solution.api.evaluation",
    "generate": "solution.api.exams",
    "import_oof": "solution.api.training",
    "index": "solution.api.retrieval",
    "load": "solution.api.ensemble",
    "make_folds": "solution.api.training",
    "make_report": "solution.api.training",
    "merge": "solution.api.training",
    "read_questions": "solution.api.inputs",
    "run_demo": "solution.api.whole",
    "run_doctor": "solution.api.whole",
    "run_exam": "solution.api.whole",
    "submit": "solution.api.exams",
    "train": "solution.api.training",
    "train_reranker": "solution.api.retrieval",
    "tune": "solution.api.training",
    "tune_embedder": "solution.api.retrieval",
    "tune_index": "solution.api.retrieval",
}
__all__ = ["__version__", *_PLACES]  # noqa: PLE0604 - they are texts


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
