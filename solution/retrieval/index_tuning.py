"""Cost and recall of each kind of dense index, measured on the user's own vectors: `python -m solution index tune`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.progress import progress_bar, say
from solution.questions import Questions
from solution.retrieval.approximate import FEWEST, LISTED, Structure, open_parts, write_parts
from solution.retrieval.dense import PassageIndex
from solution.retrieval.search import Indexes, Searcher, search_depth
from solution.workdir import Workdir

KINDS = (*LISTED, "hnsw")
_PROBES = (4, 8, 16, 32, 64, 128, 256)
_RESCORE = (40, 100, 200, 400)
_EF_SEARCH = (32, 64, 128, 256)
_ENOUGH = 0.9995  # recall from which a wider search is not tried
_MOST_OF_HNSW = 200_000  # passages; its building takes hours on millions


@dataclass(frozen=True)
class Setting:
    """One way to search.

    Attributes:
        settings: those of `retrieval` that differ from a flat index.
        recall: the share of the exact k best that is found, mean of all queries.
        milliseconds: a query, of all queries at once.
        bytes_per_passage: of the faiss files; the vectors on disk come to it.
        build_seconds: training included; embedding is not.
    """

    settings: dict[str, str | int]
    recall: float
    milliseconds: float
    bytes_per_passage: float
    build_seconds: float


def sample_queries(vectors: np.ndarray, count: int) -> np.ndarray:
    """Vectors of passages in place of questions, float32: drawn by a fixed seed."""
    rows = np.sort(np.random.default_rng(1).choice(len(vectors), min(count, len(vectors)), replace=False))
    return np.asarray(vectors[rows], dtype=np.float32)


def measure(
    config: RetrievalConfig, index: PassageIndex, queries: np.ndarray, k: int, kinds: Sequence[str], folder: Path
) -> list[Setting]:
    """Build each kind over the vectors of `index` in a temporary folder, and search it in many ways.

    Args:
        queries: float32 [q, d] of length 1.
        folder: where there is room for the temporary files; they are removed.

    Returns:
        The exact search first, then all ways that were tried: none where there are too few passages for them.
    """
    vectors = index.vectors
    k = min(k, len(vectors))
    if len(vectors) < FEWEST:
        say(f"{len(vectors)} passages are too few for anything but the exact search")
        kinds = ()
    # The exact search first: the others are judged by what it finds.
    flat = PassageIndex(index.passages, vectors, None, _with(config, index="flat"), "")
    flat.search(queries[:1], k)
    started = time.perf_counter()
    _, exact = flat.search(queries, k)  # [q, k]
    settings = [Setting({"index": "flat"}, 1.0, _ms(started, queries), 0.0, 0.0)]
    for kind in kinds:
        if kind == "hnsw" and len(vectors) > _MOST_OF_HNSW and len(kinds) > 1:
            say(f"hnsw is left out: it is slow to build over {len(vectors)} passages; ask for it with --kinds hnsw")
            continue
        with tempfile.TemporaryDirectory(dir=folder, prefix=".tune-") as name:
            settings += _measure_kind(_with(config, index=kind), index, queries, exact, Path(name))
    return settings


def _measure_kind(
    config: RetrievalConfig, index: PassageIndex, queries: np.ndarray, exact: np.ndarray, folder: Path
) -> Iterator[Setting]:
    """Build the kind of `config` in a folder, and search it in one way after another.

    Args:
        exact: int [q, k], the rows to be found.
    """
    vectors, k = index.vectors, exact.shape[1]
    started = time.perf_counter()
    structure = write_parts(config, vectors, folder)
    seconds = time.perf_counter() - started
    size = sum((folder / file).stat().st_size for file in structure.files) / len(vectors)
    ways = _ways(config.index, structure, k)
    enough: set[int | None] = set()  # values of `rescore` with which a wider search finds no more
    with progress_bar(len(ways), f"searching the {config.index} index") as bar:
        for way in ways:
            if way.get("rescore") not in enough:
                searched = _with(config, **way)
                approximate = open_parts(folder, structure, searched, vectors.shape)
                candidate = PassageIndex(index.passages, vectors, approximate, searched, "")
                candidate.search(queries, k)  # what is read from a disk the first time is not measured
                started = time.perf_counter()
                _, rows = candidate.search(queries, k)
                milliseconds = _ms(started, queries)
                recall = recall_at_k(rows, exact)
                yield Setting({"index": config.index, **way}, recall, milliseconds, size, seconds)
                if recall >= _ENOUGH:
                    enough.add(way.get("rescore"))
            bar.advance()


def _with(config: RetrievalConfig, **values: str | int) -> RetrievalConfig:
    return config.model_copy(update={"backend": "faiss", **values})


def _ms(started: float, queries: np.ndarray) -> float:
    return 1000 * (time.perf_counter() - started) / len(queries)


def _ways(kind: str, structure: Structure, k: int) -> list[dict[str, int]]:
    if kind == "hnsw":
        return [{"hnsw_ef_search": ef} for ef in _EF_SEARCH]
    probes = [count for count in _PROBES if count < structure.lists] or [structure.lists]
    rescore = [count for count in _RESCORE if count > k] or [2 * k]
    if kind == "ivf_sq8":
        rescore = rescore[:2]  # eight bits order nearly as well as sixteen
    return [{"ivf_probes": probe, "rescore": count} for count in rescore for probe in probes]


def recall_at_k(rows: np.ndarray, exact: np.ndarray) -> float:
    """The share of `exact` [q, k] that is in the same row of `rows` [q, k]."""
    return float(np.mean([len(np.intersect1d(ours, best)) / len(best) for ours, best in zip(rows, exact, strict=True)]))


def frontier(tried: Sequence[Setting]) -> list[Setting]:
    """The settings of each kind that no other one of the same kind beats in recall and time, by time."""
    unbeaten = [
        setting
        for setting in tried
        if not any(
            other.settings["index"] == setting.settings["index"]
            and other.recall >= setting.recall
            and other.milliseconds < setting.milliseconds
            for other in tried
        )
    ]
    return sorted(unbeaten, key=lambda setting: (str(setting.settings["index"]), setting.milliseconds))


def recommend(tried: Sequence[Setting], recall: float) -> Setting:
    """The quickest setting that finds at least this share; the exact search always does."""
    return min((setting for setting in tried if setting.recall >= recall), key=lambda setting: setting.milliseconds)


def table(tried: Sequence[Setting], k: int) -> list[str]:
    """The frontier as lines of text."""
    lines = [f"{'index':8} {'settings':34} {f'recall@{k}':>10} {'ms/query':>9} {'bytes/passage':>13} {'build s':>8}"]
    for row in frontier(tried):
        settings = " ".join(f"{name}={value}" for name, value in row.settings.items() if name != "index")
        figures = f"{row.recall:10.4f} {row.milliseconds:9.3f} {row.bytes_per_passage:13.0f} {row.build_seconds:8.1f}"
        lines.append(f"{row.settings['index']:8} {settings:34} {figures}")
    return lines


def tune_index(
    config: RetrievalConfig, folder: Workdir, exam: Questions | None, count: int, recall: float, kinds: str | None
) -> list[Setting]:
    """Print what each kind of dense index finds, needs and takes on this corpus, and the settings of the quickest.

    Args:
        exam: its first `count` questions are searched for; None: `count` passages are.
        recall: what the settings must reach, 0 to 1.
        kinds: only these, separated by commas.

    Returns:
        All that was tried.

    Raises:
        UserError: an unknown kind, or the index cannot be built.
    """
    chosen = kinds.split(",") if kinds else list(KINDS)
    wrong = [kind for kind in chosen if kind not in KINDS]
    if wrong:
        raise UserError(f"--kinds {wrong[0]}: choose among {', '.join(KINDS)}")
    k = search_depth(config)
    indexes = Indexes(config, folder.root)
    if exam is None:
        queries = sample_queries(indexes.dense.vectors, count)
    else:
        searcher = Searcher(exam.subset(range(min(count, len(exam)))), config, indexes)
        one_each = config.query != "prompt_each_option"
        queries = searcher.query_vectors(config.query) if one_each else searcher.option_vectors
    tried = measure(config, indexes.dense, queries, k, chosen, folder.cache)
    passages = len(indexes.dense.passages)
    print(f"{passages} passages, {len(queries)} {'questions' if exam else 'passages as queries'}")
    for line in table(tried, k):
        print(line)
    best = recommend(tried, recall)
    print(f"the quickest with a recall of {recall:g} or more:")
    print("  " + " ".join(f"retrieval.{name}={value}" for name, value in best.settings.items()))
    return tried
