"""The submission and the training commands, run for real on a tiny exam."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline import HEADER, LONGEST, ROOT, ROWS, run, write_configs

LETTERS = "ABCDEFGH"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder


def read_submission(path: Path) -> dict[str, list[str]]:
    with open(path, newline="") as stream:
        return {row["id"]: row["prediction"].split() for row in csv.DictReader(stream)}


def test_a_submission_is_complete_and_agrees_with_its_other_forms(copy: Path) -> None:
    done = run("submit", "--ranked", "r.jsonl", "--probabilities", "p.csv", "--output", "out/s.csv", cwd=copy)
    assert done.returncode == 0, done.stderr
    answers = read_submission(copy / "out" / "s.csv")
    assert list(answers) == [f"q{i}" for i in range(9)]
    ranked = {row["id"]: row["ranked"] for row in map(json.loads, (copy / "r.jsonl").read_text().splitlines())}
    with open(copy / "p.csv", newline="") as stream:
        table = {row["id"]: row for row in csv.DictReader(stream)}
    for id_, letters in answers.items():
        assert letters == ranked[id_][:3] and sorted(ranked[id_]) == ["A", "B", "C"]
        values = [float(table[id_][f"p_{letter}"]) for letter in ranked[id_]]
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-5)


def test_an_output_that_cannot_be_written_is_told(copy: Path) -> None:
    (copy / "blocked").write_text("a file, not a folder")
    done = run("submit", "--output", "blocked/s.csv", cwd=copy)
    assert done.returncode == 2
    assert "blocked" in done.stderr and "Traceback" not in done.stderr
    assert (copy / "blocked").read_text() == "a file, not a folder"


def test_the_same_submission_again_is_the_same_bytes(copy: Path) -> None:
    before = (copy / "submission.csv").read_bytes()
    (copy / "submission.csv").unlink()
    shutil.rmtree(copy / "cache" / "submission")  # else the answers would come from the journal
    done = run("submit", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert (copy / "submission.csv").read_bytes() == before
    assert "note: the rankers were trained on 9 of these 9 questions (oof/folds.json)" in done.stderr


def test_odd_questions_are_answered(copy: Path) -> None:
    rows = [
        ["two", "Which?", "yes", "no", "", "", "", "", "", ""],
        ["eight", "Which planet?", *"abcdefgh"],
        ["gap", "Which planet?", "one", "", "three", "", "", "", "", ""],
        ["long", "planet " * 10_000, "one", "two", "three", "", "", "", "", ""],
        ["odd", "\U0001f30d\u202e\u0301 ¿?", "\u200b.", "日本語", "{context}", "", "", "", "", ""],
        ["again", "Which planet?", "one", "one", "one", "", "", "", "", ""],
    ]
    with open(copy / "odd.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "prompt", *LETTERS], *rows])
    done = run("submit", "--questions", "odd.csv", "--ranked", "r.jsonl", cwd=copy)
    assert done.returncode == 0, done.stderr
    ranked = {row["id"]: row["ranked"] for row in map(json.loads, (copy / "r.jsonl").read_text().splitlines())}
    for id_, _, *options in rows:
        assert sorted(ranked[id_]) == [letter for letter, option in zip(LETTERS, options, strict=True) if option]
    assert read_submission(copy / "submission.csv") == {id_: letters[:3] for id_, letters in ranked.items()}


def test_no_network_is_used(copy: Path) -> None:
    """With the network namespace cut off (there is not even a loopback device that is up)."""
    unshare = ["unshare", "-rn"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a process leave its network namespace")
    (copy / "new.csv").write_text(HEADER + ROWS.replace("number", "body number"))
    command = [*unshare, sys.executable, str(ROOT / "submit.py"), "--questions", "new.csv"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(read_submission(copy / "submission.csv")) == 9
    assert "trained on" not in done.stderr  # these questions are new


def test_what_is_finished_is_not_done_again_and_repeats_to_the_byte(copy: Path) -> None:
    parts = sorted((copy / "oof").rglob("*.parquet"))
    before = [part.read_bytes() for part in parts]
    assert len(parts) == 6
    done = run("train", "--fold", "0", cwd=copy)
    assert done.stderr.count("already trained") == 2
    shutil.rmtree(copy / "oof" / "tiny")
    shutil.rmtree(copy / "weights" / "tiny")
    done = run("train", "--all-folds", "--ranker", "tiny", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert [part.read_bytes() for part in parts] == before


def test_a_killed_training_goes_on_to_the_same_result(copy: Path) -> None:
    """Killed while it trains, then started again: weights and OOF as of an undisturbed run."""
    settings = ["train", "--fold", "1", "--ranker", "tiny", "training.epochs=40", "training.checkpoint_seconds=0"]
    assert run(*settings, cwd=copy).returncode == 0
    part = copy / "oof" / "tiny" / "fold_1.parquet"
    weights = copy / "weights" / "tiny" / "fold_1" / "adapter_model.safetensors"
    wanted = part.read_bytes(), weights.read_bytes()
    part.unlink()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train_fold.py"), *settings[1:]]
    process = subprocess.Popen(command, cwd=copy, env=environment, stderr=subprocess.PIPE)
    state = copy / "cache" / "checkpoints" / "tiny" / "fold_1" / "state.json"
    limit = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists() and not part.exists()
    done = run(*settings, cwd=copy)
    assert done.returncode == 0, done.stderr
    assert (part.read_bytes(), weights.read_bytes()) == wanted
    assert not state.exists()


def test_metrics_and_oof_say_what_they_were_made_from(finished: Path) -> None:
    metrics = json.loads((finished / "weights" / "tiny" / "fold_0" / "metrics.json").read_text())
    assert metrics["questions"] == 3 and 0 <= metrics["map3"] <= 1 and metrics["trainable_parameters"] > 0
    table = pq.read_table(finished / "oof" / "tiny" / "fold_0.parquet")
    assert table.column_names == ["id", "fold", "answer", "p_A", "p_B", "p_C"]
    about = json.loads(table.schema.metadata[b"solution"])
    assert {"questions", "contexts", "config", "fold", "folds", "ranker"} <= set(about)


def test_tune_prints_the_table(copy: Path) -> None:
    done = run("tune", "tune.choose=equal", cwd=copy)
    assert done.returncode == 0, done.stderr
    for name in ("tiny", "similarity", "random", "equal weights", "in-sample"):
        assert name in done.stdout


def test_tune_refuses_settings_that_the_oof_files_were_not_made_with(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = (folder / "weights" / "ensemble.json").read_bytes()
    write_configs(folder / "others", {"longest": LONGEST}, folds=5)
    done = run("tune", "--configs", "others", cwd=folder)
    assert done.returncode == 2 and "are of 3 folds" in done.stderr and "--configs FOLDER" in done.stderr
    assert (folder / "weights" / "ensemble.json").read_bytes() == before
