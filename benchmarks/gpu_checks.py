"""The checks of `gpu_check.py`. Each calls the package's own code, and compares what a GPU says with what must be."""

from __future__ import annotations

import csv
import functools
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_models
import numpy as np
import torch
import yaml
from gpu_models import make_exam, make_model
from rehearsal_16gb import CONFIGS, write_model

from solution.config import RankerConfig, RetrievalConfig
from solution.device import Device, choose_device, free_memory
from solution.exam import Exam
from solution.gpu import product_failure
from solution.inference.memory import available_memory, hold_gpu_to, watched
from solution.inference.memory_plan import RESERVE
from solution.inference.outline import plan_ranker
from solution.memory import MIB
from solution.rankers.families import make_ranker

SETTINGS = Path(__file__).parent.parent / "configs"
LAYERS = {"llama2_7b": 4, "phi3_mini": 4}  # that are made of those models
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TARGETS = {"deberta": ["query_proj", "value_proj"], "t5": ["q", "v"]}
FAMILIES = {"deberta": "multiple_choice", "t5": "seq2seq"}
FULL_SEQUENCE = 128  # tokens that the small models read at the most


class NotTried(Exception):
    """The machine, or an installed package, does not have what a check is about."""


@dataclass
class Place:
    """Where a check works, and what it has measured.

    Attributes:
        folder: an empty folder.
        cpu: whether it runs at tiny sizes on the CPU.
        facts: name -> value, for the table; a check that fails leaves what it had measured before.
    """

    folder: Path
    cpu: bool
    facts: dict[str, Any]

    @functools.cached_property
    def device(self) -> Device:
        return choose_device()

    def model(self, name: str) -> str:
        """The folder of a small model."""
        folder = self.folder / name
        return str(folder if folder.is_dir() else make_model(name, folder))

    def ranker(self, name: str, precision: str = "auto", **changes: Any) -> Any:
        """A ranker with a small model, not built yet."""
        family = FAMILIES.get(name, "causal")
        lora = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": TARGETS.get(name, "all-linear")}
        training = {"epochs": 3, "learning_rate": 5e-3, "questions_per_step": 8, "evaluations_per_epoch": 0}
        training |= changes.pop("training", {})
        values = {"name": name, "family": family, "model": self.model(name), "passages": 1, "max_tokens": FULL_SEQUENCE}
        values |= {"lora": lora, "training": training, "precision": precision, **changes}
        return self.made(RankerConfig.model_validate(values))

    def made(self, config: RankerConfig) -> Any:
        """The ranker of these settings; in float16 on a CPU too, which the settings refuse."""
        if not (self.cpu and config.precision == "float16"):
            return make_ranker(config, self.folder)
        ranker: Any = make_ranker(config.model_copy(update={"precision": "auto"}), self.folder)
        ranker.device = Device("cpu", torch.float16)
        return ranker

    def note(self, **facts: Any) -> None:
        self.facts |= {name.replace("_", " "): value for name, value in facts.items()}


def require(holds: bool, what: str) -> None:
    """Raise `AssertionError` where something that must hold does not."""
    if not holds:
        raise AssertionError(what)


