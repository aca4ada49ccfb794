"""Rankers of every family, on tiny random models of the true classes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import saved_and_loaded, tiny_config, tiny_exam

from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import ContextPassage, Exam
from solution.probabilities import masked_softmax
from solution.questions import Questions
from solution.rankers.attention import causal_tokens
from solution.rankers.causal import packed_layout
from solution.rankers.families import make_ranker
from solution.rankers.generative import EncodedOptions
from solution.rankers.prompts import cut_text, share_room, shorten

torch.set_num_threads(1)

FAMILIES = {
    "deberta": ("multiple_choice", {}),
    "bert": ("multiple_choice", {}),
    "llama": ("causal", {}),
    "phi3": ("causal", {"head": "both"}),
    "phi3_longrope": ("causal", {"head": "likelihood"}),
    "t5": ("seq2seq", {"head": "both"}),
}
CAUSAL = ["llama", "phi3", "phi3_longrope", "gemma2", "gemma3"]


def built(tiny, model: str, tmp_path: Path, **changes):
    """A ranker with its base model loaded, not trained. LoRA is moved off its start, at which it changes nothing."""
    family, more = FAMILIES.get(model, ("causal", {}))
    ranker = make_ranker(tiny_config(family, tiny(model), **{**more, **changes}), tmp_path)
    ranker.build()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in ranker.model.named_parameters():
            if "lora_B" in name or "classifier" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return ranker


def items_of(ranker, exam: Exam) -> list:
    orders = [[i for i, option in enumerate(options) if option] for options in exam.questions.options]
    return [ranker.encode_question(exam, row, ranker.config.passages, order) for row, order in enumerate(orders)]


# --- every trained family ------------------------------------------------------------------


@pytest.fixture(scope="module", params=list(FAMILIES))
def trained(request, tiny, tmp_path_factory):
    """(config, saved folder of fold 0, of fold 1, ranker of fold 0, facts, exam)."""
    family, more = FAMILIES[request.param]
    rate = 0.005 if request.param == "bert" else 0.01
    config = tiny_config(family, tiny(request.param), training={"epochs": 8, "learning_rate": rate}, **more)
    root = tmp_path_factory.mktemp(request.param)
    exam = tiny_exam(16, (4, 3, 4, 2))
    exam.questions.options[0].insert(1, "")  # an empty option inside
    exam.questions.answers[0] += exam.questions.answers[0] >= 1
    folders = []
    for fold in (1, 0):
        ranker = make_ranker(config, root)
        part = exam if fold == 0 else exam.subset(range(4, 16))
        facts = ranker.fit(part, exam.subset([0, 1]), root / "checkpoint")
        folder = root / f"fold_{fold}"
        folder.mkdir()
        ranker.save(folder)
        folders.append((folder, ranker.predict(exam)))
    return config, folders[1], folders[0], ranker, facts, exam


def test_learns(trained):
    _, _, _, _, facts, exam = trained
    level = float(np.log(exam.questions.exists().sum(axis=1)).mean())
    assert len(facts["loss"]) == facts["steps"] == 32
    assert np.mean(facts["loss"][-4:]) < 0.6 * level
    assert 0 < facts["trainable_parameters"] < facts["parameters"]


def test_rows_sum_to_one(trained):
    _, (_, table), _, _, _, exam = trained
    exists = exam.questions.exists()
    assert table.dtype == np.float32 and table.shape == exists.shape == (16, 5)
    assert not exists[0, 1]
    np.testing.assert_array_equal(table[~exists], 0)
    assert (table[exists] > 0).all()
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)


def test_saved_and_loaded_folds(trained, tmp_path):
    config, (first, said_first), (second, said_second), _, _, exam = trained
    assert np.abs(said_first - said_second).max() > 1e-3
    ranker = make_ranker(config, tmp_path)
    ranker.load(first)
    base = ranker.model
    np.testing.assert_allclose(ranker.predict(exam), said_first, atol=1e-6)
    ranker.load(second)
    assert ranker.model is base
    np.testing.assert_allclose(ranker.predict(exam), said_second, atol=1e-6)
    ranker.load(first)
    np.testing.assert_allclose(ranker.predict(exam), said_first, atol=1e-6)


def test_head_is_saved(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    config, (folder, _), _, _, _, _ = trained
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    if config.family == "multiple_choice":
        path = broken / "adapter_model.safetensors"
        tensors = load_file(path)
        pooler = [name for name in tensors if "pooler" in name]
        assert pooler and any("classifier" in name for name in tensors)
        save_file({name: value for name, value in tensors.items() if name not in pooler}, path)
    else:
        (broken / "head.safetensors").unlink()
    with pytest.raises(UserError, match="pooler" if config.family == "multiple_choice" else "head.safetensors"):
        make_ranker(config, tmp_path).load(broken)


def test_truncated_adapter_is_refused(trained, tmp_path):
    config, (folder, _), _, _, _, _ = trained
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="corrupt"):
        make_ranker(config, tmp_path).load(broken)


def test_answers_are_not_read(trained):
    _, (_, table), _, ranker, _, exam = trained
    other = exam.subset(range(len(exam)))
    other.questions.answers[:] = 0
    np.testing.assert_array_equal(ranker.predict(other), table)
    np.testing.assert_array_equal(ranker.predict(exam.hidden()), table)


def test_fit_starts_from_the_base_model(trained, tmp_path):
    """A ranker that was fitted before says after a second `fit` what a fresh one says."""
    config, (_, table), _, ranker, facts, exam = trained
    again = ranker.fit(exam, exam.subset([0, 1]), tmp_path / "checkpoint")
    assert again["loss"] == facts["loss"]
    np.testing.assert_array_equal(ranker.predict(exam), table)


@pytest.mark.parametrize("model", list(FAMILIES))
def test_two_to_eight_options(tiny, tmp_path, model):
    ranker = built(tiny, model, tmp_path)
    exam = tiny_exam(7, tuple(range(2, 9)))
    table = ranker.predict(exam)
    assert table.shape == (7, 8)
    assert ((table > 0) == exam.questions.exists()).all()


@pytest.mark.parametrize("model", list(FAMILIES))
def test_order_of_options_and_batch(tiny, tmp_path, model):
    """Neither the order of the options nor what else is in the batch changes what is said of an option."""
    ranker = built(tiny, model, tmp_path, predict_tokens_per_batch=4096)
    exam = tiny_exam(6, (5, 3), words=20)
    table = ranker.predict(exam)
    turned = exam.subset(range(6))
    turned.questions.options = [options[::-1] for options in exam.questions.options]
    backwards = ranker.predict(turned)
    for row, options in enumerate(exam.questions.options):
        count = len(options)
        np.testing.assert_allclose(backwards[row, :count][::-1], table[row, :count], atol=1e-5)
        alone = ranker.predict(exam.subset([row]))
        np.testing.assert_allclose(alone[0], table[row, : alone.shape[1]], atol=1e-5)
    assert np.ptp(table[0]) > 1e-3  # it does tell options apart


@pytest.mark.parametrize("model", list(FAMILIES))
def test_very_long_texts(tiny, tmp_path, model):
    """10,000 words in a prompt, an option or a context neither crash nor go beyond `max_tokens`."""
    ranker = built(tiny, model, tmp_path)
    long = "stone river light " * 3334
    exam = tiny_exam(4, 3)
    exam.questions.prompts[0] = long
    exam.questions.options[1][1] = long
    exam.questions.prompts[2] = exam.questions.options[2][0] = long
    exam.passages[3] = [ContextPassage("x", "", long + "é" * 500, 1.0, "dense")]
    for row, item in enumerate(items_of(ranker, exam)):
        if isinstance(item, EncodedOptions):
            lengths = [len(item.prefix) + len(option) for option in item.options]
        else:
            lengths = [len(sequence) for sequence in item.sequences]
        assert 50 <= max(lengths) <= 60, row
    assert np.isfinite(ranker.predict(exam)).all()


# --- decoders ------------------------------------------------------------------------------


def alone(ranker, item: EncodedOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Each option behind the prefix as a sequence of its own, without our mask: last state, mean log-likelihood."""
    model = ranker.model.base_model.model if hasattr(ranker.model, "peft_config") else ranker.model
    states, likelihoods = [], []
    for option in item.options:
        ids = torch.tensor([[*item.prefix, *option]])
        output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        states.append(output.hidden_states[-1][0, -1])
        start = len(item.prefix)
        tokens = output.logits[0, start - 1 : -1].log_softmax(dim=-1)
        likelihoods.append(tokens.gather(1, ids[0, start:, None]).mean())
    return torch.stack(states), torch.stack(likelihoods)


