"""The submission at full size in 16 GiB: Llama-2-7b, Phi-3-mini and DeBERTa-v3-large answer a few questions in turn.

    python benchmarks/rehearsal_16gb.py --workdir rehearsal_run
    python benchmarks/rehearsal_16gb.py --workdir rehearsal_run --rankers phi3_mini deberta_v3_large
    python benchmarks/rehearsal_16gb.py --workdir rehearsal_run --device gpu --questions 200 --train 32

The weights are random, of the true shapes, in the number formats and sizes of file of the authors; adapters are random
too. The rankers' settings are those of `configs/`, so the two LLMs are NF4. Then the real `submit.py` runs, on the CPU,
under a hard limit for the whole process: a cgroup (version 2) where one may be made, else RLIMIT_AS, which counts
mapped files and reserved addresses too. With `--device gpu` it runs on the GPU, whose allocator gets the limit. The
table has what `submit.py` predicted and measured for each ranker. `--train N` has the real `train_fold.py` train a fold
of each ranker on N questions before.

Needs about 25 GB of disk below --workdir and some minutes a ranker; everything that it made is removed at the end.
`--scale small` does the same with narrow models of two layers in seconds. `--json` prints one JSON object as the last
line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from solution.command import command
from solution.config import RankerConfig, RetrievalConfig
from solution.demo.exam import EXAM
from solution.ensemble.record import load_ensemble
from solution.errors import UserError
from solution.files import atomic_folder, write_json
from solution.inference.outline import empty_ranker
from solution.learning.adapters import ADAPTER
from solution.memory import parse_memory
from solution.models import empty_model
from solution.questions import LETTERS, read_questions
from solution.rankers.model import HEAD
from solution.weights import close_folder, read_metrics, write_metrics, write_record
from solution.workdir import Workdir

ROOT = Path(__file__).parent.parent
# The values of the authors' config.json: meta-llama/Llama-2-7b-hf, microsoft/Phi-3-mini-4k-instruct (the 128k model has
# the same shapes), microsoft/deberta-v3-large.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama2_7b": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    },
    "phi3_mini": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "sliding_window": 2047,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 32000,
        "pad_token_id": 32000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    "deberta_v3_large": {
        "model_type": "deberta-v2",
        "vocab_size": 128100,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 512,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "max_relative_positions": -1,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "pad_token_id": 0,
    },
}
STORED = {"llama2_7b": torch.float16, "phi3_mini": torch.bfloat16, "deberta_v3_large": torch.float16}
SHARD_GB = {"llama2_7b": 9.98, "phi3_mini": 4.98, "deberta_v3_large": 4.98}
RETRIEVAL: dict[str, Any] = {"source": "column", "option_scores": []}
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
NEW = ("pooler.", "classifier.")  # of DeBERTa's multiple-choice model; they are in no checkpoint


# --- what is answered with -----------------------------------------------------------------


def write_tokenizer(folder: Path) -> None:
    """A small byte-level BPE that knows the words of the built-in exam and stands in for any of the three."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    questions = read_questions(EXAM)
    texts = [*questions.prompts, *(option for options in questions.options for option in options)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=1000, special_tokens=specials, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_model(name: str, folder: Path, small: bool, layers: int | None) -> int:
    """A model's folder: config, tokenizer, safetensors shards of random weights. Returns its parameters."""
    from transformers import AutoModelForCausalLM, AutoModelForMultipleChoice

    folder.mkdir(parents=True)
    values = dict(CONFIGS[name])
    if small:
        values |= {key: value for key, value in SMALL.items() if key in values} | {"vocab_size": 1100}
        values |= {key: 2 for key in ("eos_token_id", "pad_token_id") if key in values}
    if layers is not None:
        values["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(values, indent=2))
    write_tokenizer(folder)
    kind = AutoModelForMultipleChoice if name.startswith("deberta") else AutoModelForCausalLM
    state = empty_model(kind, str(folder), dtype=STORED[name]).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.startswith(NEW)}
    size = STORED[name].itemsize
    shards: list[list[str]] = [[]]
    used = 0.0
    limit = 1e5 if small else SHARD_GB[name] * 1e9
    for key, shape in shapes.items():
        if shards[-1] and used + math.prod(shape) * size > limit:
            shards.append([])
            used = 0.0
        shards[-1].append(key)
        used += math.prod(shape) * size
    noise = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)) * 0.02).to(STORED[name])
    files = {}
    for number, keys in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        write_shard(folder / file, {key: shapes[key] for key in keys}, noise)
        files |= dict.fromkeys(keys, file)
    if len(shards) > 1:
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": files})
    return sum(map(math.prod, shapes.values()))


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], noise: torch.Tensor) -> None:
    """A safetensors file written tensor by tensor, so that no shard is ever in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    kind = {torch.float16: "F16", torch.bfloat16: "BF16"}[noise.dtype]
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * noise.itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(len(shapes))
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            left = math.prod(shape)
            if len(shape) == 1:  # norms and biases
                plain = torch.zeros(left) if name.endswith("bias") else torch.ones(left)
                stream.write(plain.to(noise.dtype).view(torch.uint8).numpy())
                continue
            while left:
                start = int(rng.integers(len(noise) // 2))
                piece = noise[start : start + left]
                stream.write(piece.view(torch.uint8).numpy())
                left -= len(piece)


def write_fold(config: RankerConfig, retrieval: RetrievalConfig, about: dict[str, Any], workdir: Workdir) -> None:
    """A fold as training leaves it, with random LoRA weights and a random head."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    ranker = empty_ranker(config, workdir.cache)
    generator = torch.Generator().manual_seed(about["fold"])

    def random(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: torch.randn(value.shape, generator=generator) * 0.01 for name, value in state.items()}

    with atomic_folder(workdir.fold_weights(config.name, about["fold"])) as folder:
        save_file(random(get_peft_model_state_dict(ranker.model, save_embedding_layers=False)), folder / ADAPTER)
        ranker.model.peft_config["default"].save_pretrained(folder)
        if ranker.head is not None:
            save_file(random(ranker.head.state_dict()), folder / HEAD)
        settings = {"config": config.model_dump(mode="json"), "retrieval": retrieval.model_dump(mode="json")}
        write_record(folder, {"about": about, **settings})
        write_metrics(folder, {})
        close_folder(folder, key="rehearsal")


