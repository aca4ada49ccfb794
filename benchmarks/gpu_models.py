"""Small models with random weights for `gpu_check.py`, the questions that it asks, and the speed of cards.

Those of the true shapes are written by `rehearsal_16gb.py`.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rehearsal_16gb import CONFIGS

from solution.exam import ContextPassage, Exam
from solution.questions import Questions

WORDS = 900
SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]

# Dense products in half precision with sums in float32, in 10^12 operations a second, from NVIDIA's data sheets (T4,
# P100 PCIe, V100 PCIe and SXM2, A10, A100, L4, L40S, H100, H200; half of the figures "with sparsity") and white papers
# (GA102 for the RTX 30 cards, Ada for the RTX 40 cards). A card's name as torch gives it holds one of these names.
PEAKS = {
    "H200 NVL": 836,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "V100-PCIE": 112,
    "V100": 125,
    "P100": 18.7,
    "T4": 65,
    "RTX 4090": 165,
    "RTX 4080": 97.5,
    "RTX 3090": 71,
    "RTX 3080": 59.5,
}


def peak_of(card: str) -> float | None:
    """10^12 operations a second by `PEAKS`; None for a card that is not in it."""
    # Whole words alone: an L40 is no L4. Of the RTX cards the name must end there: a 3080 Ti is another card.
    end = r"(?=$|[\s-])"
    names = [name for name in PEAKS if re.search(rf"(?:^|\s){name}{'$' if name.startswith('RTX') else end}", card)]
    return PEAKS[names[0]] if names else None


def product_speed(device: torch.device, dtype: torch.dtype, size: int, seconds: float = 1.0) -> float:
    """10^12 operations a second of a plain square product: what this card reaches at the best."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    fastest, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        for _ in range(4):
            product = left @ right
        float(product[0, 0])  # waits for the card
        fastest = min(fastest, (time.perf_counter() - started) / 4)
    return 2 * size**3 / fastest / 1e12


def operations(name: str, layers: int, length: int) -> float:
    """Operations for one token of a forward pass through layers of a model of `rehearsal_16gb.CONFIGS`.

    Twice the weights of the layers' linear maps, and for attention in a text of `length` tokens 4 x length x width a
    layer (half where a token sees only those before it). DeBERTa's products with its position vectors and the output
    layer are left out, so a share of the peak is rather too low than too high.
    """
    config = CONFIGS[name]
    wide, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    causal = "num_key_value_heads" in config
    narrow = wide * config.get("num_key_value_heads", heads) // heads
    weights = 2 * wide * wide + 2 * wide * narrow + (3 if causal else 2) * wide * inner
    return float(layers * (2 * weights + (2 if causal else 4) * length * wide))


# --- small models --------------------------------------------------------------------------

_WIDTH: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 1000}
_DEBERTA = {name: CONFIGS["deberta_v3_large"][name] for name in CONFIGS["deberta_v3_large"].keys() - {"model_type"}}
_DECODER = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 512}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_heads": 2, "vocab_size": 1000, "feed_forward_proj": "gated-gelu"}
# The model's class, its config's class, and the fields of the config.
SMALL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "deberta": ("DebertaV2ForMaskedLM", "DebertaV2Config", {**_DEBERTA, **_WIDTH, "position_buckets": 16}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**_DECODER, **_WIDTH, "num_key_value_heads": 2}),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {**_DECODER, **_WIDTH, "sliding_window": 32}),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**_T5, "tie_word_embeddings": False, "decoder_start_token_id": 0},
    ),
}


def make_model(name: str, folder: Path, layers: int = 2, deviation: float = 0.12, **fields: Any) -> Path:
    """Write a model of `SMALL` with random weights and a tokenizer of one token a word; returns the folder.

    Args:
        deviation: of the weights.
        fields: of the config, in the place of those of `SMALL`.
    """
    import transformers

    model_class, config_class, small = SMALL[name]
    config = getattr(transformers, config_class)(**{**small, "num_hidden_layers": layers, **fields})
    torch.manual_seed(1)
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, deviation)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = [*SPECIALS, *"ABCDE", "true", "wrong", *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A [SEP] $B", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), SPECIALS, strict=True))
    about |= {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


# --- questions -----------------------------------------------------------------------------


def make_exam(questions: int, context: int, seed: int = 0) -> Exam:
    """Questions of made-up words with a context of `context` words each; the right one of five options says `true`."""
    rng = np.random.default_rng(seed)

    def text(words: int) -> str:
        return " ".join(f"w{number}" for number in rng.integers(0, WORDS, words))

    answers = rng.integers(0, 5, questions)
    options = [[f"{'true' if i == right else 'wrong'} {text(10)}" for i in range(5)] for right in answers]
    return Exam(
        Questions([f"q{i}" for i in range(questions)], [text(20) for _ in options], options, answers, {}),
        [[ContextPassage(f"p{i}", "", text(context), 1.0, "dense")] for i in range(questions)],
    )
