"""The blend, the search for weights, the honest estimate, the choice and `weights/ensemble.json`."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from solution import metrics
from solution.config import TuneSettings
from solution.ensemble.blend import Recipe, Stacker, apply_recipe, blend, sharpen, terms
from solution.ensemble.candidates import Problem, candidates
from solution.ensemble.evaluator import Evaluator
from solution.ensemble.line_search import best_on_segment, exact_weights, polish_weights
from solution.ensemble.nested import added_values, choose, chosen_credits, error_correlation, fit_nested
from solution.ensemble.record import load_ensemble, read_recipe
from solution.ensemble.sampler import sample_weights
from solution.ensemble.search import (
    fewer_rankers,
    fit_temperature,
    greedy_weights,
    log_loss_weights,
    starting_points,
)
from solution.ensemble.stacker import fit_stacker
from solution.ensemble.table import print_rankers, print_search, print_table
from solution.ensemble.trial_journal import TrialJournal
from solution.ensemble.tune import run_tune
from solution.errors import UserError
from solution.oof import write_oof
from solution.probabilities import merge
from solution.questions import Questions
from solution.workdir import Workdir

FEW = ["fewer", "single", "equal_log", "calibrated", "tuned"]
QUICK = TuneSettings(trials=10, bootstrap_samples=200, candidates=FEW)


def simulate(n, signals, seed=0, width=5, counts=None):
    """Rankers that see the right option's score raised by `signal` in independent noise."""
    rng = np.random.default_rng(seed)
    counts = np.full(n, width) if counts is None else np.asarray(counts)
    exists = np.arange(width) < counts[:, None]
    answers = rng.integers(0, counts)
    table = []
    for signal in signals:
        scores = rng.normal(size=(n, width))
        scores[np.arange(n), answers] += signal
        scores = np.exp(np.where(exists, scores, -np.inf))
        table.append((scores / scores.sum(axis=1, keepdims=True)).astype(np.float32))
    return np.stack(table), exists, answers


def store(workdir, tables, exists, answers, roles=None, folds=4):
    """Write a simulated exam's OOF parts."""
    n, width = exists.shape
    options = [[f"option {c}" if exists[r, c] else "" for c in range(width)] for r in range(n)]
    questions = Questions([f"q{r}" for r in range(n)], [f"prompt {r}" for r in range(n)], options, answers)
    for name, table in tables.items():
        for fold in range(folds):
            rows = np.flatnonzero(np.arange(n) % folds == fold)
            about = {"ranker": name, "family": "causal", "role": (roles or {}).get(name, "ranker"), "fold": fold}
            about |= {"folds": folds, "questions": questions.content_hash(), "contexts": "none", "config": name}
            write_oof(workdir.oof_part(name, fold), questions.subset(rows), table[rows], about)


def mix(table, weights, exists):
    names = [str(i) for i in range(len(table))]
    return blend(dict(zip(names, table, strict=True)), dict(zip(names, weights, strict=True)), exists)


# --- blend ---------------------------------------------------------------------------------


def test_blend_is_the_weighted_mean_over_existing_options():
    table, exists, _ = simulate(60, [1, 2, 0], counts=[3, 4, 5] * 20)
    result = mix(table, [0.5, 0.3, 0.2], exists)
    assert result.dtype == np.float32
    assert np.allclose(result.sum(axis=1), 1, atol=1e-6)
    assert (result[~exists] == 0).all()
    assert np.allclose(result, 0.5 * table[0] + 0.3 * table[1] + 0.2 * table[2], atol=1e-6)


def test_blend_renormalises_and_ignores_scale_and_order_of_weights():
    table, exists, _ = simulate(5000, [1, 2, 1])
    half = {"b": table[0] * 0.5, "a": table[1] * 0.5, "c": table[2] * 0.5}
    one = blend(half, {"a": 2, "b": 5, "c": 3}, exists)
    assert np.allclose(one.sum(axis=1), 1, atol=1e-6)
    for order in ("acb", "bac", "cba"):
        assert np.array_equal(one, blend(half, {name: {"a": 2, "b": 5, "c": 3}[name] for name in order}, exists))
    assert np.allclose(one, blend(half, {"a": 0.2, "b": 0.5, "c": 0.3}, exists), atol=1e-7)


def test_blend_does_not_look_at_a_ranker_of_weight_0():
    table, exists, _ = simulate(20, [1, 2])
    expected = mix(table[:1], [1], exists)
    nothing = np.full_like(table[0], np.nan)
    assert np.array_equal(blend({"a": table[0], "b": nothing}, {"a": 1, "b": 0}, exists), expected)
    assert np.array_equal(blend({"a": table[0]}, {"a": 1, "b": 0}, exists), expected)


def test_blend_masks_nan_of_missing_options():
    exists = np.array([[True, True, False]])
    result = blend({"a": np.array([[0.25, 0.75, np.nan]])}, {"a": 1}, exists)
    assert result.tolist() == [[0.25, 0.75, 0]]


@pytest.mark.parametrize("weights", [{"a": 0.0}, {"a": -1.0}, {"a": float("nan")}, {"a": float("inf")}, {}])
def test_blend_refuses_weights(weights):
    with pytest.raises(ValueError, match="weight"):
        blend({"a": np.full((2, 2), 0.5)}, weights, np.ones((2, 2), bool))


@pytest.mark.parametrize("row", [[np.nan, 0.5], [0, 0], [-0.5, 1.5], [np.inf, 0]])
def test_blend_refuses_impossible_probabilities_and_names_the_row(row):
    with pytest.raises(ValueError, match="row 1 "):
        blend({"a": np.array([[0.5, 0.5], row])}, {"a": 1.0}, np.ones((2, 2), bool))


