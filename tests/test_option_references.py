"""Options that name other options, and such that only look like it."""

from __future__ import annotations

import pytest

from solution.option_references import option_references

WORDS = ["iron", "zinc", "copper"]


def _found(options: list[str]) -> list[tuple[str, str, str] | None]:
    return [
        None if found is None else (found.kind, found.form, "".join("ABCDEFG"[place] for place in found.places))
        for found in option_references(options)
    ]


@pytest.mark.parametrize(
    "option, expected",
    [
        ("All of the above", ("all", "above", "ABC")),
        ("any of the above.", ("all", "above", "ABC")),
        ("all the above answers are correct", ("all", "above", "ABC")),
        ("None of the above: the P wave hides it", ("none", "above", "ABC")),
        ("All of the above can be used", ("all", "above", "ABC")),
        ("All of the above are false.", ("none", "above", "ABC")),
        ("All of these answers are correct.", ("all", "words", "ABC")),
        ("None of these", ("none", "words", "ABC")),
        ("No answer is correct", ("none", "words", "ABC")),
        ("none", ("none", "words", "ABC")),
        ("two of the above", ("several", "above", "ABC")),
        ("all of the above except (b)", ("all", "letters", "AC")),
        ("Both A and C", ("all", "letters", "AC")),
        ("(B) and (C)", ("all", "letters", "BC")),
        ("a, b, and c are correct", ("all", "letters", "ABC")),
        ("Options A & C only", ("all", "letters", "AC")),
        ("neither a nor b", ("none", "letters", "AB")),
        ("Only A", ("all", "letters", "A")),
        ("A is correct", ("all", "letters", "A")),
        ("both zinc and copper", ("all", "words", "BC")),
        ("Iron, copper or zinc.", ("all", "words", "ABC")),
        ("neither iron nor zinc", ("none", "words", "AB")),
    ],
)
def test_reference(option: str, expected: tuple[str, str, str]) -> None:
    assert _found([*WORDS, option]) == [None, None, None, expected]


@pytest.mark.parametrize(
    "option",
    [
        "vitamins A and D",
        "hepatitis A and B",
        "A and D",  # itself
        "both A and F",  # no such option
        "A",
        "both iron and lead",
        "neither of the two",
        "both",  # of three
        "all of the above-ground biomass",
        "None of the bones",
        "Above the diaphragm",
        "all epiphyseal plates will disappear before birth",
    ],
)
def test_answer_of_its_own(option: str) -> None:
    assert _found([*WORDS, option]) == [None, None, None, None]


@pytest.mark.parametrize(
    "options, expected",
    [
        # "none of the above" does not speak of "all of the above", and neither counts what joins the other options.
        (["iron", "zinc", "both A and B", "neither of the above"], [("all", "letters", "AB"), ("none", "above", "AB")]),
        (["iron", "zinc", "iron and zinc", "Neither"], [("all", "words", "AB"), ("none", "words", "AB")]),
        (["iron", "zinc", "all of the above", "none of these"], [("all", "above", "AB"), ("none", "words", "AB")]),
        (["a", "b", "both A and B", "O"], [("all", "letters", "AB"), None]),
    ],
)
def test_references_beside_each_other(options: list[str], expected: list[tuple[str, str, str] | None]) -> None:
    assert _found(options) == [None, None, *expected]


@pytest.mark.parametrize(
    "options",
    [
        ["One", "Two", "None"],
        ["Some", "All", "None"],
        ["A and C", "A and D", "B and D", "C and E"],  # vitamins
        ["B12", "K", "E", "A and C"],
        ["A", "B", "AB", "O"],
    ],
)
def test_letters_and_amounts_that_are_answers(options: list[str]) -> None:
    assert _found(options) == [None] * len(options)


def test_shuffled_and_missing_options() -> None:
    assert _found(["none of the above", "iron", "", "zinc"]) == [("none", "above", "BD"), None, None, None]
    assert _found(["iron", "", "zinc", "both A and C"])[3] == ("all", "letters", "AC")
    assert _found(["iron", "", "zinc", "both A and B"])[3] is None
    assert _found([]) == []
