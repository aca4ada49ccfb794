"""The sections of the report: every figure that it shows is computed here (or was by `tune`)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution import metrics
from solution.errors import UserError
from solution.questions import LETTERS
from solution.report.charts import SIGNED, Forest, Heat, Mark, Panel, Panels, Point, Series, smooth
from solution.report.material import Material
from solution.retrieval.gold import DEPTHS, Gold, judge
from solution.tables import cell_text

BLEND = "blend"
WORST = 20
"""Questions shown."""
EXCERPT = 400
"""Characters of a passage shown."""
_PROMPT = 3000
_GROUPS = (2, 40)
"""How many different values a column may have to be reported by."""
_QUANTILES = 5
_ALONGSIDE = 6
"""Rankers whose scores stand beside the blend's."""
_DRAWN = 200
"""Points of a learning curve."""
_LABEL = 80
"""Characters of a column's value shown."""


@dataclass(frozen=True)
class Passage:
    """`right`: whether it counts as a right passage; None: not judged."""

    title: str
    text: str
    right: bool | None


@dataclass(frozen=True)
class Worst:
    """A question that the blend got wrong.

    Attributes:
        facts: id, fold, columns: name and value.
        options: letter and text.
        right: the right letter.
        rows: who says it, and a probability for each option.
        contexts: who reads them, and the passages.
    """

    facts: tuple[tuple[str, str], ...]
    prompt: str
    options: tuple[tuple[str, str], ...]
    right: str
    rows: tuple[tuple[str, tuple[float, ...]], ...]
    contexts: tuple[tuple[str, tuple[Passage, ...]], ...]


@dataclass(frozen=True)
class Section:
    """A part of the page; `missing` says why it has nothing to show."""

    anchor: str
    title: str
    lines: tuple[str, ...] = ()
    charts: tuple[Forest | Panels | Heat, ...] = ()
    worst: tuple[Worst, ...] = ()
    missing: str = ""


