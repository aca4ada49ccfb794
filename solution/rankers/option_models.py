"""What learns from the inputs of options: a listwise linear model, and LambdaMART by LightGBM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import SignalLearning
from solution.errors import UserError
from solution.rankers.option_inputs import OptionInputs

_STEPS = 500  # of the optimizer of the linear model, at most


@dataclass(frozen=True)
class LinearModel:
    """Scores of options, linear in their inputs.

    Attributes:
        mean, deviation, coefficients: float64 [inputs]; inputs are scaled by the first two.
    """

    mean: np.ndarray
    deviation: np.ndarray
    coefficients: np.ndarray

    @classmethod
    def fit(
        cls, inputs: OptionInputs, right: np.ndarray, ridge: float, weights: np.ndarray | None = None
    ) -> LinearModel:
        """The model of the least log loss of a softmax over each question's options (ListNet, Cao et al. 2007, with one
        right option), summed over the questions, with `ridge` / 2 times the squared coefficients added.

        Args:
            right: bool [m], true for the right option of each question.
            weights: float [n], by which the questions' losses are multiplied; None: 1.
        """
        from scipy.optimize import minimize

        mean, deviation = inputs.values.mean(axis=0), inputs.values.std(axis=0)
        deviation = np.where(deviation > 1e-9, deviation, 1.0)
        scaled = (inputs.values - mean) / deviation
        begins = np.cumsum([0, *inputs.counts[:-1]])
        counting = np.ones(len(inputs.counts)) if weights is None else weights  # [n]
        each = np.repeat(counting, inputs.counts)  # [m]
        aim = counting @ scaled[right]

        def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
            scores = scaled @ coefficients
            scores -= np.repeat(np.maximum.reduceat(scores, begins), inputs.counts)
            powers = np.exp(scores)
            sums = np.add.reduceat(powers, begins)
            shares = powers / np.repeat(sums, inputs.counts)
            value = counting @ (np.log(sums) - scores[right]) + ridge / 2 * coefficients @ coefficients
            return float(value), scaled.T @ (each * shares) - aim + ridge * coefficients

        found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
        return cls(mean, deviation, found.x)

    def scores(self, inputs: OptionInputs) -> np.ndarray:
        """Float64 [m]."""
        scores: np.ndarray = (inputs.values - self.mean) / self.deviation @ self.coefficients
        return scores

    def importance(self) -> np.ndarray:
        """The share of each input in the sum of the absolute coefficients, float64 [inputs]."""
        return _shares(np.abs(self.coefficients))

    def record(self) -> dict[str, list[float]]:
        """The numbers as JSON holds them."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def read(cls, record: dict[str, list[float]], inputs: int) -> LinearModel:
        """The model of `record`.

        Raises:
            ValueError, KeyError, TypeError: it is none of so many inputs.
        """
        arrays = [np.array(record[name], dtype=np.float64) for name in ("mean", "deviation", "coefficients")]
        if any(values.shape != (inputs,) or not np.isfinite(values).all() for values in arrays):
            raise ValueError(f"it has not {inputs} inputs")
        return cls(*arrays)


class Forests:
    """LambdaMART (Burges 2010): several gradient-boosted forests of LightGBM, whose scores are averaged.

    One thread, and sums in one order: the same seed gives the same bytes, and other libraries' threads do not matter.

    Args:
        boosters: of LightGBM.
    """

    def __init__(self, boosters: Sequence[Any]):
        self._boosters = boosters

    def __len__(self) -> int:
        return len(self._boosters)

    @classmethod
    def fit(
        cls,
        inputs: OptionInputs,
        right: np.ndarray,
        settings: SignalLearning,
        seed: int,
        weights: np.ndarray | None = None,
    ) -> Forests:
        """Forests that put the right option first.

        Args:
            right: bool [m], true for the right option of each question.
            weights: float [n], by which the gradients of the questions are multiplied; None: 1.

        Raises:
            UserError: LightGBM is not installed.
        """
        lightgbm = lightgbm_library()
        parameters = {
            "objective": "lambdarank",
            "lambdarank_truncation_level": 3,  # MAP@3 looks no further
            "num_leaves": settings.leaves,
            "learning_rate": settings.tree_learning_rate,
            "min_data_in_leaf": settings.options_per_leaf,
            "feature_fraction": settings.tree_inputs,
            "bagging_fraction": settings.tree_options,
            "bagging_freq": 1,
            "lambda_l2": settings.tree_l2,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        labels = right.astype(np.int32)
        each = None if weights is None else np.repeat(weights, inputs.counts)  # [m]
        boosters = []
        for forest in range(settings.forests):
            data = lightgbm.Dataset(inputs.values, labels, weight=each, group=inputs.counts, params={"verbosity": -1})
            seeded = {**parameters, "seed": (seed * 100 + forest) % 2**31}
            boosters.append(lightgbm.train(seeded, data, num_boost_round=settings.trees))
        return cls(boosters)

    def scores(self, inputs: OptionInputs) -> np.ndarray:
        """Float64 [m]."""
        parts = [booster.predict(inputs.values, num_threads=1) for booster in self._boosters]
        scores: np.ndarray = np.mean(parts, axis=0)
        return scores

    def importance(self) -> np.ndarray:
        """The share of each input in what the splits gain, float64 [inputs]."""
        return _shares(np.sum([booster.feature_importance("gain") for booster in self._boosters], axis=0))

    def save(self, folder: Path, prefix: str = "") -> None:
        """Write `forest_K.txt`, in LightGBM's text format; `prefix` stands before each file's name."""
        for number, booster in enumerate(self._boosters):
            (folder / forest_file(number, prefix)).write_text(booster.model_to_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, count: int, inputs: int, prefix: str = "") -> Forests:
        """The forests of `save`.

        Raises:
            UserError: LightGBM is not installed.
            OSError, ValueError: a file is missing or no model of so many inputs.
        """
        lightgbm = lightgbm_library()
        boosters = []
        for number in range(count):
            name = forest_file(number, prefix)
            text = (folder / name).read_text(encoding="utf-8")
            try:
                booster = lightgbm.Booster(model_str=text)
            except lightgbm.basic.LightGBMError as error:
                raise ValueError(f"{name}: {error}") from None
            if booster.num_feature() != inputs:
                raise ValueError(f"{name} has {booster.num_feature()} inputs and not {inputs}")
            boosters.append(booster)
        return cls(boosters)


def forest_file(number: int, prefix: str = "") -> str:
    """The name of a forest's file."""
    return f"{prefix}forest_{number}.txt"


def lightgbm_library() -> Any:
    """The module lightgbm.

    Raises:
        UserError: it is not installed, or a library that it needs is missing (OpenMP).
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise UserError(
            f"the trees of a features ranker need the package lightgbm, which cannot be imported ({error}). Install "
            "it (pip install lightgbm), or train without trees: signals.tree_share=0 in the ranker's settings"
        ) from None
    return lightgbm


def _shares(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values, dtype=np.float64)