def write_ensemble(workdir: Workdir, abouts: dict[str, dict[str, Any]]) -> None:
    """Equal weights of all rankers; the figures that tuning would have found are 0."""
    names = sorted(abouts)
    write_json(
        workdir.ensemble,
        {
            "schema": 1,
            "rankers": names,
            "blend": "probability",
            "weights": dict.fromkeys(names, 1 / len(names)),
            "temperatures": {},
            "groups": [],
            "stacker": None,
            "choice": "equal",
            "reason": "a rehearsal: nothing was tuned",
            "estimate": {"map3": 0.0, "low": 0.0, "high": 0.0, "kind": "oof"},
            "in_sample_map3": 0.0,
            "table": [],
            "candidates": [],
            "added_value": dict.fromkeys(names),
            "error_correlation": [[None] * len(names)] * len(names),
            "search": {},
            "oof_files": {},
            "questions": "rehearsal",
            "about": abouts,
            "tune": {},
        },
    )
    load_ensemble(workdir)


def write_questions(path: Path, count: int, tokens: int, answers: bool = False) -> None:
    """The built-in exam's questions, each with a context of more words than `tokens` hold."""
    questions = read_questions(EXAM)
    words = " ".join(questions.prompts).split()
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "prompt", *LETTERS[:5], "context", *(["answer"] if answers else [])])
        for number in range(count):
            row, start = number % len(questions), number * 40 % (len(words) - tokens)
            context = " ".join(words[start : start + tokens])
            answer = [LETTERS[int(questions.answers[row])]] if answers else []
            writer.writerow([number, questions.prompts[row], *questions.options[row], context, *answer])


def settings(name: str, workdir: Workdir, tokens: int) -> dict[str, Any]:
    """A ranker's settings: those of `configs/`, with the model written here."""
    values = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    folder = workdir.root / "models" / name
    return {**values, "model": str(folder.resolve()), "passages": 1, "max_tokens": tokens}


def prepare(workdir: Workdir, names: Sequence[str], options: argparse.Namespace) -> dict[str, int]:
    """Write models, folds and ensemble. Returns each model's parameters."""
    retrieval = RetrievalConfig.model_validate(RETRIEVAL)
    parameters: dict[str, int] = {}
    abouts: dict[str, dict[str, Any]] = {}
    for name in names:
        started = time.monotonic()
        folder = workdir.root / "models" / name
        parameters[name] = write_model(name, folder, options.scale == "small", options.layers)
        config = RankerConfig.model_validate(settings(name, workdir, options.tokens))
        for fold in range(options.folds):
            about = {
                "ranker": name,
                "family": config.family,
                "role": "ranker",
                "fold": fold,
                "folds": options.folds,
                "questions": "rehearsal",
                "contexts": "rehearsal",
                "config": config.hash(),
                "retrieval": retrieval.hash(),
            }
            write_fold(config, retrieval, about, workdir)
            abouts[name] = about
        print(f"{name}: {parameters[name] / 1e9:.3f} billion random weights in {time.monotonic() - started:.0f} s")
    write_ensemble(workdir, abouts)
    write_questions(workdir.root / "test.csv", options.questions, options.tokens)
    return parameters


