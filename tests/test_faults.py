"""Faults for real: nothing corrupt is left, and a complete answer is there.

A few of `benchmarks/faults.py`, and a Kaggle kernel whose GPU cannot be used, on the public and on hidden questions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import forked
from pipeline import ROOT
from test_kaggle import PUBLIC, bundle  # noqa: F401

from solution.kaggle.kernel import COMPETITION
from solution.kaggle.kernel import ROOT as KERNEL
from solution.kaggle.supervisor import incomplete


def test_a_few_faults_break_no_rule(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--count", "6", "--json"]
    command += ["--workdir", str(tmp_path), "--kinds", "kill", "memory", "damage", "--steps", "index", "tune"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["violations"] == [] and facts["kinds"]["all"]["runs"] == facts["kinds"]["all"]["resumed"] == 6
    assert list(tmp_path.iterdir()) == []


# --- in a kernel ---------------------------------------------------------------------------

# The fault is put into this process, and the processes of the rankers are forks of it.
SUBMIT = f"""
import sys
sys.path += [{str(ROOT / "benchmarks")!r}, {str(ROOT / "tests")!r}]
from solution.cli.submit import submit_app
{{fault}}
submit_app()
"""
GPU = "import faults; faults.install({{'gpu': {0!r}}})"
# A word that no other question has makes a neuron of the model larger than float16 can hold.
OVERFLOW = """
from test_float32 import HALF, make_loud
from solution.rankers import model, multiple_choice, neural
model.choose_device = lambda precision="auto": HALF
load = neural.NeuralRanker.load
def loud(ranker, folder):
    load(ranker, folder)
    make_loud(ranker.modules, "bert", ranker.tokenizer)
neural.NeuralRanker.load = loud
"""


class Ended:
    """A submission in a kernel: how it ended, what it said, and the files that it wrote."""

    def __init__(self, folder: Path, bundle: Path, questions: str, fault: str):  # noqa: F811
        root = folder / "kaggle"
        for name in ("working", "temp", "input/datasets/me", f"input/competitions/{COMPETITION}"):
            (root / name).mkdir(parents=True)
        (root / "input/datasets/me/my-bundle").symlink_to(bundle, target_is_directory=True)
        exam = root / "input/competitions" / COMPETITION / "test.csv"
        exam.write_bytes(questions.encode())
        script = folder / "submit.py"
        script.write_text(SUBMIT.format(fault=fault))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", KERNEL: str(root)}
        done = forked.run([str(script)], root / "working", environment, 300)
        self.code, self.log = done.returncode, " ".join(done.stderr.split())
        answer = root / "working" / "submission.csv"
        self.lacking = incomplete(answer, exam)
        self.report = json.loads(answer.with_name("submission.report.json").read_text())
        self.ranker = {each["ranker"]: each for each in self.report["rankers"]}


def test_the_public_file_and_a_gpu_that_dies_at_the_first_operation(tmp_path: Path, bundle: Path) -> None:  # noqa: F811
    """Every ranker reads a sample, on the CPU. The file is written otherwise than the one that the bundle was given."""
    header, *rows = PUBLIC.splitlines()
    ended = Ended(tmp_path, bundle, "\r\n".join([header, *reversed(rows)]) + "\r\n", GPU.format("p100"))
    assert ended.code == 0 and ended.lacking is None, ended.log
    assert "the rankers with a model read only 20 of 24" in ended.log and "--full-run" in ended.log
    assert "public run: 20 of 24 questions answered by all rankers" in ended.log
    assert "WARNING: the rankers compute on the CPU: torch" in ended.log
    assert ended.report["public_run"]["answered_by_all_rankers"] == 20
    assert ended.ranker["tiny"]["answered"] == ended.ranker["tiny"]["asked"] == 20
    assert ended.ranker["similarity"]["answered"] == 24
    assert "cannot compute on this machine's GPU" in ended.report["warnings"][0]
    assert ended.ranker["tiny"]["computed_on"].startswith("cpu in ")


def test_a_hidden_file_and_a_driver_that_is_too_old(tmp_path: Path, bundle: Path) -> None:  # noqa: F811
    """As many questions as in the public file, one character of them another: every ranker reads all."""
    ended = Ended(tmp_path, bundle, PUBLIC.replace("moon of 7", "moon on 7"), GPU.format("old driver"))
    assert ended.code == 0 and ended.lacking is None, ended.log
    assert "public run" not in ended.log and ended.report["public_run"] is None
    assert "WARNING: the rankers compute on the CPU: this machine has an NVIDIA driver, and torch" in ended.log
    assert [each["answered"] for each in ended.report["rankers"]] == [24, 24]
    assert "has an NVIDIA driver" in ended.report["warnings"][0] and len(ended.report["warnings"]) == 1


def test_a_model_that_overflows_in_float16_on_some_questions(tmp_path: Path, bundle: Path) -> None:  # noqa: F811
    questions = PUBLIC.replace("number 3 from", "number ~ from").replace("number 19 from", "number ~ from")
    ended = Ended(tmp_path, bundle, questions, OVERFLOW)
    assert ended.code == 0 and ended.lacking is None, ended.log
    line = "tiny: 2 of 24 questions overflowed in float16, and were scored again in float32"
    assert line in ended.log and ended.report["warnings"] == [line]
    assert ended.ranker["tiny"]["float32_questions"] == 2 and ended.ranker["tiny"]["answered"] == 24
    assert ended.ranker["tiny"]["computed_on"] == "cpu in float16"
