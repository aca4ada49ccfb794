"""A ranker that learns from signals of the options: no text is read, and no model of language is loaded."""

from __future__ import annotations

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
from solution.rankers.option_inputs import SCORE_OF, exam_signals
from solution.rankers.signal_model import SignalModel

_MODEL = "signals.json"
_WITHOUT = "without_scores"


class FeaturesRanker:
    """Learns the right option from the signals of all options.

    Where scores of other rankers are among the signals (`signals_from`), it learns a second time without them: in a
    submission one of these rankers may fail or come too late.
    """

    alike: Alike = {}
    """It reads no tokens: options whose signals are the same are the same text, or no signal knows better."""

    def __init__(self, config: RankerConfig, cache: Path):
        self.config = config
        self._whole: SignalModel | None = None
        self._without: SignalModel | None = None
        """Learnt without the scores of other rankers; None: there are none of them."""

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
        without = {name: table for name, table in signals.items() if not _is_score(name)}
        if not without:
            raise UserError(f"{self.config.name}: signals.leave_out leaves no signal to learn from")
        if all(map(_is_score, train.signals)):
            say(f"note: {self.config.name} learns without a corpus's signals (retrieval.source is not index)")
        exists, answers = train.questions.exists(), train.questions.answers
        self._whole = SignalModel.fit(signals, exists, answers, settings, self.config.seed)
        self._without = None
        if len(without) < len(signals):
            self._without = SignalModel.fit(without, exists, answers, settings, self.config.seed)
        return {"signals": self._facts(valid)}

    def _facts(self, valid: Exam) -> dict[str, dict[str, float]]:
        """The figures of each signal, for metrics.json."""
        assert self._whole is not None, "it is fitted first"
        facts = self._whole.importances()
        if len(valid):
            signals, exists = exam_signals(valid, self.config), valid.questions.exists()
            for name, figures in facts.items():
                table = np.where(exists, signals[name][:, : exists.shape[1]], np.nan)
                figures["map3"] = round(map_at_k(table, valid.questions.answers), 6)
        return facts

    def predict(self, exam: Exam) -> np.ndarray:
        """float32 [n, max_options], see `Ranker.predict`.

        A question that another ranker has not scored is answered without the scores of any.

        Raises:
            UserError: the exam has not the signals that were learnt from.
        """
        assert self._whole is not None, "fit or load comes first"
        signals, exists = exam_signals(exam, self.config), exam.questions.exists()
        lacking = [name for name in self._whole.names if name not in signals and not _is_score(name)]
        if lacking:
            raise UserError(
                f"the ranker {self.config.name} learnt from the signal {lacking[0]}, which these contexts do not have: "
                "answer with the retrieval settings that it was trained with, or train it again"
            )
        scored = np.ones(len(exam), dtype=bool)
        for name in filter(_is_score, self._whole.names):
            known = np.isfinite(signals[name][:, : exists.shape[1]]) if name in signals else np.zeros_like(exists)
            scored &= (known | ~exists).all(axis=1)
        table = np.zeros(exists.shape)
        for model, rows in ((self._whole, scored), (self._without, ~scored)):
            if rows.any():
                assert model is not None, "a ranker that learnt from scores has learnt without them too"
                read = {name: signals[name][rows] for name in model.names}
                table[rows] = model.scores(read, exists[rows])
        return masked_softmax(table, exists)

    def save(self, folder: Path) -> None:
        assert self._whole is not None, "fit or load comes first"
        record = self._whole.record()
        if self._whole.forests is not None:
            self._whole.forests.save(folder)
        if self._without is not None:
            record[_WITHOUT] = self._without.record()
            if self._without.forests is not None:
                self._without.forests.save(folder, f"{_WITHOUT}_")
        write_json(folder / _MODEL, record)

    def load(self, folder: Path) -> None:
        remedy = "Train that fold again."
        record = read_json(folder / _MODEL, "the features ranker's file", remedy)
        share = self.config.signals.tree_share
        try:
            whole, without = SignalModel.read(record, folder, share), None
            if _WITHOUT in record:
                without = SignalModel.read(record[_WITHOUT], folder, share, f"{_WITHOUT}_")
            elif any(map(_is_score, whole.names)):
                raise ValueError("what it learnt without the scores of other rankers is missing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"the features ranker in {folder} is corrupt ({error}). {remedy}") from None
        self._whole, self._without = whole, without


def _is_score(name: str) -> bool:
    """Whether a signal is made of another ranker's scores."""
    return name.startswith(SCORE_OF)
