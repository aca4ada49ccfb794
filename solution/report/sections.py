"""The sections of the report in the order of the page. A new section is a function of `Figures` and a line here."""

from __future__ import annotations

from collections.abc import Callable

from solution.report import blend, curves, groups, signals, worst
from solution.report.figures import Figures
from solution.report.section import Section

SECTIONS: tuple[Callable[[Figures], Section | list[Section]], ...] = (
    blend.scores,
    blend.choice,
    blend.weights,
    blend.added,
    blend.correlation,
    curves.learning_curves,
    curves.calibration,
    groups.confidence,
    groups.folds,
    groups.subjects,
    groups.option_counts,
    groups.read_alike,
    blend.cascade,
    groups.retrieval,
    signals.signals,
    worst.worst,
)


def all_sections(figures: Figures) -> list[Section]:
    """Every section, also those that have nothing to show and say why (see `Section.missing`)."""
    sections: list[Section] = []
    for build in SECTIONS:
        built = build(figures)
        sections += built if isinstance(built, list) else [built]
    return sections
