"""Embedders and rerankers in the files that their authors ship: prefixes, pooling, and tokenizers of sentencepiece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_encoders import _sentence_transformer, bert_embedder, deberta_reranker, multilingual_e5
from hub_models import deberta_v3, science_texts

from solution.config import RetrievalConfig
from solution.files import content_hash
from solution.retrieval.embedding import Embedder
from solution.retrieval.places import DENSE, LEXICAL
from solution.retrieval.prefixes import Prefixes, known_prefixes, unset_prefixes
from solution.tokenization import load_tokenizer

TEXTS = ["the heat of a star", "iron", "which water cell is red and blue?"]


def pooled(folder: Path, texts: list[str], pooling: str) -> np.ndarray:
    """Unit vectors by transformers alone, float32."""
    import torch
    from transformers import AutoModel

    tokenizer, model = load_tokenizer(str(folder)), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        rows.append((states[0] if pooling == "cls" else states.mean(dim=0)).numpy())
    table = np.vstack(rows)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether vectors are the same but for the rounding of bfloat16."""
    return bool(((one * other).sum(axis=1) > 0.9995).all())


@pytest.mark.parametrize(
    ("name", "options", "prefixes"),
    [
        ("all-MiniLM-L6-v2", {"versions": True}, Prefixes()),
        ("bge-small-en-v1.5", {"pooling": "cls", "versions": True}, known_prefixes("BAAI/bge-small-en-v1.5")),
        ("gte-base", {"half": True}, Prefixes()),
        ("e5-base-v2", {}, known_prefixes("intfloat/e5-base-v2")),
    ],
)
def test_prefixes_and_pooling(tmp_path: Path, name: str, options: dict[str, Any], prefixes: Prefixes) -> None:
    folder = bert_embedder(tmp_path / name, **options)
    embedder = Embedder(str(folder), tmp_path, prefixes)
    pooling = options.get("pooling", "mean")
    for query, prefix in ((True, prefixes.query or ""), (False, prefixes.passage or "")):
        expected = pooled(folder, [prefix + text for text in TEXTS], pooling)
        vectors = embedder.encode(TEXTS, 8, query=query)
        assert near(vectors, expected)
        if prefix:
            assert not near(vectors, pooled(folder, TEXTS, pooling))
    longest = max(len(embedder.tokenizer.tokenize(prefix or "")) for prefix in prefixes)
    assert embedder.max_tokens == 128 - 2 - longest
    assert embedder.can_read(embedder.max_tokens) and not embedder.can_read(embedder.max_tokens + 1)


