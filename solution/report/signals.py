"""The section on rankers that learn from signals: what each signal is worth alone, and how much it is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from solution.report.charts import Forest, Mark
from solution.report.figures import Figures
from solution.report.section import Columns, Section, cells, heads

_Signal = dict[str, float]
"""`map3`: of the options in the order of the signal alone; `trees`, `linear`: shares of the importance."""


def signals(figures: Figures) -> list[Section]:
    """A section for each ranker that learns from signals; none where there is no such ranker."""
    sections = []
    for name in figures.material.everyone:
        folds = [fold for fold in figures.material.facts.get(name, []) if fold.get("signals")]
        if folds:
            sections.append(_section(figures, name, folds))
    return sections


def _section(figures: Figures, ranker: str, folds: list[dict[str, Any]]) -> Section:
    every = _means(folds)
    columns: Columns[_Signal] = [
        ("in the trees", lambda signal: _share(signal, "trees")),
        ("in the linear model", lambda signal: _share(signal, "linear")),
    ]
    marks = [
        Mark(name, signal["map3"], cells=cells(columns, signal))
        for name, signal in sorted(every.items(), key=lambda item: -item[1]["map3"])
    ]
    chance = next(row for row in figures.record["table"] if row["kind"] == "random")
    chart = Forest(
        name=f"signals_{ranker}",
        title=f"MAP@3 of each signal that {ranker} learns from",
        axis="MAP@3",
        marks=tuple(marks),
        heads=heads("signal", columns),
        reference=(chance["map3"], "random guessing"),
    )
    line = (
        "MAP@3 of the options in the order of one signal alone, the highest first; nothing is learnt for it. The "
        "shares say how much of what the trees' splits gain, and of the linear model's absolute coefficients, falls on "
        "a signal in all of its forms (as it is, standardised in its question, as a rank, as the distance to the best "
        "other). Signals that say the same share their importance."
    )
    return Section(f"signals-{ranker}", f"Signals of {ranker}", (line,), (chart,))


def _means(folds: list[dict[str, Any]]) -> dict[str, _Signal]:
    """Name of a signal -> its figures, the mean over the folds by their questions."""
    names = list(dict.fromkeys(name for fold in folds for name in fold["signals"]))
    means: dict[str, _Signal] = {}
    for name in names:
        found = [(fold["signals"][name], fold["questions"]) for fold in folds if name in fold["signals"]]
        weights = [questions for _, questions in found]
        means[name] = {
            key: float(np.average([signal[key] for signal, _ in found], weights=weights))
            for key in ("map3", "trees", "linear")
            if all(key in signal for signal, _ in found)
        }
    return means


def _share(signal: _Signal, model: str) -> str:
    return f"{signal[model]:.1%}" if model in signal else ""
