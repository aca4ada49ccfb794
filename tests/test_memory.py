"""The memory of a submission: planned before anything loads, halved batches when it runs out, given back at the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam
from pipeline import ROOT, run

from solution import gpu
from solution.config import RankerConfig
from solution.device import out_of_memory
from solution.doctor.examined import Examined
from solution.doctor.machine import machine
from solution.errors import UserError
from solution.exam import Exam
from solution.inference.child import MEMORY
from solution.inference.memory import available_memory, hold_gpu_to, watched
from solution.inference.memory_plan import RESERVE
from solution.inference.outline import Outline, gpu_workspace, plan_ranker
from solution.inference.trained import read_ensemble
from solution.learning.adapters import bits_per_parameter
from solution.memory import MIB, MainMemory, main_memory, parse_memory, status_kib
from solution.models import check_model, locate_model
from solution.rankers.families import make_ranker
from solution.workdir import Workdir

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GiB", 16 << 30), ("16 GB", 16 * 10**9), ("1.5g", 1500 * 10**6), ("512MiB", 512 << 20), ("9", 9)],
)
def test_amounts_of_memory(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "0", "-1GiB", "16GiBs", "3i", "1e3"])
def test_no_amount_of_memory(text):
    with pytest.raises(UserError, match="16GiB"):
        parse_memory(text)


# --- the plan ------------------------------------------------------------------------------


def widened(folder: Path, small: str, changes: dict[str, Any], kind: str) -> str:
    """A model wide enough that its memory stands out, with the tokenizer of a tiny one."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(small)
    config.update({**changes, "num_hidden_layers": 1})
    torch.manual_seed(0)
    getattr(transformers, kind).from_config(config).half().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(small) / name, folder)
    return str(folder)


# Widths and batches of which a tensor has 32 MiB or more: glibc keeps smaller ones' memory for the process.
WIDE: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "deberta": (
        "deberta",
        {"vocab_size": 40000, "hidden_size": 512, "pooler_hidden_size": 512, "intermediate_size": 2048},
        "AutoModelForMaskedLM",
        {"family": "multiple_choice", "max_tokens": 320, "predict_tokens_per_batch": 16384},
    ),
    "llama": (
        "llama",
        {
            "vocab_size": 16000,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "head_dim": 128,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
        },
        "AutoModelForCausalLM",
        {
            "family": "causal",
            "head": "both",
            "likelihood_prior": "question",
            "max_tokens": 360,
            "quantization": {"kind": "nf4"},
        },
    ),
}


def wide_config(name: str, folder: str) -> RankerConfig:
    changes = dict(WIDE[name][3])
    return tiny_config(changes.pop("family"), folder, passages=1, **changes)


def wide_exam(name: str) -> Exam:
    return tiny_exam(12, 5, words=600)


def predicted_and_measured(name: str, model: str, folder: str) -> tuple[int, int]:
    """MiB; in a process of its own, so that nothing freed before is taken again unseen."""
    torch.set_num_threads(1)
    config, exam = wide_config(name, model), wide_exam(name)
    plan = plan_ranker(config, [exam], Path(folder), Path(folder), 1 << 40)
    assert plan.batch == config.predict_tokens_per_batch and plan.problem is None
    with watched(name, len(exam), plan) as watch:
        ranker: Any = make_ranker(config, Path(folder))
        ranker.build()
        watch.loaded(ranker)
        ranker.predict(exam)
        del ranker
    assert watch.kept_mib == 0 and watch.peak_mib is not None
    return plan.peak // MIB, watch.peak_mib


@pytest.mark.parametrize("name", list(WIDE))
def test_the_plan_is_within_15_percent_of_what_is_measured(tiny, tmp_path, name, monkeypatch):
    for variable, value in MEMORY.items():  # as a ranker's process has them
        monkeypatch.setenv(variable, value)
    small, changes, kind, _ = WIDE[name]
    model = widened(tmp_path / "wide", tiny(small), changes, kind)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        predicted, measured = pool.submit(predicted_and_measured, name, model, str(tmp_path)).result()
    print(name, predicted, measured)
    assert measured > 250
    assert predicted == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(("family", "model"), [("causal", "llama"), ("multiple_choice", "deberta"), ("seq2seq", "t5")])
