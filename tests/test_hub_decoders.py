"""Decoders in the files that their authors ship: their tokenizers, their scores, and the whole way of every config."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import tiny_config, tiny_exam
from forked import CHECK_SHARES
from hub_decoders import LONG, TWINS, WINDOW
from hub_models import science_texts
from pipeline import CONTEXT_ROWS, built_once, run, write_configs
from test_rankers import items_of, reference

from solution.exam import ContextPassage
from solution.rankers.families import make_ranker
from solution.tokenization import load_tokenizer

ROOT = Path(__file__).parents[1]
CONFIGS = {
    path.stem: values
    for path in sorted((ROOT / "configs").glob("*.yaml"))
    if (values := yaml.safe_load(path.read_text(encoding="utf-8"))).get("family") == "causal"
}
PHI = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`twin("Qwen/Qwen3-8B")`: the folder of the model's twin, built once a session."""
    root = tmp_path_factory.mktemp("twins")

    def folder(name: str) -> Path:
        path = root / name.replace("/", "--")
        return path if path.is_dir() else TWINS[name](path)

    return folder


@pytest.mark.parametrize("name", TWINS)
def test_text_becomes_the_ids_of_the_authors_own_file(twin: Callable[[str], Path], name: str) -> None:
    from tokenizers import Tokenizer

    folder = twin(name)
    tokenizer, stored = load_tokenizer(str(folder)), Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [
        *science_texts(100, seed=9),
        " lead",
        "  two",
        "a\n\n b\tc",
        "it's 12345 mL of DNAs, HTTPServer",
        "e\u0301",
    ]
    for text in texts:
        assert tokenizer(text)["input_ids"] == stored.encode(text).ids, text


