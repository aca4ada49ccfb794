"""Search over vectors by faiss: exact in blocks, and by approximate indexes that are built part by part.

The kinds and their sources: HNSW (Malkov and Yashunin 2016, https://arxiv.org/abs/1603.09320) over float16 values;
inverted lists (IVF) of 8-bit values (`ivf_sq8`), of 4-bit product codes searched in registers (`ivf_pq`; Jégou et al.
2011 and André et al. 2015, https://arxiv.org/abs/1704.07355), or of one bit a dimension (`rabitq`, and `rabitq_fs`,
which searches them in registers; Gao and Long 2024, https://arxiv.org/abs/2405.12497). They only find candidates:
`PassageIndex` scores these again from the vectors on disk.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import atomic_file, sweep_leftovers
from solution.progress import progress_bar, say
from solution.retrieval.shards import room_on_disk

# `auto` is an exact search up to the first number of passages; up to the second `rabitq_fs`, whose codes are loaded
# into memory (1.3 GB of so many); above it `rabitq`, whose codes are mapped (docs/scale.md).
EXACT_UP_TO = 100_000
LOADED_UP_TO = 20_000_000
_VERSION = 1  # of the training; another one makes another index
LISTED = ("ivf_sq8", "ivf_pq", "rabitq", "rabitq_fs")
FEWEST = 1000  # passages that lists and codes can be trained on; fewer are searched exactly
_MOST_LISTS = 32768
_SAMPLE = 40  # vectors to train on for each list
_SEED = 0
_BLOCK = 16384
# Measured on questions and passages of textbooks (docs/scale.md): candidates to score again, for each that is wanted
# and at least.
_RESCORE = {"hnsw": (1, 0), "ivf_sq8": (2, 40), "ivf_pq": (5, 100), "rabitq": (5, 100), "rabitq_fs": (5, 100)}
_TRAINED = "trained.faiss"


def choose_kind(config: RetrievalConfig, rows: int) -> str:
    """The kind of index for so many passages; a corpus too small to train one is searched exactly."""
    if config.index == "auto":
        return "flat" if rows <= EXACT_UP_TO else "rabitq_fs" if rows <= LOADED_UP_TO else "rabitq"
    return "flat" if config.index in LISTED and rows < FEWEST else config.index


def build_settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings that the files of an index depend on, beside its kind and metric."""
    if config.index == "flat":
        return {}
    if config.index == "hnsw":
        settings: dict[str, Any] = {"hnsw_links": config.hnsw_links, "hnsw_ef_build": config.hnsw_ef_build}
    else:
        settings = {"training": _VERSION, "ivf_lists": config.ivf_lists}
    if config.index == "auto":
        settings["auto"] = [EXACT_UP_TO, LOADED_UP_TO]
    return {**settings, "part_rows": config.part_rows}


def search_settings(config: RetrievalConfig) -> dict[str, Any]:
    """The settings that decide the result of a search and that may differ each time an index is opened."""
    if config.index == "flat":
        return {}
    if config.index == "hnsw":
        return {"hnsw_ef_search": config.hnsw_ef_search, "rescore": config.rescore}
    return {"ivf_probes": config.ivf_probes, "rescore": config.rescore}


