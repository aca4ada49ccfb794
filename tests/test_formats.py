"""Question files as other programs and benchmarks write them: what is read, what is told, what is refused."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline import LONGEST, ROOT, run, write_configs

from solution.errors import UserError
from solution.formats.answers import AnswerColumn, Refused
from solution.formats.forms import WRITTEN
from solution.formats.html import plain_text
from solution.formats.items import Reading
from solution.formats.options import listed_options, parsed
from solution.questions import LETTERS, Questions, read_questions, write_questions

OPTIONS = ["argon", "helium", "neon", "xenon"]


def read(path: Path, content: Any, **reading: Any) -> tuple[Questions, str]:
    """The questions of a file with this content, and the notes on it."""
    if isinstance(content, (list, dict)):
        content = json.dumps(content, ensure_ascii=False)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    notes: list[str] = []
    exam = read_questions(path, reading=Reading(**reading), notes=notes)
    return exam, "\n".join(notes)


def refused(path: Path, content: Any, **reading: Any) -> str:
    with pytest.raises(UserError) as refusal:
        read(path, content, **reading)
    assert path.name in str(refusal.value)
    return str(refusal.value)


def parquet(rows: list[dict[str, Any]] | pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


# --- benchmarks: each form in the columns of its authors, two questions, the right ones helium and neon ------

PROMPTS = ["Which gas lifts a balloon?", "Which gas glows red in a tube?"]


def rows_of(*rows: dict[str, Any], **shared: Any) -> list[dict[str, Any]]:
    return [{**shared, **row} for row in rows]


def both(answers: tuple[Any, Any], prompt: str = "question", answer: str = "answer", **shared: Any) -> list[dict]:
    return [{prompt: PROMPTS[i], answer: answers[i], **shared} for i in range(2)]


LABELLED = {"text": OPTIONS, "label": list("ABCD")}
OPTION_OBJECTS = [{"label": label, "text": text} for label, text in zip("ABCD", OPTIONS, strict=True)]
FOUR = dict(zip("ABCD", OPTIONS, strict=True))
BENCHMARKS: dict[str, list[dict[str, Any]]] = {
    "MMLU": both((1, 2), subject="chemistry", choices=OPTIONS),
    "MMLU-Pro": [row | {"question_id": 70 + i, "answer_index": 1 + i} for i, row in enumerate(
        both(("B", "C"), options=OPTIONS, cot_content="", category="chemistry", src="ours"))],
    "ARC on the hub": [row | {"id": f"ARC_{i}"} for i, row in enumerate(
        both(("B", "C"), answer="answerKey", choices=LABELLED))],
    "ARC": [{"id": f"ARC_{i}", "question": {"stem": PROMPTS[i], "choices": OPTION_OBJECTS}, "answerKey": "BC"[i]}
            for i in (0, 1)],
    "ARC with numbers": both(("2", "3"), answer="answerKey", choices={"text": OPTIONS, "label": list("1234")}),
    "OpenBookQA": both(("B", "C"), prompt="question_stem", answer="answerKey", choices=LABELLED, fact1="Gases differ."),
    "CommonsenseQA": both(("B", "C"), answer="answerKey", choices=LABELLED, question_concept="gas"),
    "QASC": both(("B", "C"), answer="answerKey", choices=LABELLED, fact1="f", fact2="g", combinedfact="h",
                 formatted_question="x"),
    "MedMCQA counted from 0": both((1, 2), answer="cop", opa="argon", opb="helium", opc="neon", opd="xenon", exp="") + [
        {"question": "Which is first?", "cop": 0, "opa": "a", "opb": "b", "opc": "c", "opd": "d", "exp": ""}],
    "MedMCQA counted from 1": both((2, 3), answer="cop", opa="argon", opb="helium", opc="neon", opd="xenon", exp="") + [
        {"question": "Which is last?", "cop": 4, "opa": "a", "opb": "b", "opc": "c", "opd": "d", "exp": ""}],
    "RACE on the hub": both(("B", "C"), options=OPTIONS, article="Long.", example_id="high1.txt"),
    "RACE": [{"id": "high1.txt", "article": "Long.", "questions": PROMPTS, "options": [OPTIONS, OPTIONS],
              "answers": ["B", "C"]}],
    "SWAG": both((1, 2), prompt="startphrase", answer="label", sent1="Which", sent2="gas",
                 **{f"ending{i}": text for i, text in enumerate(OPTIONS)}),
    "HellaSwag": both(("1", "2"), prompt="ctx", answer="label", endings=OPTIONS, activity_label="x"),
    "AGIEval": both((None, None), options=[f"({letter}){text}" for letter, text in FOUR.items()], passage="p"),
    "MedQA": [row | {"answer_idx": "BC"[i]} for i, row in enumerate(both(("helium", "neon"), options=FOUR))],
    "numbered columns": both(("option2", "option3"), **{f"option{i + 1}": text for i, text in enumerate(OPTIONS)}),
    "marked objects": [{"question": prompt, "answers": [{"text": text, "correct": text == right} for text in OPTIONS]}
                       for prompt, right in zip(PROMPTS, ("helium", "neon"), strict=True)],
    "TruthfulQA": [{"question": prompt, "mc1_targets": {text: int(text == right) for text in OPTIONS}}
                   for prompt, right in zip(PROMPTS, ("helium", "neon"), strict=True)],
    "columns in another case and order": [
        {"Correct Answer": "bc"[i], **dict(zip("dcba", OPTIONS[::-1], strict=True)), "Question": PROMPTS[i], "ID": i}
        for i in (0, 1)],
}  # fmt: skip
for place, row in enumerate(BENCHMARKS["AGIEval"]):
    row["label"] = "BC"[place]


@pytest.mark.parametrize("form", BENCHMARKS)
@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_benchmarks_are_read_as_their_authors_write_them(tmp_path: Path, form: str, ending: str) -> None:
    rows = BENCHMARKS[form]
    content: Any = parquet(rows) if ending == "parquet" else rows
    if ending == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows)
    exam, notes = read(tmp_path / f"exam.{ending}", content)
    assert exam.prompts[:2] == PROMPTS
    assert exam.options[:2] == [OPTIONS, OPTIONS]
    assert exam.answers.tolist()[:2] == [1, 2]
    assert len(set(exam.ids)) == len(exam) and notes.count("\n") == 0
    if "counted" in form:
        assert f"numbers from {form[-1]}" in notes and exam.answers.tolist()[2] == (0 if form[-1] == "0" else 3)


@pytest.mark.parametrize("form", ["MMLU", "ARC on the hub", "MedQA", "MMLU-Pro"])
def test_lists_and_objects_survive_in_csv(tmp_path: Path, form: str) -> None:
    """pandas writes a cell as Python shows it: a list of texts, an object, or numpy's arrays."""
    import csv

    rows = BENCHMARKS[form]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    exam, _ = read(tmp_path / "exam.csv", text.getvalue())
    assert exam.options == [OPTIONS, OPTIONS] and exam.answers.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        ("['a' 'b'\n 'c d']", ["a", "b", "c d"]),
        ("{'text': array(['a', 'b'], dtype=object), 'label': array(['A', 'B'], dtype=object)}",
         {"text": ["a", "b"], "label": ["A", "B"]}),
        ("[1, 2", "[1, 2"),
        ("[__import__('os')]", "[__import__('os')]"),
    ],
)  # fmt: skip
def test_cells_that_spell_a_list(cell: str, value: Any) -> None:
    assert parsed(cell) == value


