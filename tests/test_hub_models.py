"""Models in the files that their authors ship go the whole way: train_fold, tune, bundle, submit from it, doctor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import CHECK_SHARES
from hub_encoders import bert_embedder, flan_t5, mdeberta_v3, modernbert, race_roberta
from hub_models import deberta_v3
from pipeline import HEADER, ROOT, ROWS, run, write_configs

from solution.kaggle.base_models import model_files

# A settings file of configs/ -> the twin of its model.
TWINS: dict[str, Callable[[Path], Path]] = {
    "deberta_v3_base": deberta_v3,
    "deberta_v3_large": deberta_v3,
    "mdeberta_v3_base": mdeberta_v3,
    "modernbert_large": modernbert,
    "flan_t5_large": flan_t5,
    "flan_t5_xl": lambda folder: flan_t5(folder, shards=True),
}
FILES = {
    "deberta_v3_large": "config.json pytorch_model.bin spm.model tokenizer_config.json",
    "mdeberta_v3_base": "config.json generator_config.json pytorch_model.bin spm.model tokenizer_config.json",
    "modernbert_large": "config.json model.safetensors special_tokens_map.json tokenizer.json tokenizer_config.json",
    "flan_t5_xl": "config.json generation_config.json model-00001-of-00002.safetensors "
    "model-00002-of-00002.safetensors model.safetensors.index.json pytorch_model.bin.index.json "
    "special_tokens_map.json spiece.model tokenizer.json tokenizer_config.json",
    "race": "config.json merges.txt pytorch_model.bin special_tokens_map.json tokenizer_config.json vocab.json",
}


def ranker_like(name: str, model: Path) -> dict[str, Any]:
    """The settings of configs/NAME.yaml with another model, fewer tokens and a short training."""
    settings = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    settings["training"] |= {"epochs": 1, "evaluations_per_epoch": 0}
    settings["lora"]["r"] = 2
    return {**settings, "model": str(model), "passages": 1, "max_tokens": 64}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    rankers = {name: ranker_like(name, build(folder / "models" / name)) for name, build in TWINS.items()}
    rankers["race"] = {
        "name": "race",
        "family": "multiple_choice",
        "model": str(race_roberta(folder / "models" / "race")),
        "passages": 1,
        "max_tokens": 64,
        "training": {"epochs": 0},
    }
    (folder / "questions.csv").write_text(HEADER + ROWS)
    (folder / "test.csv").write_text(HEADER + ROWS.replace("Mars", "10³ HSO₄⁻ µm [SEP] </s>"), encoding="utf-8")
    (folder / "corpus.csv").write_text("title,text\n" + "".join(f"Planet {i},Body number {i}.\n" for i in range(9)))
    write_configs(
        folder / "configs",
        rankers,
        folds=2,
        source="index",
        corpus="corpus.csv",
        top_k=2,
        passage_tokens=32,
        passage_overlap=4,
        embedder=str(bert_embedder(folder / "models" / "e5-base-v2")),
        query_prefix="query: ",
        passage_prefix="passage: ",
    )
    for command in (
        ("train", "--all-folds"),
        ("tune", "tune.choose=equal"),
        ("bundle", "--output", "bundle", "--no-wheels"),
        ("bundle", "--check", "bundle", "--public-test", "test.csv"),
    ):
        done = run(*command, cwd=folder, first=CHECK_SHARES)
        assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
    return folder


def test_each_model_trains_and_answers_from_its_own_files(built: Path) -> None:
    assert len((built / "working" / "submission.csv").read_text().splitlines()) == 10
    report = json.loads((built / "working" / "submission.report.json").read_text())
    assert {each["ranker"]: each["state"] for each in report["rankers"]} == dict.fromkeys([*TWINS, "race"], "finished")
    assert all(each["planned_memory_mib"] is not None for each in report["rankers"])
    # The published head is used as it is: nothing is trained, and one fold answers for all.
    assert not list((built / "weights" / "race").rglob("*.safetensors"))
    assert list((built / "weights" / "modernbert_large" / "fold_0").glob("adapter_model.safetensors"))


def test_the_files_of_each_that_a_bundle_holds(built: Path) -> None:
    for name, files in FILES.items():
        assert sorted(path.name for path in model_files(built / "models" / name)) == files.split()


def test_doctor_takes_them(built: Path) -> None:
    done = run("doctor", "--json", cwd=built)
    findings = json.loads(done.stdout)["findings"]
    assert [each for each in findings if each["state"] == "error"] == [] and done.returncode == 0, done.stdout


def test_a_new_head_that_is_not_trained_is_refused(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "configs", tmp_path / "configs")
    shutil.copy(built / "questions.csv", tmp_path)
    (tmp_path / "corpus.csv").symlink_to(built / "corpus.csv")
    changes = [f"{name}.training.epochs=0" for name in ("deberta_v3_large", "modernbert_large", "flan_t5_large")]
    done = run("train", "--all-folds", *changes, "flan_t5_large.head=last_token", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "deberta_v3_large has no trained head for multiple choice" in done.stderr
    assert "modernbert_large has no trained head for multiple choice (it would be new: classifier" in done.stderr
    assert "flan_t5_large: head last_token is new" in done.stderr
    assert not (tmp_path / "oof").exists() and not (tmp_path / "weights").exists()
