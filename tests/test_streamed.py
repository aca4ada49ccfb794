"""Streamed scoring: the scores of the ordinary path, every weight read once, clear errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam

from solution.config import RankerConfig
from solution.errors import UserError
from solution.exam import ContextPassage
from solution.rankers.families import make_ranker
from solution.rankers.streamed import StreamedCausalRanker

torch.set_num_threads(1)

MODELS = ["llama", "phi3", "phi3_longrope", "gemma2"]


@pytest.fixture(scope="module")
def sharded(tiny, tmp_path_factory):
    """`sharded("llama")`: the folder of a tiny model whose weights lie in several files."""
    root = tmp_path_factory.mktemp("sharded")

    def folder(name: str) -> str:
        path = root / name
        if not path.is_dir():
            from transformers import AutoModelForCausalLM

            shutil.copytree(tiny(name), path)
            (path / "model.safetensors").unlink()
            AutoModelForCausalLM.from_pretrained(tiny(name)).save_pretrained(path, max_shard_size="50KB")
            assert len(list(path.glob("model-*.safetensors"))) > 2
        return str(path)

    return folder


def exam_about_longrope():
    """Ten questions, some of whose options lie on both sides of LongRoPE's 48 tokens."""
    exam = tiny_exam(10, (5, 2, 3))
    for row, words in enumerate((6, 22, 20, 30, 12, 24, 8, 20, 16, 28)):
        exam.passages[row] = [ContextPassage("x", "", "stone river light water " * (words // 4), 1.0, "dense")]
        exam.questions.options[row][0] = "true iron gold cell atom wave heat mass"
    return exam


def config_of(model: str, head: str, trained: bool, **changes) -> RankerConfig:
    changes = {"head": head, "max_tokens": 120, "predict_tokens_per_batch": 300, **changes}
    if not trained:
        changes |= {"training": {"epochs": 0}, "lora": None}
    return tiny_config("causal", model, **changes)


def save_fold(config: RankerConfig, folder: Path, seed: int = 3):
    """A fold's weights, every trained one moved off its start; the ordinary ranker that has them in memory."""
    ranker = make_ranker(config, folder)
    ranker.build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in ranker.modules:
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    folder.mkdir()
    ranker.save(folder)
    return ranker


def streamed(config: RankerConfig) -> RankerConfig:
    return config.model_copy(update={"stream": True})


CASES = [(model, head, True) for model in MODELS for head in ("last_token", "likelihood", "both")]
CASES += [(model, "likelihood", False) for model in MODELS]


@pytest.mark.parametrize(("model", "head", "lora"), CASES)
def test_scores_are_the_ordinary_paths(sharded, tmp_path, model, head, lora):
    exam = exam_about_longrope()
    config = config_of(sharded(model), head, lora)
    wanted = save_fold(config, tmp_path / "fold").predict(exam)
    ranker = make_ranker(streamed(config), tmp_path)
    assert isinstance(ranker, StreamedCausalRanker)
    ranker.load(tmp_path / "fold")
    np.testing.assert_array_equal(ranker.predict(exam), wanted)
    assert np.ptp(wanted[0]) > 1e-3
    assert all(slot.empty.is_meta for slot in ranker.stages.slots)
    kept = {name for name, parameter in ranker.model.named_parameters() if not parameter.is_meta}
    assert {name for name in kept if "lora_" not in name} == {
        name for name, _ in ranker.model.named_parameters() if name.endswith("model.norm.weight")
    }


@pytest.mark.parametrize(("model", "prior"), [("llama", "question"), ("phi3_longrope", "option")])
def test_a_prior_goes_through_the_layers_beside_the_questions(sharded, tmp_path, model, prior):
    exam = exam_about_longrope()
    exam.passages[3] = []
    config = config_of(sharded(model), "both", True, likelihood_prior=prior)
    wanted = save_fold(config, tmp_path / "fold").predict(exam)
    ranker = make_ranker(streamed(config), tmp_path)
    ranker.load(tmp_path / "fold")
    np.testing.assert_array_equal(ranker.predict(exam), wanted)


@pytest.mark.parametrize("model", ["llama", "gemma2"])
def test_bfloat16_is_equal_too(sharded, tmp_path, model):
    exam = exam_about_longrope()
    config = config_of(sharded(model), "both", True, precision="bfloat16")
    wanted = save_fold(config, tmp_path / "fold").predict(exam)
    ranker = make_ranker(streamed(config), tmp_path)
    ranker.load(tmp_path / "fold")
    np.testing.assert_array_equal(ranker.predict(exam), wanted)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"use_dora": True}},
        {"lora": {"modules_to_save": ["lm_head"]}},
        {"lora": {"target_modules": ["q_proj", "embed_tokens"], "bias": "lora_only"}},
        {"quantization": {"kind": "nf4"}},
        {"quantization": {"kind": "fp4", "double": False}, "precision": "bfloat16"},
    ],
    ids=["dora", "modules_to_save", "embedding", "nf4", "fp4"],
)
def test_every_kind_of_adapter(sharded, tmp_path, changes):
    exam = exam_about_longrope()
    config = config_of(sharded("llama"), "both", True, **changes)
    wanted = save_fold(config, tmp_path / "fold").predict(exam)
    ranker = make_ranker(streamed(config), tmp_path)
    ranker.load(tmp_path / "fold")
    np.testing.assert_array_equal(ranker.predict(exam), wanted)


