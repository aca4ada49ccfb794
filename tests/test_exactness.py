"""What a generative ranker says, and how it learns, is what each option as a sequence of its own would give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moved_off_start, tiny_config, tiny_exam

from solution.exam import ContextPassage, Exam
from solution.rankers.families import make_ranker
from solution.rankers.generative import EncodedOptions

torch.set_num_threads(1)

OPTIONS = tuple(range(2, 9))
WORDS = (
    "stone river light water iron gold cell atom wave heat mass star moon tree leaf bird fish rain wind fire".split()
)
ORIGINAL = 48  # the tiny LongRoPE model's short factors end here, and the sliding window is 16


def ragged_exam(context_words: tuple[int, ...]) -> Exam:
    """Seven questions of 2 to 8 options; an option has one to nine words."""
    exam = tiny_exam(7, OPTIONS)
    rng = np.random.default_rng(1)
    for row in range(7):
        words = context_words[row % len(context_words)]
        exam.passages[row] = [ContextPassage("x", "", " ".join(rng.choice(WORDS, words)), 1.0, "dense")]
        exam.questions.options[row] = [
            " ".join(rng.choice(WORDS, 1 + (5 * i + row) % 9)) for i in range(len(exam.questions.options[row]))
        ]
    return exam


def ranker_of(tiny: Any, model: str, cache: Path, **changes: Any) -> Any:
    """LoRA and head are moved off their start, at which they change nothing."""
    return moved_off_start(
        make_ranker(tiny_config("seq2seq" if model == "t5" else "causal", tiny(model), **changes), cache)
    )


def separate_scores(ranker: Any, item: EncodedOptions) -> torch.Tensor:
    """Each option alone, by transformers' own forward pass: its masks, its positions, its cross-entropy."""
    model, head = ranker.model, ranker.head
    scores = []
    for option in item.options:
        if ranker.config.family == "seq2seq":
            output = model(
                input_ids=torch.tensor([item.prefix]), labels=torch.tensor([option]), output_hidden_states=True
            )
            last = output.decoder_hidden_states[-1][0, -1]
        else:
            ids = torch.tensor([[*item.prefix, *option]])
            labels = ids.masked_fill(torch.arange(ids.shape[1]) < len(item.prefix), -100)
            output = model(input_ids=ids, labels=labels, output_hidden_states=True, use_cache=False)
            last = output.hidden_states[-1][0, -1]
        scores.append(last @ head.score_weight - output.loss * head.log_scale.exp()[0])
    return torch.stack(scores)


