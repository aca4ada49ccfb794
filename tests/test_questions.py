"""Reading, checking and writing exams; ranked answers."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solution.errors import UserError
from solution.questions import (
    LETTERS,
    Questions,
    kaggle_prediction,
    letter,
    letter_index,
    ranked_options,
    read_questions,
    write_questions,
)
from solution.tables import file_format

HEADER = "id,prompt,A,B,C,D,E,answer\n"


def read_csv(tmp_path, text, name="exam.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_questions(path)


def read_jsonl(tmp_path, *rows):
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_questions(path)


def refused(tmp_path, text, *parts, name="exam.csv"):
    with pytest.raises(UserError) as caught:
        read_csv(tmp_path, text, name)
    for part in (name, *parts):
        assert part in str(caught.value)
    return str(caught.value)


# --- formats -------------------------------------------------------------------------------

ROWS = [
    {"id": "1", "prompt": "Prompt, with a comma", "A": "one", "B": "two\nlines", "C": 'a "quote"', "answer": "B"},
    {"id": "x-2", "prompt": "Größe?", "A": "α", "B": "β", "C": "γ", "answer": "C"},
]
CSV = 'id,prompt,A,B,C,answer\n1,"Prompt, with a comma",one,"two\nlines","a ""quote""",B\nx-2,Größe?,α,β,γ,C\n'


def write_format(path, ending):
    if ending == ".csv":
        data = CSV.encode()
    elif ending == ".jsonl":
        data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(ROWS), sink)
        data = sink.getvalue().to_pybytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_format_reads_the_same(tmp_path, ending, zipped):
    path = tmp_path / f"my.exam{ending}{zipped}"
    write_format(path, ending)
    questions = read_questions(path)
    assert questions.ids == ["1", "x-2"]
    assert questions.prompts == ["Prompt, with a comma", "Größe?"]
    assert questions.options == [["one", "two\nlines", 'a "quote"'], ["α", "β", "γ"]]
    assert questions.answers.tolist() == [1, 2]
    assert questions.answers.dtype == np.int64
    assert questions.extra == {}
    assert len(questions) == 2


@pytest.mark.parametrize("name", ["exam.doc", "exam", "exam.gz", "exam.csv.rar", ".csv"])
def test_an_unknown_file_type_is_refused(tmp_path, name):
    refused(tmp_path, HEADER, "unknown file type", ".csv, .tsv", ".parquet", name=name)


def test_file_format_ignores_case():
    from pathlib import Path

    assert file_format(Path("a.b/EXAM.JSONL.GZ")) == ".jsonl"


def test_words_that_look_like_missing_values_stay_texts(tmp_path):
    questions = read_csv(tmp_path, HEADER + "None,NA,None,NA,nan,null,NaN,E\n")
    assert questions.ids == ["None"]
    assert questions.prompts == ["NA"]
    assert questions.options == [["None", "NA", "nan", "null", "NaN"]]


def test_numbers_and_nulls_in_jsonl(tmp_path):
    questions = read_jsonl(
        tmp_path,
        {"id": 7, "prompt": "How many?", "A": 0, "B": 2.5, "C": True, "D": None, "answer": None},
        {"id": 8, "prompt": 42, "A": float("nan"), "B": "None", "C": 10**20, "answer": "b"},
        {"id": 9, "prompt": "No C and no D here", "A": "x", "B": "y"},
    )
    assert questions.ids == ["7", "8", "9"]
    assert questions.prompts[1] == "42"
    assert questions.options == [["0", "2.5", "True"], ["", "None", "1" + "0" * 20], ["x", "y"]]
    assert questions.answers.tolist() == [-1, 1, -1]


