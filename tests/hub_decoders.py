"""Twins of decoders on the hub: tiny random weights in exactly the files, names and settings that their authors ship.

The sizes are small (hidden size 32, two layers, a few hundred pieces), and so are lengths that settings name (sliding
windows, the length from which LongRoPE's long factors are used), so that a prompt of the tests goes beyond them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub_parts import (
    LLAMA3_WORDS,
    LONG,
    O200K_WORDS,
    QWEN_WORDS,
    SIZES,
    WINDOW,
    added_tokens_decoder,
    byte_bpe,
    old_layout,
    sentencepiece_bpe,
    write_json,
    write_sentencepiece,
    write_vocabulary,
    write_weights,
)

# --- Llama 2, Mistral, Phi-3: sentencepiece ------------------------------------------------------

_LLAMA_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def llama2(folder: Path) -> Path:
    """meta-llama/Llama-2-7b-hf: float16, the weights twice (safetensors and PyTorch's files), no padding token."""
    about = {**_LLAMA_SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    about |= {"legacy": False, "pad_token": None, "clean_up_tokenization_spaces": False, "sp_model_kwargs": {}}
    state = write_sentencepiece(folder, sentencepiece_bpe(460), about, "<s>")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "model_type": "llama",
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "transformers_version": "4.31.0.dev0",
        "vocab_size": len(state["model"]["vocab"]),
    }
    write_weights(folder, old_layout(config, torch_dtype="float16"), "LlamaForCausalLM", dtype="float16", bins=True)
    return folder


def mistral(folder: Path, version: int = 3) -> Path:
    """mistralai/Mistral-7B-v0.3: control tokens in the vocabulary, no window, Mistral's own file of the weights too.

    v0.1 has a sliding window, and PyTorch's files beside the safetensors.
    """
    turns = ("[INST]", "[/INST]", "[TOOL_CALLS]") if version == 3 else ()
    about = {**_LLAMA_SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    about |= {
        "legacy": version == 1,
        "pad_token": None,
        "additional_special_tokens": [],
        "spaces_between_special_tokens": False,
    }
    state = write_sentencepiece(folder, sentencepiece_bpe(470, turns), about, "<s>", added=turns)
    config = {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "model_type": "mistral",
        "num_key_value_heads": 1,
        "rope_theta": 10000.0 if version == 1 else 1000000.0,
        "sliding_window": WINDOW if version == 1 else None,
        "tie_word_embeddings": False,
        "transformers_version": "4.34.0.dev0" if version == 1 else "4.42.0.dev0",
        "vocab_size": len(state["model"]["vocab"]),
    }
    write_weights(folder, old_layout(config), "MistralForCausalLM", bins=version == 1)
    if version == 3:
        write_json(folder, params={"dim": 32, "n_layers": 2})
        (folder / "tokenizer.model.v3").write_bytes((folder / "tokenizer.model").read_bytes())
        shutil.copy(sorted(folder.glob("model-*.safetensors"))[0], folder / "consolidated.safetensors")
    return folder


_PHI3_CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_REMOTE = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}


def _phi(folder: Path, config: dict[str, Any]) -> Path:
    """The code files that an old transformers would have run (never loaded here), and the weights."""
    for name in ("configuration_phi3.py", "modeling_phi3.py", "sample_finetune.py"):
        (folder / name).write_text('raise RuntimeError("code from the hub must not run")\n')
    common = {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": _REMOTE,
        "embd_pdrop": 0.0,
        "hidden_act": "silu",
        "model_type": "phi3",
        "original_max_position_embeddings": LONG,
        "resid_pdrop": 0.0,
        "rope_theta": 10000.0,
        "sliding_window": 262144,
    }
    write_weights(folder, old_layout({**common, **config}), "Phi3ForCausalLM")
    return folder


def phi3_mini(folder: Path) -> Path:
    """microsoft/Phi-3-mini-128k-instruct: LongRoPE under its old names, code files, no <s> in front."""
    turns = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    about = {**_LLAMA_SPECIAL, "tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": False}
    about |= {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "legacy": False, "padding_side": "left"}
    model = sentencepiece_bpe(460)
    state = write_sentencepiece(folder, model, {**about, "chat_template": _PHI3_CHAT}, None, added=turns)
    numbers = {token["content"]: token["id"] for token in state["added_tokens"]}
    write_json(folder, added_tokens={name: numbers[name] for name in turns})
    half = SIZES["hidden_size"] // SIZES["num_attention_heads"] // 2
    longrope = {
        "long_factor": [1.08 + i for i in range(half)],
        "short_factor": [1.05 + 0.1 * i for i in range(half)],
        "type": "longrope",
    }
    config = {
        "bos_token_id": 1,
        "eos_token_id": numbers["<|endoftext|>"],
        "num_key_value_heads": 2,
        "pad_token_id": numbers["<|endoftext|>"],
        "rope_scaling": longrope,
        "tie_word_embeddings": False,
        "transformers_version": "4.40.2",
        "vocab_size": 512,
    }
    return _phi(folder, config)


# --- Llama 3, Phi-4, Qwen: byte-level BPE ---------------------------------------------------------


def llama3(folder: Path, version: str = "3.1") -> Path:
    """meta-llama/Llama-3.1-8B and Llama-3.2-3B: no padding and no unknown token; Meta's own files in `original/`."""
    small = version == "3.2"
    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(4)]
    names = (bos, eos, *reserved, "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>")
    folder.mkdir(parents=True)
    state = json.loads(byte_bpe(420, LLAMA3_WORDS, names, bos, nfc=False, whole=True))
    about = {
        "added_tokens_decoder": added_tokens_decoder(state),
        "bos_token": bos,
        "clean_up_tokenization_spaces": True,
        "eos_token": eos,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast" if not small else "PreTrainedTokenizer",
    }
    write_json(folder, tokenizer=state, tokenizer_config=about, special_tokens_map={"bos_token": bos, "eos_token": eos})
    numbers = {token["content"]: token["id"] for token in state["added_tokens"]}
    rope = {"factor": 32.0 if small else 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": LONG, "rope_type": "llama3"}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": numbers[bos],
        "eos_token_id": numbers[eos],
        "head_dim": 16,
        "hidden_act": "silu",
        "mlp_bias": False,
        "model_type": "llama",
        "num_key_value_heads": 1,
        "pretraining_tp": 1,
        "rope_scaling": rope,
        "rope_theta": 500000.0,
        "tie_word_embeddings": small,
        "transformers_version": "4.45.0.dev0" if small else "4.43.0.dev0",
        "vocab_size": len(state["model"]["vocab"]) + len(names),
    }
    write_weights(folder, old_layout(config), "LlamaForCausalLM")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    (folder / "original" / "consolidated.00.pth").write_bytes(b"not read")
    return folder


