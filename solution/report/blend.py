"""The sections on the ensemble: scores, the choice of the blend, weights, what each ranker adds, errors, cascade."""

from __future__ import annotations

import math

import numpy as np

from solution import metrics
from solution.ensemble.nested import AddedValue
from solution.ensemble.record import CandidateRecord, GainRecord
from solution.ensemble.rows import ScoreRow
from solution.report.charts import SIGNED, Forest, Heat, Mark, Panel, Panels, Point, Series
from solution.report.figures import BLEND, Figures
from solution.report.section import Columns, Section, cells, heads, interval

_MERGES = {"mean": "their mean", "max": "each option's maximum", "max_mean": "maximum + mean"}
_BLENDS = {"probability": "probabilities", "log_probability": "log-probabilities", "rank": "ranks"}


def headline(figures: Figures) -> list[tuple[str, str, str]]:
    """The cards at the top: name, figure, remark."""
    record, n = figures.record, len(figures.answers)
    rankers, estimate = figures.material.rankers, record["estimate"]
    cards = [("Questions", f"{n:,}", f"{record['about'][rankers[0]]['folds']} folds")]
    how = "weights and choice judged on folds they have not seen" if estimate["kind"] == "nested" else "out of fold"
    span = interval(estimate["low"], estimate["high"])
    cards.append(("Estimated MAP@3", f"{estimate['map3']:.4f}", f"{span}, 95\u00a0%; {how}"))
    # Of one ranker, or of equal weights, nothing was fitted: there is no other score in-sample.
    if record["choice"] != "equal" and len(rankers) > 1:
        score = f"{record['in_sample_map3']:.4f}"
        cards.append(("The same in-sample", score, "flatters itself: not an estimate"))
    chance = metrics.expected_random_map(figures.oof.exists.sum(axis=1))
    cards.append(("Random guessing", f"{chance:.4f}", "exact"))
    longest = _longest_option(figures)
    if longest is not None:
        cards.append(("Longest option", f"{longest:.4f}", "what a guesser scores who only looks at length"))
    return cards


def _longest_option(figures: Figures) -> float | None:
    """MAP@3 of the longest option: of the ranker or baseline of that family, whatever its name, or of the questions."""
    material = figures.material
    for name in material.everyone:
        if figures.oof.about[name]["family"] == "longest":
            return float(figures.credits[name].mean())
    if material.questions is None:
        return None
    lengths = material.questions.option_lengths(figures.oof.exists.shape[1])
    return metrics.map_at_k(lengths, figures.answers)


# --- scores --------------------------------------------------------------------------------


def _difference(gain: float | None, low: float | None, high: float | None) -> str:
    """A gain over equal weights with its interval; "" where it is not known."""
    if gain is None:
        return ""
    span = interval(low, high, "{:+z.3f}")
    return SIGNED.format(gain) + (f" {span}" if span else "")


def _gain(record: GainRecord) -> str:
    return _difference(record["gain"], record["low"], record["high"])


_SCORE_COLUMNS: Columns[ScoreRow] = (
    ("P@1", lambda row: f"{row['precision1']:.3f}"),
    ("log loss", lambda row: "" if math.isnan(row["log_loss"]) else f"{row['log_loss']:.3f}"),
    ("to equal weights", lambda row: _difference(row["difference"], row["difference_low"], row["difference_high"])),
)
"""Of a row of `table` in ensemble.json."""


def scores(figures: Figures) -> Section:
    """The blend that ships, the rankers, the baselines and random guessing by MAP@3."""
    rows = figures.record["table"]
    marks = []
    shipped = next((row for row in rows if row["shipped"] and row["kind"] != "ranker"), None)
    if shipped is not None:
        marks.append(_score(shipped, f"{BLEND}: {shipped['name']} (ships)"))
    rankers = sorted((row for row in rows if row["kind"] == "ranker"), key=lambda row: -row["map3"])
    marks += [_score(row, row["name"]) for row in rankers]
    marks += _baselines(figures)
    chance = next(row for row in rows if row["kind"] == "random")
    marks.append(_score(chance, "random guessing"))
    chart = Forest(
        name="scores",
        title="MAP@3 out of fold",
        axis="MAP@3",
        marks=tuple(marks),
        heads=heads("ranker", _SCORE_COLUMNS),
        reference=(chance["map3"], "random guessing"),
    )
    line = (
        "Every question is answered by models that were not trained on it. Intervals are 95 %, by the bootstrap "
        "over questions; those of differences are paired."
    )
    return Section("scores", "Scores", (line,), (chart,))


