"""Kaggle's public run is known by its questions, and a supervised submission is judged by what it left."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from conftest import random_questions
from pipeline import HEADER, ROWS
from test_kaggle import kernel, small_bundle  # noqa: F401
from test_submission import both, engine_of, exam_of

from solution.cli.options import make_reading
from solution.errors import UserError
from solution.inference.outputs import submission_report
from solution.inference.retrieving import RetrievalTime
from solution.kaggle import public, supervisor
from solution.kaggle.kernel import find_place
from solution.kaggle.public import PROVEN, public_hash, read_public, sample_to_prove
from solution.kaggle.supervisor import incomplete, supervise
from solution.kaggle.upload import notebook
from solution.questions import Questions, write_questions

# --- the hash ------------------------------------------------------------------------------


def odd_questions() -> Questions:
    """Questions with commas, quotes, line ends inside a text, and one option fewer in the last."""
    exam = random_questions(40)
    exam.prompts[3] = 'Which "of, these\nis right?'
    exam.options[39] = exam.options[39][:4]
    return exam


def test_the_hash_is_of_the_content_and_not_of_the_file(tmp_path: Path) -> None:
    exam = odd_questions()
    write_questions(tmp_path / "test.csv", exam)
    known = public_hash(read_public(tmp_path / "test.csv"))
    with open(tmp_path / "test.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in reversed(rows[0]) if name != "answer"]
    with open(tmp_path / "other.csv", "w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, names, quoting=csv.QUOTE_ALL, lineterminator="\r\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({name: text.replace("\n", "\r\n") for name, text in row.items()} for row in reversed(rows))
    assert b"these\r\nis" in (tmp_path / "other.csv").read_bytes()
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("other.csv", "other.jsonl"):
        assert public_hash(read_public(tmp_path / name)) == known, name


@pytest.mark.parametrize("change", ["prompt", "option", "id", "swapped", "fewer"])
def test_one_other_character_is_another_file(change: str) -> None:
    exam, other = odd_questions(), odd_questions()
    if change == "prompt":
        other.prompts[7] += "."
    if change == "option":
        other.options[7][2] += "s"
    if change == "id":
        other.ids[7] = "q7b"
    if change == "swapped":
        other.options[7][:2] = other.options[7][1::-1]
    if change == "fewer":
        other = other.subset(range(39))
    assert public_hash(other) != public_hash(exam)
    assert sample_to_prove(other, public_hash(exam)) is None


def test_the_sample_has_the_longest_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    exam = random_questions(200)
    exam.prompts[123] *= 5
    sample = sample_to_prove(exam, public_hash(exam))
    assert sample is not None and sample.sum() == PROVEN and sample[123]
    assert np.flatnonzero(sample)[0] < 40 and np.flatnonzero(sample)[-1] > 160
    few = exam.subset(range(5))
    all_of_them = sample_to_prove(few, public_hash(few))
    assert all_of_them is not None and all_of_them.all()
    assert sample_to_prove(exam, None) is None
    monkeypatch.setenv(public._RERUN, "1")  # the run that is scored
    assert sample_to_prove(exam, public_hash(exam)) is None


def test_only_a_kernel_gets_the_hash(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    bundle = small_bundle(kernel / "input" / "b", public="0123456789abcdef")
    assert find_place(None, Path("q.csv"), None, ()).public_hash == "0123456789abcdef"
    monkeypatch.setenv("SOLUTION_KAGGLE_ROOT", str(kernel / "nowhere"))
    assert find_place(bundle, Path("q.csv"), None, ()).public_hash is None


# --- the engine ----------------------------------------------------------------------------


def test_a_ranker_with_a_model_reads_the_sample_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = exam_of(40)
    engine = engine_of(exam, tmp_path)
    engine.answers.sample = np.arange(40) % 8 == 0
    monkeypatch.setattr(type(engine), "_costs_nothing", lambda self, name: name == "a")
    engine.run([replace(stage, threshold=0.0) for stage in both()])
    turns = engine.answers.turns
    assert turns["a"].answered.all() and np.array_equal(turns["b"].answered, engine.answers.sample)
    assert [turn.state for turn in turns.values()] == ["finished", "finished"]
    np.testing.assert_allclose(engine.answers.blended().sum(axis=1), 1, atol=1e-6)
    report = submission_report(engine.answers, {}, RetrievalTime(), "finished", Path("s.csv"))
    assert report["public_run"]["text"] == "public run: 5 of 40 questions answered by all rankers"
    assert report["warnings"] == []


# --- the supervisor ------------------------------------------------------------------------


def test_columns_are_read_as_submit_reads_them() -> None:
    texts = ["prompt=question, A=x", "B=y=z"]
    words = [word for text in texts for word in ("--columns", text)]
    assert supervisor._named_files(words).reading == make_reading(texts)
    with pytest.raises(UserError, match="--columns 'prompt': give NAME=COLUMN"):
        supervisor._named_files(["--columns", "prompt"])


COMPLETE = "id,prediction\n" + "".join(f"q{row},A B C\n" for row in range(9))
WRITE = f"""
import json, os, signal, sys, time
open("submission.csv", "w").write({COMPLETE!r})
"""
REPORT = """
report = {"warnings": ["w1"], "rankers": [{"computed_on": "cpu in float32"}]}
json.dump(report, open("submission.report.json", "w"))
"""


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        (WRITE + REPORT, 0, ["every question is answered", "WARNING: w1", "no GPU is switched on"]),
        (WRITE + "os.kill(os.getpid(), signal.SIGKILL)", 0, ["ended by SIGKILL: the system takes", "no report"]),
        (WRITE + "sys.exit('error: it broke')", 0, ["ended with exit code 1: it broke"]),
        (WRITE + "time.sleep(99)", 0, ["went on", "ended by SIGTERM"]),
        ("raise SystemExit(2)", 1, ["this run has written no answer", "ended with exit code 2"]),
        (WRITE.replace("q8,A B C", "q8,A B"), 1, ["question q8 has the answer 'A B'"]),
        (WRITE.replace("q8,", "q7,"), 1, ["not each of the 9 questions once"]),
        (WRITE.replace("prediction", "answer"), 1, ["has not the columns"]),
    ],
)
def test_only_an_answer_that_is_not_complete_is_a_failure(
    kernel: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: int,
    told: list[str],
) -> None:
    small_bundle(kernel / "input" / "b")
    (kernel / "input" / "the-exam").mkdir()
    (kernel / "input" / "the-exam" / "test.csv").write_text(HEADER + ROWS)
    # Of an earlier run: it is not this one's answer.
    (kernel / "working" / "submission.csv").write_text(COMPLETE)
    (kernel / "submit.py").write_text(script)
    monkeypatch.setattr(supervisor, "GRACE", 0.5)
    assert supervise(kernel / "submit.py", ["--deadline", "0.1" if "sleep" in script else "1h", "x.y=1"]) == code
    shown = capsys.readouterr().out
    assert all(text in shown for text in told), shown
    assert shown.rstrip().endswith("=" * 20)


def test_an_answer_that_cannot_be_read_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text(HEADER + ROWS)
    (tmp_path / "s.csv").write_bytes(b"\xff\xfe\x00")
    assert "cannot be compared" in (incomplete(tmp_path / "s.csv", tmp_path / "test.csv") or "")
    assert "cannot be compared" in (incomplete(tmp_path / "none.csv", tmp_path / "test.csv") or "")
    (tmp_path / "s.csv").write_text(COMPLETE)
    assert incomplete(tmp_path / "s.csv", tmp_path / "test.csv") is None


# --- the notebook --------------------------------------------------------------------------


def cells() -> list[str]:
    return ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]


class Pip:
    """In the place of `subprocess.Popen`: keeps the command, and ends with the code given."""

    def __init__(self, code: int):
        self.code, self.command, self.stdout = code, [""], ["no matching distribution\n"] * code

    def __call__(self, command: list[str], **options: object) -> Pip:
        self.command = command
        return self

    def wait(self) -> int:
        return self.code


@pytest.mark.parametrize(("wheels", "code"), [([], 0), (["torch-2.9-cp312-cp312-linux_x86_64.whl"], 1)])
def test_the_torch_of_the_image_is_kept(
    kernel: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    wheels: list[str],
    code: int,
) -> None:
    bundle = small_bundle(kernel / "input" / "b")
    (bundle / "submission.ipynb").touch()
    (bundle / "wheels").mkdir()
    for name in wheels:
        (bundle / "wheels" / name).touch()
    pip, names = Pip(code), {"__name__": "__main__"}
    monkeypatch.setattr("subprocess.Popen", pip)
    exec(cells()[0], names)
    if wheels:
        assert "--constraint" not in pip.command
    else:
        kept = Path(pip.command[pip.command.index("--constraint") + 1])
        assert kept.read_text() == f"torch=={version('torch')}\n"
    assert len(names["problems"]) == code  # what pip cannot install need not keep submit.py from an answer


@pytest.mark.parametrize("failed", [0, 1])
def test_the_notebook_fails_only_without_an_answer(
    kernel: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    failed: int,
) -> None:
    (kernel / "working" / "submission.csv").write_text(COMPLETE)
    names = {"run": lambda *words: failed, "problems": ["WARNING: pip"], "root": kernel, "bundle": kernel, "sys": sys}
    with pytest.raises(SystemExit, match="no complete") if failed else contextlib.nullcontext():
        exec(cells()[1], names)
    shown = capsys.readouterr().out
    assert shown.startswith("WARNING: pip") and ("q8,A B C" in shown) != bool(failed)


def test_questions_with_columns_of_their_own_are_compared_as_submit_reads_them(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("key,text,first,second\nq1,Why?,a,b\n")
    (tmp_path / "s.csv").write_text("id,prediction\nq1,A B\n")
    named = supervisor._named_files(["--columns", "id=key,prompt=text", "--columns", "A=first,B=second", "--strict"])
    assert incomplete(tmp_path / "s.csv", tmp_path / "odd.csv", named.reading) is None
    assert "cannot be compared" in (incomplete(tmp_path / "s.csv", tmp_path / "odd.csv") or "")
