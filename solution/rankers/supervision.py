"""How much each training question counts in the loss, and what its options' probabilities are to be."""

from __future__ import annotations

import numpy as np

from solution.config import TrainingSettings
from solution.exam import Exam
from solution.probabilities import FLOOR


def question_weights(exam: Exam, settings: TrainingSettings) -> np.ndarray | None:
    """How much each question counts in the loss, float64 [n] of mean 1; None: all alike.

    That is its own weight (`training.extra`), with `option_count_weight: log` divided by the loss of a guess at it. The
    mean of 1 keeps the learning rate and the limit of the gradient's norm at what they mean without weights.
    """
    weights = np.ones(len(exam)) if exam.supervision is None else exam.supervision.weights
    if settings.option_count_weight == "log":
        weights = weights / np.log(np.maximum(exam.questions.exists().sum(axis=1), 2))
    if not len(weights) or np.ptp(weights) == 0:
        return None
    return weights / weights.mean()


def target_probabilities(exam: Exam, settings: TrainingSettings) -> np.ndarray | None:
    """What the probabilities of each question's options are to be, float32 [n, max_options]; None: 1 for the right one.

    `soft_labels.share` of it is softmax(log p / temperature) of the teacher's p (Hinton et al. 2015); questions without
    a teacher's probabilities have the right answer alone.
    """
    soft = settings.soft_labels
    if soft is None or exam.supervision is None:
        return None
    exists = exam.questions.exists()
    given = exam.supervision.teacher[:, : exists.shape[1]]
    taught = np.full(exists.shape, np.nan)
    taught[:, : given.shape[1]] = given
    known = ~(np.isnan(taught) & exists).any(axis=1)
    if not known.any():
        return None
    targets = np.zeros(exists.shape)
    targets[np.arange(len(targets)), exam.questions.answers] = 1
    logs = np.where(exists[known], np.log(np.maximum(taught[known], FLOOR)), -np.inf)
    with np.errstate(over="ignore"):  # a temperature near 0: the surest option has all
        powers = np.exp((logs - logs.max(axis=1, keepdims=True)) / soft.temperature)
    targets[known] *= 1 - soft.share
    targets[known] += soft.share * powers / powers.sum(axis=1, keepdims=True)
    return targets.astype(np.float32)