def test_parquet_with_numbers_and_nulls(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"id": [0, 1], "prompt": ["p", "q"], "A": [1, 2], "B": [0.5, 1.5], "C": [None, "c"], "answer": ["A", None]}
    pq.write_table(pa.table(table), tmp_path / "exam.parquet")
    questions = read_questions(tmp_path / "exam.parquet")
    assert questions.ids == ["0", "1"]
    assert questions.options == [["1", "0.5"], ["2", "1.5", "c"]]
    assert questions.answers.tolist() == [0, -1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_blank_lines_and_byte_order_mark(tmp_path, end, mark):
    text = f'{end}id,prompt,A,B,answer{end}{end}1,p,a,"b{end}c",A{end}{end}'
    questions = read_csv(tmp_path, mark + text.encode())
    assert questions.ids == ["1"]
    assert questions.options == [["a", f"b{end}c"]]


def test_jsonl_with_byte_order_mark_crlf_blank_lines_and_unicode_line_separators(tmp_path):
    row = json.dumps({"id": "1", "prompt": "a\u2028b\u0085c", "A": "x", "B": "😀"}, ensure_ascii=False)
    questions = read_csv(tmp_path, b"\xef\xbb\xbf\r\n" + row.encode() + b"\r\n\r\n", "exam.jsonl")
    assert questions.prompts == ["a\u2028b\u0085c"]
    assert questions.options == [["x", "😀"]]


def test_header_names_and_texts_are_stripped(tmp_path):
    questions = read_csv(tmp_path, "id , prompt,A,B ,answer\n 1 , p , a ,\tb\u00a0, a \n")
    assert questions.ids == ["1"]
    assert questions.prompts == ["p"]
    assert questions.options == [["a", "b"]]
    assert questions.answers.tolist() == [0]


# --- options and answers -------------------------------------------------------------------


@pytest.mark.parametrize("count", range(2, 27))
def test_two_to_twenty_six_options(tmp_path, count):
    letters = LETTERS[:count]
    text = f"id,prompt,{','.join(letters)},answer\n1,p,{','.join('text ' + x for x in letters)},{letters[-1]}\n"
    questions = read_csv(tmp_path, text)
    assert questions.options == [["text " + x for x in letters]]
    assert questions.answers.tolist() == [count - 1]
    assert questions.max_options == count


def test_an_empty_option_inside_is_masked_and_the_letters_stay(tmp_path):
    questions = read_csv(tmp_path, HEADER + "1,p,a,,c,d,,D\n2,p,a,b,,,,b\n3,p,,,c, ,e,E\n")
    assert questions.options == [["a", "", "c", "d"], ["a", "b"], ["", "", "c", "", "e"]]
    assert questions.answers.tolist() == [3, 1, 4]
    assert questions.max_options == 5
    table = [[1, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1]]
    assert questions.exists().tolist() == np.array(table, dtype=bool).tolist()
    assert questions.exists(8).shape == (3, 8)
    assert questions.exists(8).sum() == 7


def test_blank_missing_and_lower_case_answers(tmp_path):
    questions = read_csv(tmp_path, HEADER + "1,p,a,b,c,d,e,c\n2,p,a,b,c,d,e,\n3,p,a,b,c,d,e,  \n")
    assert questions.answers.tolist() == [2, -1, -1]
    with pytest.raises(UserError, match=r"training needs .* 2 of 3 have none \(first: id 2\)"):
        questions.require_answers("training")
    questions.subset([0]).require_answers("training")
    assert read_csv(tmp_path, "id,prompt,A,B\n1,p,a,b\n").answers.tolist() == [-1]


def test_letters():
    assert [letter_index(letter(index)) for index in range(26)] == list(range(26))
    for text in ("", "AB", "1", "ß", "é"):
        with pytest.raises(ValueError, match="not a letter from A to Z"):
            letter_index(text)


# --- errors --------------------------------------------------------------------------------


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"the question file not found: .*nothing\.csv"):
        read_questions(tmp_path / "nothing.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_questions(tmp_path / "folder.csv")
    for data in (b"", b"\n \n"):
        refused(tmp_path, data, "is empty")
        refused(tmp_path, gzip.compress(data), "is empty", name="exam.csv.gz")


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(bytes(np.random.default_rng(0).integers(97, 123, 3000, dtype=np.uint8)))
    flipped = bytearray(whole)
    flipped[20] ^= 0xFF
    for data in (whole[: len(whole) // 2], bytes(flipped), b"id,prompt,A,B\n", whole[:-1] + b"\x01"):
        refused(tmp_path, data, "is not a whole gzip file", name="exam.csv.gz")


def test_every_damage_to_a_parquet_file_is_either_harmless_or_refused(tmp_path):
    path = tmp_path / "exam.parquet"
    write_format(path, ".parquet")
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in range(1, len(whole), 61)]
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0xFF
        damaged.append(bytes(data))
    refusals = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            read_questions(path)
        except UserError:
            refusals += 1
    assert refusals > len(damaged) / 2


def test_parquet_with_a_text_that_is_not_utf8_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": ["1"], "prompt": broken, "A": ["a"], "B": ["b"]}), tmp_path / "exam.parquet")
    with pytest.raises(UserError, match=r"not a whole parquet file: .*exam\.parquet"):
        read_questions(tmp_path / "exam.parquet")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_that_is_not_utf8_names_line_and_byte(tmp_path, mark):
    data = mark + b"id,prompt,A,B\n1,p,a,b\n2,caf\xe9,a,b\n"
    refused(tmp_path, data, "not UTF-8", "line 3, byte 0xe9", "'2,café,a,b'", "cp1252")
    refused(tmp_path, mark + b"id,\xe9\n", "line 1, byte 0xe9")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1,p,a,b\n", "line 3: 4 cells for 8 columns (a comma"),
        ("1,p, with a comma,a,b,c,d,e,A\n", "line 3: 9 cells for 8 columns"),
        ('1,"p"x,a,b,c,d,e,A\n', "line 3: not a CSV file"),
        ('1,"p,a,b,c,d,e,A\n', "not a CSV file (unexpected end of data)"),
        ("1,p\0,a,b,c,d,e,A\n", "NUL byte"),
    ],
)
def test_broken_csv_names_the_line(tmp_path, text, part):
    refused(tmp_path, HEADER + "0,p,a,b,c,d,e,A\n" + text, part)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"id": 1', "line 3 is not JSON"),
        ("[1, 2]", "line 3 is not a JSON object"),
        ('"text"', "line 3 is not a JSON object"),
        ('{"id": 2, "prompt": "\\ud83d half", "A": 1, "B": 2}', "line 3 has half of a character"),
        ('{"id": 2, "prompt": "half \\uDE00", "A": 1, "B": 2}', "line 3 has half of a character"),
        ("[" * 100_000, "line 3 is not JSON"),
    ],
)
def test_broken_jsonl_names_the_line(tmp_path, line, part):
    good = '{"id": 1, "prompt": "whole \\ud83d\\ude00", "A": 1, "B": 2}\n'
    assert read_csv(tmp_path, good, "exam.jsonl").prompts == ["whole 😀"]
    refused(tmp_path, good + "\n" + line, part, name="exam.jsonl")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("id,prompt,A", "column B missing; it has id, prompt, A."),
        ("kysta,a", "columns prompt, A, B missing; it has kysta, a."),
        ("question,a,b", "has a header and no question"),
        ("id|prompt|A|B", "columns prompt, A, B missing; it has id|prompt|A|B."),
        ("id,prompt,A,B,D", "option column C missing while D is there"),
        ("id,prompt,A,B,H", "option column C missing while H is there"),
        ("id,prompt,A,B,note,note", "the column 'note' more than once"),
        ("id,prompt,A,B,answer", "has a header and no question"),
    ],
)
def test_wrong_columns_are_named(tmp_path, header, part):
    refused(tmp_path, header + "\n", part)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (",p,a,b,c,d,e,A", "row 2: the id is empty"),
        ("0,p,a,b,c,d,e,A", "row 2 (id 0): the id stands in row 1 already"),
        ("1, ,a,b,c,d,e,A", "row 2 (id 1): the prompt is empty"),
        ("1,p,a,,,,,A", "row 2 (id 1): fewer than 2 options are filled in"),
        ("1,p,,,,,e,E", "row 2 (id 1): fewer than 2 options are filled in"),
        ("1,p,a,b,c,d,e,F", "row 2 (id 1): the answer is F, and that option is empty"),
        ("1,p,a,b,c,,e,D", "row 2 (id 1): the answer is D, and that option is empty"),
        ("1,p,a,b,c,,,D", "row 2 (id 1): the answer is D, and that option is empty"),
        ("1,p,a,b,c,d,e,9", "row 2 (id 1): the answer '9' is none of its options"),
        ("1,p,a,b,c,d,e,A B", "row 2 (id 1): the answer 'A B' names several options"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, part):
    message = refused(tmp_path, HEADER + "0,p,a,b,c,d,e,A\n" + row + "\n", part)
    assert "1 problem\n" in message


