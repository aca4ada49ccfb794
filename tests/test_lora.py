"""Every LoRA setting acts, and what is trained with it is saved: all families."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import saved_and_loaded, tiny_config, tiny_exam

from solution.config import LoraSettings
from solution.errors import UserError
from solution.rankers.families import make_ranker

torch.set_num_threads(1)

FAMILIES = {"bert": "multiple_choice", "llama": "causal", "t5": "seq2seq"}
FIRST, SECOND = (
    {"bert": "query", "llama": "q_proj", "t5": "q"},
    {"bert": "value", "llama": "v_proj", "t5": "v"},
)
LINEAR = {"bert": 2 * 6, "llama": 2 * 7, "t5": 2 * (4 + 3) + 2 * (8 + 3)}  # linear maps, heads and poolers apart
WHOLE = {"bert": "LayerNorm", "llama": "norm", "t5": "final_layer_norm"}
PATTERN = {"bert": "layer", "llama": "layers", "t5": "block"}


def lora_layers(ranker: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in ranker.model.named_modules() if isinstance(module, LoraLayer)}


def trained(ranker: Any) -> dict[str, torch.Tensor]:
    return {name: p for name, p in ranker.model.named_parameters() if p.requires_grad}


def in_layer(name: str, number: int, model: str) -> bool:
    return f".{PATTERN[model]}.{number}." in name


# Setting -> its value for a model, and what it must have done.
Check = Callable[[Any, str], bool]
CASES: dict[str, tuple[Callable[[str], dict[str, Any]], Check]] = {
    "r": (
        lambda m: {"r": 3},
        lambda r, m: {x.lora_A["default"].weight.shape[0] for x in lora_layers(r).values()} == {3},
    ),
    "lora_alpha": (
        lambda m: {"lora_alpha": 20},
        lambda r, m: {x.scaling["default"] for x in lora_layers(r).values()} == {20 / 4},
    ),
    "lora_dropout": (
        lambda m: {"lora_dropout": 0.4},
        lambda r, m: {getattr(x.lora_dropout["default"], "p", 0.0) for x in lora_layers(r).values()} == {0.4},
    ),
    "target_modules, a list": (
        lambda m: {"target_modules": [SECOND[m]]},
        lambda r, m: {name.rsplit(".", 1)[-1] for name in lora_layers(r)} == {SECOND[m]},
    ),
    "target_modules, a regular expression": (
        lambda m: {"target_modules": rf".*\.{PATTERN[m]}\.1\..*\.{FIRST[m]}"},
        lambda r, m: (
            all(name.endswith("." + FIRST[m]) and in_layer(name, 1, m) for name in lora_layers(r))
            and len(lora_layers(r)) == (3 if m == "t5" else 1)
        ),
    ),
    "target_modules, all": (
        lambda m: {"target_modules": "all-linear"},
        lambda r, m: len(lora_layers(r)) == LINEAR[m],
    ),
    "target_modules, PEFT's choice": (
        lambda m: {"target_modules": None},
        lambda r, m: {name.rsplit(".", 1)[-1] for name in lora_layers(r)} == {FIRST[m], SECOND[m]},
    ),
    "use_rslora": (
        lambda m: {"use_rslora": True},
        lambda r, m: all(math.isclose(x.scaling["default"], 8 / math.sqrt(4)) for x in lora_layers(r).values()),
    ),
    "use_dora": (
        lambda m: {"use_dora": True},
        lambda r, m: sum("lora_magnitude_vector" in name for name in trained(r)) == len(lora_layers(r)),
    ),
    "modules_to_save": (
        lambda m: {"modules_to_save": [WHOLE[m]]},
        lambda r, m: any(f"{WHOLE[m]}.modules_to_save.default" in name for name in trained(r)),
    ),
    "layers_to_transform, a list": (
        lambda m: {"layers_to_transform": [1]},
        lambda r, m: bool(lora_layers(r)) and all(in_layer(name, 1, m) for name in lora_layers(r)),
    ),
    "layers_to_transform, a number": (
        lambda m: {"layers_to_transform": 0},
        lambda r, m: bool(lora_layers(r)) and all(in_layer(name, 0, m) for name in lora_layers(r)),
    ),
    # T5's layers are `block`s and their parts `layer`s; the second part of a decoder's block is its cross-attention.
    "layers_pattern": (
        lambda m: {"layers_to_transform": [1], "layers_pattern": "layer" if m == "t5" else PATTERN[m]},
        lambda r, m: (
            all(("EncDecAttention" in name) if m == "t5" else in_layer(name, 1, m) for name in lora_layers(r))
            and len(lora_layers(r)) == (4 if m == "t5" else 2)
        ),
    ),
    "rank_pattern": (
        lambda m: {"rank_pattern": {FIRST[m]: 2}},
        lambda r, m: all(
            x.r["default"] == (2 if name.endswith("." + FIRST[m]) else 4) for name, x in lora_layers(r).items()
        ),
    ),
    "alpha_pattern": (
        lambda m: {"alpha_pattern": {SECOND[m]: 2.0}},
        lambda r, m: all(
            x.scaling["default"] == (0.5 if name.endswith("." + SECOND[m]) else 2.0)
            for name, x in lora_layers(r).items()
        ),
    ),
}
BIAS: dict[str, Check] = {
    "all": lambda r, m: any("k_proj.bias" in n or "key.bias" in n for n in trained(r)),
    "lora_only": lambda r, m: (
        any(FIRST[m] in n and n.endswith("bias") for n in trained(r))
        and not any("k_proj.bias" in n or "key.bias" in n for n in trained(r))
    ),
}


def config_of(model: str, folder: str, **lora: Any) -> Any:
    lora = {"target_modules": [FIRST[model], SECOND[model]], **lora}
    more = {"multiple_choice": {}, "causal": {"head": "both"}, "seq2seq": {"head": "both"}}[FAMILIES[model]]
    return tiny_config(FAMILIES[model], folder, lora=lora, **more)


def move(ranker: Any) -> None:
    """As training would: every trained parameter is moved, so that one that is not saved is missed."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in ranker.modules:
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def comes_back(config: Any, folder: Path) -> Any:
    """Save what has been moved and load it into a fresh ranker."""
    exam = tiny_exam(4, 3)
    ranker = make_ranker(config, folder)
    ranker.build()
    fresh = ranker.predict(exam)
    move(ranker)
    assert np.abs(ranker.predict(exam) - fresh).max() > 1e-3
    saved_and_loaded(ranker, exam, folder)
    return ranker


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("model", list(FAMILIES))
def test_setting_acts_and_is_saved(tiny, tmp_path, model, case):
    change, acts = CASES[case]
    plain = make_ranker(config_of(model, tiny(model)), tmp_path)
    plain.build()
    assert case == "target_modules, PEFT's choice" or not acts(plain, model)
    assert acts(comes_back(config_of(model, tiny(model), **change(model)), tmp_path), model)


