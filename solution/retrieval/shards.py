"""Passages and their vectors on the way to an index: files of some thousand rows, each made once and kept.

A folder of shards holds `passages.parquet` (one row group a shard) and `vectors-000000.npy`, ... (float16 [rows, d]).
Whoever is killed loses the shard in hand, or the passages file that was being written.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.exam import passage_text
from solution.files import atomic_file, canonical_json, sweep_leftovers
from solution.progress import progress_bar, say
from solution.retrieval.articles import article_rules
from solution.retrieval.corpus import read_corpus
from solution.retrieval.duplicates import Duplicates
from solution.retrieval.embedding import Embedder
from solution.retrieval.passages import Passage, split_passages
from solution.retrieval.prefixes import Prefixes
from solution.retrieval.store import COLUMNS, PASSAGES

SHARD = 4096  # passages
_DROPPED = "dropped"  # a key of the passages file's metadata
_ATTEMPTS = 3
_SECONDS_TO_CONNECT = 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Vectors = np.ndarray


@contextlib.contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that says what is kept and how to go on.

    Raises:
        UserError: in the place of an OSError that says that the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"the disk is full ({error.strerror}) while writing to {folder}. What was finished is kept: make room, and "
            "run the same command again to go on"
        ) from None


# --- passages ------------------------------------------------------------------------------


def write_passages(config: RetrievalConfig, embedder: Embedder, path: Path) -> None:
    """Write all passages of the corpus, a row group for each shard; print and store how many were left out, and why.

    Raises:
        UserError: see `corpus.read_corpus`; or the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    dropped: Counter[str] = Counter()
    documents = read_corpus(config.corpus, article_rules(config), dropped, config.encoding)
    passages = split_passages(documents, embedder.tokenizer, config.passage_tokens, config.passage_overlap)
    waiting: list[Passage] = []
    with (
        room_on_disk(path.parent),
        atomic_file(path) as temporary,
        open(temporary, "wb") as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):

        def write() -> None:
            columns = [[getattr(passage, name) for passage in waiting] for name in schema.names]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=SHARD)
            waiting.clear()

        for passage in Duplicates(config.duplicates, config.near_duplicate, dropped).without(passages):
            waiting.append(passage)
            if len(waiting) == SHARD:
                write()
        if waiting:
            write()
        writer.add_key_value_metadata({_DROPPED: canonical_json(dict(dropped))})
    if dropped:
        say("left out: " + ", ".join(f"{count} x {reason}" for reason, count in sorted(dropped.items())))


def dropped_counts(passages: Path) -> dict[str, int]:
    """The counts of rows and passages that were left out when a passages file was written, by reason."""
    import json

    import pyarrow.parquet as pq

    metadata = pq.read_metadata(passages).metadata or {}
    return json.loads(metadata.get(_DROPPED.encode(), b"{}"))


# --- vectors -------------------------------------------------------------------------------


def shard_file(shards: Path, number: int) -> Path:
    return shards / f"vectors-{number:06}.npy"


def read_shard(path: Path, shape: tuple[int, int]) -> Vectors | None:
    """The vectors float16 [rows, d] of a shard; None when it is not there or not whole."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        vectors = np.load(path, allow_pickle=False)
        if vectors.dtype == np.float16 and vectors.shape == shape:
            return vectors
    return None


def write_shard(path: Path, vectors: Vectors) -> None:
    """Write a shard whole or not at all.

    Through memory: where the disk is full, NumPy's own way to a file raises an error that does not say so.
    """
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def make_shards(config: RetrievalConfig, embedder: Embedder, shards: Path) -> None:
    """Cut and embed the corpus into a folder; finished passages and shards that are there are used again.

    Shards are made one after another, by `config.workers` processes of this machine, or by the workers of the Dask
    cluster `config.dask`; only this process writes. A worker that dies costs the shard it was at, which is made again.

    Raises:
        UserError: the corpus or the embedder cannot be used, the disk is full, workers die again and again, or the
            cluster cannot be reached or has another embedder; finished shards are kept.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not embedder.can_read(config.passage_tokens):
        raise UserError(
            f"retrieval.passage_tokens is {config.passage_tokens} and the embedder {embedder.spec} reads "
            f"{embedder.max_tokens} tokens at most; set it to {embedder.max_tokens} or less"
        )
    # The passages: cut again unless their file is there and whole.
    if shards.is_dir():
        sweep_leftovers(shards)
    texts = shards / PASSAGES
    try:
        pq.read_metadata(texts)
    except (pa.ArrowException, OSError):
        write_passages(config, embedder, texts)

    # Their vectors: those of the shards that are not there yet.
    with pq.ParquetFile(texts) as file, room_on_disk(shards):
        total = file.metadata.num_rows
        counts = [file.metadata.row_group(shard).num_rows for shard in range(file.num_row_groups)]
        where = f" on {config.dask}" if config.dask else f" in {config.workers} processes" if config.workers > 1 else ""
        say(f"embedding {total} passages of {config.corpus} with {embedder.spec}{where}")
        with progress_bar(total, "embedding passages") as bar:

            def is_there(shard: int) -> bool:
                return read_shard(shard_file(shards, shard), (counts[shard], embedder.dimension)) is not None

            missing = [shard for shard in range(len(counts)) if not is_there(shard)]
            bar.advance(total - sum(counts[shard] for shard in missing))
            if config.dask is None and config.workers == 1:
                for shard in missing:
                    vectors = embedder.encode(_texts(file, shard), config.batch_size, bar=bar)
                    write_shard(shard_file(shards, shard), vectors.astype(np.float16))
                return
            for shard, vectors in _in_parallel(config, embedder, file, missing):
                if vectors.shape != (counts[shard], embedder.dimension):
                    raise UserError(
                        f"a worker made vectors of the shape {list(vectors.shape)} for {counts[shard]} passages, and "
                        f"the embedder {embedder.spec} makes {embedder.dimension} dimensions here"
                    )
                write_shard(shard_file(shards, shard), vectors)
                bar.advance(counts[shard])


