"""Options that name other options keep their places; letters in front of options are left out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from solution.config import RankerConfig
from solution.doctor.options import named
from solution.option_references import fixed_places, naming_others
from solution.questions import Questions, read_questions, write_questions
from solution.rankers.layout import rotations, shuffled
from solution.training.run import _note_fixed_options

PLAIN = ["iron", "zinc", "tin", "lead"]
ALL = [*PLAIN[:3], "All of the above"]
BOTH = ["iron", "zinc", "Both A and B", "tin", "lead"]
NONE = ["iron", "None of these", "zinc", "tin"]


@pytest.mark.parametrize(
    ("options", "fixed"),
    [
        (PLAIN, set()),
        (ALL, {3}),
        (BOTH, {0, 1, 2}),
        (NONE, {1}),
        (["iron", "zinc", "tin", "(B) and (C)", "All of the above"], {1, 2, 3, 4}),
        (["iron", "zinc", "Both iron and zinc", "tin"], {2}),
    ],
)
def test_options_that_name_others_keep_their_places(options, fixed):
    assert fixed_places(options) == fixed
    orders = [shuffled(options, np.random.default_rng(seed)) for seed in range(60)]
    every = set(range(len(options)))
    assert all(set(order) == every and all(order[place] == place for place in fixed) for order in orders)
    for place in every - fixed:  # each of the others stands at each of their places
        assert {order.index(place) for order in orders} == every - fixed


def test_the_order_of_plain_options_is_that_of_the_generator():
    order = [0, 1, 3, 4]
    np.random.default_rng(7).shuffle(order)
    assert shuffled(["iron", "zinc", "", "tin", "lead"], np.random.default_rng(7)) == order


def test_rotations():
    assert rotations(["a", "", "b", "c", "d"], 1) == [[0, 2, 3, 4]]
    assert rotations(["a", "", "b", "c", "d"], 2) == [[0, 2, 3, 4], [3, 4, 0, 2]]
    assert sorted(rotations(["a", "b", "c"], 8)) == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    assert rotations(ALL, 8) == [[0, 1, 2, 3], [1, 2, 0, 3], [2, 0, 1, 3]]
    assert rotations(BOTH, 2) == [[0, 1, 2, 3, 4], [0, 1, 2, 4, 3]]
    assert rotations(["iron", "zinc", "Both A and B"], 4) == [[0, 1, 2]]


def test_they_are_counted_and_told(capsys):
    options = [PLAIN, ALL, BOTH, PLAIN]
    assert naming_others(options) == [1, 2]
    questions = Questions(["p", "q", "r", "s"], ["?"] * 4, options, np.zeros(4, dtype=np.int64), {})
    config = RankerConfig(name="tiny", family="causal", model="some/model")
    _note_fixed_options(config, questions)
    assert "note: tiny: in 2 of 4 questions an option names others (first: id q)" in capsys.readouterr().err
    _note_fixed_options(config, questions.subset([0, 3]))
    still = config.training.model_copy(update={"option_shuffle": False})
    _note_fixed_options(config.model_copy(update={"training": still}), questions)
    _note_fixed_options(RankerConfig(name="longest", family="longest"), questions)
    assert capsys.readouterr().err == ""


def test_the_doctor_counts_them():
    questions = Questions(["p", "q"], ["?"] * 2, [PLAIN, NONE], np.zeros(2, dtype=np.int64), {})
    examined: Any = SimpleNamespace(
        workdir=SimpleNamespace(questions=Path("exam.csv")),
        exam=SimpleNamespace(value=questions),
        test=SimpleNamespace(value=(questions.subset([0]), [])),
        test_path=Path("test.csv"),
    )
    (finding,) = named(examined)
    assert (finding.area, finding.subject, finding.state) == ("exam", "exam.csv", "ok")
    assert finding.found.startswith("1 of 2 questions have an option that names others (first: id q)")


# --- letters in front of options -----------------------------------------------------------


def read(folder: Path, *rows: str, head: str = "id,prompt,A,B,C,answer") -> tuple[Questions, str]:
    path, notes = folder / "exam.csv", []
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    questions = read_questions(path, notes=notes)
    return questions, "; ".join(notes)


@pytest.mark.parametrize(
    ("row", "options", "answer"),
    [
        ("1,Q?,A) iron,B) zinc,C) tin,B", ["iron", "zinc", "tin"], 1),
        ("1,Q?,(a) iron,(b) zinc,,b", ["iron", "zinc"], 1),
        ("1,Q?,A. iron,B. zinc,C. tin,C. tin", ["iron", "zinc", "tin"], 2),
        ("1,Q?,1. iron,2. zinc,3. tin,2. zinc", ["iron", "zinc", "tin"], 1),
        ("1,Q?,1) iron,2) zinc,3) tin,3", ["iron", "zinc", "tin"], 2),
        ("1,Q?,A) iron,,C) tin,C", ["iron", "", "tin"], 2),
    ],
)
def test_letters_in_front_of_every_option_are_left_out(tmp_path, row, options, answer):
    questions, notes = read(tmp_path, row)
    assert questions.options == [options] and questions.answers.tolist() == [answer]
    assert "the letters or numbers in front of the options of 1 question are left out" in notes


@pytest.mark.parametrize(
    "row",
    [
        "1,Q?,A) iron,zinc,C) tin,A",
        "1,Q?,B) iron,A) zinc,C) tin,A",
        "1,Q?,A. niger,B. subtilis,,A",
        "1,Q?,(1) only,(2) only,,A",
        "1,Q?,1.0 A,2.0 A,3.0 A,A",
        "1,Q?,A,B,C,A",
    ],
)
def test_what_may_be_part_of_an_option_stays(tmp_path, row):
    questions, notes = read(tmp_path, row)
    assert questions.options == [[cell for cell in row.split(",")[2:5] if cell]] and notes == ""


def test_a_dot_behind_two_letters_counts_where_all_questions_have_it(tmp_path):
    rows = [f"{number},Q{number}?,A. yes,b. no,,B" for number in range(3)]
    questions, notes = read(tmp_path, *rows)
    assert questions.options == [["yes", "no"]] * 3 and "of the options of 3 questions are left out" in notes
    questions, _ = read(tmp_path, *rows, "9,Q9?,yes,no,,A")
    assert questions.options[0] == ["A. yes", "b. no"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_options_with_letters_are_written_and_read_as_they_are(tmp_path, form):
    options = [["A) A) x", "B) B) y"], ["A. niger", "B. subtilis"], ["iron", "zinc"]]
    questions = Questions(["1", "2", "3"], ["?"] * 3, options, np.array([0, 1, 0]), {})
    write_questions(tmp_path / f"exam.{form}", questions, form)
    again = read_questions(tmp_path / f"exam.{form}")
    assert again.options == options and again.answers.tolist() == [0, 1, 0]


def test_letters_in_front_of_options_in_objects_are_left_out(tmp_path):
    row = {
        "question": "Q?",
        "choices": [{"text": f"{letter}. metal {letter}"} for letter in "ABC"],
        "answer": "B. metal B",
    }
    (tmp_path / "exam.jsonl").write_text(json.dumps(row) + "\n")
    questions = read_questions(tmp_path / "exam.jsonl")
    assert questions.options == [["metal A", "metal B", "metal C"]] and questions.answers.tolist() == [1]
