"""Question files whose cells may be taken for something else, and damaged ones: what is read, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from solution.errors import UserError
from solution.formats import forms
from solution.formats.items import Reading
from solution.formats.options import listed_options, parsed
from solution.questions import Questions, read_questions, write_questions

ITEM = """<assessmentItem identifier="deep"><itemBody>{}
<choiceInteraction responseIdentifier="R"><prompt>Which?</prompt>
<simpleChoice identifier="a">x</simpleChoice><simpleChoice identifier="b">y</simpleChoice>
</choiceInteraction></itemBody></assessmentItem>"""


def read(path: Path, content: Any, **reading: Any) -> tuple[Questions, str]:
    if isinstance(content, list):
        content = "\n".join(json.dumps(row) for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    notes: list[str] = []
    return read_questions(path, reading=Reading(**reading), notes=notes), "\n".join(notes)


def rows(
    cells: list[Any], answers: list[Any] | None = None, name: str = "choices", **more: Any
) -> list[dict[str, Any]]:
    found = [{"question": f"Question {i}?", name: cell, **more} for i, cell in enumerate(cells)]
    return [row | ({} if answers is None else {"answer": answers[i]}) for i, row in enumerate(found)]


# --- what stands in front of an option -----------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["1.0 V", "2.0 V", "3.0 V"],
        ["1.25", "2.25", "3.25", "4.25"],
        ["1:3", "2:3", "3:3"],
        ["1: 4", "2: 5", "3: 6"],
        ["1) only", "2) only"],
        ["1.", "2."],
        ["A. fumigatus", "B. cereus"],
        ["A:T", "B:T", "C:G"],
        ["A.D. 5", "B.C. 7", "C.E. 9"],
        ["A) same", "B) same", "C) same"],
        ["A. x", "C. y", "B. z"],
    ],
)
def test_decimals_ratios_and_names_keep_their_beginning(options: list[str]) -> None:
    read_as = listed_options(options)
    assert read_as.cells == options and read_as.labels is None


@pytest.mark.parametrize(
    ("options", "labels", "texts"),
    [
        (["(A)iron", "(B)zinc"], "AB", ["iron", "zinc"]),
        (["a) iron", "b) zinc"], "AB", ["iron", "zinc"]),
        (["A. iron", "B. zinc", "C. lead"], "ABC", ["iron", "zinc", "lead"]),
        (["A: iron", "(B) zinc", "C. lead"], "ABC", ["iron", "zinc", "lead"]),
        (["1. iron", "2. zinc"], "12", ["iron", "zinc"]),
        (["(1) 5 V", "(2) 6 V"], "12", ["5 V", "6 V"]),
    ],
)
def test_letters_and_numbers_of_options_are_removed(options: list[str], labels: str, texts: list[str]) -> None:
    read_as = listed_options(options)
    assert read_as.labels == list(labels) and read_as.cells == texts


def test_numbers_before_options_do_not_count_for_answers_from_0(tmp_path: Path) -> None:
    options = ["1. iron", "2. zinc", "3. lead"]
    mmlu, _ = read(tmp_path / "mmlu.jsonl", rows([options, options], [1, 2], subject="metals"))
    assert mmlu.answers.tolist() == [1, 2] and mmlu.options[0] == ["iron", "zinc", "lead"]
    from_0, _ = read(tmp_path / "zero.jsonl", rows([options, options], [1, 0]))
    assert from_0.answers.tolist() == [1, 0]
    said, _ = read(tmp_path / "said.jsonl", rows([options, options], [1, 2]), answers_from=0)
    assert said.answers.tolist() == [1, 2]
    by_number, _ = read(tmp_path / "one.jsonl", rows([options, options], [1, 3]))
    assert by_number.answers.tolist() == [0, 2]


# --- objects of options --------------------------------------------------------------------


def test_numbers_as_options_are_no_marks(tmp_path: Path) -> None:
    exam, _ = read(tmp_path / "e.jsonl", rows([{"A": 1, "B": 0}, {"A": 7, "B": 5}], ["B", "A"], "options"))
    assert exam.options == [["1", "0"], ["7", "5"]] and exam.answers.tolist() == [1, 0]
    exam, _ = read(tmp_path / "e.jsonl", rows([{"A": True, "B": False}], ["B"], "options"))
    assert exam.options == [["True", "False"]] and exam.answers.tolist() == [1]
    # No answers, but letters; and keys that are no letters, of which one row shows that they are labels.
    exam, _ = read(tmp_path / "e.jsonl", rows([{"A": 1, "B": 0}]))
    assert exam.options == [["1", "0"]] and exam.answers.tolist() == [-1]
    exam, _ = read(tmp_path / "e.jsonl", rows([{"low": 0, "high": 1}, {"low": 2, "high": 9}]))
    assert exam.options == [["0", "1"], ["2", "9"]]
    exam, _ = read(tmp_path / "e.jsonl", rows([{"iron": 0, "zinc": 1}, {"lead": 1, "tin": 0}]))
    assert exam.options == [["iron", "zinc"], ["lead", "tin"]] and exam.answers.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ([{"option": "A", "value": "iron"}, {"option": "B", "value": "zinc"}], ["A", "B"]),
        ([{"choice": "1", "body": "iron"}, {"choice": "2", "body": "zinc"}], ["1", "2"]),
        ({"option": ["A", "B"], "value": ["iron", "zinc"]}, ["A", "B"]),
        ([{"id": "A", "option": "iron"}, {"id": "B", "option": "zinc"}], ["A", "B"]),
        ([{"label": "B", "text": "iron"}, {"label": "A", "text": "zinc"}], ["B", "A"]),
    ],
)
def test_an_option_beside_a_text_is_its_label(cell: Any, labels: list[str]) -> None:
    assert listed_options(cell).cells == ["iron", "zinc"] and listed_options(cell).labels == labels


# --- cells that spell something else -------------------------------------------------------

NO_LISTS = ["{[1]: 2}", "['a', ...]", "['\\ud800', 'b']", "[" * 5000, "{'a', 'b'}", "[b'a', b'b']", '["\\ud800", "b"]']


@pytest.mark.parametrize("cell", NO_LISTS)
def test_cells_that_are_no_list_are_refused_and_submissions_go_on(tmp_path: Path, cell: str) -> None:
    assert parsed(cell) == cell
    path = tmp_path / "e.csv"
    quoted = cell.replace('"', '""')
    path.write_text(f"id,question,choices\n1,Which?,\"{quoted}\"\n2,What?,\"['x', 'y']\"\n")
    with pytest.raises(UserError, match=r"row 1 \(id 1\): fewer than 2 options"):
        read_questions(path)
    mended: list[str] = []
    exam = read_questions(path, mended)
    assert exam.ids == ["1", "2"] and exam.options[1] == ["x", "y"] and len(mended) == 1
    write_questions(tmp_path / "out.csv", exam)


def test_numbers_as_keys_of_a_python_object(tmp_path: Path) -> None:
    exam, _ = read(tmp_path / "e.csv", "id,question,options,answer\n1,Which?,\"{1:'iron',2:'zinc'}\",2\n")
    assert exam.options == [["iron", "zinc"]] and exam.answers.tolist() == [1]


def test_a_row_that_no_code_foresaw_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from solution.formats import options

    def fails(cell: Any, are_marked: bool = False) -> Any:
        if "bad" in str(cell):
            raise TypeError("unforeseen")
        return listed_options(cell, are_marked)

    monkeypatch.setattr(options, "listed_options", fails)
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join(json.dumps({"id": i, **row}) for i, row in enumerate(rows([["bad", "b"], ["x", "y"]]))))
    with pytest.raises(UserError, match=r"row 1 \(id 0\).*cannot be read \(TypeError\)"):
        read_questions(path)
    mended: list[str] = []
    assert read_questions(path, mended).options[1] == ["x", "y"] and "row 1" in mended[0]


# --- damaged files -------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_package_is_refused(tmp_path: Path, method: int) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        archive.writestr("item.xml", ITEM.format("<p>Long text.</p>" * 50))
    whole = data.getvalue()
    assert read(tmp_path / "whole.zip", whole)[0].ids == ["deep"]
    start = whole.index(b"item.xml") + len("item.xml")
    for place in range(start, start + 40, 3):
        path = tmp_path / f"{place}.zip"
        with pytest.raises(UserError, match=path.name):
            read(path, whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 8]) + whole[place + 8 :])


def test_an_item_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    deep = ITEM.format("<div>" * 3000 + "Deep." + "</div>" * 3000)
    with pytest.raises(UserError, match=r"e\.xml: the item 'deep' nests its elements too deeply"):
        read(tmp_path / "e.xml", deep)


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("deep"), UnicodeError("half"), AttributeError("none")])
def test_whatever_a_reader_raises_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(data: bytes, source: Any) -> Any:
        raise error

    monkeypatch.setitem(forms.BY_ENDING, ".csv", forms.Form("csv", (".csv",), fails))
    with pytest.raises(
        UserError, match=rf"the question file cannot be read: .*e\.csv is damaged.*{type(error).__name__}"
    ):
        read(tmp_path / "e.csv", "id,prompt,A,B\n1,p,a,b\n")


# --- columns -------------------------------------------------------------------------------


def same(left: Questions, right: Questions) -> bool:
    known = (left.ids, left.prompts, left.options, left.answers.tolist()) == (
        *(right.ids, right.prompts, right.options),
        right.answers.tolist(),
    )
    return known and list(left.extra) == list(right.extra)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_what_is_written_is_read_again_whatever_the_columns_are_called(tmp_path: Path, form: str) -> None:
    agieval = [row | {"label": "B", "answer": None} for row in rows([["(A)iron", "(B)zinc"]], name="options")]
    exam, notes = read(tmp_path / "agieval.jsonl", agieval)
    assert "the column 'answer' is empty and left out" in notes and exam.extra == {}
    text = "id,prompt,prompt_1,C,question,x,y,key,context,book\n7,old,older,c,Which?,iron,zinc,B,before,now\n"
    names = {"prompt": "question", "A": "x", "B": "y", "answer": "key", "context": "book"}
    named, notes = read(tmp_path / "named.csv", text, columns=names)
    assert named.prompts == ["Which?"] and "the column 'prompt' is kept as 'prompt_2'" in notes
    assert named.extra == {
        "prompt_2": ["old"], "prompt_1": ["older"], "C_1": ["c"], "context_1": ["before"], "context": ["now"]
    }  # fmt: skip
    for one in (exam, named):
        out = tmp_path / f"out.{form}"
        write_questions(out, one, form)
        assert same(read_questions(out), one)


def test_columns_that_parquet_cannot_hold_become_text(tmp_path: Path) -> None:
    more = {"empty": {}, "within": [{"of": {}}], "large": 10**30, "whole": {"n": 1}}
    exam, _ = read(tmp_path / "e.jsonl", rows([["iron", "zinc"]], ["B"], **more))
    write_questions(tmp_path / "out.parquet", exam, "parquet")
    again = read_questions(tmp_path / "out.parquet")
    assert again.options == exam.options and again.extra == {
        "empty": ["{}"], "within": ['[{"of": {}}]'], "large": [str(10**30)], "whole": [{"n": 1}]
    }  # fmt: skip


WIDE = "".join(f"option {letter}," for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,prompt,A,B,C,D,E,F,G,H,J", "option column I missing while J is there"),
        ("id,question,a,b,d", "option column C missing while d is there"),
        ("id,question,Option A,Option B,Option D", "option column Option C missing while Option D is there"),
        (f"id,question,{WIDE}option AA", "option column option AA behind Z"),
        (f"id,prompt,{WIDE.replace('option ', '')}AA", "option column AA behind Z"),
    ],
)
def test_columns_of_options_that_would_vanish_are_refused(tmp_path: Path, header: str, message: str) -> None:
    cells = ",".join(f"text {i}" for i in range(header.count(",") + 1))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "e.csv", f"{header}\n{cells}\n")


def test_a_letter_far_behind_the_options_is_a_further_column(tmp_path: Path) -> None:
    exam, notes = read(tmp_path / "e.csv", "id,prompt,A,B,T,answer\n1,p,a,b,300,A\n")
    assert exam.extra == {"T": ["300"]} and "T is no option, since there is no column C" in notes


def test_private_characters_in_gift_stay(tmp_path: Path) -> None:
    exam, _ = read(
        tmp_path / "e.gift", "$CATEGORY: a\\:b\n\n::q::Which \U000f007e is \\~?{\n=\U000f003a\n~\\{x\\}\n}\n"
    )
    assert exam.prompts == ["Which \U000f007e is ~?"] and exam.options == [["\U000f003a", "{x}"]]
    assert exam.extra["category"] == ["a:b"]
