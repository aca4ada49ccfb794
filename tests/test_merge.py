"""`merge`: the stand-alone model says what the adapter says, and is used as a ranker without leaking."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny_config, tiny_exam

from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, Run
from solution.errors import UserError
from solution.exam import Exam
from solution.oof import read_oof
from solution.questions import Questions
from solution.rankers.families import make_ranker
from solution.retrieval.contexts.build import build_contexts
from solution.training.merge import merge_fold
from solution.training.run import train_folds
from solution.workdir import Workdir

torch.set_num_threads(1)
COLUMN = RetrievalConfig(source="column", option_scores=[])


def exam_of(seed: int = 0) -> tuple[Any, Questions]:
    exam = tiny_exam(12, (4, 3), seed=seed)
    exam.questions.extra["context"] = [passages[0].text for passages in exam.passages]
    return exam, exam.questions


def train(config: RankerConfig, root: Path, folds: list[int], questions: Questions | None = None) -> Workdir:
    workdir = Workdir.open(root)
    settings = Run(
        rankers=[config],
        retrieval=COLUMN,
        ensemble=EnsembleConfig(rankers=[config.name], folds=3, near_duplicate=1),
    )
    train_folds(settings, questions or exam_of()[1], workdir, folds)
    return workdir


def ranker_config(family: str, folder: str, **changes: Any) -> RankerConfig:
    return tiny_config(family, folder, training={"epochs": 3}, **changes)


@pytest.fixture(scope="module")
def tied(tiny, tmp_path_factory) -> Callable[[str], str]:
    """Tiny models whose output layer is their embeddings; T5 then scales what goes into it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    root = tmp_path_factory.mktemp("tied")

    def folder(model: str) -> str:
        if not (root / model).is_dir():
            config = AutoConfig.from_pretrained(tiny(model))
            config.tie_word_embeddings = True
            torch.manual_seed(0)
            kind = AutoModelForSeq2SeqLM if model == "t5" else AutoModelForCausalLM
            kind.from_config(config).save_pretrained(root / model)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(Path(tiny(model)) / name, root / model)
        return str(root / model)

    return folder


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert, biases and rslora": ("multiple_choice", "bert", {"lora": {"bias": "all", "use_rslora": True}}),
    "deberta, DoRA": ("multiple_choice", "deberta", {"lora": {"use_dora": True}}),
    "llama, DoRA and norms": (
        "causal",
        "llama",
        {"head": "both", "lora": {"use_dora": True, "modules_to_save": ["norm"]}},
    ),
    "llama, tied, output layer": ("causal", "tied llama", {"head": "both", "lora": {"modules_to_save": ["lm_head"]}}),
    "phi3, longrope and patterns": (
        "causal",
        "phi3_longrope",
        {"head": "last_token", "lora": {"rank_pattern": {"qkv_proj": 2}, "alpha_pattern": {"o_proj": 3}}},
    ),
    "t5, rslora and norms": (
        "seq2seq",
        "t5",
        {"head": "both", "lora": {"use_rslora": True, "modules_to_save": ["final_layer_norm"]}},
    ),
    "t5, tied, output layer": ("seq2seq", "tied t5", {"head": "both", "lora": {"modules_to_save": ["lm_head"]}}),
}


def scores_of(ranker: Any, exam: Any) -> torch.Tensor:
    orders = [list(range(len(options))) for options in exam.questions.options]
    items = [ranker.encode_question(exam, row, 1, order) for row, order in enumerate(orders)]
    with torch.inference_mode():
        return ranker.encoded_scores(items)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings", "ignore:.*no longer tied")