@pytest.mark.parametrize("quantization", [None, {"kind": "nf4"}, {"kind": "nf4", "double": False}])
def test_weights_and_adapters_are_those_of_the_model(tiny, tmp_path, family, model, quantization):
    config = tiny_config(family, tiny(model), quantization=quantization)
    outline = Outline(config, tmp_path, tmp_path, [tiny_exam(3)])
    ranker: Any = make_ranker(config, tmp_path)
    ranker.build()
    everything = {id(p): p for module in ranker.modules for p in module.parameters()}.values()
    adapters = sum(p.nbytes for p in everything if p.requires_grad)
    buffers = sum(buffer.nbytes for module in ranker.modules for buffer in module.buffers())
    assert outline.adapters == adapters
    # Whole in main memory on the way to a GPU, or in 4 bits a matrix at a time.
    assert outline.host > outline.weights or quantization
    if quantization is None:
        assert outline.weights == sum(p.nbytes for p in everything) - adapters + buffers
    else:
        bits = bits_per_parameter(ranker.model)["model"]
        elements = sum(
            getattr(p.quant_state, "shape", p.shape).numel() if hasattr(p, "quant_state") else p.numel()
            for p in ranker.model.parameters()
        )
        head = [] if ranker.head is None else list(ranker.head.parameters())
        in_model = outline.weights + outline.adapters - buffers - sum(p.nbytes for p in head)
        assert in_model == pytest.approx(bits * elements / 8, rel=0.01)


