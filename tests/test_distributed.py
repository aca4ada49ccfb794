"""Two real processes on this machine, by accelerate and by hand, against one process."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_exam
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline import ROOT, write_configs
from tiny_models import bert, llama

from solution.config_files import load_run
from solution.learning import distributed
from solution.learning.distributed import balanced_parts, own_batches, sum_gradients, sum_tables
from solution.oof import read_oof
from solution.questions import read_questions
from solution.training.run import train_folds
from solution.workdir import Workdir

# Dropout 0: what it draws depends on how many processes draw.
LORA = {"r": 4, "lora_dropout": 0.0}
# 7 questions are trained on: a step of one leaves the second process without a question, and steps of three are
# more than one batch.
# Adam divides by the gradient's size: with its usual epsilon a gradient that is rounding alone (of a bias that all
# options share) moves its parameter as far as any other.
TRAINING = {"epochs": 2, "learning_rate": 0.01, "questions_per_step": 3, "tokens_per_batch": 80, "adam_epsilon": 1e-3}


@pytest.fixture(scope="module")
def exam(tmp_path_factory) -> Path:
    """An exam with configs of two rankers, and what one process alone has made of fold 0 in `alone`."""
    folder = tmp_path_factory.mktemp("distributed")
    questions = tiny_exam(14, (4, 3), words=6).questions
    with open(folder / "questions.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["id", "prompt", "A", "B", "C", "D", "answer", "context"])
        for row, id_ in enumerate(questions.ids):
            options = [*questions.options[row], ""][:4]
            rows.writerow([id_, questions.prompts[row], *options, "ABCD"[questions.answers[row]], "moon rain " * row])
    shared = {"precision": "float32", "passages": 1, "max_tokens": 60, "predict_tokens_per_batch": 100}
    causal = {**shared, "family": "causal", "model": str(llama(folder / "llama")), "head": "both"}
    causal |= {"likelihood_prior": "question"}
    causal |= {"lora": {**LORA, "target_modules": "all-linear"}, "training": TRAINING}
    encoder = {**shared, "family": "multiple_choice", "model": str(bert(folder / "bert"))}
    training = {**TRAINING, "keep": "best", "patience": 9, "ema_decay": 0.9, "awp": {"rate": 0.05}}
    encoder |= {"lora": {**LORA, "target_modules": ["query", "value"]}, "training": training}
    rankers = {"decoder": causal, "encoder": encoder}
    rankers = {name: {"name": name, **values} for name, values in rankers.items()}
    write_configs(folder / "configs", rankers, folds=2, source="column", option_scores=[])
    train_folds(
        load_run(folder / "configs", ()), read_questions(folder / "questions.csv"), Workdir(folder / "alone"), [0]
    )
    return folder


def command(exam: Path, workdir: str) -> list[str]:
    files = ["--questions", "questions.csv", "--configs", "configs", "--workdir", workdir]
    return [str(ROOT / "train_fold.py"), "--fold", "0", *files]


def environment(**more: str) -> dict[str, str]:
    names = ("SOLUTION_TRACEBACK", "WORLD_SIZE", "RANK", "LOCAL_RANK")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def same_fold(exam: Path, ranker: str, workdir: str) -> None:
    from safetensors.numpy import load_file

    alone, other = Workdir(exam / "alone"), Workdir(exam / workdir)
    parts = [read_oof(place.oof_part(ranker, 0)) for place in (alone, other)]
    assert parts[0].ids == parts[1].ids and parts[0].about == parts[1].about
    np.testing.assert_allclose(parts[1].probabilities, parts[0].probabilities, atol=1e-5)
    folders = [place.fold_weights(ranker, 0) for place in (alone, other)]
    names = {path.name for path in folders[0].iterdir()}
    assert names == {path.name for path in folders[1].iterdir()} and "adapter_model.safetensors" in names
    for name in sorted(name for name in names if name.endswith(".safetensors")):
        one, two = (load_file(folder / name) for folder in folders)
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_allclose(two[key], one[key], atol=1e-5, err_msg=f"{name} {key}")
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    np.testing.assert_allclose(two["loss"], one["loss"], atol=2e-5)
    assert two["evaluations"] == one["evaluations"] and two["map3"] == one["map3"]
    assert two["computed_on"].startswith("cpu in float32 on 2 processes")


def test_accelerate_launch_gives_what_one_process_gives(exam):
    launch = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch, *command(exam, "two")],
        cwd=exam, env=environment(), capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for ranker in ("decoder", "encoder"):
        same_fold(exam, ranker, "two")
        assert done.stderr.count(f"{ranker} fold 0: MAP@3") == 1, done.stderr
    assert not list((exam / "two" / "cache").rglob("checkpoints/*/*"))


def test_fsdp_and_an_error_of_the_first_process(exam):
    """The decoder is trained with sharded layers; then the first process cannot write what the encoder has made."""
    oof = exam / "sharded" / "oof"
    oof.mkdir(parents=True)
    shutil.copy(exam / "alone" / "oof" / "folds.json", oof)
    (oof / "encoder").write_text("a file where a folder should be")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # As `accelerate launch --use_fsdp` sets them.
    group |= {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    running = [
        subprocess.Popen(
            [sys.executable, *command(exam, "sharded")],
            cwd=exam, env=environment(**group, RANK=str(rank), LOCAL_RANK=str(rank)), stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=100)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [2, 2], told
    assert "on 2 processes, each with" in told[0]
    share = int(told[0].split("each with ")[1].split("%")[0])
    assert share < 90, "the layers' frozen weights are sharded (embeddings and LoRA are not)"
    same_fold(exam, "decoder", "sharded")
    assert told[0].count("error: ") == 1 and "encoder" in told[0].split("error: ")[1]
    assert "error" not in told[1] and "parameters are trained" not in told[1], told[1]


def test_one_process_where_several_were_asked_for(exam):
    """What `accelerate launch --cpu --num_processes 2` starts."""
    done = subprocess.run(
        [sys.executable, *command(exam, "none")],
        cwd=exam, env=environment(ACCELERATE_USE_CPU="True", MASTER_ADDR="127.0.0.1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("error: ") == 1
    assert "asked for several processes and has started one. Add --multi_gpu" in done.stderr
    assert not (exam / "none").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 99), max_size=30), st.integers(1, 5))
def test_balanced_parts(lengths, count):
    parts = balanced_parts(lengths, count)
    assert len(parts) == count
    assert sorted(position for part in parts for position in part) == list(range(len(lengths)))
    tokens = [sum(lengths[position] for position in part) for part in parts]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_alone_nothing_changes(monkeypatch):
    import torch

    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    distributed.start()
    assert (distributed.size(), distributed.rank(), distributed.shards()) == (1, 0, False)
    assert own_batches([5, 9, 1, 7], 14) == [[1], [3, 0], [2]]
    table = np.ones((2, 2))
    assert sum_tables(table) is table
    assert sum_gradients([torch.nn.Parameter(torch.zeros(1))], 2.5) == 2.5
    assert distributed.describe_processes([]) == "" and distributed.first_to_fail()
