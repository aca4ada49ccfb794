"""Other rankers' scores as signals: settings, what is learnt, what leaks, what it costs, who answers without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_features import exam_of, features
from test_submission import engine_on

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run
from solution.config_files import load_run
from solution.ensemble.blend import Recipe
from solution.ensemble.candidates import Problem
from solution.ensemble.cascade import Stage
from solution.ensemble.costs import Cost, with_sources
from solution.ensemble.frontier import plan_cascade
from solution.ensemble.nested import fit_candidate
from solution.errors import UserError
from solution.exam import Exam
from solution.files import write_json
from solution.inference.asking import ReadyRanker
from solution.inference.engine import Engine
from solution.inference.jobs import Fault, OutOfTime
from solution.inference.limits import Limits
from solution.inference.timeline import Timeline
from solution.inference.trained import TrainedRanker
from solution.inference.turns import Answers, Recipes
from solution.metrics import map_at_k
from solution.oof import load_oof
from solution.pipeline.plan import _with_rankers
from solution.probabilities import masked_softmax
from solution.questions import Questions
from solution.rankers.families import make_ranker
from solution.rankers.features import FeaturesRanker
from solution.rankers.option_inputs import with_scores
from solution.training import nested, run
from solution.training.run import train_folds
from solution.workdir import Workdir

# --- settings ------------------------------------------------------------------------------


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    for name, text in {
        "ensemble": "rankers: [f, a]",
        "retrieval": "source: none",
        "a": "name: a\nfamily: longest",
        "b": "name: b\nfamily: longest\nrole: baseline",
        "f": "name: f\nfamily: features\nsignals_from: [b, a]",
        "g": "name: g\nfamily: features\nsignals_from: [f]",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_rankers_whose_scores_are_read_are_part_of_the_run_and_stand_first(configs: Path) -> None:
    assert [config.name for config in load_run(configs).rankers] == ["b", "a", "f"]
    assert [config.name for config in load_run(configs, ["f.signals_from=[]"]).rankers] == ["f", "a"]
    assert [config.name for config in load_run(configs, ranker="f").rankers] == ["f"]


def test_a_ranker_that_is_left_out_of_a_plan_is_no_signal_either(configs: Path) -> None:
    run = load_run(configs)
    # `b` is there for its scores alone.
    plan = _with_rankers(run, [config for config in run.rankers if config.name != "a"])
    assert [(config.name, config.signals_from) for config in plan.rankers] == [("b", []), ("f", ["b"])]
    assert plan.ensemble.rankers == ["f"]


def test_wrong_names_are_told_together(configs: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_run(configs, ["ensemble.rankers=[f,g,a]", "f.signals_from=[f,g,nobody]", "a.signals_from=[b]"])
    text = str(caught.value)
    assert "5 problems" in text
    assert "f.yaml: signals_from names g, whose signals come from other rankers themselves (f)" in text
    assert "g.yaml: signals_from names f, whose signals come from other rankers themselves (f, g, nobody)" in text
    assert f"the config of nobody, which f.signals_from names, not found: {configs / 'nobody.yaml'}" in text
    assert "f: signals_from names the ranker itself" in text
    assert "signals_from is a setting of features rankers, and this one is longest" in text


def test_the_setting_counts_only_where_it_is_set() -> None:
    plain = RankerConfig(name="f", family="features")
    assert "signals_from" not in plain.hashed_values()
    assert RankerConfig(name="f", family="features", signals_from=["a"]).hash() != plain.hash()


# --- what is learnt ------------------------------------------------------------------------


def table_of(exam: Exam, sure: float, seed: int) -> np.ndarray:
    """Probabilities of a ranker that knows something; float32 [n, width]."""
    exists = exam.questions.exists()
    scores = np.random.default_rng(seed).normal(size=exists.shape)
    scores[np.arange(len(exam)), exam.questions.answers] += sure
    return masked_softmax(scores, exists)


def test_a_score_is_taken_among_the_options_shown() -> None:
    exam = exam_of(6).subset(range(3))
    shown = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=bool)
    table = np.array([[0.1, 0.3, 0.0, 0.6], [0.25] * 4, [np.nan] * 4])
    (found,) = with_scores([exam], {"a": table}, shown)
    signal = found.signals["ranker_a"]
    np.testing.assert_allclose(np.exp(signal[0, :2]), [0.25, 0.75], rtol=1e-4)
    assert signal[0, 2] < -10 and np.isfinite(signal[0, 2]) and np.isnan(signal[0, 3])
    assert np.isnan(signal[2]).all() and set(exam.signals) < set(found.signals)


def test_a_question_without_scores_is_answered_by_what_was_learnt_without_them(tmp_path: Path) -> None:
    train, test = exam_of(), exam_of(seed=1)
    both = [with_scores([exam], {"a": table_of(exam, 2.0, 5)}, exam.questions.exists())[0] for exam in (train, test)]
    ranker, plain = make_ranker(features(), tmp_path), make_ranker(features(), tmp_path)
    facts = ranker.fit(both[0], both[1], tmp_path)["signals"]
    plain.fit(train, test, tmp_path)
    assert facts["ranker_a"]["map3"] > 0.8 and facts["ranker_a"]["linear"] > 0.2
    scored = ranker.predict(both[1].hidden())
    assert map_at_k(scored, test.questions.answers) > map_at_k(plain.predict(test), test.questions.answers) + 0.05
    # Some without scores, all without, and the same after the way over the disk.
    both[1].signals["ranker_a"][:30] = np.nan
    mixed, without = ranker.predict(both[1].hidden()), plain.predict(test)
    np.testing.assert_array_equal(mixed[:30], without[:30])
    np.testing.assert_array_equal(mixed[30:], scored[30:])
    folder = tmp_path / "saved"
    folder.mkdir()
    ranker.save(folder)
    again = make_ranker(features(), tmp_path)
    again.load(folder)
    np.testing.assert_array_equal(again.predict(both[1].hidden()), mixed)
    np.testing.assert_array_equal(again.predict(test), without)
    record = json.loads((folder / "signals.json").read_text())
    del record["without_scores"]
    write_json(folder / "signals.json", record)
    with pytest.raises(UserError, match=r"without the scores of other rankers is missing.*Train that fold again"):
        again.load(folder)


# --- what leaks ----------------------------------------------------------------------------


class Memo(FeaturesRanker):
    """Has learnt which letter is right how often: it knows nothing of a question that it has not seen."""

    fits: list[int] = []

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        self.share = np.bincount(train.questions.answers, minlength=2) / len(train)
        Memo.fits.append(len(train))
        return {}

    def predict(self, exam: Exam) -> np.ndarray:
        return np.tile(self.share.astype(np.float32), (len(exam), 1))

    def save(self, folder: Path) -> None:
        write_json(folder / "memo.json", self.share.tolist())


def lettered() -> Questions:
    """Three modules of 20 questions whose options look alike: A is right in 16, in 10 and in 4 of them."""
    words = np.random.default_rng(0).integers(0, 9000, (60, 9))
    right = np.concatenate([np.arange(20) >= often for often in (16, 10, 4)]).astype(np.int64)
    prompts = [" ".join(f"w{word}" for word in row) for row in words]
    ids = [f"q{row}" for row in range(60)]
    return Questions(ids, prompts, [["yes", "not"]] * 60, right, {"module": [f"m{row // 20}" for row in range(60)]})


@pytest.mark.parametrize("leaks", [False, True])
def test_labels_of_a_fold_do_not_reach_its_score(leaks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be known of these questions, and a ranker that learns from the shares of letters in OOF scores seems
    to know: the letter that was right less often in the other folds is right more often in this one. Scores made
    without the labels of the fold do not show it."""
    Memo.fits = []

    def make(config: RankerConfig, cache: Path) -> FeaturesRanker:
        return (Memo if config.name == "memo" else FeaturesRanker)(config, cache)

    monkeypatch.setattr(run, "make_ranker", make)
    monkeypatch.setattr(nested, "make_ranker", make)
    if leaks:
        monkeypatch.setattr(run, "scores_without", lambda scores, *more: scores.tables)
    memo = RankerConfig(name="memo", family="features")
    reader = RankerConfig(name="f", family="features", signals_from=["memo"], signals={"tree_share": 0.0, "ridge": 0.1})  # type: ignore[arg-type]
    ensemble = EnsembleConfig(rankers=["memo", "f"], folds=3, group_column="module")
    settings = Run(rankers=[memo, reader], retrieval=RetrievalConfig(source="none"), ensemble=ensemble)
    questions, workdir = lettered(), Workdir.open(tmp_path)
    train_folds(settings, questions, workdir, range(3))
    oof = load_oof(workdir)
    assert sorted(np.bincount(oof.folds, 1 - oof.answers).tolist()) == [4, 10, 16]
    score = map_at_k(oof.probabilities["f"], oof.answers)
    assert Memo.fits == ([40] * 3 if leaks else [40] * 3 + [20] * 3)  # each pair of folds once
    assert score > 0.8 if leaks else score <= 0.76  # by chance: 0.75

    # What is there is not made again; another training of the named ranker is noticed.
    train_folds(settings, questions, workdir, range(3))
    assert len(Memo.fits) == 3 + 3 * (not leaks)
    workdir.oof_part("memo", 1).unlink()
    alone = settings.model_copy(update={"rankers": [reader]})
    with pytest.raises(UserError, match="f learns from the scores of memo: the ranker memo has no OOF part of fold 1"):
        train_folds(alone, questions, workdir, [0])


