"""BM25 over the passages' words: the words, the arrays of scores and how they are written, and the search."""

from __future__ import annotations

import array
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.exam import passage_text
from solution.files import write_json
from solution.progress import progress_bar, say
from solution.retrieval.passages import Passage
from solution.retrieval.places import remedy_of
from solution.retrieval.store import COLUMNS, PASSAGES, Passages
from solution.words import search_words

_BLOCK = 256  # passages whose best score stands for them when the k best are sought
_DATA, _ROWS, _STARTS = "data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy"
_PARAMETERS = "params.index.json"
_VOCABULARY = "vocabulary.parquet"
POSTINGS = {_DATA, _ROWS, _STARTS, _PARAMETERS, _VOCABULARY}
FILES = {*POSTINGS, PASSAGES}


def bm25s_library() -> Any:
    """The module bm25s, imported without JAX.

    Where JAX is installed, `import bm25s` runs it once, and JAX then keeps three quarters of the GPU's memory, or it
    raises where another process has that already. We use none of it.
    """
    if "bm25s" in sys.modules or "jax" in sys.modules:
        return importlib.import_module("bm25s")
    sys.modules["jax"] = None  # type: ignore[assignment] # an import of it fails as if it were not installed
    try:
        return importlib.import_module("bm25s")
    finally:
        with contextlib.suppress(KeyError):
            del sys.modules["jax"]


