"""The figures that several sections need: what each question earns, and MAP@3 by groups of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from solution import metrics
from solution.errors import UserError
from solution.report.charts import Forest, Mark
from solution.report.material import Material
from solution.report.section import Columns, cells, heads, shortened
from solution.retrieval.gold import Gold
from solution.tables import cell_text

BLEND = "blend"
VALUES = (2, 40)
"""How many different values a column may have to be reported by: least and most."""
_ALONGSIDE = 6
"""Rankers whose scores stand beside the blend's."""
_LABEL = 80
"""Characters of a column's value shown."""

Groups = Sequence[tuple[str, np.ndarray]]
"""Groups of questions: a label, and bool [n] that is true for the group's questions."""


class Figures:
    """The material of a report with what the sections derive from it.

    Attributes:
        record: `weights/ensemble.json`.
        answers: int64 [n], the right options.
        credits: name of the blend, a ranker or a baseline -> float64 [n], what each question earns at MAP@3.
        columns: column of the question file that is reported by -> its groups of questions.
        gold: judges passages; None where there is no question file.
        judged: the questions whose passages `gold` can judge.
        samples, seed: of the bootstrap, as `tune` had them.

    Args:
        by: columns of the question file to report by; none: every one that has 2 to 40 values.
        gold: the column that names the right passages, see `retrieval.gold.Gold`.

    Raises:
        UserError: a column is not there, or has one value or too many.
    """

    def __init__(self, material: Material, by: Sequence[str] = (), gold: str | None = None):
        self.material = material
        self.record, self.oof = material.record, material.oof
        self.answers = self.oof.answers
        self.credits = {BLEND: metrics.credit_at_k(material.blended, self.answers)}
        for name in material.everyone:
            self.credits[name] = metrics.credit_at_k(self.oof.probabilities[name], self.answers)
        self.samples: int = self.record["tune"]["bootstrap_samples"]
        self.seed: int = self.record["tune"]["seed"]
        self.columns = self._groups_by_column(by)
        self.gold = None
        if material.questions is not None:
            self.gold = Gold(material.questions, gold)
        elif gold is not None:
            raise UserError(f"--gold {gold}: {material.missing['questions']}")
        self.judged = frozenset(self.gold.rows if self.gold is not None else ())

    @property
    def by_weight(self) -> list[str]:
        """The rankers, the largest weight first."""
        weights = self.record["weights"]
        return sorted(self.material.rankers, key=lambda name: (-weights[name], name))

    def bootstrap(self, credits: np.ndarray) -> tuple[float, float]:
        """The 95 % interval of the mean of credits, float [n] of at least two questions."""
        return metrics.bootstrap_interval(credits, self.samples, seed=self.seed)

    def _groups_by_column(self, by: Sequence[str]) -> dict[str, Groups]:
        questions = self.material.questions
        if questions is None:
            if by:
                raise UserError(f"--by {by[0]}: {self.material.missing['questions']}")
            return {}
        unknown = [name for name in by if name not in questions.extra]
        if unknown:
            there = ", ".join(questions.extra) or "none"
            raise UserError(f"--by {unknown[0]}: the question file has no such column (its further columns: {there})")
        columns: dict[str, Groups] = {}
        least, most = VALUES
        for name in by or [name for name in questions.extra if name != "context"]:
            cells = [cell_text(value) or "(empty)" for value in questions.extra[name]]
            texts = np.array([shortened(cell, _LABEL) for cell in cells], dtype=object)
            values = sorted(set(texts.tolist()))
            if least <= len(values) <= most:
                columns[name] = [(value, texts == value) for value in values]
            elif by:
                raise UserError(
                    f"--by {name}: the column has {len(values)} different values; {least} to {most} can be shown"
                )
        return columns

    def by_groups(self, name: str, title: str, head: str, groups: Groups) -> Forest:
        """A table of the blend's MAP@3 in each group of questions, with that of the rankers of the largest weights.

        Args:
            name: of the PNG.
            head: of the column with the groups' labels.
        """
        blended, answers = self.material.blended, self.answers
        columns: Columns[np.ndarray] = [
            ("questions", lambda rows: f"{rows.sum():,}"),
            ("P@1", lambda rows: f"{metrics.precision_at_k(blended[rows], answers[rows], k=1):.3f}"),
            *((ranker, self._mean_credit(ranker)) for ranker in self.by_weight[:_ALONGSIDE]),
        ]
        counts = self.oof.exists.sum(axis=1)
        marks = []
        for label, rows in groups:
            credits = self.credits[BLEND][rows]
            low, high = self.bootstrap(credits) if len(credits) > 1 else (None, None)
            chance = metrics.expected_random_map(counts[rows])
            marks.append(Mark(label, float(credits.mean()), low, high, other=chance, cells=cells(columns, rows)))
        whole = (float(self.credits[BLEND].mean()), "all questions")
        return Forest(name, title, "MAP@3", tuple(marks), heads(head, columns), whole, other="random guessing")

    def _mean_credit(self, ranker: str) -> Callable[[np.ndarray], str]:
        return lambda rows: f"{self.credits[ranker][rows].mean():.3f}"