def test_the_largest_batch_that_fits_is_chosen(tiny, tmp_path):
    config = tiny_config("causal", tiny("llama"), max_tokens=100, predict_tokens_per_batch=2000)
    exam = tiny_exam(40, 4, words=80)
    outline = Outline(config, tmp_path, tmp_path, [exam])
    fixed = outline.weights + outline.adapters
    longest = max(outline.lengths)

    def chosen(available: float) -> Any:
        return plan_ranker(config, [exam], tmp_path, tmp_path, int(available))

    assert chosen(1 << 40).batch == 2000  # the setting, though more would fit
    batches = []
    for tokens in (6 * longest, 3 * longest):
        plan = chosen((fixed + outline.activations(tokens)) * 1.06)
        assert plan.problem is None and 0.9 * tokens < plan.batch < 2000
        assert (plan.weights + plan.adapters + plan.activations) * 1.05 <= plan.available
        batches.append(plan.batch)
    assert batches[0] > batches[1]
    single = chosen((fixed + outline.activations(longest)) * 1.06)
    assert single.problem is None
    refused = chosen(fixed + outline.activations(longest) // 2)
    assert refused.problem is not None
    for text in ("tiny needs", "are there", "4-bit", "tiny.stream=true", "tiny.max_tokens below 100"):
        assert text in refused.problem
    assert "max_tokens" not in chosen(fixed // 2).problem  # fewer tokens would not help


def test_streaming_is_planned_with_two_layers_at_a_time(tiny, tmp_path):
    held = Outline(tiny_config("causal", tiny("llama")), tmp_path, tmp_path, [tiny_exam(3)])
    streamed = Outline(tiny_config("causal", tiny("llama"), stream=True), tmp_path, tmp_path, [tiny_exam(3)])
    assert streamed.weights < held.weights and streamed.adapters == held.adapters
    assert streamed.activations(4096) > held.activations(4096)  # the states that wait between layers


def limited_memory(size: int) -> tuple[int, int, int]:
    free = available_memory()
    used = 1024 * (status_kib("VmSize") or 0)
    resource.setrlimit(resource.RLIMIT_AS, (used + size, used + size))
    return free, available_memory(), available_memory(1)


def test_limits_of_the_process_are_seen():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        free, limited, nothing = pool.submit(limited_memory, 1 << 30).result()
    assert free > limited and 0.3 * (1 << 30) < limited <= 1 << 30 and nothing < 0


GIB = 1 << 30


def system(root: Path, own_group: str, groups: dict[str, dict[str, str]]) -> Path:
    """A tree of a system with 64 GiB, 40 of them available, and control groups: their folder -> its files."""
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {40 << 20} kB\nHuge: 0\n")
    (proc / "self" / "cgroup").write_text(own_group)
    for folder, files in groups.items():
        place = root / "sys" / "fs" / "cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text)
    return root


def version_1(limit: float, used: float, caches: float = 0) -> dict[str, str]:
    stat = f"cache 1\ninactive_file 7\ntotal_inactive_file {int(caches * GIB)}\n"
    amounts = {"memory.limit_in_bytes": str(int(limit * GIB)), "memory.usage_in_bytes": str(int(used * GIB))}
    return {**amounts, "memory.stat": stat}


def version_2(limit: float | None, used: float, caches: float = 0) -> dict[str, str]:
    maximum = "max\n" if limit is None else f"{int(limit * GIB)}\n"
    stat = f"anon 1\ninactive_file {int(caches * GIB)}\n"
    return {"memory.max": maximum, "memory.current": f"{int(used * GIB)}\n", "memory.stat": stat}


@pytest.mark.parametrize(
    ("own_group", "groups", "total", "available"),
    [
        ("", {}, 64, 40),
        # Version 2: the smallest room on the way up counts, and a group without a limit is passed over.
        ("0::/a/b\n", {"a/b": version_2(8, 3, 1)}, 8, 6),
        ("0::/a/b\n", {"a/b": version_2(8, 3), "a": version_2(16, 14, 1)}, 8, 3),
        ("0::/a/b/c\n", {"a/b/c": version_2(None, 3), "a/b": version_2(16, 10), "a": version_2(32, 2)}, 16, 6),
        ("0::/a\n", {"a": version_2(200, 1), "other": version_2(1, 1)}, 64, 40),
        ("0::/a\n", {"a": version_2(2, 3)}, 2, -1),
        # In a container the own group is hidden, and its files lie at the top.
        ("0::/docker/abc\n", {".": version_2(4, 1)}, 4, 3),
        ("0::/../..\n", {".": version_2(4, 1)}, 4, 3),
        # Version 1: its own folder, and a limit so high that it is none.
        ("4:memory:/a/b\n3:cpu:/c\n", {"memory/a/b": version_1(8, 2, 1), "memory/a": version_1(6, 5)}, 6, 1),
        ("4:memory:/a\n", {"memory/a": version_1(2**33 - 1, 2), "memory": version_1(2**33 - 1, 9)}, 64, 40),
        ("4:cpu,memory:/x\n", {"memory": version_1(8, 2)}, 8, 6),
        ("1:cpu:/a\n0::/a\n", {"a": {}, "cpu/a": version_2(1, 1)}, 64, 40),
        # Both versions at once.
        ("4:memory:/a\n0::/a\n", {"memory/a": version_1(8, 2), "unified/a": version_2(1, 1)}, 8, 6),
    ],
)
def test_the_smallest_limit_of_the_control_groups_counts(tmp_path, own_group, groups, total, available):
    memory = main_memory(system(tmp_path, own_group, groups))
    assert memory == MainMemory(total * GIB, available * GIB)


def test_the_doctor_and_a_ranker_see_the_same_memory(monkeypatch):
    memory = MainMemory(9 * GIB, 5 * GIB)
    monkeypatch.setattr("solution.inference.memory.main_memory", lambda: memory)
    monkeypatch.setattr("solution.doctor.machine.main_memory", lambda: memory)
    assert available_memory() == 5 * GIB - RESERVE
    found = next(
        each for each in machine(Examined(Path(), Path("configs"), None, None, [])) if each.subject == "memory"
    )
    assert (found.state, found.found) == ("ok", "5.0 of 9.0 GiB available")


def test_a_budget_is_a_gpus_limit(monkeypatch):
    """Of the GPU's 80 GiB the allocator may take 16, less what the process needs for itself."""
    given: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 << 30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", given.append)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70 << 30, 80 << 30))
    hold_gpu_to(16 << 30)
    assert given == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "_failure", lambda: None)  # a product on it is right
    hold_gpu_to(None)
    assert given == []
    hold_gpu_to(16 << 30)
    assert given == [15.5 / 80]
    assert available_memory(16 << 30) == 31 << 29 and available_memory() == 70 << 30
    for capability, size in (((9, 0), 32), ((7, 5), 8)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert gpu_workspace() == size << 20


# --- out of memory while predicting --------------------------------------------------------


def failing_at(ranker: Any, calls: set[int], error: BaseException, method: str = "scores") -> list[int]:
    """Let the calls of these numbers raise; returns the sizes of all batches tried."""
    real, sizes = getattr(ranker, method), []

    def forward(*arguments: Any) -> Any:
        sizes.append(len(arguments[0]) if method == "scores" else 0)
        if len(sizes) - 1 in calls:
            raise error
        return real(*arguments)

    setattr(ranker, method, forward)
    return sizes


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize(
    ("family", "model", "tokens", "error"),
    [
        ("causal", "llama", 300, ERRORS[0]),
        ("multiple_choice", "bert", 600, ERRORS[1]),
        ("seq2seq", "t5", 800, ERRORS[2]),
    ],
    ids=("causal", "multiple_choice", "seq2seq"),
)
def test_out_of_memory_changes_no_answer(tiny, tmp_path, family, model, tokens, error, capsys):
    config = tiny_config(family, tiny(model), predict_tokens_per_batch=tokens)
    exam = tiny_exam(14, (4, 3, 5))
    ranker: Any = make_ranker(config, tmp_path)
    wanted = ranker.predict(exam)
    for calls in ({0}, {1}, {0, 2}):
        again: Any = make_ranker(config, tmp_path)
        again.build()
        sizes = failing_at(again, calls, error)
        np.testing.assert_allclose(again.predict(exam), wanted, atol=1e-6)
        done = sum(size for number, size in enumerate(sizes) if number not in calls)
        assert done == (14 if family != "multiple_choice" else int(exam.questions.exists().sum()))  # none twice
        assert sizes[max(calls) + 1] < max(sizes)
        assert "out of memory" in capsys.readouterr().err
        before = len(sizes)
        again.predict(exam)
        assert max(sizes[before:]) <= max(sizes[max(calls) + 1 : before])  # the next fold begins with what fitted


def test_out_of_memory_while_streaming(tiny, tmp_path):
    config = tiny_config("causal", tiny("llama"), predict_tokens_per_batch=300, stream=True)
    exam = tiny_exam(10)
    wanted = make_ranker(config, tmp_path).predict(exam)
    again: Any = make_ranker(config, tmp_path)
    again.build()
    failing_at(again, {1, 4}, ERRORS[0], "_pass")
    np.testing.assert_allclose(again.predict(exam), wanted, atol=1e-6)


def test_not_one_question_fits(tiny, tmp_path):
    ranker: Any = make_ranker(tiny_config("causal", tiny("llama")), tmp_path)
    ranker.build()
    sizes = failing_at(ranker, set(range(100)), ERRORS[0])
    with pytest.raises(UserError, match="one question at a time.*max_tokens, quantization"):
        ranker.predict(tiny_exam(8))
    assert sizes[0] == 8 and sizes[-2:] == [1, 1] and sizes[:-1] == sorted(set(sizes), reverse=True)


def test_other_errors_are_no_lack_of_memory(tiny, tmp_path):
    ranker: Any = make_ranker(tiny_config("causal", tiny("llama")), tmp_path)
    ranker.build()
    failing_at(ranker, {0}, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        ranker.predict(tiny_exam(8))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


# --- afterwards ----------------------------------------------------------------------------


def test_what_is_not_given_back_is_told(tiny, tmp_path, capsys):
    kept = []
    for keep in (False, True):
        with watched("tiny", 4) as watch:
            ranker: Any = make_ranker(tiny_config("causal", tiny("llama")), tmp_path)
            ranker.build()
            watch.loaded(ranker)
            ranker.predict(tiny_exam(4))
            if keep:
                kept.append(ranker.model)
            del ranker
        told = capsys.readouterr().err
        assert ("WARNING: tiny" in told and "still held" in told) == keep == (watch.kept_mib > 0)
        assert "s a question" in told and watch.load_seconds > 0


# --- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory") / "copy"
    shutil.copytree(finished, folder)
    return folder


def again(copy: Path, folder: Path) -> Path:
    """A copy in which nothing has been answered yet."""
    shutil.copytree(copy, folder)
    shutil.rmtree(folder / "cache" / "submission", ignore_errors=True)
    return folder


def test_the_plan_is_shown_and_obeyed(copy, tmp_path):
    there = again(copy, tmp_path / "there")
    done = run("submit", "--memory", "3GiB", cwd=there)
    assert done.returncode == 0, done.stderr
    for text in ("weights", "adapters", "activations", "batch, tokens", "peak predicted"):
        assert text in done.stderr
    told = json.loads((there / "submission.report.json").read_text())["rankers"]
    tiny = next(row for row in told if row["ranker"] == "tiny")
    assert tiny["planned_memory_mib"] > 0 and tiny["tokens_per_batch"] == 16384
    assert 0 <= tiny["model_memory_mib"] < tiny["peak_memory_mib"]
    there = again(copy, tmp_path / "short")
    done = run("submit", "--memory", "100MB", "--strict", cwd=there, new=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "left out: tiny (tiny needs" in done.stderr and "--memory" in done.stderr
    missing = int(re.search(r"give it (\d+) MiB more by --memory", done.stderr)[1])
    memory = f"{-(-(10**8) // 2**20) + missing + 64}MiB"
    enough = run("submit", "--memory", memory, "--strict", cwd=there, new=True)
    assert enough.returncode == 0, enough.stderr


def test_hashes_are_checked_unless_told_otherwise(copy, tmp_path):
    there = again(copy, tmp_path / "there")
    metrics = there / "weights" / "tiny" / "fold_1" / "metrics.json"
    metrics.write_text(metrics.read_text() + " ")
    with pytest.raises(UserError, match="metrics.json is not the file that was written"):
        read_ensemble(Workdir.open(there), [])
    done = run("submit", "--strict", "--no-verify", cwd=there)
    assert done.returncode == 0, done.stderr
    assert (there / "submission.csv").read_bytes() == (copy / "submission.csv").read_bytes()


def test_a_model_of_the_hub_must_be_there(copy, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="hf download some-one/some-model"):
        read_ensemble(Workdir.open(copy), ["tiny.model=some-one/some-model"])


def test_a_hub_model_is_cached_with_all_its_weights(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = tmp_path / "models--some-one--some-model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some-one--some-model" / "refs").mkdir()
    (tmp_path / "models--some-one--some-model" / "refs" / "main").write_text("abc")

    def refused(revision: str | None = None) -> bool:
        try:
            return locate_model("some-one/some-model", revision) != "some-one/some-model"
        except UserError as error:
            assert f"hf download some-one/some-model{f' --revision {revision}' if revision else ''}" in str(error)
            return True

    (snapshot / "config.json").write_text("{}")
    assert refused()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-1.safetensors").write_text("x")
    assert refused()
    (snapshot / "model-2.safetensors").write_text("x")
    assert not refused() and refused("other") and not refused("abc")


def test_a_model_names_no_file_outside_its_folder(tiny, tmp_path):
    shutil.copytree(tiny("llama"), tmp_path / "model")
    check_model(str(tmp_path / "model"), tmp_path)
    for name in ("../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors"):
        index = tmp_path / "model" / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": name}}))
        with pytest.raises(UserError, match=f"names a file outside its folder: {name}"):
            check_model(str(tmp_path / "model"), tmp_path)


def test_a_small_rehearsal(tmp_path):
    """Two of the models with few and narrow layers, by the real `submit.py` under a hard limit."""
    script, folder = ROOT / "benchmarks" / "rehearsal_16gb.py", tmp_path / "rehearsal"
    command = [sys.executable, str(script), "--workdir", str(folder), "--scale", "small", "--questions", "2", "--json"]
    command += ["--rankers", "phi3_mini", "deberta_v3_large"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [row["ranker"] for row in result["rankers"]] == ["deberta_v3_large", "phi3_mini"]
    assert all(row["predicted_mib"] > 0 and row["measured_mib"] > 0 for row in result["rankers"])
    assert result["process_peak_mib"] > 0 and not folder.exists()
