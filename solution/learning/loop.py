"""The training loop: listwise loss over the options that exist, float32 trainable weights, autocast, exact resume."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from solution.config import TrainingSettings
from solution.device import Device
from solution.errors import UserError
from solution.learning import distributed
from solution.learning.average import MovingAverage, put
from solution.learning.batches import training_steps
from solution.learning.checkpoint import load_checkpoint, save_checkpoint
from solution.learning.log import TrainingLog
from solution.learning.perturbation import perturbed
from solution.progress import progress_bar, say


class Scorer(Protocol):
    """What the loop trains: modules and a way to score encoded questions."""

    @property
    def modules(self) -> list[nn.Module]:
        """All that have parameters, trained or not, in an order that does not change."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """Parts of parameter names that mark new modules."""

    def encode(self, row: int, epoch: int) -> Any:
        """The token ids of one training question (`epoch` seeds its augmentation)."""

    def length(self, item: Any) -> int:
        """Padded tokens that the item costs."""

    def scores(self, items: Sequence[Any]) -> torch.Tensor:
        """float [b, max_options], -inf where an option does not exist."""


def learning_rate_factor(step: int, total: int, settings: TrainingSettings) -> float:
    """Warm-up, then cosine, linear or no decay: the factor of the learning rate at a step (from 0)."""
    warmup = int(total * settings.warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if settings.schedule == "linear":
        return 1.0 - progress
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def listwise_loss(scores: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Sum over questions of the softmax cross-entropy over each question's options.

    Args:
        scores: float [b, max_options], -inf where an option does not exist.
        answers: int64 [b].
    """
    return nn.functional.cross_entropy(scores.float(), answers, reduction="sum")


def make_optimizer(scorer: Scorer, settings: TrainingSettings) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """AdamW over the trainable parameters: new heads at their own rate, no decay on vectors."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    parameters: list[nn.Parameter] = []
    for module in scorer.modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dtype != torch.float32:
                raise AssertionError(f"trainable parameter {name} is {parameter.dtype}, not float32")
            head = "lora_" not in name and any(part in scorer.head_names for part in name.split("."))
            rate = (settings.head_learning_rate or settings.learning_rate) if head else settings.learning_rate
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise UserError("nothing is trainable with these settings: set lora, or lora=null to train the whole model")
    listed = [
        {"params": params, "lr": rate, "base_lr": rate, "weight_decay": decay}
        for (rate, decay), params in sorted(groups.items(), key=lambda item: item[0])
    ]
    for group in listed:
        parameters += group["params"]  # type: ignore[arg-type]
    betas = (0.9, 0.999)
    if settings.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(listed, betas=betas, eps=settings.adam_epsilon)
    else:
        import bitsandbytes as bnb

        bits8 = settings.optimizer.endswith("8bit")
        kind = bnb.optim.PagedAdamW8bit if bits8 else bnb.optim.PagedAdamW32bit
        optimizer = kind(listed, betas=betas, eps=settings.adam_epsilon)
    return optimizer, parameters


class StuckWatch:
    """Says when the loss has not left ln(number of options) for `patience` steps in a row (after warm-up)."""

    def __init__(self, patience: int, losses: Sequence[float] = (), levels: Sequence[float] = ()):
        self.patience = patience
        self.losses, self.levels = list(losses), list(levels)

    def add(self, loss: float, level: float) -> bool:
        """Take a step's mean loss and mean ln(options); True when stuck."""
        self.losses = [*self.losses, loss][-self.patience :]
        self.levels = [*self.levels, level][-self.patience :]
        if len(self.losses) < self.patience:
            return False
        # A ranker that learns nothing hovers about ln(n). One that comes from above and passes through is
        # not stuck: its mean may lie in the band, and its later half lies below its earlier one.
        above = np.subtract(self.losses, self.levels)
        half = len(above) // 2
        falls = half > 0 and float(above[:half].mean() - above[half:].mean()) > 0.02
        return abs(float(above.mean())) < 0.005 and not falls


def accumulate_gradient(
    scorer: Scorer,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[tuple[Sequence[Any], np.ndarray, bool]],
    questions: int,
    device: Device,
    scaler: torch.amp.GradScaler,
    seed: int,
) -> float:
    """Add the gradient of the mean loss over a step's questions to what the parameters hold; returns that loss.

    Args:
        batches: encoded questions, their answers and whether they count, as many together as the token budget
            allows; with several processes, this one's.
        questions: how many the step has, on all processes.
        seed: of the dropout; the same seed draws the same. Processes draw their own.
    """
    torch.manual_seed(seed + distributed.rank() * 50_000_017)
    # The sum over the processes must not take in what has been summed before.
    held = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    total = 0.0
    for items, answers, counts in batches:
        with device.autocast():
            scores = scorer.scores(items)
        target = torch.as_tensor(answers, device=scores.device)
        loss = listwise_loss(scores, target) * counts / questions
        total += float(loss.detach())
        scaler.scale(loss).backward()
    total = distributed.sum_gradients(parameters, total)
    for parameter, grad in zip(parameters, held, strict=True):
        if grad is not None:
            parameter.grad = grad if parameter.grad is None else grad.add_(parameter.grad)
    return total


