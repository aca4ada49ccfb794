"""The blend of several rankers' probabilities: the only implementation, used by tuning and by submitting."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from solution.probabilities import FLOOR, Merge, masked_softmax, merge

Blend = Literal["probability", "log_probability", "rank"]


@dataclass(frozen=True)
class Stacker:
    """A listwise logistic model: softmax over the options of the sum over rankers of
    z (a + b margin + c entropy), z the ranker's centred log-probability (see `stacker_terms`).

    Attributes:
        coefficients: ranker name -> (a, b, c).
    """

    coefficients: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Recipe:
    """The way from the rankers' probabilities to one answer.

    Attributes:
        weights: ranker name -> weight, not negative. A ranker of weight 0 is not used.
        blend: what is averaged.
        temperatures: ranker name -> T; the ranker's probabilities are raised to 1 / T and renormalised. 1 where
            none stands.
        groups: lists of rankers that are merged into one (of their summed weight) before the blend, with the merge:
            `max` is each option's highest probability, `max_mean` the mean of that and the mean; both renormalised.
        stacker: takes the place of the blend when every ranker of a weight above 0 is there.
    """

    weights: dict[str, float]
    blend: Blend = "probability"
    temperatures: dict[str, float] = field(default_factory=dict)
    groups: tuple[tuple[tuple[str, ...], Merge], ...] = ()
    stacker: Stacker | None = None

    @property
    def used(self) -> list[str]:
        """The rankers of a weight above 0, in alphabetical order."""
        return sorted(name for name, weight in self.weights.items() if weight > 0)

    def stacks(self, names: Collection[str]) -> bool:
        """Whether the stacker blends the answers of these rankers: it needs those of all."""
        return self.stacker is not None and set(self.used) <= set(names)

    def without(self, name: str) -> Recipe | None:
        """The same with one ranker left out, the others' proportions kept; None when nothing is left."""
        rest = {other: 0.0 if other == name else weight for other, weight in self.weights.items()}
        total = sum(rest.values())
        if total <= 0:
            return None
        stacker = self.stacker
        if stacker is not None:
            stacker = Stacker({other: value for other, value in stacker.coefficients.items() if other != name})
        weights = {other: weight / total for other, weight in rest.items()}
        return Recipe(weights, self.blend, self.temperatures, self.groups, stacker)


def apply_recipe(recipe: Recipe, probabilities: Mapping[str, np.ndarray], exists: np.ndarray) -> np.ndarray:
    """One answer from the rankers that have answered so far.

    Args:
        probabilities: ranker name -> float [n, width]; those missing are left out of the blend.
        exists: bool [n, width].

    Returns, raises: see `blend`.
    """
    answers = {
        name: sharpen(probabilities[name], exists, recipe.temperatures.get(name, 1.0))
        for name in recipe.used
        if name in probabilities
    }
    if recipe.stacker is not None and recipe.stacks(answers):
        return _stacked(recipe.stacker, answers, exists)
    weights = {name: recipe.weights[name] for name in answers}
    for number, (members, how) in enumerate(recipe.groups):
        present = sorted(name for name in members if name in answers)
        if present:
            joined = f"{number} {' '.join(present)}"  # no ranker's name has a space
            merged = merge([answers.pop(name) for name in present], exists, how)
            answers[joined] = merged
            weights[joined] = sum(weights.pop(name) for name in present)
    return blend(answers, weights, exists, recipe.blend)


