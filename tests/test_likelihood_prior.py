"""An option's likelihood with its prior taken out: two passes of whole sequences, whatever is packed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moved_off_start, tiny_config, tiny_exam
from pydantic import ValidationError
from safetensors.numpy import save_file
from tiny_models import llama

from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import ContextPassage, Exam
from solution.rankers.families import make_ranker
from solution.rankers.float32 import in_float32
from solution.rankers.generative import EncodedOptions
from solution.rankers.likelihoods import UntrainedLikelihoods, likelihoods_file
from solution.rankers.neural import NeuralRanker
from solution.training.merge import _checked_settings

torch.set_num_threads(1)

WORDS = "stone river light water iron gold cell atom wave heat mass star moon tree leaf bird fish rain wind".split()


def exam_of_all_kinds() -> Exam:
    """Three questions of 2 to 26 options of one to nine words; the second has no passage."""
    exam = tiny_exam(3, (2, 3, 26))
    rng = np.random.default_rng(1)
    for row, words in enumerate((30, 0, 18)):
        exam.passages[row] = [ContextPassage("x", "", " ".join(rng.choice(WORDS, words)), 1.0, "dense")]
        exam.questions.options[row] = [
            " ".join(rng.choice(WORDS, 1 + (5 * i + row) % 9)) for i in range(len(exam.questions.options[row]))
        ]
    exam.passages[1] = []
    return exam


def ranker_of(tiny: Any, model: str, cache: Path, **changes: Any) -> Any:
    """A built ranker; everything that is trained is moved off its start, at which it may change nothing."""
    family = "seq2seq" if model == "t5" else "causal"
    return moved_off_start(make_ranker(tiny_config(family, tiny(model), **{"max_tokens": 120, **changes}), cache))


def encoded(ranker: Any, exam: Exam) -> list[EncodedOptions]:
    orders = [[i for i, option in enumerate(options) if option] for options in exam.questions.options]
    return [ranker.encode_question(exam, row, ranker.config.passages, order) for row, order in enumerate(orders)]


def told(ranker: Any, exam: Exam) -> list[str]:
    """The text behind which each question's options are taken out."""
    return [ranker.tokenizer.decode(item.prior or [], skip_special_tokens=True) for item in encoded(ranker, exam)]


def alone(ranker: Any, prefix: list[int], option: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """An option by transformers' own forward pass: its mean log-likelihood, and its last token's state."""
    if ranker.config.family == "seq2seq":
        output = ranker.model(
            input_ids=torch.tensor([prefix]), labels=torch.tensor([option]), output_hidden_states=True
        )
        return -output.loss, output.decoder_hidden_states[-1][0, -1]
    ids = torch.tensor([[*prefix, *option]])
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < len(prefix), -100)
    output = ranker.model(input_ids=ids, labels=labels, output_hidden_states=True, use_cache=False)
    return -output.loss, output.hidden_states[-1][0, -1]


