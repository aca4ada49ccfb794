"""A corpus of malformed files, made by a seeded generator: each with a name, what is wrong, and what must come of it.

A file is either refused, by a message that matches `said` and names the file, or it is read, and gives `content`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
Bytes = Callable[[bytes, random.Random], bytes]

EXAM: list[Row] = [
    {
        "id": "q1",
        "prompt": "Which planet, they ask?",
        "A": "Venus",
        "B": 'the "red" one',
        "C": "Ünïcode",
        "answer": "B",
    },
    {"id": "q2", "prompt": "How many\nmoons?", "A": "one", "B": "two", "C": "", "answer": "A"},
    {"id": "q3", "prompt": "Is it warm?", "A": "yes", "B": "no", "C": "漢字", "answer": "C"},
]
ANSWERS: list[Row] = [
    {"id": "q1", "p_A": 0.5, "p_B": 0.25, "p_C": 0.25},
    {"id": "q2", "p_A": 0.75, "p_B": 0.25, "p_C": None},
    {"id": "q3", "p_A": 0.125, "p_B": 0.125, "p_C": 0.75},
]
CORPUS: list[Row] = [
    {"id": "a", "title": "Mars", "text": "A planet, and it is red."},
    {"id": "b", "title": "Größe", "text": "Texts of\ntwo lines."},
    {"id": "c", "title": "漢字", "text": "A third one."},
]
TABLES = {"questions": EXAM, "answers": ANSWERS, "corpus": CORPUS}
ENDINGS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class Case:
    """One file. `make` writes it where it is told; `said` is None where it is to be read and to give `content`."""

    kind: str
    name: str
    file: str
    make: Callable[[Path], object]
    said: str | None
    content: Any = None


def encode(rows: list[Row], ending: str) -> bytes:
    """Rows as the bytes of a CSV, JSONL or parquet file."""
    if ending == "csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    if ending == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    names = dict.fromkeys(name for row in rows for name in row)
    return parquet(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}))


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


# --- damage to the bytes of a good file ------------------------------------------------------


def replaced(old: str, new: bytes) -> Bytes:
    def change(data: bytes, draw: random.Random) -> bytes:
        assert old.encode() in data, old
        return data.replace(old.encode(), new, 1)

    return change


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(8, len(data) - 1)]


def zipped(data: bytes, draw: random.Random) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("exam.csv", data)
    return archive.getvalue()


def noise(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(500)


def gz_flipped(data: bytes, draw: random.Random) -> bytes:
    packed = bytearray(gzip.compress(data))
    packed[draw.randrange(len(packed) - 8, len(packed) - 4)] ^= 1 << draw.randrange(8)  # the checksum
    return bytes(packed)


def two_members(data: bytes, draw: random.Random) -> bytes:
    half = draw.randrange(len(data))
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


WHOLE = None
PLACE = r"(line|row) \d"
# What every reader knows, as other programs write it.
UNDERSTOOD = {"UTF-16", "UTF-32", "semicolons", "tabs", "a line in front of the header"}
# name -> endings, the file's last ending, change, what is said (WHOLE: the content is that of the good file)
DAMAGES: dict[str, tuple[tuple[str, ...], str, Bytes, str | None]] = {
    "0 bytes": (ENDINGS, "", lambda data, draw: b"", "empty"),
    "only white space": (ENDINGS, "", lambda data, draw: b" \n\t\r\n \n", "."),
    "UTF-16": (("csv", "jsonl"), "", lambda data, draw: data.decode().encode("utf-16"), "."),
    "UTF-16 without a mark": (("csv", "jsonl"), "", lambda data, draw: data.decode().encode("utf-16-le"), "."),
    "UTF-32": (("csv", "jsonl"), "", lambda data, draw: data.decode().encode("utf-32"), "."),
    "a byte-order mark": (("csv", "jsonl"), "", lambda data, draw: b"\xef\xbb\xbf" + data, WHOLE),
    "CRLF": (("jsonl",), "", lambda data, draw: data.replace(b"\n", b"\r\n"), WHOLE),
    "blank lines": (("jsonl",), "", lambda data, draw: data.replace(b"\n", b"\n\n \n"), WHOLE),
    "no newline at the end": (("csv", "jsonl"), "", lambda data, draw: data.rstrip(b"\n"), WHOLE),
    "bytes of an overlong character": (("csv", "jsonl"), "", lambda data, draw: data + b"\xc0\x80\n", PLACE),
    "a surrogate in UTF-8": (("csv", "jsonl"), "", lambda data, draw: data + b"\xed\xa0\x80\n", PLACE),
    "ends inside a character": (("csv", "jsonl"), "", lambda data, draw: data + b"\xe2\x82", PLACE),
    "zip": (ENDINGS, "", zipped, "."),
    "noise": (ENDINGS, "", noise, "."),
    "PNG": (ENDINGS, "", lambda data, draw: b"\x89PNG\r\n\x1a\n" + draw.randbytes(300), "."),
    "an HTML page": (
        ENDINGS,
        "",
        lambda data, draw: b"<!DOCTYPE html>\n<html><body>404, not found</body></html>\n",
        ".",
    ),
    "a git LFS pointer": (ENDINGS, "", lambda data, draw: b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "."),
    "gzip": (ENDINGS, ".gz", lambda data, draw: gzip.compress(data), WHOLE),
    "two gzip members": (ENDINGS, ".gz", two_members, WHOLE),
    "truncated gzip": (ENDINGS, ".gz", lambda data, draw: gzip.compress(data)[: draw.randrange(3, 60)], "gzip"),
    "gzip with a wrong checksum": (ENDINGS, ".gz", gz_flipped, "gzip"),
    "gzip with more behind it": (ENDINGS, ".gz", lambda data, draw: gzip.compress(data) + b"more", "gzip"),
    "gzip of gzip": (ENDINGS, ".gz", lambda data, draw: gzip.compress(gzip.compress(data)), "."),
    "gzip of nothing": (ENDINGS, ".gz", lambda data, draw: gzip.compress(b""), "."),
    "not gzip": (ENDINGS, ".gz", lambda data, draw: data, "gzip"),
    "truncated": (("parquet",), "", cut, "parquet"),
    "truncated by a byte": (("parquet",), "", lambda data, draw: data[:-1], "parquet"),
    "the mark only": (("parquet",), "", lambda data, draw: b"PAR1", "parquet"),
    "a CSV file": (("parquet", "jsonl"), "", lambda data, draw: b"id,prompt,A,B\n1,p,a,b\n", "."),
    "a parquet file": (("csv", "jsonl"), "", lambda data, draw: parquet(pa.table({"id": ["1"]})), "."),
    "an array of objects": (("jsonl",), "", lambda data, draw: json.dumps([{"id": 1}], indent=1).encode(), "."),
    "deep nesting": (("jsonl",), "", lambda data, draw: data + b'{"id":' + b"[" * 100_000 + b"\n", PLACE),
    "a number of 5,000 digits": (("jsonl",), "", lambda data, draw: data + b'{"id": ' + b"7" * 5000 + b"}\n", PLACE),
    "half of a character": (("jsonl",), "", lambda data, draw: data + b'{"id": "\\udc00"}\n', PLACE),
    "half of a character in a key": (("jsonl",), "", lambda data, draw: data + b'{"\\ud800": 1}\n', PLACE),
    "an unfinished line": (("jsonl",), "", lambda data, draw: data.rstrip(b"\n")[:-3], PLACE),
    "single quotes": (("jsonl",), "", lambda data, draw: data + b"{'id': 'x'}\n", PLACE),
    "an open quote": (("csv",), "", lambda data, draw: data + b'"x,y\n', PLACE),
    "a quote inside a cell": (("csv",), "", lambda data, draw: data + b'"x"y,z\n', PLACE),
    "too many cells": (("csv",), "", lambda data, draw: data + b"x," * 20 + b"\n", PLACE),
    "too few cells": (("csv",), "", lambda data, draw: data + b"x\n", PLACE),
    "a NUL byte": (("csv",), "", lambda data, draw: data + b"x\0,y\n", "NUL"),
    "semicolons": (("csv",), "", lambda data, draw: data.replace(b",", b";"), "."),
    "tabs": (("csv",), "", lambda data, draw: data.replace(b",", b"\t"), "."),
    "a header only": (("csv",), "", lambda data, draw: data.split(b"\n")[0] + b"\n", "."),
    "no header": (("csv",), "", lambda data, draw: data.split(b"\n", 1)[1], "."),
    "a line in front of the header": (("csv",), "", lambda data, draw: b"sep=,\n" + data, "."),
    "a column without name": (("csv",), "", replaced("id", b""), "."),
    "latin-1": (("csv", "jsonl"), "", lambda data, draw: data + b"caf\xe9\n", PLACE),
}


def damaged(draw: random.Random) -> Iterator[Case]:
    for kind, rows in TABLES.items():
        for name, (endings, last, change, said) in DAMAGES.items():
            for ending in endings:
                if kind == "corpus" and name == "a column without name":
                    continue  # a corpus needs no ids
                data = change(encode(rows, ending), draw)
                if name in UNDERSTOOD:
                    said = WHOLE
                if (kind, name) == ("questions", "a column without name"):
                    said = WHOLE
                # A file of text has no types, and no cells that are missing.
                is_text = ending == "csv" and said is WHOLE
                mark = {"semicolons": ";", "tabs": "\t"}.get(name, ",")  # in the texts too
                content = rows
                if is_text:
                    content = [
                        {n: "" if c is None else str(c).replace(",", mark) for n, c in row.items()} for row in rows
                    ]
                yield Case(kind, name, f"file.{ending}{last}", written(data), said, content)
        plain = [
            {name: "" if cell is None else str(cell).replace("\n", " ") for name, cell in row.items()} for row in rows
        ]
        lines = encode(plain, "csv").rstrip(b"\n").split(b"\n")
        mixed = b"".join(line + draw.choice([b"\n", b"\r\n"]) for line in lines)
        yield Case(kind, "mixed line ends", "file.csv", written(mixed), None, plain)


# --- not a file at all -----------------------------------------------------------------------


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (lambda path: None, "not found|not there"),
    "a folder": (lambda path: path.mkdir(), "folder|no text"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "not found|not there"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "not found|not there"),
    "a pipe": (lambda path: os.mkfifo(path), "pipe|not there"),
    "a device without end": (endless, "device|not there"),
}


def odd_places() -> Iterator[Case]:
    for kind in TABLES:
        for name, (make, said) in PLACES.items():
            yield Case(kind, name, "file.csv", make, said)
        yield Case(kind, "another ending", "file.xlsx", written(b"x"), "file.xlsx")
        yield Case(kind, "no ending", "file", written(b"id,prompt,A,B\n"), ".")


# --- rows that are wrong ---------------------------------------------------------------------


def edited(rows: list[Row], number: int, **changes: Any) -> list[Row]:
    return [{**row, **(changes if place == number else {})} for place, row in enumerate(rows, 1)]


def without(rows: list[Row], *names: str) -> list[Row]:
    return [{name: cell for name, cell in row.items() if name not in names} for row in rows]


def renamed(rows: list[Row], old: str, new: str) -> list[Row]:
    return [{(new if name == old else name): cell for name, cell in row.items()} for row in rows]


MARKS = "\u202eright to left\u202c \u200b\u200d e\u0301 \U0001f30d\ufe0f \u2028 \x85 \x1b[31m"
LONG = "long " * 200_000
JSON_ONLY, TEXT_ONLY = ("jsonl",), ("csv", "jsonl")
NO_CSV = ("jsonl", "parquet")

# name -> rows, endings, what is said (None: read as these rows)
EXAM_ROWS: dict[str, tuple[list[Row], tuple[str, ...], str | None]] = {
    "an id twice": (edited(EXAM, 3, id="q1"), ENDINGS, r"row 3 \(id q1\): the id stands in row 1"),
    "an id twice but for spaces": (edited(EXAM, 3, id=" q1\u00a0"), ENDINGS, "row 3.*stands in row 1"),
    "an empty id": (edited(EXAM, 2, id=""), ENDINGS, "row 2: the id is empty"),
    "an id of white space": (edited(EXAM, 2, id=" \u3000\t"), ENDINGS, "row 2: the id is empty"),
    "no id": (edited(EXAM, 2, id=None), NO_CSV, "row 2: the id is empty"),
    "an id that is not a number": (edited(without(EXAM, "id"), 2, id=float("nan")), NO_CSV, "row 1: the id is empty"),
    "an id with NUL": (edited(EXAM, 2, id="q\0"), NO_CSV, r"row 2.*q\\x00.*NUL"),
    "a long id twice": (edited(edited(EXAM, 1, id=LONG), 3, id=LONG), ENDINGS, r"row 3 \(id long .{40,60}\.\.\.\)"),
    "an id that steers a terminal": (edited(EXAM, 2, id="\x1b[31mred", prompt=""), ENDINGS, r"id \\x1b\[31mred"),
    "an empty prompt": (edited(EXAM, 2, prompt=" "), ENDINGS, r"row 2 \(id q2\): the prompt is empty"),
    "one option": (edited(EXAM, 2, B=""), ENDINGS, r"row 2 .*fewer than 2 options"),
    "options of white space": (edited(EXAM, 2, A="\t", B=" "), ENDINGS, r"row 2 .*fewer than 2 options"),
    "the answer of an option that is not there": (edited(EXAM, 2, answer="C"), ENDINGS, "row 2 .*answer is C"),
    "an answer out of range": (edited(EXAM, 2, answer="H"), ENDINGS, "row 2 .*answer is H"),
    "an answer behind the last letter": (
        edited(EXAM, 2, answer="I"),
        ENDINGS,
        "row 2 .*answer is I, and",
    ),
    "an answer as the text of no option": (edited(EXAM, 2, answer="ones"), ENDINGS, "row 2 .*'ones' is none of its"),
    "an answer as a long text": (edited(EXAM, 2, answer=LONG), ENDINGS, r"row 2 .*'long .{40,60}\.\.\.' is none"),
    "an answer as a number": (
        edited(without(EXAM, "answer"), 2, answer=1),
        ENDINGS,
        "row 2 .*'1' is B counted from 0, A counted from 1",
    ),
    "two letters": (edited(EXAM, 2, answer="A B"), ENDINGS, "row 2 .*'A B' names several options"),
    "a Cyrillic letter": (edited(EXAM, 2, answer="\u0410"), ENDINGS, "row 2 .*is none of its options"),
    "true as an answer": (
        edited(without(EXAM, "answer"), 2, answer=True),
        ENDINGS,
        "row 2 .*'True' is none of",
    ),
    "a list as an option": (edited(EXAM, 2, A=["one"]), JSON_ONLY, "row 2 .*column A holds a list"),
    "an object as a prompt": (edited(EXAM, 2, prompt={"text": "p"}), JSON_ONLY, "row 2 .*prompt holds a dict"),
    "a list as the id": (edited(EXAM, 2, id=["q2"]), JSON_ONLY, "row 2 .*column id holds a list"),
    "an infinite option": (edited(EXAM, 2, A=float("inf")), JSON_ONLY, "row 2 .*column A holds a number without end"),
    "options that are not numbers": (edited(EXAM, 2, A=float("nan")), JSON_ONLY, "row 2 .*fewer than 2 options"),
    "nine options": ([row | dict.fromkeys("DEFGHI", "x") for row in EXAM], ENDINGS, None),
    "a gap in the letters": (renamed(EXAM, "C", "D"), ENDINGS, "column C missing"),
    "one small letter": (renamed(without(EXAM, "B", "C"), "A", "a"), ENDINGS, "columns A, B missing"),
    "no prompts": (without(EXAM, "prompt"), ENDINGS, "column prompt missing"),
    "right to left, zero width, escapes": (edited(EXAM, 2, prompt=f"x{MARKS}x", A=f"y{MARKS}y"), ENDINGS, None),
    "a long line": (edited(EXAM, 2, prompt=LONG + "x"), ENDINGS, None),
    "10,000 columns": ([row | {f"column {i}": "x" for i in range(10_000)} for row in EXAM], TEXT_ONLY, None),
    "numbers beyond int64 as ids": (edited(EXAM, 2, id=2**63), JSON_ONLY, None),
    "numbers of 4,000 digits as ids": (edited(EXAM, 2, id=10**4000), JSON_ONLY, None),
    "numbers as options": (edited(EXAM, 2, A=-0.5, B=10**30), JSON_ONLY, None),
    "words that look empty": (edited(EXAM, 2, A="None", B="nan", prompt="NULL"), ENDINGS, None),
    "formulas": (edited(EXAM, 2, A="=1+1", B="@x", prompt="'-"), ENDINGS, None),
    "small letters as answers": ([row | {"answer": f" {row['answer'].lower()} "} for row in EXAM], ENDINGS, None),
    "no answers": (without(EXAM, "answer"), ENDINGS, None),
}
ANSWER_ROWS: dict[str, tuple[list[Row], tuple[str, ...], str | None]] = {
    "a negative probability": (edited(ANSWERS, 1, p_A=-0.5, p_B=1.25), ENDINGS, "id q1: p_A is -0.5"),
    "NaN": (edited(ANSWERS, 1, p_A=float("nan")), ENDINGS, "id q1: p_A is NaN"),
    "infinite": (edited(ANSWERS, 1, p_A=float("inf")), ENDINGS, "id q1: p_A is (inf|Infinity), and"),
    "beyond a double": ([row | {"p_A": "1e400"} for row in ANSWERS], TEXT_ONLY, "id q1: p_A is (1e400|inf), and"),
    "an empty cell": (edited(ANSWERS, 3, p_C=None), ENDINGS, "id q3: p_C is (empty|NaN), and"),
    "a word": (
        edited([row | {"p_A": str(row["p_A"])} for row in ANSWERS], 2, p_A="much"),
        ENDINGS,
        "id q2: p_A is 'much'",
    ),
    "a decimal comma": ([row | {"p_A": "0,5"} for row in ANSWERS], ENDINGS, "id q1: p_A is '0,5', not a number"),
    "a per cent": ([row | {"p_A": "50%"} for row in ANSWERS], ENDINGS, "id q1: p_A is '50%', not a number"),
    "true": (edited(ANSWERS, 1, p_A=True), JSON_ONLY, "id q1: p_A is 'True', not a number"),
    "a list": (edited(ANSWERS, 1, p_A=[0.5]), JSON_ONLY, "id q1: p_A is .* not a number"),
    "sums that are not 1": (edited(ANSWERS, 1, p_A=0.9), ENDINGS, "id q1: the probabilities sum to 1.4"),
    "all zero": (edited(ANSWERS, 1, p_A=0.0, p_B=0.0, p_C=0.0), ENDINGS, "id q1: the probabilities sum to 0"),
    "beyond a double together": (
        edited(ANSWERS, 1, p_A=1.7e308, p_B=1.7e308),
        ENDINGS,
        "id q1: the probabilities sum to inf",
    ),
    "an option too many": (edited(ANSWERS, 2, p_B=0.125, p_C=0.125), ENDINGS, "id q2: one option too many: p_C"),
    "a question missing": (ANSWERS[:2], ENDINGS, r"1 of 3 questions are missing \(first: id q3\)"),
    "an id twice": ([*ANSWERS, ANSWERS[0]], ENDINGS, "id q1 stands more than once"),
    "an id of no question": (
        [*ANSWERS, ANSWERS[0] | {"id": "x\x07"}],
        ENDINGS,
        r"not in the exam \(first: id x\\x07\)",
    ),
    "other ids": ([row | {"id": row["id"] + "0"} for row in ANSWERS], ENDINGS, "is of other questions"),
    "no ids": (without(ANSWERS, "id"), ENDINGS, "id and one column"),
    "no probabilities": (without(ANSWERS, "p_A", "p_B", "p_C"), ENDINGS, "id and one column"),
    "a column missing": (without(ANSWERS, "p_C"), ENDINGS, "column p_C missing"),
    "letters": (
        [{"id": row["id"], **dict(zip("ABC", list(row.values())[1:], strict=True))} for row in ANSWERS],
        ENDINGS,
        None,
    ),
    "another order": (ANSWERS[::-1], ENDINGS, None),
    "texts": ([{name: cell and str(cell) for name, cell in row.items()} for row in ANSWERS], ENDINGS, None),
    "10,000 columns": ([row | {f"column {i}": 0 for i in range(10_000)} for row in ANSWERS], TEXT_ONLY, None),
}
CORPUS_ROWS: dict[str, tuple[list[Row], tuple[str, ...], str | None]] = {
    "an id twice": (edited(CORPUS, 3, id="a"), ENDINGS, "."),
    "an empty id": (edited(CORPUS, 2, id=" "), ENDINGS, "."),
    "a list as the text": (edited(CORPUS, 2, text=["x"]), JSON_ONLY, "."),
    "a list as the title": (edited(CORPUS, 2, title=["x"]), JSON_ONLY, "."),
    "no text": (without(CORPUS, "text"), ENDINGS, "."),
    "empty texts": ([row | {"text": " "} for row in CORPUS], ENDINGS, "."),
    "right to left, zero width, escapes": (edited(CORPUS, 2, text=f"x{MARKS}x"), ENDINGS, None),
    "a long line": (edited(CORPUS, 2, text=LONG + "x"), ENDINGS, None),
    "10,000 columns": ([row | {f"column {i}": "x" for i in range(10_000)} for row in CORPUS], TEXT_ONLY, None),
}


def wrong_rows() -> Iterator[Case]:
    for kind, cases in (("questions", EXAM_ROWS), ("answers", ANSWER_ROWS), ("corpus", CORPUS_ROWS)):
        for name, (rows, endings, said) in cases.items():
            for ending in endings:
                expected = [{c: cell for c, cell in row.items() if not c.startswith("column ")} for row in rows]
                yield Case(kind, name, f"file.{ending}", written(encode(rows, ending)), said, expected)


def raw_rows() -> Iterator[Case]:
    """What the encoders do not write: repeated names, types of parquet's own."""
    question = '"prompt": "p", "B": "b"'
    for name, line in {
        "a key twice": f'{{"id": 1, "A": "x", {question}, "A": "y"}}',
        "1e400": f'{{"id": 1, "A": 1e400, {question}}}',
        "minus infinity": f'{{"id": 1, "A": -Infinity, {question}}}',
    }.items():
        yield Case("questions", name, "file.jsonl", written(line.encode()), PLACE)
    yield Case("questions", "a column twice", "file.csv", written(b"id,prompt,A,B,A\n1,p,a,b,c\n"), "column 'A' more")

    def table(**changes: Any) -> pa.Table:
        return pa.table({"id": ["1"], "prompt": ["p"], "A": ["a"], "B": ["b"], **changes})

    far = pa.array([10**9], pa.int32()).cast(pa.date32())
    twice = pa.table([pa.array(["x"])] * 5, names=["id", "prompt", "A", "B", "A"])
    broken = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    row = {"id": "1", "prompt": "p", "A": "a", "B": "b"}
    for name, made, said in (
        ("no rows", table().slice(0, 0), "no question"),
        ("no columns", pa.table({}), "missing"),
        ("a column twice", twice, "column 'A' more than once"),
        ("bytes", table(A=pa.array([b"a"])), "row 1 .*column A holds a bytes"),
        ("a list", table(A=pa.array([["a"]])), "row 1 .*column A holds a list"),
        ("a struct", table(prompt=pa.array([{"x": 1}])), "row 1 .*column prompt holds a dict"),
        ("a date that is no date", table(A=far), "file.parquet"),
        ("not UTF-8", table(A=broken), "not a whole parquet file"),
        ("infinite", table(A=[float("inf")]), "row 1 .*number without end"),
        ("dictionary", table(A=pa.array(["a"]).dictionary_encode()), None),
        ("large strings", table(A=pa.array(["a"], pa.large_string())), None),
        ("int64 ids", table(id=pa.array([2**63 - 1])), None),
        ("uint64 ids", table(id=pa.array([2**64 - 1], pa.uint64())), None),
        ("only nulls", table(answer=pa.nulls(1)), None),
    ):
        content = [{**row, "id": str(made.column("id")[0].as_py())}] if said is None else None
        yield Case("questions", name, "file.parquet", written(parquet(made)), said, content)
    text = pa.table({"id": ["1"], "text": pa.array([10**9], pa.int32()).cast(pa.date32())})
    yield Case("corpus", "a date that is no date", "file.parquet", written(parquet(text)), ".")
    yield Case("corpus", "bytes", "file.parquet", written(parquet(pa.table({"text": pa.array([b"a"])}))), ".")
    yield Case("corpus", "no rows", "file.parquet", written(parquet(pa.table({"text": ["a"]}).slice(0, 0))), ".")