@pytest.mark.parametrize("case", list(CASES))
def test_merged_model_says_what_the_adapter_says(tiny, tied, tmp_path, case):
    family, model, changes = CASES[case]
    folder = tied(model.removeprefix("tied ")) if model.startswith("tied") else tiny(model)
    config = ranker_config(family, folder, **changes)
    workdir = train(config, tmp_path / "work", [1])
    merged = merge_fold(workdir, "tiny", 1, tmp_path / "merged")
    assert merged.difference < 1e-5

    exam, _ = exam_of()
    adapter = make_ranker(config, workdir.cache)
    adapter.load(workdir.fold_weights("tiny", 1))
    own = make_ranker(RankerConfig.model_validate(yaml.safe_load(merged.settings.read_text())), tmp_path)
    np.testing.assert_allclose(own.predict(exam), adapter.predict(exam), atol=1e-5)
    torch.testing.assert_close(scores_of(own, exam), scores_of(adapter, exam), atol=2e-5, rtol=1e-5)
    assert not hasattr(own.model, "peft_config")

    import transformers

    kind = {"multiple_choice": "MultipleChoice", "causal": "CausalLM", "seq2seq": "Seq2SeqLM"}[family]
    loader = getattr(transformers, f"AutoModelFor{kind}")
    _, told = loader.from_pretrained(merged.folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]


@pytest.fixture(scope="module")
def qlora(tiny, tmp_path_factory):
    """A llama trained on 4-bit weights."""
    config = ranker_config("causal", tiny("llama"), head="both", quantization={"kind": "nf4", "double": True})
    return config, train(config, tmp_path_factory.mktemp("qlora"), [0])


def test_qlora_is_merged_into_what_it_was_trained_on(qlora, tiny, tmp_path):
    """Into the rounded weights, in full precision: the scores are those of the 4-bit model with its adapter."""
    config, workdir = qlora
    exam, _ = exam_of()
    adapter = make_ranker(config, workdir.cache)
    adapter.load(workdir.fold_weights("tiny", 0))
    wanted = adapter.predict(exam)
    merged = merge_fold(workdir, "tiny", 0, tmp_path / "merged")
    settings = RankerConfig.model_validate(yaml.safe_load(merged.settings.read_text()))
    assert settings.quantization is None and settings.lora is None
    np.testing.assert_allclose(make_ranker(settings, tmp_path).predict(exam), wanted, atol=1e-5)
    assert "quantization_config" not in (merged.folder / "config.json").read_text()
    # The unrounded base would have said something else.
    plain = make_ranker(config.model_copy(update={"quantization": None}), tmp_path)
    plain.load(workdir.fold_weights("tiny", 0))
    assert np.abs(plain.predict(exam) - wanted).max() > 1e-3


