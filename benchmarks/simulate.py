"""The honesty of `tune`'s estimate: simulated rankers of known strength, tuned, and then scored on fresh questions.

    python benchmarks/simulate.py --simulations 200 --plot docs/optimism.png

Each simulation draws an exam, tunes it as `python -m solution tune` does, and compares what the exam said with the
score of the shipped blend on 20,000 fresh questions. A ranker's score of an option is independent normal noise, plus
its strength for the right option; so the best order there is comes from log-probabilities weighted by the strengths.
The second part adds rankers of strength 0. `--json` prints one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution import metrics
from solution.config import TuneSettings
from solution.ensemble.blend import Recipe, blend
from solution.ensemble.candidates import Problem, candidates
from solution.ensemble.nested import choose_nested, estimate_interval, fit_candidate

STRENGTHS = (1.2, 1.0, 0.8, 0.5, 0.3)
FRESH = 20_000
CANDIDATES = (
    "fewer single equal_log fewer_log equal_rank calibrated log_loss greedy tuned_exact tuned_log tuned_rank stacker"
)
"""All but the two samplers, which are slow and end in the same exact search."""


def simulate(
    count: int, strengths: Sequence[float], rng: np.random.Generator, width: int = 5, folds: int = 5
) -> Problem:
    """An exam of `count` questions as rankers of these strengths answer it."""
    answers = rng.integers(0, width, count)
    scores = rng.normal(size=(len(strengths), count, width))
    scores[:, np.arange(count), answers] += np.asarray(strengths)[:, None]
    powers = np.exp(scores - scores.max(axis=2, keepdims=True))
    return Problem(
        names=[f"ranker_{number:02d}" for number in range(len(strengths))],
        table=(powers / powers.sum(axis=2, keepdims=True)).astype(np.float32),
        exists=np.ones((count, width), dtype=bool),
        answers=answers,
        folds=np.arange(count) % folds,
    )


def tune(problem: Problem, names: str = CANDIDATES) -> dict[str, Any]:
    """The recipe that `tune` would ship, with its estimate (float [n] credits), and every candidate's."""
    settings = TuneSettings(trials=0, candidates=names.split())  # type: ignore[arg-type]
    fits = {rival.name: fit_candidate(problem, rival.fit) for rival in candidates(problem, settings)}
    choice, estimate = choose_nested(fits, problem.folds)
    credits = {name: fitted.credits for name, fitted in fits.items()}
    best = max(credits, key=lambda name: credits[name].mean())
    return {
        "name": choice.name,
        "recipes": {name: fitted.recipe for name, fitted in fits.items()},
        "shipped": fits[choice.name].recipe,
        "estimate": estimate,
        "credits": credits,
        "best": best,
    }


def score(problem: Problem, recipe: Recipe) -> float:
    return metrics.map_at_k(problem.answer(recipe), problem.answers)


def simulate_tuning(seed: int, questions: int) -> dict[str, Any]:
    """One simulation: estimates and truths of the choice, of the exact search, and of the best-looking candidate."""
    rng = np.random.default_rng(seed)
    exam, fresh = simulate(questions, STRENGTHS, rng), simulate(FRESH, STRENGTHS, rng)
    tuned = tune(exam)
    weights = dict(zip(fresh.names, STRENGTHS, strict=True))
    tables = dict(zip(fresh.names, fresh.table, strict=True))
    ideal = metrics.map_at_k(blend(tables, weights, fresh.exists, "log_probability"), fresh.answers)
    result: dict[str, Any] = {"chosen": tuned["name"], "ideal": ideal}
    estimates = {"choice": tuned["estimate"], "exact": tuned["credits"]["tuned_exact"]}
    estimates["best_looking"] = tuned["credits"][tuned["best"]]
    recipes = {"choice": tuned["shipped"], "exact": tuned["recipes"]["tuned_exact"]}
    recipes["best_looking"] = tuned["recipes"][tuned["best"]]
    for name, recipe in recipes.items():
        shipped = tuned["credits"][tuned["name"]] if name == "choice" else estimates[name]
        low, high = estimate_interval(estimates[name], shipped, 1000)
        result[name] = {
            "own": float(shipped.mean()),
            "nested": float(estimates[name].mean()),
            "low": low,
            "high": high,
            "in_sample": score(exam, recipe),
            "truth": score(fresh, recipe),
        }
    return result


