"""Twins of encoders, encoder-decoders and embedders on the hub: tiny random weights in the files that authors ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hub_models import deberta_v3, science_texts, sentencepiece_model
from tiny_models import _wordpiece

SEED, SPREAD = 1, 6  # the usual spread of random weights makes so small a model nearly constant


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")


def random_state(model_class: Any, config: Any) -> dict[str, Any]:
    """Weights of a model whose answers depend on what it reads; tied ones once."""
    import torch

    torch.manual_seed(SEED)
    model = model_class(config)
    tied = set(getattr(model, "_tied_weights_keys", None) or {})
    state = model.state_dict()
    return {name: value * SPREAD if value.ndim > 1 else value for name, value in state.items() if name not in tied}


def write_weights(folder: Path, state: dict[str, Any], bin_too: bool = True) -> None:
    import torch
    from safetensors.torch import save_file

    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    if bin_too:
        torch.save(state, folder / "pytorch_model.bin")


def write_shards(folder: Path, state: dict[str, Any]) -> None:
    """The weights in two files of each format, with their indexes, as repositories of large models hold them."""
    import torch
    from safetensors.torch import save_file

    names = sorted(state)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    for suffix, save in (("safetensors", save_file), ("bin", torch.save)):
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        files = [f"{stem}-{number:05}-of-00002.{suffix}" for number in (1, 2)]
        for file, half in zip(files, halves, strict=True):
            save({name: state[name].contiguous() for name in half}, folder / file)
        size = sum(value.nbytes for value in state.values())
        places = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        write_json(folder / f"{stem}.{suffix}.index.json", {"metadata": {"total_size": size}, "weight_map": places})


# --- encoders ------------------------------------------------------------------------------


def mdeberta_v3(folder: Path) -> Path:
    """microsoft/mdeberta-v3-base: DeBERTa-v3's files, some tensors in float32, and the generator beside it."""
    import torch

    deberta_v3(folder)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state = {name: value.float() if "embeddings" in name else value for name, value in state.items()}
    torch.save(state, folder / "pytorch_model.bin")
    torch.save(dict(list(state.items())[:4]), folder / "pytorch_model.generator.bin")
    write_json(folder / "generator_config.json", json.loads((folder / "config.json").read_text()))
    return folder


def _byte_level(specials: list[str], first: int) -> Any:
    """GPT-2's kind of BPE over bytes; the special tokens begin at the id `first`, or at its end (-1)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=specials if first == 0 else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(science_texts(300, seed=2), trainer)
    if first != 0:
        tokenizer.add_special_tokens(specials)
    return tokenizer


def modernbert(folder: Path) -> Path:
    """answerdotai/ModernBERT-*: byte-level BPE in tokenizer.json alone, old names of its settings in config.json."""
    from tokenizers import AddedToken, normalizers, processors
    from transformers import AutoConfig, ModernBertForMaskedLM

    specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer = _byte_level(specials, -1)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    tokenizer.normalizer = normalizers.NFC()
    ids = {name: tokenizer.token_to_id(name) for name in (*specials, "[MASK]")}
    pair = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=pair
    )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name[1:-1].lower()}_token": name for name in ids}
    write_json(folder / "special_tokens_map.json", names)
    added = {str(id_): {"content": name, "special": True, "lstrip": name == "[MASK]"} for name, id_ in ids.items()}
    about = {"added_tokens_decoder": added, "clean_up_tokenization_spaces": True, "model_max_length": 8192}
    inputs = {"model_input_names": ["input_ids", "attention_mask"], "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", {**about, **inputs, **names})
    config = {
        "architectures": ["ModernBertForMaskedLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["[CLS]"],
        "classifier_activation": "gelu",
        "classifier_bias": False,
        "classifier_dropout": 0.0,
        "classifier_pooling": "mean",
        "cls_token_id": ids["[CLS]"],
        "decoder_bias": True,
        "deterministic_flash_attn": False,
        "embedding_dropout": 0.0,
        "eos_token_id": ids["[SEP]"],
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "gradient_checkpointing": False,
        "hidden_activation": "gelu",
        "hidden_size": 32,
        "initializer_cutoff_factor": 2.0,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-05,
        "local_attention": 16,
        "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "mlp_dropout": 0.0,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-05,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "pad_token_id": ids["[PAD]"],
        "position_embedding_type": "absolute",
        "sep_token_id": ids["[SEP]"],
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0",
        "vocab_size": tokenizer.get_vocab_size(),
    }
    write_json(folder / "config.json", config)
    write_weights(folder, random_state(ModernBertForMaskedLM, AutoConfig.from_pretrained(folder)))
    return folder


def _roberta_config(tokenizer: Any, architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "attention_probs_dropout_prob": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 130,
        "model_type": "roberta",
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "pad_token_id": 1,
        "type_vocab_size": 1,
        "vocab_size": tokenizer.get_vocab_size(),
    }


def roberta(folder: Path) -> Path:
    """roberta-large before 2020-10: `vocab.json` and `merges.txt`, neither tokenizer.json nor tokenizer_config.json."""
    return _roberta(folder, "RobertaForMaskedLM")


def race_roberta(folder: Path) -> Path:
    """A published multiple-choice model: RoBERTa with its trained head, saved from AutoModelForMultipleChoice."""
    _roberta(folder, "RobertaForMultipleChoice")
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    write_json(folder / "special_tokens_map.json", {**names, "cls_token": "<s>", "sep_token": "</s>"})
    write_json(folder / "tokenizer_config.json", {"model_max_length": 512, "add_prefix_space": False})
    return folder


def _roberta(folder: Path, architecture: str) -> Path:
    import torch
    import transformers

    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], 0)
    folder.mkdir(parents=True)
    tokenizer.model.save(str(folder))
    config = _roberta_config(tokenizer, architecture)
    write_json(folder / "config.json", config)
    state = random_state(getattr(transformers, architecture), transformers.RobertaConfig(**config))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


# --- encoder-decoders ----------------------------------------------------------------------


def flan_t5(folder: Path, shards: bool = False) -> Path:
    """google/flan-t5-*: `spiece.model` and tokenizer.json with 100 extra tokens, more rows than tokens; float32."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True)
    pieces = sentencepiece_model(500, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / "spiece.model").write_bytes(pieces)
    extra = [f"<extra_id_{number}>" for number in range(100)]
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    special = {"additional_special_tokens": extra, **names}
    about = {"extra_ids": 100, "model_max_length": 512, "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {**special, **about})
    config = {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": 48,
        "d_kv": 16,
        "d_model": 32,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "n_positions": 512,
        "num_decoder_layers": 2,
        "num_heads": 2,
        "num_layers": 2,
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "transformers_version": "4.23.1",
        "use_cache": True,
        "vocab_size": 640,
    }
    write_json(folder / "config.json", config)
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.save(str(folder / "tokenizer.json"))
    assert backend.get_vocab_size() < config["vocab_size"]
    generation = {"_from_model_config": True, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    write_json(folder / "generation_config.json", generation)
    state = random_state(T5ForConditionalGeneration, T5Config(**config))
    (write_shards if shards else write_weights)(folder, state)
    return folder


# --- embedders and rerankers ---------------------------------------------------------------


def _sentence_transformer(folder: Path, pooling: str, size: int, normalize: bool = True) -> None:
    """The files that sentence-transformers reads beside an encoder's own."""
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "mean_sqrt": "mean_sqrt_len_tokens"}
    pool = {f"pooling_mode_{mode}": name == pooling for name, mode in modes.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **pool})
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalize else [])
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})


