"""GGUF files as models: written with llama.cpp's own package, converted, scored, bundled, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam

from solution import gguf_models
from solution.errors import UserError
from solution.files import MANIFEST, content_hash
from solution.gguf_models import converted_folder, hub_file
from solution.inference.outline import plan_ranker
from solution.inference.trained import TrainedRanker
from solution.kaggle.base_models import _folder_name, base_models, model_files
from solution.memory import MainMemory
from solution.models import check_model, fetch_command, locate_model, ready_model, resolve_model
from solution.rankers.families import make_ranker
from solution.retrieval.embedding import Embedder
from solution.tokenization import load_tokenizer
from solution.workdir import Workdir

F16, Q8_0 = gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.Q8_0
TEXTS = ["which stone is true?", " A B", "water  light\nmoon: 12.5 {x}", "the iron"]


def write_gguf(
    path: Path, source: str, arch: str, kind: Any, extra: dict[str, Any] | None = None, without: str = "", **added: Any
) -> Path:
    """A transformers model as llama.cpp's converter would write it.

    Args:
        kind: of the matrices; vectors are float32.
        extra: further tensors; `without`: the transformers name of one that is left out; `added`: further metadata of
            the architecture (dots written as two underscores).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if arch == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    for key, value in added.items():
        {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)](
            f"{arch}.{key.replace('__', '.')}", value
        )
    _write_tokenizer(writer, tokenizer, arch)
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == without or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        base, _, ending = name.rpartition(".")
        values = tensor.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(base.split(".")[-1])
        if arch == "llama" and heads:  # llama.cpp pairs neighbouring dimensions, transformers the halves
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        chosen = kind if values.ndim > 1 and values.shape[-1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{names.get_name(base)}.{ending}", gguf.quantize(values, chosen), raw_dtype=chosen)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: Any, tokenizer: Any, arch: str) -> None:
    stored = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("llama" if arch == "llama" else "gpt2")
    if arch != "llama":
        writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    special = set(tokenizer.all_special_ids)
    writer.add_token_types([3 if number in special else 1 for number in range(len(tokens))])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["model"]["merges"]]
    if arch == "llama":
        # A sentencepiece vocabulary has no merges: a piece's score says how early it is made.
        order = {merge.replace(" ", ""): -float(number) for number, merge in enumerate(merges)}
        writer.add_token_scores([order.get(token, -1e6) for token in tokens])
    else:
        writer.add_token_merges(merges)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)


def qwen2(folder: Path) -> Path:
    """Qwen2's architecture with biases and tied embeddings, and its byte-level BPE."""
    from tiny_models import TEXT, _write
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    about = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return _write(folder, config, Qwen2ForCausalLM, tokenizer, about)


@pytest.fixture(scope="module")
def sources(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"llama": tiny("llama"), "qwen2": str(qwen2(tmp_path_factory.mktemp("source") / "qwen2"))}


@pytest.fixture(scope="module")
def files(sources: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    return {
        "llama": write_gguf(folder / "tiny-llama.F16.gguf", sources["llama"], "llama", F16),
        "qwen2": write_gguf(folder / "tiny-qwen.Q8_0.gguf", sources["qwen2"], "qwen2", Q8_0),
    }


def logits(source: str) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.arange(5, 45)[None]).logits[0]


@pytest.mark.parametrize(("name", "tolerance"), [("llama", 2e-3), ("qwen2", 5e-2)])
def test_a_gguf_is_the_model_that_it_was_written_from(
    files: dict[str, Path], sources: dict[str, str], tmp_path: Path, name: str, tolerance: float
) -> None:
    folder = resolve_model(str(files[name]), tmp_path)
    source, converted = logits(sources[name]), logits(folder)
    error = (source - converted).abs().max() / source.abs().max()
    assert error < tolerance  # the rounding of its number format, and nothing else
    before, after = load_tokenizer(sources[name]), load_tokenizer(folder)
    for text in TEXTS:
        assert after(text)["input_ids"] == before(text)["input_ids"]
    # Converted once: the second time it is found, and a change is noticed.
    weights = Path(folder) / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert resolve_model(str(files[name]), tmp_path) == folder == ready_model(str(files[name]), tmp_path)
    assert weights.stat().st_mtime_ns == written
    assert set(model_files(Path(folder))) >= {Path("config.json"), Path("model.safetensors"), Path("tokenizer.json")}
    check_model(str(files[name]), tmp_path)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="is not the file that was written"):
        check_model(str(files[name]), tmp_path)