def phi4_mini(folder: Path) -> Path:
    """microsoft/Phi-4-mini-instruct: a quarter of each head is not rotated, tied weights, a byte-level vocabulary."""
    name = "<|endoftext|>"
    turns = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>", "<|tool|>")
    folder.mkdir(parents=True)
    state = json.loads(byte_bpe(420, O200K_WORDS, turns, None, nfc=False, whole=False))
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), name)
    chat = _PHI3_CHAT.replace("|>\\n'", "|>'").replace("\n'", "'")
    about = {"add_bos_token": False, "add_eos_token": False, "add_prefix_space": False, **special}
    about |= {"added_tokens_decoder": added_tokens_decoder(state), "chat_template": chat, "model_max_length": 131072}
    write_json(folder, tokenizer=state, tokenizer_config={**about, "tokenizer_class": "GPT2Tokenizer"})
    numbers = {token["content"]: token["id"] for token in state["added_tokens"]}
    write_json(folder, special_tokens_map=special, added_tokens=numbers)
    write_vocabulary(folder, state)
    rotated = int(SIZES["hidden_size"] // SIZES["num_attention_heads"] * 0.75) // 2
    longrope = {
        "long_factor": [1.0 + 0.7 * i for i in range(rotated)],
        "short_factor": [1.0] * rotated,
        "type": "longrope",
    }
    config = {
        "bos_token_id": numbers[name],
        "eos_token_id": numbers[name],
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "mlp_bias": False,
        "num_key_value_heads": 1,
        "pad_token_id": numbers[name],
        "partial_rotary_factor": 0.75,
        "rope_scaling": longrope,
        "tie_word_embeddings": True,
        "transformers_version": "4.45.0",
        "vocab_size": 448,
    }
    return _phi(folder, config)


# Qwen's turns; Qwen 3 begins its reply with an empty thought where thinking is switched off.
_QWEN_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}THINKING{% endif %}"
)
_THINKING = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"


def _qwen(folder: Path, config: dict[str, Any], kind: str, names: tuple[str, ...], chat: str, shards: int) -> Path:
    folder.mkdir(parents=True)
    state = json.loads(byte_bpe(420, QWEN_WORDS, names, None, nfc=True, whole=False))
    end = names[2] if kind == "Qwen3ForCausalLM" else names[0]
    about = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added_tokens_decoder(state),
        "additional_special_tokens": list(names[1:3]),
        "bos_token": None,
        "chat_template": chat,
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": names[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder, tokenizer=state, tokenizer_config=about)
    write_vocabulary(folder, state)
    numbers = {token["content"]: token["id"] for token in state["added_tokens"]}
    common = {
        "architectures": [kind],
        "attention_dropout": 0.0,
        "bos_token_id": numbers[names[0]],
        "eos_token_id": numbers[end],
        "hidden_act": "silu",
        "max_window_layers": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "vocab_size": 480,  # larger than the tokenizer's, as published
    }
    write_weights(folder, old_layout({**common, **config}), kind, shards)
    return folder


