"""What a generative ranker is asked and how it answers: letters, rotations, examples, chat, heads that compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam
from pydantic import ValidationError
from tiny_models import llama

from solution.errors import UserError
from solution.rankers.examples import choose_examples
from solution.rankers.families import make_ranker
from solution.rankers.generative import ScoreHead
from solution.rankers.prompts import question_with_options

torch.set_num_threads(1)

CHAT = "{% for m in messages %}<s>[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
CHAT += "{% if add_generation_prompt %}[reply]{% endif %}"
SHORT = {"epochs": 1, "learning_rate": 0.01, "questions_per_step": 4}


def ranker_of(tiny, tmp_path: Path, model: str = "llama", family: str = "causal", **changes):
    training = changes.pop("training", {"epochs": 0})
    return make_ranker(tiny_config(family, tiny(model), max_tokens=200, training=training, **changes), tmp_path)


def prefixes(ranker, exam) -> list[str]:
    ranker.build()
    orders = [[i for i, option in enumerate(options) if option] for options in exam.questions.options]
    items = [ranker.encode_question(exam, row, ranker.config.passages, order) for row, order in enumerate(orders)]
    return [ranker.tokenizer.decode(item.prefix, skip_special_tokens=True) for item in items]


# --- letters -------------------------------------------------------------------------------


def test_letters_are_the_logits_of_the_letters(tiny, tmp_path):
    """Against the plain model: the logits of A, B, ... behind one prompt that lists the options."""
    ranker = ranker_of(tiny, tmp_path, head="letters", precision="float32")
    exam = tiny_exam(3, (5, 2))
    table = ranker.predict(exam)
    for row, options in enumerate(exam.questions.options):
        options = [option for option in options if option]
        item = ranker.encode_question(exam, row, ranker.config.passages, list(range(len(options))))
        text = ranker.tokenizer.decode(item.prefix, skip_special_tokens=True)
        assert all(f"\n{letter}. {option}" in text for letter, option in zip("ABCDE", options, strict=False))
        with torch.no_grad():
            logits = ranker.model(torch.tensor([item.prefix])).logits[0, -1].log_softmax(-1)
        wanted = []
        for option in item.options:
            ids = torch.tensor([[*item.prefix, *option]])
            with torch.no_grad():
                logits = ranker.model(ids).logits[0].log_softmax(-1)
            places = range(len(item.prefix) - 1, ids.shape[1] - 1)
            wanted.append(float(np.mean([float(logits[place, ids[0, place + 1]]) for place in places])))
        wanted_p = np.exp(wanted) / np.exp(wanted).sum()
        np.testing.assert_allclose(table[row, : len(options)], wanted_p, atol=1e-5)


@pytest.mark.parametrize(("model", "family"), [("llama", "causal"), ("t5", "seq2seq"), ("bert", "multiple_choice")])
def test_rotations_average_the_rotated_orders(tiny, tmp_path, model, family):
    """With every rotation, a rotated exam gets the same probabilities; with one, it does not."""
    changes = {"show_options": True} if family == "multiple_choice" else {"head": "letters"}
    if family == "multiple_choice":
        changes["training"] = SHORT
    exam = tiny_exam(4, 4)
    turned = tiny_exam(4, 4)
    turned.questions.options = [options[1:] + options[:1] for options in exam.questions.options]

    def difference(count: int) -> float:
        ranker = ranker_of(tiny, tmp_path, model, family, rotations=count, precision="float32", **changes)
        ranker.build()
        with torch.no_grad():
            for name, parameter in ranker.model.named_parameters():
                if "classifier" in name and parameter.requires_grad:
                    parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
        one, other = ranker.predict(exam), ranker.predict(turned)
        return float(np.abs(np.roll(one, -1, axis=1) - other).max())

    assert difference(4) < 1e-5
    assert difference(1) > 1e-3


def test_listed_options_stay_where_the_question_is_cut(tiny, tmp_path):
    ranker = ranker_of(tiny, tmp_path, head="likelihood")
    ranker.build()
    tokenizer = ranker.tokenizer

    def size(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    question, options = "which " * 60, ["red stone", "blue river", "gold"]
    whole = question_with_options(tokenizer, "which?", options, 60)
    assert whole == "which?\nA. red stone\nB. blue river\nC. gold"
    cut = question_with_options(tokenizer, question, options, 60)
    assert cut.startswith("which which") and cut.endswith("\nA. red stone\nB. blue river\nC. gold")
    assert 55 <= size(cut) <= 60
    # Options that alone are too long are cut alike, and every one is still there.
    crowded = question_with_options(tokenizer, question, ["stone " * 50] * 5, 60)
    assert size(crowded) <= 60
    assert all(f"\n{letter}. " in crowded for letter in "ABCDE")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotations": 3}, "set show_options"),
        ({"head": "letters", "head_others": True}, "head_others needs a trained head"),
        ({"rotations": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing(changes, message):
    with pytest.raises(ValidationError, match=message):
        tiny_config("causal", "x", **changes)


@pytest.mark.parametrize(
    "changes", [{"head": "letters"}, {"head_others": True}, {"prompt": {"few_shot": 2}}, {"prompt": {"chat": True}}]
)
def test_encoders_have_no_prompt_and_no_such_head(changes):
    with pytest.raises(ValidationError, match="is a setting of causal and seq2seq rankers"):
        tiny_config("multiple_choice", "x", **changes)


# --- examples and chat ---------------------------------------------------------------------


def test_examples_are_of_the_training_fold_and_never_the_question_itself(tiny, tmp_path):
    ranker = ranker_of(tiny, tmp_path, prompt={"few_shot": 2}, head="likelihood")
    exam = tiny_exam(8, (4, 2))
    train, valid = exam.subset(range(4)), exam.subset(range(4, 8))
    ranker.fit(train, valid, tmp_path / "checkpoint")
    texts = prefixes(ranker, valid)
    for text in texts:
        assert text.count("Question:") == 3
        shown = [i for i in range(4) if f"Question: {train.questions.prompts[i]}\nAnswer:" in text]
        assert len(shown) == 2
        for i in shown:
            answer = train.questions.options[i][train.questions.answers[i]]
            assert f"Question: {train.questions.prompts[i]}\nAnswer: {answer}\n\n" in text
    for i, text in enumerate(prefixes(ranker, train)):
        assert text.count("Question:") == 3
        assert text.count(f"Question: {train.questions.prompts[i]}\n") == 1


def test_examples_are_saved_with_the_fold(tiny, tmp_path):
    ranker = ranker_of(tiny, tmp_path, prompt={"few_shot": 2}, head="letters")
    exam = tiny_exam(8, 4)
    ranker.fit(exam.subset(range(4)), exam.subset(range(4, 8)), tmp_path / "checkpoint")
    ranker.save(tmp_path)
    other = ranker_of(tiny, tmp_path, prompt={"few_shot": 2}, head="letters")
    other.load(tmp_path)
    hidden = exam.subset(range(4, 8)).hidden()
    assert np.array_equal(ranker.predict(hidden), other.predict(hidden))
    assert len(json.loads((tmp_path / "examples.json").read_text())) == 3
    (tmp_path / "examples.json").unlink()
    with pytest.raises(UserError, match="examples of the prompt not found"):
        ranker_of(tiny, tmp_path, prompt={"few_shot": 2}, head="letters").load(tmp_path)


def test_an_example_with_a_gap_names_the_right_letter(tiny, tmp_path):
    exam = tiny_exam(3, 3)
    exam.questions.options[0] = ["red", "", "blue"]
    exam.questions.answers[0] = 2
    config = tiny_config("causal", tiny("llama"), head="letters", training={"epochs": 0}, prompt={"few_shot": 2})
    [example] = [e for e in choose_examples(exam, config) if e.id == exam.questions.ids[0]]
    assert (example.options, example.answer) == (["red", "blue"], 1)


def test_chat_template_frames_the_text(tmp_path):
    model = llama(tmp_path / "chatty")
    about = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**about, "chat_template": CHAT}))
    config = tiny_config(
        "causal",
        str(model),
        head="likelihood",
        training={"epochs": 0},
        prompt={"chat": True, "few_shot": 1},
        max_tokens=200,
    )
    ranker = make_ranker(config, tmp_path)
    exam = tiny_exam(4, 3)
    ranker.fit(exam.subset([0, 1]), exam.subset([2, 3]), tmp_path / "checkpoint")
    valid = exam.subset([2, 3])
    for row, text in enumerate(prefixes(ranker, valid)):
        assert text.count("[user]") == 2 and text.count("[assistant]") == 1
        assert text.rstrip().endswith(f"Question: {valid.questions.prompts[row]}\nAnswer:[reply]")
    item = ranker.encode_question(valid, 0, 1, [0, 1, 2])
    bos = ranker.tokenizer.bos_token_id
    assert item.prefix.count(bos) == 3 and item.prefix[:2].count(bos) == 1, "the template's own, no second one in front"
    assert ranker.predict(valid).shape == (2, 3)


def test_chat_without_a_template_is_told(tiny, tmp_path):
    ranker = ranker_of(tiny, tmp_path, head="likelihood", prompt={"chat": True})
    with pytest.raises(UserError, match="has no chat template; set prompt.chat to false"):
        ranker.predict(tiny_exam(1))


def test_question_may_stand_before_its_context(tiny, tmp_path):
    template = "Question: {question}\nContext: {context}\nAnswer:"
    ranker = ranker_of(tiny, tmp_path, head="likelihood", prompt={"with_context": template})
    exam = tiny_exam(1, 2, words=2)
    [text] = prefixes(ranker, exam)
    assert text == f"Question: {exam.questions.prompts[0]}\nContext: moon. {exam.passages[0][0].text}\nAnswer:"


# --- the head that compares ----------------------------------------------------------------


def test_head_sees_the_mean_of_the_other_options():
    head = ScoreHead("last_token", 3, others=True)
    states = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0], [4.0, 0, 0], [0, 5.0, 0]])
    owners = torch.tensor([0, 0, 0, 2, 2])
    with torch.no_grad():
        head.others_out.normal_(generator=torch.Generator().manual_seed(0))
        got = head(states, None, owners)
        means = torch.tensor([[0, 1.0, 1.5], [0.5, 0, 1.5], [0.5, 1.0, 0], [0, 5.0, 0], [4.0, 0, 0]])
        hidden = torch.tanh(torch.cat([states, means], 1) @ head.others_weight.T)
        torch.testing.assert_close(got, states @ head.score_weight + hidden @ head.others_out)


def test_head_that_compares_trains_saves_and_loads(tiny, tmp_path):
    exam = tiny_exam(12, (4, 3))
    made = []
    for others in (True, False):
        ranker = ranker_of(tiny, tmp_path, head="both", head_others=others, training=SHORT)
        ranker.fit(exam.subset(range(8)), exam.subset(range(8, 12)), tmp_path / f"checkpoint{others}")
        made.append(ranker.predict(exam))
        if others:
            assert float(ranker.head.others_out.detach().abs().max()) > 0
            ranker.save(tmp_path)
            again = ranker_of(tiny, tmp_path, head="both", head_others=True, training=SHORT)
            again.load(tmp_path)
            np.testing.assert_allclose(again.predict(exam), made[0], atol=1e-6)
    assert np.abs(made[0] - made[1]).max() > 1e-5