def bert_embedder(folder: Path, pooling: str = "mean", versions: bool = False, half: bool = False) -> Path:
    """all-MiniLM-L6-v2, bge-*-en-v1.5 (CLS pooling), gte-* (float16) and e5-*-v2: BERT with `vocab.txt`.

    Args:
        pooling: "mean" or "cls".
        versions: with config_sentence_transformers.json, which names no prompts (all-MiniLM and BGE).
        half: weights in float16 (GTE).
    """
    from transformers import BertConfig, BertModel

    tokenizer = _wordpiece()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=lambda token: ids[token])) + "\n", encoding="utf-8")
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "mask", "pad", "sep", "unk")}
    write_json(folder / "special_tokens_map.json", names)
    about = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    write_json(folder / "tokenizer_config.json", {**about, **names})
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = {
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "max_position_embeddings": 128,
        "model_type": "bert",
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "vocab_size": tokenizer.get_vocab_size(),
        "torch_dtype": "float16" if half else "float32",
        **sizes,
    }
    write_json(folder / "config.json", config)
    state = random_state(BertModel, BertConfig(**config))
    write_weights(folder, {name: value.half() for name, value in state.items()} if half else state)
    _sentence_transformer(folder, pooling, 32)
    if versions:
        about = {"__version__": {"sentence_transformers": "2.2.2", "transformers": "4.28.1", "pytorch": "1.13.0"}}
        write_json(folder / "config_sentence_transformers.json", about)
    return folder


def multilingual_e5(folder: Path) -> Path:
    """intfloat/multilingual-e5-*: XLM-RoBERTa with `sentencepiece.bpe.model` and tokenizer.json, mean pooling."""
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

    folder.mkdir(parents=True)
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(500, unk_id=0, bos_id=1, eos_id=2))
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    names |= {"unk_token": "<unk>", "mask_token": "<mask>"}
    write_json(folder / "special_tokens_map.json", names)
    about = {"model_max_length": 512, "tokenizer_class": "XLMRobertaTokenizer"}
    write_json(folder / "tokenizer_config.json", {**names, **about})
    config = {
        "architectures": ["XLMRobertaModel"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 130,
        "model_type": "xlm-roberta",
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "pad_token_id": 1,
        "torch_dtype": "float32",
        "type_vocab_size": 1,
        "vocab_size": 640,
    }
    write_json(folder / "config.json", config)
    AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))
    write_weights(folder, random_state(XLMRobertaModel, XLMRobertaConfig(**config)))
    _sentence_transformer(folder, "mean", 32)
    return folder


def deberta_reranker(folder: Path) -> Path:
    """mixedbread-ai/mxbai-rerank-*-v1: a DeBERTa-v2 cross-encoder with `spm.model`; its weights are in float16."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    deberta_v3(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["DebertaV2ForSequenceClassification"], "pos_att_type": ["p2c", "c2p"]}
    config |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "torch_dtype": "float16", "pad_token_id": 0}
    write_json(folder / "config.json", config)
    state = random_state(DebertaV2ForSequenceClassification, DebertaV2Config(**config))
    assert state["classifier.weight"].shape == torch.Size([1, 32])
    (folder / "pytorch_model.bin").unlink()
    write_weights(folder, {name: value.half() for name, value in state.items()}, bin_too=False)
    return folder