def _score(row: ScoreRow, label: str) -> Mark:
    return Mark(label, row["map3"], row["low"], row["high"], cells=cells(_SCORE_COLUMNS, row), strong=row["shipped"])


def _baselines(figures: Figures) -> list[Mark]:
    """The baselines with OOF files, and the longest option and the similarity where no ranker stands for them."""
    material = figures.material
    families = {figures.oof.about[name]["family"] for name in material.everyone}
    rows = [row for row in figures.record["table"] if row["kind"] == "baseline"]
    marks = [_score(row, f"{row['name']} (baseline)") for row in rows]
    if material.questions is not None and "longest" not in families:
        lengths = material.questions.option_lengths(figures.oof.exists.shape[1])
        marks.append(_baseline(figures, "longest option (baseline)", lengths))
    for read in material.reads[:1]:
        kinds = sorted(read.contexts.option_scores)
        if "similarity" not in families and kinds:
            marks.append(_baseline(figures, "similarity (baseline)", read.contexts.option_scores[kinds[0]]))
    return marks


def _baseline(figures: Figures, label: str, table: np.ndarray) -> Mark:
    """A baseline by scores, float [n, width], that are no probabilities: they have no log loss."""
    credits = metrics.credit_at_k(table, figures.answers)
    low, high = figures.bootstrap(credits)
    equal = next((row for row in figures.record["table"] if row["kind"] == "equal"), None)
    row = ScoreRow(
        name=label,
        kind="baseline",
        map3=float(credits.mean()),
        low=low,
        high=high,
        precision1=metrics.precision_at_k(table, figures.answers, k=1),
        log_loss=math.nan,
        weight=None,
        difference=None if equal is None else float(credits.mean() - equal["map3"]),
        difference_low=None,
        difference_high=None,
        shipped=False,
    )
    return _score(row, label)


# --- the blend that ships ------------------------------------------------------------------

_CANDIDATE_COLUMNS: Columns[CandidateRecord] = (
    ("in-sample", lambda candidate: f"{candidate['in_sample_map3']:.4f}"),
    ("to equal weights", lambda candidate: _gain(candidate["versus_equal"])),
    ("rankers", lambda candidate: str(candidate["rankers"])),
    ("log loss", lambda candidate: f"{candidate['nested']['log_loss']:.3f}"),
)
"""Of one of `candidates` in ensemble.json."""


def choice(figures: Figures) -> Section:
    """The blends that competed by nested MAP@3, and why one was chosen."""
    anchor, title = "choice", "How the blend was chosen"
    record = figures.record
    if not record["candidates"]:
        return Section(anchor, title, missing="there is only one ranker, so nothing was blended")
    marks = []
    for candidate in record["candidates"]:
        ships, nested = candidate["name"] == record["choice"], candidate["nested"]
        mark = Mark(
            label=f"{candidate['title']} (ships)" if ships else candidate["title"],
            value=nested["map3"],
            low=nested["low"],
            high=nested["high"],
            other=candidate["in_sample_map3"],
            cells=cells(_CANDIDATE_COLUMNS, candidate),
            strong=ships,
        )
        marks.append(mark)
    chart = Forest(
        name="blends",
        title="MAP@3 of the blends that competed, nested",
        axis="MAP@3",
        marks=tuple(marks),
        heads=heads("blend", _CANDIDATE_COLUMNS),
        other="in-sample",
    )
    lines = [
        "Nested: each fold is answered by weights fitted on the other folds. In-sample: fitted and scored "
        "on the same questions, which flatters every blend that is fitted.",
        f"Chosen: {record['reason']}.",
    ]
    for name, search in sorted(record["search"].items()):
        if search["exact"] > search["sampler"]:
            lines.append(
                f"{name}: exact line search reached {search['exact']:.4f} in-sample, the sampler alone "
                f"{search['sampler']:.4f}."
            )
    return Section(anchor, title, tuple(lines), (chart,))