# --- what it costs -------------------------------------------------------------------------


def test_the_cost_of_a_ranker_has_those_whose_scores_it_reads() -> None:
    costs = {"a": Cost(1.0, 5.0), "b": Cost(2.0, 7.0), "f": Cost(0.5)}
    about = {"a": {}, "b": {}, "f": {"signals_from": {"a": "x", "b": "y"}}}
    f = with_sources(costs, ["f"], about)["f"]
    assert (f.beyond().seconds_per_question, f.beyond().load_seconds) == (3.5, 12.0)
    assert (f.beyond(["b"]).seconds_per_question, f.beyond(["a", "b"]).seconds_per_question) == (1.5, 0.5)
    costs["b"] = Cost(None)
    assert with_sources(costs, ["f"], about)["f"].beyond().seconds_per_question is None

    # In a cascade it stands behind those that it reads, and adds what these have not cost already.
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(3), (2, 30)).astype(np.float32)
    problem = Problem(["f", "s"], table, np.ones((30, 3), bool), rng.integers(0, 3, 30), np.arange(30) % 3)
    costs = {"f": Cost(0.0, sources={"s": Cost(1.0, 5.0)}), "s": Cost(1.0, 5.0)}

    def equal(part: Problem) -> Recipe:
        return Recipe(part.equal())

    plan = plan_cascade(problem, fit_candidate(problem, equal), equal, costs, 100, 0)
    assert plan.order == ("s", "f")
    assert plan.points[-1].seconds_per_question == pytest.approx(1.0) and plan.points[-1].load_seconds == 5.0


