"""Single questions by loaded rankers: the same answers as a submission's, and their reasons."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from solution.api.ensemble import Ensemble
from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import ContextPassage
from solution.inference.memory_plan import MemoryPlan
from solution.interactive import pool as pool_module
from solution.interactive.deciding import distinct_passages, marked_passages
from solution.interactive.explaining import Explainer
from solution.interactive.html import answer_html
from solution.interactive.loaded import LoadedEnsemble
from solution.interactive.pool import kept_rankers
from solution.interactive.question import one_question
from solution.interactive.reliability import reliability_at, wilson
from solution.interactive.words import ranker_weight
from solution.questions import Questions, read_questions
from solution.rankers.base import Ranker

ROUNDING = 4e-3
"""Of answers in bfloat16 (8 bits: 1/256): their sums differ by what else is in the batch."""


@pytest.fixture(scope="module")
def opened(finished: Path) -> LoadedEnsemble:
    return LoadedEnsemble.open(finished, warm=False)


@pytest.fixture(scope="module")
def explainer(opened: LoadedEnsemble) -> Explainer:
    return Explainer(opened)


def submitted(folder: Path) -> np.ndarray:
    """The probabilities that submit.py wrote."""
    with open(folder / "probabilities.csv", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    return np.array([row[1:] for row in rows], dtype=float)


def test_the_answers_are_those_of_a_submission(finished: Path, opened: LoadedEnsemble) -> None:
    questions, wanted = read_questions(finished / "test.csv"), submitted(finished)
    assert {ranker.name for ranker in opened.trained} == {"tiny", "similarity"}
    np.testing.assert_allclose(opened.ask(questions).blended, wanted, atol=2e-5)
    # One after the other, as somebody asks them: each in a batch of its own.
    alone = [opened.ask(questions.subset([row])).blended[0] for row in range(3)]
    np.testing.assert_allclose(alone, wanted[:3], atol=ROUNDING)


def test_calls_of_several_threads_wait_for_each_other(finished: Path, opened: LoadedEnsemble) -> None:
    questions, wanted = read_questions(finished / "test.csv"), submitted(finished)
    answers: dict[int, np.ndarray] = {}

    def ask(row: int) -> None:
        answers[row] = opened.ask(questions.subset([row])).blended[0]

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose([answers[row] for row in range(4)], wanted[:4], atol=ROUNDING)


def test_rankers_that_do_not_fit_are_loaded_for_each_question(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool_module, "kept_rankers", lambda plans, available: set())
    ensemble = LoadedEnsemble.open(finished, warm=False)
    question = read_questions(finished / "test.csv").subset([0])
    for _ in range(2):
        asked = ensemble.ask(question)
        assert asked.seconds["loading"] > 0 and not ensemble.pool._models
    np.testing.assert_allclose(asked.blended[0], submitted(finished)[0], atol=ROUNDING)
    said = capsys.readouterr().err
    assert "is loaded anew for each question" in said and said.count("tiny: loaded in") == 2


def test_a_ranker_that_cannot_be_loaded_leaves_the_answer_to_the_others(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make = pool_module.make_ranker

    def make_some(config: RankerConfig, cache: Path) -> Ranker:
        if config.has_model:
            raise RuntimeError("too little memory")
        return make(config, cache)

    monkeypatch.setattr(pool_module, "make_ranker", make_some)
    ensemble = LoadedEnsemble.open(finished, warm=False)
    assert "tiny cannot be loaded: too little memory" in capsys.readouterr().err
    answers = ensemble.ask(read_questions(finished / "test.csv").subset([0])).answers
    assert answers.turns["tiny"].state == "failed" and answers.turns["similarity"].answered.all()


def test_lost_folds_are_told(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    shutil.rmtree(work / "weights" / "tiny" / "fold_1")
    ensemble = LoadedEnsemble.open(work, warm=False)
    told = capsys.readouterr().err
    assert "WARNING: tiny goes on without one of its folds" in told and "fold_1" in told
    (note,) = Explainer(ensemble).explain("Which?", ["one", "two"]).notes
    assert note == "tiny answers with 2 of 3 folds: the weights of fold 1 are missing or cannot be used."
    assert Ensemble(ensemble).to_frame().set_index("ranker").loc["tiny", "answers with"] == "2 of 3 folds"


def test_a_stacker_has_no_weights(finished: Path, tmp_path: Path) -> None:
    """With one of its rankers left out the weights blend, and are shown."""
    work = tmp_path / "work"
    shutil.copytree(finished, work)
    path = work / "weights" / "ensemble.json"
    record = json.loads(path.read_text())
    stages = [stage["recipe"] for point in record["cascade"]["frontier"] for stage in point["stages"]]
    for recipe in (record, *(one for one in stages if len(one["weights"]) == 2)):
        recipe["stacker"] = {"coefficients": {name: [1.0, 0.0, 0.0] for name in ("tiny", "similarity")}}
    path.write_text(json.dumps(record | {"hash": None}))
    ensemble = LoadedEnsemble.open(work, warm=False)
    answer = Explainer(ensemble).explain("Which?", ["one", "two"])
    assert [(ranker.name, ranker.weight) for ranker in answer.rankers] == [("similarity", None), ("tiny", None)]
    assert ranker_weight(answer.rankers[0]) == "stacker" and "<td>stacker</td>" in answer_html(answer)
    assert Ensemble(ensemble).to_frame()["weight"].isna().all()
    alone = LoadedEnsemble.open(work, rankers={"similarity"}, warm=False)
    shares = {ranker.name: ranker.weight for ranker in Explainer(alone).explain("Which?", ["a", "b"]).rankers}
    assert shares == {"similarity": 1.0, "tiny": 0.0}
    assert Ensemble(alone).to_frame()[["ranker", "weight"]].values.tolist() == [["similarity", 1.0]]


def test_reasons_are_made_while_no_other_thread_asks(opened: LoadedEnsemble, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer, free = Explainer(opened), []

    def look(*_: object) -> object:
        thread = threading.Thread(target=lambda: free.append(opened.lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        return (), ""

    monkeypatch.setattr(explainer, "_passages", look)
    explainer.explain("Which?", ["one", "two"])
    assert free == [False]


def test_rankers_may_be_left_out(finished: Path, opened: LoadedEnsemble) -> None:
    questions = read_questions(finished / "test.csv")
    alone = LoadedEnsemble.open(finished, rankers=["similarity"], warm=False).ask(questions)
    np.testing.assert_allclose(alone.blended, opened.ask(questions).answers.turns["similarity"].table(), atol=1e-6)
    with pytest.raises(UserError, match="'other' is not in the ensemble; it has similarity, tiny"):
        LoadedEnsemble.open(finished, rankers=["other"])


def test_an_answer_comes_with_its_reasons(finished: Path, explainer: Explainer) -> None:
    questions = read_questions(finished / "test.csv")
    answer = explainer.explain(questions.prompts[0], questions.options[0])
    np.testing.assert_allclose(answer.probabilities, submitted(finished)[0], atol=ROUNDING)
    assert answer.order[0] == answer.best.letter and answer.confidence == max(answer.probabilities)
    assert [row.name for row in answer.rankers] == ["similarity", "tiny"]
    assert sum(row.weight for row in answer.rankers) == pytest.approx(1)
    assert {mark.option for passage in answer.passages for mark in passage.marks} == {"A", "B", "C"}
    assert answer.mark_kind == "embedding" and answer.reliability is None  # nine questions tell nothing
    assert "may know its answer" in answer.notes[0]
    assert answer.seconds["total"] >= answer.seconds["retrieval"] > 0


@pytest.mark.parametrize("count", [2, 7, 26])
def test_other_numbers_of_options_than_trained_on(explainer: Explainer, count: int) -> None:
    answer = explainer.explain("Which planet is it?", [f"planet {number}" for number in range(count)])
    assert len(answer.probabilities) == count and sum(answer.probabilities) == pytest.approx(1, abs=1e-5)


def test_equal_options_are_told(explainer: Explainer) -> None:
    answer = explainer.explain("Which planet is it?", ["Mars", "Venus", "Mars"])
    assert answer.probabilities[0] == pytest.approx(answer.probabilities[2], abs=1e-6)
    assert any("same text" in note for note in answer.notes)


@pytest.mark.parametrize(
    "prompt, options, message",
    [
        (" ", ["a", "b"], "the question is empty"),
        ("Which?", ["a"], "has 1 options: give 2 to 26"),
        ("Which?", [str(n) for n in range(27)], "has 27 options"),
        ("Which?", ["a", ""], "option B is empty"),
        ("Which?", "ab", "the options are one text"),
        ("Which?", ["a", 3], "3 is not a text"),
    ],
)
def test_a_question_that_cannot_be_asked(prompt: str, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        one_question(prompt, options)


def plan(name: str, weights: int, activations: int = 10) -> MemoryPlan:
    return MemoryPlan(name, weights, 0, activations, weights + 5, 1, 0)


def test_as_many_rankers_stay_as_leave_room_for_the_others() -> None:
    plans = [plan("large", 1000), plan("small", 100), plan("middle", 300)]
    assert kept_rankers(plans, 2000) == {"large", "middle", "small"}
    assert kept_rankers(plans, 1300) == {"small"}  # and "large" beside it
    assert kept_rankers(plans, 1000) == set()  # "large" needs it all
    assert kept_rankers([], 0) == set()
    unable = replace(plan("unable", 5000), problem="too large")
    assert kept_rankers([*plans, unable], 2000) == {"large", "middle", "small"}  # no room is left for it


def test_a_ranker_for_which_there_is_no_memory_is_left_out(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = LoadedEnsemble.open(finished, memory=1)
    asked = ensemble.ask(read_questions(finished / "test.csv").subset([0]))
    assert asked.answers.turns["tiny"].state == "failed" and asked.answers.turns["similarity"].state == "finished"
    said = capsys.readouterr().err
    assert said.count("the ranker tiny is left out") == 1  # not again with each question
    assert "loaded anew" not in said and "submit.py" not in said
    assert "tiny needs" in asked.answers.turns["tiny"].reason


def test_reliability_is_that_of_the_nearest_confidences() -> None:
    confidences = np.linspace(0.2, 1.0, 200)
    hits = (confidences > 0.6).astype(float)
    sure, unsure = reliability_at(0.95, confidences, hits), reliability_at(0.3, confidences, hits)
    assert sure is not None and unsure is not None
    assert sure.questions == 40 and sure.share == 1 and 0.9 < sure.low < 1 and sure.high == 1
    assert unsure.share == 0 and unsure.confidence_high < 0.6
    assert reliability_at(0.5, confidences[:10], hits[:10]) is None
    # Wilson's interval of 8 of 10, as in Agresti and Coull 1998 by hand: (0.490, 0.943).
    assert np.allclose(wilson(0.8, 10), (0.490, 0.943), atol=5e-4)


def test_the_sentence_with_the_words_of_the_option_is_marked() -> None:
    text = "Iron is a metal. It rusts. Helium is a noble gas that lifts balloons."
    question = Questions(["1"], ["Which gas lifts a balloon?"], [["helium", "iron", "xylophone"]], np.full(1, -1))
    passages, kind = marked_passages(question, [ContextPassage("p", "", text, 1.0, "column")], None)
    marked = {mark.option: text[mark.start : mark.end] for mark in passages[0].marks}
    assert kind == "terms"
    assert marked["A"] == "Helium is a noble gas that lifts balloons." and marked["B"] == "Iron is a metal."
    nothing = [ContextPassage("p", "", "Quite other words.", 1.0, "column")]
    assert marked_passages(question, nothing, None)[0][0].marks == ()


def test_passages_of_several_contexts_are_shown_once() -> None:
    first, second, third = (ContextPassage(name, "", name, 1.0, "dense") for name in "abc")
    shown = distinct_passages([[first, second], [first, third]], 3)
    assert [passage.id for passage in shown] == ["a", "b", "c"]
    assert distinct_passages([[first, second], [third]], 2) == [first, third]
