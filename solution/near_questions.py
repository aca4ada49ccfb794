"""Questions that are the same or nearly the same, whatever their capitals, punctuation and order of options.

Two questions are the same when their prompts and their options are. They are nearly the same when their prompts nearly
are, and either all of their options together or their right options are. Texts that differ in a number or a negation
are neither: "2 mol" and "4 mol", "is true" and "is not true".
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solution.option_references import option_references
from solution.questions import Questions
from solution.words import search_words

_QUESTION_NUMBER = re.compile(r"\s*(?:question\s*|q\s*)?\d{1,4}\s*[.):]\s+(?=\D)", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?<![\w)\]])[-+])?\d+(?:[.,]\d+)*|[⁺⁻]?[⁰¹²³⁴-⁹]+")
_PLAIN_NUMBERS = str.maketrans("₀₁₂₃₄₅₆₇₈₉−–", "0123456789--")
_NEGATIONS = frozenset(
    # English, German and Dutch, French, Spanish, Italian and Portuguese, Turkish, Russian, Arabic, Hindi, Chinese.
    "not no never none neither nor without except cannot incorrect false untrue wrong unlikely impossible invalid "
    "inaccurate least excluding nicht kein keine keinen keinem keiner keines nie niemals ohne außer falsch niet geen "
    "nooit zonder behalve onjuist pas jamais aucun aucune sans sauf faux fausse incorrecte nunca ningún ninguno "
    "ninguna sin excepto falso falsa incorrecto incorrecta non mai nessun nessuno nessuna senza tranne eccetto errata "
    "não nenhum nenhuma sem exceto değil yok не нет ни никогда без кроме неверно لا ليس ليست لم لن غير عدا إلا "
    "नहीं न मत गलत 不 没 非 未 无 错 除 沒 無 錯".casefold().split()
)
_SHORT_NOT = re.compile(r"n['’]t\b")
_AT_ONCE = 1 << 16  # pairs whose vectors are multiplied together
_PRODUCTS_AT_ONCE = 1 << 24  # of a block of the sparse product that finds candidates
_ROUNDING = 1e-4

TextKey = tuple[str, tuple[str, ...]]
"""A text as it is compared: its words, and its numbers and negations."""
Rows = np.ndarray
"""int64, one row a question."""


def text_key(text: str) -> TextKey:
    """A text as it is compared: without capitals, punctuation and the number of the question in front of it."""
    text = _QUESTION_NUMBER.sub("", text, count=1).translate(_PLAIN_NUMBERS)
    words = [part for word in search_words(text.casefold()) for part in word.split("_") if part]
    numbers = _NUMBER.findall(text)
    negations = sum(word in _NEGATIONS for word in words) + len(_SHORT_NOT.findall(text))
    return " ".join(words) or text.strip(), (*numbers, *["not"] * negations)


def question_key(prompt: str, options: Sequence[str]) -> tuple[TextKey, tuple[TextKey, ...]]:
    """A question as it is compared; equal for two that are the same."""
    return text_key(prompt), tuple(sorted(text_key(option) for option in options if option))


def near_questions(questions: Questions, threshold: float) -> tuple[Rows, Rows]:
    """Pairs of questions that are the same or nearly the same; the pairs connect all such questions.

    Args:
        threshold: the least TF-IDF cosine of the words and word pairs of two prompts, and of the words of two
            questions' options, that makes them nearly the same. At 1 only the same questions are joined.

    Returns:
        The rows of the first and of the second question of each pair.
    """
    compared = _Compared.of(questions)
    pairs = [_equal(compared.question), _equal(compared.answered)]
    if threshold < 1:
        prompts = _tf_idf(compared.prompt_texts, word_pairs=True)[compared.prompt]
        options = _tf_idf(compared.option_texts, word_pairs=False)[compared.options]
        _, rows = np.unique(compared.question, return_index=True)
        pairs += _similar([prompts, options], compared.numbers, rows, threshold)
        del options
        answered, rows = np.unique(compared.answered, return_index=True)
        pairs += _similar([prompts], compared.answer, rows[answered >= 0], threshold)
    return np.concatenate([left for left, _ in pairs]), np.concatenate([right for _, right in pairs])


class _Numbers(dict[Any, int]):
    """Numbers things from 0 in the order in which they are first asked for."""

    def __missing__(self, key: Any) -> int:
        self[key] = len(self)
        return self[key]


@dataclass
class _Compared:
    """What n questions are compared by; each array is int64 [n], equal where the questions agree.

    Attributes:
        prompt_texts, option_texts: the words of the different prompts, and of all options of the different questions.
        prompt, options: places in these lists.
        question: the same prompt and options.
        numbers: the same numbers and negations in prompt and options.
        answer: the same right option, and the same numbers and negations in the prompt.
        answered: the same prompt and right option; -1 where the right option is unknown, names other options, or is
            that of no other question.
    """

    prompt_texts: list[str]
    option_texts: list[str]
    prompt: Rows
    options: Rows
    question: Rows
    numbers: Rows
    answer: Rows
    answered: Rows

    @classmethod
    def of(cls, questions: Questions) -> _Compared:
        prompts, options, wholes, numbers, answers = (_Numbers() for _ in range(5))
        rows = []
        for prompt, texts, answer in zip(questions.prompts, questions.options, questions.answers.tolist(), strict=True):
            (asked, asked_numbers), keys = question_key(prompt, texts)
            whole = hashlib.blake2b(repr((asked, asked_numbers, keys)).encode(), digest_size=16).digest()
            right = (text_key(texts[answer]), asked_numbers) if answer >= 0 else None
            rows.append(
                (
                    prompts[asked],
                    options[" ".join(words for words, _ in keys)],
                    wholes[whole],
                    numbers[asked_numbers, tuple(sorted(number for _, number in keys))],
                    answers[right],
                )
            )
        asked_of, options_of, whole_of, numbers_of, answer_of = np.array(rows, dtype=np.int64).reshape(-1, 5).T
        known = _shared_answers(questions, answer_of)
        answered = np.where(known, asked_of * len(answers) + answer_of, -1)
        return cls(list(prompts), list(options), asked_of, options_of, whole_of, numbers_of, answer_of, answered)


def _shared_answers(questions: Questions, answer: Rows) -> np.ndarray:
    """Whether each question's right option is that of another one too, and an answer of its own, bool [n]."""
    counts = Counter(answer.tolist())
    known = questions.answers >= 0
    for row in np.flatnonzero(known):
        shared = counts[int(answer[row])] > 1
        known[row] = shared and option_references(questions.options[row])[questions.answers[row]] is None
    return known


