"""Training on all questions, and who answers in a submission."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_config, tiny_exam
from pipeline import run

from solution.config import RankerConfig, RetrievalConfig
from solution.ensemble.costs import measured_cost
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.exam import Exam
from solution.files import read_json, write_json
from solution.inference.trained import TrainedRanker
from solution.questions import read_questions
from solution.rankers.families import make_ranker
from solution.retrieval.contexts.build import build_contexts
from solution.training.full import full_settings, trained_share
from solution.workdir import Workdir


@pytest.fixture(scope="module")
def trained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished working folder, its trained ranker trained on all questions too, from two seeds."""
    folder = tmp_path_factory.mktemp("full") / "work"
    shutil.copytree(finished, folder)
    done = run("train", "--full", "--seeds", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "tiny on all 9 questions, seed 0:" in done.stderr and "tiny on all 9 questions, seed 1000:" in done.stderr
    assert "similarity: is not trained" in done.stderr
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def _probabilities(path: Path) -> np.ndarray:
    with open(path, newline="") as stream:
        return np.array([[float(row[f"p_{letter}"]) for letter in "ABC"] for row in csv.DictReader(stream)])


def test_a_second_run_trains_nothing_and_more_seeds_are_added(copy: Path) -> None:
    workdir = Workdir(copy)
    before = {path: path.read_bytes() for path in workdir.full_weights("tiny", 0).iterdir()}
    done = run("train", "--full", "--seeds", "3", "--ranker", "tiny", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("already trained, nothing has changed") == 2 and "seed 2000: " in done.stderr
    assert before == {path: path.read_bytes() for path in workdir.full_weights("tiny", 0).iterdir()}
    weights = {(workdir.full_weights("tiny", k) / "adapter_model.safetensors").read_bytes() for k in range(3)}
    assert len(weights) == 3


def test_a_submission_averages_the_seeds(copy: Path) -> None:
    done = run("tune", "tune.choose=equal", "answer_with=full", cwd=copy)
    assert done.returncode == 0, done.stderr
    about = load_ensemble(Workdir(copy))["about"]
    assert about["tiny"]["answer_with"] == "full" and "answer_with" not in about["similarity"]
    done = run("submit", "--probabilities", "p.csv", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert "tiny: 9 questions, 2 seeds" in done.stderr

    # The same by hand: the mean of the two trained rankers, and of this and the similarity.
    questions = read_questions(copy / "questions.csv")
    config = RankerConfig.model_validate(read_json(copy / "weights/tiny/full_0/ranker.json", "", "")["config"])
    retrieval = read_json(copy / "weights/tiny/full_0/ranker.json", "", "")["retrieval"]
    retrieval["corpus"] = str(copy / "corpus.csv")
    exam = Exam.join(questions, build_contexts(questions, RetrievalConfig.model_validate(retrieval), copy)).hidden()
    ranker = make_ranker(config, copy / "cache")
    tables = []
    for number in range(2):
        ranker.load(Workdir(copy).full_weights("tiny", number))
        tables.append(ranker.predict(exam))
    assert np.abs(tables[0] - tables[1]).max() > 1e-6
    similarity = make_ranker(RankerConfig(name="similarity", family="similarity"), copy).predict(exam)
    np.testing.assert_allclose(_probabilities(copy / "p.csv"), (np.mean(tables, axis=0) + similarity) / 2, atol=1e-3)


def test_costs_count_the_weights_that_answer(trained: Path) -> None:
    workdir = Workdir(trained)
    about = {"folds": 3, "family": "multiple_choice"}
    folds = measured_cost(workdir, "tiny", about)
    full = measured_cost(workdir, "tiny", {**about, "answer_with": "full"})
    assert folds.seconds_per_question == pytest.approx(3 * folds.fold_seconds)
    assert full.seconds_per_question == pytest.approx(2 * folds.fold_seconds)


def test_the_command_line_of_a_submission_chooses_too(copy: Path) -> None:
    plain = run("submit", "--probabilities", "folds.csv", cwd=copy)
    full = run("submit", "tiny.answer_with=full", "--probabilities", "full.csv", cwd=copy)
    assert (plain.returncode, full.returncode) == (0, 0), full.stderr
    assert np.abs(_probabilities(copy / "folds.csv") - _probabilities(copy / "full.csv")).max() > 1e-6
    wrong = run("submit", "tiny.answer_with=all", cwd=copy)
    assert wrong.returncode == 2 and "tiny.answer_with" in wrong.stderr
    assert "'folds', 'average' or 'full'" in wrong.stderr


def test_weights_that_are_not_there_are_asked_for(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    done = run("tune", "tiny.answer_with=full", cwd=folder)
    assert done.returncode == 2 and "train_fold.py --full --ranker tiny" in done.stderr, done.stderr
    for arguments in ([], ["--fold", "0", "--full"], ["--all-folds", "--full"]):
        done = run("train", *arguments, cwd=folder)
        assert done.returncode == 2 and "give one of --fold K, --all-folds, --full and --average" in done.stderr
    done = run("train", "--all-folds", "--seeds", "2", cwd=folder)
    assert done.returncode == 2 and "--seeds is for --full" in done.stderr


def test_damaged_full_weights_are_told_by_doctor_and_left_out_of_a_submission(copy: Path) -> None:
    assert run("tune", "tune.choose=equal", "answer_with=full", cwd=copy).returncode == 0
    (copy / "weights/tiny/full_1/adapter_model.safetensors").write_bytes(b"cut")
    done = run("doctor", cwd=copy)
    assert done.returncode == 2 and "full_1" in "".join(done.stdout.split())
    done = run("submit", cwd=copy)
    assert "full_1" in done.stderr and "--full" in done.stderr
    assert len((copy / "submission.csv").read_text().splitlines()) == 10


def test_folds_that_are_trained_again_wait_for_tune(finished: Path) -> None:
    """On other training-only questions, say: the blend was tuned on what the folds before said."""
    about = load_ensemble(Workdir(finished))["about"]["tiny"]
    assert TrainedRanker.read(Workdir(finished), "tiny", about, []).asked_text == "3 folds"
    for name in ("extra", "soft_labels", "pretrained"):
        other: Any = {**about, name: "other"}
        with pytest.raises(UserError, match=rf"fold_0 were made with other {name} than the OOF files .* tune"):
            TrainedRanker.read(Workdir(finished), "tiny", other, [])
    other = {**about, "questions": "other"}
    with pytest.raises(UserError, match="fold_0 were trained on other questions or folds than .* tune"):
        TrainedRanker.read(Workdir(finished), "tiny", other, [])


def test_weights_of_another_exam_do_not_answer(copy: Path) -> None:
    assert run("tune", "tune.choose=equal", "answer_with=full", cwd=copy).returncode == 0
    exam = (copy / "questions.csv").read_text()
    (copy / "other.csv").write_text(exam.replace("star near Mars,A", "star near Mars,B"))
    assert (copy / "other.csv").read_text() != exam
    done = run("train", "--full", "--ranker", "tiny", "--questions", "other.csv", cwd=copy)
    assert done.returncode == 0, done.stderr
    done = run("tune", "tune.choose=equal", "answer_with=full", cwd=copy)
    assert done.returncode == 2 and "full_0" in done.stderr and "made with other questions" in done.stderr
    assert "train_fold.py --full --seeds 2 --ranker tiny" in done.stderr
    done = run("doctor", cwd=copy)
    assert "hashes checked; made with other questions than fold 0 was" in " ".join(done.stdout.split())
    done = run("submit", cwd=copy)
    assert "full_0" in done.stderr and "made with other questions" in done.stderr
    assert len((copy / "submission.csv").read_text().splitlines()) == 10


def test_a_ranker_that_is_not_trained_answers_all_the_same(copy: Path) -> None:
    done = run("submit", "similarity.answer_with=full", "tiny.answer_with=full", cwd=copy)
    assert done.returncode == 0 and "left out" not in done.stderr, done.stderr
    assert "answered by tiny, similarity" in done.stderr or "answered by similarity, tiny" in done.stderr


def test_a_bundle_holds_what_answers(copy: Path) -> None:
    assert run("tune", "tune.choose=equal", "tiny.answer_with=full", cwd=copy).returncode == 0
    done = run("bundle", "--output", "b", "--no-wheels", "--no-models", cwd=copy)
    assert done.returncode == 0, done.stderr
    names = {path.parent.name for path in (copy / "b").rglob("weights/tiny/*/ranker.json")}
    assert names == {"full_0", "full_1"}


def test_the_folds_tell_when_to_stop(tmp_path: Path) -> None:
    config = tiny_config("causal", "x", training={"keep": "best", "evaluations_per_epoch": 2, "epochs": 2})
    workdir = Workdir(tmp_path)
    with pytest.raises(UserError, match=r"the folds tell when to stop. Train them first: .*--all-folds --ranker tiny"):
        trained_share(config, 2, workdir)
    facts = [{"steps": 10, "planned_steps": 20, "kept_step": 5}, {"steps": 8, "kept_step": 6}]
    for fold, values in enumerate(facts):
        workdir.fold_weights("tiny", fold).mkdir(parents=True)
        write_json(workdir.fold_weights("tiny", fold) / "metrics.json", values)
    assert trained_share(config, 2, workdir) == pytest.approx((5 / 20 + 6 / 8) / 2)
    assert trained_share(tiny_config("causal", "x"), 2, workdir) == 1
    assert full_settings(config, 2).training.keep == "last" and full_settings(config, 2).seed == config.seed + 2000


def test_a_share_of_the_steps_is_the_beginning_of_the_whole_run(tiny, tmp_path: Path) -> None:
    config = tiny_config("causal", tiny("llama"), training={"epochs": 3, "questions_per_step": 2})
    exam = tiny_exam(8, 3)
    whole = make_ranker(config, tmp_path).fit(exam, exam.subset([]), tmp_path / "whole")
    ranker = make_ranker(config, tmp_path)
    ranker.trained_share = 0.6
    part = ranker.fit(exam, exam.subset([]), tmp_path / "part")
    assert (whole["steps"], part["steps"], part["planned_steps"]) == (12, 7, 12)
    assert part["loss"] == whole["loss"][:7]
    assert json.loads(json.dumps(part)) == part