def test_a_list_or_object_in_the_place_of_a_text_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        read_jsonl(tmp_path, {"id": 1, "prompt": {"text": "p"}, "A": ["a"], "B": "b"})
    assert "row 1 (id 1): column prompt holds a dict, not a text" in str(caught.value)
    assert "row 1 (id 1): column A holds a list, not a text" in str(caught.value)


def test_the_problems_of_all_rows_are_told_together_and_not_without_end(tmp_path):
    message = refused(tmp_path, HEADER + "1,,a,b,,,,C\n1,p,a,b,,,,A\n", "3 problems")
    assert message.count("\n") == 4
    message = refused(tmp_path, HEADER + ",p,a,b,,,,\n" * 50, "50 problems", "... and 42 more")
    assert message.count("\n") == 10 and message.endswith("--skip-bad-rows")


# --- extra columns and writing -------------------------------------------------------------


def test_extra_columns_are_kept_and_written_back(tmp_path):
    text = 'module,id,prompt,A,B,C,answer,context\nm1,1,p,a,b,,A," two\nlines, "\n,2,q,a,,c,,\n'
    questions = read_csv(tmp_path, text)
    assert questions.extra == {"module": ["m1", ""], "context": [" two\nlines, ", ""]}
    write_questions(tmp_path / "out" / "again.csv", questions)
    again = read_questions(tmp_path / "out" / "again.csv")
    assert again.extra == questions.extra
    assert again.options == questions.options
    assert again.answers.tolist() == questions.answers.tolist()
    header = (tmp_path / "out" / "again.csv").read_text().splitlines()[0]
    assert header == "id,prompt,A,B,C,answer,module,context"


