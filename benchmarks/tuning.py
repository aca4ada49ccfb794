"""The speed of the ensemble's tuning on one core: 60,000 questions of 5 options, 8 rankers.

    python benchmarks/tuning.py --json

Measures one evaluation of a weight vector (beside the time that only reading the same bytes takes, and beside the
usual notebook loop, in the same run and with equal results), 1,000 Optuna trials, and the exact polish of all
coordinates; and compares the exact search with a brute-force grid on random problems of two and three rankers.
`--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from solution import metrics
from solution.ensemble.blend import blend
from solution.ensemble.evaluator import Evaluator
from solution.ensemble.line_search import exact_weights, polish_weights
from solution.ensemble.sampler import sample_weights
from solution.ensemble.search import starting_points
from solution.ensemble.trial_journal import TrialJournal


def answers_of(
    count: int, rankers: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities float32 [rankers, count, width] of rankers of random strength, all options there, answers."""
    answers = rng.integers(0, width, count)
    scores = rng.normal(size=(rankers, count, width))
    scores[:, np.arange(count), answers] += rng.uniform(0.3, 1.2, rankers)[:, None]
    powers = np.exp(scores)
    return (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32), np.ones((count, width), bool), answers


def notebook_map3(table: np.ndarray, weights: np.ndarray, answers: np.ndarray) -> float:
    """The usual way: blend, sort every row in Python, look where the right option stands."""
    mean = sum(weight * alone for weight, alone in zip(weights, table, strict=True))
    total = 0.0
    for row, answer in zip(mean, answers, strict=True):
        for place, option in enumerate(np.argsort(-row)[:3]):
            if option == answer:
                total += 1 / (place + 1)
                break
    return total / len(answers)


def fastest(call: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of several calls."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def measure(count: int, rankers: int, trials: int) -> dict[str, Any]:
    """One evaluation beside its floor and beside a notebook's loop, the polish, and both samplers."""
    rng = np.random.default_rng(0)
    table, exists, answers = answers_of(count, rankers, 5, rng)
    weights = rng.dirichlet(np.ones(rankers))
    evaluator = Evaluator(table, exists, answers)
    # The floor: the table of differences must be read once. A maximum is what numpy does least for.
    differences = np.empty((rankers, 4, count), dtype=np.float32)
    differences[:] = rng.random(differences.shape, dtype=np.float32)
    floor = fastest(differences.max, 50)
    evaluation = fastest(lambda: evaluator.map3(weights), 50)
    with_loss = fastest(lambda: evaluator.value(weights), 50)
    loop = fastest(lambda: notebook_map3(table, weights, answers), 2)
    points = [weights, *rng.dirichlet(np.ones(rankers), 3)]
    gap = max(abs(evaluator.map3(point) - notebook_map3(table, point, answers)) for point in points)
    names = [str(number) for number in range(rankers)]
    tables = dict(zip(names, table, strict=True))
    for point in points:
        mean = blend(tables, dict(zip(names, point.tolist(), strict=True)), exists)
        gap = max(gap, abs(evaluator.map3(point) - metrics.map_at_k(mean, answers)))

    start = time.perf_counter()
    polished = polish_weights(evaluator, np.full(rankers, 1 / rankers))
    polish = time.perf_counter() - start
    starts = starting_points(evaluator)
    sampled: dict[str, Any] = {}
    for sampler in ("tpe", "cma"):
        with tempfile.TemporaryDirectory() as folder:
            journal = TrialJournal(Path(folder) / "tune.journal")
            start = time.perf_counter()
            sampled_weights = sample_weights(evaluator, starts, trials, 0, sampler, journal, "benchmark")  # type: ignore[arg-type]
            sampled[f"{sampler}_seconds"] = round(time.perf_counter() - start, 2)
            journal.close()
        sampled[f"{sampler}_map3"] = round(evaluator.map3(sampled_weights), 6)
        exact = polish_weights(evaluator, sampled_weights)
        sampled[f"{sampler}_then_exact_map3"] = round(evaluator.map3(exact), 6)
    return {
        "questions": count,
        "rankers": rankers,
        "evaluation_ms": round(evaluation * 1e3, 3),
        "evaluation_with_log_loss_ms": round(with_loss * 1e3, 3),
        "bytes_read": differences.nbytes,
        "floor_ms": round(floor * 1e3, 3),
        "ratio_to_floor": round(evaluation / floor, 2),
        "notebook_loop_ms": round(loop * 1e3, 1),
        "notebook_ratio": round(loop / evaluation, 1),
        "largest_difference": gap,
        "trials": trials,
        **sampled,
        "polish_seconds": round(polish, 3),
        "equal_map3": round(evaluator.map3(np.full(rankers, 1 / rankers)), 6),
        "polished_map3": round(evaluator.map3(polished), 6),
    }


def against_grid(rankers: int, problems: int, steps: int) -> tuple[int, int]:
    """Count the random problems on which the exact search's MAP@3 is at least, and above, the best grid point's."""
    at_least = above = 0
    for seed in range(problems):
        rng = np.random.default_rng(seed)
        table, exists, answers = answers_of(int(rng.integers(50, 400)), rankers, int(rng.integers(3, 6)), rng)
        evaluator = Evaluator(table, exists, answers)
        cuts = np.array([cut for cut in np.ndindex(*[steps + 1] * (rankers - 1)) if sum(cut) <= steps])
        grid = np.column_stack([cuts, steps - cuts.sum(axis=1)]) / steps
        best = max(evaluator.map3(point) for point in grid)
        found = evaluator.map3(exact_weights(evaluator, starting_points(evaluator)))
        at_least += found >= best - 1e-12
        above += found > best + 1e-12
    return at_least, above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=60_000)
    parser.add_argument("--rankers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--problems", type=int, default=100, help="random problems of 2 and of 3 rankers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with threadpool_limits(1):
        results = measure(options.questions, options.rankers, options.trials)
    for rankers, steps in ((2, 1000), (3, 100)):
        at_least, above = against_grid(rankers, options.problems, steps)
        results |= {f"grid_{rankers}_problems": options.problems, f"grid_{rankers}_steps": steps}
        results |= {f"grid_{rankers}_at_least": at_least, f"grid_{rankers}_above": above}
    for name, value in results.items():
        print(f"{name:28} {value}")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
