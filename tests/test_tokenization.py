"""Tokenizers give the ids that sentencepiece itself gives, and a special token's name in a text stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_models import deberta_v3, science_texts
from tiny_models import bert

from solution.errors import UserError
from solution.tokenization import load_tokenizer, part_names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deberta_v3(tmp_path_factory.mktemp("hub") / "deberta-v3")


def encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def test_ids_are_those_of_sentencepiece(folder: Path) -> None:
    import sentencepiece

    texts = list(science_texts(10_000))
    assert {"⁻", "₄", "µ", "ﬁ", "Ｄ", "Ω", "\u2009"} <= set("".join(texts))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model")).encode(texts)
    ours = encoded(load_tokenizer(str(folder)), texts)
    differ = [text for text, ids, wanted in zip(texts, ours, theirs, strict=True) if ids != wanted]
    assert differ == []


def test_superscripts_and_ligatures_are_known(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    one, other = encoded(tokenizer, ["HSO₄⁻", "HSO₃⁻"])
    assert one != other
    for text in ("10³", "₄⁻", "µm", "ﬁbre", "ＤＮＡ"):
        assert tokenizer.unk_token_id not in encoded(tokenizer, [text])[0], text


def test_a_saved_tokenizer_keeps_the_normaliser(folder: Path, tmp_path: Path) -> None:
    texts = [*science_texts(200, seed=3), "a [SEP] b"]
    first = load_tokenizer(str(folder))
    first.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert encoded(again, texts) == encoded(first, texts)


def test_names_of_special_tokens_stay_text(folder: Path) -> None:
    import sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    tokenizer = load_tokenizer(str(folder))
    texts = ["[SEP] acid [CLS]", "a[SEP]b", "[MASK]", "[PAD] [UNK]", "[ SEP ]"]
    for text, ids in zip(texts, encoded(tokenizer, texts), strict=True):
        assert ids == theirs.encode(text)
        assert not {tokenizer.sep_token_id, tokenizer.cls_token_id, tokenizer.mask_token_id} & set(ids)


def test_a_chat_template_keeps_its_tokens_and_the_texts_do_not_end_a_turn() -> None:
    names = ["</s>", "<|end|>"]
    assert part_names(names, "a <|end|> b </s>") == "a <\u200b|end|> b <\u200b/s>"
    assert part_names(names, "2 < 3 > 1") == "2 < 3 > 1"


def test_a_model_without_the_files_of_a_tokenizer_is_refused(tmp_path: Path) -> None:
    model = bert(tmp_path / "bert")
    (model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="knows special tokens only: its files are missing"):
        load_tokenizer(str(model))
