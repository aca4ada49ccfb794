"""Models in the files that their authors ship go the whole way: train_fold, tune, submit, doctor, bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_models import deberta_v3
from pipeline import HEADER, ROWS, run, write_configs


def deberta_ranker(model: Path) -> dict:
    """configs/deberta_v3_large.yaml with fewer steps and tokens."""
    return {
        "name": "deberta",
        "family": "multiple_choice",
        "model": str(model),
        "passages": 0,
        "max_tokens": 64,
        "lora": {"r": 2, "target_modules": r".*\.encoder\.layer\.\d+\.(.*\.)?(query_proj|key_proj|value_proj|dense)"},
        "training": {"epochs": 1, "evaluations_per_epoch": 0},
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    (folder / "questions.csv").write_text(HEADER + ROWS)
    (folder / "test.csv").write_text(HEADER + ROWS.replace("Mars", "10³ HSO₄⁻ µm [SEP]"), encoding="utf-8")
    write_configs(folder / "configs", {"deberta": deberta_ranker(deberta_v3(folder / "deberta-v3"))})
    for command in (("train", "--all-folds"), ("tune", "tune.choose=equal"), ("submit",)):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_deberta_v3_trains_and_answers_from_its_own_files(built: Path) -> None:
    assert sorted(path.name for path in (built / "deberta-v3").iterdir()) == [
        "config.json",
        "pytorch_model.bin",
        "spm.model",
        "tokenizer_config.json",
    ]
    assert len((built / "submission.csv").read_text().splitlines()) == 10
    report = json.loads((built / "submission.report.json").read_text())
    assert [(each["ranker"], each["state"]) for each in report["rankers"]] == [("deberta", "finished")]
    assert report["rankers"][0]["planned_memory_mib"] is not None


def test_doctor_and_bundle_take_it(built: Path) -> None:
    done = run("doctor", "--json", cwd=built)
    findings = json.loads(done.stdout)["findings"]
    assert [each for each in findings if each["state"] == "error"] == [] and done.returncode == 0, done.stdout
    done = run("bundle", "--output", "bundle", "--no-wheels", cwd=built)
    assert done.returncode == 0, done.stderr
    listed = json.loads((built / "bundle" / "manifest.json").read_text())
    folder = built / "bundle" / listed["models"]["deberta.model"]
    assert {"spm.model", "pytorch_model.bin", "config.json"} <= {path.name for path in folder.iterdir()}