def test_extra_values_keep_their_types_where_the_format_has_them(tmp_path):
    questions = read_jsonl(
        tmp_path,
        {"id": 1, "prompt": "p", "A": "a", "B": "b", "is_question": False, "level": 3},
        {"id": 2, "prompt": "p", "A": "a", "B": "b"},
    )
    assert questions.extra == {"is_question": [False, None], "level": [3, None]}
    write_questions(tmp_path / "out.csv", questions)
    assert read_questions(tmp_path / "out.csv").extra == {"is_question": ["False", ""], "level": ["3", ""]}


def test_a_lone_carriage_return_survives_writing(tmp_path):
    questions = Questions(["1"], ["a\rb"], [["x\r\ny", "z"]], np.array([1]), {"note": ["\r"]})
    write_questions(tmp_path / "out.csv", questions)
    again = read_questions(tmp_path / "out.csv")
    assert (again.prompts, again.options, again.extra) == (["a\rb"], [["x\r\ny", "z"]], {"note": ["\r"]})


# Any text that UTF-8 can hold, without NUL, which the CSV reader takes for a sign of a binary file.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TRICKY = st.sampled_from(
    ["None", "nan", '"', '""', ",", "a\nb", "\r", "a\r\nb", "'", "\\", "=1", "\ufeff", "\u2028", "\u200b"]
)
STRIPPED = (TEXT | TRICKY).map(str.strip)
FILLED = STRIPPED.filter(bool)