# --- settings --------------------------------------------------------------------------------

GOOD_YAML = "name: ranker\nfamily: longest\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGES = "b0: &b0 {k: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
CONFIGS: dict[str, tuple[str | bytes, str | None]] = {
    "an object": ("name: !!python/object:os.system x\n", "not YAML"),
    "a call": ("name: !!python/object/apply:os.system [echo]\n", "not YAML"),
    "a module": ("name: !!python/module:os\n", "not YAML"),
    "an unknown tag": ("name: !mine x\n", "not YAML"),
    "bool of a word": ("merged: !!bool maybe\n", "not YAML"),
    "int of nothing": ("seed: !!int ''\n", "not YAML"),
    "int of a word": ("seed: !!int x\n", "not YAML"),
    "float of nothing": ("temperature: !!float ''\n", "not YAML"),
    "a time of a word": ("revision: !!timestamp x\n", "not YAML"),
    "a time that is none": ("revision: 2024-02-31\n", "not YAML"),
    "bytes": (GOOD_YAML + "model: !!binary aGVsbG8=\n", None),
    "broken bytes": ("model: !!binary '*'\n", "."),
    "a set": (GOOD_YAML + "training: !!set {epochs}\n", "training"),
    "aliases without end": (BOMB + GOOD_YAML, "aliases"),
    "aliases in the place of a list": (BOMB.replace("[x, x]", "[fused]") + f"{GOOD_YAML}contexts: *a11\n", "aliases"),
    "aliases that are not too many": (f"{GOOD_YAML}contexts: &a [fused]\nlora: {{modules_to_save: *a}}\n", None),
    "merged aliases without end": (MERGES + GOOD_YAML, "aliases"),
    "an alias of itself": (f"{GOOD_YAML}training: &t {{epochs: *t}}\n", "aliases"),
    "an unknown alias": ("name: *x\n", "not YAML"),
    "deep lists": (GOOD_YAML + "x: " + "[" * 20_000, "not YAML"),
    "deep mappings": (GOOD_YAML + "x: " + "{a: " * 3000, "not YAML"),
    "two documents": (f"{GOOD_YAML}---\n{GOOD_YAML}", "not YAML"),
    "a tab": ("name: ranker\n\tfamily: longest\n", "not YAML"),
    "a NUL byte": (b"name: r\0\n", "not YAML"),
    "an escaped NUL in the name": ('name: "a\\0b"\nfamily: longest\n', "name"),
    "half of a character": (GOOD_YAML + 'model: "\\ud800"\n', "cannot be written"),
    "UTF-16": (GOOD_YAML.encode("utf-16"), "not UTF-8"),
    "latin-1": (b"name: caf\xe9\n", "not UTF-8"),
    "a byte-order mark": (b"\xef\xbb\xbf" + GOOD_YAML.encode(), None),
    "CRLF": (GOOD_YAML.replace("\n", "\r\n"), None),
    "JSON": ('{"name": "ranker", "family": "longest"}', None),
    "a list": ("- name\n", "not a list"),
    "a word": ("ranker\n", "not a str"),
    "a number": ("1e400\n", "not a (str|float)"),
    "a list as a key": (GOOD_YAML + "? [a, b]\n: c\n", "not YAML"),
    "a number as a key": (GOOD_YAML + "1: x\n", "1: keys should be strings"),
    "null as a key": (GOOD_YAML + "~: x\n", "."),
    "a key twice": (GOOD_YAML + "name: ranker\n", "line 3: name stands in line 1"),
    "10,000 keys": (GOOD_YAML + "".join(f"key{i}: {i}\n" for i in range(10_000)), "and 9980 more problems"),
    "a huge value": (GOOD_YAML + f"head: {'x' * 1_000_000}\n", r"head: .*x{80,}.*\.\.\..*x{80,}"),
    "a number of 20,000 hexadecimal digits": (GOOD_YAML + f"max_tokens: 0x{'f' * 20_000}\n", "cannot be written"),
    "a negative number of 20,000 hexadecimal digits": (
        GOOD_YAML + f"max_tokens: -0x{'f' * 20_000}\n",
        "number too long",
    ),
    "a seed beyond the generators": (GOOD_YAML + f"seed: {2**63}\n", "seed: input should be less than"),
    "infinity": (GOOD_YAML + "temperature: .inf\n", "temperature: input should be a finite number"),
    "1e400": (GOOD_YAML + "temperature: 1.0e+400\n", "temperature: input should be a finite number"),
    "NaN": (GOOD_YAML + "temperature: .nan\n", "temperature: input should be"),
    "a number in base 60": (GOOD_YAML + "max_tokens: 1:30\n", None),
    "yes as a number": (GOOD_YAML + "seed: yes\n", None),
    "a path as its name": ("name: ../ranker\nfamily: longest\n", "name: string should match pattern"),
    "an open string": ('name: "ranker\n', "not YAML"),
    "a merge conflict": (f"<<<<<<< HEAD\n{GOOD_YAML}=======\n", "not YAML|is a str|not a str"),
}


def settings_files() -> Iterator[Case]:
    for name, (text, said) in CONFIGS.items():
        data = text if isinstance(text, bytes) else text.encode()
        yield Case("configs", name, "ranker.yaml", written(data), said)
    for name, (make, _) in PLACES.items():
        yield Case("configs", name, "ranker.yaml", make, ".")


# --- files of ours ---------------------------------------------------------------------------


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], Any]:
    """Put a value at a place of a JSON object."""

    def change(record: dict[str, Any]) -> Any:
        inner: Any = record
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
        return record

    return change


ENSEMBLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "folds as a word": at("about", "a", "folds", value="many"),
    "folds without end": at("about", "a", "folds", value=10**12),
    "folds of 0": at("about", "a", "folds", value=0),
    "folds missing": lambda record: record["about"]["a"].pop("folds") and record,
    "settings missing": lambda record: record["about"]["a"].pop("config") and record,
    "contexts as a number": at("about", "a", "contexts", value=3),
    "about a list": at("about", value=[]),
    "about a word": at("about", "a", value="x"),
    "weights as words": at("weights", "a", value="0.5"),
    "a weight of infinity": at("weights", "a", value=float("inf")),
    "a negative weight": lambda record: at("weights", "b", value=1.5)(at("weights", "a", value=-0.5)(record)),
    "another digit": lambda record: at("weights", "b", value=0.75)(at("weights", "a", value=0.25)(record)),
    "another estimate": at("estimate", "map3", value=0.999),
    "a name that is a path": at("rankers", 0, value="../../a"),
    "rankers twice": at("rankers", value=["a", "a"]),
    "a stacker of words": at("stacker", value={"coefficients": {"a": ["x", 0, 0]}}),
    "an unknown key": at("more", value=1),
    "another schema": at("schema", value=2),
    "a table of numbers": at("table", value=[1]),
    "another hash": at("hash", value="0" * 16),
    "a list": lambda record: [record],
    "null": lambda record: None,
}


