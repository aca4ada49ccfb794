"""Search over a million vectors grown from real ones: faiss's flat search, our kinds of index, other libraries.

    python benchmarks/retrieval.py --workdir WORKDIR

WORKDIR holds an index (`python -m solution index`), whose vectors are the real ones. A grown vector is
`unit(a + t (b - a) + s (c - d))`: a is a real vector, b one of its ten nearest neighbours, c and d a pair of near
neighbours elsewhere, so that what is added is a displacement that occurs between real passages, in the directions in
which those differ; t is uniform in 0 to 1 and s in 0.3 to 1. Queries are grown in the same way and are in no index.
The cosine of the nearest neighbour is told for real and for grown vectors.

Every row is measured in a process of its own, which tells its memory. `IndexFlatL2` holds the vectors as they were
grown, in float32, and its answer is the exact one; ours hold them as float16. The bare library call is the same faiss
index trained on the same sample and filled in one call, from an array in memory. `--json` prints one JSON object as the
last line. Needs 4 GB of disk in the temporary folder for a million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from solution.command import command
from solution.config import RetrievalConfig
from solution.errors import UserError

ROWS_AT_ONCE = 16384
NEIGHBOURS = 10
KINDS = ("ivf_sq8", "ivf_pq", "rabitq", "rabitq_fs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, help="holds cache/index-*; not needed with --folder of a run before")
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors")
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas; hnsw too")
    parser.add_argument("--others", default="", help="usearch, hnswlib or both: graphs, slow to build")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of retrieval for our kinds")
    parser.add_argument(
        "--search", nargs="*", default=[], metavar="KEY=VALUE[,KEY=VALUE]", help="search once more with these settings"
    )
    parser.add_argument("--no-library", action="store_true", help="leave out the bare library calls")
    parser.add_argument("--folder", type=Path, help="keep the files here and use those that are there")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, _, what = options.step[0].partition(":")
        print(json.dumps(STEPS[name](Path(options.step[1]), options, what)))
        return
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        run(options.folder, options)
    else:
        with tempfile.TemporaryDirectory(prefix="retrieval-") as name:
            run(Path(name), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    kinds = [kind for kind in options.kinds.split(",") if kind]
    facts: dict[str, Any] = {"rows": options.rows, "queries": options.queries, "k": options.k, "cores": os.cpu_count()}
    facts |= step("grow", folder)
    rows = {"IndexFlatL2": step("flat", folder)}
    base = rows["IndexFlatL2"]["ms_per_query"]
    if "flat" in kinds:
        kinds.remove("flat")
        rows["flat, ours"] = step("search:flat", folder)
    for kind in kinds:
        made = step(f"build:{kind}", folder)
        if not options.no_library:
            made |= step(f"library:{kind}", folder)
            made["build_ratio"] = round(made["build_seconds"] / made["library_seconds"], 2)
        rows[kind] = made | step(f"search:{kind}", folder)
        for way in options.search:
            rows[f"{kind} {way}"] = step(f"search:{kind}:{way}", folder)
    for name in filter(None, options.others.split(",")):
        rows[name] = step(f"other:{name}", folder)
    for row in rows.values():
        row["times_flat"] = round(base / row["ms_per_query"], 1)
    facts["indexes"] = rows
    for fact, value in facts.items():
        if fact != "indexes":
            print(f"{fact:32}{value}")
    for name, row in rows.items():
        print(name)
        for fact, value in row.items():
            print(f"  {fact:30}{value}")
    if options.json:
        print(json.dumps(facts))


def step(name: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *sys.argv, "--step", name, str(folder)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"the step {name} failed")
    return json.loads(done.stdout.splitlines()[-1])


# --- vectors -------------------------------------------------------------------------------


def step_grow(folder: Path, options: argparse.Namespace, _: str) -> dict[str, Any]:
    about = {"rows": options.rows, "queries": options.queries}
    told = folder / "grown.json"
    if told.exists() and json.loads(told.read_text())["about"] == about:
        return json.loads(told.read_text())["facts"]
    import faiss

    if options.workdir is None:
        raise UserError("give --workdir, whose index holds the real vectors")
    found = sorted((options.workdir / "cache").glob("index-*/vectors.npy"))
    if not found:
        raise UserError(f"there is no index in {options.workdir / 'cache'}; make one: python -m solution index")
    real = unit(np.load(found[0], allow_pickle=False).astype(np.float32))
    # A passage that is there twice has no displacement; passages that overlap are neighbours in any corpus.
    cosines, near = faiss.knn(real, real, NEIGHBOURS + 1, metric=faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    wide = np.lib.format.open_memmap(
        folder / "float32.npy", mode="w+", dtype=np.float32, shape=(options.rows, real.shape[1])
    )
    half = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(options.rows, real.shape[1])
    )
    for begin in range(0, options.rows, ROWS_AT_ONCE):
        part = grown(real, near, min(ROWS_AT_ONCE, options.rows - begin), rng)
        wide[begin : begin + len(part)] = part
        half[begin : begin + len(part)] = part
    queries = grown(real, near, options.queries, np.random.default_rng(1))
    np.save(folder / "queries.npy", queries)
    nearest, _ = faiss.knn(queries[:200], np.asarray(wide), NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)
    facts = {
        "dimension": real.shape[1],
        "real_vectors": len(real),
        "cosine_of_real_neighbours_1_10": [round(float(np.median(cosines[:, place])), 3) for place in (1, NEIGHBOURS)],
        "cosine_of_grown_neighbours_1_10": [
            round(float(np.median(nearest[:, place])), 3) for place in (0, NEIGHBOURS - 1)
        ],
    }
    told.write_text(json.dumps({"about": about, "facts": facts}))
    return facts


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def grown(real: np.ndarray, near: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    def neighbour(rows: np.ndarray) -> np.ndarray:
        return near[rows, rng.integers(1, NEIGHBOURS + 1, count)]

    a, d = rng.integers(len(real), size=(2, count))
    t, s = rng.random((count, 1), dtype=np.float32), rng.uniform(0.3, 1, (count, 1)).astype(np.float32)
    return unit(real[a] + t * (real[neighbour(a)] - real[a]) + s * (real[neighbour(d)] - real[d]))


# --- rows ----------------------------------------------------------------------------------


def recall(rows: np.ndarray, exact: np.ndarray) -> float:
    from solution.retrieval.index_tuning import recall_at_k

    return round(recall_at_k(rows, exact), 4)


def resident() -> dict[str, int]:
    """MiB at the highest: all resident memory, mapped files included."""
    from solution.memory import status_kib

    return {"resident_peak_mib": (status_kib("VmHWM") or 0) // 1024}


def step_flat(folder: Path, options: argparse.Namespace, _: str) -> dict[str, Any]:
    import faiss

    queries = np.load(folder / "queries.npy")
    index = faiss.IndexFlatL2(queries.shape[1])
    started = time.perf_counter()
    index.add(np.load(folder / "float32.npy", mmap_mode="r"))
    built = time.perf_counter()
    index.search(queries[:64], options.k)
    began = time.perf_counter()
    _, rows = index.search(queries, options.k)
    seconds = time.perf_counter() - began
    np.save(folder / "exact.npy", rows)
    size = index.ntotal * index.d * 4
    return {
        "ms_per_query": round(1000 * seconds / len(queries), 3),
        "recall": 1.0,
        "index_mib": round(size / 2**20),
        "build_seconds": round(built - started, 1),
        **resident(),
    }


def settings(options: argparse.Namespace, kind: str) -> RetrievalConfig:
    pairs = dict(text.split("=", 1) for text in options.set)
    return RetrievalConfig.model_validate({"index": kind, **pairs})


def step_build(folder: Path, options: argparse.Namespace, kind: str) -> dict[str, Any]:
    from solution.retrieval.approximate import write_parts

    for path in (folder / kind).glob("*"):
        path.unlink()
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    started = time.perf_counter()
    structure = write_parts(settings(options, kind), vectors, folder / kind)
    seconds = time.perf_counter() - started
    (folder / kind / "structure.json").write_text(json.dumps(structure.record()))
    size = sum((folder / kind / name).stat().st_size for name in structure.files)
    return {
        "lists": structure.lists,
        "build_seconds": round(seconds, 1),
        "build_peak_mib": resident()["resident_peak_mib"],
        "index_mib": round(size / 2**20),
        "share_of_float32": round(size / (vectors.size * 4), 3),
    }


def step_library(folder: Path, options: argparse.Namespace, kind: str) -> dict[str, Any]:
    from solution.retrieval import approximate

    vectors = np.load(folder / "float32.npy")
    structure = approximate.Structure.of(json.loads((folder / kind / "structure.json").read_text()))
    import faiss

    if kind == "hnsw":
        faiss.omp_set_num_threads(1)  # as ours, whose bytes are the same each time
        names = f"HNSW{settings(options, kind).hnsw_links}_SQfp16"
    else:
        names = approximate._factory(structure, vectors.shape[1])
    sample = vectors[: max(approximate._SAMPLE * structure.lists, 16384)]
    started = time.perf_counter()
    index = faiss.index_factory(vectors.shape[1], names, faiss.METRIC_INNER_PRODUCT)
    index.train(sample)
    trained = time.perf_counter()
    index.add(vectors)
    seconds = time.perf_counter() - started
    return {
        "library_seconds": round(seconds, 1),
        "library_train_seconds": round(trained - started, 1),
        "library_peak_mib": resident()["resident_peak_mib"],
    }


def step_search(folder: Path, options: argparse.Namespace, what: str) -> dict[str, Any]:
    from solution.retrieval.approximate import Structure, open_parts
    from solution.retrieval.dense import PassageIndex

    queries, exact = np.load(folder / "queries.npy"), np.load(folder / "exact.npy")
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    kind, _, way = what.partition(":")
    options.set += filter(None, way.split(","))
    config = settings(options, kind)
    started = time.perf_counter()
    approximate = None
    if kind != "flat":
        structure = Structure.of(json.loads((folder / kind / "structure.json").read_text()))
        approximate = open_parts(folder / kind, structure, config, vectors.shape)
    index = PassageIndex([], vectors, approximate, config, "")
    index.search(queries[:64], options.k)
    opened = time.perf_counter() - started
    timed = []
    for _ in range(1 if kind == "flat" else 3):
        began = time.perf_counter()
        _, rows = index.search(queries, options.k)
        timed.append(time.perf_counter() - began)
    began = time.perf_counter()
    for query in queries[:100]:
        index.search(query[None], options.k)
    alone = time.perf_counter() - began
    return {
        "ms_per_query": round(1000 * float(np.median(timed)) / len(queries), 3),
        "ms_per_query_alone": round(10 * alone, 2),
        "recall": recall(rows, exact),
        "open_seconds": round(opened, 2),
        **resident(),
    }


def step_other(folder: Path, options: argparse.Namespace, name: str) -> dict[str, Any]:
    """A graph of another library with its usual 16 links, float16 where it has that; two threads, as the others."""
    queries, exact = np.load(folder / "queries.npy"), np.load(folder / "exact.npy")
    vectors = np.load(folder / "float32.npy", mmap_mode="r")
    count, dimension = vectors.shape
    threads = os.cpu_count() or 1
    if name == "usearch":
        from usearch.index import Index

        index = Index(ndim=dimension, metric="ip", dtype="f16", connectivity=16, expansion_add=128, expansion_search=64)
        started = time.perf_counter()
        index.add(np.arange(count), np.asarray(vectors), threads=threads)
        built = time.perf_counter()
        index.search(queries[:64], options.k, threads=threads)
        began = time.perf_counter()
        rows = index.search(queries, options.k, threads=threads).keys.astype(np.int64)
        seconds = time.perf_counter() - began
        path = folder / "usearch.index"
        index.save(str(path))
    elif name == "hnswlib":
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=dimension)
        graph.init_index(max_elements=count, ef_construction=128, M=16)
        graph.set_num_threads(threads)
        started = time.perf_counter()
        graph.add_items(vectors)
        built = time.perf_counter()
        graph.set_ef(64)
        graph.knn_query(queries[:64], k=options.k)
        began = time.perf_counter()
        rows = graph.knn_query(queries, k=options.k)[0].astype(np.int64)
        seconds = time.perf_counter() - began
        path = folder / "hnswlib.index"
        graph.save_index(str(path))
    else:
        raise UserError(f"--others {name}: choose among usearch and hnswlib")
    size = path.stat().st_size
    path.unlink()
    return {
        "build_seconds": round(built - started, 1),
        "index_mib": round(size / 2**20),
        "share_of_float32": round(size / (vectors.size * 4), 3),
        "ms_per_query": round(1000 * seconds / len(queries), 3),
        "recall": recall(rows, exact),
        **resident(),
    }


STEPS = {
    "grow": step_grow,
    "flat": step_flat,
    "build": step_build,
    "library": step_library,
    "search": step_search,
    "other": step_other,
}

if __name__ == "__main__":
    command(main)()