def rounded(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return rounded(float(np.abs(one - other).max()))


# --- the card and its number formats -------------------------------------------------------


def check_card(place: Place) -> None:
    """The card, and the speed of a plain product, beside which the rankers' speed stands."""
    place.note(computes_in=str(place.device), torch=f"{torch.__version__}, CUDA {torch.version.cuda}")
    if not place.cpu:
        card = torch.cuda.get_device_properties(0)
        place.note(card=card.name, memory=f"{card.total_memory / 2**30:.1f} GiB")
        place.note(compute_capability=f"{card.major}.{card.minor}")
        place.note(peak_TFLOPS_by_its_maker=gpu_models.peak_of(card.name) or "not in the table")
    for name, dtype in FORMATS.items():
        if reason := product_failure(place.device.kind, dtype):
            place.note(**{f"TFLOPS_in_{name}": f"fails: {reason}"})
            continue
        speed = product_speed(place, dtype)
        place.note(**{f"TFLOPS_in_{name}": rounded(speed)})


def product_speed(place: Place, dtype: torch.dtype) -> float:
    size, seconds = (128, 0.02) if place.cpu else (8192, 1.0)
    return gpu_models.product_speed(place.device.torch, dtype, size, seconds)


def check_formats(place: Place) -> None:
    """Train and score each family in every number format; scores stay near those of float32."""
    exam = make_exam(4, 8) if place.cpu else make_exam(24, 40)
    for name in ("deberta", "llama", "phi3", "t5"):
        first = place.ranker(name, "float32", head="last_token" if name == "deberta" else "both")
        first.fit(exam, exam, place.folder / "checkpoint")
        saved = place.folder / f"{name}-saved"
        saved.mkdir()
        first.save(saved)
        exact = first.predict(exam)
        for precision in ("bfloat16", "float16"):
            if reason := product_failure(place.device.kind, FORMATS[precision]):
                place.note(**{f"{name}_in_{precision}": f"not tried: {reason}"})
                continue
            loaded = place.made(first.config.model_copy(update={"precision": precision}))
            loaded.load(saved)
            off = difference(loaded.predict(exam), exact)
            trained = place.made(first.config.model_copy(update={"precision": precision}))
            losses = trained.fit(exam, exam, place.folder / "checkpoint")["loss"]
            place.note(**{f"{name}_in_{precision}": f"off by {off} of float32, loss {losses[0]} to {losses[-1]}"})
            require(off < 0.1, f"{name}: {precision} scores are off by {off}")
            require(losses[-1] < losses[0], f"{name}: the loss does not fall in {precision}")


def check_overflow(place: Place) -> None:
    """A float16 model that overflows gives the scores of its weights in float32."""
    exam = make_exam(6, 30)
    half = place.ranker("llama", "float16", head="likelihood", lora=None, training={"epochs": 0})
    exact = place.ranker("llama", "float32", head="likelihood", lora=None, training={"epochs": 0})
    half.build()
    exact.build()
    with torch.no_grad():
        for name, parameter in half.model.named_parameters():
            if name.endswith("mlp.up_proj.weight"):
                parameter.mul_(2e5).clamp_(-3e4, 3e4)
            if name.endswith("mlp.down_proj.weight"):
                parameter.mul_(1e-3)
    exact.model.load_state_dict({name: value.float() for name, value in half.model.state_dict().items()})
    scores = half.predict(exam)
    place.note(questions_that_overflowed=len(half.float32_ids), off_by=difference(scores, exact.predict(exam)))
    require(len(half.float32_ids) > 0, "nothing overflowed")
    require(difference(scores, exact.predict(exam)) < 1e-3, "the scores in float32 are others")


# --- 4-bit weights -------------------------------------------------------------------------

NF4 = {"kind": "nf4", "double": True}


def check_four_bit(place: Place) -> None:
    """NF4 weights multiplied in half precision give nearly the scores that they give in float32."""
    exam = make_exam(12, 60)
    tables = {}
    for precision in ("float32", "auto", "float16"):
        ranker = place.ranker(
            "llama", precision, head="likelihood", lora=None, training={"epochs": 0}, quantization=NF4
        )
        facts = ranker.fit(exam, exam, place.folder / "checkpoint")
        tables[precision] = ranker.predict(exam)
        place.note(bits_a_weight=facts["bits_per_parameter"]["quantized"])
    for precision in ("auto", "float16"):
        off = difference(tables[precision], tables["float32"])
        place.note(**{f"off_by_in_{precision}": off})
        require(off < 0.1, f"4-bit scores in {precision} are off by {off}")


class Killed(Exception):
    """The end of a training, as a kill makes it."""


def check_qlora(place: Place) -> None:
    """QLoRA with paged AdamW learns; killed, it goes on from its checkpoint to the same number of steps."""
    exam = make_exam(32, 4 if place.cpu else 40)
    changes: dict[str, Any] = {"quantization": NF4, "head": "both"}
    if not place.cpu:
        # bitsandbytes pages the state of matrices of 100,000 numbers and more: here 128 x 1024.
        wide = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 2048}
        make_model("llama", place.folder / "llama", deviation=0.05, **wide)
        changes["lora"] = {"r": 128, "lora_alpha": 128, "lora_dropout": 0.0, "target_modules": "all-linear"}
    for optimizer in ("paged_adamw_8bit", "paged_adamw_32bit"):
        settings = {"optimizer": optimizer, "gradient_checkpointing": True, "checkpoint_seconds": 0.0}
        ranker = place.ranker("llama", training={**settings, "learning_rate": 5e-3 if place.cpu else 5e-4}, **changes)
        scores, passes = ranker.scores, 0

        def mortal(items: Any, scores: Any = scores) -> Any:
            nonlocal passes
            passes += 1
            if passes == 6:
                raise Killed
            return scores(items)

        ranker.scores = mortal
        checkpoint = place.folder / optimizer
        try:
            ranker.fit(exam, exam, checkpoint)
            raise AssertionError("the training was not interrupted")
        except Killed:
            pass
        ranker.scores = scores
        facts = ranker.fit(exam, exam, checkpoint)
        losses = facts["loss"]
        place.note(**{optimizer: f"loss {losses[0]} to {losses[-1]} in {facts['steps']} steps, killed after 5"})
        require(facts["steps"] == len(losses) == 12, "the resumed training has another number of steps")
        require(losses[-1] < losses[0], f"the loss does not fall with {optimizer}")


