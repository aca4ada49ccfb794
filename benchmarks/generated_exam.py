"""What can be guessed of a generated exam from its options alone: every share should be near 1 / options.

    python -m solution generate --corpus CORPUS --count 1000 --output exam.csv
    python benchmarks/generated_exam.py exam.csv

The guesses: the longest and the shortest option; the option most and least like the others of its question (cosines of
TF-IDF of words, and of two to four letters); and what a logistic regression on these features learns from four fifths
of the questions about right options, asked on the fifth one (`learnt`), or turned round (`learnt, reversed`: a term
that is asked for once is an answer once). The interval is two standard errors of a guess at random. `--json` prints
one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from solution.command import command
from solution.errors import UserError
from solution.questions import Questions, read_questions

_PARTS = 5


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exam", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    exam = read_questions(options.exam)
    exam.require_answers("the measurement")
    if not exam.exists().all() or len(exam) < _PARTS:
        raise UserError(f"{options.exam}: at least {_PARTS} questions, all with as many options, can be measured")
    shares = measure(exam)
    chance = 1 / exam.max_options
    spread = 2 * (chance * (1 - chance) / len(exam)) ** 0.5
    print(f"{len(exam)} questions, at random {chance:.3f} +- {spread:.3f}")
    for name, share in shares.items():
        print(f"{name:34}{share:.3f}")
    if options.json:
        print(json.dumps({"questions": len(exam), "chance": chance, "spread": spread, "shares": shares}))


def measure(exam: Questions) -> dict[str, float]:
    """The share of right answers of each guess."""
    lengths = exam.option_lengths()
    shares = {"longest": _share(lengths, exam.answers), "shortest": _share(-lengths, exam.answers)}
    texts = [option for options in exam.options for option in options]
    for name, vectors in (("words", _vectors(texts, "word", (1, 1))), ("letters", _vectors(texts, "char_wb", (2, 4)))):
        likeness = _likeness(vectors, exam.max_options)
        learnt = _learnt(vectors, exam)
        for guess, scores in (
            ("most like the others", likeness),
            ("least like the others", -likeness),
            ("learnt", learnt),
            ("learnt, reversed", -learnt),
        ):
            shares[f"{guess} ({name})"] = _share(scores, exam.answers)
    return shares


def _share(scores: np.ndarray, answers: np.ndarray) -> float:
    """The chance that the option with the highest score is right; of equal ones each is taken as often.

    Args:
        scores: float [n, options].
        answers: int [n].
    """
    best = scores >= scores.max(axis=1, keepdims=True) - 1e-9
    return float((best[np.arange(len(answers)), answers] / best.sum(axis=1)).mean())


def _vectors(texts: list[str], analyzer: str, lengths: tuple[int, int]) -> Any:
    """Sparse TF-IDF [texts, features]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    pattern = r"\S+" if analyzer == "word" else None
    return TfidfVectorizer(analyzer=analyzer, ngram_range=lengths, token_pattern=pattern).fit_transform(texts)


def _likeness(vectors: Any, width: int) -> np.ndarray:
    """Float [n, width]: the sum of each option's cosines with the options of its question."""
    questions = vectors.shape[0] // width
    blocks = [vectors[row * width : (row + 1) * width] for row in range(questions)]
    return np.array([np.asarray((block @ block.T).sum(axis=1)).ravel() for block in blocks])


def _learnt(vectors: Any, exam: Questions) -> np.ndarray:
    """Float [n, width]: the probability of being right by a model that has not seen the question."""
    from sklearn.linear_model import LogisticRegression

    width = exam.max_options
    right = (np.arange(width) == exam.answers[:, None]).ravel()
    part = np.repeat(np.arange(len(exam)) % _PARTS, width)
    scores = np.zeros(len(right))
    for number in range(_PARTS):
        model = LogisticRegression(C=3.0, max_iter=500).fit(vectors[part != number], right[part != number])
        scores[part == number] = model.predict_proba(vectors[part == number])[:, 1]
    return scores.reshape(len(exam), width)


if __name__ == "__main__":
    main()