def test_weights_trained_whole(sharded, tmp_path):
    """Without LoRA a fold has a whole model of its own, which is then what is streamed."""
    exam = exam_about_longrope()
    config = config_of(sharded("llama"), "both", True)
    config = config.model_copy(update={"lora": None})
    wanted = [save_fold(config, tmp_path / f"fold_{seed}", seed).predict(exam) for seed in (3, 4)]
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3
    ranker = make_ranker(streamed(config), tmp_path)
    for seed, table in zip((3, 4), wanted, strict=True):
        ranker.load(tmp_path / f"fold_{seed}")
        np.testing.assert_array_equal(ranker.predict(exam), table)


@pytest.mark.parametrize("tied", [False, True])
def test_folds_prior_letters_and_tied_embeddings(sharded, tmp_path, tied):
    exam = exam_about_longrope()
    exam.option_scores["sentence"] = np.random.default_rng(0).random((10, 5), dtype=np.float32)
    folder = Path(sharded("llama"))
    if tied:
        from transformers import AutoConfig, AutoModelForCausalLM

        folder = shutil.copytree(folder, tmp_path / "tied", ignore=shutil.ignore_patterns("*.safetensors*"))
        settings = AutoConfig.from_pretrained(folder)
        settings.tie_word_embeddings = True
        AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    config = config_of(str(folder), "letters", True, retrieval_prior=True, rotations=2)
    wanted = [save_fold(config, tmp_path / f"fold_{seed}", seed).predict(exam) for seed in (3, 4)]
    ranker = make_ranker(streamed(config), tmp_path)
    for seed, table in zip((3, 4), wanted, strict=True):
        ranker.load(tmp_path / f"fold_{seed}")
        np.testing.assert_array_equal(ranker.predict(exam), table)


def test_weights_are_read_once(sharded, tmp_path, monkeypatch):
    """Once in a prediction, however many batches; once a group where the tokens are more than `stream_tokens`."""
    import safetensors

    config = streamed(config_of(sharded("llama"), "likelihood", False))
    read: Counter[str] = Counter()
    real = safetensors.safe_open

    class Counted:
        def __init__(self, *arguments, **options):
            self.inner = real(*arguments, **options)

        def __enter__(self):
            self.file = self.inner.__enter__()
            return self

        def __exit__(self, *raised):
            self.inner.__exit__(*raised)

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            read[name] += 1
            return self.file.get_tensor(name)

    monkeypatch.setattr(safetensors, "safe_open", Counted)
    exam = exam_about_longrope()
    ranker = make_ranker(config, tmp_path)
    once = ranker.predict(exam)
    stored = json.loads((Path(config.model) / "model.safetensors.index.json").read_text())
    assert read == Counter(stored["weight_map"].keys())
    assert ranker.stages.weights.bytes_read == stored["metadata"]["total_size"]
    ranker.config = config.model_copy(update={"stream_tokens": 300})
    read.clear()
    np.testing.assert_array_equal(ranker.predict(exam), once)
    assert 2 <= read["model.layers.0.mlp.up_proj.weight"] == read["model.layers.1.mlp.up_proj.weight"] <= 6