# --- streaming, faiss, attention -----------------------------------------------------------


def check_streaming(place: Place) -> None:
    """A streamed model gives the scores of the model in memory."""
    exam = make_exam(8, 60)
    wide = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 5504}
    folder = make_model("llama", place.folder / "streamed", 2 if place.cpu else 8, 0.05, **({} if place.cpu else wide))
    for quantization in (None, NF4):
        tables, seconds = [], []
        for stream in (False, True):
            config = {"name": "streamed", "family": "causal", "model": str(folder), "passages": 1, "head": "likelihood"}
            config |= {"max_tokens": FULL_SEQUENCE, "lora": None, "training": {"epochs": 0}}
            ranker = place.made(RankerConfig.model_validate({**config, "stream": stream, "quantization": quantization}))
            ranker.build()
            tables.append(ranker.predict(exam))
            seconds.append(round(ranker.model_seconds, 2))
            del ranker
            free_memory()
        off, what = difference(*tables), "nf4" if quantization else "plain"
        place.note(**{f"{what}": f"{seconds[0]} s in memory, {seconds[1]} s streamed, off by {off}"})
        require(off < 0.02, f"the streamed scores ({what}) are off by {off}")


def check_faiss(place: Place) -> None:
    """The exact search, and inverted lists on the GPU, find what the CPU finds."""
    import faiss

    from solution.retrieval.approximate import nearest, open_parts, write_parts

    gpus = faiss.get_num_gpus()
    if not gpus and not place.cpu:
        raise NotTried("the installed faiss has no GPU part (pip install faiss-gpu in the place of faiss-cpu)")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000 if place.cpu else 200_000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:50] + 0.05 * rng.normal(size=(50, 64)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    started = time.perf_counter()
    cosines, rows = nearest(queries, vectors, 10)
    place.note(gpus=gpus, exact_search_seconds=round(time.perf_counter() - started, 3))
    right = np.argsort(-queries @ vectors.T, axis=1, kind="stable")[:, :10]
    recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, right, strict=True)]))
    place.note(
        exact_recall=recall, best_cosine_off_by=difference(cosines[:, 0], (queries * vectors[rows[:, 0]]).sum(1))
    )
    require(recall > 0.99, f"the exact search finds {recall:.3f} of the nearest")
    config = RetrievalConfig(index="ivf_sq8")
    structure = write_parts(config, vectors, place.folder / "index")
    if structure.kind != "ivf_sq8":
        return
    index = open_parts(place.folder / "index", structure, config, vectors.shape)
    found = index.search(queries, 10)
    recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, right, strict=True)]))
    place.note(inverted_lists=type(index._parts[0]).__name__, inverted_lists_recall=round(recall, 3))
    require(place.cpu or "Gpu" in type(index._parts[0]).__name__, "the inverted lists are searched by the CPU")
    require(recall > 0.5, f"the inverted lists find {recall:.3f} of the nearest")


