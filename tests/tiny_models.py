"""Tiny random models of the true classes, with working tokenizers, written to disk without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WORDS = """
    the which of is a what question answer instruction response context passage true false right wrong red blue green
    apple stone river light water iron gold cell atom wave heat mass star moon tree leaf bird fish rain wind fire ice
"""
WORDS = _WORDS.split()
TEXT = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
TEXT += [" A B C D E", "Question: Answer: Instruction: Response: . , ? ! { } ( ) 0 1 2 3 4 5 6 7 8 9"]
ALPHABET = [chr(code) for code in range(33, 127)]


def _write(
    folder: Path, config: Any, model_class: Any, tokenizer: Any, about: dict[str, Any], dtype: Any = None
) -> Path:
    import torch

    folder.mkdir(parents=True)
    torch.manual_seed(1)
    model = model_class(config)
    # The usual 0.02 makes so small a model nearly constant; what it says should depend on what it reads.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.12)
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def _unigram(specials: list[str], template: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    unk = next(token for token in specials if "unk" in token.lower())
    tokenizer.train_from_iterator(
        TEXT, trainers.UnigramTrainer(vocab_size=220, special_tokens=specials, unk_token=unk, initial_alphabet=ALPHABET)
    )
    used = sorted({part for part in template.split() if part in specials})
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template.split("|")[0].strip(),
        pair=template.split("|")[1].strip(),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in used],
    )
    return tokenizer


def deberta(folder: Path) -> Path:
    """DeBERTa-v3's architecture: relative attention in both directions, shared keys, position buckets."""
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM

    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer = _unigram(specials, "[CLS] $A [SEP] | [CLS] $A [SEP] $B:1 [SEP]:1".replace("[SEP]:1", "[SEP]"))
    config = DebertaV2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        max_position_embeddings=64,
        pad_token_id=0,
        layer_norm_eps=1e-7,
    )
    about = {
        "tokenizer_class": "DebertaV2Tokenizer",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    # Like the published checkpoints: without a pooler and a classifier.
    return _write(folder, config, DebertaV2ForMaskedLM, tokenizer, about)


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=260, special_tokens=specials, initial_alphabet=ALPHABET)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))],
    )
    return tokenizer


def bert(folder: Path, dtype: Any = None) -> Path:
    """BERT with 64 learned positions."""
    from transformers import BertConfig, BertModel

    tokenizer = _wordpiece()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return _write(folder, config, BertModel, tokenizer, {"tokenizer_class": "BertTokenizer"}, dtype)


def mpnet(folder: Path) -> Path:
    """MPNet: its 66 positions are counted from behind the padding index, so 64 may be used."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import MPNetConfig, MPNetModel

    # MPNet keeps RoBERTa's order: padding is token 1.
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *WORDS, *ALPHABET])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    config = MPNetConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=66,
        pad_token_id=1,
    )
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "[UNK]",
    }
    return _write(folder, config, MPNetModel, tokenizer, about)


def _bpe() -> Any:
    """Llama's kind of BPE: a word boundary is a piece's first character, unknown characters fall back to bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = [word for line in TEXT for word in line.split()]
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=[*ALPHABET, "▁"], show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    raw = json.loads(tokenizer.to_str())
    vocabulary = raw["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


_LLAMA = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
}


def llama(folder: Path, dtype: Any = None) -> Path:
    """Llama with grouped-query attention (four query heads, two key heads)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _bpe()
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=512,
    )
    return _write(folder, config, LlamaForCausalLM, tokenizer, _LLAMA, dtype)


def phi3(folder: Path, longrope: bool = False) -> Path:
    """Phi-3 with a sliding window of 16 tokens, or with LongRoPE whose long factors begin beyond 48 tokens."""
    from transformers import Phi3Config, Phi3ForCausalLM

    tokenizer = _bpe()
    special: dict[str, Any] = {"sliding_window": 16, "max_position_embeddings": 512}
    if longrope:
        special = {
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 48,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0] * 8,
                "long_factor": [1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
            },
        }
    config = Phi3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
        **special,
    )
    return _write(folder, config, Phi3ForCausalLM, tokenizer, _LLAMA)


_GEMMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "sliding_window": 12,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def gemma2(folder: Path) -> Path:
    """Gemma 2: one layer with a sliding window of 12 tokens and one without, and capped logits."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = _bpe()
    config = Gemma2Config(
        vocab_size=tokenizer.get_vocab_size(),
        num_attention_heads=2,
        num_key_value_heads=1,
        final_logit_softcapping=3.0,
        attn_logit_softcapping=None,
        **_GEMMA,
    )
    return _write(folder, config, Gemma2ForCausalLM, tokenizer, _LLAMA)


def gemma3(folder: Path) -> Path:
    """Gemma 3: one layer with a sliding window of 12 tokens and a rope of its own, one without a window."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = _bpe()
    config = Gemma3TextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["sliding_attention", "full_attention"],
        **_GEMMA,
    )
    return _write(folder, config, Gemma3ForCausalLM, tokenizer, _LLAMA)


def t5(folder: Path) -> Path:
    """T5 v1.1 (flan-T5): gated feed-forward layers, output layer of its own."""
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _unigram(["<pad>", "</s>", "<unk>"], "$A </s> | $A </s> $B </s>")
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    return _write(folder, config, T5ForConditionalGeneration, tokenizer, about)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "deberta": deberta,
    "bert": bert,
    "mpnet": mpnet,
    "llama": llama,
    "phi3": phi3,
    "phi3_longrope": lambda folder: phi3(folder, longrope=True),
    "gemma2": gemma2,
    "gemma3": gemma3,
    "t5": t5,
}