def disk_needed(names: Sequence[str], small: bool) -> int:
    """Bytes, generously."""
    sizes = {"llama2_7b": 15.0, "phi3_mini": 8.2, "deberta_v3_large": 1.1}
    return int(1e8 if small else sum(sizes[name] for name in names) * 1e9)


# --- the limit -----------------------------------------------------------------------------


@contextlib.contextmanager
def hard_limit(size: int, device: str) -> Iterator[tuple[str, Any]]:
    """The kind of limit, and what the child process has to call before it becomes `submit.py`."""
    if device == "gpu":  # `submit.py` gives its GPU's allocator the limit of --memory
        yield "the GPU's allocator", None
        return
    group = _cgroup()
    if group is not None:
        try:
            (group / "memory.max").write_text(str(size))
            with contextlib.suppress(OSError):
                (group / "memory.swap.max").write_text("0")
            yield "cgroup", lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
        finally:
            with contextlib.suppress(OSError):
                group.rmdir()
        return
    yield "RLIMIT_AS", lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _cgroup() -> Path | None:
    """A new cgroup with a memory controller below this process's own, if it may make one."""
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        own = root / next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")
        if "memory" in (own / "cgroup.subtree_control").read_text().split():
            group = own / f"rehearsal-{os.getpid()}"
            group.mkdir()
            return group
    return None


class TreeMemory(threading.Thread):
    """Watches a process and its children.

    Attributes:
        resident, anonymous: MiB, the highest sums over the processes, sampled five times a second; pages of files can
            be taken back at any time, anonymous ones cannot.
    """

    def __init__(self, process: int):
        super().__init__(daemon=True)
        self.resident = self.anonymous = 0.0
        self._process = process
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.2):
            resident = anonymous = 0.0
            for process in self._tree():
                with contextlib.suppress(OSError, ValueError):
                    text = Path(f"/proc/{process}/status").read_text()
                    values = {key: value for key, _, value in (line.partition(":") for line in text.splitlines())}
                    resident += int(values["VmRSS"].split()[0]) / 1024 if "VmRSS" in values else 0
                    anonymous += int(values["RssAnon"].split()[0]) / 1024 if "RssAnon" in values else 0
            self.resident, self.anonymous = max(self.resident, resident), max(self.anonymous, anonymous)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _tree(self) -> list[int]:
        found = [self._process]
        for process in found:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{process}/task").iterdir():
                    found += map(int, (task / "children").read_text().split())
        return found


# --- the run -------------------------------------------------------------------------------


def environment(device: str) -> dict[str, str]:
    """Of the project's own commands: this checkout's code, no hub, and no GPU unless it is asked for."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **hidden}


def train(workdir: Workdir, names: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Have the real `train_fold.py` train fold 0 of each ranker on `--train` questions, and read what it measured."""
    root = workdir.root / "training"
    configs = root / "configs"
    configs.mkdir(parents=True)
    files = {name: settings(name, workdir, options.tokens) for name in names}
    files["retrieval"] = RETRIEVAL
    files["ensemble"] = {"rankers": list(names), "folds": 2}
    for name, values in files.items():
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    write_questions(root / "questions.csv", 2 * options.train, options.tokens, answers=True)
    rows = []
    for name in names:
        command = ["--configs", str(configs), "--workdir", str(root), "--fold", "0", "--ranker", name]
        command += [f"{name}.training.epochs=1"]
        process = subprocess.run(
            [sys.executable, str(ROOT / "train_fold.py"), *command], env=environment(options.device), check=False
        )
        if process.returncode:
            raise UserError(f"train_fold.py of {name} ended with code {process.returncode}; see above")
        facts = read_metrics(Workdir.open(root).fold_weights(name, 0), "")
        kept = ("steps", "train_seconds", "score_seconds_per_question", "load_seconds", "peak_memory_mib")
        kept += ("computed_on", "loss", "trainable_parameters", "bits_per_parameter")
        rows.append({"ranker": name} | {key: facts[key] for key in kept if key in facts})
    return rows