@pytest.fixture(scope="module")
def with_biases(tiny, tmp_path_factory) -> Callable[[str], str]:
    """The tiny BERT, and a tiny Llama that has biases as Qwen has (T5 and Phi-3 have none)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("biases") / "llama"
    config = LlamaConfig.from_pretrained(tiny("llama"))
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny("llama")) / name, folder)
    return lambda model: str(folder) if model == "llama" else tiny(model)


@pytest.mark.parametrize("bias", list(BIAS))
@pytest.mark.parametrize("model", ["bert", "llama"])
def test_bias_is_trained_and_saved(with_biases, tmp_path, model, bias):
    plain = make_ranker(config_of(model, with_biases(model)), tmp_path)
    plain.build()
    body = [name for name in trained(plain) if name.endswith("bias") and "modules_to_save" not in name]
    assert not body
    assert BIAS[bias](comes_back(config_of(model, with_biases(model), bias=bias), tmp_path), model)


def test_every_setting_has_a_case():
    tested = {case.split(",")[0] for case in CASES} | {"bias"}
    assert tested == set(LoraSettings.model_fields)


def test_dropout_acts_in_training_only(tiny, tmp_path):
    ranker = make_ranker(config_of("llama", tiny("llama"), lora_dropout=0.5), tmp_path)
    ranker.build()
    move(ranker)
    exam = tiny_exam(1, 3)
    item = ranker.encode_question(exam, 0, 1, [0, 1, 2])

    def twice() -> bool:
        one, other = ranker.encoded_scores([item]), ranker.encoded_scores([item])
        return torch.equal(one, other)

    assert twice()
    ranker.model.train()
    assert not twice()


def test_pattern_that_fits_no_layer(tiny, tmp_path):
    for lora in ({"layers_to_transform": [1], "layers_pattern": "h"}, {"layers_pattern": "layers"}):
        with pytest.raises(UserError, match="PEFT refuses the lora settings"):
            make_ranker(config_of("llama", tiny("llama"), **lora), tmp_path).build()


def test_what_is_trained_whole_is_float32_on_a_bfloat16_base(tiny, tmp_path):
    """PEFT copies a module in the base's dtype; AdamW would lose small updates in it."""
    config = config_of("llama", tiny("llama"), modules_to_save=["norm"]).model_copy(update={"precision": "bfloat16"})
    ranker = make_ranker(config, tmp_path)
    exam = tiny_exam(4, 3)
    facts = ranker.fit(exam, exam, tmp_path / "c")
    assert np.isfinite(facts["loss"]).all()
    assert {p.dtype for p in ranker.model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in trained(ranker).values()} == {torch.float32}
