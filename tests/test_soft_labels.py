"""Soft labels: what the aim is made of, whose probabilities are taken, and that no fold's answers reach its score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_questions, tiny_config, tiny_exam
from pydantic import ValidationError
from test_stacking import Memo, lettered
from test_training_options import CPU, Toy

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run
from solution.config_files import load_run
from solution.ensemble.imported import import_oof
from solution.errors import UserError
from solution.exam import Exam, Supervision
from solution.folds import exam_folds
from solution.learning.gradient import Aim, Batch, listwise_loss
from solution.learning.log import LOG
from solution.metrics import map_at_k
from solution.oof import load_oof
from solution.questions import Questions, joined, write_questions
from solution.rankers.features import FeaturesRanker
from solution.rankers.supervision import target_probabilities
from solution.training import full, nested, run
from solution.training.extra import ExtraFiles
from solution.training.full import train_full
from solution.training.run import train_folds
from solution.training.soft_labels import check_teachers, read_teacher
from solution.workdir import Workdir


def student(name: str = "student", **soft: Any) -> RankerConfig:
    return tiny_config("multiple_choice", "x", name=name, training={"soft_labels": {"from": "memo", **soft}})


# --- settings and aims ---------------------------------------------------------------------


def test_where_soft_labels_come_from_counts_by_content() -> None:
    config = student(temperature=3)
    assert config.teachers == ["memo"] and student(**{"from": "a.csv"}).teachers == []
    stored = RankerConfig.model_validate(config.model_dump(mode="json"))  # as ranker.json keeps it
    assert stored == config and stored.hash() == config.hash()
    plain = tiny_config("multiple_choice", "x", name="student")
    assert student(**{"from": "other"}).hash() == student().hash() != plain.hash()
    assert "soft_labels" not in plain.training.hashed_values()
    with pytest.raises(ValidationError, match="whose model is trained: .* Name the teacher in signals_from"):
        RankerConfig(name="f", family="features", training={"soft_labels": {"from": "a"}})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="names the ranker itself"):
        student("memo")


def test_a_teacher_in_the_settings_stands_first(tmp_path: Path) -> None:
    soft = "model: x\ntraining:\n  soft_labels:\n    from: memo"
    for name, text in {
        "ensemble": "rankers: [student, memo]",
        "retrieval": "source: none",
        "memo": "name: memo\nfamily: features",
        "student": f"name: student\nfamily: multiple_choice\n{soft}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    loaded = load_run(tmp_path, ["student.training.soft_labels.share=0.25"])
    assert [config.name for config in loaded.rankers] == ["memo", "student"]
    with pytest.raises(UserError, match=r"soft_labels\.form; did you mean .*soft_labels\.from"):
        load_run(tmp_path, ["student.training.soft_labels.form=a"])


def test_the_aim_is_a_mean_of_the_right_answer_and_the_softened_teacher() -> None:
    exam = tiny_exam(3, options=(3, 2, 3))
    exam.questions.answers[:] = [0, 1, 2]
    given = np.array([[0.64, 0.32, 0.04], [0.2, 0.8, np.nan], [np.nan] * 3], dtype=np.float32)
    exam.supervision = Supervision.of(3, teacher=given)
    settings = student(share=0.5, temperature=2.0).training
    found = target_probabilities(exam, settings)
    roots = np.sqrt([0.64, 0.32, 0.04])
    expected = [0.5 * roots / roots.sum() + [0.5, 0, 0], [1 / 6, 5 / 6, 0], [0, 0, 1]]
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert target_probabilities(exam.subset([2]), settings) is None
    # However low the temperature is, the surest option has all of the teacher's share.
    for temperature in (1e-3, 1e-310):
        found = target_probabilities(exam, student(share=1.0, temperature=temperature).training)
        assert found is not None and found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    # A question with fewer columns than the exam has, and one that is sure.
    exam.supervision = Supervision.of(3, teacher=np.array([[0.5, 0.5], [1, 0], [0.5, 0.5]], dtype=np.float32))
    found = target_probabilities(exam, student(share=1.0).training)
    assert found is not None and found[0].tolist() == [1, 0, 0] and found[1, 1] < 0.01 and found[2, 2] == 1


def test_soft_labels_go_with_smoothing_weights_and_r_drop() -> None:
    torch.manual_seed(1)
    scores, answers = torch.randn(2, 3), torch.tensor([0, 1])
    scores[1, 2] = -torch.inf
    soft, even = torch.tensor([[0.5, 0.3, 0.2], [0.25, 0.75, 0]]), torch.tensor([[1 / 3] * 3, [0.5, 0.5, 0]])
    logs = scores.log_softmax(1).masked_fill(scores.isinf(), 0)
    mixed, weights = 0.9 * soft + 0.1 * even, torch.tensor([2.0, 0.5])
    found = listwise_loss(scores, answers, 0.1, weights, soft)
    assert torch.isclose(found, -((mixed * logs).sum(1) * weights).sum())
    one_hot = torch.nn.functional.one_hot(answers, 3).float()
    assert torch.isclose(listwise_loss(scores, answers, 0.1, None, one_hot), listwise_loss(scores, answers, 0.1))
    # A table wider than the batch's questions; two passes without dropout agree.
    toy = Toy(4)
    wide = Batch([0, 1], toy.answers[:2], soft=np.pad(np.full((2, 3), 1 / 3, dtype=np.float32), ((0, 0), (0, 2))))
    assert torch.isclose(Aim(r_drop=1.0).loss(toy, wide, CPU), Aim().loss(toy, wide, CPU))
    even_loss = listwise_loss(toy.scores([0, 1]), torch.tensor([0, 1]), soft=torch.full((2, 3), 1 / 3))
    assert torch.isclose(Aim().loss(toy, wide, CPU), even_loss)


# --- what leaks ----------------------------------------------------------------------------


class Pupil(FeaturesRanker):
    """Has learnt how often its teacher finds which letter right: it knows nothing of a question."""

    lessons: list[Exam] = []

    def fit(self, train: Exam, valid: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        Pupil.lessons.append(train)
        targets = target_probabilities(train, self.config.training)
        if targets is None:
            targets = np.eye(train.questions.max_options)[train.questions.answers]
        self.share = targets.mean(axis=0)
        assert logs is not None
        logs.mkdir(parents=True, exist_ok=True)
        (logs / LOG).write_text("step\n")
        return {"steps": 1}

    def predict(self, exam: Exam) -> np.ndarray:
        return np.tile(self.share.astype(np.float32), (len(exam), 1))

    def save(self, folder: Path) -> None:
        (folder / "share.json").write_text(str(self.share.tolist()))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rankers with a model are pupils, and all others remember letters."""
    Memo.fits, Pupil.lessons = [], []
    for module in (run, nested, full):
        monkeypatch.setattr(
            module, "make_ranker", lambda config, cache: (Pupil if config.trains else Memo)(config, cache)
        )
    monkeypatch.setattr(run, "check_models", lambda rankers: None)