@pytest.mark.parametrize(
    ("model", "prior"),
    [
        ("llama", "option"),
        ("phi3", "question"),
        ("phi3_longrope", "question"),
        ("t5", "question"),
    ],
)
def test_the_difference_of_two_passes(tiny, tmp_path, model, prior):
    """Scores and gradients of a batch are those of every option read twice as a sequence by itself: by the ranker's
    model, and behind the prior's text by the model before training."""
    ranker = ranker_of(tiny, model, tmp_path, head="both", likelihood_prior=prior)
    exam = exam_of_all_kinds()
    items = encoded(ranker, exam)
    if model == "phi3_longrope":  # its short factors end at 48 tokens
        lengths = [len(item.prefix) + len(option) for item in items for option in item.options]
        assert min(lengths) < 48 < max(lengths)
    head, wanted = ranker.head, []
    for item in items:
        row = []
        for option in item.options:
            likelihood, last = alone(ranker, item.prefix, option)
            with torch.no_grad(), ranker.model.disable_adapter():
                before, _ = alone(ranker, item.prior, option)
            score = head.log_scale.exp() * likelihood - head.prior_log_scale.exp() * before
            row.append(score + last @ head.score_weight)
        wanted.append(torch.cat(row))

    scores = ranker.encoded_scores(items)
    for row, own in enumerate(wanted):
        torch.testing.assert_close(scores[row, : len(own)], own, atol=1e-4, rtol=0)
        assert torch.isinf(scores[row, len(own) :]).all()
        assert float(own.detach().std()) > 0.01
    table = ranker.predict(exam)
    for row, own in enumerate(wanted):
        np.testing.assert_allclose(table[row, : len(own)], own.detach().softmax(0).numpy(), atol=1e-5)

    parameters = [p for module in ranker.modules for p in module.parameters() if p.requires_grad]
    weights = [torch.linspace(-1, 1, len(own)) for own in wanted]
    got = torch.autograd.grad(sum((scores[i, : len(w)] * w).sum() for i, w in enumerate(weights)), parameters)
    right = torch.autograd.grad(sum((own * w).sum() for own, w in zip(wanted, weights, strict=True)), parameters)
    for one, other in zip(got, right, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_text_of_the_prior(tiny, tmp_path):
    exam = exam_of_all_kinds()
    prompts = exam.questions.prompts
    option = ranker_of(tiny, "llama", tmp_path, head="likelihood", likelihood_prior="option")
    assert told(option, exam) == ["Answer:"] * 3
    question = ranker_of(tiny, "llama", tmp_path, head="likelihood", likelihood_prior="question")
    wanted = [f"Question: {prompt}\nAnswer:" for prompt in prompts]
    # The second question has no context: what is taken out is what is likely without the question too.
    assert told(question, exam) == [wanted[0], "Answer:", wanted[2]]
    without = [question.encode_question(exam, row, 0, [0, 1]) for row in range(3)]
    assert {tuple(item.prior) for item in without} == {tuple(encoded(option, exam)[0].prior)}
    assert encoded(ranker_of(tiny, "llama", tmp_path, head="likelihood"), exam)[0].prior is None


def test_examples_and_a_chat_template_frame_it_too(tmp_path):
    model = llama(tmp_path / "chatty")
    about = json.loads((model / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[reply]"
    (model / "tokenizer_config.json").write_text(json.dumps({**about, "chat_template": template}))
    exam = tiny_exam(4, 3)
    changes: dict[str, Any] = {"head": "likelihood", "likelihood_prior": "option", "training": {"epochs": 0}}
    for chat, between in ((True, "[assistant]"), (False, "Answer: ")):
        prompt = {"few_shot": 1, "chat": chat}
        config = tiny_config("causal", str(model), max_tokens=200, prompt=prompt, **changes)
        ranker: Any = make_ranker(config, tmp_path)
        ranker.fit(exam.subset([0, 1]), exam.subset([2, 3]), tmp_path / "checkpoint")
        [text, _] = told(ranker, exam.subset([2, 3]))
        assert text.count("Question:") == 1 and between in text, "the example, and no question of the exam"
        assert text.endswith("[user]Answer:[reply]" if chat else "\n\nAnswer:")


def test_a_long_question_stays_within_max_tokens(tiny, tmp_path):
    exam = tiny_exam(2, 3)
    exam.questions.prompts[0] = "stone river light " * 300
    prompt = {"with_context": "{context}{question}\nAnswer:", "without_context": "Tell the truth. {question} Answer:"}
    changes: dict[str, Any] = {"head": "likelihood", "likelihood_prior": "question", "prompt": prompt, "max_tokens": 60}
    for item in encoded(ranker_of(tiny, "llama", tmp_path, **changes), exam):
        assert len(item.prior or []) + max(map(len, item.options)) <= 60
    prompt["without_context"] = "{question} " + "Answer " * 60
    with pytest.raises(UserError, match="the prompt's fixed text alone has .* Raise max_tokens"):
        encoded(ranker_of(tiny, "llama", tmp_path, **changes), exam)


@pytest.mark.parametrize(("model", "head"), [("llama", "likelihood"), ("t5", "both")])
def test_trains_saves_and_loads(tiny, tmp_path, model, head):
    changes: dict[str, Any] = {"head": head, "likelihood_prior": "question", "likelihood_prior_share": 0.25}
    changes |= {"training": {"context_dropout": 0.5}}
    family = "seq2seq" if model == "t5" else "causal"
    exam = tiny_exam(12, (4, 3))
    config = tiny_config(family, tiny(model), max_tokens=120, **changes)
    ranker: Any = make_ranker(config, tmp_path)
    before = ranker.predict(exam)
    assert float(ranker.head.prior_log_scale.detach().exp()) == pytest.approx(0.25)
    ranker.fit(exam.subset(range(8)), exam.subset(range(8, 12)), tmp_path / "checkpoint")
    assert abs(float(ranker.head.prior_log_scale.detach().exp()) - 0.25) > 1e-4
    assert all(parameter.requires_grad for name, parameter in ranker.model.named_parameters() if "lora_" in name)
    after = ranker.predict(exam)
    assert np.abs(after - before).max() > 1e-3
    ranker.save(tmp_path)
    again: Any = make_ranker(config, tmp_path)
    again.load(tmp_path)
    np.testing.assert_allclose(again.predict(exam), after, atol=1e-6)


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_the_folds_of_a_ranker_compute_the_model_before_training_once(tiny, tmp_path, monkeypatch, model):
    """The second fold makes no pass of it, and whichever fold comes first, their answers are the same bytes."""
    family = "seq2seq" if model == "t5" else "causal"
    config = tiny_config(family, tiny(model), max_tokens=120, head="both", likelihood_prior="question")
    exam, passes = tiny_exam(8, (4, 3)), []
    kind = type(make_ranker(config, tmp_path))
    whole = kind._option_scores

    def counted(ranker: Any, one: Any) -> torch.Tensor:
        passes.append(one.prior)
        return whole(ranker, one)

    monkeypatch.setattr(kind, "_option_scores", counted)

    def answers(cache: Path, inside: Any) -> np.ndarray:
        ranker: Any = make_ranker(config, cache)
        outside = [row for row in range(8) if row not in inside]
        ranker.fit(exam.subset(outside), exam.subset(inside), tmp_path / "checkpoint")
        table = ranker.predict(exam.subset(inside).hidden())
        return table

    first = answers(tmp_path / "a", range(4))
    assert sum(passes) == 8, "each question once, alone"
    passes.clear()
    second = answers(tmp_path / "a", range(4, 8))
    assert passes and not any(passes)
    assert (answers(tmp_path / "b", range(4, 8)) == second).all() and (answers(tmp_path / "b", range(4)) == first).all()

    # A ranker that is only loaded asks the model; what it says is the same.
    ranker: Any = make_ranker(config, tmp_path / "a")
    passes.clear()
    before = ranker.predict(exam)
    assert any(passes)
    ranker._likelihoods_on = ranker.device
    np.testing.assert_allclose(ranker.predict(exam), before, atol=1e-6)


@pytest.mark.parametrize("changes", [{"head": "letters"}, {"head": "both", "prompt": {"few_shot": 1}}])
def test_texts_that_no_other_fold_reads_are_not_kept(tiny, tmp_path, changes):
    config = tiny_config("causal", tiny("llama"), max_tokens=200, likelihood_prior="question", **changes)
    ranker: Any = make_ranker(config, tmp_path)
    exam = tiny_exam(8, 3)
    ranker.fit(exam.subset(range(6)), exam.subset([6, 7]), tmp_path / "checkpoint")
    ranker.predict(exam.subset([6, 7]).hidden())
    assert not list(tmp_path.glob("likelihoods-*"))


def test_kept_likelihoods_are_found_again(tmp_path):
    path = tmp_path / "likelihoods.safetensors"
    kept = UntrainedLikelihoods(path)
    kept.save()
    assert not path.exists() and kept.find([1, 2], [[3]]) is None
    kept.add([1, 2], [[3], [4, 5]], [-1.5, -2.25])
    kept.add([2], [[3], [6]], [-1.5, float("nan")])
    assert kept.find([1, 2], [[4, 5], [3]]) == [-2.25, -1.5]
    other = UntrainedLikelihoods(path)
    other.add([7], [[8]], [-3.0])
    kept.save()
    other.save()
    again = UntrainedLikelihoods(path)
    assert again.find([1, 2], [[3], [4, 5]]) == [-1.5, -2.25] and again.find([7], [[8]]) == [-3.0]
    assert again.find([2], [[3], [6]]) is None, "it was not finite"
    assert again.find([1], [[2, 3], [4, 5]]) is None, "another cut of the same tokens is another text"
    assert again.find([7], [[8], [9]]) is None, "beside another option it would be computed in another batch"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert UntrainedLikelihoods(path).find([7], [[8]]) is None
    one, number = np.zeros(1, np.uint64), np.zeros(1, np.float32)
    for keys, values in ((one[0], number[0]), (one[None], number[None]), (one, number * np.nan), (one, one)):
        save_file({"keys": np.asarray(keys), "values": np.asarray(values)}, path)
        assert UntrainedLikelihoods(path).find([7], [[8]]) is None


def test_likelihoods_that_cannot_be_written_end_no_training(tmp_path, capsys):
    path = tmp_path / "likelihoods.safetensors"
    (path / "x").mkdir(parents=True)  # a folder in the place of the file: also root cannot write it
    kept = UntrainedLikelihoods(path)
    kept.add([1], [[2]], [-1.0])
    kept.save()
    assert "not kept for other folds" in capsys.readouterr().err
    assert kept.find([1], [[2]]) == [-1.0] and [each.name for each in tmp_path.iterdir()] == [path.name]
    path = tmp_path / "a_file" / "likelihoods.safetensors"
    path.parent.write_text("in the place of the folder")
    kept = UntrainedLikelihoods(path)
    kept.add([1], [[2]], [-1.0])
    kept.save()


def test_an_interrupted_training_keeps_what_it_has_computed(tiny, tmp_path, monkeypatch):
    config = tiny_config("causal", tiny("llama"), head="likelihood", likelihood_prior="option")
    ranker: Any = make_ranker(config, tmp_path)
    kept = UntrainedLikelihoods(tmp_path / "likelihoods.safetensors")

    def interrupted(self: Any, *_: Any) -> None:
        vars(self)["_likelihoods"] = kept
        kept.add([1], [[2]], [-1.0])
        raise KeyboardInterrupt

    monkeypatch.setattr(NeuralRanker, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ranker.fit(tiny_exam(2, 3), tiny_exam(2, 3), tmp_path / "checkpoint")
    assert UntrainedLikelihoods(tmp_path / "likelihoods.safetensors").find([1], [[2]]) == [-1.0]


def test_what_is_computed_again_in_float32_is_not_kept(tiny, tmp_path):
    ranker = ranker_of(tiny, "llama", tmp_path, head="likelihood", likelihood_prior="option")
    item = encoded(ranker, tiny_exam(1, 3))[0]
    ranker.device = ranker._likelihoods_on = replace(ranker.device, compute=torch.bfloat16)
    with in_float32(ranker):
        assert ranker._kept_likelihoods(item) is None
    with torch.no_grad():
        assert len(ranker._kept_likelihoods(item)) == 3


def test_another_model_has_a_file_of_its_own(tmp_path):
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    name = likelihoods_file(tmp_path, str(weights.parent), "cpu", None)
    assert name == likelihoods_file(tmp_path, str(weights.parent), "cpu", None)
    assert name != likelihoods_file(tmp_path, str(weights.parent), "cuda", None)
    weights.write_bytes(b"22")
    assert name != likelihoods_file(tmp_path, str(weights.parent), "cpu", None)


def test_the_length_of_a_question_counts_both_passes(tiny, tmp_path):
    for model in ("llama", "t5"):
        ranker = ranker_of(tiny, model, tmp_path, head="likelihood", likelihood_prior="question")
        item = encoded(ranker, exam_of_all_kinds())[0]
        plain, prior = replace(item, prior=None), replace(item, prefix=item.prior, prior=None)
        lengths = [ranker.encoded_length(one) for one in (item, plain, prior)]
        assert lengths[0] == lengths[1] + lengths[2] and min(lengths) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood_prior": "option"}, "likelihood_prior needs a likelihood: set head to likelihood"),
        ({"likelihood_prior": "question", "head": "both", "passages": 0}, "passages is 0: set passages to at least 1"),
        (
            {"likelihood_prior": "option", "head": "both", "prompt": {"without_context": "Q: {question} "}},
            "ends with {question}: add a text",
        ),
        ({"likelihood_prior": "option", "head": "both", "lora": None}, "with lora: null .* is overwritten: set lora"),
        ({"likelihood_prior": "option", "head": "both", "lora": {"bias": "all"}}, "set lora with bias none"),
        ({"family": "multiple_choice", "likelihood_prior": "option"}, "is a setting of causal and seq2seq rankers"),
    ],
)
def test_settings_that_mean_nothing(changes, message):
    with pytest.raises(ValidationError, match=message):
        RankerConfig(**{"name": "x", "family": "causal", "model": "x", **changes})


def test_the_hash_changes_only_where_a_prior_is_taken_out():
    base = {"name": "x", "family": "causal", "model": "x", "head": "likelihood"}
    plain, none, option = (
        RankerConfig(**base, **changes)
        for changes in ({}, {"likelihood_prior": "none"}, {"likelihood_prior": "option"})
    )
    assert not [name for name in plain.hashed_values() if name.startswith("likelihood_prior")]
    share = RankerConfig(**base, likelihood_prior="option", likelihood_prior_share=0.75)
    assert len({plain.hash(), option.hash(), share.hash()}) == 3 and plain.hash() == none.hash()


def test_such_a_ranker_is_not_merged(tmp_path):
    """The model before training is a part of it."""
    values = {"name": "x", "family": "causal", "model": "x", "head": "both"}
    assert _checked_settings("x", values, tmp_path).lora is not None
    with pytest.raises(UserError, match="likelihood_prior.*can be used as it is"):
        _checked_settings("x", {**values, "likelihood_prior": "question"}, tmp_path)
