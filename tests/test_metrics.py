"""MAP@k and its kin against references that are slow and plainly right."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from solution.metrics import (
    bootstrap_interval,
    calibration_error,
    credit_at_k,
    expected_random_map,
    log_loss,
    map_at_k,
    places,
    precision_at_k,
    reliability,
)


def all_orders(scores: list[float], columns: list[int]):
    """Every list of columns, best first, in which only columns of the same score change places."""
    groups = [[c for c in columns if scores[c] == score] for score in sorted({scores[c] for c in columns})[::-1]]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [column for part in parts for column in part]


def reference_places(scores: list[float], answer: int) -> list[int]:
    """The place of the right option in each order, from 1."""
    columns = [c for c, score in enumerate(scores) if not math.isnan(score)]
    return [order.index(answer) + 1 for order in all_orders(scores, columns)]


def random_case(rng: np.random.Generator) -> tuple[list[float], int]:
    width = int(rng.integers(2, 9))
    # Few values, so that ties abound; at most 4 options in one tie, so that the orders can be counted out.
    values = rng.permutation(np.repeat(np.array([0.0, 0.1, 0.25, 0.5, 0.9]), 4))[:width]
    scores = values.tolist()
    for column in rng.permutation(width)[: int(rng.integers(0, width - 1))]:
        if rng.random() < 0.4:
            scores[column] = math.nan
    there = [c for c in range(width) if not math.isnan(scores[c])]
    return scores, int(rng.choice(there))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_the_mean_over_all_orders_of_ties(dtype):
    rng = np.random.default_rng(1)
    tied_cases = 0
    tables: dict[int, list[tuple[list[float], int, list[int]]]] = {}
    for _ in range(10_000):
        scores, answer = random_case(rng)
        found = reference_places(scores, answer)
        tied_cases += len(set(found)) > 1
        tables.setdefault(len(scores), []).append((scores, answer, found))
    assert tied_cases > 2000  # the cases do test ties
    assert set(tables) == set(range(2, 9))
    for cases in tables.values():
        table = np.array([scores for scores, _, _ in cases], dtype=dtype)
        answers = np.array([answer for _, answer, _ in cases])
        for k in range(1, 9):
            credit = [sum(1 / place for place in found if place <= k) / len(found) for _, _, found in cases]
            share = [sum(1 / k for place in found if place <= k) / len(found) for _, _, found in cases]
            np.testing.assert_allclose(credit_at_k(table, answers, k), credit, atol=1e-12)
            assert map_at_k(table, answers, k) == pytest.approx(sum(credit) / len(credit), abs=1e-12)
            assert precision_at_k(table, answers, k) == pytest.approx(sum(share) / len(share), abs=1e-12)


def test_all_tied_scores_as_a_random_order():
    table = np.full((3, 8), 0.125)
    assert map_at_k(table, np.array([0, 3, 7])) == pytest.approx(expected_random_map(np.array([8])), abs=1e-12)


def test_does_not_depend_on_the_order_of_the_columns():
    rng = np.random.default_rng(2)
    table = rng.choice([0.1, 0.2, 0.3], size=(200, 5))
    answers = rng.integers(0, 5, 200)
    for order in itertools.permutations(range(5)):
        moved = table[:, order]
        right = np.array([order.index(answer) for answer in answers])
        for k in (1, 3):
            assert map_at_k(moved, right, k) == map_at_k(table, answers, k)
            assert precision_at_k(moved, right, k) == precision_at_k(table, answers, k)
        assert calibration_error(moved, right) == calibration_error(table, answers)


def test_missing_options_as_zero_or_nan_are_the_same_behind_positive_options():
    zero = np.array([[0.2, 0.5, 0.3, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0, 0.0]])
    nan = np.where(zero == 0, np.nan, zero)
    answers = np.array([0, 1])
    assert map_at_k(zero, answers) == map_at_k(nan, answers) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_known_values():
    table = np.array([[0.5, 0.3, 0.2, 0.0, 0.0]] * 4)
    answers = np.array([0, 1, 2, 3])
    np.testing.assert_allclose(credit_at_k(table, answers), [1, 1 / 2, 1 / 3, 0])
    assert map_at_k(table, answers, k=1) == 0.25
    assert precision_at_k(table, answers, k=3) == pytest.approx(3 / 4 / 3)
    above, tied = places(table, answers)
    assert above.tolist() == [0, 1, 2, 3]
    assert tied.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("score", [map_at_k, precision_at_k, log_loss, calibration_error])
@pytest.mark.parametrize(
    ("table", "answers", "message"),
    [
        ([0.5, 0.5], [0], r"\[n, options\]"),
        ([[0.5, 0.5]], [0, 1], r"\[n, options\]"),
        (np.empty((0, 5)), np.empty(0, dtype=int), "no question"),
        ([[0.5, 0.5]], [2], "option's index"),
        ([[0.5, 0.5], [0.5, 0.5]], [1, -1], "option's index"),
        ([[np.nan, 0.5]], [0], "NaN"),
    ],
)
def test_wrong_input_is_refused(score, table, answers, message):
    with pytest.raises(ValueError, match=message):
        score(np.array(table), np.array(answers))


@pytest.mark.parametrize("score", [map_at_k, precision_at_k])
def test_k_below_one_is_refused(score):
    with pytest.raises(ValueError, match="k must be at least 1"):
        score(np.array([[0.5, 0.5]]), np.array([0]), k=0)


@pytest.mark.parametrize(("options", "expected"), [(5, 0.3667), (4, 0.4583)])
def test_random_map_published_values(options, expected):
    assert expected_random_map(np.array([options]), k=3) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("options", range(2, 9))
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_random_map_equals_all_places_tried(options, k):
    tried = [1 / place if place <= k else 0.0 for place in range(1, options + 1)]
    assert expected_random_map(np.array([options]), k) == pytest.approx(sum(tried) / options, abs=1e-12)


def test_random_map_of_mixed_counts_is_the_mean():
    parts = [expected_random_map(np.array([count])) for count in (2, 5, 5, 8)]
    assert expected_random_map(np.array([2, 5, 5, 8])) == pytest.approx(sum(parts) / 4)


def test_log_loss():
    table = np.array([[0.5, 0.25, 0.25], [0.1, 0.9, np.nan]], dtype=np.float32)
    assert log_loss(table, np.array([0, 1])) == pytest.approx((math.log(2) - math.log(0.9)) / 2, rel=1e-6)
    certain_and_wrong = np.array([[1.0, 0.0]])
    assert log_loss(certain_and_wrong, np.array([1])) == pytest.approx(-math.log(1e-7))
    assert log_loss(certain_and_wrong, np.array([1]), floor=0.01) == pytest.approx(math.log(100))


def test_calibration_of_hand_made_cases():
    sure = np.array([[1.0, 0.0]] * 4)
    assert calibration_error(sure, np.array([0, 0, 0, 0])) == 0  # confidence 1 falls in the last bin
    assert calibration_error(sure, np.array([1, 1, 1, 1])) == 1
    assert calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(0.25)
    # Two bins: 0.65 sure and always right, 0.95 sure and half right; weights 1/3 and 2/3.
    table = np.array([[0.65, 0.35]] * 2 + [[0.05, 0.95]] * 4)
    expected = 2 / 6 * 0.35 + 4 / 6 * 0.45
    assert calibration_error(table, np.array([0, 0, 1, 1, 0, 0])) == pytest.approx(expected)
    # In one bin over- and underconfidence cancel.
    assert calibration_error(table, np.array([0, 0, 1, 1, 0, 0]), bins=1) == pytest.approx(abs(0.85 - 4 / 6))


def test_calibration_shares_a_tie_and_passes_over_missing_options():
    table = np.array([[0.5, 0.5, np.nan]] * 2)
    assert calibration_error(table, np.array([1, 1])) == 0
    assert calibration_error(table, np.array([0, 0])) == 0


def test_reliability_of_hand_made_cases():
    table = np.array([[0.65, 0.35]] * 2 + [[0.05, 0.95]] * 4 + [[0.5, 0.5]])
    curve = reliability(table, np.array([0, 0, 1, 1, 0, 0, 1]))
    assert [count for _, _, count in curve] == [1, 2, 4]  # bins without a question are left out
    assert [hit for _, hit, _ in curve] == [0.5, 1.0, 0.5]
    assert [sure for sure, _, _ in curve] == pytest.approx([0.5, 0.65, 0.95])


def test_bootstrap_interval_covers_the_mean():
    rng = np.random.default_rng(3)
    values, chances = np.array([1, 1 / 2, 1 / 3, 0]), np.array([0.5, 0.2, 0.1, 0.2])
    truth = float(values @ chances)
    covered = 0
    for trial in range(400):
        low, high = bootstrap_interval(rng.choice(values, size=200, p=chances), samples=400, seed=trial)
        covered += low <= truth <= high
    assert 0.91 <= covered / 400 <= 0.98  # 0.95 by name; binomial sd 0.011


def test_bootstrap_interval_of_many_questions():
    """That of few different credits is the interval that all kinds of credits have."""
    rng = np.random.default_rng(5)
    credits = rng.choice([0, 1 / 3, 0.5, 1], size=30_000)
    low, high = bootstrap_interval(credits)
    spread = 1.96 * credits.std() / len(credits) ** 0.5
    assert (low, high) == pytest.approx((credits.mean() - spread, credits.mean() + spread), abs=0.1 * spread)
    others = bootstrap_interval(credits + rng.random(len(credits)) * 1e-9, samples=400)
    assert others == pytest.approx((low, high), abs=0.2 * spread)


def test_bootstrap_interval_is_deterministic_and_ordered():
    credits = np.random.default_rng(4).choice([1, 0.5, 0], size=300)
    first = bootstrap_interval(credits)
    assert first == bootstrap_interval(credits.astype(np.float32))
    assert first != bootstrap_interval(credits, seed=1)
    assert first[0] < credits.mean() < first[1]
    narrow = bootstrap_interval(credits, level=0.5)
    assert first[0] < narrow[0] < narrow[1] < first[1]
    # About the normal interval of the mean.
    half = 1.96 * credits.std() / math.sqrt(300)
    assert (first[1] - first[0]) / 2 == pytest.approx(half, rel=0.1)


def test_bootstrap_of_constant_credits_has_no_width():
    assert bootstrap_interval(np.full(50, 0.5)) == (0.5, 0.5)


def test_bootstrap_in_blocks_draws_as_many_samples():
    # 41,000 credits: 97 rows a block, so 2,000 samples need several blocks and a short last one.
    credits = np.random.default_rng(5).random(41_000)
    low, high = bootstrap_interval(credits, samples=200)
    assert low < credits.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * credits.std() / math.sqrt(41_000), rel=0.25)
