"""The ranker of signals: what it learns from, what it learns, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import random_questions, saved_and_loaded

from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import Exam
from solution.questions import Questions
from solution.rankers.families import make_ranker
from solution.rankers.option_inputs import FORMS, OptionInputs, form_signals
from solution.rankers.option_models import LinearModel


def exam_of(n: int = 90, seed: int = 0) -> Exam:
    """An exam of which the signal `good` tells the right option in most questions, and `noise` nothing."""
    rng = np.random.default_rng(seed)
    questions = random_questions(n, options=4, seed=seed)
    questions.options[3] = questions.options[3][:2]
    questions.answers[3] = 1
    questions.options[5] = ["same", "same", "b", ""]
    questions.answers[5] = 2
    signals = {f"noise{i}": rng.normal(size=(n, 4)).astype(np.float32) for i in range(3)}
    signals["good"] = rng.normal(size=(n, 4)).astype(np.float32)
    signals["good"][np.arange(n), questions.answers] += 1.5
    for table in signals.values():
        table[5, 1] = table[5, 0]
        table[~questions.exists()] = np.nan
    return Exam(questions, [[] for _ in range(n)], {}, signals)


def features(**settings: object) -> RankerConfig:
    return RankerConfig(name="features", family="features", signals={"trees": 20, "forests": 2, **settings})  # type: ignore[arg-type]


def accuracy(table: np.ndarray, exam: Exam) -> float:
    return float((table.argmax(axis=1) == exam.questions.answers).mean())


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_it_learns_and_says_the_same_when_loaded(share: float, tmp_path: Path) -> None:
    train, test = exam_of(), exam_of(seed=1)
    ranker = make_ranker(features(tree_share=share), tmp_path)
    facts = ranker.fit(train, test, tmp_path)
    table = ranker.predict(test.hidden())
    exists = test.questions.exists()
    assert table.dtype == np.float32 and (table[~exists] == 0).all()
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    assert table[5, 0] == table[5, 1]  # equal options, equal answers
    assert accuracy(table, test) > 0.6
    saved_and_loaded(ranker, test.hidden(), tmp_path)
    again = make_ranker(features(tree_share=share), tmp_path)
    bare = again.fit(train, test.subset([]), tmp_path)["signals"]  # as with --full: no question is left to watch
    assert "map3" not in bare["good"] and bare["good"]["linear"] == facts["signals"]["good"]["linear"]
    np.testing.assert_array_equal(again.predict(test.hidden()), table)  # the same seed, the same answers
    figures = facts["signals"]
    assert set(figures) == {"good", "noise0", "noise1", "noise2", *form_signals(test.questions)}
    assert figures["good"]["map3"] > 0.7 > figures["noise0"]["map3"]
    assert ("trees" in figures["good"]) == (share > 0)
    for model in {"linear", "trees"} & set(figures["good"]):
        assert sum(signal[model] for signal in figures.values()) == pytest.approx(1, abs=1e-3)
        assert figures["good"][model] == max(signal[model] for signal in figures.values())


def test_the_forms_of_a_signal() -> None:
    signal = np.array([[3.0, 1.0, 1.0, np.nan], [5.0, np.nan, np.nan, np.nan], [2.0, 4.0, np.nan, np.nan]])
    inputs = OptionInputs.of([signal], np.isfinite(signal))
    assert inputs.counts.tolist() == [3, 1, 2]
    value, standardised, rank, gap = (inputs.values[:, column] for column in range(len(FORMS)))
    assert value.tolist() == [3, 1, 1, 5, 2, 4]
    np.testing.assert_allclose(standardised, [2**0.5, -(0.5**0.5), -(0.5**0.5), 0, -1, 1], atol=1e-4)
    assert rank.tolist() == [0, 1.5, 1.5, 0, 1, 0]
    assert gap.tolist() == [2, -2, -2, 0, -2, 2]


def test_infinite_signals_leave_the_coefficients_finite() -> None:
    signal = np.array([[np.inf, 1.0, 2.0], [0.5, -np.inf, 3.0], [np.inf, np.inf, np.nan]])
    inputs = OptionInputs.of([signal], ~np.isnan(signal))
    assert inputs.values[:, 0].tolist() == [2, 1, 2, 0.5, 0.5, 3, 0, 0] and np.isfinite(inputs.values).all()
    right = np.array([True, False, False, False, False, True, True, False])
    model = LinearModel.fit(inputs, right, 1.0)
    LinearModel.read(model.record(), len(FORMS))  # refuses what is not finite


def test_signals_of_the_form_need_nothing() -> None:
    questions = Questions(["a"], ["What is a red dwarf?"], [["A red star", "", "!"]], np.array([0]))
    found = form_signals(questions)
    assert found["length"].tolist() == [[10, 0, 1]] and found["words"].tolist() == [[3, 0, 0]]
    assert found["shared_words"][0].tolist() == pytest.approx([2 / 3, 0, 0])
    assert found["shared_pairs"].tolist() == [[1, 0, 0]]


def test_signals_of_the_form_compare_the_options() -> None:
    options = ["Only the big cell, DNA 12", "only the small cell", "The cell", "water"]
    questions = Questions(["a"], ["The big cell?"], [options], np.array([0]))
    found = {name: table[0].tolist() for name, table in form_signals(questions).items()}
    assert found["capitals"] == [4, 0, 1, 0] and found["digits"] == [2, 0, 0, 0] and found["commas"] == [1, 0, 0, 0]
    assert found["word_length"] == pytest.approx([25 / 6, 19 / 4, 4, 5])
    assert found["shared_pairs"] == [2, 0, 0, 0]
    assert found["lone_words"] == [3, 1, 0, 1]
    assert found["common_words"] == pytest.approx([1 / 2, 3 / 4, 1, 0])
    first, second, third = 3 / 7, 2 / 6, 2 / 4  # of the pairs of the first three options; the fourth is like none
    assert found["alike_others"] == pytest.approx([(first + second) / 3, (first + third) / 3, (second + third) / 3, 0])
    alone = questions.subset([0])
    both = Questions(["a", "b"], ["The big cell?", "x"], [options, ["cell", "cells"]], np.array([0, 0]))
    for name, table in form_signals(alone).items():
        np.testing.assert_array_equal(table[0], form_signals(both)[name][0], name)


def test_without_a_corpus_it_learns_from_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = exam_of()
    bare = Exam(exam.questions, exam.passages, {"sentence": exam.signals["good"]})
    ranker = make_ranker(features(), tmp_path)
    ranker.fit(bare, bare, tmp_path)
    assert accuracy(ranker.predict(bare), bare) > 0.6
    assert "note: features learns without a corpus's signals" in capsys.readouterr().err


def test_dropped_options_are_not_looked_at(tmp_path: Path) -> None:
    """A cascade drops options: the others are compared with each other alone."""
    from solution.rankers.base import predict_part

    exam = exam_of()
    ranker = make_ranker(features(), tmp_path)
    ranker.fit(exam, exam, tmp_path)
    alive = exam.questions.exists()[:2]
    alive[:, 3] = False
    table = predict_part(ranker, [exam], [0, 1], alive, 4)
    assert table.shape == (2, 4) and (table[:, 3] == 0).all()
    other = exam_of()
    for signal in other.signals.values():
        signal[:2, 3] = 99
    np.testing.assert_array_equal(predict_part(ranker, [other], [0, 1], alive, 4), table)


def test_questions_without_the_dear_signals_are_answered_from_the_others(tmp_path: Path) -> None:
    train, test = exam_of(), exam_of(seed=1)
    for exam in (train, test):
        exam.signals["cosine_sentence_best"] = exam.signals.pop("good")
        exam.signals["pmi_mean"] = np.float32(0.5) * exam.signals["cosine_sentence_best"] + exam.signals["noise0"]
    ranker = make_ranker(features(), tmp_path)
    ranker.fit(train, test, tmp_path)
    whole = ranker.predict(test)
    test.signals["cosine_sentence_best"][::2] = np.nan  # as retrieval leaves them
    short = saved_and_loaded(ranker, test.hidden(), tmp_path).predict(test)
    np.testing.assert_array_equal(short[1::2], whole[1::2])
    assert (short[::2] != whole[::2]).any() and accuracy(short[::2], test.subset(range(0, 90, 2))) > 0.4
    test.signals["pmi_mean"][0] = np.nan
    del test.signals["cosine_sentence_best"]
    assert np.isfinite(ranker.predict(test)).all()
    assert not test.similarities()
    test.signals["noise0"][:] = np.nan
    with pytest.raises(UserError, match="learnt from the signal noise0, which these contexts do not have"):
        ranker.predict(test)


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    exam = exam_of()
    ranker = make_ranker(features(), tmp_path)
    with pytest.raises(UserError, match="needs the answer of every question"):
        ranker.fit(exam.hidden(), exam, tmp_path)
    with pytest.raises(UserError, match="leaves no signal"):
        make_ranker(features(leave_out=[""]), tmp_path).fit(exam, exam, tmp_path)
    ranker.fit(exam, exam, tmp_path)
    with pytest.raises(UserError, match="learnt from the signal good, which these contexts do not have"):
        ranker.predict(Exam(exam.questions, exam.passages))
    folder = tmp_path / "saved"
    folder.mkdir()
    ranker.save(folder)
    (folder / "forest_1.txt").write_text("tree\n")
    with pytest.raises(UserError, match=r"is corrupt .*Train that fold again"):
        make_ranker(features(), tmp_path).load(folder)
    (folder / "signals.json").write_text('{"signals": 3}')
    with pytest.raises(UserError, match=r"is corrupt .*Train that fold again"):
        make_ranker(features(), tmp_path).load(folder)


def test_signals_are_for_this_family_alone() -> None:
    assert features().contexts == ["signals"]
    with pytest.raises(ValueError, match="leave the setting contexts out"):
        RankerConfig(name="features", family="features", contexts=["dense"])
    with pytest.raises(ValueError, match="are for features rankers"):
        RankerConfig(name="a", family="similarity", contexts=["signals"])