class Builder:
    """Makes the sections from what was gathered.

    Args:
        by: columns of the question file to report by; none: every one that has 2 to 40 values.
        gold: the column that names the right passages, see `retrieval.report.Gold`.

    Raises:
        UserError: a column is not there, or has one value or too many.
    """

    def __init__(self, material: Material, by: Sequence[str] = (), gold: str | None = None):
        self.material = material
        self.record, self.oof = material.record, material.oof
        self.answers = self.oof.answers
        self.credits = {BLEND: metrics.credit_at_k(material.blended, self.answers)}
        self.credits |= {name: metrics.credit_at_k(self.oof.probabilities[name], self.answers) for name in self._all}
        self.samples, self.seed = self.record["tune"]["bootstrap_samples"], self.record["tune"]["seed"]
        self.columns = self._columns(by)
        self.gold = None
        if material.questions is not None:
            self.gold = Gold(material.questions, gold)
        elif gold is not None:
            raise UserError(f"--gold {gold}: {material.missing['questions']}")

    @property
    def _all(self) -> list[str]:
        return self.material.everyone

    @property
    def _shown(self) -> list[str]:
        """The rankers of the largest weights."""
        weights = self.record["weights"]
        return sorted(self.material.rankers, key=lambda name: (-weights[name], name))[:_ALONGSIDE]

    def sections(self) -> list[Section]:
        made = [
            self.scores(),
            self.choice(),
            self.weights(),
            self.added(),
            self.correlation(),
            self.curves(),
            self.calibration(),
            self.confidence(),
            self.folds(),
            *self.subjects(),
            self.option_counts(),
        ]
        if self.record.get("cascade"):
            made.append(self.cascade())
        return [*made, self.retrieval(), self.worst()]

    # --- the ensemble ----------------------------------------------------------------------

    def headline(self) -> list[tuple[str, str, str]]:
        """What stands at the top: name, figure, remark."""
        estimate, n = self.record["estimate"], len(self.answers)
        told = [("Questions", f"{n:,}", f"{self.record['about'][self.material.rankers[0]]['folds']} folds")]
        how = "weights and choice judged on folds they have not seen" if estimate["kind"] == "nested" else "out of fold"
        span = _interval(estimate["low"], estimate["high"])
        told.append(("Estimated MAP@3", f"{estimate['map3']:.4f}", f"{span}, 95\u00a0%; {how}"))
        if self.record["choice"] != "equal" and len(self.material.rankers) > 1:  # else nothing was fitted
            score = f"{self.record['in_sample_map3']:.4f}"
            told.append(("The same in-sample", score, "flatters itself: not an estimate"))
        chance = metrics.expected_random_map(self.oof.exists.sum(axis=1))
        told.append(("Random guessing", f"{chance:.4f}", "exact"))
        longest = [mark for mark in self._baselines() if mark.label.startswith("longest")]
        if longest and longest[0].value is not None:
            told.append(("Longest option", f"{longest[0].value:.4f}", "what a guesser scores who only looks at length"))
        return told

    def scores(self) -> Section:
        marks = []
        rows = self.record["table"]
        shipped = next((row for row in rows if row["shipped"] and row["kind"] != "ranker"), None)
        if shipped is not None:
            marks.append(self._row(shipped, f"{BLEND}: {shipped['name']} (ships)"))
        rankers = sorted((row for row in rows if row["kind"] == "ranker"), key=lambda row: -row["map3"])
        marks += [self._row(row, row["name"]) for row in rankers]
        marks += self._baselines()
        chance = next(row for row in rows if row["kind"] == "random")
        marks.append(self._row(chance, "random guessing"))
        heads = ("ranker", "P@1", "log loss", "to equal weights")
        chart = Forest("scores", "MAP@3 out of fold", "MAP@3", tuple(marks), heads, (chance["map3"], "random guessing"))
        lines = [
            "Every question is answered by models that were not trained on it. Intervals are 95 %, by the bootstrap "
            "over questions; those of differences are paired."
        ]
        return Section("scores", "Scores", tuple(lines), (chart,))

    def _row(self, row: dict[str, Any], label: str) -> Mark:
        difference = "" if row["difference"] is None else SIGNED.format(row["difference"])
        if difference and row["difference_low"] is not None:
            difference += f" {_interval(row['difference_low'], row['difference_high'], '{:+.3f}')}"
        return Mark(
            label=label,
            value=row["map3"],
            low=row["low"],
            high=row["high"],
            cells=(f"{row['precision1']:.3f}", f"{row['log_loss']:.3f}", difference),
            strong=row["shipped"],
        )

    def _baselines(self) -> list[Mark]:
        """Those with OOF files, and the longest option and the similarity where no ranker stands for them."""
        there = {self.oof.about[name]["family"] for name in self._all}
        rows = [row for row in self.record["table"] if row["kind"] == "baseline"]
        marks = [self._row(row, f"{row['name']} (baseline)") for row in rows]
        questions = self.material.questions
        if questions is not None and "longest" not in there:
            marks.append(self._plain("longest option (baseline)", questions.option_lengths(self.oof.exists.shape[1])))
        for read in self.material.reads[:1]:
            kinds = sorted(read.contexts.option_scores)
            if "similarity" not in there and kinds:
                marks.append(self._plain("similarity (baseline)", read.contexts.option_scores[kinds[0]]))
        return marks

    def _plain(self, label: str, scores: np.ndarray) -> Mark:
        """A baseline of scores that are no probabilities."""
        credits = metrics.credit_at_k(scores, self.answers)
        equal = next((row for row in self.record["table"] if row["kind"] == "equal"), None)
        low, high = metrics.bootstrap_interval(credits, self.samples, seed=self.seed)
        difference = "" if equal is None else SIGNED.format(credits.mean() - equal["map3"])
        return Mark(
            label=label,
            value=float(credits.mean()),
            low=low,
            high=high,
            cells=(f"{metrics.precision_at_k(scores, self.answers, k=1):.3f}", "", difference),
        )

    def choice(self) -> Section:
        anchor, title = "choice", "How the blend was chosen"
        if not self.record["candidates"]:
            return Section(anchor, title, missing="there is only one ranker, so nothing was blended")
        marks = []
        for each in self.record["candidates"]:
            versus = each["versus_equal"]
            gain = "" if versus["gain"] is None else SIGNED.format(versus["gain"])
            if versus["gain"] is not None and versus["low"] is not None:
                gain += f" {_interval(versus['low'], versus['high'], '{:+.3f}')}"
            ships = each["name"] == self.record["choice"]
            marks.append(
                Mark(
                    label=f"{each['title']} (ships)" if ships else each["title"],
                    value=each["nested"]["map3"],
                    low=each["nested"]["low"],
                    high=each["nested"]["high"],
                    other=each["in_sample_map3"],
                    cells=(
                        f"{each['in_sample_map3']:.4f}",
                        gain,
                        str(each["rankers"]),
                        f"{each['nested']['log_loss']:.3f}",
                    ),
                    strong=ships,
                )
            )
        heads = ("blend", "in-sample", "to equal weights", "rankers", "log loss")
        chart = Forest(
            "blends", "MAP@3 of the blends that competed, nested", "MAP@3", tuple(marks), heads, other="in-sample"
        )
        lines = [
            "Nested: each fold is answered by weights fitted on the other folds. In-sample: fitted and scored "
            "on the same questions, which flatters every blend that is fitted.",
            f"Chosen: {self.record['reason']}.",
        ]
        for name, found in sorted(self.record["search"].items()):
            if found["exact"] > found["sampler"]:
                lines.append(
                    f"{name}: exact line search reached {found['exact']:.4f} in-sample, the sampler alone "
                    f"{found['sampler']:.4f}."
                )
        return Section(anchor, title, tuple(lines), (chart,))

    def weights(self) -> Section:
        record = self.record
        marks = []
        for name in sorted(self.material.rankers, key=lambda name: (-record["weights"][name], name)):
            facts = self.material.facts.get(name, [])
            seconds = [fact["score_seconds_per_question"] for fact in facts if "score_seconds_per_question" in fact]
            memory = [fact["peak_memory_mib"] for fact in facts if "peak_memory_mib" in fact]
            cells = [self.oof.about[name]["family"], f"{record['temperatures'].get(name, 1.0):.2f}"]
            cells.append(f"{float(np.mean(seconds)):.3g}" if seconds else "")
            cells.append(f"{max(memory):,.0f}" if memory else "")
            marks.append(Mark(name, record["weights"][name], cells=tuple(cells)))
        heads = ("ranker", "family", "temperature", "s/question", "peak MiB")
        chart = Forest(
            "weights", "Weights of the blend", "weight", tuple(marks), heads, (0.0, ""), form="{:.3f}", bars=True
        )
        kinds = {"probability": "probabilities", "log_probability": "log-probabilities", "rank": "ranks"}
        what = kinds[record["blend"]]
        lines = [
            f"The blend is a weighted mean of {what}. Seconds are those of one fold's "
            "model, memory is the most that training or scoring took."
        ]
        for group in record["groups"]:
            how = {"mean": "their mean", "max": "each option's maximum", "max_mean": "maximum + mean"}[group["merge"]]
            lines.append(f"Merged before the blend by {how}: {', '.join(group['rankers'])}.")
        if record["stacker"]:
            lines.append(
                "A stacker answers; the weights are used while one of its rankers is missing. Its coefficients:"
            )
            for name, (a, b, c) in sorted(record["stacker"]["coefficients"].items()):
                lines.append(f"{name}: {a:.3f} + {b:.3f} margin + {c:.3f} entropy, times its log-probability")
        return Section("weights", "Weights", tuple(lines), (chart,))

    def added(self) -> Section:
        anchor, title = "added", "What each ranker adds"
        values = self.record["added_value"]
        used = [name for name in self.material.rankers if values.get(name)]
        if not used:
            return Section(anchor, title, missing="the blend uses only one ranker")
        marks = [
            Mark(
                name,
                values[name]["added"],
                values[name]["low"],
                values[name]["high"],
                cells=(f"{values[name]['without']:.4f}",),
            )
            for name in sorted(used, key=lambda name: -values[name]["added"])
        ]
        marks += [Mark(name, None, text="not used") for name in self.material.rankers if name not in used]
        heads = ("ranker", "MAP@3 without it")
        chart = Forest(
            "added_value",
            "MAP@3 that each ranker adds",
            "MAP@3 added",
            tuple(marks),
            heads,
            (0.0, "no gain"),
            form=SIGNED,
        )
        line = (
            "MAP@3 of the blend less that of the same blend without the ranker (nested, the others' proportions kept), "
            "with paired 95 % intervals. A ranker whose interval reaches below 0 may add nothing."
        )
        return Section(anchor, title, (line,), (chart,))

    def correlation(self) -> Section:
        anchor, title = "errors", "Whose errors go together"
        names = self.material.rankers
        if len(names) < 2:
            return Section(anchor, title, missing="there is only one ranker")
        values = tuple(tuple(row) for row in self.record["error_correlation"])
        chart = Heat("error_correlation", "Correlation of the rankers' scores over the questions", tuple(names), values)
        line = (
            "Correlation of what two rankers earn on the same questions: at 1 they fail together and a blend of them "
            "gains nothing; the lower, the more one can mend of the other."
        )
        return Section(anchor, title, (line,), (chart,))

    # --- training and calibration ----------------------------------------------------------

    def curves(self) -> Section:
        anchor, title = "learning", "Learning curves"
        curves = self.material.curves
        if not curves:
            return Section(anchor, title, missing=self.material.missing["curves"])
        panels = []
        for name in [name for name in self._all if name in curves]:
            losses, scores = [], []
            for fold, curve in curves[name].items():
                window = max(1, len(curve.loss) // 10)
                means = smooth(curve.loss, window)
                stride = math.ceil(len(means) / _DRAWN)
                steps = sorted({*range(window - 1, len(means), stride), len(means) - 1})
                losses.append(Series(f"fold {fold}", tuple(Point(step + 1, means[step]) for step in steps)))
                if curve.map3:
                    points = tuple(Point(step, score, share=0.1) for step, score in sorted(curve.map3.items()))
                    scores.append(Series(f"fold {fold}", points))
            panels.append(Panel(name, "step", "training loss", tuple(losses)))
            if any(len(series.points) > 1 for series in scores):
                panels.append(Panel(name, "step", "validation MAP@3", tuple(scores)))
        chart = Panels("learning_curves", "Learning curves", tuple(panels))
        lines = ["The loss of each step is shown as the mean over the last tenth of the run."]
        lacking = [name for name in self.material.rankers if name not in curves]
        if lacking:
            lines.append(f"Without training, or without its log: {', '.join(lacking)}.")
        return Section(anchor, title, tuple(lines), (chart,))

    def calibration(self) -> Section:
        tables = {BLEND: self.material.blended} | {name: self.oof.probabilities[name] for name in self._all}
        marks, panels = [], []
        for name, table in tables.items():
            curve = metrics.reliability(table, self.answers)
            error = metrics.calibration_error(table, self.answers)
            sure = sum(confidence * count for confidence, _, count in curve) / len(self.answers)
            hits = sum(hit * count for _, hit, count in curve) / len(self.answers)
            loss = metrics.log_loss(table, self.answers)
            cells = (f"{sure:.3f}", f"{hits:.3f}", f"{loss:.3f}")
            marks.append(Mark(name, error, cells=cells, strong=name == BLEND))
            points = tuple(Point(sure, hit, share=count / len(self.answers)) for sure, hit, count in curve)
            panels.append(Panel(name, "confidence", "right", (Series("", points),), diagonal=True, unit=True))
        heads = ("ranker", "mean confidence", "share right", "log loss")
        bars = Forest(
            "calibration_error", "Expected calibration error", "ECE", tuple(marks), heads, (0.0, ""), bars=True
        )
        line = (
            "Confidence is the probability of the first option. On the dashed line it is right as often as it says; "
            "below the line it is too sure. Ten bins of equal width; the dot's area is the share of questions."
        )
        curves = Panels("calibration", "Reliability", tuple(panels), small=True)
        return Section("calibration", "Calibration", (line,), (bars, curves))

    # --- by groups -------------------------------------------------------------------------

    def _by(self, name: str, title: str, head: str, groups: Sequence[tuple[str, np.ndarray]]) -> Forest:
        """The blend's MAP@3 (and the rankers') of each group of questions, a label and bool [n]."""
        counts = self.oof.exists.sum(axis=1)
        marks = []
        for label, rows in groups:
            own = self.credits[BLEND][rows]
            low, high = metrics.bootstrap_interval(own, self.samples, seed=self.seed) if len(own) > 1 else (None, None)
            right = metrics.precision_at_k(self.material.blended[rows], self.answers[rows], k=1)
            cells = [
                f"{len(own):,}",
                f"{right:.3f}",
                *(f"{self.credits[each][rows].mean():.3f}" for each in self._shown),
            ]
            chance = metrics.expected_random_map(counts[rows])
            marks.append(Mark(label, float(own.mean()), low, high, other=chance, cells=tuple(cells)))
        heads = (head, "questions", "P@1", *self._shown)
        whole = (float(self.credits[BLEND].mean()), "all questions")
        return Forest(name, title, "MAP@3", tuple(marks), heads, whole, other="random guessing")

    def confidence(self) -> Section:
        top = np.sort(np.where(self.oof.exists, self.material.blended, 0.0), axis=1)
        margin = top[:, -1] - top[:, -2]
        order = np.argsort(margin, kind="stable")
        groups = []
        for number, part in enumerate(np.array_split(order, min(_QUANTILES, len(order))), 1):
            rows = np.zeros(len(order), dtype=bool)
            rows[part] = True
            groups.append((f"{number}: margin {margin[part].min():.3f} to {margin[part].max():.3f}", rows))
        chart = self._by("by_confidence", "MAP@3 by the blend's margin", "fifth of the questions", groups)
        line = (
            "The margin is the blend's probability of its first option less that of its second, the least sure fifth "
            "of the questions first. The steeper this rises, the more a cascade can save."
        )
        return Section("confidence", "MAP@3 by confidence", (line,), (chart,))

    def folds(self) -> Section:
        groups = [(f"fold {fold}", self.oof.folds == fold) for fold in sorted(set(self.oof.folds.tolist()))]
        chart = self._by("by_fold", "MAP@3 by fold", "fold", groups)
        return Section("folds", "MAP@3 by fold", (), (chart,))

    def _columns(self, by: Sequence[str]) -> dict[str, list[tuple[str, np.ndarray]]]:
        """Column -> its groups."""
        questions = self.material.questions
        if questions is None:
            if by:
                raise UserError(f"--by {by[0]}: {self.material.missing['questions']}")
            return {}
        strange = [name for name in by if name not in questions.extra]
        if strange:
            there = ", ".join(questions.extra) or "none"
            raise UserError(f"--by {strange[0]}: the question file has no such column (its further columns: {there})")
        found = {}
        least, most = _GROUPS
        for name in by or [name for name in questions.extra if name != "context"]:
            cells = [cell_text(value) or "(empty)" for value in questions.extra[name]]
            texts = np.array([_cut(cell, _LABEL) for cell in cells], dtype=object)
            values = sorted(set(texts.tolist()))
            if least <= len(values) <= most:
                found[name] = [(value, texts == value) for value in values]
            elif by:
                raise UserError(
                    f"--by {name}: the column has {len(values)} different values; {least} to {most} can be shown"
                )
        return found

    def subjects(self) -> list[Section]:
        anchor, title = "subjects", "MAP@3 by subject"
        if self.material.questions is None:
            return [Section(anchor, title, missing=self.material.missing["questions"])]
        if not self.columns:
            least, most = _GROUPS
            return [
                Section(anchor, title, missing=f"the question file has no further column of {least} to {most} values")
            ]
        made = []
        for number, (name, groups) in enumerate(self.columns.items(), 1):
            plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "column"
            chart = self._by(f"by_column_{number}_{plain}"[:80], f"MAP@3 by {name}", name, groups)
            made.append(Section(f"subject-{number}", f"MAP@3 by {name}", (), (chart,)))
        return made

    def option_counts(self) -> Section:
        anchor, title = "options", "MAP@3 by number of options"
        counts = self.oof.exists.sum(axis=1)
        values = sorted(set(counts.tolist()))
        if len(values) < 2:
            return Section(anchor, title, missing=f"every question has {values[0]} options")
        groups = [(f"{value} options", counts == value) for value in values]
        return Section(anchor, title, (), (self._by("by_options", title, "options", groups),))

    # --- cascade and retrieval -------------------------------------------------------------

    def cascade(self) -> Section:
        plan = self.record["cascade"]
        frontier, chosen = plan["frontier"], plan.get("chosen")
        marks, points = [], []
        for number, each in enumerate(frontier):
            taken = number == chosen
            seconds = each["seconds_per_question"]
            label = each.get("note") or f"{seconds:.3g} s a question"
            marks.append(
                Mark(
                    f"{label} (chosen)" if taken else label,
                    each["map3"],
                    each.get("low"),
                    each.get("high"),
                    cells=(f"{seconds:.4g}",),
                    strong=taken,
                )
            )
            points.append(Point(seconds, each["map3"], each.get("low"), each.get("high"), 0.05, taken))
        points.sort(key=lambda point: point.x)
        wide = points[0].x > 0 and points[-1].x > 20 * points[0].x
        panel = Panel("Frontier", "seconds a question", "MAP@3", (Series("", tuple(points)),), log_x=wide)
        line = (
            "In a cascade the costly rankers see only the questions that the cheap ones are unsure of. Expected MAP@3 "
            "against the seconds that a question takes in a submission (all folds), as measured here."
        )
        table = Forest(
            "cascade_plans", "MAP@3 of the cascade's plans", "MAP@3", tuple(marks), ("plan", "seconds a question")
        )
        return Section("cascade", "Cascade", (line,), (Panels("cascade", "Cascade", (panel,)), table))

    def retrieval(self) -> Section:
        anchor, title = "retrieval", "Retrieval"
        missing = self.material.missing
        if self.gold is None or not self.material.reads:
            return Section(anchor, title, missing=missing.get("contexts") or missing["questions"])
        gold, charts = self.gold, []
        for number, read in enumerate(self.material.reads, 1):
            passages = read.contexts.passages
            deepest = max(map(len, passages), default=0)
            scores = judge(gold, passages)
            names = [f"recall@{k}" for k in DEPTHS if k <= max(deepest, 1)] + [f"mrr@{DEPTHS[-1]}"]
            last = f"MRR@{min(max(deepest, 1), DEPTHS[-1])}"
            marks = tuple(Mark(last if name.startswith("mrr") else name, *scores[name]) for name in names)
            suffix = "" if number == 1 else f"_{number}"
            readers = f"what {_listed(read.rankers)} read"
            head = f"Recall in {readers}"
            charts.append(Forest(f"retrieval{suffix}", head, "share of questions", marks, ("measure",), form="{:.3f}"))
            found = np.zeros(len(self.answers), dtype=bool)
            judged = np.zeros(len(self.answers), dtype=bool)
            judged[gold.rows] = True
            for row in gold.rows:
                found[row] = any(gold.hits(row, passages[row]))
            pairs = [("a right passage was found", judged & found), ("none was found", judged & ~found)]
            groups = [(label, rows) for label, rows in pairs if rows.any()]
            head = f"MAP@3 by whether {readers} holds a right passage"
            charts.append(self._by(f"by_retrieval{suffix}", head, "passages", groups))
        line = (
            f"Right: {gold.name}; {len(gold.rows):,} of {len(self.answers):,} questions can be judged. Recall@k is the "
            "share of them with a right passage among the first k."
        )
        return Section(anchor, title, (line,), tuple(charts))

    # --- questions -------------------------------------------------------------------------

    def worst(self) -> Section:
        anchor, title = "worst", "The worst questions"
        questions = self.material.questions
        if questions is None:
            return Section(anchor, title, missing=self.material.missing["questions"])
        right = self.material.blended[np.arange(len(self.answers)), self.answers]
        rows = np.argsort(right, kind="stable")[:WORST].tolist()
        lines = [
            f"The {len(rows)} questions to whose right option the blend gives the lowest probability, the lowest "
            "first. Often the key, the question or the retrieval is at fault, and not the rankers."
        ]
        if not self.material.reads:
            lines.append(f"Without contexts: {self.material.missing['contexts']}.")
        return Section(anchor, title, tuple(lines), worst=tuple(map(self._worst, rows)))

    def _worst(self, row: int) -> Worst:
        questions = self.material.questions
        assert questions is not None
        there = np.flatnonzero(self.oof.exists[row]).tolist()
        answer = int(self.answers[row])

        def said(table: np.ndarray) -> tuple[float, ...]:
            return tuple(float(table[row, option]) for option in there)

        place, tied = (int(each[0]) for each in metrics.places(self.material.blended[[row]], self.answers[[row]]))
        facts = [("id", questions.ids[row]), ("fold", str(int(self.oof.folds[row])))]
        facts += [(name, cell_text(questions.extra[name][row])) for name in self.columns]
        last = f" to {place + 1 + tied}" if tied else ""
        facts.append(("place of the right option", f"{place + 1}{last}"))
        rows = [(BLEND, said(self.material.blended))]
        rows += [(name, said(self.oof.probabilities[name])) for name in self._all]
        contexts = []
        for read in self.material.reads:
            passages = read.contexts.passages[row]
            judged: Sequence[bool | None] = [None] * len(passages)
            if self.gold is not None and row in self._judged:
                judged = self.gold.hits(row, passages)
            shown = tuple(
                Passage(passage.title, _cut(passage.text, EXCERPT), hit)
                for passage, hit in zip(passages, judged, strict=True)
            )
            contexts.append((_listed(read.rankers), shown))
        return Worst(
            facts=tuple(facts),
            prompt=_cut(questions.prompts[row], _PROMPT),
            options=tuple((LETTERS[option], _cut(questions.options[row][option], _PROMPT)) for option in there),
            right=LETTERS[answer],
            rows=tuple(rows),
            contexts=tuple(contexts),
        )

    @property
    def _judged(self) -> frozenset[int]:
        return frozenset(self.gold.rows if self.gold is not None else ())


def _listed(names: Sequence[str]) -> str:
    """Names in a row, of many only the first."""
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most].rstrip() + " …"


def _interval(low: float | None, high: float | None, form: str = "{:.3f}") -> str:
    return "" if low is None or high is None else f"[{form.format(low)}, {form.format(high)}]"
