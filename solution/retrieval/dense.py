"""Search among the passages' vectors: exact, or of an approximate index's candidates scored again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.retrieval.approximate import Approximate, as_float32, drop_pages, nearest
from solution.retrieval.store import Passages
from solution.suggestions import suggest

_VECTORS_AT_ONCE = 4096
_QUERIES_AT_ONCE = 4096
_QUERIES_OF_CDIST = 256
_PAIRS = 2048  # of query and passage, scored together
_MOST_THREADS = 8
_MARGIN = 16  # candidates beyond k, so that rounding in float32 does not decide who is in
_ROUNDING = 1e-5  # more than float32 products of unit vectors are off
_DECIMALS = 9  # scores equal to so many decimals are ties; the lower row wins
_MOST_CANDIDATES = 2048  # the limit of faiss's GPU indexes


def as_cosines(scores: np.ndarray, config: RetrievalConfig) -> np.ndarray:
    """The cosines that the scores of `PassageIndex.search` stand for; of unit vectors cos = 1 - d² / 2."""
    return scores if config.metric == "ip" else 1 + scores / 2


class PassageIndex:
    """Passages with unit vectors, and the search over them.

    Attributes:
        passages: n passages.
        vectors: float16 [n, d].
        key: the name of what the index was made of.

    Args:
        approximate: finds candidates; None: the search is exact.
    """

    def __init__(
        self,
        passages: Passages,
        vectors: np.ndarray,
        approximate: Approximate | None,
        config: RetrievalConfig,
        key: str,
    ):
        self.passages = passages
        self.vectors = vectors
        self.key = key
        self._approximate = approximate
        self._metric = config.metric
        self._exact = config.backend == "cdist"

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best passages of each query, best first.

        Scores are the cosine (metric ip) or minus the squared distance (l2); of equal scores the lower row comes first.
        An exact search computes them in float64, so that every exact backend gives the same answer.

        Args:
            vectors: float32 [q, d] of length 1.

        Returns:
            Scores float32 [q, k] and rows int64 [q, k]; -inf and -1 where there are fewer than k passages.

        Raises:
            UserError: the queries' dimension is not the index's.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"the queries' vectors have the shape {list(vectors.shape)} and the index's {self.vectors.shape[1]} "
                f"dimensions: they were made by another embedder. Run `{suggest('index')}`."
            )
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        wanted = min(k, len(self.vectors))
        for begin in range(0, len(vectors), _QUERIES_AT_ONCE):
            part = slice(begin, begin + _QUERIES_AT_ONCE)
            scores[part, :wanted], rows[part, :wanted] = self._search(_unit(vectors[part]), wanted)
        return scores, rows

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [q, k] for unit vectors float64 [q, d]."""
        count = min(k + _MARGIN, len(self.vectors))
        if self._exact or (self._approximate is None and count > _MOST_CANDIDATES):
            return self._cdist(queries, k)
        # Rough products, or the approximate index, choose candidates [q, c].
        single = queries.astype(np.float32)
        if self._approximate is None:
            rough, rows = nearest(single, self.vectors, count)
            cosines = self.pair_cosines(queries, rows)
        else:
            rows = self._approximate.search(single, min(self._approximate.candidates(k), len(self.vectors)))
            cosines = self.pair_cosines(single, rows)
        # More exact products choose the k best of them: in float64, or for an approximate index in float32.
        scores = self._from_cosine(cosines)
        order = np.lexsort((rows, -scores.round(_DECIMALS)), axis=1)[:, :k]
        best = np.take_along_axis(scores, order, axis=1)
        places = np.take_along_axis(rows, order, axis=1)
        # Where rounding may have kept a better passage out of the candidates, all distances are computed.
        if self._approximate is None and count < len(self.vectors):
            least = np.take_along_axis(cosines, order[:, -1:], axis=1)[:, 0]
            unsure = np.flatnonzero(rough[:, -1] >= least - _ROUNDING)
            if len(unsure):
                best[unsure], places[unsure] = self._cdist(queries[unsure], k)
        return best, places

    def _from_cosine(self, cosines: np.ndarray) -> np.ndarray:
        return cosines if self._metric == "ip" else -np.maximum(2 - 2 * cosines, 0)

    def pair_cosines(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The cosines of each query with its own rows, [q, c] in the queries' precision; -inf where the row is -1.

        Pairs of all queries are scored together in the order of the file, so that a disk is read from front to end and
        pages that were read are given back. The products are taken one by one, so equal vectors have equal scores.

        Args:
            queries: [q, d] of length 1.
            rows: int64 [q, c].
        """
        flat = rows.ravel()
        order = np.argsort(flat, kind="stable")
        order = order[np.searchsorted(flat, 0, sorter=order) :]
        cosines = np.full(flat.shape, -np.inf, dtype=queries.dtype)

        def score(begin: int) -> None:
            pairs = order[begin : begin + _PAIRS]
            read = np.take(self.vectors, flat[pairs], axis=0)
            block = read.astype(np.float64) if queries.dtype == np.float64 else as_float32(read)
            products = np.einsum("nd,nd->n", block, np.take(queries, pairs // rows.shape[1], axis=0))
            cosines[pairs] = products / np.maximum(np.sqrt(np.einsum("nd,nd->n", block, block)), 1e-12)
            drop_pages(self.vectors)

        blocks = range(0, len(order), _PAIRS)
        if len(blocks) < 2:
            for begin in blocks:
                score(begin)
        else:
            import faiss

            with ThreadPoolExecutor(min(faiss.omp_get_max_threads(), _MOST_THREADS)) as pool:
                list(pool.map(score, blocks))
        return cosines.reshape(rows.shape)

    def _cdist(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The exact search: all distances, block by block."""
        from scipy.spatial.distance import cdist

        if len(queries) > _QUERIES_OF_CDIST:
            starts = range(0, len(queries), _QUERIES_OF_CDIST)
            parts = [self._cdist(queries[begin : begin + _QUERIES_OF_CDIST], k) for begin in starts]
            return np.vstack([scores for scores, _ in parts]), np.vstack([rows for _, rows in parts])
        best = np.empty((len(queries), 0))
        places = np.empty((len(queries), 0), dtype=np.int64)
        for begin in range(0, len(self.vectors), _VECTORS_AT_ONCE):
            block = _unit(self.vectors[begin : begin + _VECTORS_AT_ONCE])
            distances = cdist(queries, block, "sqeuclidean")
            scores = np.hstack([best, 1 - distances / 2 if self._metric == "ip" else -distances])
            rows = np.hstack([places, np.broadcast_to(np.arange(begin, begin + len(block)), distances.shape)])
            # Stable: the best so far have lower rows than the block and stand in order.
            order = np.argsort(-scores.round(_DECIMALS), axis=1, kind="stable")[:, :k]
            best, places = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        return best, places


def _unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors scaled to length 1, float64."""
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.sqrt(np.einsum("nd,nd->n", wide, wide)), 1e-12)[:, None]
