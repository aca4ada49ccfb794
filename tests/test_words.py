"""Words and sentences of many scripts, and where they are used."""

from __future__ import annotations

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solution import words as words_module
from solution.config import RetrievalConfig
from solution.exam import begins_with
from solution.questions import Questions
from solution.rankers.option_inputs import form_signals
from solution.retrieval.articles import ArticleRules, left_out
from solution.retrieval.bm25 import LexicalIndex, Words, write_bm25
from solution.retrieval.duplicates import Duplicates
from solution.retrieval.fusion import distinct
from solution.retrieval.gold import Gold
from solution.retrieval.passages import Passage, split_passages
from solution.retrieval.places import _has_other_scripts
from solution.retrieval.store import PASSAGES
from solution.sentences import sentences
from solution.words import in_word, mentions, other_scripts, search_words, word_count, words

HINDI = "जल एक रासायनिक पदार्थ है। यह हाइड्रोजन और ऑक्सीजन से बना है।"
CHINESE = "水是生命之源。植物通过光合作用制造氧气！"
THAI = "น้ำเป็นสารประกอบเคมี"
ENGLISH = (
    "At 273.15 K the “ice” of Crème brûlée’s Σ-phase – see fig_2 – isn't naïve; Ångström & Менделеев wrote: "
    "ΔG = −5.3 kJ/mol ≈ π·r (±0.1 €)…"
)


# --- words ---------------------------------------------------------------------------------


def test_words_of_usual_texts_are_runs_of_letters_and_digits():
    for text in (ENGLISH, unicodedata.normalize("NFD", ENGLISH)):
        expected = re.findall(r"\w+", unicodedata.normalize("NFC", text).lower())
        assert words(text) == search_words(text) == expected
    assert words("") == words("…") == []


def test_every_usual_character_has_the_words_that_the_rules_for_others_give_it(monkeypatch):
    usual = [chr(code) for code in range(0x3000) if words_module._is_usual(chr(code))]
    assert len(usual) > 1000
    texts = [f"a{character}b {character} 1{character}" for character in usual]
    expected = [words(text) for text in texts]
    monkeypatch.setattr(words_module, "_is_usual", lambda text: False)
    assert [words(text) for text in texts] == expected
    assert [search_words(text) for text in texts] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CO₂", ["co₂", "co2"]),
        ("10³ is not 103", ["10³", "is", "not", "103"]),
        ("10⁻³ 101₂ (x)²", ["10⁻³", "101₂", "x", "²"]),
        ("Ca²⁺ and SO₄²⁻", ["ca²⁺", "ca2", "and", "so₄²⁻", "so42"]),
        ("¹⁴C, 5 cm³", ["¹⁴c", "14c", "5", "cm³", "cm3"]),
        ("ＤＮＡ ﬁbrin", ["ｄｎａ", "dna", "ﬁbrin", "fibrin"]),
        ("co\u00adoperate zero\u200bwidth \ufefffirst", ["cooperate", "zerowidth", "first"]),
        ("İzmir", ["izmir"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("الكِتَاب", ["الكِتَاب", "الكتاب"]),
        ("水是生 DNA分子", ["水是", "是生", "水", "是", "生", "dna", "分子", "分", "子"]),
        ("ｱミノ酸", ["アミ", "ミノ", "ノ酸", "酸"]),
        ("물은", ["물은", "물", "은"]),
        ("เป็นน้ำ", ["เป็น", "นน้ํา"]),
        ("ខ្មែរ", ["ខ្មែរ"]),
    ],
)
def test_words_for_a_search(text, expected):
    assert search_words(text) == expected
    assert search_words(unicodedata.normalize("NFD", text)) == expected


def test_words_as_they_are_written():
    assert words("CO₂ 水是生 हिन्दी") == ["co₂", "水", "是", "生", "हिन्दी"]
    assert (word_count("two words"), word_count("水是生命之源"), word_count(HINDI)) == (2, 4, 12)
    assert in_word("a") and in_word("ी") and not in_word("") and not in_word("-")


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_has_words_in_lower_case(text):
    for found in (words(text), search_words(text)):
        assert all(word and word == word.lower() and not any(map(str.isspace, word)) for word in found)
    assert search_words(unicodedata.normalize("NFD", text)) == search_words(unicodedata.normalize("NFC", text))


def test_mentions_are_words_of_their_own():
    assert mentions("Na", "Na, NaCl and Na. NaNa Na_1") == 2
    assert mentions("−5", "x = −5, but 3−5") == 1
    assert mentions("हिन्द", "हिन्दी") == 0 and mentions("हिन्दी", "हिन्दी में") == 1
    assert mentions("氧气", "制造氧气和氧气") == 2 and mentions("(a+b)*", "(a+b)*") == 1


def test_scripts_that_have_rules_of_their_own():
    assert all(other_scripts([text]) for text in (HINDI, CHINESE, THAI, "ماء", "물"))
    assert not other_scripts([ENGLISH * 10, "Beijing (北京)"]) and not other_scripts([]) and not other_scripts(["1"])
    assert not other_scripts([ENGLISH * 1000, HINDI * 1000])  # the first 65,536 characters decide


