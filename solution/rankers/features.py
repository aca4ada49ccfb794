"""A ranker that learns from signals of the options: no text is read, and no model of language is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import Exam
from solution.files import read_json, write_json
from solution.metrics import map_at_k
from solution.probabilities import masked_softmax
from solution.progress import say
from solution.rankers.alike import Alike
from solution.rankers.option_inputs import FORMS, OptionInputs, exam_signals
from solution.rankers.option_models import Forests, LinearModel

_MODEL = "signals.json"


class FeaturesRanker:
    """A listwise linear model and LambdaMART over the signals of the options, blended.

    The scores of the trees have no scale of their own: they are given the spread that the linear model's have inside
    the training questions, which the log loss has set.
    """

    alike: Alike = {}
    """It reads no tokens: options whose signals are the same are the same text, or no signal knows better."""

    def __init__(self, config: RankerConfig, cache: Path):
        self.config = config
        self._names: list[str] = []
        self._linear: LinearModel | None = None
        self._forests: Forests | None = None
        self._tree_scale = 0.0

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        """Learn from `train`; killed and called again, it begins anew: it takes seconds.

        Returns:
            `signals`: name -> its own MAP@3 on `valid`, where that has questions, and its importance in the trees and
            in the linear model.

        Raises:
            UserError: an answer is missing, no signal is left, or LightGBM is not installed.
        """
        train.questions.require_answers("training")
        settings = self.config.signals
        signals = exam_signals(train, self.config)
        if not signals:
            raise UserError(f"{self.config.name}: signals.leave_out leaves no signal to learn from")
        if not train.signals:
            say(f"note: {self.config.name} learns without a corpus's signals (retrieval.source is not index)")
        self._names = sorted(signals)
        inputs = self._inputs(signals, train)
        exists = train.questions.exists()
        right = (np.arange(exists.shape[1]) == train.questions.answers[:, None])[exists]
        self._linear = LinearModel.fit(inputs, right, settings.ridge)
        self._forests = None
        if settings.tree_share > 0:
            self._forests = Forests.fit(inputs, right, settings, self.config.seed)
            spreads = [_spread(model.scores(inputs), inputs.counts) for model in (self._linear, self._forests)]
            self._tree_scale = spreads[0] / spreads[1] if spreads[1] > 0 else 0.0
        return {"signals": self._facts(valid)}

    def _inputs(self, signals: Mapping[str, np.ndarray], exam: Exam) -> OptionInputs:
        return OptionInputs.of([signals[name] for name in self._names], exam.questions.exists())

    def _facts(self, valid: Exam) -> dict[str, dict[str, float]]:
        """The figures of each signal, for metrics.json."""
        assert self._linear is not None, "the linear model is fitted first"
        models = {"linear": self._linear, "trees": self._forests}
        # [inputs] of all forms become [signals].
        importances = {
            name: model.importance().reshape(len(FORMS), -1).sum(axis=0) for name, model in models.items() if model
        }
        facts: dict[str, dict[str, float]] = {
            signal: {model: round(float(shares[place]), 6) for model, shares in importances.items()}
            for place, signal in enumerate(self._names)
        }
        if len(valid):
            signals, exists = exam_signals(valid, self.config), valid.questions.exists()
            for name, figures in facts.items():
                table = np.where(exists, signals[name][:, : exists.shape[1]], np.nan)
                figures["map3"] = round(map_at_k(table, valid.questions.answers), 6)
        return facts

    def predict(self, exam: Exam) -> np.ndarray:
        """float32 [n, max_options], see `Ranker.predict`.

        Raises:
            UserError: the exam has not the signals that were learnt from.
        """
        assert self._linear is not None, "fit or load comes first"
        signals = exam_signals(exam, self.config)
        lacking = [name for name in self._names if name not in signals]
        if lacking:
            raise UserError(
                f"the ranker {self.config.name} learnt from the signal {lacking[0]}, which these contexts do not have: "
                "answer with the retrieval settings that it was trained with, or train it again"
            )
        inputs, exists = self._inputs(signals, exam), exam.questions.exists()
        scores = self._linear.scores(inputs)
        if self._forests is not None:
            share = self.config.signals.tree_share
            scores = (1 - share) * scores + share * self._tree_scale * self._forests.scores(inputs)
        table = np.zeros(exists.shape)
        table[exists] = scores
        return masked_softmax(table, exists)

    def save(self, folder: Path) -> None:
        assert self._linear is not None, "fit or load comes first"
        forests = 0 if self._forests is None else self.config.signals.forests
        record = {
            "signals": self._names,
            "forms": list(FORMS),
            "linear": self._linear.record(),
            "tree_scale": self._tree_scale,
            "forests": forests,
        }
        write_json(folder / _MODEL, record)
        if self._forests is not None:
            self._forests.save(folder)

    def load(self, folder: Path) -> None:
        remedy = "Train that fold again."
        record = read_json(folder / _MODEL, "the features ranker's file", remedy)
        try:
            if record["forms"] != list(FORMS):
                raise ValueError(f"its inputs are {record['forms']}, and this program makes {list(FORMS)}")
            names = [str(name) for name in record["signals"]]
            inputs = len(FORMS) * len(names)
            linear = LinearModel.read(record["linear"], inputs)
            scale, count = float(record["tree_scale"]), int(record["forests"])
            forests = Forests.load(folder, count, inputs) if count else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"the features ranker in {folder} is corrupt ({error}). {remedy}") from None
        self._names, self._linear, self._forests, self._tree_scale = names, linear, forests, scale


def _spread(scores: np.ndarray, counts: np.ndarray) -> float:
    """The standard deviation of the scores around the mean of their question."""
    begins = np.cumsum([0, *counts[:-1]])
    means = np.add.reduceat(scores, begins) / counts
    return float(np.sqrt(((scores - np.repeat(means, counts)) ** 2).mean()))
