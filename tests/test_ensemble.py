"""The blend, the search for weights, the honest estimate, the choice and `weights/ensemble.json`."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from solution import metrics
from solution.config import TuneSettings
from solution.ensemble.blend import blend
from solution.ensemble.table import print_table
from solution.ensemble.tune import (
    best_single,
    choose,
    load_ensemble,
    log_loss_weights,
    nested_blend,
    run_tune,
    search_weights,
)
from solution.errors import UserError
from solution.oof import write_oof
from solution.questions import Questions
from solution.workdir import Workdir

QUICK = TuneSettings(trials=40, bootstrap_samples=200)


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


# --- search --------------------------------------------------------------------------------


def test_search_is_at_least_as_good_as_every_fixed_point():
    table, exists, answers = simulate(300, [1.5, 1.0, 0.5, 0])
    weights = search_weights(table, exists, answers, 60, 0)
    assert weights.min() >= 0 and abs(weights.sum() - 1) < 1e-12
    tuned = metrics.map_at_k(mix(table, weights, exists), answers)
    points = [*np.eye(4), np.full(4, 0.25), log_loss_weights(table, answers)]
    assert all(tuned >= metrics.map_at_k(mix(table, point, exists), answers) for point in points)


def test_search_finds_a_known_best_blend():
    # Two independent rankers of the same strength and two of noise: half and half is best.
    table, exists, answers = simulate(3000, [1.2, 1.2, 0, 0], seed=1)
    weights = search_weights(table, exists, answers, 150, 0)
    best = metrics.map_at_k(mix(table, [0.5, 0.5, 0, 0], exists), answers)
    assert metrics.map_at_k(mix(table, weights, exists), answers) >= best - 0.002
    assert abs(weights[0] - weights[1]) < 0.2 and weights[2:].sum() < 0.3


def test_search_breaks_ties_by_log_loss():
    # Both rankers order every option rightly, so MAP@3 is 1 whatever the weights; the surer one has the lower loss.
    answers = np.zeros(30, dtype=int)
    table = np.stack([np.tile([0.4, 0.3, 0.3], (30, 1)), np.tile([0.9, 0.05, 0.05], (30, 1))])
    weights = search_weights(table, np.ones((30, 3), bool), answers, 20, 0)
    assert weights[1] > 0.999


def test_log_loss_weights_are_the_optimum():
    table, exists, answers = simulate(400, [1.5, 1.0, 0], seed=3)
    weights = log_loss_weights(table, answers)
    assert weights.min() >= 0 and abs(weights.sum() - 1) < 1e-12
    right = table[:, np.arange(400), answers].astype(float)
    # Karush-Kuhn-Tucker: the mean of p_i / mix is 1 for every ranker in use and at most 1 for the others.
    slope = (right / (weights @ right)).mean(axis=1)
    assert np.all(slope <= 1 + 1e-3)
    assert np.allclose(slope[weights > 1e-3], 1, atol=1e-3)


def test_search_is_deterministic_and_one_ranker_needs_none():
    table, exists, answers = simulate(100, [1, 0.5, 0.2])
    once = search_weights(table, exists, answers, 30, 5)
    assert np.array_equal(once, search_weights(table.copy(), exists, answers, 30, 5))
    assert search_weights(table[:1], exists, answers, 10**9, 0).tolist() == [1]


def test_search_without_trials_takes_the_best_fixed_point():
    table, exists, answers = simulate(200, [3, 0, 0])
    weights = search_weights(table, exists, answers, 0, 0)
    points = [*np.eye(3), np.full(3, 1 / 3), log_loss_weights(table, answers)]
    best = max(metrics.map_at_k(mix(table, point, exists), answers) for point in points)
    assert metrics.map_at_k(mix(table, weights, exists), answers) == best
    assert any(np.allclose(weights, point) for point in points)


def test_an_evaluation_takes_about_a_millisecond():
    table, exists, answers = simulate(1000, [1] * 5)
    names = [str(i) for i in range(5)]
    probabilities, weights = dict(zip(names, table, strict=True)), dict.fromkeys(names, 0.2)
    best = np.inf
    for _ in range(20):
        start = time.perf_counter()
        result = blend(probabilities, weights, exists)
        metrics.map_at_k(result, answers), metrics.log_loss(result, answers)
        best = min(best, time.perf_counter() - start)
    assert best < 2e-3


# --- nested estimate -----------------------------------------------------------------------


def test_nested_blend_never_fits_on_the_fold_it_scores():
    table, exists, answers = simulate(40, [1, 1])
    folds = np.arange(40) % 4
    seen = []

    def fit(part, there, right):
        assert part.shape == (2, 30, 5) and there.shape == (30, 5)
        seen.append({int(np.flatnonzero((table[0] == row).all(axis=1))[0]) for row in part[0]})
        return np.array([len(seen), 1.0])  # other weights for each fold

    result = nested_blend(table, exists, answers, folds, fit)
    for fold in range(4):
        held_out = folds == fold
        assert seen[fold].isdisjoint(np.flatnonzero(held_out).tolist())
        weights = np.array([fold + 1, 1.0])
        assert np.allclose(result[held_out], mix(table[:, held_out], weights, exists[held_out]))


def test_nested_estimate_does_not_flatter_noise():
    in_sample, nested = [], []
    for seed in range(3):
        table, exists, answers = simulate(200, [0, 0, 0, 0], seed=seed)

        def fit(*part):
            return search_weights(*part, trials=60, seed=0)

        weights = fit(table, exists, answers)
        in_sample.append(metrics.map_at_k(mix(table, weights, exists), answers))
        nested.append(metrics.map_at_k(nested_blend(table, exists, answers, np.arange(200) % 5, fit), answers))
    random = metrics.expected_random_map(np.full(200, 5))
    assert np.mean(in_sample) > random + 0.02  # tuned on its own questions, noise looks good
    assert np.mean(nested) < np.mean(in_sample) - 0.01
    assert abs(np.mean(nested) - random) < 0.035  # 2.6 standard errors of 600 questions


def test_best_single_breaks_ties_by_log_loss():
    answers = np.zeros(4, dtype=int)
    table = np.stack([np.tile([0.6, 0.4], (4, 1)), np.tile([0.8, 0.2], (4, 1)), np.tile([0.3, 0.7], (4, 1))])
    assert best_single(table, np.ones((4, 2), bool), answers).tolist() == [0, 1, 0]


# --- run_tune ------------------------------------------------------------------------------


@pytest.fixture
def workdir(tmp_path):
    return Workdir.open(tmp_path / "exam")


def test_tuned_weights_ship_where_they_are_honestly_better(workdir):
    table, exists, answers = simulate(400, [2.0, 0, 0, 0])
    store(workdir, dict(zip(["strong", "x", "y", "z"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK)
    assert record["choice"] == "tuned" and record["reason"].startswith("tuned: ")
    assert record["estimate"]["kind"] == "nested"
    rows = {row["kind"]: row for row in record["table"] if row["kind"] != "ranker"}
    assert record["estimate"]["map3"] == rows["tuned_nested"]["map3"]
    assert record["in_sample_map3"] == rows["tuned_in_sample"]["map3"]
    assert record["in_sample_map3"] >= max(row["map3"] for row in record["table"] if row["kind"] == "ranker")
    assert rows["tuned_nested"]["difference"] > 0.05 and rows["tuned_nested"]["difference_low"] > 0
    assert [row["kind"] for row in record["table"] if row["shipped"]] == ["tuned_nested"]


def test_added_noise_does_not_cost_a_hundredth_held_out(tmp_path):
    n = 300
    for seed in range(3):
        table, exists, answers = simulate(n + 20000, [1.5, 1.5, 0], seed=seed)
        names = ["a", "b", "noise"]
        scores = {}
        for kept in (2, 3):
            workdir = Workdir.open(tmp_path / f"{seed}_{kept}")
            store(workdir, dict(zip(names[:kept], table[:, :n], strict=False)), exists[:n], answers[:n])
            weights = run_tune(workdir, QUICK)["weights"]
            held_out = blend(dict(zip(names, table[:, n:], strict=True)), weights, exists[n:])
            scores[kept] = metrics.map_at_k(held_out, answers[n:])
        assert scores[3] > scores[2] - 0.01


def test_equal_weights_ship_where_tuning_gains_nothing(workdir):
    table, exists, answers = simulate(300, [0.6, 0.6], seed=2)
    store(workdir, dict(zip(["a", "b"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK)
    assert record["choice"] == "equal" and record["weights"] == {"a": 0.5, "b": 0.5}
    assert "standard error" in record["reason"] and "\n" not in record["reason"]
    assert record["estimate"]["kind"] == "oof"
    equal = mix(table, [0.5, 0.5], exists)
    assert abs(record["estimate"]["map3"] - metrics.map_at_k(equal, answers)) < 1e-12
    assert record["in_sample_map3"] == record["estimate"]["map3"]


@pytest.mark.parametrize("asked", ["tuned", "equal", "single"])
def test_the_user_can_choose(workdir, asked):
    table, exists, answers = simulate(200, [0.9, 0.8, 0.3])
    store(workdir, dict(zip(["a", "b", "c"], table, strict=True)), exists, answers)
    record = run_tune(workdir, QUICK.model_copy(update={"choose": asked}))
    assert record["choice"] == asked and f"tune.choose={asked}" in record["reason"]
    wanted = {"tuned": record["tuned_weights"], "equal": dict.fromkeys("abc", 1 / 3)}
    assert record["weights"] == (wanted | {"single": {"a": 1, "b": 0, "c": 0}})[asked]
    assert record["estimate"]["kind"] == ("nested" if asked == "tuned" else "oof")
    assert load_ensemble(workdir)["choice"] == asked
    assert sum(row["shipped"] for row in record["table"]) == 1


def test_the_rule_of_the_choice():
    equal, single = np.full(200, 0.5), np.full(200, 0.6)
    assert choose(equal, equal, single, "a", TuneSettings())[0] == "single"
    assert choose(equal - 0.1, equal, equal, "a", TuneSettings())[0] == "equal"
    assert choose(equal + 0.01, equal, single, "a", TuneSettings())[0] == "tuned"
    noisy = equal + np.where(np.arange(200) < 101, 0.5, -0.5)  # +0.005 with a standard error of 0.035
    assert choose(noisy, equal, noisy, "a", TuneSettings())[0] == "equal"


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
    _, record = tuned
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = record["table"]
    rows.insert(2, {**rows[0], "name": "longest", "kind": "baseline", "weight": None, "shipped": False})
    print_table(rows)
    out = capsys.readouterr().out
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= columns
    lines = {name: next(line for line in out.splitlines() if name in line) for name in ("nested", "longest", "equal w")}
    assert "longest (baseline)" in lines["longest"]
    marked = [line for line in out.splitlines() if line.startswith("* ") and "shipped;" not in line]
    shipped = next(row for row in rows if row["shipped"])
    assert len(marked) == 1 and shipped["name"] in marked[0] and f"{shipped['map3']:.4f}" in marked[0]
    nested = next(row for row in rows if row["kind"] == "tuned_nested")
    assert f"{nested['map3']:.4f}" in lines["nested"] and f"{nested['difference']:+.4f}" in lines["nested"]
    assert (f"{nested['difference_low']:+.3f}" in lines["nested"].split("..")[0][-8:]) == (columns >= 100)


def test_importing_the_ensemble_loads_nothing_heavy():
    code = (
        "import sys, solution.ensemble.tune, solution.ensemble.table, solution.ensemble.blend;"
        "print([m for m in ('torch', 'optuna', 'scipy', 'pandas', 'sklearn', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