def _equal(values: Rows) -> tuple[Rows, Rows]:
    """Each row with the first one of the same value; values below 0 are equal to none."""
    _, first, place = np.unique(values, return_index=True, return_inverse=True)
    later = np.flatnonzero((first[place] != np.arange(len(values))) & (values >= 0))
    return first[place[later]], later


# --- texts as vectors ----------------------------------------------------------------------


def _tf_idf(texts: Sequence[str], word_pairs: bool) -> Any:
    """Unit vectors of the words of texts, and of pairs of neighbouring words: a sparse float32 [n, features].

    The weights are scikit-learn's with `sublinear_tf`; its vectorizer would hold each pair of words as a text.
    """
    from scipy.sparse import csr_matrix

    numbers = _Numbers()
    split = [[numbers[word] for word in text.split(" ")] for text in texts]
    lengths = list(map(len, split))
    words = np.fromiter(itertools.chain.from_iterable(split), dtype=np.int64, count=sum(lengths))
    rows = np.repeat(np.arange(len(texts)), lengths)
    if word_pairs:
        neighbours = np.flatnonzero(rows[1:] == rows[:-1])
        pairs = (words[neighbours] + 1) * len(numbers) + words[neighbours + 1]
        words, rows = np.concatenate([words, pairs]), np.concatenate([rows, rows[neighbours]])
    features, columns = np.unique(words, return_inverse=True)
    counts = np.ones(len(columns), dtype=np.float32)
    vectors = csr_matrix((counts, (rows, columns)), shape=(len(texts), len(features)))  # equal entries are summed
    holders = np.bincount(vectors.indices, minlength=len(features))
    weights = (np.log((1 + len(texts)) / (1 + holders)) + 1).astype(np.float32)
    vectors.data = (1 + np.log(vectors.data)) * weights[vectors.indices]
    norms = np.sqrt(np.add.reduceat(vectors.data**2, vectors.indptr[:-1])) if len(texts) else counts
    vectors.data /= np.repeat(norms, np.diff(vectors.indptr))
    return vectors


