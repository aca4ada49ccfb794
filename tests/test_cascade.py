"""Planning the cascade: what the frontier promises, and what it keeps on questions that were not tuned on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline import run

from solution import metrics
from solution.config import TuneSettings
from solution.ensemble.blend import Recipe
from solution.ensemble.candidates import Problem
from solution.ensemble.cascade import CascadePlan, Point, Stage, doubt, living, refine, unsure
from solution.ensemble.cascade_grid import list_specs, stages_reached, thresholds
from solution.ensemble.costs import Cost, measured_cost
from solution.ensemble.frontier import _note, credits_within, plan_cascade
from solution.ensemble.nested import fit_candidate, fit_nested
from solution.ensemble.record import load_ensemble, read_stages
from solution.ensemble.table import print_cascade
from solution.ensemble.tune import run_tune
from solution.errors import UserError
from solution.oof import write_oof
from solution.questions import Questions
from solution.workdir import Workdir

SIGNALS = {"cheap": 1.0, "middle": 1.5, "costly": 2.5}
COSTS = {
    "cheap": Cost(0.001, fold_seconds=0.001),
    "middle": Cost(0.1, 3.0, True, 0.1),
    "costly": Cost(2.0, 40.0, False, 2.0),
}


def simulated(n: int, seed: int, signals: dict[str, float]) -> Problem:
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 5, n)
    table = []
    for name in sorted(signals):
        scores = rng.normal(size=(n, 5))
        scores[np.arange(n), answers] += signals[name]
        powers = np.exp(scores)
        table.append((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))
    return Problem(sorted(signals), np.stack(table), np.ones((n, 5), bool), answers, np.arange(n) % 5)


def equal(part: Problem) -> Recipe:
    return Recipe(part.equal())


def planned(problem: Problem, limit: float | None = None, fit: Any = equal) -> CascadePlan:
    return plan_cascade(problem, fit_candidate(problem, fit), fit, COSTS, 500, 0, limit)


def play(point: Point, problem: Problem) -> tuple[float, float]:
    """MAP@3 and seconds a question of a cascade on an exam, by the parts that the submission uses."""
    tables = dict(zip(problem.names, problem.table, strict=True))
    exists = alive = problem.exists
    blend = np.zeros(exists.shape, dtype=np.float32)
    reads = np.ones(len(exists), dtype=bool)
    seconds = 0.0
    names: list[str] = []
    for stage in point.stages:
        if names:
            reads = reads & unsure(stage, blend, exists)
            alive = np.where(reads[:, None], living(blend, alive, stage.alive), alive)
        names.append(stage.ranker)
        some = {name: tables[name][reads] for name in names}
        blend = blend.copy()
        blend[reads] = refine(stage.recipe, some, exists[reads], alive[reads], blend[reads])
        share = alive[reads].mean(axis=1).sum() if COSTS[stage.ranker].by_option else reads.sum()
        seconds += stage.seconds_per_question * share
    return metrics.map_at_k(blend, problem.answers), seconds / len(exists)


@pytest.fixture(scope="module")
def plan() -> CascadePlan:
    return planned(simulated(3000, 0, SIGNALS))


def test_the_frontier_runs_from_the_cheapest_ranker_to_all_of_them(plan: CascadePlan) -> None:
    assert plan.order == ("cheap", "middle", "costly")
    first, last = plan.points[0], plan.points[-1]
    assert first.note == "cheap alone" and first.seconds_per_question == pytest.approx(0.001)
    assert last.note == "cheap + middle + costly on every question"
    assert last.seconds_per_question == pytest.approx(2.101) and last.load_seconds == 43
    assert plan.chosen == len(plan.points) - 1
    assert 5 <= len(plan.points) <= 12
    rates = [point.seconds_per_question for point in plan.points]
    assert rates == sorted(rates)
    assert all(point.low <= point.map3 <= point.high for point in plan.points)


def test_half_the_time_keeps_nearly_all_of_the_score(plan: CascadePlan) -> None:
    whole = plan.points[-1]
    cheaper = [point for point in plan.points if point.seconds_per_question <= 0.6 * whole.seconds_per_question]
    best = max(cheaper, key=lambda point: point.map3)
    gained = (best.map3 - plan.points[0].map3) / (whole.map3 - plan.points[0].map3)
    assert gained > 0.85, (best, whole)


def test_the_whole_point_is_the_nested_estimate(plan: CascadePlan) -> None:
    problem = simulated(3000, 0, SIGNALS)
    answers, _ = fit_nested(problem, equal)
    assert plan.points[-1].map3 == pytest.approx(metrics.map_at_k(answers, problem.answers), abs=1e-6)


def test_new_questions_score_and_cost_what_the_frontier_says(plan: CascadePlan) -> None:
    fresh = simulated(20_000, 99, SIGNALS)
    for point in plan.points:
        score, seconds = play(point, fresh)
        assert point.low - 0.005 < score < point.high + 0.005, (point.note, score, point.map3)
        assert seconds == pytest.approx(point.seconds_per_question, rel=0.1), point.note


def test_a_costly_ranker_that_knows_nothing_is_not_said_to_help() -> None:
    """Over simulations, what the frontier promises of its best point is what that point scores on new questions."""
    gaps = []
    for seed in range(6):
        signals = {"cheap": 1.0, "middle": 0.0, "costly": 0.0}
        made = planned(simulated(400, seed, signals), fit=lambda part: Recipe({name: 1.0 for name in part.names}))
        best = max(made.points, key=lambda point: point.map3)
        gaps.append(best.map3 - play(best, simulated(20_000, 1000 + seed, signals))[0])
    assert abs(np.mean(gaps)) < 0.03, gaps


def test_the_best_of_many_equal_cascades_is_not_said_to_be_better() -> None:
    rng = np.random.default_rng(0)
    told = []
    for _ in range(20):
        credits = rng.random((300, 200), dtype=np.float32)
        assert credits.mean(axis=1).max() > 0.54
        places = [np.flatnonzero(np.arange(200) % 5 == fold) for fold in range(5)]
        told.append(credits_within(1.0, np.zeros_like(credits), credits, places).mean())
    assert abs(np.mean(told) - 0.5) < 0.015


def test_a_dearer_cascade_does_not_stand_for_a_budget() -> None:
    credits = np.array([[0.2] * 10, [0.4] * 10, [0.9] * 10], dtype=np.float32)
    prices = np.array([[1.0] * 10, [2.0] * 10, [3.0] * 10], dtype=np.float32)
    places = [np.arange(5), np.arange(5, 10)]
    assert [credits_within(budget, prices, credits, places).mean() for budget in (1.0, 2.5, 3.0)] == pytest.approx(
        [0.2, 0.4, 0.9]
    )


def test_a_budget_chooses_the_best_point_within_it() -> None:
    problem = simulated(1500, 1, SIGNALS)
    made = planned(problem, 0.9)
    chosen = made.points[made.chosen]
    assert chosen.seconds_per_question <= 0.9
    assert chosen.map3 == max(point.map3 for point in made.points if point.seconds_per_question <= 0.9)
    with pytest.raises(UserError, match="cheap alone, 0.001 seconds a question"):
        planned(problem, 0.0001)


def test_thresholds_give_the_shares() -> None:
    rng = np.random.default_rng(0)
    doubts = [rng.normal(size=1000), rng.normal(size=1000)]
    spec = next(s for s in list_specs(3) if s.shares == (1.0, 0.5, 0.2) and s.by == "margin")
    reached = stages_reached(thresholds(spec, doubts), doubts)
    assert [(reached >= stage).mean() for stage in range(3)] == [1, 0.5, 0.2]
    lowest = doubts[0][reached >= 1].min()
    assert (doubts[0][reached == 0] < lowest).all()
    nothing = next(s for s in list_specs(3) if s.shares == (1.0, 0.0, 0.0))
    assert (stages_reached(thresholds(nothing, doubts), doubts) == 0).all()
    assert list_specs(3)[-1].shares == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("rankers", range(2, 9))
def test_the_number_of_cascades_stays_small(rankers: int) -> None:
    specs = list_specs(rankers)
    assert 30 < len(specs) < 1000 and len(set(specs)) == len(specs)
    assert all(len(spec.shares) == rankers and list(spec.shares) == sorted(spec.shares, reverse=True) for spec in specs)


def stored(tmp_path: Path, seconds: dict[str, float]) -> Workdir:
    """A working folder with OOF files, and the measurements of the rankers named."""
    workdir = Workdir.open(tmp_path)
    problem = simulated(300, 3, SIGNALS)
    options = [list("abcde")] * 300
    questions = Questions([f"q{i}" for i in range(300)], [f"prompt {i}" for i in range(300)], options, problem.answers)
    for name, table in zip(problem.names, problem.table, strict=True):
        for fold in range(5):
            about = {"ranker": name, "family": "causal", "role": "ranker", "fold": fold, "folds": 5}
            about |= {"questions": questions.content_hash(), "contexts": "none", "config": name}
            rows = np.flatnonzero(problem.folds == fold)
            write_oof(workdir.oof_part(name, fold), questions.subset(rows), table[rows], about)
            place = workdir.fold_weights(name, fold)
            place.mkdir(parents=True)
            if name in seconds:
                facts = {"score_seconds_per_question": seconds[name], "load_seconds": 7.0}
                (place / "metrics.json").write_text(json.dumps(facts))
    return workdir


def test_tune_writes_the_cascade_and_reads_it_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir = stored(tmp_path, {"cheap": 0.002, "costly": 1.0})
    settings = TuneSettings(trials=0, bootstrap_samples=200, candidates=["equal_log"], choose="equal_log")
    record = run_tune(workdir, settings)
    assert record["cascade"] is None  # the speed of one ranker is not known
    print_cascade(record)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="middle was not measured: give it with --seconds middle=SECONDS"):
        run_tune(workdir, settings, limit=1.0)
    with pytest.raises(UserError, match="--seconds other: no such ranker"):
        run_tune(workdir, settings, seconds={"other": 1.0})
    record = run_tune(workdir, settings, seconds={"middle": 0.3})
    again = load_ensemble(workdir)["cascade"]
    assert again == json.loads(json.dumps(record["cascade"]))
    assert again["order"] == ["cheap", "middle", "costly"]
    stages = read_stages(again)
    assert [stage.seconds_per_question for stage in stages] == pytest.approx([0.01, 0.3, 5.0])  # five folds
    assert [sorted(stage.recipe.used) for stage in stages] == [
        ["cheap"],
        ["cheap", "middle"],
        ["cheap", "costly", "middle"],
    ]
    assert stages[1].recipe.blend == stages[2].recipe.blend == "log_probability"
    assert all(stage.threshold is None and stage.alive == 0 for stage in stages)
    assert again["frontier"][-1]["map3"] == pytest.approx(record["estimate"]["map3"])
    limited = run_tune(workdir, settings, seconds={"middle": 0.3}, limit=2.0)["cascade"]
    point = limited["frontier"][limited["chosen"]]
    assert point["seconds_per_question"] <= 2 and point["stages"] == limited["stages"]
    assert limited["chosen"] < len(limited["frontier"]) - 1
    print_cascade({"cascade": limited})
    told = capsys.readouterr().out
    assert "cheap alone" in told and "* " in told and told.count("\n") >= len(limited["frontier"])
    path = workdir.ensemble
    broken = json.loads(path.read_text())
    broken["cascade"]["chosen"] = 99
    path.write_text(json.dumps(broken))
    with pytest.raises(UserError, match="the cascade names a point that is not there"):
        load_ensemble(workdir)


def test_what_training_measured_is_the_cost(finished: Path) -> None:
    workdir = Workdir.open(finished)
    about = load_ensemble(workdir)["about"]
    tiny, similarity = (measured_cost(workdir, name, about[name]) for name in ("tiny", "similarity"))
    assert tiny.seconds_per_question is not None and tiny.fold_seconds is not None
    assert tiny.seconds_per_question == pytest.approx(3 * tiny.fold_seconds) and tiny.by_option
    assert tiny.load_seconds > 0
    assert similarity.seconds_per_question == pytest.approx(similarity.fold_seconds) and similarity.load_seconds == 0
    assert measured_cost(workdir, "theirs", {"family": "imported", "folds": 3}).seconds_per_question == 0
    assert measured_cost(workdir, "nowhere", {"family": "causal", "folds": 3}).seconds_per_question is None


def test_the_commands_take_a_budget(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    done = run("tune", "--seconds", "tiny=fast", cwd=folder)
    assert done.returncode == 2 and "--seconds tiny=fast" in done.stderr
    done = run("tune", "tune.choose=equal", "--seconds", "tiny=2", "--seconds-per-question", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "similarity alone" in done.stdout
    assert doubt(np.array([[0.5, 0.5]]), np.ones((1, 2), bool), "entropy") == pytest.approx(1)
    assert doubt(np.ones((2, 1)), np.ones((2, 1), bool), "margin").tolist() == [-1, -1]


@pytest.mark.parametrize(("questions", "label"), [(12, "8%"), (41, "5%"), (400, "5%")])
def test_a_plan_is_named_by_the_questions_that_are_read(questions: int, label: str) -> None:
    first = Stage("a", Recipe({"a": 1.0}))
    second = Stage("b", Recipe({"b": 1.0}), share=0.05, threshold=0.5)
    assert _note((first, second), questions) == f"a + b on {label} by margin"
