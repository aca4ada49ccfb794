"""QLoRA: bits per parameter, every family, and the real weights of SmolLM2."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import saved_and_loaded, tiny_config, tiny_exam

from solution.errors import UserError
from solution.learning.adapters import bits_per_parameter
from solution.rankers.families import make_ranker

torch.set_num_threads(1)


def quantized(family: str, folder: str, double: bool = True, **changes: Any) -> Any:
    return tiny_config(family, folder, quantization={"kind": "nf4", "double": double}, **changes)


@pytest.fixture(scope="module")
def wide_llama(tiny, tmp_path_factory) -> str:
    """A Llama of one layer with matrices of the size of SmolLM2's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide") / "llama"
    config = LlamaConfig.from_pretrained(tiny("llama"))
    config.update({"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 1, "head_dim": 128})
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny("llama")) / name, folder)
    return str(folder)


# QLoRA (Dettmers et al. 2023), section 3: a constant for 64 weights takes 32 / 64 bits a weight, and quantised again
# 8 / 64 + 32 / (64 * 256).
DOUBLE, PLAIN = 4 + 8 / 64 + 32 / (64 * 256), 4 + 32 / 64


def with_tables(theory: float, matrices: int, elements: int) -> Any:
    """bitsandbytes keeps a table of 16 levels with each matrix, and with double quantisation one of 256."""
    numbers = 16 + (256 + 1 if theory == DOUBLE else 0)
    return pytest.approx(theory + 32 * numbers * matrices / elements, abs=3e-4)


@pytest.mark.parametrize(("double", "theory"), [(True, DOUBLE), (False, PLAIN)])
def test_bits_per_parameter(wide_llama, tmp_path, capsys, double, theory):
    config = quantized("causal", wide_llama, double, head="likelihood", training={"epochs": 0})
    exam = tiny_exam(2, 2)
    ranker = make_ranker(config, tmp_path)
    facts = ranker.fit(exam, exam, tmp_path / "c")
    bits = facts["bits_per_parameter"]
    assert bits == bits_per_parameter(ranker.model)
    small = 512 * 512 * 2 + 512 * 256 * 2 + 3 * 512 * 2048
    assert bits["quantized"] == with_tables(theory, 7, small)
    assert f"{bits['quantized']:.3f} bits a 4-bit parameter" in capsys.readouterr().err
    # Embeddings, output layer and norms stay in 32 bits here.
    large = sum(p.numel() for p in ranker.model.parameters() if not hasattr(p, "quant_state"))
    assert bits["model"] == pytest.approx((bits["quantized"] * small + 32 * large) / (small + large), abs=1e-3)