# --- sentences -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HINDI, ["जल एक रासायनिक पदार्थ है।", "यह हाइड्रोजन और ऑक्सीजन से बना है।"]),
        ("پانی کیا ہے؟ یہ مائع ہے۔ زندگی ہے۔", ["پانی کیا ہے؟", "یہ مائع ہے۔", "زندگی ہے۔"]),
        ("ما هو الماء؟سائل. نعم", ["ما هو الماء؟", "سائل.", "نعم"]),
        (CHINESE, ["水是生命之源。", "植物通过光合作用制造氧气！"]),
        ("他说：“水！”2019年下雨。", ["他说：“水！”", "2019年下雨。"]),
        ("３．１４だ。次", ["３．１４だ。", "次"]),
        ("e.g. this. Fig. 3 is\nlower\nUpper", ["e.g. this.", "Fig. 3 is\nlower", "Upper"]),
    ],
)
def test_sentences_end_in_every_script(text, expected):
    assert sentences(text) == expected


class _Letters:
    """A tokenizer of one token a character, which could cut a word at its vowel signs."""

    def __call__(self, texts, **options):
        return {"offset_mapping": [[(place, place + 1) for place in range(len(text))] for text in texts]}


def test_passages_are_cut_between_words_of_hindi():
    from solution.retrieval.corpus import Document

    text = HINDI.replace("।", "")
    parts = list(split_passages([Document("d", "", text)], _Letters(), 20, 0))
    assert len(parts) > 2
    assert [word for part in parts for word in words(part.text)] == words(text)


# --- where words are used ------------------------------------------------------------------


def lexical(folder, texts: list[str], language: str = "none") -> LexicalIndex:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rows = {"id": [str(row) for row in range(len(texts))], "title": [""] * len(texts), "text": texts}
    pq.write_table(pa.table(rows), folder / PASSAGES)
    config = RetrievalConfig(corpus="C", language=language)
    write_bm25(folder / PASSAGES, folder, config)
    return LexicalIndex(folder, Words(language), "key")


def test_search_by_words_of_many_scripts(tmp_path, capsys):
    index = lexical(tmp_path / "a", [HINDI, CHINESE, THAI, "CO2 at 103 K", "CO₂ at 10³ K", "the مُدَرِّس"])
    queries = ["पदार्थ", "氧气", "水", "สารประกอบ", "CO₂", "CO2", "10³", "103", "مدرس"]
    scores, rows = index.search([*queries, "?", "पदा"], 2)
    found = [sorted(row[row >= 0].tolist()) for row in rows]
    assert found == [[0], [1], [1], [2], [3, 4], [3, 4], [4], [3], [5], [], []]
    assert "note: 2 of 11 queries have no word that the corpus has too" in capsys.readouterr().err


def test_a_corpus_in_other_letters_than_the_language_is_told(tmp_path, capsys):
    lexical(tmp_path / "a", [HINDI, "DNA"], "english")
    assert "92% of the words of the corpus C are not in the letters of retrieval.language=english" in (
        capsys.readouterr().err
    )
    lexical(tmp_path / "b", ["Вода DNA RNA ATP"], "russian")
    assert "75% of the words" in capsys.readouterr().err
    lexical(tmp_path / "c", [ENGLISH], "english")
    lexical(tmp_path / "d", [HINDI], "none")
    assert "not in the letters" not in capsys.readouterr().err


def test_only_corpora_of_other_scripts_have_other_keys(tmp_path):
    for name, text, expected in (("a", ENGLISH, False), ("b", HINDI, True)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"text": text}))
        assert _has_other_scripts(str(path), None, name) is expected
    assert not _has_other_scripts(str(tmp_path / "absent"), None, "")


def test_gold_passages_hold_the_answers_words():
    questions = Questions(
        ["1", "2", "3"], ["?"] * 3, [["氧气"], ["हिन्द"], ["CO2"]], np.zeros(3, dtype=np.int64), {"module": ["हिन्द"] * 3}
    )
    gold = Gold(questions, None)
    assert gold.hits(0, [Passage("a", "", CHINESE)]) == [True]
    assert gold.hits(1, [Passage("a", "", "हिन्दी"), Passage("b", "", "हिन्द है")]) == [False, True]
    assert Gold(questions, "module").hits(0, [Passage("हिन्दी-1", "", ""), Passage("हिन्द-1", "", "")]) == [False, True]
    assert begins_with("हिन्द है", "हिन्द") and not begins_with("हिन्दी", "हिन्द")


def test_passages_in_chinese_are_compared():
    from collections import Counter

    other = "动物呼吸氧气，排出二氧化碳。植物通过光合作用制造氧气！"
    passages = [Passage(str(i), "", text) for i, text in enumerate([CHINESE, CHINESE.replace("！", "。"), other])]
    assert distinct(passages, 0.8, 3) == [0, 2]
    dropped: Counter[str] = Counter()
    assert [passage.id for passage in Duplicates("near", 0.9, dropped).without(passages)] == ["0", "2"]
    assert dropped == {"nearly repeated passage": 1}


def test_chinese_articles_are_no_stubs_and_options_have_words():
    assert left_out({}, "水", CHINESE * 3, ArticleRules(stub_words=20)) is None
    assert left_out({}, "水", CHINESE, ArticleRules(stub_words=20)) == "stub"
    table = form_signals(Questions(["1"], ["氧气 CO₂?"], [["氧气", "CO2", "氮"]], np.array([0]), {}))
    assert table["words"].tolist() == [[2, 1, 1]] and table["shared_words"].tolist() == [[1, 1, 0]]