def test_blend_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="unknown blend"):
        blend({"a": np.full((1, 2), 0.5)}, {"a": 1.0}, np.ones((1, 2), bool), kind="median")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["log_probability", "rank"])
def test_other_blends_are_the_weighted_mean_of_their_terms(kind):
    table, exists, _ = simulate(60, [1, 2, 0], counts=[3, 4, 5] * 20)
    names, weights = ["a", "b", "c"], [0.5, 0.3, 0.2]
    result = blend(dict(zip(names, table, strict=True)), dict(zip(names, weights, strict=True)), exists, kind)
    assert np.allclose(result.sum(axis=1), 1, atol=1e-6) and (result[~exists] == 0).all()
    if kind == "log_probability":
        wanted = np.where(
            exists, np.prod([part**weight for part, weight in zip(table, weights, strict=True)], axis=0), 0
        )
        wanted /= wanted.sum(axis=1, keepdims=True)
    else:
        wanted = sum(weight * terms(part, exists, kind) for part, weight in zip(table, weights, strict=True))
    assert np.allclose(result, wanted, atol=1e-5)


def test_ranks_share_places_where_options_tie():
    exists = np.array([[True, True, True, False]])
    assert np.allclose(terms(np.array([[0.5, 0.25, 0.25, 0.0]]), exists, "rank"), [[5 / 9, 2 / 9, 2 / 9, 0]])
    assert np.allclose(terms(np.array([[0.4, 0.3, 0.3, np.nan]]), exists, "rank").sum(), 1)


def test_temperature_sharpens_or_flattens_and_keeps_the_order():
    table, exists, answers = simulate(500, [1.5], counts=[3, 4, 5, 5, 5] * 100)
    flat = sharpen(table[0], exists, 4.0)
    assert np.array_equal(flat.argsort(axis=1), table[0].argsort(axis=1)) and np.allclose(flat.sum(axis=1), 1)
    assert flat.max() < table[0].max() and np.array_equal(sharpen(table[0], exists, 1.0), table[0])
    # Noise of variance 1 and a lift of 1.5: the right odds are those of 1.5 times the score.
    assert fit_temperature(table[0], exists, answers) == pytest.approx(1 / 1.5, abs=0.1)
    assert fit_temperature(flat, exists, answers) == pytest.approx(1 / 6, abs=0.03)


def test_merging_a_group():
    exists = np.array([[True, True, False]])
    tables = [np.array([[0.9, 0.1, np.nan]]), np.array([[0.3, 0.7, np.nan]])]
    assert np.allclose(merge(tables, exists, "mean"), [[0.6, 0.4, 0]])
    assert np.allclose(merge(tables, exists, "max"), [[0.9 / 1.6, 0.7 / 1.6, 0]])
    assert np.allclose(merge(tables, exists, "max_mean"), [[0.75 / 1.3, 0.55 / 1.3, 0]])


def test_a_recipe_merges_its_groups_before_the_blend_and_takes_what_is_there():
    table, exists, _ = simulate(30, [1, 1, 1])
    tables = dict(zip("abc", table, strict=True))
    recipe = Recipe({"a": 0.25, "b": 0.25, "c": 0.5}, groups=((("a", "b"), "max"),), temperatures={"c": 2.0})
    joined = {"ab": merge([tables["a"], tables["b"]], exists, "max"), "c": sharpen(tables["c"], exists, 2.0)}
    assert np.allclose(apply_recipe(recipe, tables, exists), blend(joined, {"ab": 1, "c": 1}, exists))
    assert np.allclose(apply_recipe(recipe, {"a": tables["a"]}, exists), tables["a"])