@st.composite
def exams(draw):
    ids = draw(st.lists(FILLED, min_size=1, max_size=5, unique=True))
    options, answers = [], []
    for _ in ids:
        texts = draw(st.lists(STRIPPED, min_size=2, max_size=8).filter(lambda t: sum(map(bool, t)) >= 2))
        while not texts[-1]:
            texts.pop()
        options.append(texts)
        answers.append(draw(st.sampled_from([-1, *(i for i, text in enumerate(texts) if text)])))
    n = len(ids)
    prompts = draw(st.lists(FILLED, min_size=n, max_size=n))
    names = draw(st.lists(FILLED, max_size=2, unique=True))
    names = [name for name in names if name not in ("id", "prompt", "answer", *LETTERS)]
    extra = {name: draw(st.lists(TEXT | TRICKY, min_size=n, max_size=n)) for name in names}
    return Questions(ids, prompts, options, np.array(answers, dtype=np.int64), extra)


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(exam=exams())
def test_what_is_written_is_read_back(tmp_path, exam):
    path = tmp_path / "exam.csv"
    write_questions(path, exam)
    again = read_questions(path)
    assert again.ids == exam.ids
    assert again.prompts == exam.prompts
    assert again.options == exam.options
    assert again.answers.tolist() == exam.answers.tolist()
    assert again.extra == exam.extra
    assert again.content_hash() == exam.content_hash()


# --- the object ----------------------------------------------------------------------------


def test_subset_by_positions_and_by_mask(make_questions):
    questions = make_questions(5)
    questions.extra["module"] = list("vwxyz")
    picked = questions.subset([3, 0])
    assert picked.ids == ["q3", "q0"]
    assert picked.extra == {"module": ["y", "v"]}
    assert picked.answers.tolist() == questions.answers[[3, 0]].tolist()
    assert picked.options == [questions.options[3], questions.options[0]]
    mask = np.array([False, True, False, False, True])
    assert questions.subset(mask).ids == ["q1", "q4"]
    assert questions.subset(np.array([1, 0, 1])).ids == ["q1", "q0", "q1"]
    for empty in ([], np.array([], dtype=int), np.zeros(5, dtype=bool)):
        assert len(questions.subset(empty)) == 0
        assert questions.subset(empty).exists().shape == (0, 2)


def test_content_hash_does_not_depend_on_the_order_of_rows(make_questions):
    questions = make_questions(20)
    order = np.random.default_rng(0).permutation(20)
    assert questions.subset(order).content_hash() == questions.content_hash()
    assert questions.subset(range(19)).content_hash() != questions.content_hash()


def test_content_hash_depends_on_every_part(make_questions):
    hashes = {make_questions(4).content_hash()}
    for change in range(5):
        questions = make_questions(4)
        if change == 0:
            questions.ids[2] = "other"
        elif change == 1:
            questions.prompts[2] += "!"
        elif change == 2:
            questions.options[2][4] += "!"
        elif change == 3:
            questions.options[2][:2] = questions.options[2][1::-1]
        else:
            questions.answers[2] = (questions.answers[2] + 1) % 5
            assert questions.content_hash(with_answers=False) == make_questions(4).content_hash(with_answers=False)
        hashes.add(questions.content_hash())
    assert len(hashes) == 6


def test_content_hash_swapped_answers_between_questions(make_questions):
    questions = make_questions(2)
    questions.answers[:] = [0, 1]
    first = questions.content_hash()
    questions.answers[:] = [1, 0]
    assert questions.content_hash() != first


# --- ranked answers ------------------------------------------------------------------------


def test_ranked_options_order_ties_and_missing():
    probabilities = np.array(
        [
            [0.1, 0.4, 0.2, 0.3, 0.0],
            [0.2, 0.2, 0.2, 0.2, 0.2],
            [0.5, 0.0, 0.2, 0.3, 0.0],
            [0.0, 0.9, 0.0, 0.1, 0.0],
        ],
        dtype=np.float32,
    )
    exists = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 0, 1, 1, 0]], dtype=bool)
    ranked = ranked_options(probabilities, exists)
    assert ranked == [list("BDCAE"), list("ABCDE"), list("ADC"), list("DAC")]
    assert [kaggle_prediction(row) for row in ranked] == ["B D C", "A B C", "A D C", "D A C"]
    assert kaggle_prediction(["B", "A"]) == "B A"
    assert kaggle_prediction(list("ABCDE"), k=5) == "A B C D E"


@pytest.mark.parametrize("odd", [np.nan, -np.inf, -3.0])
def test_ranked_options_never_names_an_option_that_is_not_there(odd):
    exists = np.array([[False, True, True, False, True]])
    probabilities = np.array([[0.0, odd, 0.3, np.nan, 0.2]])
    assert ranked_options(probabilities, exists) == [["C", "E", "B"]]
