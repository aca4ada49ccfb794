"""How honest the estimate of `tune` is: simulated rankers of known strength, tuned, and then scored on fresh questions.

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
    """What `tune` would ship, its estimate (float [n] credits), and the same for the exact search alone."""
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


def one(seed: int, questions: int) -> dict[str, Any]:
    """One simulation: estimates and truths of the choice, of the exact search, and of the best-looking candidate."""
    rng = np.random.default_rng(seed)
    exam, fresh = simulate(questions, STRENGTHS, rng), simulate(FRESH, STRENGTHS, rng)
    made = tune(exam)
    weights = dict(zip(fresh.names, STRENGTHS, strict=True))
    tables = dict(zip(fresh.names, fresh.table, strict=True))
    ideal = metrics.map_at_k(blend(tables, weights, fresh.exists, "log_probability"), fresh.answers)
    result: dict[str, Any] = {"chosen": made["name"], "ideal": ideal}
    estimates = {"choice": made["estimate"], "exact": made["credits"]["tuned_exact"]}
    estimates["best_looking"] = made["credits"][made["best"]]
    recipes = {"choice": made["shipped"], "exact": made["recipes"]["tuned_exact"]}
    recipes["best_looking"] = made["recipes"][made["best"]]
    for name, recipe in recipes.items():
        shipped = made["credits"][made["name"]] if name == "choice" else estimates[name]
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
    for kept in (3, 3 + added):
        part = Problem(exam.names[:kept], exam.table[:kept], exam.exists, exam.answers, exam.folds)
        made = tune(part)
        test = Problem(fresh.names[:kept], fresh.table[:kept], fresh.exists, fresh.answers, fresh.folds)
        scores.append(score(test, made["shipped"]))
    return scores[0], scores[1], made["name"]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Bias (with its standard error) and coverage of the estimates over the simulations."""
    told: dict[str, Any] = {}
    for name in ("choice", "exact", "best_looking"):
        for kind in ("nested", "in_sample"):
            bias, error = mean_and_error([run[name][kind] - run[name]["truth"] for run in runs])
            told[f"{name}_{kind}_bias"], told[f"{name}_{kind}_bias_error"] = round(bias, 5), round(error, 5)
        inside = [run[name]["low"] <= run[name]["truth"] <= run[name]["high"] for run in runs]
        told[f"{name}_coverage"] = round(float(np.mean(inside)), 4)
        told[f"{name}_truth"] = round(float(np.mean([run[name]["truth"] for run in runs])), 5)
    own, error = mean_and_error([run["choice"]["own"] - run["choice"]["truth"] for run in runs])
    told["choice_own_bias"], told["choice_own_bias_error"] = round(own, 5), round(error, 5)
    told["ideal_truth"] = round(float(np.mean([run["ideal"] for run in runs])), 5)
    return told


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


def kept(part: str, simulation: Callable[..., Any], count: int, questions: int, path: Path | None) -> list[Any]:
    """The results of seeds 0 to count - 1, those in the file taken from there, new ones added to it."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    there = {(made[0], made[1], made[2]): made[3] for made in map(json.loads, lines)}
    results = []
    for seed in range(count):
        if (part, questions, seed) not in there:
            there[part, questions, seed] = simulation(seed, questions)
            if path:
                with open(path, "a") as stream:
                    stream.write(json.dumps([part, questions, seed, there[part, questions, seed]]) + "\n")
        results.append(there[part, questions, seed])
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
    told: dict[str, Any] = {}
    if options.simulations:
        runs = kept("exam", one, options.simulations, options.questions, options.keep)
        told |= {"simulations": len(runs), "questions": options.questions, **summary(runs)}
        shipped = [run["chosen"] for run in runs]
        told["shipped"] = {name: shipped.count(name) for name in sorted(set(shipped))}
        if options.plot:
            plot(runs, options.plot)
    if options.noise_simulations:
        pairs = kept("noise", noise, options.noise_simulations, options.noise_questions, options.keep)
        lost, error = mean_and_error([without - with_noise for without, with_noise, _ in pairs])
        told |= {"noise_simulations": len(pairs), "noise_questions": options.noise_questions}
        told |= {"noise_loss": round(lost, 5), "noise_loss_error": round(error, 5)}
        told["noise_largest_loss"] = round(max(without - with_noise for without, with_noise, _ in pairs), 5)
        told["noise_shipped"] = {name: [n for *_, n in pairs].count(name) for name in sorted({n for *_, n in pairs})}
    for name, value in told.items():
        print(f"{name:28} {value}")
    if options.json:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