def ensembles() -> Iterator[Case]:
    def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], object]:
        return lambda path: path.write_text(json.dumps(change(json.loads(path.read_text()))))

    for name, change in ENSEMBLES.items():
        yield Case("ensemble", name, "ensemble.json", edit(change), "solution tune")
    for name, data in {
        "0 bytes": b"",
        "deep nesting": b"[" * 100_000,
        "a number of 5,000 digits": b'{"schema": ' + b"1" * 5000 + b"}",
        "half of a character": b'{"reason": "\\ud800"}',
        "UTF-16": "{}".encode("utf-16"),
        "not JSON": b"{'a': 1}",
        "NUL": b"\0" * 100,
    }.items():
        yield Case("ensemble", name, "ensemble.json", written(data), "solution tune")
    yield Case("ensemble", "truncated", "ensemble.json", lambda p: p.write_bytes(p.read_bytes()[:-40]), "solution tune")
    yield Case("ensemble", "a folder", "ensemble.json", lambda p: (p.unlink(), p.mkdir()), "solution tune")


def with_about(**changes: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        about = json.loads(table.schema.metadata[b"solution"]) | changes
        return table.replace_schema_metadata({b"solution": json.dumps(about).encode()})

    return change


def with_column(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values(len(table))))


OOF_TABLES: dict[str, Callable[[pa.Table], pa.Table]] = {
    "folds as a word": with_about(folds="many"),
    "folds without end": with_about(folds=10**12),
    "a fold beyond the last": with_about(fold=99),
    "a fold as a list": with_about(fold=[0]),
    "a ranker that is a list": with_about(ranker=["a"]),
    "about a list": lambda table: table.replace_schema_metadata({b"solution": b'["ranker"]'}),
    "about too deep": lambda table: table.replace_schema_metadata({b"solution": b"[" * 100_000}),
    "no about": lambda table: table.replace_schema_metadata({}),
    "lists as folds": with_column("fold", lambda n: [[0]] * n),
    "halves as answers": with_column("answer", lambda n: [0.5] * n),
    "answers missing": with_column("answer", lambda n: [None, *[0] * (n - 1)]),
    "words as answers": with_column("answer", lambda n: ["A"] * n),
    "ids missing": with_column("id", lambda n: [None, *map(str, range(n - 1))]),
    "numbers as ids": with_column("id", lambda n: list(range(n))),
    "lists as probabilities": with_column("p_A", lambda n: [[0.5]] * n),
    "words as probabilities": with_column("p_A", lambda n: ["x"] * n),
    "dates as probabilities": lambda table: table.set_column(
        table.column_names.index("p_A"), "p_A", pa.array([10**9] * len(table), pa.int32()).cast(pa.date32())
    ),
    "infinite probabilities": with_column("p_A", lambda n: [float("inf")] * n),
    "rows in another order": lambda table: table.take(list(range(len(table)))[::-1]),
    "no rows": lambda table: table.slice(0, 0),
    "a column twice": lambda table: table.append_column("id", table.column("id")),
}


def oof_parts() -> Iterator[Case]:
    def edit(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], object]:
        return lambda path: pq.write_table(change(pq.read_table(path)), path)

    for name, change in OOF_TABLES.items():
        yield Case("oof", name, "fold_0.parquet", edit(change), "fold_0.parquet")
    yield Case("oof", "0 bytes", "fold_0.parquet", written(b""), "fold_0.parquet")
    yield Case("oof", "a folder", "fold_0.parquet", lambda p: (p.unlink(), p.mkdir()), "fold_0.parquet|OOF")


def cases(seed: int = 0) -> list[Case]:
    """The corpus; the same seed gives the same files."""
    draw = random.Random(seed)
    every = [*damaged(draw), *odd_places(), *wrong_rows(), *raw_rows(), *settings_files(), *ensembles(), *oof_parts()]
    assert len({(case.kind, case.name, case.file) for case in every}) == len(every)
    return every