@pytest.mark.parametrize(
    ("model", "context_words", "lengths"),
    [
        ("llama", (3, 20, 40), (0, 200)),
        ("phi3", (3, 20, 40), (0, 200)),
        ("phi3_longrope", (1, 3), (0, ORIGINAL)),
        ("phi3_longrope", (27, 30, 33), (ORIGINAL - 20, ORIGINAL + 20)),
        ("phi3_longrope", (40, 50), (ORIGINAL + 1, 200)),
        ("t5", (3, 20, 40), (0, 300)),
    ],
)
def test_as_if_each_option_stood_alone(tiny, tmp_path, model, context_words, lengths):
    ranker = ranker_of(tiny, model, tmp_path, head="both", max_tokens=300)
    exam = ragged_exam(context_words)
    orders = [list(range(len(options))) for options in exam.questions.options]
    items = [ranker.encode_question(exam, row, 1, order) for row, order in enumerate(orders)]
    totals = [[len(item.prefix) + len(option) for option in item.options] for item in items]
    assert lengths[0] <= min(map(min, totals)) and max(map(max, totals)) <= lengths[1]
    if lengths == (ORIGINAL - 20, ORIGINAL + 20):
        assert sum(min(row) <= ORIGINAL < max(row) for row in totals) >= 3, "questions across the original length"
        assert any(len(item.prefix) < ORIGINAL < max(row) for item, row in zip(items, totals, strict=True))

    wanted = [separate_scores(ranker, item) for item in items]
    scores = ranker.encoded_scores(items)
    for row, own in enumerate(wanted):
        torch.testing.assert_close(scores[row, : len(own)], own, atol=1e-4, rtol=0)
        assert torch.isinf(scores[row, len(own) :]).all()
    table = ranker.predict(exam)
    for row, own in enumerate(wanted):
        np.testing.assert_allclose(table[row, : len(own)], own.detach().softmax(0).numpy(), atol=1e-5)
    assert np.ptp(table[0, :2]) > 1e-3

    parameters = [p for module in ranker.modules for p in module.parameters() if p.requires_grad]
    answers = torch.as_tensor(exam.questions.answers)
    loss = torch.nn.functional.cross_entropy(scores, answers, reduction="sum")
    own_loss = sum(
        torch.nn.functional.cross_entropy(own[None], answers[row : row + 1]) for row, own in enumerate(wanted)
    )
    got = torch.autograd.grad(loss, parameters)
    for one, other in zip(got, torch.autograd.grad(own_loss, parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert sum(float(g.abs().max()) > 1e-2 for g in got) > len(got) // 2


@pytest.mark.parametrize(("name", "factor"), [("Granite", {"logits_scaling": 4.0}), ("Cohere", {"logit_scale": 0.25})])
def test_logits_that_the_model_scales(tiny, tmp_path, name, factor):
    """Granite divides its logits behind the output layer, Cohere multiplies them: a likelihood is of what comes out."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=600,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,
        **factor,
    )
    torch.manual_seed(0)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny("llama")) / file, tmp_path / "model")
    settings = tiny_config("causal", str(tmp_path / "model"), head="both", max_tokens=300)
    ranker = make_ranker(settings, tmp_path)
    exam = ragged_exam((5,)).subset([0, 1])
    ranker.build()
    for row, count in enumerate((2, 3)):
        item = ranker.encode_question(exam, row, 1, list(range(count)))
        wanted = separate_scores(ranker, item)
        torch.testing.assert_close(ranker.encoded_scores([item])[0], wanted, atol=1e-4, rtol=0)
        assert float(wanted.detach().std()) > 0.01


def test_t5_reads_a_question_once(tiny, tmp_path):
    """The encoder sees every question once, however many options it has."""
    ranker = ranker_of(tiny, "t5", tmp_path, max_tokens=300)
    seen = []
    encoder = ranker.model.get_encoder()
    encoder.register_forward_pre_hook(lambda _, a, kw: seen.append(kw["input_ids"].shape[0]), with_kwargs=True)
    ranker.predict(ragged_exam((5,)))
    assert sum(seen) == 7


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_the_first_words_of_the_context_are_kept(tiny, tmp_path, model):
    """The best passage stands first: a context too long loses its end; question and options lose nothing."""
    ranker = ranker_of(tiny, model, tmp_path, max_tokens=70 if model == "llama" else 150)
    exam = tiny_exam(1, 3)
    texts = ("gold iron wave", "stone river " * 300, "leaf")
    exam.passages[0] = [ContextPassage(text[:4], "", text, 1.0, "dense") for text in texts]
    item = ranker.encode_question(exam, 0, 2, [0, 1, 2])
    text = ranker.tokenizer.decode(item.prefix, skip_special_tokens=True)
    assert "".join(text.split()).startswith("goldironwavestoneriver") and "leaf" not in text
    # A new line is not in the tiny T5's vocabulary.
    assert "".join(text.split()).split("Question:")[1] == "".join(f"{exam.questions.prompts[0]}Answer:".split())
    for option, ids in zip(exam.questions.options[0], item.options, strict=True):
        assert ranker.tokenizer.decode(ids, skip_special_tokens=True).strip() == option
    assert ranker.config.max_tokens - 4 <= len(item.prefix) + max(map(len, item.options)) <= ranker.config.max_tokens


def test_the_context_gives_way_to_pieces_that_grow_together(tiny, tmp_path):
    """Behind a sign, a word is spelt in more tokens than alone: the context is cut further, the question stays."""
    prompt = {"with_context": "{context}|{question}|", "without_context": "{question}|"}
    ranker = ranker_of(tiny, "llama", tmp_path, max_tokens=70, prompt=prompt)
    exam = tiny_exam(1, 3)
    exam.passages[0] = [ContextPassage("x", "", "stone river " * 300, 1.0, "dense")]
    question = exam.questions.prompts[0]
    alone, behind = (
        len(ranker.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (question, f"|{question}")
    )
    assert behind > alone + 1
    item = ranker.encode_question(exam, 0, 1, [0, 1, 2])
    text = ranker.tokenizer.decode(item.prefix, skip_special_tokens=True)
    assert text.startswith("stone river stone") and text.endswith(f"|{question}|")
    assert len(item.prefix) + max(map(len, item.options)) <= 70