def check_attention(place: Place) -> None:
    """DeBERTa's fast attention gives the scores and gradients of transformers' own, at lengths of any remainder."""
    kinds = ["eager", "auto"]
    if importlib.util.find_spec("flashdeberta") and not place.cpu:
        kinds.append("flashdeberta")
    else:
        place.note(flashdeberta="not tried: needs a GPU and pip install flashdeberta")
    for precision in ("float32", "float16"):
        for words in (37, 61):
            exam = make_exam(4, words)
            tables, gradients = {}, {}
            for kind in kinds:
                ranker = place.ranker("deberta", precision, attention=kind)
                ranker.build()
                tables[kind] = ranker.predict(exam)
                _, items = ranker.items(exam)
                with ranker.device.autocast():
                    scores = ranker.scores(items)
                torch.nn.functional.cross_entropy(
                    scores.float(), torch.zeros(4, dtype=torch.int64, device=scores.device)
                ).backward()
                gradients[kind] = (
                    torch.cat([p.grad.flatten() for p in ranker.model.parameters() if p.grad is not None])
                    .float()
                    .cpu()
                    .numpy()
                )
            for kind in kinds[1:]:
                off = difference(tables[kind], tables["eager"])
                steep = float(np.abs(gradients["eager"]).max()) or 1.0
                of_gradient = rounded(float(np.abs(gradients[kind] - gradients["eager"]).max()) / steep)
                place.note(**{f"{kind}_{precision}_{words}_words": f"off by {off}, gradient by {of_gradient}"})
                near = 1e-4 if precision == "float32" and kind == "auto" else 0.05
                require(
                    off < near and of_gradient < max(near, 1e-3), f"{kind} in {precision} is off: {off}, {of_gradient}"
                )


def check_out_of_memory(place: Place) -> None:
    """When the memory runs out, smaller batches give the same scores."""
    exam = make_exam(64, 100)
    ranker = place.ranker("deberta", "float32", predict_tokens_per_batch=1 << 22)
    ranker.build()
    exact = ranker.predict(exam)
    require(ranker.token_limit is None, "the memory ran out before it was limited")
    if place.cpu:
        # A CPU's memory cannot be limited from here: the error of a GPU is raised in its place.
        scores = ranker.scores

        def limited(items: Any) -> Any:
            if sum(map(ranker.length, items)) > 4000:
                raise torch.OutOfMemoryError("raised by this check")
            return scores(items)

        ranker.scores = limited
    else:
        free_memory()
        hold_gpu_to(torch.cuda.memory_allocated() + RESERVE + 128 * MIB)
    off = difference(ranker.predict(exam), exact)
    place.note(tokens_a_batch_after_it_ran_out=ranker.token_limit, off_by=off)
    require(ranker.token_limit is not None, "the memory never ran out: the check's batch is too small")
    require(off < 1e-4, f"the scores after it are off by {off}")


# --- speed ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A model whose speed is measured.

    Attributes:
        config: its settings.
        made: how many of its `layers` were made.
        reference: 10^12 operations a second of a plain product on this machine.
    """

    config: RankerConfig
    made: int
    layers: int
    reference: float


def check_speed(place: Place, name: str) -> None:
    """Tokens a second in training and scoring with a published model's shape and the settings of `configs/`."""
    layers = CONFIGS[name]["num_hidden_layers"]
    made = 2 if place.cpu else LAYERS.get(name, layers)
    write_model(name, place.folder / "model", small=place.cpu, layers=made)
    values = yaml.safe_load((SETTINGS / f"{name}.yaml").read_text(encoding="utf-8"))
    values |= {"model": str(place.folder / "model"), "passages": 1}
    values["training"] |= {"epochs": 1, "evaluations_per_epoch": 0, "questions_per_step": 4}
    if place.cpu:
        values |= {"max_tokens": FULL_SEQUENCE, "predict_tokens_per_batch": 4096}
    config = RankerConfig.model_validate(values)
    subject = Subject(config, made, layers, product_speed(place, place.device.compute))
    what = "narrow, " if place.cpu else ""
    place.note(model=f"{what}{made} of its {layers} layers, random weights, {config.max_tokens} tokens a sequence")
    ranker = make_ranker(config, place.folder)
    exam = make_exam(8 if place.cpu else 4 * int(np.clip(subject.reference / 8, 4, 12)), config.max_tokens)
    logs = place.folder / "logs"
    facts = ranker.fit(exam, exam.subset([0]), place.folder / "checkpoint", logs)
    require(bool(np.isfinite(facts["loss"]).all()), "a loss is not finite")
    note_speed(place, "training", training_speed(logs), subject)
    del ranker
    free_memory()
    count = 8 if place.cpu else int(np.clip(2 * subject.reference, 16, 160))
    measure_scoring(place, subject, make_exam(count, config.max_tokens, seed=1))


