"""MAP@k, precision@k, log loss and calibration: the only implementation.

Ties. Options with the same probability share their places: the score is the mean over all the
orders in which the tied options could be listed. It therefore does not depend on the order of
the columns, and a ranker that answers nothing (all equal) scores as a random one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def places(probabilities: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each question, how many options stand strictly above the right one and how many tie with it.

    Args:
        probabilities: float [n, max_options], 0 or NaN where an option does not exist.
        answers: int [n], the index of the right option.

    Returns:
        Two int [n] arrays (above, tied).

    Raises:
        ValueError: shapes that do not fit, no question, an answer out of range, or a right
            option whose probability is NaN.
    """
    table, _, right = _right(probabilities, answers)
    above, tied = count_places(table.T, right)
    return above, tied - 1  # the right option stands at its own height


def count_places(columns: np.ndarray, right: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """For each question, how many of these options stand strictly above the right one and how many at its height.

    Args:
        columns: float [options, n].
        right: float [n] (or one number for all), of the right option.

    Returns:
        Two uint8 [n] arrays (above, tied).
    """
    # uint8 counts, one column at a time: NaN compares false, and the columns stay in cache.
    above = np.zeros(columns.shape[1], dtype=np.uint8)
    at_least = np.zeros(columns.shape[1], dtype=np.uint8)
    for column in columns:
        above += column > right
        at_least += column >= right
    return above, at_least - above


def _right(probabilities: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both arguments as arrays, checked, and the right option's probability of each question."""
    table = np.asarray(probabilities)
    answers = np.asarray(answers)
    if table.ndim != 2 or answers.shape != table.shape[:1]:
        raise ValueError(f"probabilities [n, options] and answers [n] needed, not {table.shape} and {answers.shape}")
    if len(answers) == 0:
        raise ValueError("no question to score")
    if answers.min() < 0 or answers.max() >= table.shape[1]:
        raise ValueError("every answer must be an option's index; leave out questions without an answer")
    right = table[np.arange(len(answers)), answers]
    if np.isnan(right).any():
        raise ValueError("the right option of a question has no probability (NaN)")
    return table, answers, right


def credit_at_k(probabilities: np.ndarray, answers: np.ndarray, k: int = 3) -> np.ndarray:
    """Average precision at k of each question, float64 [n]; its mean is `map_at_k`."""
    return _lookup(np.asarray(probabilities), answers, k, lambda place: 1.0 / place)


def credit_at_places(places: np.ndarray, k: int = 3) -> np.ndarray:
    """`credit_at_k` where the right option's place is known, from 1; inf: it was not ranked."""
    return np.where(places <= k, 1.0 / places, 0.0)


def map_at_k(probabilities: np.ndarray, answers: np.ndarray, k: int = 3) -> float:
    """Mean average precision at k with one right option a question: the mean of 1/place, 0 beyond place k.

    Args:
        probabilities: float [n, max_options], 0 or NaN where an option does not exist. Any
            score that orders the options will do.
        answers: int [n], the index of the right option.
        k: how many places count, at least 1.

    Raises:
        ValueError: see `places`; or k < 1.
    """
    return float(credit_at_k(probabilities, answers, k).mean())


def precision_at_k(probabilities: np.ndarray, answers: np.ndarray, k: int = 3) -> float:
    """Mean share of the first k places held by the right option (so 1/k at most; `k=1` is accuracy).

    Arguments, ties and errors as in `map_at_k`.
    """
    return float(_lookup(np.asarray(probabilities), answers, k, lambda place: 1.0 / k).mean())


def _lookup(table: np.ndarray, answers: np.ndarray, k: int, gain: Callable[[int], float]) -> np.ndarray:
    """The credit of each question, float64 [n], from a table by its place and its ties."""
    above, tied = places(table, answers)
    width = table.shape[1]
    return credit_table(width, k, gain).ravel()[above.astype(np.int64) * width + tied]


def credit_table(width: int, k: int = 3, gain: Callable[[int], float] = lambda place: 1.0 / place) -> np.ndarray:
    """The credit of a question of `width` options, float64 [width, width], by (above, tied) of `places`.

    Args:
        gain: of a place from 1; places beyond k earn nothing. The default is that of average precision.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    gains = np.array([gain(place) if place <= k else 0.0 for place in range(1, width + 1)])
    credit = np.zeros((width, width))
    for above in range(width):
        for tied in range(width - above):
            credit[above, tied] = gains[above : above + tied + 1].mean()
    return credit


def expected_random_map(n_options: np.ndarray, k: int = 3) -> float:
    """MAP@k of random guessing, exact, for questions with these option counts (int [n])."""
    counts = np.asarray(n_options)
    harmonic = np.array([sum(1.0 / place for place in range(1, min(k, int(count)) + 1)) for count in counts])
    return float((harmonic / counts).mean())


def log_loss(probabilities: np.ndarray, answers: np.ndarray, floor: float = 1e-7) -> float:
    """Mean of -ln p(right option), p floored so that one certain mistake does not decide everything.

    Raises:
        ValueError: see `places`.
    """
    right = _right(probabilities, answers)[2].astype(np.float64)
    return float(-np.log(np.maximum(right, floor)).mean())


def reliability(probabilities: np.ndarray, answers: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean confidence in the top option, share of hits, and number of questions of each bin that has any.

    The bins are equally wide, by confidence. Where m options share the top, the right one among them counts as 1/m of
    a hit.

    Raises:
        ValueError: see `places`.
    """
    hit = credit_at_k(probabilities, answers, k=1)
    confidence = np.nan_to_num(np.asarray(probabilities, dtype=np.float64)).max(axis=1)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [bin_of == b for b in range(bins)]
    return [(float(confidence[b].mean()), float(hit[b].mean()), int(b.sum())) for b in inside if b.any()]


def calibration_error(probabilities: np.ndarray, answers: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of the top option (Guo et al. 2017): |confidence - accuracy| over equal-width bins.

    Raises:
        ValueError: see `places`.
    """
    curve = reliability(probabilities, answers, bins)
    return float(sum(count * abs(confidence - hit) for confidence, hit, count in curve) / len(answers))


_MANY = 20_000  # questions


def bootstrap_interval(
    credits: np.ndarray, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of per-question credits (float [n]) over questions.

    For the interval of a difference give the differences: the bootstrap is then paired.
    """
    credits = np.asarray(credits, dtype=np.float64)
    # In blocks of samples: an index array [samples, n] as a whole could fill the memory.
    rng = np.random.default_rng(seed)
    values, counts = np.unique(credits, return_counts=True) if len(credits) > _MANY else (credits, credits)
    if len(values) < len(credits) / 100:
        # Of many questions with few different credits: how often each is drawn says the same, and takes no time.
        means = rng.multinomial(len(credits), counts / len(credits), size=samples) @ values / len(credits)
        return _quantiles(means, level)
    means = np.empty(samples)
    block = max(1, 4_000_000 // max(1, len(credits)))
    for start in range(0, samples, block):
        size = min(block, samples - start)
        picks = rng.integers(0, len(credits), size=(size, len(credits)), dtype=np.int32)
        means[start : start + size] = credits[picks].mean(axis=1)
    return _quantiles(means, level)


def _quantiles(means: np.ndarray, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