def blend(
    probabilities: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    exists: np.ndarray,
    kind: Blend = "probability",
) -> np.ndarray:
    """Weighted mean of the rankers' probabilities, normalised over the options that exist.

    Args:
        probabilities: ranker name -> float [n, width]; a ranker of weight 0 may be missing.
        weights: ranker name -> weight, none negative; they need not sum to 1.
        exists: bool [n, width].
        kind: `probability` is the arithmetic mean, `log_probability` the geometric one, `rank` the mean of the
            options' places (see `terms`).

    Returns:
        float32 [n, width], rows sum to 1, 0 where an option does not exist. It does not depend on
        the order of the names, and options that tie in every ranker tie in the blend.

    Raises:
        ValueError: an unknown kind, a weight that is negative or no number, no weight above 0, or
            a row without any finite, positive probability.
        KeyError: a ranker with a weight above 0 is missing.
    """
    if kind not in ("probability", "log_probability", "rank"):
        raise ValueError(f"unknown blend {kind!r}")
    if not all(0 <= weight < np.inf for weight in weights.values()):
        raise ValueError(f"weights must be finite and not negative, not {dict(weights)}")
    used = [name for name in sorted(weights) if weights[name] > 0]
    if not used:
        raise ValueError("no ranker has a weight above 0")
    total = np.zeros(exists.shape)
    negative = np.zeros(len(exists), dtype=bool)
    for name in used:
        total += weights[name] * probabilities[name]
        negative |= (np.where(exists, probabilities[name], 0.0) < 0).any(axis=1)
    total = np.where(exists, total, 0.0)
    sums = total.sum(axis=1, keepdims=True)
    wrong = negative | ~((sums > 0) & (sums < np.inf)).ravel()  # NaN too
    if wrong.any():
        raise ValueError(f"row {int(np.argmax(wrong))} has a NaN or negative probability, or none above 0")
    if kind != "probability":
        total = np.zeros(exists.shape)
        share = sum(weights[name] for name in used)
        for name in used:
            total += weights[name] / share * terms(probabilities[name], exists, kind)
        if kind == "log_probability":
            return masked_softmax(total, exists)
        sums = total.sum(axis=1, keepdims=True)
    return (total / sums).astype(np.float32)


def terms(probabilities: np.ndarray, exists: np.ndarray, kind: Blend) -> np.ndarray:
    """The values that a blend of this kind averages, float [..., n, width], 0 where an option does not exist.

    `rank`: an option that stands at place j of c (0 the first, tied options share) has 2 (c - j - 1/2) / c^2, so that
    rows sum to 1 as those of probabilities do.
    """
    table = np.where(exists, probabilities, 0.0)
    if kind == "probability":
        return table
    if kind == "log_probability":
        return np.where(exists, np.log(np.maximum(table, FLOOR)), 0.0)
    table = np.where(exists, table, -1.0)
    above = (table[..., None, :] > table[..., :, None]).sum(axis=-1)
    level = (table[..., None, :] == table[..., :, None]).sum(axis=-1)
    count = exists.sum(axis=-1, keepdims=True)
    place = above + (level - 1) / 2
    return np.where(exists, 2 * (count - place - 0.5) / count**2, 0.0)


def sharpen(probabilities: np.ndarray, exists: np.ndarray, temperature: float) -> np.ndarray:
    """p^(1/T) renormalised over the options that exist, float [n, width]; T = 1 returns the same array.

    Temperature scaling (Guo et al. 2017) of probabilities instead of logits: the same, up to the floor.
    """
    if temperature == 1:
        return probabilities
    return masked_softmax(np.log(np.maximum(probabilities, FLOOR)) / temperature, exists, probabilities.dtype)


def stacker_terms(probabilities: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """A ranker's three features of each option, float [n, width, 3]: z, z margin, z entropy.

    z is the log-probability less its mean over the options that exist; margin is the first option's probability less
    the second's; entropy is that of the row, 1 when all options are equal. What is the same for every option of a
    question changes no order, so the two stand as factors: how far to trust the ranker where it is sure.
    """
    table = np.where(exists, probabilities, 0.0)
    logs = np.where(exists, np.log(np.maximum(table, FLOOR)), 0.0)
    count = exists.sum(axis=1)
    z = np.where(exists, logs - (logs.sum(axis=1) / count)[:, None], 0.0)
    first = np.sort(table, axis=1)
    margin = first[:, -1] - first[:, -2]
    entropy = -(table * logs).sum(axis=1) / np.log(count)
    return z[:, :, None] * np.stack([np.ones(len(z)), margin, entropy], axis=1)[:, None, :]


def _stacked(stacker: Stacker, probabilities: Mapping[str, np.ndarray], exists: np.ndarray) -> np.ndarray:
    """The stacker's answer, float32 [n, width]; sums in the order of the names, so that it does not hang on another."""
    total = np.zeros(exists.shape)
    for name in sorted(stacker.coefficients):
        total += stacker_terms(probabilities[name], exists) @ np.array(stacker.coefficients[name])
    return masked_softmax(total, exists)
