"""The doctor: a whole working folder is told to be fit, and whatever is broken is one line and no traceback."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from solution.cli.app import app
from solution.doctor.examine import examine
from solution.doctor.report import Finding, Report
from solution.ensemble import record
from solution.formats import forms
from solution.inference.schedule import START_SECONDS


@pytest.fixture
def copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def look(**more: object) -> Report:
    return examine(Path(), Path("configs"), **more)  # type: ignore[arg-type]


def wrong(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.state == "error"]


def test_a_finished_working_folder_is_fit(copy: Path) -> None:
    report = look()
    assert wrong(report) == [] and report.state in ("ok", "warning")
    lines = {(finding.area, finding.subject): finding for finding in report.findings}
    for name in ("tiny", "similarity"):
        assert "3 of 3 folds" in lines["weights and OOF", name].found
        assert lines["contexts", name].state == "ok"
    assert lines["weights and OOF", "questions"].state == "ok"
    assert "9 passages" in next(f.found for f in report.findings if f.area == "index")
    assert {record["ranker"]: record["folds"] for record in report.plan} == {"tiny": 3, "similarity": 1}
    measured = [
        json.loads((copy / "weights" / "tiny" / f"fold_{k}" / "metrics.json").read_text())["score_seconds_per_question"]
        for k in range(3)
    ]
    plan = {record["ranker"]: record["seconds_per_question"] for record in report.plan}
    assert plan["tiny"] == pytest.approx(sum(measured))
    assert list(plan) == ["similarity", "tiny"]  # the order in which they answer
    loading = START_SECONDS + sum(record["load_seconds"] for record in report.plan)
    # The cascade's seconds and the folds' are rounded apart.
    assert report.seconds == pytest.approx(9 * sum(plan.values()) + loading, rel=0.01, abs=0.01)
    assert "adapter_model.safetensors" in lines["weights and OOF", "tiny"].found
    assert "weights/ensemble.json and each fold's metrics.json" in lines["submission", "time"].found


def test_the_time_is_that_of_the_cascade(copy: Path) -> None:
    path = copy / "weights" / "ensemble.json"
    ensemble = json.loads(path.read_text())
    del ensemble["hash"]
    frontier = ensemble["cascade"]["frontier"]
    middle = json.loads(json.dumps(frontier[-1])) | {"seconds_per_question": 2.0}
    middle["stages"][1]["share"] = 0.25
    frontier.insert(1, middle)
    for chosen, told, seconds in ((0, "the cascade asks it nothing", 0.0), (1, "about 25% of the questions", 18.0)):
        ensemble["cascade"] |= {"chosen": chosen, "stages": frontier[chosen]["stages"]}
        path.write_text(json.dumps(ensemble))
        report = look()
        assert wrong(report) == [] and report.seconds is not None
        assert told in next(f.found for f in report.findings if (f.area, f.subject) == ("submission", "tiny"))
        starting = (START_SECONDS + report.plan[1]["load_seconds"]) if chosen else 0.0
        assert report.seconds == pytest.approx(seconds + starting, abs=0.05)


@pytest.mark.parametrize(
    ("command", "questions"),
    [(("doctor",), {"questions.csv": 1, "test.csv": 1}), (("bundle", "--no-wheels", "--output", "b"), {"test.csv": 1})],
)
def test_the_ensemble_and_the_questions_are_read_once(
    copy: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], questions: dict[str, int]
) -> None:
    reads: Counter[str] = Counter()

    def count(module: ModuleType, function: str) -> None:
        read = getattr(module, function)

        def counted(path: Path, *more: Any) -> Any:
            reads[Path(path).name] += 1
            return read(path, *more)

        monkeypatch.setattr(module, function, counted)

    count(record, "read_json")
    count(forms, "read_bytes")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert reads["ensemble.json"] == 1
    assert {name: reads[name] for name in ("questions.csv", "test.csv") if reads[name]} == questions


Change = Callable[[Path], object]


def cut(pattern: str) -> Change:
    def change(folder: Path) -> None:
        path = next(folder.glob(pattern))
        path.write_bytes(path.read_bytes()[:-7])

    return change


def put(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def drop(pattern: str) -> Change:
    def change(folder: Path) -> None:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def alter(name: str, **values: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))

    return change


def other_folds(folder: Path) -> None:
    """One question in another fold, as a bit that turned would have it; the hash is that of before."""
    path = folder / "oof" / "folds.json"
    stored = json.loads(path.read_text())
    stored["fold"]["q1"] = (stored["fold"]["q1"] + 1) % 3
    path.write_text(json.dumps(stored))


def shrink_ranker(folder: Path) -> None:
    """A file that is whole by its manifest and does not hold what it must."""
    from solution.files import read_json, write_json, write_manifest

    place = folder / "weights" / "tiny" / "fold_0"
    manifest = read_json(place / "manifest.json", "", "")
    write_json(place / "ranker.json", {"about": 7})
    write_manifest(place, manifest["kind"], key=manifest["key"])


def other_training(folder: Path) -> None:
    """An OOF file that says it was made with other settings."""
    path = folder / "oof" / "tiny" / "fold_1.parquet"
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"solution"]) | {"config": "0" * 16}
    pq.write_table(table.replace_schema_metadata({b"solution": json.dumps(about).encode()}), path)


def tuned_on_others(folder: Path) -> None:
    path = folder / "oof" / "tiny" / "fold_0.parquet"
    table = pq.read_table(path)
    ((key, about),) = table.schema.metadata.items()
    without = {name: value for name, value in json.loads(about).items() if name != "rows"}
    swapped = table.rename_columns([{"p_A": "p_B", "p_B": "p_A"}.get(name, name) for name in table.column_names])
    columns = swapped.select(table.column_names)
    pq.write_table(columns.replace_schema_metadata({key: json.dumps(without).encode()}), path)


BROKEN: dict[str, tuple[Change, str, str, str]] = {
    "adapter": (cut("weights/tiny/fold_1/adapter_model.safetensors"), "weights and OOF", "error", "corrupt"),
    "adapter, for the ensemble": (cut("weights/tiny/fold_1/adapter_model.safetensors"), "ensemble", "error", "corrupt"),
    "file without its parts": (shrink_ranker, "weights and OOF", "error", "the check failed ("),
    "OOF file": (cut("oof/tiny/fold_0.parquet"), "weights and OOF", "error", "corrupt"),
    "OOF file gone": (drop("oof/tiny/fold_0.parquet"), "weights and OOF", "error", "no OOF part of fold 0"),
    "no OOF at all": (drop("oof"), "ensemble", "ok", "needed to tune, not to submit"),
    "OOF of another training": (other_training, "weights and OOF", "error", "made with other config"),
    "tuned on other OOF": (tuned_on_others, "ensemble", "warning", "tiny/fold_0.parquet has changed since tuning"),
    "another corpus": (put("corpus.csv", "text\nA new body.\n"), "contexts", "warning", "another index"),
    "fold's weights gone": (drop("weights/tiny/fold_2"), "weights and OOF", "warning", "2 of 3 folds"),
    "all weights gone": (drop("weights/tiny"), "weights and OOF", "warning", "not trained yet"),
    "other settings": (alter("configs/tiny.yaml", max_tokens=48), "weights and OOF", "warning", "max_tokens"),
    "other retrieval": (alter("configs/retrieval.yaml", top_k=1), "weights and OOF", "warning", "retrieval.top_k"),
    "ensemble": (put("weights/ensemble.json", "{"), "ensemble", "error", "corrupt"),
    "ensemble not JSON's type": (put("weights/ensemble.json", "[1]"), "ensemble", "error", "corrupt"),
    "no ensemble": (drop("weights/ensemble.json"), "ensemble", "warning", "not tuned yet"),
    "index": (cut("cache/index-*/vectors.npy"), "index", "error", "corrupt"),
    "index gone": (drop("cache/index-*"), "index", "warning", "not built yet"),
    "no index, no corpus": (lambda f: [drop("cache/index-*")(f), drop("corpus.csv")(f)], "index", "error", "corpus"),
    "settings": (put("configs/tiny.yaml", "a: [1"), "settings", "error", "not YAML"),
    "configs gone": (drop("configs"), "settings", "warning", "needed to train"),
    "exam": (put("questions.csv", "\x00"), "exam", "error", "questions.csv"),
    "exam changed": (
        put("questions.csv", "id,prompt,A,B,answer\nz,Why?,a,b,A\n"),
        "exam",
        "warning",
        "parts 0 of the 1",
    ),
    "folds": (put("oof/folds.json", "{}"), "exam", "error", "folds file is corrupt"),
    "folds moved": (other_folds, "exam", "error", "folds file is corrupt"),
    "no questions to answer": (drop("test.csv"), "exam", "warning", "is not there"),
    "model": (alter("configs/tiny.yaml", model="./nowhere"), "models", "error", "./nowhere"),
    "model not cached": (
        alter("configs/tiny.yaml", model="no-one/no-model"),
        "models",
        "error",
        "hf download no-one/no-model",
    ),
    "everything gone": (drop("*"), "settings", "warning", "the shipped settings `full` are used"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told(copy: Path, name: str) -> None:
    change, area, state, expected = BROKEN[name]
    change(copy)
    report = look()
    found = [each for each in report.findings if each.area == area and each.state == state]
    assert any(expected in each.found + each.remedy for each in found), report.findings
    if state != "error":
        assert not [each for each in wrong(report) if each.area == area]
    assert len({each.area for each in report.findings}) >= 5  # the other checks went on


def test_a_time_that_was_not_measured_is_unknown(copy: Path) -> None:
    from solution.files import read_json, write_json, write_manifest

    place = copy / "weights" / "tiny" / "fold_0"
    key = read_json(place / "manifest.json", "", "")["key"]
    metrics = read_json(place / "metrics.json", "", "")
    for change, expected in (
        ({"computed_on": "cuda in float16"}, "time unknown (measured on cuda in float16"),
        ({"score_seconds_per_question": None}, "time unknown (not measured)"),
    ):
        write_json(place / "metrics.json", metrics | change)
        write_manifest(place, "fold's weights", key=key)
        report = look()
        told = {each.subject: each.found for each in report.findings if each.area == "submission"}
        assert expected in told["tiny"] and "unknown" in told["time"]
        assert report.seconds is None


def test_the_command_ends_with_2_on_an_error_only(copy: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["plan"][0]["folds"] == 1
    (copy / "weights" / "ensemble.json").write_text("{")
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    assert "error" in done.stdout and "solution tune" in " ".join(done.stdout.split())
