"""The sections that show MAP@3 by groups of questions: confidence, folds, subjects, options, retrieval."""

from __future__ import annotations

import re

import numpy as np

from solution.rankers.alike import Alike
from solution.report.charts import Forest, Mark
from solution.report.figures import VALUES, Figures
from solution.report.material import Read
from solution.report.section import Section, listed
from solution.retrieval.gold import DEPTHS, Gold, judge

_QUANTILES = 5


def confidence(figures: Figures) -> Section:
    """MAP@3 by fifths of the questions, by the margin between the blend's first and second option."""
    highest = np.sort(np.where(figures.oof.exists, figures.material.blended, 0.0), axis=1)
    margin = highest[:, -1] - highest[:, -2]
    order = np.argsort(margin, kind="stable")
    groups = []
    for number, part in enumerate(np.array_split(order, min(_QUANTILES, len(order))), 1):
        rows = np.zeros(len(order), dtype=bool)
        rows[part] = True
        groups.append((f"{number}: margin {margin[part].min():.3f} to {margin[part].max():.3f}", rows))
    chart = figures.by_groups("by_confidence", "MAP@3 by the blend's margin", "fifth of the questions", groups)
    line = (
        "The margin is the blend's probability of its first option less that of its second, the least sure fifth "
        "of the questions first. The steeper this rises, the more a cascade can save."
    )
    return Section("confidence", "MAP@3 by confidence", (line,), (chart,))


def folds(figures: Figures) -> Section:
    """MAP@3 of each fold."""
    groups = [(f"fold {fold}", figures.oof.folds == fold) for fold in sorted(set(figures.oof.folds.tolist()))]
    return Section("folds", "MAP@3 by fold", (), (figures.by_groups("by_fold", "MAP@3 by fold", "fold", groups),))


def subjects(figures: Figures) -> list[Section]:
    """A section for each column that is reported by."""
    anchor, title = "subjects", "MAP@3 by subject"
    if figures.material.questions is None:
        return [Section(anchor, title, missing=figures.material.missing["questions"])]
    if not figures.columns:
        least, most = VALUES
        return [Section(anchor, title, missing=f"the question file has no further column of {least} to {most} values")]
    sections = []
    for number, (name, groups) in enumerate(figures.columns.items(), 1):
        file_name = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "column"
        chart = figures.by_groups(f"by_column_{number}_{file_name}"[:80], f"MAP@3 by {name}", name, groups)
        sections.append(Section(f"subject-{number}", f"MAP@3 by {name}", (), (chart,)))
    return sections


def option_counts(figures: Figures) -> Section:
    """MAP@3 by the number of options that a question has."""
    anchor, title = "options", "MAP@3 by number of options"
    counts = figures.oof.exists.sum(axis=1)
    values = sorted(set(counts.tolist()))
    if len(values) < 2:
        return Section(anchor, title, missing=f"every question has {values[0]} options")
    groups = [(f"{value} options", counts == value) for value in values]
    return Section(anchor, title, (), (figures.by_groups("by_options", title, "options", groups),))


def read_alike(figures: Figures) -> list[Section]:
    """MAP@3 where a ranker cannot tell options apart; no section where every ranker can."""
    title = "Options that a ranker cannot tell apart"
    ids, groups = figures.oof.ids, []
    examples = []
    for name in figures.material.everyone:
        alike: Alike = {}
        for fold in figures.material.facts.get(name, []):
            alike |= fold.get("options_read_alike", {})
        rows = np.array([id_ in alike for id_ in ids])
        if rows.any():
            groups.append((name, rows))
            first = ids[int(np.argmax(rows))]
            examples.append(f"{name}: question {first}, options {', '.join(alike[first][0])}")
    if not groups:
        return []
    chart = figures.by_groups("options_read_alike", f"MAP@3 by {title.lower()}", "questions of", groups)
    line = (
        "In these questions different options are the same tokens to a ranker, as AA and Aa are to an uncased "
        "tokenizer. It orders them by retrieval's option scores, by the passages that hold an option as it is written, "
        f"then by length. The first of each ranker: {'; '.join(examples)}."
    )
    return [Section("alike", title, (line,), (chart,))]


def retrieval(figures: Figures) -> Section:
    """The recall of the stored contexts, and MAP@3 with and without a right passage."""
    anchor, title = "retrieval", "Retrieval"
    gold, material = figures.gold, figures.material
    if gold is None or not material.reads:
        return Section(anchor, title, missing=material.missing.get("contexts") or material.missing["questions"])
    charts = []
    for number, read in enumerate(material.reads, 1):
        suffix = "" if number == 1 else f"_{number}"
        charts += [_recall(gold, read, suffix), _by_retrieval(figures, gold, read, suffix)]
    line = (
        f"Right: {gold.name}; {len(gold.rows):,} of {len(figures.answers):,} questions can be judged. Recall@k is the "
        "share of them with a right passage among the first k."
    )
    return Section(anchor, title, (line,), tuple(charts))


def _recall(gold: Gold, read: Read, suffix: str) -> Forest:
    """Recall at the depths that some question reaches, and the MRR."""
    passages = read.contexts.passages
    deepest = max([1, *map(len, passages)])
    scores = judge(gold, passages)
    labels = {f"recall@{k}": f"recall@{k}" for k in DEPTHS if k <= deepest}
    labels[f"mrr@{DEPTHS[-1]}"] = f"MRR@{min(deepest, DEPTHS[-1])}"
    marks = tuple(Mark(label, *scores[name]) for name, label in labels.items())
    title = f"Recall in {_readers(read)}"
    return Forest(f"retrieval{suffix}", title, "share of questions", marks, ("measure",), form="{:.3f}")


def _by_retrieval(figures: Figures, gold: Gold, read: Read, suffix: str) -> Forest:
    """MAP@3 where a right passage was read, and where none was."""
    judged = np.zeros(len(figures.answers), dtype=bool)
    judged[gold.rows] = True
    hit = np.zeros(len(figures.answers), dtype=bool)
    hit[gold.rows] = [any(gold.hits(row, read.contexts.passages[row])) for row in gold.rows]
    pairs = [("a right passage was found", judged & hit), ("none was found", judged & ~hit)]
    groups = [(label, rows) for label, rows in pairs if rows.any()]
    title = f"MAP@3 by whether {_readers(read)} holds a right passage"
    return figures.by_groups(f"by_retrieval{suffix}", title, "passages", groups)


def _readers(read: Read) -> str:
    return f"what {listed(read.rankers)} read"