def choose_probes(config: RetrievalConfig, lists: int) -> int:
    """The number of lists that are searched. The more lists there are, the smaller a share of them finds enough."""
    return min(lists, max(32, lists // 64) if config.ivf_probes is None else config.ivf_probes)


def choose_lists(config: RetrievalConfig, rows: int) -> int:
    """The number of inverted lists: the power of two nearest to 2 sqrt(rows), but enough vectors for each."""
    if config.ivf_lists is not None:
        return min(config.ivf_lists, rows)
    lists = 1 << round(math.log2(2 * math.sqrt(rows)))
    return max(1, min(lists, _MOST_LISTS, rows // _SAMPLE))


# --- vectors on disk -----------------------------------------------------------------------


def as_float32(vectors: np.ndarray) -> np.ndarray:
    """A C-contiguous float32 copy of rows of any float format."""
    # torch converts four times as fast, but where its threads take turns with faiss's they need 7 ms to start.
    if vectors.dtype != np.float16 or vectors.size < 1 << 18:
        return np.array(vectors, dtype=np.float32, order="C")
    import torch

    return torch.from_numpy(np.require(vectors, requirements=["C", "W"])).float().numpy()


def drop_pages(vectors: np.ndarray) -> None:
    """Give back the resident memory of a mapped file; its pages stay in the system's cache."""
    mapped = getattr(vectors, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact search in float32, a block of vectors after the other.

    Args:
        queries: float32 [q, d] of length 1.
        vectors: [n, d], n at least `count`; they need not have length 1.

    Returns:
        Cosines float32 [q, count], best first, and rows int64 [q, count].
    """
    import faiss

    best = faiss.ResultHeap(len(queries), count, keep_max=True)
    resources = faiss.StandardGpuResources() if faiss.get_num_gpus() > 0 else None
    for begin in range(0, len(vectors), _BLOCK):
        block = as_float32(vectors[begin : begin + _BLOCK])
        block /= np.maximum(np.sqrt(np.einsum("nd,nd->n", block, block)), 1e-12)[:, None]
        wanted = min(count, len(block))
        if resources is not None:
            try:
                scores, rows = faiss.knn_gpu(resources, queries, block, wanted, metric=faiss.METRIC_INNER_PRODUCT)
            except RuntimeError:  # what does not fit there is searched here
                resources = None
        if resources is None:
            scores, rows = faiss.knn(queries, block, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(scores, rows + begin)
        drop_pages(vectors)
    best.finalize()
    return best.D, best.I


# --- building ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Structure:
    """The faiss files of an index folder, beside its passages and vectors.

    Attributes:
        kind: flat, hnsw, ivf_sq8, ivf_pq, rabitq or rabitq_fs.
        lists: how many inverted lists; 0 where there are none.
        rows: how many rows each part has, in order; a flat index has no parts.
    """

    kind: str
    lists: int
    rows: tuple[int, ...]

    @property
    def files(self) -> list[str]:
        return [f"index-{part:03}.faiss" for part in range(len(self.rows))]

    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "lists": self.lists, "rows": list(self.rows)}

    @classmethod
    def of(cls, record: Any) -> Structure:
        """Raises KeyError, TypeError or ValueError where `record` is none."""
        return cls(str(record["kind"]), int(record["lists"]), tuple(int(rows) for rows in record["rows"]))


def write_parts(config: RetrievalConfig, vectors: np.ndarray, folder: Path) -> Structure:
    """Write the faiss files of these vectors into `folder`; files that a killed run has finished are used again.

    Each part covers `part_rows` rows and is written whole or not at all. Memory: one part's codes, a block of vectors,
    and while training the sample. The same vectors give the same bytes.

    Raises:
        UserError: this faiss does not know the kind, or the disk is full.
    """
    kind = choose_kind(config, len(vectors))
    if kind == "flat":
        return Structure(kind, 0, ())
    import faiss

    with room_on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(folder)
    lists = choose_lists(config, len(vectors)) if kind in LISTED else 0
    rows = tuple(min(config.part_rows, len(vectors) - begin) for begin in range(0, len(vectors), config.part_rows))
    structure = Structure(kind, lists, rows)
    threads = faiss.omp_get_max_threads()
    if kind == "hnsw":
        faiss.omp_set_num_threads(1)  # with more, the links depend on which thread is first
    try:
        with room_on_disk(folder), progress_bar(len(vectors), f"building the {kind} index") as bar:
            begin = 0
            for name, count in zip(structure.files, rows, strict=True):
                if (folder / name).exists():
                    bar.advance(count)
                else:
                    index = _empty(config, structure, vectors, folder)
                    for first in range(begin, begin + count, _BLOCK):
                        block = as_float32(vectors[first : min(first + _BLOCK, begin + count)])
                        index.add(block)
                        drop_pages(vectors)
                        bar.advance(len(block))
                    _write(index, folder / name)
                begin += count
    finally:
        faiss.omp_set_num_threads(threads)
    return structure


def _write(index: Any, path: Path) -> None:
    import faiss

    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        # To a path, faiss only prints it when the last block finds no room, and leaves a file that is cut off.
        faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))  # type: ignore[attr-defined]


def _empty(config: RetrievalConfig, structure: Structure, vectors: np.ndarray, folder: Path) -> Any:
    """An index without vectors, trained where that is needed."""
    import faiss

    dimension = vectors.shape[1]
    index: Any
    metric = faiss.METRIC_INNER_PRODUCT if config.metric == "ip" else faiss.METRIC_L2
    if structure.kind == "hnsw":
        index = faiss.index_factory(dimension, f"HNSW{config.hnsw_links}_SQfp16", metric)
        index.hnsw.efConstruction = config.hnsw_ef_build
        return index
    path = folder / _TRAINED
    if path.exists():
        return faiss.read_index(str(path))
    try:
        index = faiss.index_factory(dimension, _factory(structure, dimension), metric)
    except RuntimeError:
        version = faiss.__version__
        raise UserError(f"faiss {version} has no {structure.kind} index; install a newer one") from None
    sample = _sample(vectors, structure.lists)
    say(f"training {structure.lists} lists on {len(sample)} of {len(vectors)} vectors")
    listed = faiss.extract_index_ivf(index)
    for trained in (listed, getattr(listed, "pq", None)):
        if trained is not None:
            trained.cp.min_points_per_centroid = 1  # no warning: a small corpus is meant to be small
    index.train(sample)
    _write(index, path)
    return index


def _factory(structure: Structure, dimension: int) -> str:
    if structure.kind == "ivf_sq8":
        return f"IVF{structure.lists},SQ8"
    if structure.kind in ("rabitq", "rabitq_fs"):
        # A random rotation first: the codes assume that no dimension stands out.
        return f"RR{dimension},IVF{structure.lists},RaBitQ{'fs' if structure.kind == 'rabitq_fs' else ''}"
    pieces = next(count for count in range(max(dimension // 4, 1), 0, -1) if dimension % count == 0)
    return f"IVF{structure.lists},PQ{pieces}x4fs"


def _sample(vectors: np.ndarray, lists: int) -> np.ndarray:
    """The vectors to train on, float32 [sample, d]: drawn by a fixed seed, read in the order of the file."""
    count = min(len(vectors), max(_SAMPLE * lists, 16384))
    rows = np.sort(np.random.default_rng(_SEED).choice(len(vectors), count, replace=False))
    sample = np.empty((count, vectors.shape[1]), dtype=np.float32)
    for begin in range(0, count, _BLOCK):
        sample[begin : begin + _BLOCK] = as_float32(vectors[rows[begin : begin + _BLOCK]])
        drop_pages(vectors)
    return sample


# --- searching -----------------------------------------------------------------------------


class Approximate:
    """The parts of an approximate index, searched in turn and merged.

    Args:
        parts: faiss indexes of ascending rows.
    """

    def __init__(self, parts: Sequence[Any], kind: str, config: RetrievalConfig):
        self._rescore, self._kind = config.rescore, kind
        self._parts = list(parts)
        self._metric = config.metric
        for index in self._parts:
            if kind == "hnsw":
                index.hnsw.efSearch = config.hnsw_ef_search
            else:
                _set_probes(index, config)

    def candidates(self, k: int) -> int:
        """The number of candidates to score again, so that the k best are among them."""
        factor, least = _RESCORE[self._kind]
        return max(k, self._rescore if self._rescore is not None else max(factor * k, least))

    def search(self, queries: np.ndarray, count: int) -> np.ndarray:
        """The rows of the candidates, int64 [q, count], best first as the codes tell; -1 where there are fewer.

        Args:
            queries: float32 [q, d] of length 1.
        """
        sign = -1 if self._metric == "ip" else 1
        # Each part numbers its own rows from 0. The lists of all parts [q, count] are merged by distance.
        distances, rows, begin = [], [], 0
        for index in self._parts:
            part_distances, part_rows = index.search(queries, count)
            distances.append(np.where(part_rows < 0, np.inf, sign * part_distances))
            rows.append(np.where(part_rows < 0, -1, part_rows + begin))
            begin += index.ntotal
        if len(rows) == 1:
            return rows[0]
        order = np.argsort(np.hstack(distances), axis=1, kind="stable")[:, :count]
        return np.take_along_axis(np.hstack(rows), order, axis=1)


def _set_probes(index: Any, config: RetrievalConfig) -> None:
    import faiss

    on_gpu = isinstance(index, getattr(faiss, "GpuIndexIVF", ()))
    listed: Any = index if on_gpu else faiss.extract_index_ivf(index)
    listed.nprobe = choose_probes(config, listed.nlist)


def open_parts(folder: Path, structure: Structure, config: RetrievalConfig, shape: tuple[int, int]) -> Approximate:
    """The faiss files of a folder, mapped into memory where their kind allows it.

    Args:
        shape: of the vectors.

    Raises:
        UserError: a file cannot be read, or the files do not hold so many vectors; without a remedy.
    """
    import faiss

    parts = []
    for name, count in zip(structure.files, structure.rows, strict=True):
        try:
            index = faiss.read_index(str(folder / name), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError:
            raise UserError(f"{name} cannot be read") from None
        if (index.ntotal, index.d) != (count, shape[1]):
            raise UserError(f"{name} does not hold vectors.npy")
        if structure.kind == "ivf_sq8" and faiss.get_num_gpus() > 0:
            with contextlib.suppress(RuntimeError):  # what does not fit there is searched here
                index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        parts.append(index)
    if sum(structure.rows) != shape[0]:
        raise UserError("the parts do not hold vectors.npy")
    return Approximate(parts, structure.kind, config)
