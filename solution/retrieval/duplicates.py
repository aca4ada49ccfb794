"""Repeated passages: equal ones by a hash, nearly equal ones by MinHash with locality-sensitive bands.

Method: Broder 1997 (On the resemblance and containment of documents); banding as in Leskovec, Rajaraman, Ullman
(Mining of Massive Datasets, chapter 3). The bands' keys and the signatures lie in a temporary file, so memory does not
grow with the corpus: about 250 bytes of disk a passage that is kept, against 30 for equal ones only.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from solution.exam import passage_text
from solution.retrieval.corpus import Seen
from solution.retrieval.passages import Passage
from solution.words import words as words_of

_AT_ONCE = 256
_RUN = 3  # words that follow each other: what two passages are compared by
_HASHES, _BANDS = 64, 8
_ROWS = _HASHES // _BANDS
_CHANCE = 1 / 256  # that two bytes of a signature are equal though their hashes are not


class Duplicates:
    """Lets each passage through once.

    Args:
        how: `exact` drops a passage whose title and text are those of an earlier one; `near` also one that shares
            at least `similarity` of its three-word runs with an earlier one that was kept (Jaccard, estimated from 64
            hashes: a standard error of 0.04 at 0.9; a pair at 0.9 is compared with probability 0.99, at 0.8 with
            0.77); `keep` drops nothing.
        dropped: counts them.
    """

    def __init__(self, how: Literal["keep", "exact", "near"], similarity: float, dropped: Counter[str]):
        self._how, self._similarity, self._dropped = how, similarity, dropped
        self._seen = Seen()
        if how == "near":
            self._seen.execute("CREATE TABLE band (key INTEGER PRIMARY KEY, passage INTEGER)")
            self._seen.execute("CREATE TABLE signature (passage INTEGER PRIMARY KEY, bytes BLOB)")
        self._kept = 0

    def without(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """The passages that repeat none before them, in their order.

        Raises:
            UserError: the disk of temporary files is full.
        """
        if self._how == "keep":
            yield from passages
            return
        stream = iter(passages)
        while batch := list(itertools.islice(stream, _AT_ONCE)):
            new = []
            for passage in batch:
                if self._seen.add(passage_text(passage)):
                    new.append(passage)
                else:
                    self._dropped["repeated passage"] += 1
            if self._how == "exact":
                yield from new
                continue
            signatures, keys = _signatures([passage_text(passage) for passage in new])
            for passage, signature, bands in zip(new, signatures, keys, strict=True):
                if self._is_near(signature, bands):
                    self._dropped["nearly repeated passage"] += 1
                else:
                    self._keep(signature, bands)
                    yield passage

    def _is_near(self, signature: np.ndarray, keys: np.ndarray) -> bool:
        marks = ",".join("?" * _BANDS)
        alike = self._seen.execute(f"SELECT DISTINCT passage FROM band WHERE key IN ({marks})", tuple(keys.tolist()))
        for (number,) in alike.fetchall():
            (other,) = self._seen.execute("SELECT bytes FROM signature WHERE passage = ?", (number,)).fetchone()
            equal = float((np.frombuffer(other, dtype=np.uint8) == signature).mean())
            if (equal - _CHANCE) / (1 - _CHANCE) >= self._similarity:
                return True
        return False

    def _keep(self, signature: np.ndarray, keys: np.ndarray) -> None:
        self._seen.execute("INSERT INTO signature VALUES (?, ?)", (self._kept, signature.tobytes()))
        # The first passage of a band stands for it: common bands (lists, forms) must not grow without end.
        for key in keys.tolist():
            self._seen.execute("INSERT OR IGNORE INTO band VALUES (?, ?)", (key, self._kept))
        self._kept += 1


_rng = np.random.default_rng(20260101)
_FACTORS = _rng.integers(0, 1 << 64, _HASHES, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _rng.integers(0, 1 << 64, _HASHES, dtype=np.uint64)
_MIX = _rng.integers(0, 1 << 64, _RUN, dtype=np.uint64) | np.uint64(1)


def _signatures(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Signatures uint8 [n, 64] and the keys of their bands int64 [n, 8]."""
    if not texts:
        return np.zeros((0, _HASHES), dtype=np.uint8), np.zeros((0, _BANDS), dtype=np.int64)
    words = [[zlib.crc32(word.encode()) for word in words_of(text)] for text in texts]
    runs = [_runs(np.array(text, dtype=np.uint64)) for text in words]
    starts = np.concatenate([[0], np.cumsum([len(text) for text in runs])[:-1]])
    every = np.concatenate(runs)
    least = np.empty((len(texts), _HASHES), dtype=np.uint64)
    for place in range(_HASHES):
        least[:, place] = np.minimum.reduceat(_scrambled(every * _FACTORS[place] + _OFFSETS[place]), starts)
    signatures = (least & np.uint64(0xFF)).astype(np.uint8)
    bands = least.reshape(len(texts), _BANDS, _ROWS)
    keys = np.zeros((len(texts), _BANDS), dtype=np.uint64)
    for row in range(_ROWS):
        keys = _scrambled(keys ^ bands[:, :, row])
    keys = _scrambled(keys + np.arange(_BANDS, dtype=np.uint64))
    return signatures, keys.view(np.int64)


def _runs(words: np.ndarray) -> np.ndarray:
    """A hash of each run of words; of a text of fewer words, one of all of them."""
    if len(words) < _RUN:
        words = np.concatenate([words, np.zeros(_RUN - len(words), dtype=np.uint64)])
    count = len(words) - _RUN + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for place in range(_RUN):
        mixed += _scrambled(words[place : place + count] * _MIX[place])
    return mixed


def _scrambled(values: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit numbers that spreads every bit over all (the finaliser of splitmix64, Steele 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