def test_right_and_wrong_options_are_put_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    rows = [
        {"question": f"Question {i}?", "distractor3": "c", "distractor1": "a", "distractor2": "b",
         "correct_answer": "right", "support": f"Because {i}."} for i in range(40)
    ]  # fmt: skip
    exam, notes = read(tmp_path / "exam.json", rows)
    places = exam.answers.tolist()
    assert [options[place] for options, place in zip(exam.options, places, strict=True)] == ["right"] * 40
    assert set(places) == {0, 1, 2, 3} and "--columns context=support" in notes
    assert "context" not in exam.extra
    again, _ = read(tmp_path / "exam.json", rows[::-1], columns={"context": "support"})
    assert again.options == exam.options[::-1] and again.extra["context"][0] == "Because 39."
    trivia = [{"question": "Q?", "correct_answer": "right", "incorrect_answers": ["x", "y", "z"]}]
    exam, _ = read(tmp_path / "exam.json", {"response_code": 0, "results": trivia})
    assert sorted(exam.options[0]) == ["right", "x", "y", "z"]
    assert exam.options[0][exam.answers[0]] == "right"


SHAPES: dict[str, Any] = {
    "one object": {"question": "Q?", "choices": ["a", "b"], "answer": "B"},
    "within an object": {"version": 1, "data": [{"question": "Q?", "choices": ["a", "b"], "answer": "B"}]},
    "pandas' columns": {"question": {"0": "Q?"}, "choices": {"0": ["a", "b"]}, "answer": {"0": "B"}},
    "lists as columns": {"question": ["Q?"], "choices": [["a", "b"]], "answer": ["B"]},
    "pandas split": {"columns": ["question", "choices", "answer"], "index": [0], "data": [["Q?", ["a", "b"], "B"]]},
    "objects by id": {"7": {"question": "Q?", "choices": ["a", "b"], "answer": "B"}},
    "the hub's viewer": {
        "features": [], "rows": [{"row_idx": 0, "row": {"question": "Q?", "choices": ["a", "b"], "answer": "B"}}]},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_in_its_shapes(tmp_path: Path, shape: str, indent: int | None) -> None:
    exam, _ = read(tmp_path / "exam.json", json.dumps(SHAPES[shape], indent=indent))
    assert (exam.prompts, exam.options, exam.answers.tolist()) == (["Q?"], [["a", "b"]], [1])
    assert exam.ids == (["7"] if shape == "objects by id" else ["0"])


def test_mmlus_own_files_have_no_header(tmp_path: Path) -> None:
    text = "".join(f'"{prompt}",argon,helium,neon,xenon,{right}\n' for prompt, right in zip(PROMPTS, "BC", strict=True))
    exam, notes = read(tmp_path / "chemistry_test.csv", text)
    assert exam.prompts == PROMPTS and exam.options == [OPTIONS, OPTIONS] and exam.answers.tolist() == [1, 2]
    assert "no header" in notes
    # A file of ids, prompts, three options and letters has as many columns.
    refused(tmp_path / "exam.csv", "q1,Which gas is it?,argon,helium,neon,B\nq2,And which of them?,a,b,c,A\n")


def test_own_names_of_columns(tmp_path: Path) -> None:
    text = "nr;Frage;eins;zwei;drei;richtig;Quelle\n7;Welches Gas?;Argon;Helium;Neon;2;Buch\n8;Und?;x;y;z;3;Heft\n"
    names = {
        "id": "nr",
        "prompt": "Frage",
        "A": "eins",
        "B": "zwei",
        "C": "drei",
        "answer": "richtig",
        "context": "quelle",
    }
    exam, _ = read(tmp_path / "exam.csv", text, columns=names)
    assert exam.ids == ["7", "8"] and exam.options[0] == ["Argon", "Helium", "Neon"]
    assert exam.answers.tolist() == [1, 2] and exam.extra == {"context": ["Buch", "Heft"]}
    assert "no column Fragen; it has nr, Frage" in refused(
        tmp_path / "exam.csv", text, columns=names | {"prompt": "Fragen"}
    )
    with pytest.raises(UserError, match="colour is none of id, prompt"):
        read(tmp_path / "exam.csv", text, columns={"colour": "Frage"})
    with pytest.raises(UserError, match="without a gap"):
        read(tmp_path / "exam.csv", text, columns=names | {"E": "drei"})
    exam, notes = read(tmp_path / "exam.csv", "id,prompt,A,B,support\n1,p,a,b,s\n", columns={"context": "support"})
    assert exam.extra == {"context": ["s"]} and exam.options == [["a", "b"]]


# --- tables as programs write them ---------------------------------------------------------

ROW = "1,Which gas?,O₂,CO₂,B\n"
HEAD = "id,prompt,A,B,answer\n"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (HEAD + ROW + ",,,,\n,,,,\n", "2 empty rows"),
        (HEAD.replace("\n", ",,\n") + ROW.replace("\n", ",,\n"), "2 columns without a name"),
        (HEAD + ROW.replace("\n", ",,\n"), ""),
        ("sep=,\n" + HEAD + ROW, ""),
        ('"sep=;"\r\n' + (HEAD + ROW).replace(",", ";"), ""),
        ((HEAD + ROW).replace(",", ";"), ""),
        ((HEAD + ROW).replace(",", "\t"), ""),
        ((HEAD + ROW).replace("\n", "\r"), ""),
        ("\ufeff" + HEAD.replace(",", ";") + ROW.replace(",", ";"), ""),
        (HEAD.replace("id", "id\u200b") + ROW, ""),
        (",prompt,A,B,answer\n" + ROW, "first column, which has no name"),
        ("Unnamed: 0,id,prompt,A,B,answer\n0," + ROW, ""),
    ],
)  # fmt: skip
def test_tables_as_spreadsheets_and_pandas_write_them(tmp_path: Path, text: str, note: str) -> None:
    exam, notes = read(tmp_path / "exam.csv", text)
    assert exam.ids == ["1"] and exam.prompts == ["Which gas?"]
    assert exam.options == [["O₂", "CO₂"]] and exam.answers.tolist() == [1]
    assert note in notes and exam.extra == {}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_unicode_in_other_encodings(tmp_path: Path, encoding: str, ending: str) -> None:
    text = (HEAD + ROW).replace(",", "\t" if ending == "tsv" else ",")
    if ending == "jsonl":
        text = json.dumps({"id": 1, "prompt": "Which gas?", "A": "O₂", "B": "CO₂"}, ensure_ascii=False)
    path = tmp_path / f"exam.{ending}"
    if encoding == "utf-16-le":
        assert "--encoding utf-16-le" in refused(path, text.encode(encoding) + "₂".encode(encoding))
    exam, _ = read(path, text.encode(encoding), encoding="utf-16-le" if encoding == "utf-16-le" else None)
    assert exam.options == [["O₂", "CO₂"]]