def gradient_is_finite(parameters: Sequence[nn.Parameter]) -> bool:
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return not norms or bool(torch.stack(norms).isfinite().all())


def train(
    scorer: Scorer,
    answers: np.ndarray,
    option_counts: np.ndarray,
    settings: TrainingSettings,
    device: Device,
    seed: int,
    checkpoint: Path,
    run: str,
    title: str,
    evaluate: Callable[[], float] | None = None,
    logs: Path | None = None,
) -> dict[str, Any]:
    """Train the scorer's trainable parameters.

    In float16 the loss is scaled; a step whose gradient overflows is skipped, as is usual, and the scale halved.
    Such a step changes neither the parameters nor their average; the learning rate's schedule goes on.

    Args:
        answers: int64 [n], the right option of each training question.
        option_counts: int [n].
        run: a hash of all that determines the result; a checkpoint of another run is not used.
        evaluate: gives the validation MAP@3; called `evaluations_per_epoch` times an epoch.
        logs: a folder for `log.csv` (see `TrainingLog`) and TensorBoard's event files.

    Returns:
        `loss` (mean of each step), `evaluations` ([step, MAP@3]), `steps`, `train_seconds`; with
        `keep: best` also `kept_step`, the step whose parameters are left in the modules; `stopped_step`
        where `patience` has ended the training early; in float16 `skipped_steps`.

    Raises:
        UserError: the loss or its gradient is not finite, or the loss is stuck at ln(options).
    """
    started = time.monotonic()
    optimizer, parameters = make_optimizer(scorer, settings)
    scaler = torch.amp.GradScaler(device.kind, enabled=device.scales_loss)
    n = len(answers)
    per_epoch = math.ceil(n / settings.questions_per_step)
    total = per_epoch * settings.epochs
    state: dict[str, Any] = {"run": run, "step": 0, "loss": [], "level": [], "evaluations": [], "seconds": 0.0}
    state |= {"skipped": 0, "log": []}
    kept: list[torch.Tensor] = []
    averages: list[torch.Tensor] | None = None
    stored = distributed.main_first(lambda: load_checkpoint(checkpoint, parameters, optimizer, run))
    if stored is not None:
        state, tensors = stored
        kept, averages = tensors.get("kept", []), tensors.get("average")
        if "scaler" in state:
            scaler.load_state_dict(state["scaler"])
    if distributed.from_main(lambda: state["step"]) != state["step"]:
        raise UserError(
            f"process {distributed.rank()} does not see the checkpoint of the first, {checkpoint}: "
            "give a --workdir that all machines share"
        )
    distributed.same_start(parameters)
    average = MovingAverage(parameters, settings.ema_decay, averages) if settings.ema_decay else None
    for module in scorer.modules:
        module.train()
    before = state["seconds"]
    warmup = int(total * settings.warmup_share)
    watch = StuckWatch(settings.stuck_patience, state["loss"][warmup:], state["level"][warmup:])
    evaluation_steps: set[int] = set()
    if evaluate is not None and settings.evaluations_per_epoch:
        count = settings.evaluations_per_epoch * settings.epochs
        evaluation_steps = {max(1, round(total * (i + 1) / count)) for i in range(count)}
        if settings.keep == "last":
            evaluation_steps -= {total}  # the fold is scored right after training anyway
    last_saved = time.monotonic()
    items: list[Any] = []
    steps: list[list[int]] = []
    encoded_epoch = -1
    logs = logs if distributed.rank() == 0 else None
    with progress_bar(total, title) as bar, TrainingLog(logs, state["log"], settings.tensorboard) as log:
        bar.advance(state["step"])
        for step in range(state["step"], total):
            epoch = step // per_epoch
            if epoch != encoded_epoch:
                items = [scorer.encode(row, epoch) for row in range(n)]
                lengths = [scorer.length(item) for item in items]
                steps = training_steps(lengths, settings.questions_per_step, seed, epoch)
                encoded_epoch = epoch
            rows = steps[step % per_epoch]
            factor = learning_rate_factor(step, total, settings)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.zero_grad(set_to_none=True)
            batches = []
            for part in distributed.own_batches([lengths[row] for row in rows], settings.tokens_per_batch):
                # A pass for the others' sake takes the shortest question and counts nothing.
                picked = [rows[i] for i in part or [0]]
                batches.append(([items[row] for row in picked], answers[picked], bool(part)))
            # The random state of a step is a function of its number: a resumed run draws the same dropout.
            step_seed = seed * 1_000_003 + step
            step_loss = accumulate_gradient(scorer, parameters, batches, len(rows), device, scaler, step_seed)
            finite = math.isfinite(step_loss)
            awp = settings.awp
            # Where the gradient has overflowed the step will be skipped, and there is no direction to move in.
            if finite and awp is not None and epoch >= awp.start_epoch and gradient_is_finite(parameters):
                with perturbed(parameters, awp):
                    adversarial = accumulate_gradient(scorer, parameters, batches, len(rows), device, scaler, step_seed)
                finite = math.isfinite(adversarial)
            scaler.unscale_(optimizer)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm))
            if not finite or not (math.isfinite(norm) or device.scales_loss):
                raise UserError(
                    f"{title}: the loss{' or its gradient' if finite else ''} is not finite at step {step + 1}. "
                    f"Lower training.learning_rate{' or training.awp.rate' if awp else ''}, raise "
                    "training.adam_epsilon, or set precision to bfloat16 or float32."
                )
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() < scale:
                state["skipped"] += 1
                if scaler.get_scale() < 1:
                    raise UserError(
                        f"{title}: float16 gradients overflow without any scaling of the loss (step {step + 1}). "
                        "Lower training.learning_rate, or set precision to bfloat16 or float32."
                    )
            elif average is not None:
                average.update(step - state["skipped"])
            level = float(np.log(option_counts[rows]).mean())
            state["step"] = step + 1
            state["loss"].append(round(step_loss, 6))
            state["level"].append(round(level, 6))
            if step >= warmup and watch.add(state["loss"][-1], state["level"][-1]):
                raise UserError(
                    f"{title}: the loss has stayed at ln(number of options) = {level:.3f} for "
                    f"{settings.stuck_patience} steps: nothing is learnt. Try another training.learning_rate, "
                    "check that the answers are right, or raise training.stuck_patience."
                )
            score = None
            if step + 1 in evaluation_steps and evaluate is not None:
                with average.in_place() if average else contextlib.nullcontext():
                    score = round(evaluate(), 6)
                    if settings.keep == "best" and score > max((s for _, s in state["evaluations"]), default=-1.0):
                        state["kept_step"] = step + 1
                        kept = [parameter.detach().cpu().clone() for parameter in parameters]
                state["evaluations"].append([step + 1, score])
                for module in scorer.modules:
                    module.train()
            seconds = before + time.monotonic() - started
            tokens = sum(lengths[row] for row in rows)
            log.add(step + 1, step_loss, settings.learning_rate * factor, norm, score, seconds, tokens)
            recent = state["loss"][-20:]
            note = f"loss {sum(recent) / len(recent):.3f}"
            if state["evaluations"]:
                note += f" MAP@3 {state['evaluations'][-1][1]:.3f}"
            bar.advance(note=note)
            waited = sum(at > state["kept_step"] for at, _ in state["evaluations"]) if kept else 0
            if settings.patience is not None and waited >= settings.patience and step + 1 < total:
                state["stopped_step"] = step + 1
                say(
                    f"{title}: stopped after step {step + 1} of {total}, {waited} evaluations without a higher MAP@3; "
                    f"step {state['kept_step']} is kept"
                )
                break
            due = distributed.rank() == 0 and time.monotonic() - last_saved >= settings.checkpoint_seconds
            if due and step + 1 < total:
                state["seconds"] = before + time.monotonic() - started
                if device.scales_loss:
                    state["scaler"] = scaler.state_dict()
                groups = {"kept": kept, "average": average.values if average else []}
                save_checkpoint(checkpoint, parameters, optimizer, state, groups)
                last_saved = time.monotonic()
    if kept:
        put(parameters, kept)
    elif average is not None:
        put(parameters, average.values)
    for module in scorer.modules:
        module.eval()
    return {
        **{name: state[name] for name in ("kept_step", "stopped_step") if name in state},
        **({"skipped_steps": state["skipped"]} if device.scales_loss else {}),
        "steps": state["step"],
        "loss": state["loss"],
        "evaluations": state["evaluations"],
        "train_seconds": round(before + time.monotonic() - started, 1),
    }
