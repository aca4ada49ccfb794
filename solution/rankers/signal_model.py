"""What a ranker of signals has learnt: a linear model and trees over the same signals, blended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import SignalLearning
from solution.rankers.option_inputs import FORMS, OptionInputs
from solution.rankers.option_models import Forests, LinearModel


@dataclass(frozen=True)
class Lesson:
    """Questions that are learnt from.

    Attributes:
        exists: bool [n, width], which options there are.
        answers: int [n].
        weights: float64 [n], how much each question counts; None: all alike.
    """

    exists: np.ndarray
    answers: np.ndarray
    weights: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """Bool [m], true for the right one of each question's options."""
        right: np.ndarray = (np.arange(self.exists.shape[1]) == self.answers[:, None])[self.exists]
        return right


@dataclass(frozen=True)
class SignalModel:
    """A listwise linear model and LambdaMART over the signals of the options, blended.

    The scores of the trees have no scale of their own: they are given the spread that the linear model's have inside
    the training questions, which the log loss has set.

    Attributes:
        names: of the signals, sorted.
        tree_share: of the trees in the blend.
        forests: None: the linear model stands alone.
        tree_scale: by which the scores of the trees are multiplied.
    """

    names: Sequence[str]
    tree_share: float
    linear: LinearModel
    forests: Forests | None = None
    tree_scale: float = 0.0

    @classmethod
    def fit(
        cls,
        signals: Mapping[str, np.ndarray],
        lesson: Lesson,
        settings: SignalLearning,
        seed: int,
    ) -> SignalModel:
        """The models that put the right options first.

        Args:
            signals: name -> float [n, at least width].

        Raises:
            UserError: LightGBM is needed and not installed.
        """
        names = sorted(signals)
        inputs = OptionInputs.of([signals[name] for name in names], lesson.exists)
        right = lesson.right
        linear = LinearModel.fit(inputs, right, settings.ridge, lesson.weights)
        if settings.tree_share == 0:
            return cls(names, 0.0, linear)
        forests = Forests.fit(inputs, right, settings, seed, lesson.weights)
        spreads = [_spread(model.scores(inputs), inputs.counts) for model in (linear, forests)]
        scale = spreads[0] / spreads[1] if spreads[1] > 0 else 0.0
        return cls(names, settings.tree_share, linear, forests, scale)

    def scores(self, signals: Mapping[str, np.ndarray], exists: np.ndarray) -> np.ndarray:
        """The scores of the options, float64 [n, width], 0 where none is.

        Args:
            signals: name -> float [n, at least width], those of `names` among them.
            exists: bool [n, width].
        """
        inputs = OptionInputs.of([signals[name] for name in self.names], exists)
        scores = self.linear.scores(inputs)
        if self.forests is not None:
            scores = (1 - self.tree_share) * scores + self.tree_share * self.tree_scale * self.forests.scores(inputs)
        table = np.zeros(exists.shape)
        table[exists] = scores
        return table

    def importances(self) -> dict[str, dict[str, float]]:
        """Signal -> its share, all forms together, in the linear model and in the trees."""
        models = {"linear": self.linear, "trees": self.forests}
        # [inputs] of all forms become [signals].
        shares = {
            name: model.importance().reshape(len(FORMS), -1).sum(axis=0) for name, model in models.items() if model
        }
        return {
            signal: {model: round(float(values[place]), 6) for model, values in shares.items()}
            for place, signal in enumerate(self.names)
        }

    def can_answer(self, signals: Mapping[str, np.ndarray], exists: np.ndarray) -> np.ndarray:
        """The questions for all of whose options the model's signals are there, bool [n]."""
        whole = np.ones(len(exists), dtype=bool)
        for name in self.names:
            if name not in signals:
                return np.zeros_like(whole)
            whole &= ~(np.isnan(signals[name][:, : exists.shape[1]]) & exists).any(axis=1)
        return whole

    def record(self) -> dict[str, Any]:
        """What JSON holds of it, without the trees."""
        return {
            "signals": list(self.names),
            "forms": list(FORMS),
            "linear": self.linear.record(),
            "tree_scale": self.tree_scale,
            "forests": 0 if self.forests is None else len(self.forests),
        }

    @classmethod
    def read(cls, record: Mapping[str, Any], folder: Path, tree_share: float, prefix: str = "") -> SignalModel:
        """The model of `record`, whose trees lie in the folder.

        Args:
            prefix: of the names of the trees' files.

        Raises:
            UserError: LightGBM is needed and not installed.
            OSError, ValueError, KeyError, TypeError: it is damaged, or its inputs are not those of this program.
        """
        if record["forms"] != list(FORMS):
            raise ValueError(f"its inputs are {record['forms']}, and this program makes {list(FORMS)}")
        names = [str(name) for name in record["signals"]]
        inputs, count = len(FORMS) * len(names), int(record["forests"])
        linear = LinearModel.read(record["linear"], inputs)
        forests = Forests.load(folder, count, inputs, prefix) if count else None
        return cls(names, tree_share, linear, forests, float(record["tree_scale"]))


def _spread(scores: np.ndarray, counts: np.ndarray) -> float:
    """The standard deviation of the scores around the mean of their question."""
    begins = np.cumsum([0, *counts[:-1]])
    means = np.add.reduceat(scores, begins) / counts
    return float(np.sqrt(((scores - np.repeat(means, counts)) ** 2).mean()))
