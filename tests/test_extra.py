"""Training-only questions: how they are read and weighed, in which folds they are used, and what they never reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_questions, tiny_config, tiny_exam
from pydantic import ValidationError
from test_features import exam_of
from test_training_options import CPU, Toy

from solution.config import (
    EnsembleConfig,
    ExtraQuestions,
    RankerConfig,
    RerankerTraining,
    RetrievalConfig,
    Run,
    SignalLearning,
    TrainingSettings,
)
from solution.doctor.examined import ReadOnce
from solution.doctor.pretraining import extra as examined_extra
from solution.errors import UserError
from solution.exam import Exam, JoinedPassages, Supervision, texts_read
from solution.files import content_hash
from solution.learning.gradient import Aim, Batch, divergence, listwise_loss
from solution.learning.task import Targets
from solution.oof import load_oof
from solution.questions import Questions, joined, write_questions
from solution.rankers.examples import choose_examples
from solution.rankers.families import make_ranker
from solution.rankers.features import FeaturesRanker
from solution.rankers.option_inputs import OptionInputs
from solution.rankers.option_models import Forests, LinearModel
from solution.rankers.supervision import question_weights
from solution.training import full, run
from solution.training.extra import ExtraFiles, folds_near
from solution.training.full import train_full
from solution.training.run import train_folds
from solution.weights import read_metrics
from solution.workdir import Workdir

# --- settings and files --------------------------------------------------------------------


def test_the_path_of_a_file_does_not_count_and_rankers_that_learn_nothing_refuse_it() -> None:
    extra = {"training": {"extra": [{"questions": "more.csv", "weight": 0.5}]}}
    plain, more = (RankerConfig(name="f", family="features", **values) for values in ({}, extra))  # type: ignore[arg-type]
    assert plain.hash() == more.hash()  # what is in the file is part of a fold's inputs
    with pytest.raises(ValidationError, match=r"training\.extra is for rankers that learn"):
        RankerConfig(name="s", family="similarity", **extra)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="signals_from do not go together.* Give training.extra to a instead"):
        RankerConfig(name="f", family="features", signals_from=["a"], **extra)  # type: ignore[arg-type]
    for setting in ({"option_count_weight": "log"}, extra["training"]):
        with pytest.raises(ValidationError, match="is a setting of rankers, not of a reranker"):
            RerankerTraining(**setting)  # type: ignore[arg-type]
    log = TrainingSettings(option_count_weight="log")
    assert log.hash() != TrainingSettings().hash()
    assert not {"extra", "option_count_weight"} & set(TrainingSettings().hashed_values())


def write(path: Path, rows: list[str], header: str = "id,prompt,A,B,answer,weight") -> ExtraQuestions:
    path.write_text("\n".join([header, *rows]) + "\n")
    return ExtraQuestions(questions=str(path))


def test_a_row_has_its_weight_and_without_one_is_left_out(tmp_path: Path) -> None:
    settings = write(tmp_path / "w.csv", ["a,Which one?,x,y,A,2", "b,Which two?,x,y,B,", "c,Which?,x,y,B,0"])
    assert ExtraFiles().of(settings).ids == ["a", "b"]
    for cell in ("much", "-1", "nan", "1e308"):
        settings = write(tmp_path / "w.csv", ["a,Which one?,x,y,A,1", f"b,Which two?,x,y,B,{cell}"])
        with pytest.raises(
            UserError, match=rf"weight must hold numbers from 0 to 1,000,000, and holds '{cell}' \(id b, 1 rows\)"
        ):
            ExtraFiles().of(settings)
    # Columns and encoding as on the command line.
    (tmp_path / "own.csv").write_bytes("frage;erste;zweite;key\nWozu Öl?;a;b;B\n".encode("cp1252"))
    columns = {"prompt": "frage", "A": "erste", "B": "zweite", "answer": "key"}
    read = ExtraFiles().of(ExtraQuestions(questions=str(tmp_path / "own.csv"), columns=columns, encoding="cp1252"))
    assert (read.prompts, read.answers.tolist()) == (["Wozu Öl?"], [1])


def settings_of(rankers: list[RankerConfig], folds: int = 3, **ensemble: Any) -> Run:
    names = [config.name for config in rankers]
    ensemble_settings = EnsembleConfig(rankers=names, folds=folds, **ensemble)
    return Run(rankers=rankers, retrieval=RetrievalConfig(source="none"), ensemble=ensemble_settings)


def learner(name: str, *extra: dict[str, Any]) -> RankerConfig:
    signals = {"tree_share": 0.0}
    return RankerConfig(name=name, family="features", signals=signals, training={"extra": list(extra)})  # type: ignore[arg-type]


def test_wrong_files_and_models_are_told_together_before_anything_starts(tmp_path: Path) -> None:
    write(tmp_path / "open.csv", ["a,Which one?,x,y,,1", "b,Which two?,x,y,B,1"])
    rankers = [
        tiny_config("multiple_choice", str(tmp_path / "no_model"), name="m"),
        learner("f", {"questions": str(tmp_path / "gone.csv")}, {"questions": str(tmp_path / "open.csv")}),
    ]
    with pytest.raises(UserError) as caught:
        train_folds(settings_of(rankers), random_questions(12), Workdir.open(tmp_path / "work"), [0])
    assert len(caught.value.problems) == 3
    assert "no_model" in caught.value.problems[0] and "gone.csv" in caught.value.problems[1]
    assert (
        "f: training.extra: training.extra" in caught.value.problems[2] and "(first: id a)" in caught.value.problems[2]
    )
    assert not (tmp_path / "work" / "oof").exists()
    column = settings_of([learner("f", {"questions": str(tmp_path / "open.csv")})])
    write(tmp_path / "open.csv", ["a,Which one?,x,y,A,1"])
    column.retrieval = RetrievalConfig(source="column")
    with pytest.raises(UserError, match=r"open.csv has no column 'context'"):
        ExtraFiles().check(column)


# --- in which folds ------------------------------------------------------------------------


def test_a_question_that_repeats_one_of_a_fold_is_known() -> None:
    exam = random_questions(6, options=3)
    exam.extra = {"context": ["", "the same  text", "", "", "", ""], "module": ["m0", "", "", "m3", "m3", ""]}
    folds = np.array([0, 0, 1, 1, 2, 2])
    fresh = random_questions(1, options=4, seed=9)
    words = exam.prompts[2].split()
    rows = [
        (exam.prompts[0].upper(), exam.options[0][::-1], "", ""),  # the same
        (" ".join([*words[:-1], "moreover", words[-1]]), exam.options[2], "", ""),  # nearly
        ("Something else?", ["p", "q"], "the same text", ""),  # of the same context
        ("Another thing?", ["r", "s"], "", "m3"),  # of the same module
        (fresh.prompts[0], fresh.options[0], "", ""),
    ]
    prompts, options, contexts, modules = map(list, zip(*rows, strict=True))
    columns = {"Context": contexts, "module": modules}
    extra = Questions([str(i) for i in range(5)], prompts, options, np.zeros(5, dtype=np.int64), columns)
    settings = EnsembleConfig(rankers=["f"], folds=3, near_duplicate=0.8)
    near = folds_near(extra, exam, folds, settings)
    assert [np.flatnonzero(row).tolist() for row in near] == [[0], [1], [0], [], []]
    by_module = folds_near(extra, exam, folds, settings.model_copy(update={"group_column": "module"}))
    assert [np.flatnonzero(row).tolist() for row in by_module] == [[0], [1], [0], [1, 2], []]
    # A chain: the second is not near the exam's question, and near the first, which is.
    chain = joined([extra.subset([1]), extra.subset([1])])
    chain.prompts[1] = " ".join([*words[:-1], "moreover", "indeed", words[-1]])
    assert not folds_near(chain.subset([1]), exam, folds, settings).any()
    assert folds_near(chain, exam, folds, settings).tolist() == [[False, True, False]] * 2


class Watched(FeaturesRanker):
    """Keeps what it was trained on."""

    lessons: list[Exam] = []

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        Watched.lessons.append(train)
        return super().fit(train, valid, checkpoint, logs)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Exam]:
    Watched.lessons = []
    for module in (run, full):
        monkeypatch.setattr(module, "make_ranker", Watched)
    return Watched.lessons


def test_training_only_questions_are_in_trainings_and_nowhere_else(
    tmp_path: Path, watched: list[Exam], capsys: pytest.CaptureFixture[str]
) -> None:
    exam, workdir = random_questions(30, options=3), Workdir.open(tmp_path / "work")
    fresh = random_questions(10, options=5, seed=1)
    again = exam.subset(range(8))
    extra = joined([fresh, Questions([f"x{i}" for i in again.ids], again.prompts, again.options, again.answers)])
    write_questions(tmp_path / "extra.csv", extra)
    settings = settings_of([learner("f", {"questions": str(tmp_path / "extra.csv"), "weight": 0.25})])
    train_folds(settings, exam, workdir, range(3))
    told = capsys.readouterr().err.replace("\n", " ")
    assert "f trains on 18 questions of" in told and "8 of them (first: id xq0) repeat a question of the exam" in told
    oof = load_oof(workdir)
    assert sorted(oof.ids) == sorted(exam.ids)
    fold_of = dict(zip(oof.ids, oof.folds.tolist(), strict=True))
    for fold, lesson in enumerate(watched):
        supervision = lesson.supervision
        assert supervision is not None
        own = {id_ for id_, fold_ in fold_of.items() if fold_ != fold}
        assert {id_ for id_, more in zip(lesson.questions.ids, supervision.is_extra, strict=True) if not more} == own
        shown = {id_.removeprefix("extra0:") for id_ in lesson.questions.ids[len(own) :]}
        assert shown == {*fresh.ids, *(f"x{id_}" for id_ in again.ids if fold_of[id_] != fold)}
        assert supervision.weights.tolist() == [1.0] * len(own) + [0.25] * len(shown)
        assert read_metrics(workdir.fold_weights("f", fold), "")["extra_questions"] == len(shown)
    train_full(settings, exam, workdir)
    assert len(watched[3]) == 48

    # A file that moved is the same; another weight, or another text, is not.
    def trainings(path: str, weight: float) -> int:
        before = len(watched)
        train_folds(settings_of([learner("f", {"questions": path, "weight": weight})]), exam, workdir, [0])
        return len(watched) - before

    (tmp_path / "moved.csv").write_bytes((tmp_path / "extra.csv").read_bytes())
    assert trainings(str(tmp_path / "moved.csv"), 0.25) == 0
    assert trainings(str(tmp_path / "moved.csv"), 0.5) == 1
    extra.options[0][0] += "s"
    write_questions(tmp_path / "moved.csv", extra)
    assert trainings(str(tmp_path / "moved.csv"), 0.5) == 1
    with pytest.raises(UserError, match="made with other training-only questions"):
        load_oof(workdir)
    files = [path for path in tmp_path.rglob("weights/**/*") if path.is_file()]
    assert files and not any(fresh.prompts[3] in path.read_text(errors="ignore") for path in files)

    class Folder:  # what the doctor looks at
        pass

    folder: Any = Folder()
    folder.run, folder.exam = ReadOnce(lambda: settings), ReadOnce(lambda: exam)
    findings = [finding.found for finding in examined_extra(folder)]
    assert "18 questions of" in findings[0] and "weight 0.25" in findings[0] and "8 of them" in findings[1]


# --- weights -------------------------------------------------------------------------------


def test_weights_have_a_mean_of_one_and_questions_begin_alike() -> None:
    exam = tiny_exam(4, options=(4, 5))
    plain, log = TrainingSettings(), TrainingSettings(option_count_weight="log")
    assert question_weights(exam, plain) is None and question_weights(exam.subset([0, 2]), log) is None
    weights = question_weights(exam, log)
    assert weights is not None and weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.ptp(weights * np.log([4, 5, 4, 5])), 0, atol=1e-12)
    exam.supervision = Supervision.of(4, np.array([1.0, 1.0, 1.0, 0.5]))
    found = question_weights(exam, plain)
    assert found is not None and found.tolist() == pytest.approx([8 / 7, 8 / 7, 8 / 7, 4 / 7])


def test_a_loss_counts_as_often_as_its_weight_says() -> None:
    torch.manual_seed(0)
    scores, others = torch.randn(2, 3), torch.randn(2, 3)
    scores[0, 2] = others[0, 2] = -torch.inf
    answers, weights, rows = torch.tensor([1, 2]), torch.tensor([2.0, 1.0]), [0, 0, 1]
    for smoothing in (0.0, 0.2):
        expected = listwise_loss(scores[rows], answers[rows], smoothing)
        assert torch.isclose(listwise_loss(scores, answers, smoothing, weights), expected)
    assert torch.isclose(divergence(scores, others, weights), divergence(scores[rows], others[rows]))


def test_the_loop_weighs_questions_and_their_guesses() -> None:
    toy = Toy(4)
    batch = Batch([0, 1], toy.answers[:2], weights=np.array([2.0, 0.0]))
    one = Aim().loss(toy, Batch([0], toy.answers[:1]), CPU)
    assert torch.isclose(Aim().loss(toy, batch, CPU), 2 * one)
    targets = Targets(toy.answers, np.array([3, 4, 3, 4]), np.array([1.5, 0.5, 1.0, 1.0]))
    assert targets.guess([0, 1]) == pytest.approx((1.5 * np.log(3) + 0.5 * np.log(4)) / 2)


def test_a_weight_of_two_is_a_question_twice_to_the_linear_model() -> None:
    exam = exam_of(20)
    exists, answers = exam.questions.exists(), exam.questions.answers
    tables = [exam.signals["good"], exam.signals["noise0"]]
    right = (np.arange(4) == answers[:, None])[exists]
    weights = np.array([2.0, 1.0] * 10)
    twice = np.repeat(np.arange(20), weights.astype(int))
    mean_of = LinearModel.fit(OptionInputs.of(tables, exists), right, 1.0, weights)
    repeated = OptionInputs.of([table[twice] for table in tables], exists[twice])
    again = LinearModel.fit(repeated, (np.arange(4) == answers[twice, None])[exists[twice]], 1.0)
    # The inputs' mean and deviation are those of other rows: the direction is compared, not the last digits.
    plain = LinearModel.fit(OptionInputs.of(tables, exists), right, 1.0)
    alike = [np.corrcoef(model.coefficients, again.coefficients)[0, 1] for model in (mean_of, plain)]
    assert alike[0] > 0.999 > alike[1]
    inputs, few = OptionInputs.of(tables, exists), SignalLearning(trees=3, forests=1, options_per_leaf=3)
    scores = [Forests.fit(inputs, right, few, 0, weights).scores(inputs) for weights in (None, np.ones(20), weights)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 1e-4


def test_passages_that_stay_on_disk_are_joined_as_if_they_were_read() -> None:
    class OnDisk(list[Any]):
        identity = ["a file"]

        def subset(self, rows: Any) -> list[Any]:
            return OnDisk([self[row] for row in rows])

    first, second = tiny_exam(4), tiny_exam(3, seed=1)
    read = first.followed_by(second).passages
    first.passages = OnDisk(first.passages)
    both = first.followed_by(second)
    assert isinstance(both.passages, JoinedPassages) and list(both.passages) == list(read)
    part = both.subset([5, 0, 6, 2])
    assert list(part.passages) == [read[row] for row in (5, 0, 6, 2)]
    assert isinstance(part.passages, JoinedPassages) and [len(part) for part in part.passages.parts] == [2, 2]
    assert texts_read(part) != texts_read(both.subset([0, 5, 6, 2])) and texts_read(both)[0] == ["a file"]


# --- a ranker with a model -----------------------------------------------------------------


def test_examples_in_the_prompt_are_questions_of_the_exam() -> None:
    exam, config = tiny_exam(8), tiny_config("causal", "x", prompt={"few_shot": 2})
    both = exam.followed_by(tiny_exam(8, seed=1))
    assert both.supervision is not None
    both.supervision.is_extra[8:] = True
    assert choose_examples(both, config) == choose_examples(exam, config)


def test_a_model_learns_from_questions_of_more_options_and_by_their_weights(tiny: Any, tmp_path: Path) -> None:
    exam, more = tiny_exam(8, options=3), tiny_exam(6, options=5, seed=1)
    config = tiny_config("multiple_choice", tiny("bert"), training={"option_count_weight": "log"})

    def trained(weight: float) -> tuple[str, np.ndarray]:
        more.supervision = Supervision.of(6, np.full(6, weight), is_extra=True)
        ranker = make_ranker(config, tmp_path)
        facts = ranker.fit(exam.followed_by(more), exam.subset([]), tmp_path / f"c{weight}")
        assert facts["steps"] == 4  # of 14 questions, four a step
        return content_hash(facts["loss"]), ranker.predict(exam.hidden())

    half, whole = trained(0.5), trained(1.0)
    assert half[0] != whole[0] and np.abs(half[1] - whole[1]).max() > 1e-6
    assert whole[1].shape == (8, 3)
    assert json.dumps(half[0]) == json.dumps(trained(0.5)[0])
