"""The mean of a ranker's folds, and that it answers in a submission."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline import run
from safetensors.torch import load_file, save_file

from solution.config import LoraSettings, RankerConfig
from solution.doctor.examine import examine
from solution.doctor.folder import unlike_folds
from solution.ensemble.costs import measured_cost
from solution.ensemble.deployment import note_untuned
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.files import read_json, write_json
from solution.inference.trained import TrainedRanker
from solution.learning.averaging import compressed, down_names, mean_adapter, mean_tensors, up_name, widened
from solution.rankers.families import make_ranker
from solution.weights import read_record, write_record
from solution.workdir import Workdir

ADAPTER = "adapter_model.safetensors"


def adapter_of(seed: int, rank: int = 2) -> dict[str, torch.Tensor]:
    """An adapter of one linear layer of 5 inputs and 4 outputs, one embedding of 6 words, and a head."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "base.query.lora_A.weight": (rank, 5),
        "base.query.lora_B.weight": (4, rank),
        "base.words.lora_embedding_A": (rank, 6),
        "base.words.lora_embedding_B": (3, rank),
        "base.score.weight": (1, 4),
    }
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def products(adapter: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [adapter[up_name(name)].double() @ adapter[name].double() for name in down_names(adapter)]


def test_the_mean_adapter_has_the_mean_product() -> None:
    adapters = [adapter_of(seed) for seed in range(3)]
    mean = mean_adapter(adapters)
    assert mean["base.query.lora_A.weight"].shape == (6, 5)
    assert len(products(mean)) == 2
    for place, product in enumerate(products(mean)):
        expected = torch.stack([products(adapter)[place] for adapter in adapters]).mean(dim=0)
        torch.testing.assert_close(product, expected, atol=1e-6, rtol=1e-5)
    head = torch.stack([adapter["base.score.weight"] for adapter in adapters]).mean(dim=0)
    torch.testing.assert_close(mean["base.score.weight"], head)


def test_an_adapter_is_brought_to_the_nearest_of_a_lower_rank() -> None:
    mean = mean_adapter([adapter_of(seed) for seed in range(3)])
    names = down_names(mean)
    same, lost = compressed(mean, 6)
    assert lost == pytest.approx(0, abs=1e-6)
    for before, after in zip(products(mean), products(same), strict=True):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    lower, lost = compressed(mean, 1)
    assert lower[names[0]].shape == (1, 5) and lower[up_name(names[0])].shape == (4, 1)
    kept, whole = [], []
    for before, after in zip(products(mean), products(lower), strict=True):
        values = torch.linalg.svdvals(before)
        assert torch.linalg.norm(before - after) == pytest.approx(float(values[1:].norm()), rel=1e-4)
        kept.append(values[1:].norm() ** 2)
        whole.append(values.norm() ** 2)
    assert lost == pytest.approx(float((sum(kept) / sum(whole)) ** 0.5), rel=1e-4)


@pytest.mark.parametrize("rslora", [False, True])
def test_the_scale_of_the_product_stays(rslora: bool) -> None:
    settings = LoraSettings(r=4, lora_alpha=6, use_rslora=rslora, rank_pattern={"query": 2}, alpha_pattern={"key": 5.0})
    wide = widened(settings, 3)
    power = 0.5 if rslora else 1
    assert (wide.r, wide.rank_pattern) == (12, {"query": 6})
    assert wide.lora_alpha / 12**power == pytest.approx(6 / 4**power)
    assert wide.lora_alpha / 6**power == pytest.approx(6 / 2**power)  # of the query
    assert wide.alpha_pattern["key"] / 12**power == pytest.approx(5 / 4**power)


def test_what_has_no_mean_is_refused() -> None:
    with pytest.raises(UserError, match="do not belong together: base.query.lora_A.weight"):
        mean_adapter([adapter_of(0), adapter_of(1, rank=3)])
    dora = {"base.query.lora_magnitude_vector": torch.ones(4), **adapter_of(0)}
    with pytest.raises(UserError, match="use_dora"):
        mean_adapter([dora, dora])
    assert mean_tensors([{"n": torch.tensor([2])}] * 2)["n"].tolist() == [2]
    with pytest.raises(UserError, match="n holds whole numbers that differ"):
        mean_tensors([{"n": torch.tensor([2])}, {"n": torch.tensor([3])}])


@pytest.fixture(scope="module")
def averaged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished working folder with the mean of its trained ranker's folds, tuned to answer with it."""
    folder = tmp_path_factory.mktemp("average") / "work"
    shutil.copytree(finished, folder)
    for name, text in (("retrieval", "retrievals: {other: {top_k: 1}}\n"), ("tiny", "retrieval: [default, other]\n")):
        path = folder / "configs" / f"{name}.yaml"
        path.write_text(path.read_text() + text)
    assert run("train", "--all-folds", "--ranker", "tiny", cwd=folder).returncode == 0
    lacking = run("tune", "tiny.answer_with=average", cwd=folder)
    assert lacking.returncode == 2 and "train_fold.py --average --ranker tiny" in lacking.stderr
    done = run("train", "--average", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "tiny: 3 folds averaged" in done.stderr and "similarity: has no weights" in done.stderr
    again = run("train", "--average", cwd=folder)
    assert "averaged already, nothing has changed" in again.stderr
    done = run("tune", "tune.choose=equal", "answer_with=average", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_loaded_model_has_the_mean_of_the_folds_changes(averaged: Path) -> None:
    workdir = Workdir(averaged)
    deltas = []
    for folder in [workdir.average_weights("tiny"), *(workdir.fold_weights("tiny", fold) for fold in range(3))]:
        ranker = make_ranker(RankerConfig.model_validate(read_json(folder / "ranker.json", "", "")["config"]), averaged)
        ranker.load(folder)
        layers = {name: module for name, module in ranker.model.named_modules() if hasattr(module, "get_delta_weight")}
        deltas.append({name: layer.get_delta_weight("default") for name, layer in layers.items()})
    mean, *folds = deltas
    assert len(mean) > 1
    for name, delta in mean.items():
        assert delta.abs().max() > 0
        expected = torch.stack([fold[name] for fold in folds]).mean(dim=0)
        torch.testing.assert_close(delta, expected, atol=1e-7, rtol=1e-4)


def test_a_submission_answers_with_the_mean_at_the_cost_of_a_fold(averaged: Path) -> None:
    about = load_ensemble(Workdir(averaged))["about"]
    assert about["tiny"]["answer_with"] == "average" and "answer_with" not in about["similarity"]
    done = run("submit", "--probabilities", "p.csv", cwd=averaged)
    assert done.returncode == 0, done.stderr
    assert "tiny: 9 questions, the mean of its folds" in done.stderr
    cost = measured_cost(Workdir(averaged), "tiny", about["tiny"])
    assert cost.seconds_per_question == cost.fold_seconds
    stored = [
        read_json(folder / "ranker.json", "", "")["retrievals"]
        for folder in (Workdir(averaged).average_weights("tiny"), Workdir(averaged).fold_weights("tiny", 0))
    ]
    assert list(stored[0]) == ["default", "other"] and stored[0] == stored[1]


def test_doctor_compares_the_settings_of_the_folds(averaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(averaged)

    def look() -> list[str]:
        return [each.found for each in examine(Path(), Path("configs")).findings if each.subject == "tiny"]

    found = look()
    assert "the mean of its folds, hashes checked; not used (answer_with: folds)" in found, found
    assert not [text for text in found if "other settings" in text], found
    path = averaged / "configs" / "tiny.yaml"
    before = path.read_text()
    path.write_text(before + "answer_with: average\nseed: 7\n")
    found = look()
    path.write_text(before)
    assert "the mean of its folds, hashes checked; made with other settings than those of now: seed" in found, found
    assert "fold 0, 1, 2: trained with other settings than those of now: seed" in found, found


def test_the_mean_is_compared_with_every_fold(averaged: Path, tmp_path: Path) -> None:
    """By the weights that are here, or else by the OOF files."""
    shutil.copytree(averaged / "weights" / "tiny", tmp_path / "weights" / "tiny")
    shutil.copytree(averaged / "oof" / "tiny", tmp_path / "oof" / "tiny")
    workdir = Workdir(tmp_path)
    record = read_record(workdir.average_weights("tiny"), "")
    assert unlike_folds(workdir, "tiny", record) == ""
    fold = read_record(workdir.fold_weights("tiny", 2), "")
    write_record(workdir.fold_weights("tiny", 2), {**fold, "about": {**fold["about"], "contexts": "other"}})
    assert unlike_folds(workdir, "tiny", record) == "contexts than fold 2 was"
    for number in range(3):
        shutil.rmtree(workdir.fold_weights("tiny", number))
    assert unlike_folds(workdir, "tiny", record) == ""
    record["about"]["questions"] = "other"
    assert unlike_folds(workdir, "tiny", record) == "questions than fold_0.parquet was"


def test_a_mean_of_folds_of_another_exam_waits_for_tune(averaged: Path, tmp_path: Path, capsys: Any) -> None:
    """Its folds were trained again with it; without them it is the mean that is to be made again."""
    shutil.copytree(averaged, tmp_path / "copy")
    workdir = Workdir(tmp_path / "copy")
    ensemble: Any = load_ensemble(workdir)
    note_untuned(workdir, ["tiny", "similarity"])
    assert capsys.readouterr().err == ""
    ensemble["about"]["tiny"]["questions"] = "other"
    about = {**ensemble["about"]["tiny"], "answer_with": "average"}
    with pytest.raises(UserError, match="average .* made with other questions. Run again.* tune$"):
        TrainedRanker.read(workdir, "tiny", about, [])
    write_json(workdir.ensemble, {**ensemble, "hash": None})
    note_untuned(workdir, ["tiny", "similarity"])
    assert "was tuned on other questions or settings than tiny is trained with now" in capsys.readouterr().err
    for path, text in zip((workdir.weights / "tiny").glob("fold_*/ranker.json"), ("{", "[]", "{}"), strict=True):
        path.write_text(text)
    note_untuned(workdir, ["tiny"])  # after a training of another fold: no error
    assert not capsys.readouterr().err
    for fold in range(3):
        shutil.rmtree(workdir.fold_weights("tiny", fold))
    with pytest.raises(UserError, match="made with other questions. Train it again.*--average --ranker tiny"):
        TrainedRanker.read(workdir, "tiny", about, [])


def test_rank_brings_the_mean_down_and_tells_the_loss(averaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(averaged, folder)
    done = run("train", "--average", "--rank", "1", "--ranker", "tiny", cwd=folder)
    assert done.returncode == 0 and "LoRA brought to rank 1: " in done.stderr, done.stderr
    weights = load_file(Workdir(folder).average_weights("tiny") / ADAPTER)
    assert {weights[name].shape[0] for name in down_names(weights)} == {1}
    assert run("submit", cwd=folder).returncode == 0
    for arguments, message in (
        (["--average", "--rank", "99"], "--rank must be at most"),
        (["--average", "ensemble.folds=2"], "tiny was trained with 3 folds, and ensemble.folds is 2"),
        (["--average", "tiny.seed=5"], "train_fold.py --all-folds --ranker tiny tiny.seed=5"),
        (["--all-folds", "--rank", "2"], "--rank is for --average"),
    ):
        done = run("train", *arguments, "--ranker", "tiny", cwd=folder)
        assert done.returncode == 2 and message in done.stderr, done.stderr


def test_the_mean_alone_is_enough_to_submit_from(averaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(averaged, folder)
    for fold in range(3):
        shutil.rmtree(Workdir(folder).fold_weights("tiny", fold))
    found = run("doctor", cwd=folder).stdout
    assert "the mean of its folds, hashes checked" in found and "not trained yet" not in found, found


def test_damaged_folds_are_not_averaged(averaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(averaged, folder)
    save_file({"x": torch.zeros(1)}, Workdir(folder).fold_weights("tiny", 1) / ADAPTER)
    done = run("train", "--average", "--ranker", "tiny", cwd=folder)
    assert done.returncode == 2 and "fold_1" in done.stderr and "Traceback" not in done.stderr
    assert np.isfinite(load_file(Workdir(folder).average_weights("tiny") / ADAPTER).popitem()[1].numpy()).all()