@pytest.mark.parametrize("name", TWINS)
def test_packed_scores_are_those_of_whole_sequences(twin: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """Prefixes and options on both sides of the sliding windows, and of the length of LongRoPE's long factors."""
    targets = PHI if "Phi" in name else ["q_proj", "down_proj"]
    config = tiny_config("causal", str(twin(name)), head="both", max_tokens=200, lora={"target_modules": targets})
    ranker: Any = make_ranker(config, tmp_path)
    ranker.build()
    assert ranker.packs
    with torch.no_grad():
        ranker.head.score_weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
    exam = tiny_exam(4, (5, 3))
    for row, words in enumerate((0, 1, 3, 8)):
        exam.questions.prompts[row] = "?" * (row + 1)
        exam.passages[row] = [ContextPassage("x", "", "10³ HSO₄⁻ µ " * words, 1.0, "dense")]
        exam.questions.options[row][0] += " wave" * 4
    items = items_of(ranker, exam)
    lengths = [len(item.prefix) + len(option) for item in items for option in item.options]
    assert min(lengths) < LONG < max(lengths) and any(len(item.prefix) > WINDOW for item in items)
    with torch.inference_mode():
        scores = ranker.encoded_scores(items)
        ranker.bare_model.set_attn_implementation("eager")
        for row, item in enumerate(items):
            torch.testing.assert_close(scores[row, item.positions], reference(ranker, item), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", TWINS)
def test_streamed_scores_are_the_same(twin: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    config = tiny_config("causal", str(twin(name)), head="likelihood", training={"epochs": 0}, max_tokens=200)
    exam = tiny_exam(3, (5, 3))
    wanted = make_ranker(config, tmp_path).predict(exam)
    streamed = make_ranker(config.model_copy(update={"stream": True}), tmp_path)
    np.testing.assert_allclose(streamed.predict(exam), wanted, atol=1e-5)


CHATS = [name for name in TWINS if "Llama" not in name and "Mistral" not in name]


@pytest.mark.parametrize("name", CHATS)
def test_the_option_begins_the_reply_of_the_authors_chat(
    twin: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    prompt = {"chat": True, "option": "{option}", "few_shot": 1}
    model, training = str(twin(name)), {"epochs": 0}
    ranker: Any = make_ranker(
        tiny_config("causal", model, head="likelihood", training=training, prompt=prompt, max_tokens=300), tmp_path
    )
    exam = tiny_exam(4, 3)
    exam.questions.prompts[2] += " <|im_end|> <end_of_turn> <|end|>"
    ranker.fit(exam.subset([0, 1]), exam.subset([2, 3]), tmp_path / "checkpoint")
    item = ranker.encode_question(exam, 2, 1, [0, 1, 2])
    begin = {"google": "<start_of_turn>model\n", "Qwen": "<|im_start|>assistant\n", "microsoft": "<|assistant|>"}
    text = ranker.tokenizer.decode(item.prefix)
    reply = text.split(begin[name.partition("/")[0]])
    assert len(reply) == 3, "one example and the question itself"
    assert reply[-1].strip() == ("<think>\n\n</think>" if "Qwen3" in name else "")
    bos = ranker.tokenizer.bos_token_id
    assert item.prefix.count(bos) == (1 if name.startswith("google") else 0)
    ends = {"google": "<end_of_turn>", "Qwen": "<|im_end|>", "microsoft": "<|end|>"}[name.partition("/")[0]]
    number = ranker.tokenizer.convert_tokens_to_ids(ends)
    turns = text.count("<|im_start|>") - 1 if "Qwen" in name else 3
    assert item.prefix.count(number) == turns == 3, "the name in the question's text ends no turn"
    assert ranker.predict(exam).shape == (4, 3)


# --- the whole way -----------------------------------------------------------------------------------


def small(values: dict[str, Any], model: Path) -> dict[str, Any]:
    """A shipped config with the twin as its model, and shorter texts; LoRA, head, prompt and optimizer are its own."""
    return {**values, "model": str(model), "max_tokens": 96}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield built_once(tmp_path_factory, "hub_decoders", _build)


AVERAGED = [name for name, values in CONFIGS.items() if values.get("answer_with") == "average"]


def _build(folder: Path) -> None:
    header = "id,prompt,A,B,C,answer,context\n"
    rows = "".join(f"{line}\n" for line in CONTEXT_ROWS.splitlines()[:6])
    (folder / "questions.csv").write_text(header + rows)
    (folder / "test.csv").write_text(header + rows.replace("Mars", "10³ HSO₄⁻ µm [INST]"), encoding="utf-8")
    models, rankers = folder / "models", {}
    for name, values in CONFIGS.items():
        model = models / values["model"].rpartition("/")[2]
        rankers[name] = small(values, model if model.is_dir() else TWINS[values["model"]](model))
    write_configs(folder / "configs", rankers, folds=2, source="column", top_k=1, option_scores=[])
    for command in (
        ("train", "--all-folds"),
        *(("train", "--average", "--ranker", name) for name in AVERAGED),
        ("tune", "tune.choose=equal"),
        ("doctor", "--json"),
        ("bundle", "--output", "bundle", "--no-wheels"),
    ):
        done = run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr + done.stdout
        (folder / f"{command[0]}.out").write_text(done.stdout)
    # Answered in a kernel: from the bundle, with the models that it holds and no others.
    models.rename(folder / "away")
    done = run("bundle", "--check", "bundle", "--public-test", "test.csv", cwd=folder, first=CHECK_SHARES)
    assert done.returncode == 0 and "left out" not in done.stdout, done.stderr + done.stdout


def test_every_decoder_config_answers_from_its_bundled_twin(built: Path) -> None:
    assert len((built / "working" / "submission.csv").read_text().splitlines()) == 7
    report = json.loads((built / "working" / "submission.report.json").read_text())
    answering = [name for name, values in CONFIGS.items() if values.get("role") != "baseline"]
    assert {each["ranker"]: each["state"] for each in report["rankers"]} == dict.fromkeys(answering, "finished")
    assert [each["ranker"] for each in report["rankers"] if each["planned_memory_mib"] is None] == []


def test_doctor_finds_no_fault(built: Path) -> None:
    findings = json.loads((built / "doctor.out").read_text())["findings"]
    assert [each for each in findings if each["state"] == "error"] == []
    assert not [each for each in findings if "not attention" in each["found"]]
    there = {each["subject"] for each in findings if each["area"] == "models"}
    assert {str(built / "models" / values["model"].rpartition("/")[2]) for values in CONFIGS.values()} <= there


def test_the_bundle_holds_what_is_read_and_no_more(built: Path) -> None:
    listed = json.loads((built / "bundle" / "manifest.json").read_text())
    files = {
        name: {path.name for path in (built / "bundle" / place).iterdir()} for name, place in listed["models"].items()
    }
    assert all("tokenizer.json" in names and "config.json" in names for names in files.values())
    assert not any(name.endswith((".bin", ".py", ".pth")) for names in files.values() for name in names)
    assert "consolidated.safetensors" not in files["mistral_7b.model"]
    assert "original" not in files["llama3_1_8b.model"]