def test_a_ranker_scores_with_a_gguf(files: dict[str, Path], sources: dict[str, str], tmp_path: Path) -> None:
    exam = tiny_exam(6)
    tables = []
    for model in (str(files["llama"]), sources["llama"]):
        config = tiny_config("causal", model, head="likelihood", training={"epochs": 0})
        tables.append(make_ranker(config, tmp_path).predict(exam))
        assert plan_ranker(config, [exam], tmp_path, tmp_path, 1 << 40).weights > 0
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-3)


# --- names ---------------------------------------------------------------------------------


def test_a_folder_with_one_file_and_the_hubs_cache(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UserError, match="has no config.json"):
        locate_model(str(folder))
    shutil.copyfile(files["llama"], folder / "a.gguf")
    assert locate_model(str(folder)) == locate_model(str(folder / "a.gguf")) == folder / "a.gguf"
    shutil.copyfile(files["llama"], folder / "b.gguf")
    with pytest.raises(UserError, match=r"2 GGUF files \(a.gguf, b.gguf\): name one, as in .*a.gguf"):
        locate_model(str(folder))
    (folder / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"is a file; name a folder with a config.json, or a .gguf file"):
        locate_model(str(folder / "notes.txt"))
    with pytest.raises(UserError, match="the model folder .*none.gguf is not there"):
        locate_model(str(folder / "none.gguf"))

    spec = "some/repo-GGUF:sub/file.Q4_K_M.gguf"
    assert hub_file(spec) == ("some/repo-GGUF", "sub/file.Q4_K_M.gguf")
    assert hub_file("some/repo") is hub_file("repo:file.gguf") is hub_file("some/repo:file.bin") is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="run: hf download some/repo-GGUF sub/file.Q4_K_M.gguf --revision v2"):
        locate_model(spec, "v2")
    cached = tmp_path / "models--some--repo-GGUF" / "snapshots" / ("0" * 40) / "sub" / "file.Q4_K_M.gguf"
    cached.parent.mkdir(parents=True)
    shutil.copyfile(files["llama"], cached)
    refs = tmp_path / "models--some--repo-GGUF" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    assert locate_model(spec) == cached
    assert ready_model(spec, tmp_path) is None  # not converted yet
    assert Path(resolve_model(spec, tmp_path)).name.startswith("file.q4_k_m-")
    assert fetch_command("some/model") == "hf download some/model"
    assert _folder_name(spec) == "some--repo-GGUF--file.Q4_K_M"
    assert _folder_name(str(cached)) == "file.Q4_K_M"