def reference(ranker, item: EncodedOptions) -> torch.Tensor:
    states, likelihoods = alone(ranker, item)
    head = ranker.head
    return {
        "last_token": lambda: states @ head.score_weight,
        "likelihood": lambda: likelihoods * head.log_scale.exp(),
        "both": lambda: states @ head.score_weight + likelihoods * head.log_scale.exp(),
    }[head.kind]()


# Prefixes of 30 to 55 tokens and options of 2 to 9: beyond the sliding windows, and about LongRoPE's 48.
@pytest.mark.parametrize("head", ["last_token", "likelihood", "both"])
@pytest.mark.parametrize("model", CAUSAL)
def test_packed_scores_and_gradients_are_exact(tiny, tmp_path, model, head):
    ranker = built(tiny, model, tmp_path, head=head, max_tokens=120)
    with torch.no_grad():
        for name, parameter in ranker.head.named_parameters():
            if name == "score_weight":
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
    exam = tiny_exam(4, (5, 2))
    for row, words in enumerate((6, 22, 20, 30)):
        exam.passages[row] = [ContextPassage("x", "", "stone river light water " * (words // 4), 1.0, "dense")]
        exam.questions.options[row][0] = "true iron gold cell atom wave heat mass"
    items = items_of(ranker, exam)
    lengths = [len(item.prefix) + len(option) for item in items for option in item.options]
    assert min(lengths) < 48 < max(lengths)
    if model == "phi3_longrope":
        assert any(
            min(map(len, item.options)) <= 48 - len(item.prefix) < max(map(len, item.options)) for item in items
        ), "one question's options lie on both sides of the limit"
    parameters = [p for module in ranker.modules for p in module.parameters() if p.requires_grad]
    assert len(parameters) > 8

    packed = ranker.encoded_scores(items)
    weights = torch.linspace(-1, 1, packed.numel()).view(packed.shape)
    there = torch.isfinite(packed)
    got = torch.autograd.grad((packed[there] * weights[there]).sum(), parameters)
    wanted = torch.full_like(packed, -torch.inf)
    rows = [reference(ranker, item) for item in items]
    for row, scores in enumerate(rows):
        wanted[row, items[row].positions] = scores.detach()
    torch.testing.assert_close(packed.detach(), wanted, atol=1e-4, rtol=0)
    total = sum((scores * weights[row, : len(scores)]).sum() for row, scores in enumerate(rows))
    for one, other in zip(got, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


ATTENTIONS = [(model, kind) for model in CAUSAL for kind in ("shared_prefix", "sdpa", "eager")]


# transformers has no sdpa for Gemma 2, whose attention may cap its logits.
@pytest.mark.parametrize("model, attention", [pair for pair in ATTENTIONS if pair[0] != "gemma2" or pair[1] == "eager"])
def test_inference_is_exact(tiny, tmp_path, model, attention):
    """Two to eight options of many lengths, behind prefixes of many lengths in one batch, some with cut contexts."""
    ranker = built(tiny, model, tmp_path, head="both", max_tokens=64)
    with torch.no_grad():
        ranker.head.score_weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
    causal_lm = ranker.model.base_model.model
    assert causal_lm.config._attn_implementation == ("eager" if model == "gemma2" else "shared_prefix")
    exam = tiny_exam(7, tuple(range(2, 9)))
    for row in range(7):
        exam.passages[row] = [ContextPassage("x", "", "stone river light water " * row * 2, 1.0, "dense")]
        exam.questions.options[row][1] += " iron gold cell atom wave heat mass"[: 5 * row]
    items = items_of(ranker, exam)
    longest = [len(item.prefix) + max(map(len, item.options)) for item in items]
    assert min(longest) < 40 and sum(60 <= length <= 64 for length in longest) > 1
    assert len({len(option) for item in items for option in item.options}) > 4
    with torch.inference_mode():
        causal_lm.set_attn_implementation(attention)
        scores = ranker.encoded_scores(items)
        causal_lm.set_attn_implementation("eager")
        for row, item in enumerate(items):
            torch.testing.assert_close(scores[row, item.positions], reference(ranker, item), atol=1e-4, rtol=0)


def test_tokens_without_a_mask(tiny, tmp_path):
    """As many as the shortest prefix has, unless a window is shorter than the rows or the attention is another."""
    causal_lm = built(tiny, "llama", tmp_path).model.base_model.model
    assert causal_tokens(causal_lm, [9, 5], 20, None) == causal_tokens(causal_lm, [9, 5], 20, 20) == 5
    assert causal_tokens(causal_lm, [9, 5], 20, 19) == 0
    causal_lm.set_attn_implementation("sdpa")
    assert causal_tokens(causal_lm, [9, 5], 20, None) == 0


def test_bfloat16_under_autocast(tiny, tmp_path):
    """The mask fits the queries' dtype, with a bfloat16 base and with float32 weights trained whole."""
    exam = tiny_exam(4, 3)
    exact = built(tiny, "llama", tmp_path, head="likelihood").predict(exam)
    half = built(tiny, "llama", tmp_path, head="likelihood", precision="bfloat16")
    assert {p.dtype for p in half.model.parameters() if not p.requires_grad} == {torch.bfloat16}
    np.testing.assert_allclose(half.predict(exam), exact, atol=0.05)
    whole = make_ranker(tiny_config("causal", tiny("llama"), lora=None, precision="bfloat16"), tmp_path)
    facts = whole.fit(exam, exam, tmp_path / "c")
    assert np.isfinite(facts["loss"]).all()
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}


def test_packed_layout():
    item = EncodedOptions([5, 6, 7], [[1, 2], [3]], [0, 1])
    mask, positions = packed_layout([item], 7)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 3, 0]]
    assert mask[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert torch.equal(packed_layout([item], 7, first=3)[0], mask[:, 3:])
    windowed, _ = packed_layout([item], 7, sliding_window=2)
    assert windowed[0, 4].tolist() == [False, False, False, True, True, False, False]
    assert windowed[0, 5].tolist() == [False, False, True, False, False, True, False]


def test_zero_shot_likelihood(tiny, tmp_path):
    config = tiny_config("causal", tiny("llama"), head="likelihood", training={"epochs": 0})
    exam = tiny_exam(5, 4)
    ranker = make_ranker(config, tmp_path)
    assert ranker.fit(exam.hidden(), exam, tmp_path / "c") == {}
    folder = tmp_path / "saved"
    folder.mkdir()
    ranker.save(folder)
    assert not list(folder.iterdir())
    table = ranker.predict(exam)
    for row, item in enumerate(items_of(ranker, exam)):
        with torch.no_grad():
            torch.testing.assert_close(torch.tensor(table[row]), alone(ranker, item)[1].softmax(0), atol=1e-5, rtol=0)


def test_more_tokens_than_the_model_reads(tiny, tmp_path):
    ranker = make_ranker(tiny_config("causal", tiny("llama"), max_tokens=513), tmp_path)
    with pytest.raises(UserError, match="max_tokens is 513.*512 at most"):
        ranker.predict(tiny_exam(1))


# --- encoder-decoders ----------------------------------------------------------------------


@pytest.mark.parametrize("head", ["likelihood", "both", "last_token"])
def test_seq2seq_likelihood_is_transformers_own_loss(tiny, tmp_path, head):
    ranker = built(tiny, "t5", tmp_path, head=head)
    exam = tiny_exam(3, (4, 2))
    items = items_of(ranker, exam)
    model = ranker.model.base_model.model
    with torch.no_grad():
        scores = ranker.encoded_scores(items)
        for row, item in enumerate(items):
            for place, option in enumerate(item.options):
                assert option[-1] == ranker.tokenizer.eos_token_id
                output = model(
                    input_ids=torch.tensor([item.prefix]), labels=torch.tensor([option]), output_hidden_states=True
                )
                wanted = torch.zeros(())
                if head != "last_token":
                    wanted = -output.loss * ranker.head.log_scale.exp()[0]
                if head != "likelihood":
                    wanted = wanted + output.decoder_hidden_states[-1][0, -1] @ ranker.head.score_weight
                torch.testing.assert_close(scores[row, place], wanted, atol=1e-5, rtol=0)


# --- encoders ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["deberta", "bert"])
def test_multiple_choice_is_the_plain_model(tiny, tmp_path, model):
    ranker = built(tiny, model, tmp_path, max_tokens=200)
    exam = tiny_exam(2, 4)
    for row, item in enumerate(items_of(ranker, exam)):
        question = exam.questions.prompts[row]
        context = f"moon. {exam.passages[row][0].text}"
        pieces = [ranker.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (context, question)]
        for sequence, option in zip(item.sequences, exam.questions.options[row], strict=True):
            own = ranker.tokenizer(option, add_special_tokens=False)["input_ids"]
            cls, sep = [ranker.tokenizer.cls_token_id], [ranker.tokenizer.sep_token_id]
            assert sequence == cls + pieces[0] + sep + pieces[1] + sep + own + sep
        width = max(map(len, item.sequences))
        ids = torch.tensor([[s + [0] * (width - len(s)) for s in item.sequences]])
        mask = torch.tensor([[[1] * len(s) + [0] * (width - len(s)) for s in item.sequences]])
        more = {}
        if model == "bert":
            first = len(pieces[0]) + 2
            kinds = [[int(first <= i < len(s)) for i in range(width)] for s in item.sequences]
            more = {"token_type_ids": torch.tensor([kinds])}
        with torch.no_grad():
            wanted = ranker.model(input_ids=ids, attention_mask=mask, **more).logits
            torch.testing.assert_close(ranker.encoded_scores([item]), wanted, atol=1e-5, rtol=0)


def test_position_tables_end(tiny, tmp_path):
    """BERT reads its 64 positions to the last; MPNet's 66 hold two that no token may have."""
    exam = tiny_exam(2, 3, words=100)
    for model, limit in (("bert", 64), ("mpnet", 64)):
        config = tiny_config("multiple_choice", tiny(model), max_tokens=200, lora={"target_modules": "all-linear"})
        ranker = make_ranker(config, tmp_path)
        ranker.build()
        assert max(len(s) for item in items_of(ranker, exam) for s in item.sequences) == limit
        assert np.isfinite(ranker.predict(exam)).all()


# --- prompts -------------------------------------------------------------------------------


def test_share_room():
    assert share_room(5, 7, 12) == (5, 7)
    assert share_room(5, 9, 12) == (5, 7)  # the option is cut, the question has less than half
    assert share_room(9, 5, 12) == (7, 5)
    assert share_room(90, 90, 13) == (7, 6)


@pytest.mark.parametrize("model", ["llama", "t5", "bert"])
def test_only_the_context_is_cut(tiny, tmp_path, model):
    """An option of more than half the room stays whole while it fits beside the question."""
    ranker = built(tiny, model, tmp_path)
    exam = tiny_exam(1, 2, words=400)
    exam.questions.prompts[0] = "which stone?"
    long = " ".join(["stone", "river"] * 16)
    ranker.config.max_tokens = limit = {"llama": 60, "t5": 155, "bert": 60}[model]
    exam.questions.options[0][1] = long
    item = items_of(ranker, exam)[0]
    if model == "bert":
        texts = [ranker.tokenizer.decode(sequence) for sequence in item.sequences]
        lengths = list(map(len, item.sequences))
    else:
        texts = [ranker.tokenizer.decode([*item.prefix, *option]) for option in item.options]
        lengths = [len(item.prefix) + len(option) for option in item.options]
    assert long in texts[1]
    assert exam.questions.options[0][0] in texts[0]
    assert all("which stone" in text for text in texts)
    assert limit - 3 <= max(lengths) <= limit


def test_prompt_templates(tiny, tmp_path):
    ranker = built(tiny, "llama", tmp_path, max_tokens=200)
    exam = tiny_exam(4, 2, words=2)
    exam.questions.extra["is_question"] = ["true", "False", "", None]
    exam.passages[2] = []
    texts = [ranker.tokenizer.decode(item.prefix[1:]) for item in items_of(ranker, exam)]
    prompts = exam.questions.prompts
    assert texts[0] == f"moon. {exam.passages[0][0].text}\n\nQuestion: {prompts[0]}\nAnswer:"
    assert texts[1] == f"moon. {exam.passages[1][0].text}\n\nInstruction: {prompts[1]}\nResponse:"
    assert texts[2] == f"Question: {prompts[2]}\nAnswer:"
    assert texts[3].endswith(f"Question: {prompts[3]}\nAnswer:")


def test_braces_are_text(tiny, tmp_path):
    ranker = built(tiny, "llama", tmp_path, max_tokens=200)
    exam = tiny_exam(1, 2)
    exam.questions.prompts[0] = "which {context} is {question} {0}?"
    exam.questions.options[0] = ["true {option}", "{question}"]
    exam.passages[0] = [ContextPassage("x", "", "the {question} of {context} {option}", 1.0, "dense")]
    item = items_of(ranker, exam)[0]
    text = ranker.tokenizer.decode(item.prefix[1:])
    assert text == "the {question} of {context} {option}\n\nQuestion: which {context} is {question} {0}?\nAnswer:"
    whole = ranker.tokenizer.decode([*item.prefix, *item.options[0]])
    assert whole.endswith("Answer: true {option}")


def test_template_longer_than_the_room(tiny, tmp_path):
    prompt = {"without_context": "stone " * 40 + "{question}", "with_context": "stone " * 40 + "{context} {question}"}
    ranker = make_ranker(tiny_config("causal", tiny("llama"), prompt=prompt, max_tokens=40), tmp_path)
    with pytest.raises(UserError, match="fixed text.*max_tokens is 40"):
        ranker.predict(tiny_exam(1))


def test_cut_text(tiny, tmp_path):
    ranker = built(tiny, "llama", tmp_path)
    assert cut_text(ranker.tokenizer, "stone river light", 2) == "stone river"
    assert cut_text(ranker.tokenizer, "stone river light", 3) == "stone river light"
    assert cut_text(ranker.tokenizer, "stone", 0) == cut_text(ranker.tokenizer, "stone", -5) == ""


# --- LoRA's options ------------------------------------------------------------------------

LORA = [
    {"use_rslora": True},
    {"use_dora": True},
    {"layers_to_transform": [1]},
    {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3.0}},
    {"modules_to_save": ["norm"]},
]


@pytest.mark.parametrize("lora", LORA, ids=lambda lora: next(iter(lora)))
def test_lora_options(tiny, tmp_path, lora):
    lora = {"target_modules": ["q_proj", "v_proj"], **lora}
    config = tiny_config("causal", tiny("llama"), lora=lora)
    exam = tiny_exam(8, 3)
    ranker = make_ranker(config, tmp_path)
    ranker.fit(exam, exam, tmp_path / "c")
    names = {name: p for name, p in ranker.model.named_parameters() if p.requires_grad}
    layer = next(m for n, m in ranker.model.named_modules() if n.endswith("layers.1.self_attn.q_proj"))
    if "use_rslora" in lora:
        assert layer.scaling["default"] == pytest.approx(8 / math.sqrt(4))
    elif "use_dora" in lora:
        assert any("lora_magnitude_vector" in name for name in names)
    elif "layers_to_transform" in lora:
        assert names and all("layers.1." in name for name in names)
    elif "rank_pattern" in lora:
        assert layer.r["default"] == 2 and layer.scaling["default"] == pytest.approx(1.5)
    else:
        assert [name for name in names if "norm.modules_to_save" in name]
    saved_and_loaded(ranker, exam, tmp_path)
    other = make_ranker(tiny_config("causal", tiny("llama"), lora={**lora, "r": 3, "rank_pattern": {}}), tmp_path)
    with pytest.raises(UserError, match="does not fit this ranker's settings"):
        other.load(tmp_path / "saved")


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_lora_bias(tiny, tmp_path, bias):
    config = tiny_config("multiple_choice", tiny("bert"), lora={"bias": bias})
    exam = tiny_exam(8, 3)
    ranker = make_ranker(config, tmp_path)
    ranker.fit(exam, exam, tmp_path / "c")
    names = [name for name, p in ranker.model.named_parameters() if p.requires_grad and name.endswith("bias")]
    assert any("query" in name for name in names)
    assert any("key" in name for name in names) == (bias == "all")  # a layer without LoRA
    saved_and_loaded(ranker, exam, tmp_path)


def test_unknown_module_to_save(tiny, tmp_path):
    ranker = make_ranker(tiny_config("causal", tiny("llama"), lora={"modules_to_save": ["nrom"]}), tmp_path)
    with pytest.raises(UserError, match="modules_to_save names no module of the model: nrom"):
        ranker.predict(tiny_exam(1))


def test_lora_that_fits_no_module(tiny, tmp_path):
    ranker = make_ranker(tiny_config("causal", tiny("llama"), lora={"target_modules": ["query"]}), tmp_path)
    with pytest.raises(UserError, match="PEFT refuses the lora settings"):
        ranker.predict(tiny_exam(1))


@pytest.mark.parametrize("model", ["bert", "t5"])
def test_without_lora_the_whole_model_is_trained(tiny, tmp_path, model):
    family, more = FAMILIES[model]
    config = tiny_config(family, tiny(model), lora=None, training={"learning_rate": 0.003, "epochs": 2}, **more)
    exam = tiny_exam(8, 3)
    ranker = make_ranker(config, tmp_path)
    facts = ranker.fit(exam, exam, tmp_path / "c")
    assert facts["trainable_parameters"] == facts["parameters"]
    saved_and_loaded(ranker, exam, tmp_path)


# --- QLoRA ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qlora(tiny):
    return tiny_config(
        "causal", tiny("llama"), quantization={"kind": "nf4", "double": True}, head="both", training={"epochs": 6}
    )


def test_qlora_learns_and_reloads(qlora, tmp_path):
    import bitsandbytes as bnb

    exam = tiny_exam(12, 4)
    ranker = make_ranker(qlora, tmp_path)
    facts = ranker.fit(exam, exam, tmp_path / "c")
    layers = [m for m in ranker.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(layers) == 14
    state = layers[0].weight.quant_state
    assert state.quant_type == "nf4" and state.nested
    assert np.mean(facts["loss"][-3:]) < 0.6 * math.log(4)
    saved_and_loaded(ranker, exam, tmp_path)


def test_qlora_predicting_leaves_gradients_alone(qlora, tmp_path):
    """With bitsandbytes' packed CPU kernel a forward pass in eval mode would take them away, without a word."""
    exam = tiny_exam(3, 3)

    def gradients(predict_first: bool) -> list[torch.Tensor]:
        ranker = make_ranker(qlora, tmp_path)
        ranker.build()
        if predict_first:
            ranker.predict(exam)
        for module in ranker.modules:
            module.train()
        ranker.encoded_scores(items_of(ranker, exam))[:, 0].sum().backward()
        return [p.grad for p in ranker.model.parameters() if p.requires_grad]

    plain, after = gradients(False), gradients(True)
    assert any(g.abs().max() > 1e-3 for g in plain)
    for one, other in zip(plain, after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


# --- rankers that are not trained ----------------------------------------------------------


def option_scores(exam: Exam, seed: int = 0, width: int | None = None) -> Exam:
    rng = np.random.default_rng(seed)
    table = rng.random((len(exam), width or exam.questions.max_options)).astype(np.float32)
    table[:, : exam.questions.max_options][~exam.questions.exists()] = np.nan
    exam.option_scores = {"sentence": table}
    return exam


def test_similarity(tmp_path):
    exam = option_scores(tiny_exam(6, (4, 2)))
    config = RankerConfig(name="sim", family="similarity", temperature=0.1)
    table = make_ranker(config, tmp_path).predict(exam)
    scores = exam.option_scores["sentence"]
    exists = exam.questions.exists()
    np.testing.assert_array_equal(table[~exists], 0)
    weights = np.exp(np.where(exists, np.nan_to_num(scores), 0) / 0.1) * exists
    np.testing.assert_allclose(table, weights / weights.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)


def test_similarity_of_a_narrow_part(tmp_path):
    """The scores are as wide as the whole exam; a fold may hold questions of two options only."""
    exam = option_scores(tiny_exam(6, (5, 2)))
    config = RankerConfig(name="sim", family="similarity")
    ranker = make_ranker(config, tmp_path)
    whole = ranker.predict(exam)
    narrow = ranker.predict(exam.subset([1, 3, 5]))
    assert narrow.shape == (3, 2)
    np.testing.assert_allclose(narrow, whole[1::2, :2], atol=1e-6)


def test_similarity_needs_its_scores(tmp_path):
    with pytest.raises(UserError, match="retrieval.option_scores"):
        make_ranker(RankerConfig(name="sim", family="similarity"), tmp_path).predict(tiny_exam(2))


def test_longest(tmp_path):
    questions = Questions(["a", "b"], ["x", "y"], [["1", "333", "22"], ["4444", "", "1"]], np.array([0, 0]))
    table = make_ranker(RankerConfig(name="longest", family="longest"), tmp_path).predict(Exam(questions, [[], []]))
    assert table.argmax(axis=1).tolist() == [1, 0]
    assert table[0, 1] > table[0, 2] > table[0, 0] > 0
    assert table[1, 1] == 0
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)


def test_masked_softmax_of_large_scores():
    table = masked_softmax(np.array([[1e6, 1e6 - 1, 5e6]]), np.array([[True, True, False]]))
    np.testing.assert_allclose(table, [[1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0]], rtol=1e-5)


# --- the retrieval prior -------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bert", "llama", "t5"])
def test_retrieval_prior_is_where_training_starts(tiny, tmp_path, model):
    family, more = FAMILIES[model]
    if family == "causal":
        more = {"head": "last_token"}
    config = tiny_config(
        family, tiny(model), retrieval_prior=True, temperature=0.01, training={"learning_rate": 1e-9}, **more
    )
    exam = option_scores(tiny_exam(10, (4, 3)))
    similarity = make_ranker(RankerConfig(name="sim", family="similarity", temperature=0.01), tmp_path)
    ranker = make_ranker(config, tmp_path)
    ranker.fit(exam, exam, tmp_path / "c")
    table = ranker.predict(exam)
    close = ranker.scores([ranker._item(exam, ranker._priors(exam), 0, 1, [0, 1, 2, 3])]).detach().numpy()[0]
    own = ranker.encoded_scores(items_of(ranker, exam.subset([0]))).detach().numpy()[0]
    np.testing.assert_allclose(close - own, exam.option_scores["sentence"][0] / 0.01, rtol=1e-4)
    agree = (table.argmax(axis=1) == similarity.predict(exam).argmax(axis=1)).mean()
    assert agree >= 0.9
    again = saved_and_loaded(ranker, exam, tmp_path)
    saved = tmp_path / "saved"
    assert (saved / "prior.safetensors").is_file()
    (saved / "prior.safetensors").unlink()
    with pytest.raises(UserError, match="prior.safetensors"):
        again.load(saved)


# --- models that cannot be had -------------------------------------------------------------


def test_model_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        make_ranker(tiny_config("causal", str(tmp_path / "none")), tmp_path).predict(tiny_exam(1))


def test_model_of_another_family(tiny, tmp_path):
    with pytest.raises(UserError, match="cannot be loaded"):
        make_ranker(tiny_config("seq2seq", tiny("llama")), tmp_path).predict(tiny_exam(1))


@pytest.mark.parametrize("model", ["llama", "t5", "bert"])
def test_characters_of_several_tokens_are_cut_whole(tiny, tmp_path, model):
    """A character that is written in bytes once made the cutting of a context go on for ever."""
    ranker = built(tiny, model, tmp_path)
    ranker.config.max_tokens = 64
    exam = tiny_exam(1, 2)
    rng = np.random.default_rng(0)
    for text in ["é" * 300, "".join(rng.choice(list("stone river.,é?ß漢 {}("), 400)), "🪐" * 200]:
        exam.passages[0] = [ContextPassage("x", "", text, 1.0, "dense")]
        for limit in range(55, 64):
            ranker.config.max_tokens = limit
            [item] = items_of(ranker, exam)
            assert ranker.encoded_length(item) <= limit * 2
    tokens = ranker.tokenizer("éé", add_special_tokens=False)["input_ids"]
    if model == "llama":
        assert len(tokens) > 4
        assert [cut_text(ranker.tokenizer, "éé", n) for n in (0, 1, len(tokens))] == ["", "", "éé"]
    assert shorten(ranker.tokenizer, "stone é", 1) in ("stone ", "stone")
    assert shorten(ranker.tokenizer, "stone é", 99) == ""


# --- DeBERTa's attention -------------------------------------------------------------------


DEBERTA_KINDS = {
    "v3": {},
    "c2p": {"pos_att_type": ["c2p"]},
    "p2c": {"pos_att_type": ["p2c"]},
    "own keys": {"share_att_key": False},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 24},  # shorter than the sequences
    "convolution": {"conv_kernel_size": 3},
}


def deberta_pair(changes: dict) -> tuple:
    """The same random DeBERTa-v2 twice: transformers' attention, and ours."""
    import copy

    from transformers import DebertaV2Config, DebertaV2Model

    from solution.rankers.deberta_attention import SkewedSelfAttention, choose_attention

    values = {
        "vocab_size": 90,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(2)
    eager = DebertaV2Model(DebertaV2Config(**{**values, **changes}))
    with torch.no_grad():
        for parameter in eager.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.15)
    ours = copy.deepcopy(eager)
    choose_attention(ours, "auto", "cpu")
    assert sum(type(module) is SkewedSelfAttention for module in ours.modules()) == 2
    return eager, ours


@pytest.mark.parametrize("kind", list(DEBERTA_KINDS))
@pytest.mark.parametrize("n", [1, 37, 150])  # 150: three blocks of rows, the last one short
def test_deberta_attention_is_exact(kind, n):
    eager, ours = deberta_pair(DEBERTA_KINDS[kind])
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, 90, (3, n), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, n // 2 + 1 :] = 0
    mask[2, n - n // 5 :] = 0
    weights = torch.randn(3, n, 32, generator=generator) * mask[..., None]
    gradients = []
    for model in (eager, ours):
        with torch.inference_mode():
            inferred = model(ids, mask).last_hidden_state
        states = model(ids, mask).last_hidden_state
        (states * weights).sum().backward()
        # Padding rows too: nothing reads them, but they are the same.
        torch.testing.assert_close(inferred, states.detach(), atol=1e-5, rtol=0)
        gradients.append((states.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1][0], gradients[0][0], atol=1e-5, rtol=0)
    assert len(gradients[1][1]) == len(gradients[0][1]) > 30
    for got, wanted in zip(gradients[1][1], gradients[0][1], strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * max(1.0, float(wanted.abs().max())), rtol=0)


def test_deberta_attention_in_bfloat16():
    """Not further from float32 than transformers' own attention in bfloat16, forward and backward."""
    eager, ours = deberta_pair({})
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, 90, (3, 80), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 50:] = 0
    weights = torch.randn(3, 80, 32, generator=generator) * mask[..., None]

    def run(model, half: bool) -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            states = model(ids, mask).last_hidden_state
            with torch.inference_mode():
                inferred = model(ids, mask).last_hidden_state
        (states.float() * weights).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        return [(states * mask[..., None]).float().detach(), (inferred * mask[..., None]).float(), gradient]

    exact, theirs, own = run(eager, False), run(eager, True), run(ours, True)
    for right, their, our in zip(exact, theirs, own, strict=True):
        error = float((our - right).norm() / right.norm())
        assert 0 < error < 1.3 * float((their - right).norm() / right.norm())


def test_deberta_attention_drops_out():
    """In training attention probabilities are dropped: other draws, other states; in eval mode none are."""
    _, ours = deberta_pair({"attention_probs_dropout_prob": 0.5})
    ids = torch.arange(1, 31)[None]
    ours.train()
    first, second = ours(ids).last_hidden_state, ours(ids).last_hidden_state
    assert (first - second).abs().max() > 1e-2
    ours.eval()
    torch.testing.assert_close(ours(ids).last_hidden_state, ours(ids).last_hidden_state, atol=0, rtol=0)


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_attention_setting(tiny, tmp_path, attention):
    from solution.rankers.deberta_attention import SkewedSelfAttention

    ranker = built(tiny, "deberta", tmp_path, attention=attention)
    ours = sum(isinstance(module, SkewedSelfAttention) for module in ranker.model.modules())
    assert ours == (2 if attention == "auto" else 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_flashdeberta_needs_a_gpu(tiny, tmp_path):
    with pytest.raises(UserError, match="needs an NVIDIA GPU; set attention to auto"):
        built(tiny, "deberta", tmp_path, attention="flashdeberta")
    with pytest.raises(UserError, match="DeBERTa-v2 and -v3 only"):
        built(tiny, "bert", tmp_path, attention="flashdeberta")


def test_flashdeberta_is_not_installed(monkeypatch):
    import sys

    from solution.rankers.deberta_attention import choose_attention

    monkeypatch.setitem(sys.modules, "flashdeberta", None)
    with pytest.raises(UserError, match="pip install flashdeberta"):
        choose_attention(deberta_pair({})[0], "flashdeberta", "cuda")


# --- padding -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bert", "deberta"])
def test_prediction_pads_little(tiny, tmp_path, model):
    """Options of all questions are batched by their own length, and come back to their question's row."""
    ranker = built(tiny, model, tmp_path, predict_tokens_per_batch=300)
    exam = tiny_exam(24, (5, 3, 2))
    for row, options in enumerate(exam.questions.options):
        exam.passages[row] = [ContextPassage("x", "", "stone river light water " * (1 + row % 7), 1.0, "dense")]
        options[0] += " iron gold cell atom" * (row % 4)
    seen = []
    score = ranker.encoded_scores

    def watched(items):
        seen.append([len(sequence) for item in items for sequence in item.sequences])
        return score(items)

    ranker.encoded_scores = watched
    table = ranker.predict(exam)
    assert sum(map(len, seen)) == int(exam.questions.exists().sum())
    padded = sum(len(batch) * max(batch) for batch in seen)
    assert 1 - sum(map(sum, seen)) / padded < 0.05
    assert all(len(batch) * max(batch) <= 300 for batch in seen)
    with torch.inference_mode():
        whole = score(items_of(ranker, exam))
    np.testing.assert_allclose(table, masked_softmax(whole.numpy(), exam.questions.exists()), atol=1e-5)