# --- who answers without -------------------------------------------------------------------


def engine_with(tmp_path: Path, exam: Exam) -> tuple[Engine, FeaturesRanker]:
    """A ranker `f` that reads the scores of `a`, which is not blended; and `f` as it was trained."""
    exam.option_scores["passage"] = np.nan_to_num(exam.signals["noise0"])
    source = RankerConfig(name="a", family="similarity", option_score="passage")
    config = features(trees=5, forests=1).model_copy(update={"name": "f", "signals_from": ["a"]})
    ranker = FeaturesRanker(config, tmp_path)
    table = make_ranker(source, tmp_path).predict(exam)
    ranker.fit(with_scores([exam], {"a": table}, exam.questions.exists())[0], exam.subset([]), tmp_path)
    folder = tmp_path / "f"
    folder.mkdir()
    ranker.save(folder)
    answers = Answers(exam.questions, Recipes(Recipe({"f": 1.0})), {"f": 1, "a": 1}, Timeline(Limits()), None, ["a"])
    rankers = {
        "f": ReadyRanker(TrainedRanker("f", config, [folder]), [exam.hidden()], 0.0),
        "a": ReadyRanker(TrainedRanker("a", source, []), [exam.hidden()], 0.0),
    }
    return engine_on(answers, rankers, tmp_path), ranker


@pytest.mark.parametrize("problem", [None, Fault("broken"), OutOfTime()])
def test_the_answer_comes_whatever_becomes_of_the_scores(
    problem: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = exam_of(30)
    engine, ranker = engine_with(tmp_path, exam)
    asked, answer = [], engine.answering.answer

    def watch(name: str, rows: np.ndarray) -> None:
        asked.append(name)
        if name == "a" and problem is not None:
            raise problem
        answer(name, rows)

    monkeypatch.setattr(engine.answering, "answer", watch)
    engine.run([Stage("f", Recipe({"f": 1.0}))])
    turns, scored = engine.answers.turns, {"a": make_ranker(engine.answering.rankers["a"].trained.config, tmp_path)}
    table = scored["a"].predict(exam)
    exists = exam.questions.exists()
    expected = ranker.predict(exam if problem else with_scores([exam], {"a": table}, exists)[0])
    np.testing.assert_allclose(engine.answers.blended(), expected, atol=1e-6)
    # Its own answer comes first: the scores may take long.
    assert asked == (["f", "a"] if isinstance(problem, OutOfTime) else ["f", "a", "f"])
    states = {None: ("finished", "finished"), Fault: ("finished", "failed"), OutOfTime: ("partial", "skipped")}
    assert (turns["f"].state, turns["a"].state) == states[None if problem is None else type(problem)]
    line = "f: 30 of 30 questions answered without the scores of a"
    assert engine.answers.unscored() == ([line] if problem else [])
    assert engine.answers.groups()[0][0] == ("f",)  # `a` is in no blend


def test_options_that_were_dropped_have_no_scores(tmp_path: Path) -> None:
    exam = exam_of(30)
    engine, ranker = engine_with(tmp_path, exam)
    answers = engine.answers
    answers.turns["a"].alive[:4, 0] = False  # it was shown fewer options of these questions
    answers.turns["a"].planned[:] = True
    engine.answering.answer("a", np.arange(30))
    answers.turns["f"].alive[10:, 3] = False
    assert answers.scored("a", "f").tolist() == [False] * 4 + [True] * 26
    engine.answering.answer("f", np.arange(30))
    assert answers.turns["f"].unscored == {"a": 4}
    np.testing.assert_allclose(answers.turns["f"].table()[:4], ranker.predict(exam)[:4], atol=1e-6)
    # Answers that are no probabilities do not replace those that are there.
    before = answers.turns["f"].table()
    with pytest.raises(Fault):
        answers.replace("f", np.arange(2), [np.full((2, 4), np.nan)])
    np.testing.assert_array_equal(answers.turns["f"].table(), before)
