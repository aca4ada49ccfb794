"""LLM Science Exam: open-book multiple-choice questions, ranked by an ensemble that reads what it retrieves.

The names in `__all__` are the Python API (docs/api.md); everything else may change from version to version. Importing
the package loads none of it: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> the module that has it. `exam`, `demo`, `folds`, `report` and `doctor` are modules of this package: the
# functions of these commands have longer names. Type checkers read `__init__.pyi`.
_PLACES = {
    "Ensemble": "solution.api.ensemble",
    "Explanation": "solution.interactive.answers",
    "Questions": "solution.questions",
    "Ranking": "solution.api.results",
    "Scores": "solution.api.results",
    "UserError": "solution.errors",
    "evaluate": "solution.api.evaluation",
    "load": "solution.api.ensemble",
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
