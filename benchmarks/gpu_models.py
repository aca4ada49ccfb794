"""Models with random weights for `gpu_check.py`, the questions that they read, and the speed that a card could reach.

The weights say nothing, and the arithmetic is that of the real models: shapes, number formats, tokens.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

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


# --- models --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A model's architecture: a class of transformers, and the fields of its config.

    Attributes:
        layers: that the published model has; fewer may be made.
        made: layers that are made; 0: all.
    """

    model: str
    config: str
    fields: dict[str, Any]
    layers: int
    made: int = 0

    @property
    def layers_made(self) -> int:
        return self.made or self.layers

    def per_token(self, length: int, causal: bool) -> float:
        """Operations of the layers' products and attention for one token of a forward pass in a text of `length`.

        Twice the weights of the layers' linear maps, and 4 x length x width a layer for attention (half where a token
        sees only those before it). DeBERTa's products with its position vectors and the output layer are left out, so
        a share of the peak is rather too low than too high.
        """
        wide, inner = self.fields["hidden_size"], self.fields["intermediate_size"]
        heads = self.fields.get("num_key_value_heads", self.fields["num_attention_heads"])
        narrow = wide * heads // self.fields["num_attention_heads"]
        weights = 2 * wide * wide + 2 * wide * narrow + (3 if causal else 2) * wide * inner
        return self.layers_made * (2 * weights + (2 if causal else 4) * length * wide)


# config.json of microsoft/deberta-v3-large, meta-llama/Llama-2-7b-hf and microsoft/Phi-3-mini-4k-instruct on the hub.
_DEBERTA = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "layer_norm_eps": 1e-7,
    "pad_token_id": 0,
}
DEBERTA = ("DebertaV2ForMaskedLM", "DebertaV2Config")
LLAMA, PHI3 = ("LlamaForCausalLM", "LlamaConfig"), ("Phi3ForCausalLM", "Phi3Config")
_PHI3 = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _sizes(hidden: int, heads: int, inner: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": inner, "vocab_size": vocabulary}
    return {**sizes, **more}


SHAPES = {
    "deberta-v3-large": Shape(*DEBERTA, _sizes(1024, 16, 4096, 128100, **_DEBERTA), 24),
    "llama-2-7b": Shape(*LLAMA, _sizes(4096, 32, 11008, 32000, max_position_embeddings=4096), 32, 4),
    "phi-3-mini": Shape(*PHI3, _sizes(3072, 32, 8192, 32064, max_position_embeddings=4096, **_PHI3), 32, 4),
}
SMALL = {
    "deberta": Shape(*DEBERTA, _sizes(64, 4, 96, 1000, **{**_DEBERTA, "position_buckets": 16}), 2),
    "llama": Shape(*LLAMA, _sizes(64, 4, 96, 1000, num_key_value_heads=2, max_position_embeddings=512), 2),
    "phi3": Shape(*PHI3, _sizes(64, 4, 96, 1000, max_position_embeddings=512, **_PHI3), 2),
    "t5": Shape(
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_heads": 2, "vocab_size": 1000, "feed_forward_proj": "gated-gelu"}
        | {"tie_word_embeddings": False, "decoder_start_token_id": 0},
        2,
    ),
}
SMALL["deberta-v3-large"], SMALL["llama-2-7b"], SMALL["phi-3-mini"] = SMALL["deberta"], SMALL["llama"], SMALL["phi3"]


def make_model(shape: Shape, folder: Path, device: torch.device, dtype: torch.dtype, deviation: float = 0.02) -> Path:
    """Write a model with random weights and a tokenizer of one token a word; returns the folder.

    Args:
        device: where the weights are drawn: for a large model the GPU, which is faster at that.
        deviation: of the weights.
    """
    import transformers

    config = getattr(transformers, shape.config)(**shape.fields, num_hidden_layers=shape.layers_made)
    torch.manual_seed(1)
    with torch.device(device):
        model = getattr(transformers, shape.model)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, deviation)
    folder.mkdir(parents=True)
    model.to(dtype).save_pretrained(folder)
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
