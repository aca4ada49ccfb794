"""The stacker: a regularised listwise logistic model over the rankers' log-probabilities and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from solution.ensemble.blend import Stacker, stacker_terms

_STRENGTHS = (1.0, 0.1, 0.01, 0.001)
"""Of the penalty, from which the folds choose, strongest first."""
_WITHOUT_FOLDS = 0.1
"""The strength where one fold leaves nothing to choose on."""


def fit_stacker(
    names: Sequence[str], table: np.ndarray, exists: np.ndarray, answers: np.ndarray, folds: np.ndarray
) -> Stacker:
    """Fit the softmax over a question's options (a conditional logit; scikit-learn has none): convex, by Newton steps.

    The penalty draws towards the mean of all log-probabilities, whose one coefficient is free: with strong
    regularisation the stacker is the equal geometric mean. Its strength is the one with the lowest log loss over
    `folds`, each predicted from the others.

    Args:
        names: of the rankers.
        table: float [rankers, n, width], rows sum to 1.
        exists: bool [n, width].
        answers, folds: int [n].
    """
    rankers, count, width = table.shape
    # Three features a ranker, scaled to a mean square of 1 so that the penalty treats them alike; in front the mean of
    # the rankers' log-probabilities, whose coefficient is free. float64 [n, width, 1 + 3 rankers].
    features = np.concatenate([stacker_terms(alone.astype(np.float64), exists) for alone in table], axis=2)
    spread = np.sqrt((features[exists] ** 2).mean(axis=0)) + 1e-12
    common = features[:, :, ::3].mean(axis=2, keepdims=True)
    features = np.concatenate([common, features / spread], axis=2)
    # Each wrong option's features less the right one's, float64 [n, width - 1, 1 + 3 rankers]: the loss needs no more.
    rows = np.arange(count)
    wrong = (answers[:, None] + np.arange(1, width)) % width
    lead = features[rows[:, None], wrong] - features[rows, answers][:, None, :]
    present = exists[rows[:, None], wrong]

    # The strength with the lowest loss on folds that were left out; every fit starts from the stronger one's end.
    strength = _WITHOUT_FOLDS
    parts = np.unique(folds)
    if len(parts) > 1:
        losses = np.zeros(len(_STRENGTHS))
        for part in parts:
            held_out = folds == part
            theta: np.ndarray | None = None
            for number, candidate in enumerate(_STRENGTHS):
                theta = _fit(lead[~held_out], present[~held_out], candidate, theta)
                losses[number] += held_out.sum() * _loss(theta, lead[held_out], present[held_out], 0.0)[0]
        strength = _STRENGTHS[int(losses.argmin())]

    # All questions; then back to unscaled features, the free coefficient divided among the rankers.
    theta = _fit(lead, present, strength, None)
    factors = (theta[1:] / spread).reshape(rankers, 3)
    factors[:, 0] += theta[0] / rankers
    return Stacker({name: (float(a), float(b), float(c)) for name, (a, b, c) in zip(names, factors, strict=True)})


def _fit(lead: np.ndarray, present: np.ndarray, strength: float, start: np.ndarray | None) -> np.ndarray:
    """The coefficients of least loss, float64 [features].

    Args:
        lead: float64 [n, width - 1, features], of the wrong options over the right one.
        present: bool [n, width - 1], the wrong options that exist.
        start: where to begin; None: at the plain mean of log-probabilities.
    """
    from scipy.optimize import minimize

    if start is None:
        start = np.zeros(lead.shape[2])
        start[0] = 1.0
    more = {"jac": True, "hess": _curvature, "method": "trust-exact", "options": {"gtol": 1e-6}}
    return minimize(_loss, start, args=(lead, present, strength), **more).x


def _shares(theta: np.ndarray, lead: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wrong options' probabilities, float [n, width - 1], and -ln of the right one's, float [n]."""
    scores = np.where(present, lead @ theta, -np.inf)
    highest = np.maximum(scores.max(axis=1), 0)
    powers = np.exp(scores - highest[:, None])
    total = powers.sum(axis=1) + np.exp(-highest)
    return powers / total[:, None], highest + np.log(total)


def _loss(theta: np.ndarray, lead: np.ndarray, present: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
    """The mean log loss with the penalty, and its gradient, float64 [features]."""
    shares, losses = _shares(theta, lead, present)
    penalty = theta.copy()
    penalty[0] = 0  # the common temperature is free
    loss = float(losses.mean() + strength / 2 * penalty @ penalty)
    return loss, np.tensordot(shares, lead, axes=2) / len(lead) + strength * penalty


def _curvature(theta: np.ndarray, lead: np.ndarray, present: np.ndarray, strength: float) -> np.ndarray:
    """The Hessian of `_loss`, float64 [features, features]."""
    shares, _ = _shares(theta, lead, present)
    flat = lead.reshape(-1, lead.shape[2])
    means = (shares[:, None, :] @ lead)[:, 0]
    result = ((flat * shares.reshape(-1, 1)).T @ flat - means.T @ means) / len(lead)
    result[np.diag_indices_from(result)] += np.where(np.arange(len(theta)) > 0, strength, 1e-9)
    return result
