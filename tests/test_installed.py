"""The package without a checkout: a wheel is built and installed, and its command runs in another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import HEADER, ROOT, ROWS

from solution.errors import UserError
from solution.shipped_configs import SHIPPED, configs_folder, has_configs
from solution.suggestions import COMMAND, running_command, suggest


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("solution", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def call(installed: Path, cwd: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The installed command."""
    environment = {**os.environ, "PYTHONPATH": str(installed), **variables}
    command = [sys.executable, installed / "bin" / COMMAND, *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_the_command_runs_in_any_folder_with_the_shipped_settings(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "exam.csv").write_text(HEADER + ROWS)
    demo = ["--configs", "demo", "--questions", "exam.csv", "ensemble.group_column=null"]
    done = call(installed, tmp_path, "folds", *demo)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "oof" / "folds.json").read_text()) and "fold" in done.stdout


def test_everything_that_is_read_is_installed(installed: Path) -> None:
    there = {path.relative_to(installed) for path in (installed / "solution").rglob("*") if path.is_file()}
    files = [path.relative_to(ROOT) for path in (ROOT / "solution").rglob("*") if path.is_file()]
    assert {path for path in files if "__pycache__" not in path.parts} <= there
    for name in ("ensemble.yaml", "demo/minilm.yaml", "llama2_7b.yaml"):
        assert (installed / "solution" / "configs" / name).read_bytes() == (ROOT / "configs" / name).read_bytes()


def test_a_shell_completes_the_verbs(installed: Path, tmp_path: Path) -> None:
    asked = {"_LLM_SCIENCE_EXAM_COMPLETE": "complete_bash", "COMP_WORDS": f"{COMMAND} train", "COMP_CWORD": "1"}
    done = call(installed, tmp_path, **asked)
    assert done.stdout.split() == ["train-fold"], done.stderr


def test_shipped_settings_have_names_where_no_folder_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configs_folder(Path("full")) == SHIPPED and (SHIPPED / "ensemble.yaml").is_file()
    assert configs_folder(Path("demo")) == configs_folder(Path("configs/demo")) == SHIPPED / "demo"
    assert not has_configs(Path("configs")) and configs_folder(Path("configs")) == SHIPPED  # the default's name
    with pytest.raises(UserError, match="not there: mine.*demo .*full"):
        configs_folder(Path("mine"))
    (tmp_path / "demo").mkdir()
    assert configs_folder(Path("demo")) == Path("demo")
    (tmp_path / "full").touch()
    assert not has_configs(Path("full"))
    with pytest.raises(UserError, match="full is a file"):
        configs_folder(Path("full"))


def test_messages_name_the_command_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{COMMAND}", "tune"])
    assert suggest("train_fold", "--all-folds") == f"{COMMAND} train-fold --all-folds"
    with running_command("tune", {}):
        told = {"program": COMMAND}
        assert suggest("index") == f"{COMMAND} index"
    # As in a process that works for the command.
    monkeypatch.setattr(sys, "argv", ["worker.py"])
    with running_command("submit", told):
        assert suggest("index") == f"{COMMAND} index"
    assert suggest("index") == "python -m solution index"