def _similar(parts: Sequence[Any], group: Rows, rows: Rows, threshold: float) -> list[tuple[Rows, Rows]]:
    """Pairs among `rows` of equal group whose unit vectors have at least this cosine in each part.

    No pair is missed: two vectors whose cosine reaches the threshold share a feature that is rare for both, as those
    that are more common cannot give so much (the prefix filter of Bayardo, Ma and Srikant 2007, Scaling Up All Pairs
    Similarity Search, with the bound by norms of Anastasiu and Karypis 2014, L2AP).

    Args:
        parts: sparse [n, features] each.
    """
    from scipy.sparse import hstack

    parts = [part[rows] for part in parts]
    joined = parts[0] if len(parts) == 1 else hstack(parts, format="csr")
    rare = _rare_features(joined, group[rows], len(parts) * threshold**2)
    found = []
    for left, right in _sharing(rare):
        near = np.ones(len(left), dtype=bool)
        for part in parts:
            near[near] = _cosines(part, left[near], right[near]) >= threshold
        found.append((rows[left[near]], rows[right[near]]))
    return found


def _rare_features(vectors: Any, group: Rows, most: float) -> Any:
    """The rarest features of each vector: without them its squared norm stays below `most`.

    Args:
        vectors: sparse [n, features].

    Returns:
        A sparse int32 [n, m] of ones. A column is a feature in one group that several of its vectors have.
    """
    from scipy.sparse import csr_matrix

    count, features = vectors.shape
    # Columns in the order of their frequency, so that each row's common features come first.
    order = np.argsort(-np.bincount(vectors.indices, minlength=features), kind="stable")
    place = np.empty(features, dtype=vectors.indices.dtype)
    place[order] = np.arange(features)
    parts = vectors.data.copy(), place[vectors.indices], vectors.indptr  # sorting changes them in place
    ordered = csr_matrix(parts, shape=vectors.shape)
    ordered.sort_indices()
    lines = np.repeat(np.arange(count), np.diff(ordered.indptr))
    squares = np.cumsum(ordered.data.astype(np.float64) ** 2)
    before = np.concatenate([[0.0], squares])[ordered.indptr[:-1]]
    kept = np.flatnonzero(squares - before[lines] >= most - _ROUNDING)
    _, columns, holders = np.unique(
        group[lines[kept]] * features + ordered.indices[kept], return_inverse=True, return_counts=True
    )
    shared = np.flatnonzero(holders[columns] > 1)
    ones = np.ones(len(shared), dtype=np.int32)
    return csr_matrix((ones, (lines[kept][shared], columns[shared])), shape=(count, len(holders)))


def _sharing(rare: Any) -> Iterator[tuple[Rows, Rows]]:
    """All pairs of rows that have a column in common, tens of thousands at a time."""
    holders = np.bincount(rare.indices, minlength=rare.shape[1])
    lines = np.repeat(np.arange(rare.shape[0]), np.diff(rare.indptr))
    products = np.cumsum(np.bincount(lines, holders[rare.indices], minlength=rare.shape[0]))
    begin = 0
    while begin < rare.shape[0]:
        done = products[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(products, done + _PRODUCTS_AT_ONCE, side="right")))
        product = (rare[begin:end] @ rare[begin:].T).tocoo()  # one half of the symmetric product is enough
        below = product.col > product.row
        left, right = begin + product.row[below], begin + product.col[below]
        for start in range(0, len(left), _AT_ONCE):
            yield left[start : start + _AT_ONCE], right[start : start + _AT_ONCE]
        begin = end


def _cosines(vectors: Any, left: Rows, right: Rows) -> np.ndarray:
    """Products of pairs of rows, float32."""
    return np.asarray(vectors[left].multiply(vectors[right]).sum(axis=1)).ravel()
