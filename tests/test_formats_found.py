"""Question files as people keep them: columns named in many languages, dumps of quiz programs, exports of platforms."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solution.errors import UserError
from solution.formats.forms import WRITTEN
from solution.formats.html import plain_text
from solution.formats.items import Reading
from solution.formats.names import are_of_question, key_of, names_answer, numbered
from solution.formats.options import mark_between
from solution.questions import Questions, read_questions, write_questions

GASES = ["argon", "helium", "neon"]
PROMPT = "Which gas lifts a balloon?"


def read(path: Path, content: Any, **reading: Any) -> tuple[Questions, str]:
    """The questions of a file with this content, and the notes on it."""
    if isinstance(content, (list, dict)):
        content = json.dumps(content, ensure_ascii=False)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    notes: list[str] = []
    return read_questions(path, reading=Reading(**reading), notes=notes), "\n".join(notes)


def asks_for_helium(exam: Questions) -> bool:
    right = [options[place] for options, place in zip(exam.options, exam.answers.tolist(), strict=True)]
    return set(exam.prompts) == {PROMPT} and set(right) == {"helium"} and exam.options[0][:3] == GASES


# --- names of columns ----------------------------------------------------------------------

LANGUAGES = {
    "zh": ("题干", "选项{}", "正确答案(只能输入字母)"),
    "zh, letter first": ("試題內容", "{}選項", "答案"),
    "pt": ("Pergunta", "Opção {}", "Resposta"),
    "es": ("Enunciado", "Opción {}", "Respuesta correcta"),
    "fr": ("Énoncé", "Réponse {}", "Bonne réponse"),
    "de": ("Frage", "Antwort {}", "Richtige Antwort"),
    "pl": ("Treść pytania", "Odpowiedź {}", "Poprawna odpowiedź"),
    "ru": ("Вопрос", "Вариант {}", "Правильный ответ"),
    "tr": ("Soru", "Seçenek {}", "Doğru Cevap"),
    "vi": ("Câu hỏi", "Đáp án {}", "Đáp án đúng"),
    "id": ("Soal", "Pilihan {}", "Kunci Jawaban"),
    "hi": ("प्रश्न", "विकल्प {}", "सही उत्तर"),
    "ar": ("السؤال", "الخيار {}", "الإجابة الصحيحة"),
    "ja": ("問題文", "選択肢{}", "正解"),
    "ko": ("문제", "보기{}", "정답"),
    "Kahoot": ("Question - max 120 characters", "Answer {} - max 75 characters", "Correct answer(s) - choose one"),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("marks", ["ABC", "123"])
def test_columns_are_known_by_their_names_in_many_languages(tmp_path: Path, language: str, marks: str) -> None:
    prompt, option, answer = LANGUAGES[language]
    names = [prompt, *(option.format(mark) for mark in marks), answer]
    rows = [[PROMPT, *GASES, "B"], [PROMPT, *GASES, "helium"]]
    lines = ["\t".join(row) for row in [names, *rows]]
    exam, notes = read(tmp_path / "exam.tsv", "\n".join(lines) + "\n")
    assert asks_for_helium(exam) and exam.extra == {} and f"answer is '{answer}'" in notes


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("questionText", "question_text"),
        ("QuestionID", "question_id"),
        ("isCorrect", "is_correct"),
        ("ID", "id"),
        ("Opção B", "opcao_b"),
        ("  Correct-Answer: ", "correct_answer"),
        ("mc1_targets", "mc1_targets"),
        ("id\u200b", "id"),
    ],
)
def test_keys_of_names(name: str, key: str) -> None:
    assert key_of(name) == key


def test_names_that_are_no_option_and_no_answer() -> None:
    # MedMCQA's `cop` is its answer; a count of right answers is none.
    assert numbered("cop") is None and numbered("opa") == ("op", "a") and numbered("option") is None
    assert [names_answer(key) for key in ("answer_index", "correct_option_ids", "correct_answers")] == [True] * 3
    assert not any(map(names_answer, ("num_correct", "answer_1", "is_correct", "explanation", "option_ids")))
    assert are_of_question(["Quiz", "Question", "Answer 1", "Answer 2"])
    assert not are_of_question(["Question", "Answer"]) and not are_of_question(["A", "B"])


@pytest.mark.parametrize("name", ["answerIndex", "correctAnswers", "correct_option_ids", "Correct_Awnser", "answerKey"])
def test_answers_in_columns_of_unusual_names_are_found(tmp_path: Path, name: str) -> None:
    rows = [{"question": PROMPT, "options": GASES, name: 1}, {"question": PROMPT, "options": [*GASES[::-1]], name: 0}]
    exam, notes = read(tmp_path / "exam.json", rows)
    assert exam.answers.tolist() == [1, 0] and f"answer is '{name}'" in notes


def test_missing_answers_are_told(tmp_path: Path) -> None:
    rows = [{"question": PROMPT, "options": GASES, "key_point": "lift"} for _ in range(3)]
    assert "no column of right answers is known" in read(tmp_path / "exam.json", rows)[1]
    answered = [row | {"answer": "helium" if place else None} for place, row in enumerate(rows)]
    notes = read(tmp_path / "exam.json", answered)[1]
    assert "1 of 3 questions have no right answer" in notes and "no column" not in notes
    marked = [{"questionText": PROMPT, "answerOptions": [{"answerText": x, "isCorrect": x == "helium"} for x in GASES]}]
    exam, notes = read(tmp_path / "exam.json", {"questions": marked})
    assert asks_for_helium(exam) and "no column" not in notes


# --- options, answers and ids --------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["argon;helium;neon", "true;false"], ";"),
        (["argon | helium | neon"], "|"),
        (["argon\nhelium"], "\n"),
        (["argon,helium,neon", "a,b,c"], ","),
        (["A. argon B. helium C. neon"], "letters"),
        (["(A) argon, (B) helium"], "letters"),
        # A comma that stands within some options, a list, one option alone, and nothing.
        (["argon,helium,neon", "Paris, France,Rome, Italy"], ""),
        (["['a', 'b']"], ""),
        (["argon;helium", "neon"], ""),
        ([None, ""], ""),
        ([["a", "b"]], ""),
    ],
)
def test_what_parts_options_in_one_text(cells: list[Any], mark: str) -> None:
    assert mark_between(cells) == mark


@pytest.mark.parametrize(
    "cell",
    [
        "argon;helium;neon",
        "A. argon B. helium C. neon",
        "A) argon\nB) helium\nC) neon",
        [["argon", False], ["helium", True], ["neon", False]],
        [["A", "argon"], ["B", "helium"], ["C", "neon"]],
        [{"text": {"format": "html", "text": x}, "isCorrect": x == "helium"} for x in GASES],
    ],
)
def test_options_in_one_cell(tmp_path: Path, cell: Any) -> None:
    exam, notes = read(tmp_path / "exam.json", [{"question": PROMPT, "choices": cell, "answer": "B"}])
    assert asks_for_helium(exam)
    assert ("in one text" in notes) == isinstance(cell, str)


def test_several_right_options_beside_wrong_ones_are_refused(tmp_path: Path) -> None:
    rows = [
        {"Frage": PROMPT, "Richtige Antwort": ["helium"], "Falsche Antwort": ["argon", "neon"]},
        {"Frage": "Which are gases?", "Richtige Antwort": ["helium", "argon"], "Falsche Antwort": ["iron"]},
    ]
    exam, notes = read(tmp_path / "exam.json", rows, skip_bad_rows=True)
    assert exam.options[0][exam.answers[0]] == "helium" and len(exam) == 1 and "names several options" in notes


def test_an_answer_within_an_object_and_statements_without_options(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "content": PROMPT, "options": GASES, "correct": {"q": "B"}},
        {"id": 2, "content": "Helium is heavy.", "options": [], "correct": False},
        {"id": 3, "content": "Helium is a gas.", "correct": "TRUE"},
        {"id": 4, "content": "氦是气体。", "options": None, "correct": "对"},
    ]
    exam, notes = read(tmp_path / "exam.json", rows)
    assert exam.answers.tolist() == [1, 1, 0, 0] and "3 without options are true or false" in notes
    assert exam.options[1:] == [["True", "False"], ["True", "False"], ["对", "错"]]
    with pytest.raises(UserError, match="fewer than 2 options"):
        read(tmp_path / "exam.json", [*rows, {"id": 5, "content": "Name a gas.", "correct": "argon"}])


def test_ids_that_tell_nothing_apart_are_not_used(tmp_path: Path) -> None:
    row = {"question": PROMPT, "options": GASES, "answer": "B"}
    exam, notes = read(tmp_path / "exam.json", [row | {"id": i % 2, "gid": f"g{i}"} for i in range(4)])
    assert exam.ids == ["g0", "g1", "g2", "g3"] and exam.extra["id_1"] == [0, 1, 0, 1] and "tell its rows" in notes
    exam, notes = read(tmp_path / "exam.json", [row | {"id": None} for _ in range(2)])
    assert exam.ids == ["0", "1"] and "its column 'id' is empty" in notes
    # This package's own files, and files to answer, are refused as before.
    with pytest.raises(UserError, match="the id stands in row 1 already"):
        read(tmp_path / "exam.csv", "id,prompt,A,B\n1,p,a,b\n1,q,a,b\n")
    with pytest.raises(UserError, match="the id stands in row 1 already"):
        read(tmp_path / "exam.json", [row | {"id": 1}, row | {"id": 1}], needs_id=True)


def test_a_row_of_too_many_options_is_one_bad_row(tmp_path: Path) -> None:
    rows = [
        {"question": PROMPT, "options": GASES, "answer": "B"},
        {"question": "Q?", "options": [*map(str, range(30))]},
    ]
    exam, notes = read(tmp_path / "exam.json", rows, skip_bad_rows=True)
    assert len(exam) == 1 and "row 2 (id 1) has 30 options: at most 26" in notes


# --- JSON and tables -----------------------------------------------------------------------

ONE = {"question": PROMPT, "options": GASES, "answer": "B"}
NESTED: dict[str, tuple[Any, list[str]]] = {
    "by kind": ({"single": [ONE], "hard": [ONE, ONE]}, ["single", "hard", "hard"]),
    "by chapter": ([{"title": "Gases", "items": [ONE]}, {"title": "More", "items": [ONE]}], ["Gases", "More"]),
    "objects": ({"quiz": {"gas": {"q1": ONE}, "air": {"q1": ONE}}}, ["gas", "air"]),
    "beside another list": ({"all": [ONE], "states": {"a": [ONE], "b": [ONE]}}, ["all", "states / a", "states / b"]),
}


@pytest.mark.parametrize("shape", NESTED)
def test_questions_anywhere_in_json_are_found(tmp_path: Path, shape: str) -> None:
    value, sections = NESTED[shape]
    exam, notes = read(tmp_path / "exam.json", value)
    assert asks_for_helium(exam) and exam.extra["section"] == sections
    assert f"the questions of {len(set(sections))} parts are read" in notes


def test_quotes_behind_spaces_hold_a_cell_together(tmp_path: Path) -> None:
    text = 'Question, A, B, Answer\n"Which gas?", "argon, dry", "helium", "B"\n'
    exam, _ = read(tmp_path / "exam.csv", text)
    assert exam.options == [["argon, dry", "helium"]] and exam.answers.tolist() == [1]
    exam, _ = read(tmp_path / "exam.csv", 'Question,A,B\nWhat says he?, "Yes" he says,no\n')
    assert exam.options == [['"Yes" he says', "no"]]


def test_folders_of_race_and_mmlu(tmp_path: Path) -> None:
    race, mmlu = tmp_path / "race", tmp_path / "mmlu"
    for folder in (race / "high", mmlu):
        folder.mkdir(parents=True)
    for i in (1, 2):
        article = {
            "article": f"Text {i}.",
            "questions": [PROMPT],
            "options": [GASES],
            "answers": ["B"],
            "id": f"h{i}.txt",
        }
        (race / "high" / f"{i}.txt").write_text(json.dumps(article))
        (mmlu / f"subject{i}_test.csv").write_text(f'"{PROMPT}",argon,helium,neon,B\n' * 2)
    (race / "README.txt").write_text("What this is.")
    notes: list[str] = []
    exam = read_questions(race, notes=notes)
    assert exam.ids == ["h1.txt-0", "h2.txt-0"] and asks_for_helium(exam)
    assert exam.extra["file"] == ["high/1.txt", "high/2.txt"] and "1 other files in it are not read" in notes[0]
    exam = read_questions(mmlu)
    assert len(exam) == 4 and asks_for_helium(exam) and exam.extra["file"][0] == "subject1_test.csv"
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="has no Arrow, parquet, CSV or JSON files"):
        read_questions(tmp_path / "none")


def excel(path: Path, rows: list[list[Any]], **cells: Any) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for place, value in cells.items():
        book.active[place] = value
    book.save(path)
    return path


def test_sheets_with_titles_without_header_and_with_cells_far_away(tmp_path: Path) -> None:
    table = [
        ["Question", "Answer 1", "Answer 2", "Answer 3", "Correct"],
        [PROMPT, *GASES, 2],
        [PROMPT, *GASES, "helium"],
    ]
    titles = [[], ["Quiz template"], ["Write one question a row"], []]
    notes: list[str] = []
    exam = read_questions(excel(tmp_path / "titles.xlsx", titles + table), reading=Reading(answers_from=1), notes=notes)
    assert asks_for_helium(exam) and "2 rows above the names of the columns left out" in notes[0]
    headless = excel(tmp_path / "headless.xlsx", [["哪种气体可以使气球上升", *GASES, "B"], [PROMPT, *GASES, "B"]])
    assert read_questions(headless).answers.tolist() == [1, 1]
    far = excel(tmp_path / "below.xlsx", table, A90000="note")
    with pytest.raises(UserError, match=r"row 3 .*fewer than 2 options"):
        read_questions(far, reading=Reading(answers_from=1))
    with pytest.raises(UserError, match=r"cell in column 16384 .*at most 1000 columns"):
        read_questions(excel(tmp_path / "right.xlsx", table, XFD2="note"))


def test_files_that_unpack_to_many_times_their_size_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solution.tables._LARGE", 1 << 16)
    with pytest.raises(UserError, match=r"exam\.csv\.gz unpacks to more than 0 MiB, 200 times its size"):
        read(tmp_path / "exam.csv.gz", gzip.compress(b"a" * (1 << 20)))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("items.xml", b"<a>" + b" " * (1 << 20))
    for name in ("exam.zip", "exam.xlsx"):
        with pytest.raises(UserError, match=f"{name} unpacks to 1 MiB, more than 200 times"):
            read(tmp_path / name, data.getvalue())


# --- learning platforms --------------------------------------------------------------------

LABEL = """<response_label ident="{0}"><material><mattext texttype="text/html">&lt;p&gt;{0}&lt;/p&gt;</mattext>
</material></response_label>"""
CANVAS = """<item ident="i1" title="Gas"><presentation>
<material><mattext texttype="text/html">&lt;p&gt;{prompt}&lt;/p&gt;</mattext></material>
<response_lid ident="response1" rcardinality="Single"><render_choice>{labels}</render_choice></response_lid>
</presentation><resprocessing>
<respcondition continue="Yes"><conditionvar><other/></conditionvar></respcondition>
<respcondition continue="No"><conditionvar><varequal respident="response1">helium</varequal>{more}</conditionvar>
<setvar action="Set" varname="SCORE">100</setvar></respcondition></resprocessing></item>"""
BLACKBOARD = """<item><presentation><flow><flow><material><mat_extension><mat_formattedtext type="HTML">{prompt}
</mat_formattedtext></mat_extension></material></flow><flow><response_lid ident="response"><render_choice><flow_label>
{labels}</flow_label></render_choice></response_lid></flow></flow></presentation><resprocessing>
<respcondition title="correct"><conditionvar><and><varequal respident="response">helium</varequal><not>
<varequal respident="response">argon</varequal></not></and></conditionvar>
<setvar variablename="SCORE" action="Set">SCORE.max</setvar></respcondition><respcondition title="incorrect">
<conditionvar><other/></conditionvar><setvar variablename="SCORE" action="Set">0</setvar></respcondition>
</resprocessing></item>"""
MATCHING = """<item ident="m"><presentation><response_lid ident="a"/><response_lid ident="b"/></presentation></item>"""


def qti1(*items: str, **more: str) -> str:
    parts = [
        item.replace("{prompt}", PROMPT).replace("{labels}", "".join(map(LABEL.format, GASES))).replace(
            "{more}", more.get("more", ""))
        for item in items
    ]  # fmt: skip
    space = 'xmlns="http://www.imsglobal.org/xsd/ims_qtiasiv1p2"'
    return f"<questestinterop {space}><assessment><section>{''.join(parts)}</section></assessment></questestinterop>"


def test_qti_1_items(tmp_path: Path) -> None:
    exam, notes = read(tmp_path / "canvas.xml", qti1(CANVAS, MATCHING))
    assert asks_for_helium(exam) and exam.ids == ["i1"] and "1 items that are no single choice left out" in notes
    exam, _ = read(tmp_path / "blackboard.xml", qti1(BLACKBOARD))
    assert asks_for_helium(exam) and exam.ids == ["0"]
    two = qti1(CANVAS, more='<varequal respident="response1">neon</varequal>')
    with pytest.raises(UserError, match="names several options"):
        read(tmp_path / "canvas.xml", two)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("imsmanifest.xml", "<manifest/>")
        archive.writestr("res00001.dat", qti1(CANVAS))
        archive.writestr("broken.xml", "<questestinterop>")
    assert asks_for_helium(read(tmp_path / "course.imscc", data.getvalue(), skip_bad_rows=True)[0])
    with pytest.raises(UserError, match=r"course\.imscc \(broken\.xml\) is not whole XML.*--skip-bad-rows"):
        read(tmp_path / "course.imscc", data.getvalue())


QUESTION = (
    '<question type="multichoice"><name><text>q</text></name><questiontext format="html"><text>{}</text></questiontext>'
    '<answer fraction="0" format="html"><text>{}</text></answer>'
    '<answer fraction="100" format="html"><text>{}</text></answer></question>'
)


def test_moodle_questions_alone_and_with_entities_of_html(tmp_path: Path) -> None:
    text = QUESTION.format("Which&nbsp;gas <![CDATA[&eacute; &amp; <b>x</b>]]>?", "argon", "h&eacute;lium")
    exam, _ = read(tmp_path / "one.xml", text)
    assert (
        exam.prompts == ["Which gas é & x?"] and exam.options == [["argon", "hélium"]] and exam.answers.tolist() == [1]
    )
    with pytest.raises(UserError, match="undefined entity"):
        read(tmp_path / "one.xml", text.replace("eacute", "nosuch", 1).replace("<![CDATA[", "").replace("]]>", ""))
    with pytest.raises(UserError, match="no question bank of Moodle .the root of its XML is MOODLE_BACKUP"):
        read(tmp_path / "backup.xml", "<MOODLE_BACKUP><INFO/></MOODLE_BACKUP>")


CODE = "<code>&lt;img alt=&quot;{}&quot;&gt;</code>"


def test_html_that_a_question_is_about_survives_its_cleaning(tmp_path: Path) -> None:
    assert plain_text(CODE.format("a")) == '<img alt="a">'
    assert plain_text("<p>x &amp;nbsp;y &amp;lt; z</p>") == "x  y &lt; z"
    assert plain_text("&lt;p&gt;x&lt;/p&gt;") == "x"
    gift = "::q::[html]<p>Which\\?</p>{{\n\t={}\n\t~{}\n}}\n".format(
        *(CODE.format(x).replace("=", "\\=") for x in "ab")
    )
    exam, _ = read(tmp_path / "bank.gift", gift)
    assert exam.options == [['<img alt="a">', '<img alt="b">']]
    pictures = QUESTION.format("&lt;p&gt;Which?&lt;/p&gt;", '&lt;img src="a.png"&gt;', '&lt;img src="b.png"&gt;')
    exam, _ = read(tmp_path / "bank.xml", pictures)
    assert exam.prompts == ["Which?"] and exam.options == [['<img src="a.png">', '<img src="b.png">']]


def test_open_trivia(tmp_path: Path) -> None:
    text = f"#Q {PROMPT}\n^ helium\nA argon\nB helium\nC neon\n\n#Q Which is\nnot a gas?\n^ True\nA True\nB False\n\n"
    for name in ("science", "science.txt"):
        exam, notes = read(tmp_path / name, text)
        assert exam.prompts == [PROMPT, "Which is\nnot a gas?"] and exam.options == [GASES, ["True", "False"]]
        assert exam.answers.tolist() == [1, 0] and notes.startswith("OpenTriviaQA: it has no ids")


# --- what is written is read as it was -----------------------------------------------------

PIECES = st.sampled_from(
    ["<b>x</b>", "&amp;", "&lt;", "<p>", "<br>", "&amp;lt;", "<sub>2</sub>", "a", "é", "\n", " ", "'", '"', ",", ";",
     "[", "{", "}", "(A) ", "A. ", "1. ", "::", "=", "~", "#", "\\", "%100%", "//", "[html]", "[plain]", "ANSWER: B",
     "-1", "nan", "True", "\u2028", "\x85", "\u200b", "plain"]
)  # fmt: skip
TEXTS = st.lists(PIECES, min_size=1, max_size=5).map("".join).map(str.strip).filter(bool)


@st.composite
def exams(draw: st.DrawFn) -> Questions:
    import numpy as np

    ids = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    options = [draw(st.lists(TEXTS, min_size=2, max_size=4)) for _ in ids]
    answers = np.array([draw(st.integers(0, len(row) - 1)) for row in options])
    prompts = draw(st.lists(TEXTS, min_size=len(ids), max_size=len(ids)))
    extra = draw(st.sampled_from([{}, {"context": prompts}, {"text_format": prompts}]))
    return Questions(ids, prompts, options, answers, dict(extra))


@pytest.mark.parametrize("form", WRITTEN)
@settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck])
@given(exam=exams())
def test_texts_that_look_like_html_or_markup_are_read_back(tmp_path: Path, form: str, exam: Questions) -> None:
    path = tmp_path / f"exam{WRITTEN[form].endings[0]}"
    write_questions(path, exam, form)
    again = read_questions(path)
    if form == "aiken":  # it holds no ids and no line ends
        lines = [[" ".join(option.split()) for option in options] for options in exam.options]
        assert (again.prompts, again.options) == ([" ".join(prompt.split()) for prompt in exam.prompts], lines)
    else:
        assert (again.ids, again.prompts, again.options) == (exam.ids, exam.prompts, exam.options)
    assert again.answers.tolist() == exam.answers.tolist()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_only_rows_that_look_like_html_are_marked(tmp_path: Path, form: str) -> None:
    exam, _ = read(tmp_path / "bank.gift", "::a::[plain]<b>x</b> &amp;{=1~2}\n\n::b::Which?{=1~2}\n")
    out = tmp_path / f"out.{form}"
    write_questions(out, exam, form)
    again = read_questions(out)
    assert again.prompts == ["<b>x</b> &amp;", "Which?"] and again.extra == {}
    write_questions(out, exam.subset([1]), form)
    assert b"text_format" not in out.read_bytes()
    # A column of another program so called is kept beside it.
    exam.extra["text_format"] = ["html", "markdown"]
    write_questions(out, exam, form)
    again = read_questions(out)
    assert again.prompts == exam.prompts and again.extra == {"text_format_1": ["html", "markdown"]}


def test_csv_holds_no_nul(tmp_path: Path) -> None:
    exam, _ = read(tmp_path / "exam.jsonl", '{"id": 1, "prompt": "p\\u0000", "A": "a", "B": "b"}')
    with pytest.raises(UserError, match="CSV cannot hold the NUL character"):
        write_questions(tmp_path / "out.csv", exam)
    assert not (tmp_path / "out.csv").exists()
