"""The typed answer to one question: as JSON, printed, and drawn in a notebook."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from solution.cli.answer import print_answer
from solution.interactive.answers import Explanation, Mark, Option, RankerAnswer, Reliability, ShownPassage, to_json
from solution.interactive.html import answer_html
from solution.interactive.words import joined, ranker_says


def _explanation() -> Explanation:
    mark = Mark(0, 11, "B", float("nan"))
    return Explanation(
        prompt="Which gas do plants take up?",
        options=(Option("A", "oxygen"), Option("B", "carbon dioxide")),
        order=("B", "A"),
        probabilities=(0.25, 0.75),
        rankers=(RankerAnswer("near", "similarity", 1.0, (0.25, 0.75), 0.01),),
        passages=(ShownPassage("1", "Plants", "They breathe", 0.5, "dense", (mark,)),),
        mark_kind="terms",
        confidence=0.75,
        reliability=Reliability(0.8, 0.6, 0.9, 20, 0.7, 0.8),
        seconds={"total": 0.5},
    )


def test_ranking_pairs_options_with_their_probabilities() -> None:
    answer = _explanation()
    assert answer.best == Option("B", "carbon dioxide")
    assert answer.ranking == ((Option("B", "carbon dioxide"), 0.75), (Option("A", "oxygen"), 0.25))


def test_json_is_plain_and_without_nan() -> None:
    text = json.dumps(to_json(_explanation()), allow_nan=False)
    record = json.loads(text)
    assert record["passages"][0]["marks"] == [{"start": 0, "end": 11, "option": "B", "score": None}]
    assert record["rankers"][0]["probabilities"] == [0.25, 0.75]
    assert np.isclose(record["reliability"]["share"], 0.8)


def test_the_printed_answer_names_what_decided(capsys: pytest.CaptureFixture[str]) -> None:
    print_answer(_explanation(), 3)
    printed = capsys.readouterr().out
    first, second = [line for line in printed.splitlines() if line[:2] in ("1.", "2.")]
    assert first.startswith("1. B carbon dioxide") and "75.0%" in first and second.startswith("2. A oxygen")
    assert "75% sure; out of fold its first choice was right in 80% (60% to 90%) of the 20" in printed.replace(
        "\n", " "
    )
    assert "»They breath« [B]e" in printed and "near" in printed and "0.50 s:" in printed


def test_a_notebook_draws_the_answer_and_escapes_its_texts() -> None:
    answer = _explanation()
    spoilt = dataclasses.replace(answer, prompt="<script>", options=(Option("A", "<i>"), answer.options[1]))
    drawn = answer_html(spoilt)
    assert "<mark>They breath</mark> <b>[B]</b>e" in drawn and "&lt;script&gt;" in drawn and "<i>" not in drawn


def test_sentences_that_several_options_share_are_marked_once() -> None:
    marks = [Mark(5, 9, "C", 0.1), Mark(0, 4, "B", 0.2), Mark(5, 9, "A", 0.3)]
    assert joined(marks) == [(0, 4, "B"), (5, 9, "A, C")]
    silent = RankerAnswer("x", "causal", 0.5, None, 0.0, "too little memory")
    assert ranker_says(silent) == "too little memory"
    assert ranker_says(_explanation().rankers[0]) == "B 75%  A 25%"


def test_an_answer_is_a_table_too() -> None:
    answer = _explanation()
    table = answer.to_frame()
    assert table["letter"].tolist() == list(answer.order) and table["probability"].is_monotonic_decreasing
    said = {ranker.name: ranker.probabilities for ranker in answer.rankers if ranker.probabilities is not None}
    assert list(table.columns) == ["letter", "text", "probability", *said]
    for name, probabilities in said.items():
        places = ["ABCDEFGH".index(letter) for letter in answer.order]
        assert table[name].tolist() == [probabilities[place] for place in places]
    assert answer.order[0] in repr(answer).split()
