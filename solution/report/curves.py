"""The sections on training and calibration: learning curves, and whether confidence is what it says."""

from __future__ import annotations

import math

from solution import metrics
from solution.report.charts import Forest, Mark, Panel, Panels, Point, Series, smooth
from solution.report.figures import BLEND, Figures
from solution.report.material import Curve
from solution.report.section import Section

_DRAWN = 200
"""Points of a learning curve."""


def learning_curves(figures: Figures) -> Section:
    """The loss and the validation MAP@3 of each ranker's folds by step."""
    anchor, title = "learning", "Learning curves"
    curves = figures.material.curves
    if not curves:
        return Section(anchor, title, missing=figures.material.missing["curves"])
    panels = []
    for name in [name for name in figures.material.everyone if name in curves]:
        losses = [_losses(fold, curve) for fold, curve in curves[name].items()]
        scores = [_scores(fold, curve) for fold, curve in curves[name].items() if curve.map3]
        panels.append(Panel(name, "step", "training loss", tuple(losses)))
        if any(len(series.points) > 1 for series in scores):
            panels.append(Panel(name, "step", "validation MAP@3", tuple(scores)))
    chart = Panels("learning_curves", "Learning curves", tuple(panels))
    lines = ["The loss of each step is shown as the mean over the last tenth of the run."]
    lacking = [name for name in figures.material.rankers if name not in curves]
    if lacking:
        lines.append(f"Without training, or without its log: {', '.join(lacking)}.")
    return Section(anchor, title, tuple(lines), (chart,))


def _losses(fold: int, curve: Curve) -> Series:
    """The smoothed loss of one fold, from the first whole window on, at most about `_DRAWN` points."""
    window = max(1, len(curve.loss) // 10)
    means = smooth(curve.loss, window)
    stride = math.ceil(len(means) / _DRAWN)
    steps = sorted({*range(window - 1, len(means), stride), len(means) - 1})
    return Series(f"fold {fold}", tuple(Point(step + 1, means[step]) for step in steps))


def _scores(fold: int, curve: Curve) -> Series:
    return Series(f"fold {fold}", tuple(Point(step, score, share=0.1) for step, score in sorted(curve.map3.items())))


def calibration(figures: Figures) -> Section:
    """The share of right answers by confidence, of the blend and each ranker."""
    answers = figures.answers
    tables = {BLEND: figures.material.blended}
    tables |= {name: figures.oof.probabilities[name] for name in figures.material.everyone}
    marks, panels = [], []
    for name, table in tables.items():
        # Bins of questions: mean confidence, share that is right, number of questions.
        bins = metrics.reliability(table, answers)
        confidence = sum(sure * count for sure, _, count in bins) / len(answers)
        share_right = sum(right * count for _, right, count in bins) / len(answers)
        cells = (f"{confidence:.3f}", f"{share_right:.3f}", f"{metrics.log_loss(table, answers):.3f}")
        marks.append(Mark(name, metrics.calibration_error(table, answers), cells=cells, strong=name == BLEND))
        points = tuple(Point(sure, right, share=count / len(answers)) for sure, right, count in bins)
        panels.append(Panel(name, "confidence", "right", (Series("", points),), diagonal=True, unit=True))
    heads = ("ranker", "mean confidence", "share right", "log loss")
    bars = Forest("calibration_error", "Expected calibration error", "ECE", tuple(marks), heads, (0.0, ""), bars=True)
    line = (
        "Confidence is the probability of the first option. On the dashed line it is right as often as it says; "
        "below the line it is too sure. Ten bins of equal width; the dot's area is the share of questions."
    )
    curves = Panels("calibration", "Reliability", tuple(panels), small=True)
    return Section("calibration", "Calibration", (line,), (bars, curves))