def test_the_next_layer_is_read_while_one_is_computed(sharded, tmp_path, monkeypatch):
    """Beside the layer in use at most one more is in memory, and it comes before it is asked for."""
    ranker = make_ranker(streamed(config_of(sharded("llama"), "likelihood", False)), tmp_path)
    ranker.build()
    begun: list[int] = []
    real = ranker.stages.read

    def read(slots):
        begun.append(next(i for i, stage in enumerate(stages) if stage is slots))
        return real(slots)

    stages = [ranker.stages.embedding, *ranker.stages.layers, ranker.stages.output]
    monkeypatch.setattr(ranker.stages, "read", read)
    for number in ranker.stages.in_turn(with_output=True):
        filled = [all(getattr(*place) is not slot.empty for place in slot.places) for slot in stages[number]]
        assert all(filled)
        others = [slot for i, stage in enumerate(stages) if i != number for slot in stage]
        assert all(getattr(*place).is_meta for slot in others for place in slot.places)
        assert begun[-1] <= number + 1
    assert begun == [0, 1, 2, 3]


def test_fit_holds_the_model_and_scores_from_memory(sharded, tmp_path):
    exam = tiny_exam(8, 3)
    tables = []
    for stream in (False, True):
        config = config_of(sharded("llama"), "both", True, stream=stream)
        ranker = make_ranker(config, tmp_path)
        ranker.fit(exam, exam, tmp_path / f"c{stream}")
        tables.append(ranker.predict(exam))
    np.testing.assert_array_equal(*tables)


# --- errors --------------------------------------------------------------------------------


def broken_copy(folder: str, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "broken")


@pytest.mark.parametrize("how", ["missing", "cut", "garbage", "index", "none"])
def test_broken_checkpoints(sharded, tmp_path, how):
    folder = broken_copy(sharded("llama"), tmp_path)
    shard = sorted(folder.glob("model-*.safetensors"))[2]
    if how == "missing":
        shard.unlink()
    elif how == "cut":
        shard.write_bytes(shard.read_bytes()[:-20])
    elif how == "garbage":
        shard.write_bytes(b"\xff" * 100)
    elif how == "index":
        (folder / "model.safetensors.index.json").write_text("{}")
    else:
        (folder / "model.safetensors.index.json").unlink()
    name = {"index": "index.json", "none": "model.safetensors"}.get(how, shard.name)
    with pytest.raises(UserError, match=rf"{name}.*fetch the model again"):
        make_ranker(streamed(config_of(str(folder), "likelihood", False)), tmp_path).predict(tiny_exam(2))


def test_a_shard_that_breaks_while_scoring(sharded, tmp_path):
    """The error of the reading thread comes to the user, and the weights' places are empty again."""
    folder = broken_copy(sharded("llama"), tmp_path)
    ranker = make_ranker(streamed(config_of(str(folder), "likelihood", False)), tmp_path)
    ranker.build()
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    (folder / index["model.layers.1.mlp.up_proj.weight"]).unlink()
    with pytest.raises(UserError, match="are missing or corrupt"):
        ranker.predict(tiny_exam(2))
    assert all(getattr(*place).is_meta for slot in ranker.stages.layers[0] for place in slot.places)


