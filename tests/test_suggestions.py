"""The commands that messages name are those that the user can type."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from pipeline import HEADER, LONGEST, ROWS, run, write_configs

from solution.api.inputs import keep_exam_arguments
from solution.command import command
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.suggestions import remember_exam, running_command, suggest, typed_settings
from solution.workdir import Workdir


def test_outside_a_command_line_nothing_is_added() -> None:
    assert suggest("tune") == "python -m solution tune"
    assert suggest("train_fold", "--all-folds", "--ranker", "a") == "python train_fold.py --all-folds --ranker a"


def test_the_options_given_are_repeated_where_they_are_known() -> None:
    arguments = {
        "workdir": Path("my run"),
        "configs": Path("configs/demo"),
        "questions": Path("exam.csv"),
        "corpus": "it's.csv",
        "fold": 2,
        "overrides": ["retrieval.top_k=3", "ensemble.rankers=[a, b]", "training.epochs=1"],
    }
    with running_command("train_fold", arguments):
        assert shlex.split(suggest("train_fold", "--fold", "1")) == [
            *("python", "train_fold.py", "--fold", "1", "--configs", "configs/demo", "--workdir", "my run"),
            *("--questions", "exam.csv", "--corpus", "it's.csv", "ensemble.rankers=[a, b]"),
        ]
        assert shlex.split(suggest("index"))[4:] == [
            *("--configs", "configs/demo", "--workdir", "my run", "--corpus", "it's.csv", "retrieval.top_k=3"),
        ]
        assert suggest("tune") == "python -m solution tune --configs configs/demo --workdir 'my run'"
    # The questions to answer are not those to train on.
    with running_command("submit", {"workdir": Path("w"), "questions": Path("test.csv"), "overrides": None}):
        assert suggest("train_fold") == "python train_fold.py --workdir w"


def test_a_ranker_s_typed_settings_can_be_repeated() -> None:
    assert typed_settings("a") == []
    with running_command("tune", {"overrides": ["a.seed=5", "a.answer_with=full", "ab.seed=6", "tune.trials=3"]}):
        assert typed_settings("a") == ["a.seed=5"]


def test_how_the_exam_is_read_is_repeated_too() -> None:
    reading = {"columns": ["prompt=my question", "A=x,B=y"], "encoding": "cp1252", "answers_from": 0}
    more = {"keep_html": False, "skip_bad_rows": True}
    with running_command("train_fold", {"questions": Path("exam.csv"), **reading, **more}):
        assert shlex.split(suggest("train_fold", "--all-folds"))[3:] == [
            *("--questions", "exam.csv", "--columns", "prompt=my question", "--columns", "A=x,B=y"),
            *("--encoding", "cp1252", "--answers-from", "0", "--skip-bad-rows"),
        ]
        assert suggest("tune") == "python -m solution tune"
    # Those of a submission are of the questions to answer.
    with running_command("submit", reading | more):
        assert suggest("train_fold") == "python train_fold.py"


def test_the_exam_that_a_command_has_found_is_named() -> None:
    given = {"folder": Path("course"), "workdir": None, "configs": Path("configs/demo"), "questions": Path("quiz.gift")}
    with running_command("exam", given | {"corpus": None, "encoding": "cp1252"}):
        remember_exam("course/answers", "course/book.csv")
        assert shlex.split(suggest("train_fold"))[2:] == [
            *("--configs", "configs/demo", "--workdir", "course/answers", "--corpus", "course/book.csv"),
        ]


def test_a_command_that_ended_leaves_nothing_behind() -> None:
    @command
    def tune(workdir: Path) -> None:
        assert suggest("tune") == "python -m solution tune --workdir w"
        raise UserError("no")

    with pytest.raises(SystemExit):
        tune(workdir=Path("w"))
    assert suggest("tune") == "python -m solution tune"


def test_defaults_are_left_out() -> None:
    with running_command("index", {"workdir": Path("."), "configs": Path("configs"), "corpus": None, "overrides": []}):
        assert suggest("index") == "python -m solution index"


def test_what_training_was_told_is_suggested_by_later_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workdir = Workdir(Path("w"))
    (tmp_path / "exam.csv").touch()
    told = {"workdir": Path("w"), "configs": Path("mine"), "questions": Path("exam.csv"), "corpus": None}
    with running_command("train_fold", {**told, "columns": ["prompt=q"], "skip_bad_rows": True, "keep_html": False}):
        keep_exam_arguments(workdir)
        assert not workdir.exam_arguments.exists()  # nothing is in the folder yet
        workdir.folds.parent.mkdir(parents=True)
        workdir.folds.write_text("{}")
        keep_exam_arguments(workdir)
    exam = "--questions exam.csv --columns prompt=q --skip-bad-rows"
    # tune has no --questions, submit no --configs, and the questions of doctor and submit are those to answer.
    for name, given in {
        "tune": {"configs": Path("configs")},
        "submit": {"questions": Path("test.csv")},
        "doctor": {},
    }.items():
        with running_command(name, {"workdir": Path("w"), **given}):
            Workdir.at("w")
            configs = "" if name == "tune" else "--configs mine "
            assert suggest("train_fold", "--fold", "1") == f"python train_fold.py --fold 1 {configs}--workdir w {exam}"
            assert suggest("tune") == f"python -m solution tune {configs}--workdir w"
    # From another folder, the file is still the same; what is given now goes before.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with running_command("train_fold", {"questions": None, "configs": Path("configs")}):
        Workdir.at(tmp_path / "w")
        assert "--questions" not in suggest("train_fold")
    with running_command("tune", {"seconds": None}):
        Workdir.at(tmp_path / "w")
        assert f"--questions {tmp_path / 'exam.csv'} " in suggest("train_fold")
        workdir = Workdir(tmp_path / "w")
        workdir.exam_arguments.write_text("[damaged")
        Workdir.at(tmp_path / "w")


def test_a_suggested_command_can_be_typed(tmp_path: Path) -> None:
    """What `submit` and then `tune` name, run as it stands, leads to the submission."""
    (tmp_path / "my run").mkdir()
    for name in ("questions.csv", "test.csv"):
        (tmp_path / "my run" / name).write_text(HEADER + ROWS)
    write_configs(tmp_path / "my configs", {"longest": LONGEST})
    done = run("submit", "--workdir", "my run", cwd=tmp_path)
    assert done.returncode == 2
    words = shlex.split(done.stderr.strip().rpartition("Make it: python -m solution ")[2])
    assert words == ["tune", "--workdir", "my run"]
    done = run(*words, "--configs", "my configs", cwd=tmp_path)
    assert done.returncode == 2
    words = shlex.split(done.stderr.strip().rpartition("python train_fold.py ")[2])
    assert words[0] == "--all-folds"
    assert run("train", *words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "my run" / "oof" / "longest" / "fold_2.parquet").exists()


def test_the_configs_of_tune_are_known_to_what_reads_the_ensemble(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "configs").rename(folder / "my configs")
    done = run("tune", "--configs", "my configs", "tune.choose=equal", cwd=folder)
    assert done.returncode == 0, done.stderr
    path = folder / "weights" / "ensemble.json"
    record = json.loads(path.read_text())
    # Where the settings lie is no part of what is compared, and files of before have no such key.
    assert record.pop("configs") == "my configs"
    path.write_text(json.dumps(record))
    assert load_ensemble(Workdir.open(folder)) == record
    path.write_text(json.dumps(record | {"configs": "my configs", "in_sample_map3": 0.0}))
    done = run("submit", cwd=folder)
    assert done.returncode == 2 and "python -m solution tune --configs 'my configs'" in done.stderr, done.stderr
