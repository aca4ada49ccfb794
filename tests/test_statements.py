"""Questions with an option as statements, and contexts that are made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from solution.config import RetrievalConfig
from solution.questions import Questions
from solution.retrieval.contexts.cache import ContextCache
from solution.retrieval.contexts.signals.texts import OptionTexts
from solution.statements import statement


@pytest.mark.parametrize(
    "prompt, option, expected",
    [
        ("What is the largest gland?", "the liver", "the liver is the largest gland"),
        ("Which of the following cells is phagocytic?", "macrophage", "macrophage cells is phagocytic"),
        ("Which of these does not rust?", "gold", "gold does not rust"),
        ("Who discovered radium?", "Marie Curie", "Marie Curie discovered radium"),
        ("What does the liver make?", "bile", "the liver make bile"),
        ("In which organ does this occur?", "the liver", "this occur In the liver"),
        ("Where is the pancreas located?", "behind the stomach", "the pancreas is located behind the stomach"),
        ("Why is ice lighter?", "it is less dense.", "ice lighter is because it is less dense"),
        ("How many bones are in the hand?", "27", "27 bones are in the hand"),
        ("The hip is which type of joint?", "a ball and socket", "The hip is a ball and socket"),
        ("Which of these statements about bile is true?", "It is green.", "bile: It is green"),
        ("Ice melts. What is left?", "water", "Ice melts. water is left"),
        ("In mammals, what carries oxygen?", "blood", "In mammals, blood carries oxygen"),
        ("A ____ has ___ of \\g.", "\\1", "A \\1 has ___ of \\g."),
    ],
)
def test_statement(prompt: str, option: str, expected: str) -> None:
    assert statement(prompt, option) == expected


@pytest.mark.parametrize(
    "prompt", ["The pancreas makes", "Is ice lighter?", "哪种气体定律", "", "word " * 300 + "What is it?"]
)
def test_no_statement(prompt: str) -> None:
    assert statement(prompt, "x") is None


def test_statements_are_a_setting_of_retrieval(tmp_path: Path) -> None:
    questions = Questions(["1"], ["What is it?"], [["ice", "fog"]], np.array([0]))
    plain, stated = RetrievalConfig(corpus="c"), RetrievalConfig(corpus="c", statements=True)
    assert OptionTexts.of(questions, stated.statements).joined() == (["ice is it", "fog is it"], ["", ""])
    assert OptionTexts.of(questions).joined() == (["What is it?"] * 2, ["ice", "fog"])
    assert plain.hash() == RetrievalConfig(corpus="c", statements=False).hash() != stated.hash()
    keys = {ContextCache(questions, config, tmp_path, {}).key for config in (plain, stated)}
    assert len(keys) == 2