def weights(figures: Figures) -> Section:
    """The weight of each ranker with its cost, and the groups or the stacker of the blend."""
    record = figures.record
    columns: Columns[str] = (
        ("family", lambda name: figures.oof.about[name]["family"]),
        ("temperature", lambda name: f"{record['temperatures'].get(name, 1.0):.2f}"),
        ("s/question", lambda name: _seconds(figures, name)),
        ("peak MiB", lambda name: _memory(figures, name)),
    )
    chart = Forest(
        name="weights",
        title="Weights of the blend",
        axis="weight",
        marks=tuple(Mark(name, record["weights"][name], cells=cells(columns, name)) for name in figures.by_weight),
        heads=heads("ranker", columns),
        reference=(0.0, ""),
        form="{:.3f}",
        bars=True,
    )
    lines = [
        f"The blend is a weighted mean of {_BLENDS[record['blend']]}. Seconds are those of one fold's "
        "model, memory is the most that training or scoring took."
    ]
    for name in figures.by_weight:
        if repeated := int(sum(_measurements(figures, name, "float32_questions"))):
            lines.append(f"{name}: {repeated} questions overflowed in float16, and were scored again in float32.")
    for group in record["groups"]:
        lines.append(f"Merged before the blend by {_MERGES[group['merge']]}: {', '.join(group['rankers'])}.")
    if record["stacker"]:
        lines.append("A stacker answers; the weights are used while one of its rankers is missing. Its coefficients:")
        for name, (a, b, c) in sorted(record["stacker"]["coefficients"].items()):
            lines.append(f"{name}: {a:.3f} + {b:.3f} margin + {c:.3f} entropy, times its log-probability")
    return Section("weights", "Weights", tuple(lines), (chart,))


def _measurements(figures: Figures, name: str, key: str) -> list[float]:
    """What the ranker's folds measured under this key of metrics.json."""
    return [fold[key] for fold in figures.material.facts.get(name, []) if key in fold]


def _seconds(figures: Figures, name: str) -> str:
    seconds = _measurements(figures, name, "score_seconds_per_question")
    return f"{float(np.mean(seconds)):.3g}" if seconds else ""


def _memory(figures: Figures, name: str) -> str:
    memory = _measurements(figures, name, "peak_memory_mib")
    return f"{max(memory):,.0f}" if memory else ""


def added(figures: Figures) -> Section:
    """The MAP@3 that the blend would lose without each of its rankers."""
    anchor, title = "added", "What each ranker adds"
    rankers = figures.material.rankers
    values = {name: value for name, value in figures.record["added_value"].items() if value is not None}
    if not values:
        return Section(anchor, title, missing="the blend uses only one ranker")
    columns: Columns[AddedValue] = (("MAP@3 without it", lambda value: f"{value['without']:.4f}"),)
    marks = [
        Mark(name, value["added"], value["low"], value["high"], cells=cells(columns, value))
        for name, value in sorted(values.items(), key=lambda item: -item[1]["added"])
    ]
    marks += [Mark(name, None, text="not used") for name in rankers if name not in values]
    chart = Forest(
        name="added_value",
        title="MAP@3 that each ranker adds",
        axis="MAP@3 added",
        marks=tuple(marks),
        heads=heads("ranker", columns),
        reference=(0.0, "no gain"),
        form=SIGNED,
    )
    line = (
        "MAP@3 of the blend less that of the same blend without the ranker (nested, the others' proportions kept), "
        "with paired 95 % intervals. A ranker whose interval reaches below 0 may add nothing."
    )
    return Section(anchor, title, (line,), (chart,))


def correlation(figures: Figures) -> Section:
    """The correlation of what the rankers earn on the same questions."""
    anchor, title = "errors", "Whose errors go together"
    names = figures.material.rankers
    if len(names) < 2:
        return Section(anchor, title, missing="there is only one ranker")
    values = tuple(tuple(row) for row in figures.record["error_correlation"])
    if all(value is None for row in values for value in row):
        return Section(anchor, title, missing="each ranker earns the same on every question")
    chart = Heat("error_correlation", "Correlation of the rankers' scores over the questions", tuple(names), values)
    line = (
        "Correlation of what two rankers earn on the same questions: at 1 they fail together and a blend of them "
        "gains nothing; the lower, the more one can mend of the other."
    )
    return Section(anchor, title, (line,), (chart,))


# --- the cascade ---------------------------------------------------------------------------


def cascade(figures: Figures) -> list[Section]:
    """The frontier of the cascade; no section where the ensemble has none."""
    plan = figures.record.get("cascade")
    if not plan:
        return []
    marks, points = [], []
    for number, point in enumerate(plan["frontier"]):
        chosen, seconds = number == plan.get("chosen"), point["seconds_per_question"]
        map3, low, high = point["map3"], point.get("low"), point.get("high")
        label = point.get("note") or f"{seconds:.3g} s a question"
        label = f"{label} (chosen)" if chosen else label
        marks.append(Mark(label, map3, low, high, cells=(f"{seconds:.4g}",), strong=chosen))
        points.append(Point(seconds, map3, low, high, share=0.05, strong=chosen))
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
    return [Section("cascade", "Cascade", (line,), (Panels("cascade", "Cascade", (panel,)), table))]
