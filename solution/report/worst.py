"""The section on the worst questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solution import metrics
from solution.questions import LETTERS, Questions
from solution.report.figures import BLEND, Figures
from solution.report.material import Read
from solution.report.section import Section, ShownPassage, Worst, listed, shortened
from solution.tables import cell_text

WORST = 20
"""Questions shown."""
EXCERPT = 400
"""Characters of a passage shown."""
_PROMPT = 3000
"""Characters of a prompt or an option shown."""


def worst(figures: Figures) -> Section:
    """The questions to whose right option the blend gives the lowest probability, with all that was said and read."""
    anchor, title = "worst", "The worst questions"
    material = figures.material
    if material.questions is None:
        return Section(anchor, title, missing=material.missing["questions"])
    right = material.blended[np.arange(len(figures.answers)), figures.answers]
    rows = np.argsort(right, kind="stable")[:WORST].tolist()
    lines = [
        f"The {len(rows)} questions to whose right option the blend gives the lowest probability, the lowest "
        "first. Often the key, the question or the retrieval is at fault, and not the rankers."
    ]
    if not material.reads:
        lines.append(f"Without contexts: {material.missing['contexts']}.")
    shown = tuple(_question(figures, material.questions, row) for row in rows)
    return Section(anchor, title, tuple(lines), worst=shown)


def _question(figures: Figures, questions: Questions, row: int) -> Worst:
    material, oof = figures.material, figures.oof
    existing = np.flatnonzero(oof.exists[row]).tolist()
    tables = {BLEND: material.blended} | {name: oof.probabilities[name] for name in material.everyone}
    return Worst(
        facts=_facts(figures, questions, row),
        prompt=shortened(questions.prompts[row], _PROMPT),
        options=tuple((LETTERS[option], shortened(questions.options[row][option], _PROMPT)) for option in existing),
        right=LETTERS[int(figures.answers[row])],
        rows=tuple((name, tuple(float(table[row, option]) for option in existing)) for name, table in tables.items()),
        contexts=tuple((listed(read.rankers), _passages(figures, read, row)) for read in material.reads),
    )


def _facts(figures: Figures, questions: Questions, row: int) -> tuple[tuple[str, str], ...]:
    counts = metrics.places(figures.material.blended[[row]], figures.answers[[row]])
    above, tied = (int(count[0]) for count in counts)
    place = f"{above + 1} to {above + 1 + tied}" if tied else f"{above + 1}"
    return (
        ("id", questions.ids[row]),
        ("fold", str(int(figures.oof.folds[row]))),
        *((name, cell_text(questions.extra[name][row])) for name in figures.columns),
        ("place of the right option", place),
    )


def _passages(figures: Figures, read: Read, row: int) -> tuple[ShownPassage, ...]:
    passages = read.contexts.passages[row]
    judged: Sequence[bool | None] = [None] * len(passages)
    if figures.gold is not None and row in figures.judged:
        judged = figures.gold.hits(row, passages)
    return tuple(
        ShownPassage(passage.title, shortened(passage.text, EXCERPT), right)
        for passage, right in zip(passages, judged, strict=True)
    )
