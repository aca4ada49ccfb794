"""Twins of models on the hub: tiny random weights in exactly the files that their authors ship."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ELEMENTS = "H He Li C N O Na Mg Al Si P S Cl K Ca Fe Cu Zn Br Ag I Ba Au Hg Pb U".split()
GREEK = "α β γ δ ε θ κ λ μ π ρ σ τ φ ω Γ Δ Θ Λ Σ Φ Ψ Ω µ".split()
SUB, SUPER = "₀₁₂₃₄₅₆₇₈₉₊₋", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
WIDE = {chr(code): chr(code + 0xFEE0) for code in range(33, 127)}
WORDS = """
    acid base energy mass light water cell protein membrane atom electron wave field force velocity reaction rate gas
    pressure temperature ﬁbre ﬁeld ﬂow eﬀect aﬃnity coeﬃcient ﬂuid Ångström naïve Schrödinger Poincaré
    which what of the in a is and for with when by between increases decreases equals
""".split()


def science_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Sentences with formulas, ions, powers of ten, Greek letters, ligatures and full-width letters."""
    rng = random.Random(seed)

    def formula() -> str:
        parts = [rng.choice(ELEMENTS) + (rng.choice(SUB[2:10]) if rng.random() < 0.6 else "") for _ in range(3)]
        charge = rng.choice(["", SUPER[11], SUPER[10], SUPER[2] + SUPER[10], SUPER[3] + SUPER[11]])
        return "".join(parts) + charge

    def power() -> str:
        exponent = "".join(rng.choice(SUPER[:10]) for _ in range(rng.randint(1, 2)))
        return f"{rng.randint(1, 99)}{rng.choice([' × ', '·', '×'])}10{rng.choice(['', SUPER[11]])}{exponent}"

    def unit() -> str:
        return rng.choice(["µm", "μmol L⁻¹", "m·s⁻²", "℃", "Å", "kJ⁄mol", "½ h", "°C", "㎏", "№ 7"])

    def wide() -> str:
        return "".join(WIDE.get(letter, letter) for letter in rng.choice(["DNA", "RNA", "ATP", "pH=7", "CO2"]))

    kinds = [formula, power, unit, wide, lambda: rng.choice(GREEK), lambda: rng.choice(GREEK) + rng.choice(SUB)]
    for _ in range(count):
        words = [rng.choice(WORDS) if rng.random() < 0.6 else rng.choice(kinds)() for _ in range(rng.randint(3, 14))]
        yield rng.choice([" ", " ", "  ", "\u00a0", "\u2009", "\t"]).join(words) + rng.choice([".", "?", "", " "])


def sentencepiece_model(pieces: int, **settings: Any) -> bytes:
    """A sentencepiece model of science texts: unigram, normalised by `nmt_nfkc`, which is stored in it.

    Args:
        settings: of the trainer, such as `pad_id` and `unk_piece`.
    """
    import sentencepiece

    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=science_texts(1500, seed=1),
        model_writer=stream,
        vocab_size=pieces,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return stream.getvalue()


def deberta_v3(folder: Path) -> Path:
    """microsoft/deberta-v3-*: `pytorch_model.bin` in float16, `spm.model`, no tokenizer.json, an old config.json."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM

    pieces = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    names = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    folder.mkdir(parents=True)
    (folder / "spm.model").write_bytes(sentencepiece_model(600, **pieces, **names))
    about = {
        "model_type": "deberta-v2",
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "relative_attention": True,
        "position_buckets": 32,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "layer_norm_eps": 1e-7,
        "max_relative_positions": -1,
        "position_biased_input": False,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "type_vocab_size": 0,
        "vocab_size": 700,
    }
    (folder / "config.json").write_text(json.dumps(about, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    torch.manual_seed(1)
    model = DebertaV2ForMaskedLM(DebertaV2Config(**{**about, "pos_att_type": ["p2c", "c2p"]}))
    state = {name: (value * 6).half() for name, value in model.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")
    return folder
