"""Negated questions, and what the rules make of the scores of options."""

from __future__ import annotations

import numpy as np
import pytest

from solution.config import RankerConfig
from solution.exam import Exam
from solution.negation import is_negated
from solution.questions import Questions
from solution.rankers.families import make_ranker
from solution.rankers.option_inputs import exam_signals


@pytest.mark.parametrize(
    "prompt",
    [
        "Which of the following is not a metal?",
        "Which metals do not rust?",
        "Which of these can't be melted?",
        "Which of the following functions cannot be attributed to the cerebellum?",
        "Which title did the family NOT produce in all of its prominence?",
        "All of the following are metals except ________.",
        "The liver makes all of these EXCEPT:",
        "Each of these, except for ____, is a metal.",
        "Which of these statements about reflexes is false?",
        "Select the incorrect statement.",
        "Which of the following is an incorrect pairing?",
        "Which is least likely to melt?",
        "________ is not a metal.",
        "A body falls, and it is not heated. Which of the following is not true?",
        "Which of these is the odd one out?",
    ],
)
def test_negated_questions(prompt: str) -> None:
    assert is_negated(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "Which of the following is a metal?",
        "If it is not treated, which organ fails?",
        "What is the term for a reflex that does not reach the brain?",
        "Which of these is a molecule, but not a compound?",
        'Which genre does the film "Do not forget" belong to?',
        "Which genre does the film Do Not Forget Me belong to?",
        "Not only is the skin red. Which layer is burnt?",
        "Which organ is not only a gland but also part of the gut?",
        "Why is it not a metal?",
        "For what reason is the king cobra not a true cobra?",
        "The box does not move. What is the force?",
        "What would happen if the egg did not divide?",
        "Which of the following is not incorrect?",
        "What lines the ear canal, except for its outermost part?",
        "Place the structures in order from least to most complex.",
        "Which output does a NOT gate have?",
        "Bones would not be able to ________.",
        "Quel métal n'est pas lourd ?",
        "",
    ],
)
def test_other_questions(prompt: str) -> None:
    assert not is_negated(prompt)


QUESTIONS = Questions(
    ["a", "b", "c"],
    ["Which is a metal?", "Which is not a metal?", "Which is it?"],
    [["iron", "zinc", "wood", "both A and B"], ["iron", "zinc", "wood", ""], ["up", "down", "none of these", ""]],
    np.array([3, 2, 0]),
)
SCORES = np.array([[0.5, 0.7, 0.2, 0.1], [0.5, 0.7, 0.2, np.nan], [0.4, 0.6, 0.9, np.nan]], dtype=np.float32)
RULED = np.array([[0.5, 0.7, 0.2, 0.706], [0.4, 0.2, 0.7, 0], [0.4, 0.6, 0.5, 0]], dtype=np.float32)


def test_rules_for_option_scores(tmp_path: object) -> None:
    exam = Exam(QUESTIONS, [[], [], []], {"sentence": SCORES})
    config = RankerConfig(name="a", family="similarity", score_rules=["negations", "references"])
    plain = config.model_copy(update={"score_rules": []})
    np.testing.assert_allclose(exam.prior(config), RULED, atol=1e-6)
    np.testing.assert_array_equal(exam.prior(plain), np.nan_to_num(SCORES))
    assert make_ranker(config, tmp_path).predict(exam).argmax(axis=1).tolist() == [3, 2, 1]  # type: ignore[arg-type]
    assert plain.hash() != config.hash()
    only = config.model_copy(update={"score_rules": ["negations"]})
    np.testing.assert_allclose(exam.prior(only)[[0, 2]], np.nan_to_num(SCORES[[0, 2]]))


def test_rules_for_signals() -> None:
    exam = Exam(QUESTIONS, [[], [], []], {}, {"good": SCORES})
    config = RankerConfig(name="f", family="features", score_rules=["negations", "references"])
    signals = exam_signals(exam, config)
    np.testing.assert_allclose(np.nan_to_num(signals["good"]), RULED, atol=1e-6)
    assert signals["names_all"].tolist() == [[0, 0, 0, 1], [0] * 4, [0] * 4]
    assert signals["names_none"].tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 0]]
    assert signals["words"][1].tolist() == [1, 1, 1, 0]  # what the option looks like is no score
    bare = exam_signals(exam, config.model_copy(update={"score_rules": []}))
    np.testing.assert_array_equal(bare["good"], SCORES)
    assert "names_all" not in bare