@pytest.fixture(scope="module")
def merged_bert(tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("merged")
    config = ranker_config("multiple_choice", tiny("bert"))
    workdir = train(config, root / "work", [0, 1])
    merged = merge_fold(workdir, "tiny", 1, root / "merged")
    return workdir, merged, RankerConfig.model_validate(yaml.safe_load(merged.settings.read_text()))


def test_bfloat16_takes_half_the_room(qlora, merged_bert, tmp_path):
    from safetensors import safe_open

    config, workdir = qlora
    whole = merge_fold(workdir, "tiny", 0, tmp_path / "whole")
    half = merge_fold(workdir, "tiny", 0, tmp_path / "half", "bfloat16")
    sizes = [(merged.folder / "model.safetensors").stat().st_size for merged in (whole, half)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.05)
    with safe_open(half.folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert 0 < half.difference < 0.05
    # An encoder, whose base is always loaded in float32.
    encoder = merge_fold(merged_bert[0], "tiny", 1, tmp_path / "encoder", "bfloat16")
    with safe_open(encoder.folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_merged_ranker_scores_its_own_fold(merged_bert):
    workdir, _, settings = merged_bert
    train(settings, workdir.root, [1])
    said = read_oof(workdir.oof_part("tiny_merged", 1))
    np.testing.assert_allclose(
        np.nan_to_num(said.probabilities), np.nan_to_num(read_oof(workdir.oof_part("tiny", 1)).probabilities), atol=1e-5
    )
    again = make_ranker(settings, workdir.cache)
    again.load(workdir.fold_weights("tiny_merged", 1))
    questions = exam_of()[1]
    exam = Exam.join(questions, build_contexts(questions, COLUMN, workdir.root))
    table = again.predict(exam.subset([questions.ids.index(id_) for id_ in said.ids]))
    np.testing.assert_allclose(table, np.nan_to_num(said.probabilities)[:, : table.shape[1]], atol=1e-6)


def test_merged_ranker_does_not_score_what_it_was_trained_on(merged_bert, tmp_path):
    workdir, _, settings = merged_bert
    with pytest.raises(UserError, match="was trained on 4 of these 4 questions.*may score fold 1 only"):
        train(settings, workdir.root, [0])
    # A copy of the exam under another name, with other questions beside, is seen through too.
    _, questions = exam_of()
    _, others = exam_of(seed=9)
    both = Questions(
        [f"new{i}" for i in range(24)],
        questions.prompts + [f"{prompt} now" for prompt in others.prompts],
        questions.options + others.options,
        np.concatenate([questions.answers, others.answers]),
        {"context": questions.extra["context"] + others.extra["context"]},
    )
    with pytest.raises(UserError, match="was trained on"):
        train(settings, tmp_path / "a", [0, 1, 2], both)
    train(settings, tmp_path / "b", [0, 1, 2], both.subset(range(12, 24)))
    assert len(read_oof(Workdir.open(tmp_path / "b").oof_part("tiny_merged", 2)).ids) == 4


def test_merged_needs_a_merged_folder(tiny, tmp_path):
    values = {"name": "x", "family": "multiple_choice", "model": tiny("bert"), "merged": True}
    with pytest.raises(ValueError, match="set training.epochs to 0"):
        RankerConfig(**values)
    config = RankerConfig(**values, training={"epochs": 0})
    with pytest.raises(UserError, match="manifest of the merged model not found"):
        make_ranker(config, tmp_path).predict(tiny_exam(1))


def test_refused(merged_bert, tiny, tmp_path, monkeypatch):
    workdir, merged, _ = merged_bert
    before = sorted(path.name for path in tmp_path.iterdir())

    def refuse(match: str, name: str = "tiny", fold: int = 0, output: Path = tmp_path / "out", **more: Any) -> None:
        with pytest.raises(UserError, match=match):
            merge_fold(more.pop("workdir", workdir), name, fold, output, **more)
        assert not (tmp_path / "out").exists()

    refuse("no trained fold 2.*train_fold.py --ranker tiny --fold 2", fold=2)
    refuse("no trained fold 0", name="other")
    refuse("exists already", output=merged.folder)
    refuse("model folder .* is not there", overrides=[f"model={tmp_path / 'none'}"])
    refuse("are wrong: lora.r", overrides=["lora.r=none"])
    whole = ranker_config("multiple_choice", tiny("bert"), lora=None)
    refuse("trained without lora", workdir=train(whole, tmp_path / "w", [0]))
    longest = RankerConfig(name="longest", family="longest")
    refuse("is not trained", name="longest", workdir=train(longest, tmp_path / "w", [0]))

    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        refuse("needs about .* GiB, and .* has 0.0 GiB free")
    # Whatever goes wrong in the merging is seen, and nothing is written.
    from peft import LoraModel

    with monkeypatch.context() as patch:
        patch.setattr(LoraModel, "merge_and_unload", LoraModel.unload)
        refuse("does not say what the adapter says")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "w") == before


def test_command(merged_bert, tmp_path):
    from typer.testing import CliRunner

    from solution.cli.app import app

    workdir, _, _ = merged_bert
    words = [
        "merge",
        "--ranker",
        "tiny",
        "--fold",
        "1",
        "--workdir",
        str(workdir.root),
        "--output",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "MB, float32" in done.stdout and f"out/tiny_merged.yaml --fold 1 --workdir {workdir.root}" in done.stdout
    first = (tmp_path / "out" / "tiny_merged.yaml").read_text().splitlines()[0]
    assert first == f"# python train_fold.py --config {tmp_path}/out/tiny_merged.yaml --fold 1"
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2 and "exists already" in again.stderr