def training_speed(logs: Path) -> float:
    """Tokens a second of all steps but the first, in which kernels are chosen and memory is taken."""
    with open(logs / "log.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    seconds = float(rows[-1]["seconds"]) - float(rows[0]["seconds"])
    return sum(int(row["tokens"]) for row in rows[1:]) / max(seconds, 1e-9)


def measure_scoring(place: Place, subject: Subject, exam: Exam) -> None:
    """Tokens a second of scoring, and the memory planned for it beside what it took."""
    config = subject.config
    plan = plan_ranker(config, [exam], place.folder, place.folder, available_memory())
    with watched(config.name, len(exam), plan) as watch:
        ranker: Any = make_ranker(plan.apply(config), place.folder)
        ranker.build()
        watch.loaded(ranker)
        ranker.predict(exam.subset(range(4)))  # kernels are chosen, and memory is taken
        before = ranker.model_seconds
        ranker.predict(exam)
        _, items = ranker.items(exam)
        tokens = sum(ranker.length(part) for item in items for part in ranker.parts(item))
        speed = tokens / (ranker.model_seconds - before)
        del ranker, items
    note_speed(place, "scoring", speed, subject)
    place.note(tokens_a_batch=plan.batch, planned_MiB=plan.peak // MIB, measured_MiB=watch.peak_mib)
    if not place.cpu and watch.peak_mib is not None:
        require(watch.peak_mib * MIB < 1.1 * plan.peak, "scoring takes more memory than was planned")


def note_speed(place: Place, what: str, speed: float, subject: Subject) -> None:
    """Note tokens a second, their share of the card's peak, and what the whole model would reach.

    In training with frozen weights a token takes the forward pass twice: its products, and those of its gradient. What
    gradient checkpointing repeats is not counted as work done. Without a GPU the model is narrow: there is no share.
    """
    text = f"{speed:,.0f} tokens/s"
    if not place.cpu:
        passes = 2 if what == "training" else 1
        one = gpu_models.operations(subject.config.name, subject.made, subject.config.max_tokens)
        reached, peak = speed * one * passes / 1e12, gpu_models.peak_of(torch.cuda.get_device_name(0))
        text += f", {rounded(reached)} TFLOPS, {reached / subject.reference:.0%} of a plain product"
        text += "" if peak is None else f", {reached / peak:.0%} of the card's peak"
        if subject.made < subject.layers:
            scaled = speed * subject.made / subject.layers
            text += f"; scaled to {subject.layers} layers: {scaled:,.0f} tokens/s"
    place.note(**{what: text})


CHECKS: dict[str, Callable[[Place], None]] = {
    "card": check_card,
    "number formats": check_formats,
    "overflow in float16": check_overflow,
    "4-bit scoring": check_four_bit,
    "QLoRA": check_qlora,
    "streaming": check_streaming,
    "faiss": check_faiss,
    "DeBERTa's attention": check_attention,
    "out of memory": check_out_of_memory,
    "deberta_v3_large": functools.partial(check_speed, name="deberta_v3_large"),
    "llama2_7b": functools.partial(check_speed, name="llama2_7b"),
    "phi3_mini": functools.partial(check_speed, name="phi3_mini"),
}