def test_bits_of_a_model_without_4_bit_weights():
    with pytest.raises(ValueError, match="no weight"):
        bits_per_parameter(torch.nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("family", "model", "layers"),
    [("multiple_choice", "bert", 12), ("multiple_choice", "deberta", 12), ("seq2seq", "t5", 32)],
)
def test_qlora_of_every_family(tiny, tmp_path, family, model, layers):
    """New heads, poolers and T5's `wo` stay whole; what is trained is saved and comes back."""
    import bitsandbytes as bnb

    config = quantized(family, tiny(model), training={"epochs": 4, "gradient_checkpointing": True})
    exam = tiny_exam(8, 3)
    ranker = make_ranker(config, tmp_path)
    facts = ranker.fit(exam, exam, tmp_path / "c")
    names = [name for name, module in ranker.model.named_modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(names) == layers
    assert not any(part in name for name in names for part in ("pooler", "classifier", "lm_head"))
    assert np.mean(facts["loss"][-2:]) < np.mean(facts["loss"][:2])
    assert facts["bits_per_parameter"] == bits_per_parameter(ranker.model)
    assert ranker.model.base_model.model.is_gradient_checkpointing
    saved_and_loaded(ranker, exam, tmp_path)


def test_4_bit_weights_are_not_trained_whole(tiny, tmp_path):
    lora = {"target_modules": ["q_proj"], "modules_to_save": ["v_proj"]}
    with pytest.raises(UserError, match="names a module with 4-bit weights .*v_proj.*target_modules"):
        make_ranker(quantized("causal", tiny("llama"), lora=lora), tmp_path).build()


def test_compute_dtype_is_the_device_s(tiny, tmp_path):
    import bitsandbytes as bnb

    for precision in ("float32", "bfloat16"):
        ranker = make_ranker(quantized("causal", tiny("llama"), precision=precision), tmp_path)
        ranker.build()
        kinds = {m.compute_dtype for m in ranker.model.modules() if isinstance(m, bnb.nn.Linear4bit)}
        assert kinds == {getattr(torch, precision)}
        # `prepare_model_for_kbit_training`: whatever is not 4-bit is kept in float32.
        assert {p.dtype for p in ranker.model.parameters() if not hasattr(p, "quant_state")} == {torch.float32}


SMOLLM2 = (30 * 7, 30 * (576 * (576 + 192 + 192 + 576) + 3 * 576 * 1536))  # matrices, numbers in them


@pytest.fixture(scope="module")
def smollm2_exam() -> Any:
    from solution.demo.exam import EXAM
    from solution.exam import Exam
    from solution.questions import read_questions

    questions = read_questions(EXAM).subset(range(4))
    return Exam(questions, [[] for _ in range(4)])


def likelihoods(ranker: Any, exam: Any) -> torch.Tensor:
    """Of every option a token, before training: float [questions, options]."""
    items = [ranker.encode_question(exam, row, 0, list(range(5))) for row in range(len(exam))]
    with torch.inference_mode():
        return ranker.encoded_scores(items)


def test_smollm2_forward_and_backward(smollm2, smollm2_exam, tmp_path):
    """The real weights in NF4: close to float32 in what they say, and LoRA learns through every 4-bit layer."""
    config = quantized(
        "causal",
        smollm2,
        head="likelihood",
        max_tokens=96,
        lora={"r": 4, "target_modules": ["q_proj", "v_proj"]},
        training={"epochs": 2, "learning_rate": 3e-3, "optimizer": "paged_adamw_8bit", "gradient_checkpointing": True},
    )
    ranker = make_ranker(config, tmp_path)
    ranker.build()
    bits = bits_per_parameter(ranker.model)
    assert bits["quantized"] == with_tables(DOUBLE, *SMOLLM2)
    start = likelihoods(ranker, smollm2_exam)
    plain = make_ranker(config.model_copy(update={"quantization": None}), tmp_path)
    plain.build()
    # Without a context about 6 nats a token; ln(49152) = 10.8 would be noise.
    exact = likelihoods(plain, smollm2_exam)
    assert -7 < exact.mean() < -5
    assert 0.01 < float((start - exact).abs().mean()) < 0.7
    del plain
    facts = ranker.fit(smollm2_exam, smollm2_exam.subset([0]), tmp_path / "c")
    assert facts["bits_per_parameter"] == bits and len(facts["loss"]) == 2
    assert facts["loss"][-1] < facts["loss"][0] - 0.02
    moved = [p for name, p in ranker.model.named_parameters() if "lora_B" in name]
    assert len(moved) == 60 and all(float(p.detach().abs().max()) > 1e-4 for p in moved)
    assert all(math.isfinite(float(p.detach().sum())) for p in moved)


def test_smollm2_without_double_quantisation(smollm2, tmp_path):
    config = quantized("causal", smollm2, double=False, head="likelihood", training={"epochs": 0})
    ranker = make_ranker(config, tmp_path)
    ranker.build()
    assert bits_per_parameter(ranker.model)["quantized"] == with_tables(PLAIN, *SMOLLM2)
    assert json.loads((Path(smollm2) / "config.json").read_text())["hidden_size"] == 576