def qwen2_5(folder: Path) -> Path:
    """Qwen/Qwen2.5-7B: biases on queries, keys and values; a sliding window that is named and switched off."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>")
    config = {
        "model_type": "qwen2",
        "sliding_window": WINDOW,
        "tie_word_embeddings": False,
        "transformers_version": "4.40.1",
        "use_mrope": False,
    }
    return _qwen(folder, config, "Qwen2ForCausalLM", names, _QWEN_CHAT.replace("THINKING", ""), shards=2)


def qwen3(folder: Path, tied: bool = False) -> Path:
    """Qwen/Qwen3-8B and -14B: norms on queries and keys, heads wider than the hidden size; 0.6B: tied, in one file."""
    names = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<tool_call>",
        "<think>",
        "</think>",
    )
    config = {
        "attention_bias": False,
        "head_dim": 32,
        "model_type": "qwen3",
        "rope_scaling": None,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "transformers_version": "4.51.0",
    }
    chat = _QWEN_CHAT.replace("THINKING", _THINKING)
    return _qwen(folder, config, "Qwen3ForCausalLM", names, chat, shards=1 if tied else 2)


# --- Gemma -----------------------------------------------------------------------------------------

_GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _gemma_tokenizer(folder: Path) -> dict[str, Any]:
    turns = ("<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>")
    about = {
        "add_bos_token": True,
        "add_eos_token": False,
        "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
        "bos_token": "<bos>",
        "chat_template": _GEMMA_CHAT,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
    model = sentencepiece_bpe(480, turns, pad_first=True)
    return write_sentencepiece(folder, model, about, "<bos>", gemma=True, added=turns)


_GEMMA = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "sliding_window": WINDOW,
}


def gemma2(folder: Path) -> Path:
    """google/gemma-2-9b-it: every other layer has a window; attention and output are capped; tied, but says nothing."""
    state = _gemma_tokenizer(folder)
    config = {
        **_GEMMA,
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
        "model_type": "gemma2",
        "query_pre_attn_scalar": 8,  # published apart from the size of a head
        "rope_theta": 10000.0,
        "sliding_window_size": WINDOW,
        "transformers_version": "4.42.0.dev0",
        "vocab_size": len(state["model"]["vocab"]),
    }
    write_weights(folder, old_layout(config), "Gemma2ForCausalLM")
    return folder


def gemma3(folder: Path) -> Path:
    """google/gemma-3-1b-it: two rotations, one of them for the layers with a window; the pattern is a number."""
    state = _gemma_tokenizer(folder)
    write_json(folder, added_tokens={"<image_soft_token>": len(state["model"]["vocab"])})
    config = {
        **_GEMMA,
        "architectures": ["Gemma3ForCausalLM"],
        "attn_logit_softcapping": None,
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 7],
        "final_logit_softcapping": None,
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": 32,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window_pattern": 2,
        "transformers_version": "4.50.0.dev0",
        "vocab_size": len(state["model"]["vocab"]) + 1,
    }
    write_weights(folder, old_layout(config), "Gemma3ForCausalLM", shards=1)
    return folder


def gemma3_pictures(folder: Path) -> Path:
    """google/gemma-3-4b-it: the decoder is one part beside a vision tower, and its tensors have the part's name."""
    state = _gemma_tokenizer(folder)
    vision = {"hidden_size": 16, "image_size": 16, "intermediate_size": 16, "model_type": "siglip_vision_model"}
    vision |= {"num_attention_heads": 2, "num_hidden_layers": 1, "patch_size": 8, "vision_use_head": False}
    text = {
        **SIZES,
        "head_dim": 32,
        "model_type": "gemma3_text",
        "num_key_value_heads": 1,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
        "vocab_size": len(state["model"]["vocab"]) + 1,
    }
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 5,
        "eoi_token_index": 6,
        "eos_token_id": [1, 7],
        "image_token_index": len(state["model"]["vocab"]),
        "initializer_range": 0.02,
        "mm_tokens_per_image": 1,
        "model_type": "gemma3",
        "text_config": text,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": vision,
    }
    write_weights(folder, config, "Gemma3ForConditionalGeneration")
    write_json(folder, preprocessor_config={"image_processor_type": "Gemma3ImageProcessor"})
    write_json(folder, chat_template={"chat_template": _GEMMA_CHAT})
    return folder


TWINS: dict[str, Callable[[Path], Path]] = {
    "meta-llama/Llama-2-7b-hf": llama2,
    "meta-llama/Llama-3.1-8B": llama3,
    "meta-llama/Llama-3.2-3B": lambda folder: llama3(folder, "3.2"),
    "mistralai/Mistral-7B-v0.1": lambda folder: mistral(folder, 1),
    "mistralai/Mistral-7B-v0.3": mistral,
    "microsoft/Phi-3-mini-128k-instruct": phi3_mini,
    "microsoft/Phi-4-mini-instruct": phi4_mini,
    "Qwen/Qwen2.5-7B": qwen2_5,
    "Qwen/Qwen3-0.6B": lambda folder: qwen3(folder, tied=True),
    "Qwen/Qwen3-8B": qwen3,
    "Qwen/Qwen3-14B": qwen3,
    "google/gemma-2-9b-it": gemma2,
    "google/gemma-3-1b-it": gemma3,
    "google/gemma-3-4b-it": gemma3_pictures,
}
"""A model's name on the hub -> what builds its twin."""