def rehearse(workdir: Workdir, options: argparse.Namespace) -> dict[str, Any]:
    """Run `submit.py` under the limit and read what it told."""
    limit = parse_memory(options.limit)
    output = workdir.root / "submission.csv"
    arguments = ["--workdir", str(workdir.root), "--output", str(output), "--memory", options.limit, "--strict"]
    log = workdir.root / "submit.log"
    started = time.monotonic()
    with hard_limit(limit, options.device) as (kind, enter), open(log, "w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "submit.py"), *arguments],
            env=environment(options.device),
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=enter,
        )
        memory = TreeMemory(process.pid)
        memory.start()
        code = process.wait()
        memory.stop()
    seconds = time.monotonic() - started
    told = log.read_text(encoding="utf-8")
    print(told)
    report = output.with_name("submission.report.json")
    facts = json.loads(report.read_text(encoding="utf-8"))["rankers"] if report.exists() else []
    rows = [
        {
            "ranker": row["ranker"],
            "predicted_mib": row["planned_memory_mib"],
            "measured_mib": row["model_memory_mib"],
            "predicted_of_measured": round(row["planned_memory_mib"] / max(row["model_memory_mib"], 1), 3),
            "load_seconds": row["load_seconds"],
            "seconds_per_question": row["seconds_per_question"],
        }
        for row in facts
        if row["state"] == "finished" and row["planned_memory_mib"] and row["model_memory_mib"]
    ]
    if code != 0 or len(rows) < len(options.rankers):
        raise UserError(f"submit.py ended with code {code} under {kind} of {options.limit}; see above")
    with open(output, newline="", encoding="utf-8") as stream:
        answered = sum(len(row["prediction"].split()) == 3 for row in csv.DictReader(stream))
    if answered != options.questions:
        raise UserError(f"{answered} of {options.questions} questions were answered")
    return {
        "scale": options.scale,
        "layers": options.layers,
        "limit": options.limit,
        "limit_kind": kind,
        "device": torch.cuda.get_device_name() if options.device == "gpu" else "cpu",
        "questions": options.questions,
        "tokens": options.tokens,
        "folds": options.folds,
        "threads": torch.get_num_threads(),
        "rankers": rows,
        "process_peak_mib": round(memory.resident),
        "process_peak_anonymous_mib": round(memory.anonymous),
        "seconds": round(seconds, 1),
    }


def print_table(result: dict[str, Any]) -> None:
    print(
        f"{result['questions']} questions of up to {result['tokens']} tokens, {result['folds']} fold(s) each, within "
        f"{result['limit']} by {result['limit_kind']}, {result['threads']} threads"
    )
    print(f"{'':18}{'predicted, MiB':>16}{'measured, MiB':>16}{'ratio':>8}{'load, s':>10}{'s/question':>12}")
    for row in result["rankers"]:
        print(
            f"{row['ranker']:18}{row['predicted_mib']:16}{row['measured_mib']:16}{row['predicted_of_measured']:8.3f}"
            f"{row['load_seconds']:10.1f}{row['seconds_per_question']:12.2f}"
        )
    for row in result["training"]:
        print(
            f"{row['ranker']} was trained in {row['steps']} steps of {row['train_seconds']:.0f} s together and "
            f"answered its fold with {row['score_seconds_per_question']:.3f} s a question, "
            f"{row['peak_memory_mib']} MiB at the highest, {row['computed_on']}"
        )
    print(
        f"the whole process: {result['process_peak_mib']} MiB resident at the highest, "
        f"{result['process_peak_anonymous_mib']} MiB of it not from files; {result['seconds']:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workdir", type=Path, required=True, help="a folder that is not there yet; removed at the end"
    )
    parser.add_argument("--rankers", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=512, help="max_tokens of every ranker")
    parser.add_argument("--folds", type=int, default=1, help="adapters of each ranker, which answer in turn")
    parser.add_argument("--layers", type=int, help="only so many of each model, at full width: a quick look")
    parser.add_argument("--limit", default="16GiB")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--train", type=int, default=0, help="questions to train a fold of each ranker on before")
    parser.add_argument("--scale", choices=["full", "small"], default="full")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    if options.device == "gpu" and not torch.cuda.is_available():
        raise UserError("--device gpu: PyTorch sees no GPU here")
    if options.workdir.exists():
        raise UserError(f"--workdir {options.workdir} is there already; name a new folder, it is removed at the end")
    options.workdir.mkdir(parents=True)
    try:
        needed = disk_needed(options.rankers, options.scale == "small")
        free = shutil.disk_usage(options.workdir).free
        if free < needed:
            raise UserError(f"{needed / 1e9:.0f} GB of disk are needed, and {free / 1e9:.0f} GB are free")
        workdir = Workdir.open(options.workdir)
        parameters = prepare(workdir, options.rankers, options)
        trained = train(workdir, options.rankers, options) if options.train else []
        result = rehearse(workdir, options) | {"parameters": parameters, "training": trained}
    finally:
        shutil.rmtree(options.workdir, ignore_errors=True)
    print_table(result)
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    command(main)()