def test_a_checkpoint_that_does_not_fit(sharded, tmp_path):
    folder = broken_copy(sharded("llama"), tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lacks model.layers.2.*set stream to false"):
        make_ranker(streamed(config_of(str(folder), "likelihood", False)), tmp_path).predict(tiny_exam(2))


def test_models_of_another_build_are_refused(sharded, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = broken_copy(sharded("llama"), tmp_path)
    for path in folder.glob("*model*"):
        path.unlink()
    GPT2LMHeadModel(GPT2Config(vocab_size=600, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    with pytest.raises(UserError, match="is not built of embedding.*set stream to false"):
        make_ranker(streamed(config_of(str(folder), "likelihood", False)), tmp_path).predict(tiny_exam(2))


def test_stream_is_for_causal_rankers(sharded):
    with pytest.raises(ValueError, match="stream is for causal rankers, and this one is seq2seq"):
        tiny_config("seq2seq", "t5", stream=True)


# --- memory --------------------------------------------------------------------------------

MEASURE = """
import json, sys
from pathlib import Path
import torch
from conftest import tiny_config, tiny_exam
from solution.memory import PeakAnonymous
from solution.rankers.families import make_ranker

torch.set_num_threads(1)
small, large = sys.argv[1:]

def peak(model, precision, stream, exam=None):
    config = tiny_config("causal", model, head="likelihood", training={"epochs": 0}, lora=None, precision=precision,
                         stream=stream)
    ranker = make_ranker(config, Path())
    with PeakAnonymous() as memory:
        ranker.build()
        if exam is not None:
            ranker.predict(exam)
    return memory.peak - memory.start

exam = tiny_exam(2, 2)
peak(small, "float32", False, exam)  # imports, thread pools
peak(small, "bfloat16", True, exam)
print(json.dumps({
    "streamed": peak(large, "bfloat16", True, exam),
    "half": peak(large, "bfloat16", False),
    "same": peak(large, "float32", False),
}))
"""


def test_host_memory(sharded, tmp_path):
    """Loading takes what is kept and one shard at the most; streaming takes two layers, embedding and states.

    16 layers of 12.4 MiB in float32, a shard for each; the rest is less than 1 MiB.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = shutil.copytree(sharded("llama"), tmp_path / "large", ignore=shutil.ignore_patterns("*.safetensors*"))
    config = AutoConfig.from_pretrained(folder)
    config.update({"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 16, "head_dim": 128})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="14MB")
    sizes = [path.stat().st_size / 2**20 for path in folder.glob("model-*.safetensors")]
    whole, shard = sum(sizes), max(sizes)
    assert len(sizes) >= 15 and whole > 150
    del model
    paths = f"{Path(__file__).parent.parent}:{Path(__file__).parent}"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, sharded("llama"), str(folder)],
        # Freed tensors go back to the system at once, so that one measurement does not reuse another's memory.
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout.splitlines()[-1])
    slack = 6
    assert peaks["same"] < shard + slack  # memory-mapped: the file's own pages are what is kept
    assert whole / 2 - 2 < peaks["half"] < whole / 2 + shard + slack
    assert shard / 2 < peaks["streamed"] < 2 * shard / 2 + slack


def test_benchmark_of_streaming(tiny, tmp_path):
    script = Path(__file__).parent.parent / "benchmarks" / "streaming.py"
    done = subprocess.run(
        [sys.executable, str(script), "--model", tiny("llama"), "--workdir", str(tmp_path), "--questions", "4"]
        + ["--tokens", "60", "--batch-tokens", "200", "--precision", "float32", "--threads", "1"]
        + ["--rounds", "1", "--json"],
        env={**os.environ, "PYTHONPATH": str(script.parent.parent), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [row["way"] for row in result["ways"]] == ["ordinary", "streamed", "offloaded"]
    assert max(row["largest_difference"] for row in result["ways"]) < 1e-6
    ordinary, streamed_row, offloaded = result["ways"]
    assert ordinary["read_scoring_mib"] == 0 < streamed_row["read_scoring_mib"]
    # One reading of the layers a batch, and more than one batch: more than the whole model once.
    assert offloaded["read_scoring_mib"] > streamed_row["read_scoring_mib"]
    assert result["ratios"]["offloaded_read_of_streamed"] > 1