class Words:
    """The terms of a text that BM25 counts: words in lower case, without stop words, stemmed (Porter's Snowball).

    Args:
        language: a language of bm25s's stop words and of Snowball's stemmers, or none.
    """

    def __init__(self, language: str):
        self._stop: frozenset[str] = frozenset()
        self._stem = None
        if language != "none":
            import Stemmer

            name = {"english": "EN"}.get(language, language.upper())
            self._stop = frozenset(getattr(bm25s_library().stopwords, f"STOPWORDS_{name}"))
            self._stem = Stemmer.Stemmer(language)

    split = staticmethod(search_words)
    """The words by which a text is found, in order."""

    def term(self, word: str) -> str | None:
        """The term that stands for a word of `split`; None for a stop word."""
        if word in self._stop:
            return None
        return word if self._stem is None else self._stem.stemWord(word)

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order."""
        return [term for word in self.split(text) if (term := self.term(word)) is not None]


class _Vocabulary(dict[str, int]):
    """Word as written -> number of its term, -1 for a stop word; a word that is new is added."""

    def __init__(self, words: Words):
        super().__init__()
        self._words = words
        self.numbers: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        term = self._words.term(word)
        number = -1 if term is None else self.numbers.setdefault(term, len(self.numbers))
        self[word] = number
        return number


class Postings:
    """The BM25 score of every term in every text (a passage, or a sentence) that holds it, mapped from the disk.

    Args:
        folder: with the files of `write_bm25`.
        words: those that the texts were read with.
        kind: "lexical index" or another name for messages.

    Raises:
        UserError: the files are corrupt or do not belong together.
    """

    def __init__(self, folder: Path, words: Words, kind: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.words = words
        remedy = remedy_of(folder)
        try:
            self._vocabulary = pq.read_table(folder / _VOCABULARY).column("term").combine_chunks()
            self._bm25 = bm25s_library().BM25.load(folder, mmap=True, load_vocab=False, backend="numpy")
            data, rows, starts = (self._bm25.scores[name] for name in ("data", "indices", "indptr"))
            self._texts = int(self._bm25.scores["num_docs"])
            whole = data.dtype == np.float32 and rows.dtype == np.int32 and data.shape == rows.shape
            whole = whole and len(starts) == len(self._vocabulary) + 1 and starts[-1] == len(data)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            message = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"the {kind} in {folder} is corrupt ({message}). {remedy}") from None
        if not whole:
            raise self.not_whole(folder, kind)

    @staticmethod
    def not_whole(folder: Path, kind: str) -> UserError:
        return UserError(f"the {kind} in {folder} is corrupt: its files do not belong together. {remedy_of(folder)}")

    def __len__(self) -> int:
        """The number of texts."""
        return self._texts

    def scores(self, numbers: np.ndarray) -> np.ndarray:
        """The BM25 score of these terms (each counts once) in every text, float32 [texts]."""
        scores: np.ndarray = self._bm25.get_scores_from_ids(numbers)
        return scores

    def entries(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The texts that hold a term: their rows, int32 ascending, and its score in each, float32."""
        begin, end = (int(place) for place in self._bm25.scores["indptr"][number : number + 2])
        return self._bm25.scores["indices"][begin:end], self._bm25.scores["data"][begin:end]

    def numbers_of_terms(self, terms: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """The numbers of the terms in each list; -1 for a term that no text holds."""
        import pyarrow as pa
        import pyarrow.compute as pc

        flat = pa.array([term for part in terms for term in part], pa.string())
        found = pc.index_in(flat, value_set=self._vocabulary).fill_null(-1).to_numpy()
        return np.split(found, np.cumsum([len(part) for part in terms])[:-1]) if terms else []

    def numbers(self, queries: Sequence[str]) -> list[np.ndarray]:
        """The numbers of each query's known terms, in order: so sums are rounded the same way each time."""
        asked = [list(dict.fromkeys(self.words.terms(query))) for query in queries]
        return [np.sort(part[part >= 0]) for part in self.numbers_of_terms(asked)]


class LexicalIndex:
    """Passages and the BM25 search over them.

    Attributes:
        passages: n passages.
        postings: the terms of the passages.
        key: names all that the index was made of.

    Args:
        folder: with the files of `write_bm25` and `passages.parquet`.
        words: those that the index was made with.

    Raises:
        UserError: the files are corrupt or do not belong together.
    """

    def __init__(self, folder: Path, words: Words, key: str):
        self.key = key
        self.passages = Passages(folder / PASSAGES, remedy_of(folder))
        self.postings = Postings(folder, words, "lexical index")
        if len(self.postings) != len(self.passages):
            raise Postings.not_whole(folder, "lexical index")

    def search(self, queries: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k passages of the highest BM25 scores for each query, best first; of equal scores the lower row first.

        A word counts once, however often the query says it. Passages without any word of the query are not found.

        Returns:
            Scores float32 [q, k] and rows int64 [q, k]; -inf and -1 where fewer passages are found.
        """
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        known = self.postings.numbers(queries)
        unknown = [query for query, numbers in zip(queries, known, strict=True) if not len(numbers)]
        if unknown:
            say(
                f"note: {len(unknown)} of {len(queries)} queries have no word that the corpus has too, stop words not "
                f"counted, and find nothing by words (first: {unknown[0][:60]!r})"
            )
        with progress_bar(len(queries), "searching for words") as bar:
            for place, numbers in enumerate(known):
                if len(numbers):
                    every = self.postings.scores(numbers)
                    best = highest(every, k)
                    scores[place, : len(best)] = every[best]
                    rows[place, : len(best)] = best
                bar.advance()
        return scores, rows


def highest(scores: np.ndarray, k: int) -> np.ndarray:
    """The rows of the k highest scores above 0, best first; of equal scores the lower row first."""
    least = np.float32(0)
    blocks = scores[: len(scores) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).max(axis=1)
    if len(blocks) > k:
        # k blocks hold a score of at least this, so the k highest do too.
        least = np.partition(blocks, len(blocks) - k)[len(blocks) - k]
    rows = np.flatnonzero(scores >= least if least > 0 else scores > 0)
    return rows[np.lexsort((rows, -scores[rows]))[:k]]


def passage_texts(passage: Passage) -> list[str]:
    """The one text that a passage is searched by."""
    return [passage_text(passage)]


def write_bm25(
    passages: Path,
    folder: Path,
    config: RetrievalConfig,
    texts: Callable[[Passage], list[str]] = passage_texts,
) -> int:
    """Write the arrays, parameters and vocabulary of the texts of all passages in a parquet file; give their number.

    Memory: the vocabulary, and one row group of passages at a time.

    Args:
        texts: gives the texts of a passage: the passage as it is searched, or its sentences.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # First the words are counted: of each row group the triples term, passage, count [3, pairs] go to a file.
    vocabulary = _Vocabulary(Words(config.language))
    frequencies = np.zeros(0, dtype=np.int64)  # in how many passages a term is
    lengths: list[np.ndarray] = []
    parts: list[Path] = []
    with pq.ParquetFile(passages) as file, progress_bar(file.metadata.num_rows, "counting words") as bar:
        for group in range(file.num_row_groups):
            group_lengths, terms, rows, counts = _counted(file.read_row_group(group), vocabulary, texts)
            rows += sum(map(len, lengths))
            lengths.append(group_lengths)
            frequencies = np.pad(frequencies, (0, len(vocabulary.numbers) - len(frequencies)))
            frequencies += np.bincount(terms, minlength=len(frequencies))
            parts.append(folder / f"part-{group:06}.npy")
            np.save(parts[-1], np.stack([terms, rows, counts]).astype(np.int32), allow_pickle=False)
            bar.advance(file.metadata.row_group(group).num_rows)
    if texts is passage_texts:
        _note_other_letters(vocabulary, config)
    # What all triples are scored by: the terms' weights and the passages' lengths.
    length = np.concatenate(lengths).astype(np.float64)
    weights = np.log1p((len(length) - frequencies + 0.5) / (frequencies + 0.5))
    norms = config.bm25_k1 * (1 - config.bm25_b + config.bm25_b * length / max(length.mean(), 1e-9))
    starts = np.concatenate([[0], np.cumsum(frequencies)])
    total = (int(starts[-1]),)
    # A file of no values cannot be mapped; a corpus of nothing but stop words is refused.
    if not total[0]:
        raise UserError(f"the corpus {config.corpus} has no words to search for (retrieval.language={config.language})")
    data, places = _mapped(folder / _DATA, np.float32, total), _mapped(folder / _ROWS, np.int32, total)
    # Then each triple becomes a score, at the next free place of its term.
    heads = starts[:-1].copy()
    with progress_bar(len(parts), "scoring words") as bar:
        for part in parts:
            terms, rows, counts = np.load(part, allow_pickle=False)
            targets = _take_places(terms, heads)
            data[targets] = weights[terms] * counts / (counts + norms[rows])
            places[targets] = rows
            part.unlink()
            bar.advance()
    data.flush()
    places.flush()
    np.save(folder / _STARTS, starts, allow_pickle=False)
    table = pa.table({"term": pa.array(vocabulary.numbers, pa.string())})
    pq.write_table(table, folder / _VOCABULARY, compression="zstd")
    parameters = {"k1": config.bm25_k1, "b": config.bm25_b, "method": "lucene", "num_docs": len(length)}
    write_json(folder / _PARAMETERS, parameters)
    return len(length)


def _note_other_letters(words: Iterable[str], config: RetrievalConfig) -> None:
    """A note where most of the different words of a corpus cannot be of the chosen language."""
    if config.language == "none":
        return
    letters = [word[0] for word in words if word[0].isalpha()]
    cyrillic = sum("\u0400" <= letter <= "\u052f" for letter in letters)
    latin = sum(letter < "\u0250" or "\u1e00" <= letter <= "\u1eff" for letter in letters)
    others = len(letters) - (cyrillic if config.language == "russian" else latin)
    if others > len(letters) / 2:
        say(
            f"note: {others / len(letters):.0%} of the words of the corpus {config.corpus} are not in the letters of "
            f"retrieval.language={config.language}, whose stop words and stemmer do nothing for them; set it to the "
            "corpus's language, or to none where it is not in the list (docs/corpora.md, Languages)"
        )


def _take_places(terms: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """The places int64 [pairs] of sorted terms int32 [pairs]; `heads`, the next free place of each term, moves on."""
    first = np.flatnonzero(np.diff(terms, prepend=-1))  # where each term begins
    sizes = np.diff(first, append=len(terms))
    targets = np.repeat(heads[terms[first]] - first, sizes) + np.arange(len(terms))
    heads[terms[first]] += sizes
    return targets


def _mapped(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file to write through memory; its room is taken now: on a full disk a later write would be fatal."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with open(path, "r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return mapped


def _counted(
    table: Any, vocabulary: _Vocabulary, texts: Callable[[Passage], list[str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The words of a row group's texts, counted.

    Returns:
        How many terms each text has, [texts]; and for each pair of a term and a text, in the order of the terms, the
        term's number, the text's number in the group and the count, [pairs] each.
    """
    flat = array.array("q")
    lengths = []
    for row in table.select(COLUMNS).to_pylist():
        for text in texts(Passage(**row)):
            before = len(flat)
            flat.extend(map(vocabulary.__getitem__, Words.split(text)))
            lengths.append(len(flat) - before)
    terms = np.frombuffer(flat, dtype=np.int64) if flat else np.zeros(0, dtype=np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)[terms >= 0]
    term_counts = np.bincount(rows, minlength=len(lengths))
    pairs, counts = np.unique(terms[terms >= 0] << 32 | rows, return_counts=True)
    return term_counts, pairs >> 32, pairs & 0xFFFFFFFF, counts
