"""The typed answer to one question, and its JSON."""

from __future__ import annotations

import json

import numpy as np

from solution.interactive.answers import Explanation, Mark, Option, RankerAnswer, Reliability, ShownPassage, to_json


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