def test_a_stacker_waits_for_its_last_ranker():
    table, exists, _ = simulate(30, [1, 1])
    tables = dict(zip("ab", table, strict=True))
    recipe = Recipe({"a": 0.5, "b": 0.5}, stacker=Stacker({"a": (2.0, 0.0, 0.0), "b": (1.0, 0.0, 0.0)}))
    assert np.allclose(apply_recipe(recipe, {"b": tables["b"]}, exists), tables["b"])
    powers = table[0].astype(float) ** 2 * table[1]
    assert np.allclose(apply_recipe(recipe, tables, exists), powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


# --- fast evaluation -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["probability", "log_probability", "rank"])
def test_the_fast_evaluator_agrees_with_the_metric(kind):
    rng = np.random.default_rng(4)
    table, exists, answers = simulate(400, [1, 0.5, 2, 0], counts=[2, 3, 4, 5] * 100)
    table[:, :50] = np.where(exists[:50], 1 / exists[:50].sum(axis=1, keepdims=True), 0)  # whole rows of ties
    evaluator = Evaluator(table, exists, answers, kind)
    for weights in [np.full(4, 0.25), *np.eye(4), *rng.dirichlet(np.ones(4), 5)]:
        names = "abcd"
        mean = blend(dict(zip(names, table, strict=True)), dict(zip(names, weights, strict=True)), exists, kind)
        assert evaluator.map3(weights) == pytest.approx(metrics.map_at_k(mean, answers), abs=1e-12)
        assert np.array_equal(evaluator.credits(weights), metrics.credit_at_k(mean, answers))
        assert evaluator.log_loss(weights) == pytest.approx(metrics.log_loss(mean, answers), abs=1e-5)


def test_the_fast_evaluator_agrees_where_options_tie():
    """Sixteenths, which add without rounding: ties of whole rows, of pairs, and of blends whose parts differ."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        counts = rng.multinomial(16, np.full(4, 0.25), size=(3, 60))
        table = (counts / 16).astype(np.float32)
        answers = np.random.default_rng(seed).integers(0, 4, 60)
        weights = rng.multinomial(8, np.full(3, 1 / 3)) / 8
        total = np.tensordot(weights, table, axes=1)
        exists = np.ones((60, 4), dtype=bool)
        assert Evaluator(table, exists, answers).map3(weights) == pytest.approx(
            metrics.map_at_k(total, answers), abs=1e-12
        )


@pytest.mark.parametrize("kind", ["probability", "log_probability", "rank"])
def test_the_slope_of_the_log_loss(kind):
    table, exists, answers = simulate(200, [1, 0.5, 2], counts=[3, 4, 5, 5] * 50)
    evaluator = Evaluator(table, exists, answers, kind)
    weights = np.array([0.5, 0.2, 0.3])
    value, slope = evaluator.loss_and_slope(weights)
    for i, unit in enumerate(np.eye(3)):
        step = evaluator.loss_and_slope(weights + 1e-3 * unit)[0] - evaluator.loss_and_slope(weights - 1e-3 * unit)[0]
        assert slope[i] == pytest.approx(step / 2e-3, rel=0.02, abs=2e-3)
    assert value == pytest.approx(evaluator.log_loss(weights), abs=1e-4)


def test_an_evaluation_takes_less_than_a_millisecond():
    table, exists, answers = simulate(1000, [1] * 5)
    evaluator, weights = Evaluator(table, exists, answers), np.full(5, 0.2)
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        evaluator.value(weights)
        best = min(best, time.perf_counter() - start)
    assert best < 1e-3


# --- search --------------------------------------------------------------------------------


def search(table, exists, answers, trials=60, seed=0):
    """A sampler and the exact finish, as the candidate `tuned` has it."""
    evaluator = Evaluator(table, exists, answers)
    starts = starting_points(evaluator)
    return exact_weights(evaluator, [sample_weights(evaluator, starts, trials, seed), *starts])


def test_search_is_at_least_as_good_as_every_fixed_point():
    table, exists, answers = simulate(300, [1.5, 1.0, 0.5, 0])
    evaluator = Evaluator(table, exists, answers)
    starts = starting_points(evaluator)
    for sampler in ("tpe", "cma"):
        weights = sample_weights(evaluator, starts, 40, 0, sampler)
        assert weights.min() >= 0 and abs(weights.sum() - 1) < 1e-12
        assert all(evaluator.map3(weights) >= evaluator.map3(point) for point in starts)
        polished = polish_weights(evaluator, weights)
        assert polished.min() >= 0 and abs(polished.sum() - 1) < 1e-12
        assert evaluator.value(polished) >= evaluator.value(weights)


@pytest.mark.parametrize("rankers", [2, 3])
def test_no_grid_is_better_than_the_exact_search(rankers):
    steps = 100 if rankers == 2 else 20
    for seed in range(15):
        strengths = np.random.default_rng(seed).uniform(0.2, 1.5, rankers)
        table, exists, answers = simulate(80, strengths, seed=seed, width=4)
        names = "abc"[:rankers]
        best = 0.0
        for cut in np.ndindex(*[steps + 1] * (rankers - 1)):
            if sum(cut) <= steps:
                weights = dict(zip(names, np.array([*cut, steps - sum(cut)]) / steps, strict=True))
                best = max(
                    best, metrics.map_at_k(blend(dict(zip(names, table, strict=True)), weights, exists), answers)
                )
        evaluator = Evaluator(table, exists, answers)
        found = dict(zip(names, exact_weights(evaluator, starting_points(evaluator)), strict=True))
        assert metrics.map_at_k(blend(dict(zip(names, table, strict=True)), found, exists), answers) >= best - 1e-12


def test_a_line_search_finds_the_best_interval_of_the_line():
    table, exists, answers = simulate(60, [1, 0.7, 0.3, 0.9], seed=2)
    evaluator = Evaluator(table, exists, answers)
    start, end = np.array([0.5, 0.5, 0, 0]), np.array([0, 0.1, 0.4, 0.5])
    point, value = best_on_segment(evaluator, start, end)
    along = [evaluator.map3((1 - u) * start + u * end) for u in np.linspace(0.0005, 0.9995, 2000)]
    assert value == pytest.approx(evaluator.map3(point), abs=1e-12)
    assert value >= max(along) - 1e-12


def test_search_finds_a_known_best_blend():
    # Two independent rankers of the same strength and two of noise: half and half is best.
    table, exists, answers = simulate(3000, [1.2, 1.2, 0, 0], seed=1)
    best = metrics.map_at_k(mix(table, [0.5, 0.5, 0, 0], exists), answers)
    for weights in (search(table, exists, answers), greedy_weights(Evaluator(table, exists, answers))):
        assert metrics.map_at_k(mix(table, weights, exists), answers) >= best - 0.002
        assert abs(weights[0] - weights[1]) < 0.3 and weights[2:].sum() < 0.3
    assert fewer_rankers(Evaluator(table, exists, answers)).tolist() == [0.5, 0.5, 0, 0]


def test_search_breaks_ties_by_log_loss():
    # Both rankers order every option rightly, so MAP@3 is 1 whatever the weights; the surer one has the lower loss.
    answers = np.zeros(30, dtype=int)
    table = np.stack([np.tile([0.4, 0.3, 0.3], (30, 1)), np.tile([0.9, 0.05, 0.05], (30, 1))])
    evaluator = Evaluator(table, np.ones((30, 3), bool), answers)
    assert sample_weights(evaluator, starting_points(evaluator), 20, 0)[1] > 0.999
    assert greedy_weights(evaluator)[1] == 1


@pytest.mark.parametrize("kind", ["probability", "log_probability"])
def test_log_loss_weights_are_the_optimum(kind):
    table, exists, answers = simulate(400, [1.5, 1.0, 0], seed=3)
    evaluator = Evaluator(table, exists, answers, kind)
    weights = log_loss_weights(evaluator)
    assert weights.min() >= 0 and abs(weights.sum() - 1) < 1e-12
    if kind == "log_probability":  # of any sum there; the right proportions are those of the strengths
        assert np.allclose(weights, [0.6, 0.4, 0], atol=0.1)
        return
    right = table[:, np.arange(400), answers].astype(float)
    # Karush-Kuhn-Tucker: the mean of p_i / mix is 1 for every ranker in use and at most 1 for the others.
    slope = (right / (weights @ right)).mean(axis=1)
    assert np.all(slope <= 1 + 1e-3)
    assert np.allclose(slope[weights > 1e-3], 1, atol=1e-3)


@pytest.mark.parametrize("sampler", ["tpe", "cma"])
def test_a_killed_search_goes_on_to_the_same_result(tmp_path, sampler):
    table, exists, answers = simulate(100, [1, 0.5, 0.2])
    evaluator = Evaluator(table, exists, answers)
    starts = starting_points(evaluator)
    whole = TrialJournal(tmp_path / "whole" / "tune.journal")
    once = sample_weights(evaluator, starts, 30, 5, sampler, whole, "s")
    assert np.array_equal(once, sample_weights(evaluator, starts, 30, 5, sampler))

    class Killed(BaseException):
        pass

    class Dying(Evaluator):
        left = 17

        def value(self, weights):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().value(weights)

    stopped = TrialJournal(tmp_path / "stopped" / "tune.journal")
    with pytest.raises(Killed):
        sample_weights(Dying(table, exists, answers), starts, 30, 5, sampler, stopped, "s")
    stopped.close()
    again = TrialJournal(tmp_path / "stopped" / "tune.journal")
    assert again.worker == 0 and len(again.study("s").trials) == 17
    rest = Dying(table, exists, answers)
    rest.left = 30 + len(starts) - 17  # what was finished is not evaluated again
    assert np.array_equal(once, sample_weights(rest, starts, 30, 5, sampler, again, "s"))
    params = [[trial.params for trial in journal.study("s").trials] for journal in (whole, again)]
    assert params[0] == params[1]
    shorter = sample_weights(evaluator, starts, 8, 5, sampler)
    assert np.array_equal(shorter, sample_weights(evaluator, starts, 8, 5, sampler, whole, "s"))


@pytest.mark.parametrize("sampler", ["tpe", "cma"])
def test_a_journal_cut_anywhere_goes_on_to_the_same_result(tmp_path, sampler):
    """As a full disk leaves it: with half of a line at its end."""
    table, exists, answers = simulate(60, [1, 0.5])
    evaluator = Evaluator(table, exists, answers)
    starts = starting_points(evaluator)
    path = tmp_path / "tune.journal"
    journal = TrialJournal(path)
    once = sample_weights(evaluator, starts, 6, 5, sampler, journal, "s")
    journal.close()
    whole = path.read_bytes()
    for cut in np.random.default_rng(0).integers(1, len(whole), 12):
        path.write_bytes(whole[:cut])
        journal = TrialJournal(path)
        assert np.array_equal(once, sample_weights(evaluator, starts, 6, 5, sampler, journal, "s"))
        journal.close()
        TrialJournal(path).close()
        assert path.read_bytes().endswith(b"\n")


def test_two_workers_share_a_search(tmp_path):
    table, exists, answers = simulate(100, [1, 0.5, 0.2])
    evaluator = Evaluator(table, exists, answers)
    starts = starting_points(evaluator)
    first, second = TrialJournal(tmp_path / "tune.journal"), TrialJournal(tmp_path / "tune.journal")
    assert (first.worker, second.worker) == (0, 1)
    sample_weights(evaluator, starts, 12, 0, "tpe", second, "s")  # all by the second: the first finds it done
    found = sample_weights(evaluator, starts, 12, 0, "tpe", first, "s")
    trials = first.study("s").trials
    assert evaluator.value(found) >= max(evaluator.value(start) for start in starts) - 1e-12
    assert {trial.user_attrs["worker"] for trial in trials} == {0, 1}


def test_old_journals_go_unless_somebody_works_on_them(tmp_path):
    old, busy = TrialJournal(tmp_path / "old.journal"), TrialJournal(tmp_path / "busy.journal")
    old.close()
    new = TrialJournal(tmp_path / "new.journal")
    assert sorted(path.name for path in tmp_path.glob("*.journal")) == ["busy.journal", "new.journal"]
    busy.close()
    new.close()


def test_a_corrupt_journal_is_begun_anew(tmp_path):
    (tmp_path / "tune.journal").write_text("{not json\nat all\n")
    journal = TrialJournal(tmp_path / "tune.journal")
    assert journal.study("s").trials == []


def test_search_is_deterministic_and_one_ranker_needs_none():
    table, exists, answers = simulate(100, [1, 0.5, 0.2])
    assert np.array_equal(search(table, exists, answers), search(table.copy(), exists, answers))
    assert search(table[:1], exists, answers, 10**9).tolist() == [1]


def test_search_without_trials_takes_the_best_fixed_point():
    table, exists, answers = simulate(200, [3, 0, 0])
    evaluator = Evaluator(table, exists, answers)
    starts = starting_points(evaluator)
    weights = sample_weights(evaluator, starts, 0, 0)
    assert evaluator.map3(weights) == max(evaluator.map3(point) for point in starts)
    assert any(np.allclose(weights, point) for point in starts)


def test_the_stacker_learns_whom_to_trust_when():
    # The first ranker is right where it is sure, and knows nothing where its margin is small.
    rng = np.random.default_rng(0)
    table, exists, answers = simulate(1500, [0, 1.0])
    sure = rng.random(1500) < 0.5
    first = rng.dirichlet(np.full(5, 50), 1500)
    first[sure] = 0.05
    first[sure, answers[sure]] = 0.8
    table = np.stack([first.astype(np.float32), table[1]])
    half = np.arange(1500) < 1000
    folds = np.arange(1500) % 4
    stacker = fit_stacker(["a", "b"], table[:, half], exists[half], answers[half], folds[half])
    tables = {"a": table[0, ~half], "b": table[1, ~half]}
    stacked = apply_recipe(Recipe({"a": 0.5, "b": 0.5}, stacker=stacker), tables, exists[~half])
    equal = blend(tables, {"a": 1, "b": 1}, exists[~half])
    assert metrics.log_loss(stacked, answers[~half]) < metrics.log_loss(equal, answers[~half]) - 0.1
    assert metrics.map_at_k(stacked, answers[~half]) > metrics.map_at_k(equal, answers[~half]) - 0.005


# --- nested estimate -----------------------------------------------------------------------


def problem_of(table, exists, answers, folds=5, groups=()):
    names = [f"r{i:02d}" for i in range(len(table))]
    return Problem(names, table, exists, answers, np.arange(len(answers)) % folds, groups)


def test_nested_never_fits_on_the_fold_it_scores():
    table, exists, answers = simulate(40, [1, 1])
    problem = problem_of(table, exists, answers, 4)
    seen = []

    def fit(part):
        assert part.table.shape == (2, 30, 5) and part.exists.shape == (30, 5)
        seen.append({int(np.flatnonzero((table[0] == row).all(axis=1))[0]) for row in part.table[0]})
        return Recipe({"r00": len(seen) / 10, "r01": 1 - len(seen) / 10})  # other weights for each fold

    result, recipes = fit_nested(problem, fit)
    for fold in range(4):
        held_out = problem.folds == fold
        assert seen[fold].isdisjoint(np.flatnonzero(held_out).tolist())
        weights = np.array([fold + 1, 9 - fold]) / 10
        assert list(recipes[fold].weights.values()) == pytest.approx(weights)
        assert np.allclose(result[held_out], mix(table[:, held_out], weights, exists[held_out]))


def test_the_estimate_is_honest_and_noise_does_no_harm(monkeypatch):
    """A small version of benchmarks/simulate.py."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    simulation = importlib.import_module("simulate")

    names = "fewer equal_log fewer_log calibrated tuned_exact"
    in_sample, honest, lost = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        strengths = (1.2, 1.0) + (0.0,) * 5
        exam = simulation.simulate(200, strengths, rng)
        fresh = simulation.simulate(5000, strengths, rng)
        made = simulation.tune(exam, names)
        exact = made["recipes"]["tuned_exact"]
        truth = simulation.score(fresh, exact)
        in_sample.append(simulation.score(exam, exact) - truth)
        honest.append(made["credits"]["tuned_exact"].mean() - truth)
        part = Problem(exam.names[:2], exam.table[:2], exam.exists, exam.answers, exam.folds)
        few = simulation.tune(part, names)["shipped"]
        without = Problem(fresh.names[:2], fresh.table[:2], fresh.exists, fresh.answers, fresh.folds)
        lost.append(simulation.score(without, few) - simulation.score(fresh, made["shipped"]))
    mean, error = simulation.mean_and_error(in_sample)
    assert mean > 3 * error  # tuned on its own questions a blend looks better than it is
    mean, error = simulation.mean_and_error(honest)
    assert abs(mean) < 2.5 * error
    assert np.mean(lost) < 0.01


def test_the_rule_of_the_choice():
    rng = np.random.default_rng(0)
    equal = rng.choice([0, 1 / 3, 1 / 2, 1], 200)
    sizes = {"equal": 4, "fewer": 2, "single": 1, "greedy": 4, "tuned": 4, "equal_log": 4}

    def shifted(gain, noise=0.05):
        wave = rng.normal(size=200)
        return equal + gain + noise * (wave - wave.mean()) / wave.std()

    def chosen(**more):
        return choose({"equal": equal, **more}, sizes).name

    assert chosen(tuned=equal) == "equal"
    assert chosen(tuned=shifted(0.05)) == "tuned"
    assert chosen(tuned=shifted(0.003)) == "equal"  # 0.85 standard errors
    assert chosen(tuned=shifted(0.0045)) == "tuned"  # 1.3 standard errors suffice for one candidate,
    many = {name: shifted(0.0045 if name == "tuned" else 0) for name in ("single", "greedy", "tuned")}
    assert chosen(**many) == "equal"  # but not for the best of three
    # Equal weights of fewer rankers, or of logarithms, where they are as good.
    assert chosen(fewer=shifted(0.0001)) == "fewer"
    assert chosen(fewer=shifted(-0.002)) == "equal"
    assert chosen(equal_log=shifted(0.0001)) == "equal_log"
    # The plainest of those that are as good as the best.
    assert chosen(greedy=shifted(0.05), tuned=shifted(0.051)) == "greedy"


def test_the_best_of_many_that_are_all_the_same_ships_seldom():
    rng = np.random.default_rng(3)
    names = ["fewer", "single", "calibrated", "log_loss", "greedy", "tuned_exact", "tuned", "stacker"]
    left = 0
    for _ in range(200):
        equal = rng.choice([0, 1 / 3, 1 / 2, 1], 150)
        credits = {"equal": equal} | {name: equal + rng.normal(size=150) * 0.1 for name in names}
        left += choose(credits, dict.fromkeys(credits, 4)).name != "equal"
    assert 15 <= left <= 52  # 16 % of 200 is 32; the best of eight alone would pass one standard error 75 % of the time


def test_the_choice_is_judged_on_folds_that_did_not_make_it():
    folds = np.arange(100) % 2
    equal = np.full(100, 0.5)
    # Better by far on fold 0, worse on fold 1: chosen for fold 1 only, where it is worse.
    flattering = np.where(folds == 0, 0.9, 0.2) + np.where(np.arange(100) % 4 < 2, 0.05, -0.05)
    sizes = {fold: {"equal": 2, "tuned": 2} for fold in (0, 1)}
    result = chosen_credits({"equal": equal, "tuned": flattering}, sizes, folds)
    assert np.array_equal(result[folds == 1], flattering[folds == 1])
    assert np.array_equal(result[folds == 0], equal[folds == 0])


def test_what_a_ranker_adds():
    table, exists, answers = simulate(200, [1.5, 1.5, 0])
    problem = problem_of(table, exists, answers)
    recipe = Recipe({"r00": 0.5, "r01": 0.5, "r02": 0.0})
    credits = metrics.credit_at_k(problem.answer(recipe), answers)
    told = added_values(problem, dict.fromkeys(range(5), recipe), credits, 200, 0)
    assert told["r02"] is None
    assert told["r00"]["without"] == pytest.approx(metrics.map_at_k(table[1], answers))
    assert told["r00"]["added"] == pytest.approx(credits.mean() - told["r00"]["without"])
    assert told["r00"]["low"] < told["r00"]["added"] < told["r00"]["high"]


def test_correlation_of_errors():
    table, exists, answers = simulate(500, [1, 1])
    sure = np.zeros_like(table[0])
    sure[np.arange(500), answers] = 1
    problem = problem_of(np.stack([table[0], table[1], table[0], sure]), exists, answers)
    told = error_correlation(problem)
    assert told[0][2] == pytest.approx(1) and abs(told[0][1]) < 0.15
    assert told[0][3] is None and told[3][3] is None


def test_groups_are_candidates():
    table, exists, answers = simulate(100, [1, 1, 1, 0.5])
    problem = problem_of(table, exists, answers, groups=[["r00", "r01", "r02"]])
    settings = TuneSettings(trials=0, candidates=["mean", "max", "max_mean"])
    made = {rival.name: rival.fit(problem) for rival in candidates(problem, settings)}
    assert list(made) == ["equal", "mean", "max", "max_mean"]
    assert made["max"].groups == ((("r00", "r01", "r02"), "max"),)
    assert list(made["max"].weights.values()) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert not np.allclose(problem.answer(made["max"]), problem.answer(made["mean"]))
    assert [rival.name for rival in candidates(problem_of(table, exists, answers), settings)] == ["equal"]


# --- run_tune ------------------------------------------------------------------------------


@pytest.fixture
def workdir(tmp_path):
    return Workdir.open(tmp_path / "exam")


def test_another_blend_ships_where_it_is_honestly_better(workdir):
    table, exists, answers = simulate(400, [2.0, 0, 0, 0])
    store(workdir, dict(zip(["strong", "x", "y", "z"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK)
    assert record["choice"] == "fewer" and record["weights"] == {"strong": 1, "x": 0, "y": 0, "z": 0}
    assert record["reason"].startswith("fewer: 1 of 4 rankers") and "\n" not in record["reason"]
    assert record["estimate"]["kind"] == "nested"
    told = {each["name"]: each for each in record["candidates"]}
    assert list(told) == ["equal", *FEW]
    assert record["estimate"]["map3"] == pytest.approx(told["fewer"]["nested"]["map3"])  # chosen in every fold
    assert told["tuned"]["in_sample_map3"] >= max(row["map3"] for row in record["table"] if row["kind"] == "ranker")
    rows = {row["kind"]: row for row in record["table"] if row["kind"] != "ranker"}
    assert told["tuned"]["nested"]["map3"] == rows["tuned_nested"]["map3"]
    assert told["tuned"]["in_sample_map3"] == pytest.approx(rows["tuned_in_sample"]["map3"])
    assert told["fewer"]["versus_equal"]["low"] > 0.05
    assert [row["name"] for row in record["table"] if row["shipped"]] == ["equal, fewer rankers"]
    assert record["search"]["tuned"]["exact"] >= record["search"]["tuned"]["sampler"]


def test_equal_weights_ship_where_tuning_gains_nothing(workdir):
    table, exists, answers = simulate(300, [0.6, 0.6], seed=2)
    store(workdir, dict(zip(["a", "b"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK)
    assert record["choice"] in ("equal", "equal_log") and record["weights"] == {"a": 0.5, "b": 0.5}
    assert "standard errors: no more than the noise" in record["reason"] and "\n" not in record["reason"]
    equal = apply_recipe(read_recipe(record), dict(zip("ab", table, strict=True)), exists)
    assert record["in_sample_map3"] == pytest.approx(metrics.map_at_k(equal, answers))
    assert record["estimate"]["low"] < record["estimate"]["map3"] < record["estimate"]["high"]


@pytest.mark.parametrize("asked", ["tuned", "equal", "single", "stacker", "tuned_rank", "calibrated", "max"])
def test_the_user_can_choose(workdir, asked):
    table, exists, answers = simulate(200, [0.9, 0.8, 0.3])
    store(workdir, dict(zip(["a", "b", "c"], table, strict=True)), exists, answers)
    settings = QUICK.model_copy(update={"choose": asked})
    record = run_tune(workdir, settings, groups={"pair": ["a", "b", "absent"]})
    assert record["choice"] == asked and f"tune.choose={asked}" in record["reason"]
    told = {each["name"]: each for each in record["candidates"]}[asked]
    assert record["weights"] == told["weights"]
    if asked in ("equal", "single"):
        assert record["weights"] == {"equal": dict.fromkeys("abc", 1 / 3), "single": {"a": 1, "b": 0, "c": 0}}[asked]
    assert record["estimate"]["kind"] == ("oof" if asked == "equal" else "nested")
    assert record["estimate"]["map3"] == pytest.approx(told["nested"]["map3"])
    assert sum(row["shipped"] for row in record["table"]) == 1
    # What the file holds is what was scored: the blend it describes has the in-sample score that it names.
    stored = load_ensemble(workdir)
    assert stored == record
    again = apply_recipe(read_recipe(stored), dict(zip("abc", table, strict=True)), exists)
    assert metrics.map_at_k(again, answers) == pytest.approx(record["in_sample_map3"], abs=1e-12)


def test_a_merge_needs_a_group(workdir):
    table, exists, answers = simulate(40, [0.9, 0.8])
    store(workdir, dict(zip(["a", "b"], table, strict=True)), exists, answers)
    with pytest.raises(UserError, match="ensemble.groups"):
        run_tune(workdir, QUICK.model_copy(update={"choose": "max"}))


def test_table_agrees_with_metrics_and_shows_baselines(workdir):
    table, exists, answers = simulate(120, [1, 0.5, 0.2], counts=[3, 4, 5] * 40)
    roles = {"longest": "baseline"}
    names = ["a", "b", "longest"]
    store(workdir, dict(zip(names, table, strict=True)), exists, answers, roles)
    record = run_tune(workdir, QUICK)
    rows = {row["name"]: row for row in record["table"]}
    for name, alone in zip(names, table, strict=True):
        # The store sorts by fold, so sums run in another order.
        assert rows[name]["map3"] == pytest.approx(metrics.map_at_k(alone, answers), abs=1e-12)
        assert rows[name]["precision1"] == pytest.approx(metrics.precision_at_k(alone, answers, k=1), abs=1e-12)
        assert rows[name]["log_loss"] == pytest.approx(metrics.log_loss(alone, answers), abs=1e-9)
        assert rows[name]["low"] < rows[name]["map3"] < rows[name]["high"]
    assert rows["longest"]["kind"] == "baseline" and rows["longest"]["weight"] is None
    assert set(record["weights"]) == {"a", "b"} and "longest" in record["about"]
    assert rows["random"]["map3"] == pytest.approx((11 / 18 + 11 / 24 + 11 / 30) / 3)
    assert rows["random"]["precision1"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3)
    assert rows["a"]["weight"] == record["weights"]["a"]


def test_one_ranker_has_weight_1_without_a_search(workdir):
    table, exists, answers = simulate(60, [1])
    store(workdir, {"only": table[0]}, exists, answers)
    record = run_tune(workdir, TuneSettings(trials=10**9, choose="tuned"))
    assert record["weights"] == {"only": 1.0} and record["choice"] == "single"
    assert [row["kind"] for row in record["table"]] == ["ranker", "random"]
    assert record["table"][0]["shipped"]
    load_ensemble(workdir)


def test_baselines_alone_are_refused(workdir):
    table, exists, answers = simulate(40, [1])
    store(workdir, {"longest": table[0]}, exists, answers, {"longest": "baseline"})
    with pytest.raises(UserError, match="only baselines"):
        run_tune(workdir, QUICK)
    assert not workdir.ensemble.exists()


def test_mixed_option_counts_never_get_probability_where_there_is_no_option(workdir):
    table, exists, answers = simulate(120, [1, 0.8], counts=[3, 4, 5] * 40)
    store(workdir, dict(zip(["a", "b"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK)
    result = mix(table, record["weights"].values(), exists)
    assert (result[~exists] == 0).all() and np.allclose(result.sum(axis=1), 1, atol=1e-6)


def test_same_oof_gives_the_same_bytes_in_whatever_order(tmp_path):
    table, exists, answers = simulate(120, [1, 0.8, 0.1])
    tables = dict(zip(["a", "b", "c"], table, strict=True))
    written = []
    for number, order in enumerate(["abc", "cab"]):
        workdir = Workdir.open(tmp_path / str(number))
        store(workdir, {name: tables[name] for name in order}, exists, answers)
        run_tune(workdir, QUICK, list(order))
        written.append(workdir.ensemble.read_bytes())
        run_tune(workdir, QUICK)
        written.append(workdir.ensemble.read_bytes())
    assert len(set(written)) == 1


def test_only_the_rankers_named_are_blended(workdir):
    table, exists, answers = simulate(60, [1, 0.8, 0.1])
    store(workdir, dict(zip(["a", "b", "c"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK, ["c", "a"])
    assert record["rankers"] == ["a", "c"] and set(record["about"]) == {"a", "c"}
    assert sorted(record["oof_files"]) == sorted(f"{name}/fold_{fold}.parquet" for name in "ac" for fold in range(4))


# --- the file ------------------------------------------------------------------------------


@pytest.fixture
def tuned(workdir):
    table, exists, answers = simulate(60, [1, 0.8])
    store(workdir, dict(zip(["a", "b"], table, strict=True)), exists, answers)
    return workdir, run_tune(workdir, QUICK)


def test_round_trip(tuned):
    workdir, record = tuned
    assert load_ensemble(workdir) == record
    assert [path.name for path in workdir.weights.iterdir()] == ["ensemble.json"]


def test_missing_file_says_what_to_run(workdir):
    with pytest.raises(UserError, match="not found.*python -m solution tune"):
        load_ensemble(workdir)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("weights"), "weights"),
        (lambda r: r.pop("estimate"), "estimate"),
        (lambda r: r.pop("schema"), "schema"),
        (lambda r: r.update(schema=99), "schema"),
        (lambda r: r.update(blend="magic"), "blend"),
        (lambda r: r.update(temperatures=[1]), "temperatures"),
        (lambda r: r["weights"].update(a=-0.5, b=1.5), "at least 0"),
        (lambda r: r["weights"].update(a=0.9, b=0.9), "sum to 1"),
        (lambda r: r["weights"].update(a=float("nan")), "weights.a"),
        (lambda r: r["weights"].update(a=float("inf")), "weights.a"),
        (lambda r: r["weights"].update(a="0.5"), "weights.a"),
        (lambda r: r["weights"].update(a=True, b=0.0), "weights.a"),
        (lambda r: r.update(weights={"a": 1.0}), "same rankers"),
        (lambda r: r.update(rankers=[], weights={}), "rankers"),
        (lambda r: r.update(rankers=["../a"], weights={"../a": 1.0}), "rankers"),
        (lambda r: r["about"].pop("a"), "about"),
        (lambda r: r["estimate"].update(kind="guess"), "estimate.kind"),
        (lambda r: r.update(temperatures={"a": 0.0}), "temperatures.a"),
        (lambda r: r.update(temperatures={"z": 1.0}), "z, which is not among the rankers"),
        (lambda r: r.update(groups=[{"rankers": ["a", "b"], "merge": "median"}]), "groups.0.merge"),
        (lambda r: r.update(stacker={"coefficients": {"a": [1.0, 0.0]}}), "stacker.coefficients.a"),
        (lambda r: r.update(stacker={"coefficients": {"a": [1.0, 0.0, 0.0]}}), "coefficients"),
        (lambda r: r.update(choice="guess"), "choice"),
    ],
)
def test_each_corruption_is_refused(tuned, change, said):
    workdir, record = tuned
    change(record)
    workdir.ensemble.write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        load_ensemble(workdir)
    assert said in str(error.value) and "python -m solution tune" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_what_is_not_an_ensemble_is_refused(tuned, text):
    workdir, _ = tuned
    workdir.ensemble.write_text(text)
    with pytest.raises(UserError, match="python -m solution tune"):
        load_ensemble(workdir)


# --- printing ------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 100])
def test_table_fits_and_marks_what_ships(tuned, capsys, monkeypatch, columns):
    record = tuned[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = record["table"]
    rows.insert(2, {**rows[0], "name": "longest", "kind": "baseline", "weight": None, "shipped": False})
    print_table(rows)
    out = capsys.readouterr().out
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= columns
    lines = {name: next(line for line in out.splitlines() if name in line) for name in ("TPE + exact ", "longest")}
    assert "longest (baseline)" in lines["longest"]
    marked = [line for line in out.splitlines() if line.startswith("* ") and "shipped;" not in line]
    shipped = next(row for row in rows if row["shipped"])
    assert len(marked) == 1 and shipped["name"] in marked[0] and f"{shipped['map3']:.4f}" in marked[0]
    nested = next(row for row in rows if row["kind"] == "tuned_nested")
    told = lines["TPE + exact "]
    assert f"{nested['map3']:.4f}" in told and f"{nested['difference']:+.4f}" in told
    assert (f"{nested['difference_low']:+.3f}" in told.split("..")[0][-8:]) == (columns >= 100)
    assert "weight: in what is shipped" in out
    print_table([{**row, "name": "stacker"} if row is shipped else row for row in rows])
    assert "weight: where a ranker is missing" in capsys.readouterr().out
    print_table(rows, {rival["title"]: rival["name"] for rival in record["candidates"]})
    out = capsys.readouterr().out
    for rival in record["candidates"]:
        assert f"{rival['name']}: " in out or rival["name"] == rival["title"]
    print_rankers(record)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if not line.startswith("adds:")) <= columns
    assert all(f"{i + 1} {name}" in out for i, name in enumerate(record["rankers"]))
    print_search(record)
    assert f"estimate: MAP@3 {record['estimate']['map3']:.4f}" in capsys.readouterr().out


def test_no_column_is_empty_in_every_row(tuned, capsys):
    record = tuned[1]
    names = record["rankers"]
    unknown = [[None] * len(names) for _ in names]  # each ranker earns the same on every question
    print_rankers(record | {"error_correlation": unknown})
    out = capsys.readouterr().out
    assert "adds" in out and "err" not in out
    print_rankers(record | {"error_correlation": unknown, "added_value": dict.fromkeys(names)})
    assert capsys.readouterr().out == ""


def test_a_gain_of_nothing_has_no_minus():
    rng = np.random.default_rng(0)
    equal = rng.random(100)
    better = equal + 1e-6 * np.tile([-1.0, 0.99], 50)
    told = choose({"equal": equal, "single": better}, {"equal": 2, "single": 1}).reason
    assert "+0.0000" in told and "-0.0" not in told


def test_importing_the_command_line_loads_nothing_heavy():
    code = (
        "import sys, solution.cli.app, solution.ensemble.table;"
        "print([m for m in ('torch', 'optuna', 'scipy', 'pandas', 'sklearn', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
