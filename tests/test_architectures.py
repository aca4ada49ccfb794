"""Architectures whose answer to a question depends on its neighbours in a batch are refused when training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config, tiny_exam
from tiny_models import _wordpiece, _write

from solution.errors import UserError
from solution.rankers.families import make_ranker


def convbert(folder: Path) -> Path:
    from transformers import ConvBertConfig, ConvBertModel

    tokenizer = _wordpiece()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    config = ConvBertConfig(vocab_size=tokenizer.get_vocab_size(), embedding_size=32, **sizes)
    return _write(folder, config, ConvBertModel, tokenizer, {"tokenizer_class": "BertTokenizer"})


def xlnet(folder: Path) -> Path:
    """Its config says -1 positions, since it has no table of them."""
    from transformers import XLNetConfig, XLNetModel

    tokenizer = _wordpiece()
    config = XLNetConfig(vocab_size=tokenizer.get_vocab_size(), d_model=32, n_layer=1, n_head=2, d_inner=48)
    assert config.max_position_embeddings == -1
    return _write(folder, config, XLNetModel, tokenizer, {"tokenizer_class": "BertTokenizer"})


def ranker_of(model: Path, target: str, cache: Path) -> Any:
    config = tiny_config("multiple_choice", str(model), lora={"target_modules": [target]})
    return make_ranker(config, cache)


@pytest.mark.parametrize(("build", "target"), [(convbert, "query"), (xlnet, "layer_1")])
def test_neighbours_in_a_batch_change_nothing_or_the_model_is_refused(build: Any, target: str, tmp_path: Path) -> None:
    ranker, exam = ranker_of(build(tmp_path / build.__name__), target, tmp_path), tiny_exam(6, options=3)
    exam.questions.prompts[2] = exam.questions.prompts[2] + " moon tree leaf bird fish" * 3
    with pytest.raises(UserError, match=f"architecture {build.__name__}.* does not hide padding"):
        ranker.fit(exam, exam, tmp_path / "checkpoint")


def test_a_model_without_a_table_of_positions_reads_max_tokens(tmp_path: Path) -> None:
    ranker = ranker_of(xlnet(tmp_path / "xlnet"), "layer_1", tmp_path)
    ranker.build()
    exam = tiny_exam(3, options=3)
    _, items = ranker.items(exam)
    option = ranker.tokenizer(exam.questions.options[0][0], add_special_tokens=False)["input_ids"]
    assert all(len(sequence) > 10 for sequence in items[0].encoded.sequences)
    assert items[0].encoded.sequences[0][-len(option) - 1 : -1] == option


def test_scores_that_are_not_finite_are_told_for_what_they_are(tmp_path: Path) -> None:
    from tiny_models import bert

    ranker, exam = ranker_of(bert(tmp_path / "bert"), "query", tmp_path), tiny_exam(6, options=3)
    build = ranker.build

    def broken() -> None:
        build()
        with torch.no_grad():
            for name, parameter in ranker.model.named_parameters():
                if "word_embeddings" in name:
                    parameter.fill_(float("nan"))

    ranker.build = broken
    with pytest.raises(UserError, match="not finite"):
        ranker.fit(exam, exam, tmp_path / "checkpoint")