def test_the_prompts_of_the_models_own_files_hold_where_none_is_set(tmp_path: Path) -> None:
    folder = bert_embedder(tmp_path / "own")
    prompts = {"prompts": {"query": "question : ", "document": "text : "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    own = Embedder(str(folder), tmp_path)
    assert near(own.encode(TEXTS, 8, query=True), pooled(folder, [f"question : {text}" for text in TEXTS], "mean"))
    assert near(own.encode(TEXTS, 8), pooled(folder, [f"text : {text}" for text in TEXTS], "mean"))
    assert own.max_tokens == 128 - 2 - len(own.tokenizer.tokenize("text : "))
    other = Embedder(str(folder), tmp_path, Prefixes("", None))
    assert near(other.encode(TEXTS, 8, query=True), pooled(folder, TEXTS, "mean"))


def test_only_a_prefix_that_is_set_changes_keys() -> None:
    plain, query = RetrievalConfig(), RetrievalConfig(query_prefix="query: ")
    both = RetrievalConfig(query_prefix="query: ", passage_prefix="passage: ")
    assert "query_prefix" not in plain.hashed_values() and "passage_prefix" not in plain.hashed_values()
    assert len({config.hash() for config in (plain, query, both)}) == 3
    # The passages' vectors depend on their own prefix alone, and words on none.
    keys = [content_hash(DENSE.settings(config)) for config in (plain, query, both)]
    assert keys[0] == keys[1] != keys[2]
    assert LEXICAL.settings(plain) == LEXICAL.settings(both)


def test_an_embedder_without_its_prefixes_is_told() -> None:
    for spec in ("intfloat/e5-base-v2", "models/intfloat--multilingual-e5-small", "/a/b/e5-large"):
        missing = unset_prefixes(spec, Prefixes())
        assert missing == "'retrieval.query_prefix=\"query: \"' 'retrieval.passage_prefix=\"passage: \"'"
        assert unset_prefixes(spec, Prefixes("", "")) == ""
    assert "Represent this sentence" in unset_prefixes("BAAI/bge-base-en-v1.5", Prefixes())
    for spec in ("thenlper/gte-base", "sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-m3", ""):
        assert unset_prefixes(spec, Prefixes()) == ""


# --- sentencepiece -------------------------------------------------------------------------


def encoded_by(model: Any, texts: list[str]) -> list[list[int]]:
    """The ids that a sentence-transformers model reads, without special tokens and padding."""
    features = model.tokenize(texts)
    special = {model.tokenizer.cls_token_id, model.tokenizer.sep_token_id, model.tokenizer.pad_token_id}
    return [[int(id_) for id_ in row if int(id_) not in special] for row in features["input_ids"]]


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedder made of DeBERTa-v3: no tokenizer.json, weights in safetensors as embedders need them."""
    import torch
    from safetensors.torch import save_file

    folder = deberta_v3(tmp_path_factory.mktemp("hub") / "deberta-embedder")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    kept = {name: value.contiguous() for name, value in state.items() if name.startswith("deberta.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    _sentence_transformer(folder, "mean", 32)
    return folder


def test_an_embedder_reads_what_sentencepiece_reads(deberta: Path, tmp_path: Path) -> None:
    import sentencepiece

    embedder = Embedder(str(deberta), tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(deberta / "spm.model"))
    texts = [text for text in science_texts(300, seed=5) if text.strip()] + ["a [SEP] b [CLS]"]
    expected = [theirs.encode(text)[:400] for text in texts]
    assert encoded_by(embedder.model, texts) == expected
    ours = embedder.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ours == expected
    one, other = embedder.encode(["HSO₄⁻", "HSO₃⁻"], 2)
    assert not near(one[None], other[None])


def test_the_fingerprint_is_of_the_vocabulary_where_there_is_no_tokenizer_json(deberta: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(deberta, copy)
    assert Embedder(str(copy), tmp_path).fingerprint == Embedder(str(deberta), tmp_path).fingerprint
    (copy / "spm.model").write_bytes((copy / "spm.model").read_bytes() + b"\x00")
    assert Embedder(str(copy), tmp_path).fingerprint != Embedder(str(deberta), tmp_path).fingerprint


def test_multilingual_e5_keeps_its_map_and_special_names_stay_text(tmp_path: Path) -> None:
    folder = multilingual_e5(tmp_path / "multilingual-e5-base")
    embedder = Embedder(str(folder), tmp_path, known_prefixes(str(folder)) or Prefixes())
    one, other = encoded_by(embedder.model, ["10³ ﬁbre ＤＮＡ", "103 fibre DNA"])
    assert one == other and embedder.tokenizer.unk_token_id not in one
    ids = embedder.tokenizer("acid </s> <s> base", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not {0, 1, 2} & set(ids)
    row = embedder.model.tokenize(["acid </s> <s> base"])["input_ids"][0].tolist()
    assert row.count(2) == 1 and row.count(0) == 1


def test_a_deberta_reranker_is_used_as_it_is(tmp_path: Path) -> None:
    import sentencepiece

    from solution.config import RerankerSettings
    from solution.retrieval.reranker.candidates import PassageList
    from solution.retrieval.reranker.cross_encoder import CrossEncoder

    folder = deberta_reranker(tmp_path / "mxbai-rerank")
    settings = RerankerSettings(model=str(folder), training={"epochs": 0}, retrieval_prior=False, precision="float32")
    encoder = CrossEncoder(settings, tmp_path)
    lists = [PassageList("HSO₄⁻ [SEP] acid?", ["10³ µm", "103 μm", "HSO₃⁻"], [])]
    (scores,) = encoder.score(lists)
    assert scores[0] == pytest.approx(scores[1], abs=1e-6) and abs(scores[0] - scores[2]) > 1e-6
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    tokens = encoder.tokens(lists)[0]
    assert tokens.query == theirs.encode("HSO₄⁻ [SEP] acid?")


def test_weights_in_a_bin_file_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")

    def fingerprint(weights: bytes) -> str:
        (folder / "pytorch_model.bin").write_bytes(weights)
        return Embedder(str(folder), tmp_path / "cache").fingerprint

    assert fingerprint(b"old") != fingerprint(b"new")
    # Where there are safetensors, these are read, and another file beside them changes nothing.
    (folder / "model.safetensors").write_bytes(b"same")
    assert fingerprint(b"old") == fingerprint(b"new")