@pytest.mark.parametrize(("encoding", "title"), [("cp1252", "Windows-1252"), ("mac_roman", "Mac Roman")])
def test_text_of_windows_and_of_old_macs_is_told_and_read(tmp_path: Path, encoding: str, title: str) -> None:
    text = HEAD + "1,What did Röntgen call his “new” rays – and why?,X‑rays,µ‑waves,A\n".replace("‑", "-")
    message = refused(tmp_path / "exam.csv", text.encode(encoding))
    best = message.partition("; ")[0]
    assert (
        title in best and "What did Röntgen call his “new” rays – and why?" in best and f"--encoding {encoding}" in best
    )
    exam, _ = read(tmp_path / "exam.csv", text.encode(encoding), encoding=encoding)
    assert exam.options == [["X-rays", "µ-waves"]]
    with pytest.raises(UserError, match="no such encoding"):
        read(tmp_path / "exam.csv", text.encode(encoding), encoding="martian")


def test_other_scripts_are_told_too(tmp_path: Path) -> None:
    text = HEAD + "1,какая планета красная и холодная?,Марс,Венера,A\n"
    assert "'1,какая планета" in refused(tmp_path / "exam.csv", text.encode("cp1251"))


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    rows = [
        {"id": 0.0, "prompt": "p", "A": 2.0, "B": 4.0, "C": 0.5, "answer": "A", "level": 1.0},
        {"id": 1.0, "prompt": "q", "A": 3.0, "B": None, "C": 9.0, "answer": "C", "level": 2.0},
    ]
    exam, _ = read(tmp_path / "exam.parquet", parquet(rows))
    assert exam.ids == ["0", "1"] and exam.options == [["2", "4", "0.5"], ["3", "", "9.0"]]
    assert exam.extra == {"level": [1.0, 2.0]}
    message = refused(tmp_path / "exam.parquet", parquet([rows[0] | {"id": 2.0**53 + 2}]))
    assert "lost its last digits" in message
    # A text stays as it stands: the answers of a submission need exactly these ids.
    exam, _ = read(tmp_path / "exam.csv", "id,prompt,A,B\n0.0,p,2.0,4.0\n")
    assert exam.ids == ["0.0"] and exam.options == [["2.0", "4.0"]]


