"""Decoders whose options no mask keeps apart (recurrent layers, convolutions, ALiBi): each option is a sequence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import saved_and_loaded, tiny_config, tiny_exam
from test_rankers import items_of, reference

from solution.doctor import folder
from solution.doctor.examined import Examined
from solution.errors import UserError
from solution.exam import ContextPassage
from solution.rankers.causal import option_places
from solution.rankers.families import make_ranker
from solution.rankers.generative import EncodedOptions
from solution.workdir import Workdir

_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
_MAMBA2 = {"mamba_n_heads": 2, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_n_groups": 1}
_DELTA = {f"linear_{name}": 8 for name in ("key_head_dim", "value_head_dim")}
_DELTA |= {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
# Class -> its settings, and the maps that LoRA is put on.
MODELS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "Mamba": ({"state_size": 4}, ["in_proj", "x_proj"]),
    "Jamba": ({**_HEADS, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
               "use_mamba_kernels": False, "mamba_dt_rank": 4}, ["q_proj", "in_proj"]),
    "FalconH1": ({**_HEADS, **_MAMBA2, "mamba_d_ssm": 32, "mamba_d_head": 16, "lm_head_multiplier": 0.5},
                 ["q_proj", "down_proj"]),
    "Lfm2": ({**_HEADS, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8}, ["in_proj", "q_proj"]),
    "GraniteMoeHybrid": ({**_HEADS, **_MAMBA2, "layer_types": ["mamba", "attention"], "mamba_d_head": 32,
                          "num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 32,
                          "logits_scaling": 2.0}, ["q_proj", "in_proj"]),
    "Qwen3_5": ({**_HEADS, **_DELTA, "layer_types": ["linear_attention", "full_attention"]}, ["q_proj", "out_proj"]),
    "RecurrentGemma": ({"lru_width": 32, "attention_window_size": 16, "logits_soft_cap": 5.0, "num_hidden_layers": 3,
                        **_HEADS}, ["q_proj", "down_proj"]),
    "Bloom": ({"n_layer": 2, "n_head": 2}, ["query_key_value"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder_of(tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    root = tmp_path_factory.mktemp("unpacked")

    def build(name: str) -> str:
        import transformers

        place = root / name
        if place.is_dir():
            return str(place)
        sizes = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
        ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        part = "TextConfig" if name == "Qwen3_5" else "Config"
        config = getattr(transformers, name + part)(
            **{**sizes, **ends, "max_position_embeddings": 512, **MODELS[name][0]}
        )
        torch.manual_seed(1)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.12)
        model.save_pretrained(place)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(Path(tiny("llama")) / file, place)
        return str(place)

    return build


def exam_of_many_lengths() -> Any:
    exam = tiny_exam(4, (5, 2))
    for row, words in enumerate((6, 22, 20, 30)):
        exam.passages[row] = [ContextPassage("x", "", "stone river light water " * (words // 4), 1.0, "dense")]
    return exam


@pytest.mark.parametrize("name", MODELS)
def test_each_option_is_scored_as_a_sequence(
    folder_of: Callable[[str], str], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(
        "causal", folder_of(name), head="both", max_tokens=90, lora={"target_modules": MODELS[name][1]}
    )
    ranker: Any = make_ranker(config, tmp_path)
    exam = exam_of_many_lengths()
    facts = ranker.fit(exam, exam, tmp_path / "checkpoint")
    assert np.isfinite(facts["loss"]).all()
    assert not ranker.packs
    shown = capsys.readouterr().err
    assert "each option is read as a sequence of its own" in shown and "five times the time" in shown

    ranker.model.eval()
    items = items_of(ranker, exam)
    with torch.no_grad():
        ranker.head.score_weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
        scores = ranker.encoded_scores(items)
        for row, item in enumerate(items):
            torch.testing.assert_close(scores[row, item.positions], reference(ranker, item), atol=1e-4, rtol=0)
    # Batches of single options, of which each question has several.
    table = ranker.predict(exam)
    for row, item in enumerate(items):
        wanted = scores[row, item.positions].softmax(0).numpy()
        np.testing.assert_allclose(table[row, item.positions], wanted, atol=1e-4)
    saved_and_loaded(ranker, exam, tmp_path)


def test_the_decoder_inside_a_model_of_pictures(tiny: Callable[[str], str], tmp_path: Path) -> None:
    """Qwen3.5 as it is published: the decoder's settings are a part of config.json, its tensors named for it."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    sizes = {"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"num_position_embeddings": 16, "patch_size": 4}
    torch.manual_seed(1)
    model = Qwen3_5ForConditionalGeneration(
        Qwen3_5Config(text_config={**sizes, **MODELS["Qwen3_5"][0]}, vision_config=vision)
    ).eval()
    model.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny("llama")) / file, tmp_path)
    config = tiny_config("causal", str(tmp_path), head="likelihood", training={"epochs": 0})
    ranker: Any = make_ranker(config, tmp_path)
    ranker.build()
    assert type(ranker.model).__name__ == "Qwen3_5ForCausalLM" and not ranker.packs
    ids = torch.tensor([[1, 5, 9, 7]])
    with torch.no_grad():
        torch.testing.assert_close(ranker.model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_cost_is_that_of_all_sequences(folder_of: Callable[[str], str], tmp_path: Path) -> None:
    ranker: Any = make_ranker(tiny_config("causal", folder_of("Mamba"), lora={"target_modules": ["in_proj"]}), tmp_path)
    ranker.build()
    _, items = ranker.items(exam_of_many_lengths())
    first = items[0].encoded
    assert ranker.length(items[0]) == sum(len(first.prefix) + len(option) for option in first.options)
    parts = ranker.parts(items[0])
    assert [part.encoded.positions for part in parts] == [[position] for position in first.positions]
    assert sum(map(ranker.length, parts)) == ranker.length(items[0])
    # A head that compares a question's options needs them together.
    ranker.config = ranker.config.model_copy(update={"head_others": True})
    assert ranker.parts(items[0]) == [items[0]]


def test_option_places() -> None:
    items = [EncodedOptions([5, 6, 7], [[1, 2], [3]], [0, 1]), EncodedOptions([5], [[4]], [0])]
    assert [tuple(place) for place in option_places(items, packed=True)] == [
        (0, 3, 2, 2, 0),
        (0, 5, 2, 1, 0),
        (1, 1, 0, 1, 1),
    ]
    assert [tuple(place) for place in option_places(items, packed=False)] == [
        (0, 3, 2, 2, 0),
        (1, 3, 2, 1, 0),
        (2, 1, 0, 1, 1),
    ]


@pytest.mark.parametrize("name", ["Lfm2", "Mamba"])
def test_streaming_such_a_model_is_refused(folder_of: Callable[[str], str], tmp_path: Path, name: str) -> None:
    config = tiny_config("causal", folder_of(name), head="likelihood", stream=True, training={"epochs": 0})
    with pytest.raises(UserError, match="not attention .*packed behind one prefix.*set stream to false"):
        make_ranker(config, tmp_path).predict(tiny_exam(2))


@pytest.mark.parametrize(
    ("name", "kind"), [("Lfm2", "conv"), ("Qwen3_5", "linear_attention"), ("Jamba", "linear_attention")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_doctor_tells_the_layers(
    folder_of: Callable[[str], str], name: str, kind: str, stream: bool, tmp_path: Path
) -> None:
    config = tiny_config("causal", folder_of(name), head="likelihood", stream=stream, training={"epochs": 0})
    examined = SimpleNamespace(pairs=[(config, None), (config, None)], by_name={}, workdir=Workdir(tmp_path))
    (_, finding) = folder.models(cast(Examined, examined))
    assert finding.state == ("error" if stream else "warning")
    assert f"not attention ({kind}): tiny reads each option by itself" in finding.found
    assert ("tiny.stream=false" in finding.remedy) == stream


def test_an_output_layer_that_is_not_understood_is_refused(tiny: Callable[[str], str], tmp_path: Path) -> None:
    """ModernBERT's decoder has a layer between its states and its logits; a head on the states may use it."""
    from transformers import ModernBertDecoderConfig, ModernBertDecoderForCausalLM

    place = tmp_path / "decoder"
    config = ModernBertDecoderConfig(
        vocab_size=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=512, local_attention=24, global_attn_every_n_layers=2, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    torch.manual_seed(1)
    ModernBertDecoderForCausalLM(config).save_pretrained(place)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny("llama")) / file, place)
    exam = tiny_exam(4, 3)
    zero_shot = tiny_config("causal", str(place), head="likelihood", training={"epochs": 0})
    with pytest.raises(UserError, match="modernbert-decoder.*its logits differ"):
        make_ranker(zero_shot, tmp_path).fit(exam, exam, tmp_path / "checkpoint")
    trained = tiny_config("causal", str(place), head="last_token", lora={"target_modules": ["q_proj"]})
    assert make_ranker(trained, tmp_path).fit(exam, exam, tmp_path / "checkpoint")["loss"]