def settings_of(*rankers: RankerConfig) -> Run:
    ensemble = EnsembleConfig(rankers=[config.name for config in rankers], folds=3, group_column="module")
    return Run(rankers=list(rankers), retrieval=RetrievalConfig(source="none"), ensemble=ensemble)


MEMO = RankerConfig(name="memo", family="features")


@pytest.mark.parametrize("leaks", [False, True])
@pytest.mark.usefixtures("made")
def test_labels_of_a_fold_do_not_reach_the_score_of_a_student(
    leaks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be known of these questions. The OOF probabilities of the other folds were made by teachers that had
    seen this one, and bend towards the letter that is right in it more often: a student of them seems to know."""
    if leaks:
        taken = lambda fold, run, prepared, workdir: getattr(prepared.teacher, "table", None)  # noqa: E731
        monkeypatch.setattr(run, "soft_labels_without", taken)
    questions, workdir = lettered(), Workdir.open(tmp_path)
    settings = settings_of(MEMO, student(share=1.0, temperature=1.0))
    train_folds(settings, questions, workdir, range(3))
    oof = load_oof(workdir)
    score = map_at_k(oof.probabilities["student"], oof.answers)
    assert Memo.fits == ([40] * 3 if leaks else [40] * 3 + [20] * 3)  # each pair of folds once
    assert score > 0.8 if leaks else score <= 0.76  # by chance: 0.75

    # What is there is not made again; another teacher is noticed; with --full the OOF probabilities are taken.
    train_folds(settings, questions, workdir, range(3))
    assert len(Pupil.lessons) == 3 and len(Memo.fits) == 3 + 3 * (not leaks)
    train_full(settings, questions, workdir)
    taught = Pupil.lessons[3].supervision
    assert taught is not None and len(Memo.fits) == 4 + 3 * (not leaks)
    row_of = {id_: row for row, id_ in enumerate(oof.ids)}
    np.testing.assert_array_equal(taught.teacher, oof.probabilities["memo"][[row_of[id_] for id_ in questions.ids]])


# --- teachers from elsewhere ---------------------------------------------------------------


def answers_file(path: Path, questions: Questions, rows: slice = slice(None)) -> tuple[str, np.ndarray]:
    table = np.random.default_rng(5).dirichlet([1.0, 1.0, 1.0], len(questions))
    lines = [f"{id_},{','.join(map(str, row))}" for id_, row in zip(questions.ids, table, strict=True)]
    path.write_text("\n".join(["id,p_A,p_B,p_C", *lines[rows]]) + "\n")
    return str(path), table


@pytest.mark.usefixtures("made")
def test_a_file_teaches_some_questions_and_training_only_ones(tmp_path: Path) -> None:
    exam, more = random_questions(20, options=3), random_questions(6, options=3, seed=1)
    exam.extra = {"module": [f"m{row % 6}" for row in range(20)]}
    more.ids = ["q0", *[f"e{row}" for row in range(1, 6)]]  # the first has an id of the exam
    write_questions(tmp_path / "more.csv", more)
    file, table = answers_file(tmp_path / "p.csv", joined([exam, more.subset(range(1, 6))]), slice(4, 24))
    soft = {"from": file, "independent": True}
    extra = [{"questions": str(tmp_path / "more.csv")}]
    config = tiny_config("multiple_choice", "x", name="s", training={"soft_labels": soft, "extra": extra})
    train_folds(settings_of(config), exam, Workdir.open(tmp_path / "work"), [0])
    (lesson,) = Pupil.lessons
    assert lesson.supervision is not None
    rows = dict(zip(lesson.questions.ids, lesson.supervision.teacher, strict=True))
    for id_, row in rows.items():
        taught = int(id_[1:]) >= 4 if id_.startswith("q") else id_ in {f"extra0:e{i}" for i in range(1, 5)}
        assert np.isnan(row).all() != taught, id_
    np.testing.assert_allclose(rows["extra0:e2"], table[21], atol=1e-6)
    np.testing.assert_allclose(rows[next(id_ for id_ in ("q7", "q8", "q9") if id_ in rows)].sum(), 1, atol=1e-6)


@pytest.mark.usefixtures("made")
def test_teachers_that_could_tell_answers_are_refused(tmp_path: Path) -> None:
    exam, workdir, files = random_questions(12, options=3), Workdir.open(tmp_path / "work"), ExtraFiles()
    exam.extra = {"module": [f"m{row % 4}" for row in range(12)]}
    file, table = answers_file(tmp_path / "p.csv", exam)
    reader = RankerConfig(name="reader", family="features", signals_from=["student"])
    chained = student("chained", **{"from": "student"})
    unknown, of_file = student("unknown", **{"from": "nobody"}), student("of_file", **{"from": file})
    gone = student("gone", **{"from": str(tmp_path / "gone.csv"), "independent": True})
    settings = settings_of(MEMO, student(), reader, chained, unknown, of_file, gone)
    with pytest.raises(UserError) as caught:
        check_teachers(settings, exam, files, workdir)
    reader_, chained_, unknown_, file_, gone_ = caught.value.problems
    assert "reader: signals_from names student, which learns from memo" in reader_
    assert "chained: training.soft_labels.from names student, which learns from other rankers itself" in chained_
    assert "names nobody, which is no ranker of these settings" in unknown_ and "--ranker nobody" in unknown_
    assert "of_file: training.soft_labels: nothing tells whether" in file_ and "independent=true" in file_
    assert "gone.csv" in gone_
    # An imported ranker.
    folds = exam_folds(exam, settings.ensemble, workdir.folds)
    import_oof("other", Path(file), exam, folds, 3, workdir, False)
    alone = settings_of(student(**{"from": "other"}))
    with pytest.raises(UserError, match="nothing tells whether the imported ranker other"):
        check_teachers(alone, exam, files, workdir)
    vouched = student(**{"from": "other", "independent": True})
    check_teachers(settings_of(vouched), exam, files, workdir)
    teacher = read_teacher(vouched, exam, folds, files, workdir)
    assert teacher is not None and teacher.trained is None
    np.testing.assert_allclose(teacher.table, table, atol=1e-6)
