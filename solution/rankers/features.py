"""A ranker that learns from signals of the options: no text is read, and no model of language is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from solution.config import SCORE_OF, RankerConfig
from solution.errors import UserError
from solution.exam import SIGNAL_STEPS, Exam
from solution.files import read_json, write_json
from solution.metrics import map_at_k
from solution.probabilities import masked_softmax
from solution.progress import say
from solution.rankers.alike import Alike
from solution.rankers.option_inputs import exam_signals, repeated_signals
from solution.rankers.signal_model import Lesson, SignalModel
from solution.rankers.supervision import question_weights

_MODEL = "signals.json"
_WITHOUT = "without_scores"
_FEWER = "fewer_signals"
_FEWER_FORESTS = 1  # of each model of fewer signals: five were no better (docs/signals.md)


class FeaturesRanker:
    """Learns the right option from the signals of all options.

    Where scores of other rankers are among the signals (`signals_from`), it learns a second time without them: in a
    submission one of these rankers may fail or come too late. A submission that has little time makes the dear signals
    for some questions only, or not at all (`SIGNAL_STEPS`): further models learn from ever fewer signals. A question is
    answered by the first model whose signals are all there.
    """

    alike: Alike = {}
    """It reads no tokens: options whose signals are the same are the same text, or no signal knows better."""

    def __init__(self, config: RankerConfig, cache: Path):
        self.config = config
        self._whole: SignalModel | None = None
        self._without: SignalModel | None = None
        """Learnt without the scores of other rankers; None: there are none of them."""
        self._fewer: list[SignalModel] = []
        """Learnt without the last step's signals, without those of the last two, and so on."""

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
        for name in repeated_signals(signals):
            del signals[name]
        without = {name: table for name, table in signals.items() if not _is_score(name)}
        if not without:
            raise UserError(f"{self.config.name}: signals.leave_out leaves no signal to learn from")
        if all(map(_is_score, train.signals)):
            say(f"note: {self.config.name} learns without a corpus's signals (retrieval.source is not index)")
        exists, answers = train.questions.exists(), train.questions.answers
        lesson = Lesson(exists, answers, question_weights(train, self.config.training))
        self._whole = SignalModel.fit(signals, lesson, settings, self.config.seed)
        self._without = None
        if len(without) < len(signals):
            self._without = SignalModel.fit(without, lesson, settings, self.config.seed)
        small = settings.model_copy(update={"forests": min(settings.forests, _FEWER_FORESTS)})
        self._fewer = [SignalModel.fit(fewer, lesson, small, self.config.seed) for fewer in _ever_fewer(without)]
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

        A question that another ranker has not scored is answered without the scores of any, and one for which there was
        no time to make all signals from those that are there.

        Raises:
            UserError: the exam has not the signals that were learnt from.
        """
        assert self._whole is not None, "fit or load comes first"
        signals, exists = exam_signals(exam, self.config), exam.questions.exists()
        table, to_answer = np.zeros(exists.shape), exists.any(axis=1)
        models = [model for model in (self._whole, self._without, *self._fewer) if model is not None]
        for model in models:
            rows = to_answer & model.can_answer(signals, exists)
            if rows.any():
                read = {name: signals[name][rows] for name in model.names}
                table[rows] = model.scores(read, exists[rows])
                to_answer &= ~rows
        if to_answer.any():
            part = {name: values[to_answer] for name, values in signals.items()}
            lacking = next(name for name in models[-1].names if _lacks(part.get(name), exists[to_answer]))
            raise UserError(
                f"the ranker {self.config.name} learnt from the signal {lacking}, which these contexts do not have: "
                "answer with the retrieval settings that it was trained with, or train it again"
            )
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
        record[_FEWER] = [model.record() for model in self._fewer]
        for number, model in enumerate(self._fewer):
            if model.forests is not None:
                model.forests.save(folder, f"{_FEWER}_{number}_")
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
            # Folds of the version before have none.
            fewer = [
                SignalModel.read(part, folder, share, f"{_FEWER}_{number}_")
                for number, part in enumerate(record.get(_FEWER, []))
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"the features ranker in {folder} is corrupt ({error}). {remedy}") from None
        self._whole, self._without, self._fewer = whole, without, fewer


def _ever_fewer(signals: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The signals that are left where the last step was not made, the last two, and so on; none where there are no
    signals of steps."""
    lists = [signals]
    for step in reversed(SIGNAL_STEPS[1:]):
        left = {name: table for name, table in lists[-1].items() if not name.rpartition(":")[2].startswith(step)}
        if left and len(left) < len(lists[-1]):
            lists.append(left)
    return lists[1:]


def _lacks(table: np.ndarray | None, exists: np.ndarray) -> bool:
    return table is None or bool((np.isnan(table[:, : exists.shape[1]]) & exists).any())


def _is_score(name: str) -> bool:
    """Whether a signal is made of another ranker's scores."""
    return name.startswith(SCORE_OF)