def _texts(file: Any, shard: int) -> list[str]:
    return [passage_text(Passage(**row)) for row in file.read_row_group(shard).to_pylist()]


# --- workers -------------------------------------------------------------------------------

_one_at_a_time = threading.Lock()  # a Dask worker may run several tasks in threads of one process


@functools.lru_cache(maxsize=1)
def _embedder_of_worker(spec: str, cache: str, prefix: str | None) -> Embedder:
    return Embedder(spec, Path(cache), Prefixes(passage=prefix))


def encode_shard(
    shard: int, texts: list[str], spec: str, cache: str, fingerprint: str, batch_size: int, prefix: str | None = None
) -> tuple[int, Vectors]:
    """The task of a worker: vectors float16 [len(texts), d]. The texts travel with it, so no disk is shared.

    Args:
        prefix: stands in front of each passage; see `Prefixes.passage`.

    Raises:
        UserError: the embedder is not there, or is another one.
    """
    with _one_at_a_time:
        embedder = _embedder_of_worker(spec, cache, prefix)
        if embedder.fingerprint != fingerprint:
            raise UserError(
                f"the embedder {spec} of a worker is another one ({embedder.fingerprint}) than that of this machine "
                f"({fingerprint}); bring the same files there"
            )
        return shard, embedder.encode(texts, batch_size).astype(np.float16)


def _in_parallel(
    config: RetrievalConfig, embedder: Embedder, file: Any, missing: list[int]
) -> Iterator[tuple[int, Vectors]]:
    """Shards in the order in which they are done."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    about = (embedder.spec, str(embedder.cache), embedder.fingerprint, config.batch_size, config.passage_prefix)
    left = list(missing)
    attempts = 0
    while left:
        # Lists of texts are pickled with their task; joblib would scatter other things to one of Dask's workers,
        # and they would be lost with it.
        tasks = (delayed(encode_shard)(shard, _texts(file, shard), *about) for shard in list(left))
        try:
            with _cluster(config) as backend, parallel_config(**backend):
                # More than n_jobs, so that workers which come later find work.
                run = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="4 * n_jobs")
                for shard, vectors in run(tasks):
                    yield shard, vectors
                    left.remove(shard)
                    attempts = 0
        except TerminatedWorkerError:
            attempts += 1
            if attempts == _ATTEMPTS:
                raise UserError(
                    f"embedding processes were killed {_ATTEMPTS} times before one finished a shard; probably the "
                    "memory is too small: lower retrieval.workers. Finished shards are kept"
                ) from None
            say("an embedding process was killed; its shard is made again")


@contextlib.contextmanager
def _cluster(config: RetrievalConfig) -> Iterator[dict[str, Any]]:
    """joblib's settings for the workers asked for."""
    if config.dask is None:
        from joblib.externals.loky import get_reusable_executor

        try:
            yield {"backend": "loky", "n_jobs": config.workers}
        finally:
            get_reusable_executor().shutdown(wait=True)  # they would keep their models for minutes
        return
    try:
        from distributed import Client, KilledWorker
        from joblib._dask import DaskDistributedBackend
    except ImportError:
        raise UserError("retrieval.dask needs the package distributed; run: pip install distributed") from None

    class Cluster(DaskDistributedBackend):
        """With a single worker joblib would do the work in this process."""

        def effective_n_jobs(self, n_jobs: int | None) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

    try:
        client = Client(config.dask, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise UserError(f"no Dask scheduler answers at retrieval.dask={config.dask} ({error})") from None
    with client:
        try:
            yield {"backend": Cluster(client=client, wait_for_workers_timeout=_SECONDS_TO_CONNECT), "n_jobs": -1}
        except TimeoutError:
            raise UserError(
                f"the Dask scheduler {config.dask} has no workers; start some: dask worker {config.dask}"
            ) from None
        except KilledWorker as error:
            raise UserError(
                f"Dask workers died again and again at one shard ({error}); finished ones are kept"
            ) from None