def test_pandas_index_in_parquet(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p", "q"], "A": ["a", "c"], "B": ["b", "d"], "__index_level_0__": [3, 5]})
    exam, notes = read(tmp_path / "exam.parquet", parquet(table))
    assert exam.ids == ["3", "5"] and exam.extra == {} and "no name" in notes


def test_a_file_to_answer_needs_its_ids(tmp_path: Path) -> None:
    message = refused(tmp_path / "test.csv", "prompt,A,B\np,a,b\n", needs_id=True)
    assert "column id missing; it has prompt, A, B." in message and "--columns id=NAME" in message
    exam, _ = read(tmp_path / "test.csv", "qid,prompt,A,B\n5,p,a,b\n", needs_id=True, columns={"id": "qid"})
    assert exam.ids == ["5"]


def test_arrow_files_and_folders(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(BENCHMARKS["MMLU"])
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    for place in range(2):
        with (
            pa.OSFile(str(folder / f"data-{place:05d}-of-00002.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table.slice(place, 1))
    (folder / "state.json").write_text("{}")
    exam = read_questions(folder)
    assert exam.prompts == PROMPTS and exam.answers.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"splits train: name one, as .*saved/train"):
        read_questions(tmp_path / "saved")
    with pa.OSFile(str(tmp_path / "exam.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    assert read_questions(tmp_path / "exam.arrow").prompts == PROMPTS
    assert "not a whole Arrow file" in refused(tmp_path / "exam.arrow", (tmp_path / "exam.arrow").read_bytes()[:200])


def test_excel(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append([])
    for row in (
        ["id", "prompt", "A", "B", "answer", None],
        [1, "Which gas?", 2.5, 4, "B", None],
        [None] * 6,
        [2, "p", "x", "y", None],
    ):
        book.active.append(row)
    book.create_sheet("notes").append(["something else"])
    book.save(tmp_path / "exam.xlsx")
    notes: list[str] = []
    exam = read_questions(tmp_path / "exam.xlsx", notes=notes)
    assert exam.ids == ["1", "2"] and exam.options == [["2.5", "4"], ["x", "y"]] and exam.answers.tolist() == [1, -1]
    assert "only the sheet 'Sheet' of 2 is read" in notes[0] and "1 empty row " in notes[0]
    assert "not a whole Excel file" in refused(tmp_path / "exam.xlsx", (tmp_path / "exam.xlsx").read_bytes()[:300])


# --- answers -------------------------------------------------------------------------------

CHOICES = ["argon", "helium", "neon"]


@pytest.mark.parametrize(
    "cell", ["B", "b", "(B)", "B.", "B)", "[b]", "Option B", "option_b", "Answer: (B)", "Ｂ", "helium", " Helium. ",
             "(B) helium",
             "B. helium", ["B"], "The correct answer is B"],
)  # fmt: skip
def test_a_letter_or_a_text_in_any_dress(cell: Any) -> None:
    assert AnswerColumn([cell], [CHOICES], [None]).read(cell, CHOICES, None) == 1


@pytest.mark.parametrize("cell", ["A,B", "A B C", "AC", "A and B", ["A", "B"], "1;2"])
def test_several_answers_are_refused(cell: Any) -> None:
    with pytest.raises(Refused, match="several"):
        AnswerColumn([cell], [CHOICES], [None]).read(cell, CHOICES, None)


@pytest.mark.parametrize("cell", ["krypton", "D", "E)", "7", "(B) neon", {"x": 1}])
def test_answers_that_are_none_are_refused(cell: Any) -> None:
    with pytest.raises(Refused):
        AnswerColumn([cell], [CHOICES], [None]).read(cell, CHOICES, None)


@pytest.mark.parametrize(
    ("cells", "places"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([1, 2, 3], [0, 1, 2]),
        (["1", "3", "2"], [0, 2, 1]),
        ([0.0, 2.0], [0, 2]),
        ([-1, 0], [-1, 0]),
        ([None, "", 3], [-1, -1, 2]),
        ([1, 2], None),
        ([[0], [2]], [0, 2]),
    ],
)
def test_indexes_from_0_or_from_1(cells: list[Any], places: list[int] | None) -> None:
    column = AnswerColumn(cells, [CHOICES] * len(cells), [None] * len(cells))
    if places is not None:
        assert [column.read(cell, CHOICES, None) for cell in cells] == places
        return
    with pytest.raises(Refused, match="B counted from 0, A counted from 1: say which with --answers-from"):
        column.read(1, CHOICES, None)
    for start in (0, 1):
        known = AnswerColumn(cells, [CHOICES] * len(cells), [None] * len(cells), start)
        assert [known.read(cell, CHOICES, None) for cell in cells] == [1 - start, 2 - start]


def test_options_that_are_numbers() -> None:
    options = [["8", "4", "6"], ["1", "2", "3"], ["10", "20", "30"]]
    column = AnswerColumn(["4", "1", "30"], options, [None] * 3)
    assert [column.read(cell, row, None) for cell, row in zip(["4", "1", "30"], options, strict=True)] == [1, 0, 2]
    # Alone, "2" may be the second or the third option, or the one that reads 2.
    with pytest.raises(Refused, match="C counted from 0, B counted from 1, A by its text"):
        AnswerColumn(["2"], [["2", "3", "1"]], [None]).read("2", ["2", "3", "1"], None)


def test_a_letter_may_be_a_symbol() -> None:
    options = [["N", "C", "O"], ["carbon", "iron", "zinc"]]
    column = AnswerColumn(["C", "iron"], options, [None, None])
    with pytest.raises(Refused, match="letter of one option and the text of another"):
        column.read("C", options[0], None)
    letters = AnswerColumn(["C", "B"], options, [None, None])
    assert letters.read("C", options[0], None) == 2


def test_letters_in_front_of_every_option_are_removed() -> None:
    assert listed_options(["(A) x", "(B) y"]).cells == ["x", "y"]
    assert listed_options(["A. x", "b) y", "C: z"]).cells == ["x", "y", "z"]
    assert listed_options(["A. x", "y"]).cells == ["A. x", "y"]
    assert listed_options(["A.", "B."]).cells == ["A.", "B."]


# --- several right answers, equal options, bad rows ----------------------------------------


def test_bad_rows_are_left_out_where_the_user_says_so(tmp_path: Path) -> None:
    text = 'id,prompt,A,B,C,answer\n1,p,x,y,z,"A,C"\n2,q,x,y,z,B\n2,r,x,y,z,C\n3,,x,y,z,A\n'
    message = refused(tmp_path / "exam.csv", text)
    assert "row 1 (id 1): the answer 'A,C' names several" in message and message.endswith("--skip-bad-rows")
    exam, notes = read(tmp_path / "exam.csv", text, skip_bad_rows=True)
    assert exam.ids == ["2"] and exam.prompts == ["q"] and exam.answers.tolist() == [1]
    assert notes.startswith("3 of 4 rows are left out")
    # Numbers of rows do not change when rows are left out.
    exam, _ = read(tmp_path / "exam.csv", 'prompt,A,B,answer\np,x,y,"A,B"\nq,x,y,B\n', skip_bad_rows=True)
    assert exam.ids == ["1"]
    nothing = refused(tmp_path / "exam.csv", 'id,prompt,A,B,answer\n1,p,x,y,"A,B"\n', skip_bad_rows=True)
    assert "names several" in nothing


def test_a_right_option_that_stands_twice_is_the_first(tmp_path: Path) -> None:
    exam, _ = read(tmp_path / "exam.csv", 'id,prompt,A,B,C,answer\n1,p,x,y,x,"A,C"\n2,p2,x,y,x,x\n3,p3,x,y,x,C\n')
    assert exam.answers.tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("<p>Is x<sup>2</sup>&nbsp;&lt; y?</p>", "Is x² < y?"),
        ("SO<sub>4</sub><sup>2-</sup>", "SO₄²⁻"),
        ("10<sup>-3</sup> m", "10⁻³ m"),
        ("v<sub>Q</sub>, x<sup>QZ</sup>", "v_Q, x^(QZ)"),
        ("&alpha;-particle", "α-particle"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("&amp;lt;5 &amp;amp; more", "<5 & more"),
        ('<img src="x.png" alt="a cell"> of what?', "a cell of what?"),
        ("<style>p {}</style><p>t</p>", "t"),
        (
            "<math><msup><mi>x</mi><mn>2</mn></msup><mo>&gt;</mo><msqrt><mn>2</mn></msqrt></math> or "
            "<math><mfrac><mn>1</mn><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow></mfrac></math>",
            "x² > √(2) or 1/(a + b)",
        ),
        ("a<b and b>c", "a<b and b>c"),
        ("p<0.05 <b>only</b> if q<r", "p<0.05 only if q<r"),
        ("R&D; AT&T", "R&D; AT&T"),
        ("List<String> and x<y>", "List<String> and x<y>"),
    ],
)
def test_html_becomes_text(text: str, clean: str) -> None:
    assert plain_text(text) == clean
    assert plain_text(clean) == clean


def test_questions_about_html_keep_it(tmp_path: Path) -> None:
    text = "id,prompt,A,B,answer\n1,Which makes text bold?,<b>x</b>,<i>x</i>,A\n2,<b>Which?</b>,&lt;5,6,A\n"
    exam, notes = read(tmp_path / "exam.csv", text)
    assert exam.options == [["<b>x</b>", "<i>x</i>"], ["<5", "6"]] and exam.prompts[1] == "Which?"
    assert "HTML of 1 question " in notes
    exam, notes = read(tmp_path / "exam.csv", text, keep_html=True)
    assert exam.prompts[1] == "<b>Which?</b>" and notes == ""


# --- forms of learning platforms -----------------------------------------------------------

MOODLE = """<?xml version="1.0"?><quiz>
<question type="category"><category><text>top/Gases</text></category></question>
<question type="multichoice"><name><text>Q1</text></name>
 <questiontext format="html"><text><![CDATA[<p>Is CO<sub>2</sub> heavy?</p>]]></text></questiontext>
 <answer fraction="100"><text>yes &amp;amp; no</text><feedback><text>good</text></feedback></answer>
<answer fraction="0"><text>no</text></answer></question>
<question type="truefalse"><name><text>Q2</text></name><questiontext><text>Helium burns.</text></questiontext>
 <answer fraction="0"><text>true</text></answer><answer fraction="100"><text>false</text></answer></question>
<question type="multichoice"><name><text>Q3</text></name><questiontext><text>Which two?</text></questiontext>
 <answer fraction="50"><text>a</text></answer><answer fraction="50"><text>b</text></answer>
<answer fraction="-50"><text>c</text></answer></question>
<question type="essay"><name><text>Q4</text></name><questiontext><text>Write.</text></questiontext></question>
</quiz>"""


def test_moodle_xml(tmp_path: Path) -> None:
    assert "row 3 (id Q3): the answer ['A', 'B'] names several" in refused(tmp_path / "bank.xml", MOODLE)
    exam, notes = read(tmp_path / "bank.xml", MOODLE, skip_bad_rows=True)
    assert exam.ids == ["Q1", "Q2"] and exam.prompts == ["Is CO₂ heavy?", "Helium burns."]
    assert exam.options == [["yes & no", "no"], ["True", "False"]] and exam.answers.tolist() == [0, 1]
    assert exam.extra["category"] == ["top/Gases"] * 2 and "1 questions of the type essay left out" in notes


SHARES = """<quiz><question type="multichoice"><name><text>Q</text></name>
<questiontext><text>Which?</text></questiontext>
<answer fraction="50"><text>half</text></answer><answer fraction="{}"><text>whole</text></answer>
<answer fraction="0"><text>none</text></answer><answer fraction="{}"><text>last</text></answer></question></quiz>"""


def test_of_answers_with_shares_of_the_points_that_with_all_is_right(tmp_path: Path) -> None:
    note = "1 question has one option with 100 % of the points and others with a part of them"
    exam, notes = read(tmp_path / "bank.xml", SHARES.format("100.00000", "0"))
    assert exam.answers.tolist() == [1] and note in notes
    exam, notes = read(tmp_path / "bank.gift", "Which gas? {~%50%half =helium ~%-10%none}")
    assert exam.answers.tolist() == [1] and note in notes
    for text, name in ((SHARES.format(100, 100), "bank.xml"), ("Which? {~%50%a =b =c}", "bank.gift")):
        message = refused(tmp_path / name, text)
        assert "names several options" in message and "(row 1 is the first question)" in message
    assert "(row 1 is the first question, below the header)" in refused(
        tmp_path / "a.csv", "prompt,A,B,answer\nQ?,1,2,Z\n"
    )
    assert "100 %" not in read(tmp_path / "bank.gift", "Which? {~a =b}")[1]


def test_xml_declares_no_entities(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE quiz [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><quiz>&b;</quiz>'
    assert "declares the XML entity 'a'" in refused(tmp_path / "bank.xml", bomb)
    outside = '<!DOCTYPE quiz [<!ENTITY x SYSTEM "file:///etc/passwd">]><quiz>&x;</quiz>'
    assert "declares the XML entity 'x'" in refused(tmp_path / "bank.xml", outside)
    assert "not whole XML" in refused(tmp_path / "bank.xml", MOODLE[:300])
    assert "no choice item" in refused(tmp_path / "bank.xml", "<html><p/></html>")


GIFT = r"""// a comment
$CATEGORY: top/Gases

::Q1:: Which gas is {
 ~argon#no
 =helium \= He#yes
 ~%-50%neon
} used in balloons?

::Q2::[html]H<sub>2</sub>O is water. {T}

::Q3:: 2+2 {#4}

::Q4:: Match {=a -> b =c -> d =e -> f}

::Q5:: Who? {~%100%me ~you}
"""


def test_gift(tmp_path: Path) -> None:
    exam, notes = read(tmp_path / "bank.gift", GIFT)
    assert exam.ids == ["Q1", "Q2", "Q5"]
    assert exam.prompts == ["Which gas is _____ used in balloons?", "H₂O is water.", "Who?"]
    assert exam.options == [["argon", "helium = He", "neon"], ["True", "False"], ["me", "you"]]
    assert exam.answers.tolist() == [1, 0, 0] and "2 left out: not multiple choice" in notes
    assert exam.extra == {"category": ["top/Gases"] + [None] * 2} or set(exam.extra["category"]) == {"top/Gases"}
    assert read(tmp_path / "bank.txt", GIFT)[0].options == exam.options
    assert "no GIFT question" in refused(tmp_path / "bank.gift", "a text\n")


AIKEN = (
    "Which gas?\r\nIs it light?\r\nA) argon\r\nB) helium\r\nANSWER: B\r\n\r\n"
    "A. is a letter of what?\r\nA. Latin\r\nB. Thai\r\nANSWER: A\r\n"
)


def test_aiken(tmp_path: Path) -> None:
    exam, _ = read(tmp_path / "bank.txt", AIKEN)
    assert exam.prompts == ["Which gas?\nIs it light?", "A. is a letter of what?"]
    assert exam.options == [["argon", "helium"], ["Latin", "Thai"]] and exam.answers.tolist() == [1, 0]
    assert "line 4: 'C) helium' is neither the option B" in refused(
        tmp_path / "bank.txt", AIKEN.replace("B) h", "C) h")
    )
    assert "ends within a question" in refused(tmp_path / "bank.aiken", AIKEN + "And?\n")


QTI2 = """<assessmentItem xmlns="http://www.imsglobal.org/xsd/imsqti_v2p1" identifier="gas" title="t">
<responseDeclaration identifier="RESPONSE" cardinality="single" baseType="identifier"><correctResponse>
<value>y</value></correctResponse></responseDeclaration>
<itemBody><p>Think of CO<sub>2</sub>.</p><choiceInteraction responseIdentifier="RESPONSE" maxChoices="1">
<prompt>Which is it?</prompt>
<simpleChoice identifier="x">argon<feedbackInline identifier="x">no</feedbackInline></simpleChoice>
<simpleChoice identifier="y">a <b>gas</b></simpleChoice></choiceInteraction></itemBody></assessmentItem>"""
QTI3 = """<qti-assessment-item xmlns="http://www.imsglobal.org/xsd/imsqtiasi_v3p0" identifier="star">
<qti-response-declaration identifier="R" cardinality="single" base-type="identifier"><qti-correct-response>
<qti-value>b</qti-value></qti-correct-response></qti-response-declaration>
<qti-item-body><qti-choice-interaction response-identifier="R"><qti-prompt>Which burns?</qti-prompt>
<qti-simple-choice identifier="a">the Moon</qti-simple-choice>
<qti-simple-choice identifier="b">the Sun</qti-simple-choice></qti-choice-interaction></qti-item-body>
</qti-assessment-item>"""


def test_qti_items_and_packages(tmp_path: Path) -> None:
    exam, _ = read(tmp_path / "item.xml", QTI2)
    assert exam.ids == ["gas"] and exam.prompts == ["Think of CO₂.\nWhich is it?"]
    assert exam.options == [["argon", "a gas"]] and exam.answers.tolist() == [1]
    exam, _ = read(tmp_path / "item.xml", QTI3)
    assert (exam.ids, exam.prompts, exam.options) == (["star"], ["Which burns?"], [["the Moon", "the Sun"]])
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("imsmanifest.xml", "<manifest/>")
        archive.writestr("items/a.xml", QTI2)
        archive.writestr("items/b.xml", QTI3)
        archive.writestr(
            "items/c.xml", QTI3.replace("star", "text").replace("qti-choice-interaction", "qti-text-entry")
        )
    exam, notes = read(tmp_path / "package.zip", data.getvalue())
    assert (
        exam.ids == ["gas", "star"] and exam.answers.tolist() == [1, 1] and "1 items that are no single choice" in notes
    )


def test_more_options_than_letters_are_refused(tmp_path: Path) -> None:
    rows = [{"question": "Q?", "choices": [f"option {i}" for i in range(27)], "answer": "A"}]
    assert "27 options: at most 26" in refused(tmp_path / "exam.json", rows)
    exam, _ = read(tmp_path / "exam.json", [rows[0] | {"choices": rows[0]["choices"][:26], "answer": "Z"}])
    assert exam.max_options == 26 and LETTERS[exam.answers[0]] == "Z"


# --- writing -------------------------------------------------------------------------------

# Letters of several scripts, what the forms themselves use as marks, line ends; no HTML, which would be cleaned.
CHARACTERS = "ab Zß漢ة~=#{}:\\*[]%,;\"'|._-?!1²₂\u200b\n\t"
TEXTS = st.text(CHARACTERS, min_size=1, max_size=12).map(str.strip).filter(bool)
LINES = TEXTS.map(lambda text: " ".join(text.split())).filter(bool)


@st.composite
def exams(draw: st.DrawFn, texts: st.SearchStrategy[str], most: int = 12) -> Questions:
    ids = draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    options = [draw(st.lists(texts, min_size=2, max_size=most)) for _ in ids]
    answers = [draw(st.integers(0, len(row) - 1)) for row in options]
    prompts = draw(st.lists(texts, min_size=len(ids), max_size=len(ids)))
    extra = {"context": draw(st.lists(texts, min_size=len(ids), max_size=len(ids)))}
    return Questions(ids, prompts, options, np.array(answers, dtype=np.int64), extra)


FUZZ = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(exam=exams(TEXTS), form=st.sampled_from(["csv", "jsonl", "parquet", "gift", "moodle"]))
def test_every_form_that_is_written_is_read_back(tmp_path: Path, exam: Questions, form: str) -> None:
    path = tmp_path / f"exam{WRITTEN[form].endings[0]}"
    write_questions(path, exam, form)
    again = read_questions(path)
    if form in ("csv", "jsonl", "parquet"):
        assert again.extra == exam.extra
    assert again.content_hash() == exam.content_hash() and again.ids == exam.ids


@FUZZ
@given(exam=exams(LINES))
def test_aiken_is_read_back_without_ids(tmp_path: Path, exam: Questions) -> None:
    write_questions(tmp_path / "exam.aiken", exam, "aiken")
    again = read_questions(tmp_path / "exam.aiken")
    assert (again.prompts, again.options) == (exam.prompts, exam.options)
    assert again.answers.tolist() == exam.answers.tolist() and again.ids == [str(i) for i in range(len(exam))]


@FUZZ
@given(exam=exams(LINES), forms=st.permutations(["csv", "jsonl", "parquet", "gift", "moodle"]))
def test_a_way_through_all_forms_changes_nothing(tmp_path: Path, exam: Questions, forms: list[str]) -> None:
    again = exam
    for form in forms:
        path = tmp_path / f"exam{WRITTEN[form].endings[0]}"
        write_questions(path, again, form)
        again = read_questions(path)
    assert again.content_hash() == exam.content_hash()


def test_what_a_form_cannot_hold_is_refused(tmp_path: Path) -> None:
    exam = Questions(["1"], ["p"], [["a", "b"]], np.array([-1]))
    for form in ("gift", "moodle", "aiken"):
        with pytest.raises(UserError, match=f"the form {form} needs the answer of every question"):
            write_questions(tmp_path / "x", exam, form)
    control = Questions(["1"], ["p\x07"], [["a", "b"]], np.array([0]))
    with pytest.raises(UserError, match="XML cannot hold"):
        write_questions(tmp_path / "x", control, "moodle")
    assert not list(tmp_path.iterdir())


# --- the real commands ---------------------------------------------------------------------


def test_convert(tmp_path: Path) -> None:
    (tmp_path / "quiz.json").write_text(json.dumps(BENCHMARKS["MedMCQA counted from 1"]))
    done = run("convert", "quiz.json", "quiz.gift", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "quiz.gift: 3 questions as gift\n", done.stderr
    assert "the answers are numbers from 1" in done.stderr and "does not hold further columns" in done.stderr
    done = run("convert", "quiz.gift", "quiz.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_questions(tmp_path / "quiz.csv").options[0] == OPTIONS
    for words, said in {
        "quiz.json quiz.doc": "--to csv, jsonl, parquet, gift, moodle, aiken",
        "quiz.json quiz.json": "is the file that is read",
        "quiz.json out.csv --columns question": "give NAME=COLUMN",
        "nothing.json out.csv": "not found",
    }.items():
        done = run("convert", *words.split(), cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_options_that_say_how_a_file_is_read_reach_every_command(tmp_path: Path) -> None:
    rows = [f"Was ist {word}?;ja ({word});nö;1\n" for word in ("eins", "zwei", "drei", "vier")]
    text = "".join(["Frage;eins;zwei;richtig\n", *rows])
    (tmp_path / "exam.csv").write_bytes((text + "Was?;a;b;A,B\n").encode("cp1252"))
    write_configs(tmp_path / "configs", {"longest": LONGEST}, folds=2)
    words = ["--questions", "exam.csv", "--columns", "prompt=Frage,A=eins,B=zwei", "--columns", "answer=richtig"]
    words += ["--encoding", "cp1252", "--answers-from", "1", "--skip-bad-rows"]
    done = run("folds", *words, cwd=tmp_path)
    assert done.returncode == 0 and "1 of 5 rows are left out" in done.stderr, done.stderr
    done = run("submit", "--questions", "exam.csv", "--skip-bad-rows", cwd=tmp_path)
    assert done.returncode == 2 and "a submission answers every row" in done.stderr


def test_an_exam_of_ten_options_goes_the_whole_way(tmp_path: Path) -> None:
    """Folds, OOF files, tuning, the files of a submission, the report: with rankers that need no training."""
    words = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune Ceres Pluto Eris Sedna".split()
    rows = [
        {"question_id": i, "question": f"Which is number {word}?", "category": "space", "answer_index": (7 * i) % 10,
         "options": [f"body {word} {'x' * ((i + j) % 10)}" for j in range(10)], "answer": LETTERS[(7 * i) % 10]}
        for i, word in enumerate(words)
    ]  # fmt: skip
    (tmp_path / "exam.json").write_text(json.dumps(rows))
    write_configs(tmp_path / "configs", {"longest": LONGEST})
    probabilities = "id," + ",".join(f"p_{letter}" for letter in LETTERS[:10])
    theirs = [f"{i}," + ",".join("0.55" if j == (7 * i) % 10 else "0.05" for j in range(10)) for i in range(len(rows))]
    (tmp_path / "theirs.csv").write_text("\n".join([probabilities, *theirs, ""]))
    exam = ["--questions", "exam.json"]
    for command in (
        ["train", "--all-folds", *exam],
        ["import-oof", "theirs.csv", "--name", "theirs", *exam],
        ["tune", "tune.choose=equal"],
        ["convert", "exam.json", "test.csv"],
        ["submit", "--ranked", "r.jsonl", "--probabilities", "p.parquet", "--add", "theirs=theirs.csv"],
        ["report", *exam],
    ):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    ranked = [json.loads(line)["ranked"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [sorted(row) for row in ranked] == [list(LETTERS[:10])] * len(rows)
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert list(table) == probabilities.split(",")
    best = [max(LETTERS[:10], key=lambda letter: table[f"p_{letter}"][row]) for row in range(len(rows))]
    assert best == [row[0] for row in ranked]
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[1:] == [f"{i},{' '.join(row[:3])}" for i, row in enumerate(ranked)]
    assert "theirs" in (tmp_path / "report" / "index.html").read_text()


def test_the_examples_of_the_page_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1:]  # without the commands
    names = ["csv", "jsonl", "csv", "jsonl", "jsonl", "xml", "gift", "txt", "txt", "txt", "xml", "xml"]
    assert len(blocks) == len(names)
    for name, block in zip(names, blocks, strict=True):
        # Lines of JSON show several forms: each is a file.
        for text in block.splitlines() if name == "jsonl" else [block]:
            exam, _ = read(tmp_path / f"exam.{name}", text, answers_from=0 if '"answer": 1' in text else 1)
            right = exam.options[0][exam.answers[0]]
            assert exam.prompts[0] == "Which gas lifts a balloon?" and right == "helium", text