def noise(seed: int, questions: int, added: int = 20) -> tuple[float, float, str]:
    """Score on fresh questions of what ships for three good rankers, and for them and `added` of strength 0."""
    rng = np.random.default_rng(10_000 + seed)
    strengths = (1.2, 1.0, 0.8) + (0.0,) * added
    exam, fresh = simulate(questions, strengths, rng), simulate(FRESH, strengths, rng)
    scores = []
    for rankers in (3, 3 + added):
        part = Problem(exam.names[:rankers], exam.table[:rankers], exam.exists, exam.answers, exam.folds)
        tuned = tune(part)
        test = Problem(fresh.names[:rankers], fresh.table[:rankers], fresh.exists, fresh.answers, fresh.folds)
        scores.append(score(test, tuned["shipped"]))
    return scores[0], scores[1], tuned["name"]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Bias (with its standard error) and coverage of the estimates over the simulations."""
    results: dict[str, Any] = {}
    for name in ("choice", "exact", "best_looking"):
        for kind in ("nested", "in_sample"):
            bias, error = mean_and_error([run[name][kind] - run[name]["truth"] for run in runs])
            results[f"{name}_{kind}_bias"], results[f"{name}_{kind}_bias_error"] = round(bias, 5), round(error, 5)
        inside = [run[name]["low"] <= run[name]["truth"] <= run[name]["high"] for run in runs]
        results[f"{name}_coverage"] = round(float(np.mean(inside)), 4)
        results[f"{name}_truth"] = round(float(np.mean([run[name]["truth"] for run in runs])), 5)
    own, error = mean_and_error([run["choice"]["own"] - run["choice"]["truth"] for run in runs])
    results["choice_own_bias"], results["choice_own_bias_error"] = round(own, 5), round(error, 5)
    results["ideal_truth"] = round(float(np.mean([run["ideal"] for run in runs])), 5)
    return results


def plot(runs: Sequence[dict[str, Any]], path: str) -> None:
    """Estimate less truth of every simulation, in-sample and nested, as two histograms."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3), dpi=100)
    bins = np.arange(-0.085, 0.0851, 0.01)
    for kind, color, text in (("in_sample", "#d95f02", "in-sample"), ("nested", "#1b9e77", "nested")):
        values = np.array([run["exact"][kind] - run["exact"]["truth"] for run in runs])
        mean, error = mean_and_error(values)
        label = f"{text}: mean {mean:+.4f} (standard error {error:.4f})"
        axes.hist(values, bins=bins, alpha=0.55, color=color, label=label)
        axes.axvline(mean, ymax=0.74, color=color, linewidth=2)
    axes.axvline(0, ymax=0.74, color="black", linewidth=1, linestyle="--")
    axes.set_xlabel("estimated MAP@3 less MAP@3 on 20,000 fresh questions")
    axes.set_ylabel("simulations")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


def stored_results(
    part: str, simulation: Callable[..., Any], count: int, questions: int, path: Path | None
) -> list[Any]:
    """The results of seeds 0 to count - 1, those in the file taken from there, new ones added to it."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    done = {(record[0], record[1], record[2]): record[3] for record in map(json.loads, lines)}
    results = []
    for seed in range(count):
        if (part, questions, seed) not in done:
            done[part, questions, seed] = simulation(seed, questions)
            if path:
                with open(path, "a") as stream:
                    stream.write(json.dumps([part, questions, seed, done[part, questions, seed]]) + "\n")
        results.append(done[part, questions, seed])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--noise-simulations", type=int, default=20)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--noise-questions", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="JSON lines of finished simulations, not done again")
    parser.add_argument("--plot", help="write the histogram there (PNG; needs matplotlib)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    if options.simulations:
        runs = stored_results("exam", simulate_tuning, options.simulations, options.questions, options.keep)
        results |= {"simulations": len(runs), "questions": options.questions, **summary(runs)}
        shipped = [run["chosen"] for run in runs]
        results["shipped"] = {name: shipped.count(name) for name in sorted(set(shipped))}
        if options.plot:
            plot(runs, options.plot)
    if options.noise_simulations:
        pairs = stored_results("noise", noise, options.noise_simulations, options.noise_questions, options.keep)
        lost, error = mean_and_error([without - with_noise for without, with_noise, _ in pairs])
        results |= {"noise_simulations": len(pairs), "noise_questions": options.noise_questions}
        results |= {"noise_loss": round(lost, 5), "noise_loss_error": round(error, 5)}
        results["noise_largest_loss"] = round(max(without - with_noise for without, with_noise, _ in pairs), 5)
        results["noise_shipped"] = {name: [n for *_, n in pairs].count(name) for name in sorted({n for *_, n in pairs})}
    for name, value in results.items():
        print(f"{name:28} {value}")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