def test_the_bundle_gets_the_converted_model(files: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config("causal", str(files["llama"]), head="likelihood", training={"epochs": 0})
    models = base_models(Workdir(tmp_path), [TrainedRanker("tiny", config, [])])
    assert models.places == {"tiny.model": "models/tiny-llama.F16"}
    targets = {item.target for item in models.items}
    assert {"models/tiny-llama.F16/model.safetensors", f"models/tiny-llama.F16/{MANIFEST}"} <= targets
    assert not any(target.endswith(".gguf") for target in targets)


def test_two_files_of_one_name_and_size_are_two_models(files: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / files["llama"].name
    data = bytearray(files["llama"].read_bytes())
    data[len(data) // 2] ^= 1
    other.write_bytes(data)
    assert converted_folder(other, tmp_path) != converted_folder(files["llama"], tmp_path)
    moved = tmp_path / "elsewhere" / files["llama"].name
    moved.parent.mkdir()
    shutil.copyfile(files["llama"], moved)
    assert converted_folder(moved, tmp_path) == converted_folder(files["llama"], tmp_path)
    # Of a packaged file name and size are enough: what earlier versions have converted stays.
    packaged = converted_folder(moved, tmp_path, packaged=True)
    key = content_hash({"source": moved.name, "bytes": moved.stat().st_size})
    assert packaged == tmp_path / "models" / f"tiny-llama.f16-{key}"


# --- what is refused -----------------------------------------------------------------------


def refusal(path: Path, cache: Path) -> str:
    with pytest.raises(UserError) as told:
        resolve_model(str(path), cache)
    assert not list((cache / "models").glob("*.safetensors"))
    assert not [path for path in cache.glob("models/*") if path.is_dir()]  # nothing half written
    return str(told.value)


def test_files_that_are_no_whole_model(files: dict[str, Path], sources: dict[str, str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\x03\x04 and more")
    assert refusal(wrong, tmp_path) == f"{wrong} is no GGUF file"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(files["llama"].read_bytes()[:-60000])
    assert "cannot be read as a model" in refusal(cut, tmp_path)
    part = tmp_path / "big-00001-of-00003.gguf"
    shutil.copyfile(files["llama"], part)
    assert "is one of 3 parts of a model" in refusal(part, tmp_path)
    lacking = write_gguf(
        tmp_path / "lacking.gguf", sources["llama"], "llama", F16, without="model.layers.1.mlp.up_proj.weight"
    )
    assert "is incomplete: 1 of the model's tensors are missing, model.layers.1.mlp.up_proj" in refusal(
        lacking, tmp_path
    )


def test_architectures_and_quantizations_that_are_not_known(files: dict[str, Path], tmp_path: Path) -> None:
    data = files["llama"].read_bytes()
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(data.replace(b"llama", b"lIama"))
    told = refusal(strange, tmp_path)
    assert "transformers reads no GGUF of the architecture lIama" in told
    assert "llama, " in told
    # The type of a tensor stands behind its name, its two dimensions and their number.
    place = data.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    assert data[place] == F16
    strange.write_bytes(data[:place] + bytes([77]) + data[place + 1 :])
    assert "weights in a number format (77) that the package gguf does not know" in refusal(strange, tmp_path)


def test_positions_that_transformers_leaves_out(sources: dict[str, str], tmp_path: Path) -> None:
    yarn = write_gguf(tmp_path / "yarn.gguf", sources["qwen2"], "qwen2", F16, rope__scaling__type="yarn")
    assert "its rotary positions are scaled (yarn)" in refusal(yarn, tmp_path)
    part = write_gguf(tmp_path / "part.gguf", sources["qwen2"], "qwen2", F16, rope__dimension_count=8)
    assert "it turns 8 of 16 dimensions of a head" in refusal(part, tmp_path)
    long = {f"rope_factors_{name}.weight": np.ones(8, dtype=np.float32) for name in ("long", "short")}
    longrope = write_gguf(tmp_path / "long.gguf", sources["qwen2"], "qwen2", F16, long)
    assert "its tensor rope_factors_long.weight scales rotary positions" in refusal(longrope, tmp_path)
    odd = np.linspace(1, 3, 8, dtype=np.float32)
    freqs = write_gguf(tmp_path / "freqs.gguf", sources["llama"], "llama", F16, {"rope_freqs.weight": odd})
    assert "its tensor rope_freqs.weight scales rotary positions" in refusal(freqs, tmp_path)


def test_the_positions_of_llama_3_are_taken(sources: dict[str, str], tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    source = tmp_path / "llama3"
    shutil.copytree(sources["llama"], source)
    settings = json.loads((source / "config.json").read_text())
    wanted = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    (source / "config.json").write_text(json.dumps(settings | {"rope_parameters": wanted}))
    config = AutoConfig.from_pretrained(source)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    factors = 500000.0 ** -(np.arange(8) / 8) / scaled.double().numpy()
    path = write_gguf(
        tmp_path / "l3.gguf", str(source), "llama", F16, {"rope_freqs.weight": factors.astype(np.float32)}
    )
    folder = resolve_model(str(path), tmp_path)
    assert AutoModelForCausalLM.from_pretrained(folder).config.rope_parameters == wanted
    assert (logits(str(source)) - logits(folder)).abs().max() < 2e-3 * logits(folder).abs().max()


# --- room, kills, and several processes ----------------------------------------------------


def test_too_little_disk_or_memory_is_told_before(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gguf_models.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
        assert "GiB of disk, and 0.0 GiB are free" in refusal(files["llama"], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(gguf_models, "main_memory", lambda: MainMemory(10, 1))
        assert "more of memory, and 0.0 GiB are free" in refusal(files["llama"], tmp_path)


def test_a_conversion_that_was_killed_is_done_again(files: dict[str, Path], tmp_path: Path) -> None:
    target = converted_folder(files["llama"], tmp_path)
    left = target.parent / f".{target.name}.abc.part"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert resolve_model(str(files["llama"]), tmp_path) == str(target)
    assert not left.exists()


def test_large_models_are_written_in_half_precision(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(gguf_models, "_EXACT", 0)
    folder = Path(resolve_model(str(files["qwen2"]), tmp_path))
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float16}


def test_an_embedder_is_no_gguf(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a GGUF; name a sentence-transformers model"):
        Embedder(str(files["llama"]), tmp_path)
