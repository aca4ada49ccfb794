"""Tokenizers and weights of the twins of decoders (`hub_decoders`), in the forms of file that their authors ship."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hub_models import science_texts

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WINDOW, LONG = 24, 48  # tokens of a sliding window; tokens beyond which LongRoPE uses its long factors

# How byte-level vocabularies cut a text into words: Qwen 2 and 3 each digit alone, Llama 3 up to three digits.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_WORDS, LLAMA3_WORDS = _WORDS.replace("DIGITS", ""), _WORDS.replace("DIGITS", "{1,3}")
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_WORDS = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_END}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_END}|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# --- tokenizers --------------------------------------------------------------------------------


@functools.cache
def sentencepiece_bpe(pieces: int, symbols: tuple[str, ...] = (), pad_first: bool = False) -> bytes:
    """A sentencepiece model as Llama 2, Mistral and Gemma have it: BPE, bytes for unknown characters, no normaliser.

    Args:
        symbols: names that are pieces of their own (Gemma's turns).
        pad_first: Gemma's order: <pad> <eos> <bos> <unk>; else <unk> <s> </s>.
    """
    import sentencepiece

    names = {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    if pad_first:
        names = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    gemma = {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>", "unk_piece": "<unk>"}
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=science_texts(600, seed=2),
        model_writer=stream,
        model_type="bpe",
        vocab_size=pieces,
        byte_fallback=True,
        split_digits=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=not pad_first,
        user_defined_symbols=list(symbols),
        hard_vocab_limit=False,
        minloglevel=2,
        **names,
        **(gemma if pad_first else {}),
    )
    return stream.getvalue()


def _of_sentencepiece(model: bytes, gemma: bool, bos: str | None, added: Sequence[str]) -> dict[str, Any]:
    """tokenizer.json of a sentencepiece model, in the form in which Llama 2's, Mistral's and Gemma's are published."""
    import sentencepiece
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    scores = {piece: pieces.get_score(i) for piece, i in vocabulary.items()}
    special = [pieces.id_to_piece(i) for i in range(len(vocabulary)) if pieces.is_control(i) or pieces.is_unknown(i)]
    to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normalizer = (
        to_mark if gemma else {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, to_mark]}
    )
    words = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    names = [*special, *(name for name in added if name not in special)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(name, vocabulary.get(name, len(vocabulary) + i))
            for i, name in enumerate(_new_last(names, vocabulary))
        ],
        "normalizer": normalizer,
        "pre_tokenizer": words if gemma else None,
        "post_processor": _with_bos(bos, vocabulary.get(bos, 0)) if bos else None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in generate_merges(vocabulary, scores)],
        },
    }


def _new_last(names: Sequence[str], vocabulary: dict[str, int]) -> list[str]:
    """The names that are not pieces first, so that their places count from 0 behind the vocabulary."""
    return [name for name in names if name not in vocabulary] + [name for name in names if name in vocabulary]


def _added(name: str, number: int, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": number, "content": name, **flags}


def _with_bos(bos: str, number: int) -> dict[str, Any]:
    first, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    other = [{"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    tokens = {bos: {"id": bos, "ids": [number], "tokens": [bos]}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, *other],
        "special_tokens": tokens,
    }


@functools.cache
def byte_bpe(pieces: int, words: str, names: tuple[str, ...], bos: str | None, nfc: bool, whole: bool) -> str:
    """tokenizer.json of a byte-level BPE as Qwen, Llama 3 and Phi-4 have it: special tokens behind the vocabulary.

    Args:
        whole: a word that is a piece is taken whole, without merges (Llama 3's `ignore_merges`).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=pieces, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(science_texts(600, seed=2), trainer)
    tokenizer.add_special_tokens(list(names))
    state = json.loads(tokenizer.to_str())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    state["post_processor"] = byte_level
    if bos:
        processors = [byte_level, _with_bos(bos, tokenizer.token_to_id(bos))]
        state["post_processor"] = {"type": "Sequence", "processors": processors}
    return json.dumps(state)


def write_json(folder: Path, **files: Any) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def added_tokens_decoder(state: dict[str, Any]) -> dict[str, Any]:
    """`added_tokens_decoder` of tokenizer_config.json."""
    return {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in state["added_tokens"]}


def write_vocabulary(folder: Path, state: dict[str, Any]) -> None:
    """vocab.json and merges.txt, which Qwen's and Phi-4's authors ship beside tokenizer.json."""
    write_json(folder, vocab=state["model"]["vocab"])
    merges = "\n".join(" ".join(pair) for pair in state["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")


# --- weights -----------------------------------------------------------------------------------


def write_weights(
    folder: Path, config: dict[str, Any], kind: str, shards: int = 2, dtype: str = "bfloat16", bins: bool = False
) -> None:
    """config.json as given, and random weights of the class `kind` in as many files as the authors ship.

    Args:
        bins: PyTorch's own files too, beside the safetensors (Llama 2, Mistral v0.1).
    """
    import torch
    import transformers

    write_json(folder, config=config, generation_config={"transformers_version": "4.51.0"})
    torch.manual_seed(1)
    model = getattr(transformers, kind)(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.12)
    model = model.to(getattr(torch, dtype))
    size = sum(value.nbytes for value in model.state_dict().values())
    model.save_pretrained(folder, max_shard_size="5GB" if shards == 1 else size // shards + 1)
    write_json(folder, config=config)  # as its authors wrote it, not as this transformers writes it
    if bins:
        names = list(model.state_dict())
        files = {}
        for number in range(2):
            file = f"pytorch_model-0000{number + 1}-of-00002.bin"
            part = {name: model.state_dict()[name].clone() for name in names[number::2]}
            torch.save(part, folder / file)
            files |= dict.fromkeys(part, file)
        write_json(folder, **{"pytorch_model.bin.index": {"metadata": {"total_size": size}, "weight_map": files}})


def old_layout(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Fields that authors of 2023 to 2025 wrote: `torch_dtype`, `rope_theta` beside the layers' sizes, `use_cache`."""
    return {
        **SIZES,
        "initializer_range": 0.02,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-05,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **config,
        **more,
    }


def write_sentencepiece(
    folder: Path, model: bytes, about: dict[str, Any], bos: str | None, gemma: bool = False, added: Sequence[str] = ()
) -> dict[str, Any]:
    """tokenizer.model, tokenizer.json, tokenizer_config.json, special_tokens_map.json; returns tokenizer.json."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model)
    state = _of_sentencepiece(model, gemma, bos, added)
    about = {
        "added_tokens_decoder": added_tokens_decoder(state),
        **about,
        "model_max_length": 1000000000000000019884624838656,
    }
    names = {
        key: value
        for key, value in about.items()
        if key in ("bos_token", "eos_token", "unk_token", "pad_token") and value
    }
    write_json(folder, tokenizer=state, tokenizer_config=about, special_tokens_map=names)
    return state
