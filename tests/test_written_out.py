"""Questions that are pasted: with lettered options, a single row, or a text of any form that does not say which."""

from __future__ import annotations

from pathlib import Path

import pytest

from solution.errors import UserError
from solution.questions import read_given_questions, read_questions

GAS = ("Which gas lifts a balloon?", ["argon", "helium", "neon"])
XML = (
    '<?xml version="1.0"?><quiz><question type="multichoice"><questiontext><text>Which gas lifts a balloon?</text>'
    '</questiontext><answer fraction="0"><text>argon</text></answer><answer fraction="100"><text>helium</text></answer>'
    '<answer fraction="0"><text>neon</text></answer></question></quiz>'
)


def read(text: str, with_answers: bool = True) -> list[tuple[str, list[str], int]]:
    questions = read_given_questions(text.encode(), "pasted text", with_answers=with_answers)
    return list(zip(questions.prompts, questions.options, map(int, questions.answers), strict=True))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Which gas lifts a balloon? A) argon B) helium C) neon", -1),
        ("Which gas lifts a balloon? (a) argon; (b) helium; (c) neon", -1),
        ("Which gas lifts a balloon?\r\nA. argon\r\nB. helium\r\nC. neon\r\n", -1),
        ("\n7. Which gas lifts a balloon?\n\nA) argon\nB) helium\nC) neon\n\nCorrect answer: (B)\n", 1),
        ("Which gas lifts a balloon?\nA. argon\nB. helium\nC. neon\nANSWER: B", 1),
        ("Which gas lifts a balloon? {~argon =helium ~neon}", 1),
        ("#Q Which gas lifts a balloon?\n^ helium\nA argon\nB helium\nC neon\n", 1),
        ("Which gas lifts a balloon?,argon,helium,neon", -1),
        ('17,"Which gas lifts a balloon?",argon,helium,neon,B', 1),
        ("Which gas lifts a balloon?\targon\thelium\tneon", -1),
        ("question;A;B;C\nWhich gas lifts a balloon?;argon;helium;neon", -1),
        ('{\n "question": "Which gas lifts a balloon?",\n "options": ["argon", "helium", "neon"]\n}', -1),
        (XML, 1),
    ],
)
def test_a_pasted_question_is_read(text: str, answer: int) -> None:
    assert read(text) == [(*GAS, answer)]


def test_several_questions_are_parted_and_letters_within_texts_part_nothing(tmp_path: Path) -> None:
    text = (
        "1. Is A. niger a plant,\nor B. subtilis?\na) A. niger\n   of course\nb) neither\n"
        "2. Which is red?\na) neon\nb) iron\nAnswer: a\n"
        "Which is blue?\nA: sky\nB: grass\n\nWhich is green?\nA: sky\nB: grass"
    )
    expected = [
        ("Is A. niger a plant,\nor B. subtilis?", ["A. niger\n   of course", "neither"], -1),
        ("Which is red?", ["neon", "iron"], 0),
        ("Which is blue?", ["sky", "grass"], -1),
        ("Which is green?", ["sky", "grass"], -1),
    ]
    assert read(text) == expected
    path = tmp_path / "exam.txt"
    path.write_text(text)
    assert read_questions(path).prompts == [prompt for prompt, _, _ in expected]


def test_a_table_of_texts_with_letters_stays_a_table() -> None:
    text = 'prompt,options\nWhich gas?,"A) argon B) helium"\nWhich is red?,"A) neon B) iron"\n'
    assert [prompt for prompt, _, _ in read(text)] == ["Which gas?", "Which is red?"]


def test_answers_that_are_not_clear_do_not_matter_where_they_are_not_read() -> None:
    text = '[{"question": "Which gas?", "choices": ["argon", "helium"], "answer": 1}]'
    assert read(text, with_answers=False) == [("Which gas?", ["argon", "helium"], -1)]
    with pytest.raises(UserError, match="counted from"):
        read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello world", "no question with options"),
        ("Which gas?\nA) argon", "no question with options"),
        ("  ", "no question with options"),
        ("A) argon B) helium", "no question with options"),
        ('{"prompt": "Which', "not JSON"),
        ("\0", "NUL"),
        ("Which?" + "," * 300_000, "no question with options"),  # of minutes, where each cell is sought in a list
        ("\n\n".join("a\nA) b" for _ in range(30_000)), "no question with options"),
    ],
    ids=["words", "one option", "nothing", "no prompt", "json", "nul", "commas", "long"],
)
def test_a_text_without_a_question_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(text)
