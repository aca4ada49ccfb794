"""The training loop: listwise loss over the options that exist, float32 trainable weights, autocast, exact resume.

`train` is the loop itself and names its steps; `Training`, below it, is a run under way with these steps as methods.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from solution.errors import UserError
from solution.learning import distributed
from solution.learning.ahead import encoded_windows, encoding_processes, pieces
from solution.learning.average import MovingAverage, put
from solution.learning.batches import Window, epoch_windows, key_with_order
from solution.learning.checkpoint import Progress, load_checkpoint, save_checkpoint
from solution.learning.gradient import Aim, Batch, accumulate_gradient, gradient_is_finite
from solution.learning.log import TrainingLog
from solution.learning.optimizer import learning_rate_factor, make_optimizer
from solution.learning.perturbation import perturbed
from solution.learning.scorer import Scorer
from solution.learning.stuck import StuckWatch
from solution.learning.task import RunFiles, RunSettings, Step, Targets, Update
from solution.progress import progress_bar, say


def train(
    scorer: Scorer,
    targets: Targets,
    run: RunSettings,
    files: RunFiles,
    evaluate: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Train the scorer's trainable parameters; killed and called again, go on from the checkpoint.

    In float16 the loss is scaled; a step whose gradient overflows is skipped, as is usual, and the scale halved.
    Such a step changes neither the parameters nor their average; the learning rate's schedule goes on.

    Args:
        evaluate: gives the validation MAP@3; called `evaluations_per_epoch` times an epoch.

    Returns:
        `loss` (mean of each step), `evaluations` ([step, MAP@3]), `steps`, `planned_steps`, `train_seconds`; with
        `keep: best` also `kept_step`, the step whose parameters are left in the modules; `stopped_step`
        where `patience` has ended the training early; in float16 `skipped_steps`.

    Raises:
        UserError: the loss or its gradient is not finite, or the loss is stuck at ln(options).
    """
    # Optimizer, moving average and counters: fresh ones, or those of the checkpoint.
    training = Training(scorer, targets, run, files)
    progress = training.progress
    evaluation_steps = training.evaluation_steps() if evaluate is not None else set()

    # Several processes train one model together; the first of them writes.
    logs = files.logs if distributed.rank() == 0 else None
    with (
        progress_bar(training.last_step, run.title) as bar,
        TrainingLog(logs, progress.log, run.training.tensorboard) as log,
    ):
        bar.advance(progress.step)
        for step in training.remaining_steps():
            # One update of the parameters.
            update = training.update(step)

            # A loss that never leaves ln(options) costs hours and teaches nothing: the run ends with a message.
            training.check_stuck()

            # Now and then the validation questions; with `keep: best` the best parameters so far are set aside.
            score = None
            if evaluate is not None and progress.step in evaluation_steps:
                score = training.evaluate(evaluate)

            seconds, tokens = training.seconds(), sum(step.lengths)
            log.add(progress.step, update.loss, update.learning_rate, update.gradient_norm, score, seconds, tokens)
            bar.advance(note=training.note())

            # Further steps would not help, or a kill at this point would lose too much work.
            if training.out_of_patience():
                break
            training.save_when_due()

    # The parameters to keep are put into the modules, which are ready to score.
    return training.finish()


class Training:
    """A run under way: model, optimizer, and everything that changes from step to step.

    Attributes:
        parameters: the trainable ones, in an order that does not change.
        total_steps: of the schedule of the learning rate.
        last_step: the step that ends the run.
        progress: counters and curves, kept in the checkpoint.
        best: the parameters at the best evaluation, on the CPU; empty without `keep: best`.
        average: the moving average of the parameters, with `ema_decay`.
    """

    def __init__(self, scorer: Scorer, targets: Targets, run: RunSettings, files: RunFiles):
        """
        Raises:
            UserError: nothing is trainable, or processes that train together do not see the same checkpoint.
        """
        self._started = self._last_saved = time.monotonic()
        self.scorer, self.targets, self.run, self.files = scorer, targets, run, files
        settings = run.training
        self.optimizer, self.parameters = make_optimizer(scorer, settings)
        # float16 gradients underflow unless the loss is scaled up; in other formats the scaler does nothing.
        self.scaler = torch.amp.GradScaler(run.device.kind, enabled=run.device.scales_loss)
        self.steps_per_epoch = math.ceil(len(targets.answers) / settings.questions_per_step)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.last_step = max(1, round(self.total_steps * run.share))
        self._warmup_steps = int(self.total_steps * settings.warmup_share)

        # Resume or begin. Parameters and optimizer are restored in place.
        self.progress = Progress(key_with_order(run.key, len(targets.answers)))
        self.best: list[torch.Tensor] = []
        stored_average = self._resume()
        distributed.same_start(self.parameters)
        self.average: MovingAverage | None = None
        if settings.ema_decay:
            self.average = MovingAverage(self.parameters, settings.ema_decay, stored_average)
        self._seconds_before = self.progress.seconds
        after_warmup = slice(self._warmup_steps, None)
        losses, levels = self.progress.loss[after_warmup], self.progress.level[after_warmup]
        self._stuck = StuckWatch(settings.stuck_patience, losses, levels)
        self._set_training(True)

    def _resume(self) -> list[torch.Tensor] | None:
        """Take up the checkpoint where there is one of this run; returns the moving average in it."""
        key = self.progress.run
        stored = distributed.main_first(
            lambda: load_checkpoint(self.files.checkpoint, self.parameters, self.optimizer, key)
        )
        average = None
        if stored is not None:
            self.progress, tensors = stored
            self.best, average = tensors.get("kept", []), tensors.get("average")
            if self.progress.scaler is not None:
                self.scaler.load_state_dict(self.progress.scaler)
        if distributed.from_main(lambda: self.progress.step) != self.progress.step:
            raise UserError(
                f"process {distributed.rank()} does not see the checkpoint of the first, {self.files.checkpoint}: "
                "give a --workdir that all machines share"
            )
        return average

    def _set_training(self, training: bool) -> None:
        """Switch dropout on or off."""
        for module in self.scorer.modules:
            module.train(training)

    def seconds(self) -> float:
        """Seconds of training so far; those between a kill and the next start do not count."""
        return self._seconds_before + time.monotonic() - self._started

    # --- one step -------------------------------------------------------------------------

    def remaining_steps(self) -> Iterator[Step]:
        """The steps that are not done yet, epoch by epoch: a resumed run goes on within its epoch."""
        settings, scorer = self.run.training, self.scorer
        plan, planned = itertools.tee(self._remaining_windows())
        # Encoded anew in each epoch: options are shuffled and contexts dropped in another way.
        jobs = ([scorer.encoding_job(rows, epoch) for rows in pieces(window.rows)] for epoch, window, _ in plan)
        processes = encoding_processes(len(self.targets.answers), settings.encoding_processes)
        windows = encoded_windows(scorer, scorer.for_processes() if processes else None, jobs, processes)
        for (epoch, window, done), stored in zip(planned, windows, strict=True):
            for places in window.steps([one.length for one in stored], settings.questions_per_step)[done:]:
                if self.progress.step >= self.last_step:
                    return
                chosen = [stored[place] for place in places]
                rows, lengths = [window.rows[place] for place in places], [one.length for one in chosen]
                yield Step(epoch, rows, [one.item for one in chosen], lengths)

    def _remaining_windows(self) -> Iterator[tuple[int, Window, int]]:
        """The windows that are not done yet, each with its epoch and the number of its steps that are done."""
        settings, done = self.run.training, self.progress.step
        first = 0  # step of the window
        for epoch in range(settings.epochs):
            if first + self.steps_per_epoch <= done:
                first += self.steps_per_epoch
                continue
            count = len(self.targets.answers)
            for window in epoch_windows(count, settings.questions_per_step, self.run.seed, epoch):
                if first >= self.last_step:
                    return
                if first + len(window.order) > done:
                    yield epoch, window, max(done - first, 0)
                first += len(window.order)

    def update(self, step: Step) -> Update:
        """One optimizer step.

        Raises:
            UserError: the loss or its gradient is not finite.
        """
        settings, progress = self.run.training, self.progress
        factor = learning_rate_factor(progress.step, self.total_steps, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)

        # The gradient of the mean loss over the step's questions, summed over batches and processes.
        batches = self._batches(step)
        loss = self._add_gradient(batches, step)
        finite = math.isfinite(loss)

        # Adversarial weight perturbation: a second gradient, taken where the weights have moved uphill, is added.
        # After an overflow the step is skipped anyway, and there is no direction to move in.
        awp = settings.awp
        if finite and awp is not None and step.epoch >= awp.start_epoch and gradient_is_finite(self.parameters):
            with perturbed(self.parameters, awp):
                finite = math.isfinite(self._add_gradient(batches, step))

        # One outlier must not throw the weights far off: the gradient is clipped to a norm, unscaled before that.
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, settings.max_gradient_norm))
        self._require_finite(finite, norm)

        # The update, left out where float16 overflowed.
        if self._step_optimizer():
            if self.average is not None:
                self.average.update(progress.step - progress.skipped)
        else:
            progress.skipped += 1

        progress.step += 1
        progress.loss.append(round(loss, 6))
        progress.level.append(round(self.targets.guess(step.rows), 6))
        return Update(loss, settings.learning_rate * factor, norm)

    def _batches(self, step: Step) -> list[Batch]:
        """A step cut into as many passes as the token budget asks for; with several processes, this one's share."""
        batches = []
        for places in distributed.own_batches(step.lengths, self.run.training.tokens_per_batch):
            # All processes make the same number of passes: an idle one repeats the shortest question, with weight 0.
            chosen = places or [0]
            rows, items = [step.rows[i] for i in chosen], [step.items[i] for i in chosen]
            batches.append(self.targets.batch(rows, items, counts=bool(places)))
        return batches

    def _add_gradient(self, batches: Sequence[Batch], step: Step) -> float:
        """Add a step's gradient to what the parameters hold; returns the step's loss."""
        # The random state of a step is a function of its number, so that a resumed run draws the same dropout.
        # Processes draw their own.
        seed = self.run.seed * 1_000_003 + self.progress.step
        torch.manual_seed(seed + distributed.rank() * 50_000_017)
        training = self.run.training
        aim = Aim(training.label_smoothing, training.r_drop)
        questions = len(step.rows)
        return accumulate_gradient(self.scorer, self.parameters, batches, questions, self.run.device, self.scaler, aim)

    def _require_finite(self, finite: bool, norm: float) -> None:
        """Raise `UserError` where a loss (`finite`) or its gradient is not finite; float16's overflow is no error."""
        if finite and (math.isfinite(norm) or self.run.device.scales_loss):
            return
        raise UserError(
            f"{self.run.title}: the loss{' or its gradient' if finite else ''} is not finite at step "
            f"{self.progress.step + 1}. Lower training.learning_rate"
            f"{' or training.awp.rate' if self.run.training.awp else ''}, raise training.adam_epsilon, or set "
            "precision to bfloat16 or float32."
        )

    def _step_optimizer(self) -> bool:
        """Update the parameters; False where the scaler skipped that because float16 gradients overflowed."""
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            return True
        if self.scaler.get_scale() < 1:
            raise UserError(
                f"{self.run.title}: float16 gradients overflow without any scaling of the loss (step "
                f"{self.progress.step + 1}). Lower training.learning_rate, or set precision to bfloat16 or float32."
            )
        return False

    # --- after a step ---------------------------------------------------------------------

    def check_stuck(self) -> None:
        """Raise `UserError` where the loss has stayed at ln(number of options) since the warm-up."""
        progress, patience = self.progress, self.run.training.stuck_patience
        if progress.step > self._warmup_steps and self._stuck.add(progress.loss[-1], progress.level[-1]):
            raise UserError(
                f"{self.run.title}: the loss has stayed at ln(number of options) = {progress.level[-1]:.3f} for "
                f"{patience} steps: nothing is learnt. Try another training.learning_rate, "
                "check that the answers are right, or raise training.stuck_patience."
            )

    def evaluation_steps(self) -> set[int]:
        """The steps (from 1) after which the validation questions are scored, evenly spread over the run."""
        settings = self.run.training
        count = settings.evaluations_per_epoch * settings.epochs
        steps = {max(1, round(self.total_steps * (i + 1) / count)) for i in range(count)}
        # The fold is scored right after the training anyway.
        return steps - {self.total_steps} if settings.keep == "last" else steps

    def evaluate(self, evaluate: Callable[[], float]) -> float:
        """The validation MAP@3 of the parameters, or of their average where there is one."""
        progress = self.progress
        with self.average.in_place() if self.average else contextlib.nullcontext():
            score = round(evaluate(), 6)
            best_before = max((before for _, before in progress.evaluations), default=-1.0)
            if self.run.training.keep == "best" and score > best_before:
                progress.kept_step = progress.step
                self.best = [parameter.detach().cpu().clone() for parameter in self.parameters]
        progress.evaluations.append([progress.step, score])
        self._set_training(True)
        return score

    def note(self) -> str:
        """The text beside the progress bar."""
        recent = self.progress.loss[-20:]
        note = f"loss {sum(recent) / len(recent):.3f}"
        if self.progress.evaluations:
            note += f" MAP@3 {self.progress.evaluations[-1][1]:.3f}"
        return note

    def out_of_patience(self) -> bool:
        """True, with a message, where `patience` evaluations in a row have brought no higher MAP@3."""
        progress, patience = self.progress, self.run.training.patience
        if patience is None or progress.kept_step is None or progress.step == self.total_steps:
            return False
        waited = sum(step > progress.kept_step for step, _ in progress.evaluations)
        if waited < patience:
            return False
        progress.stopped_step = progress.step
        say(
            f"{self.run.title}: stopped after step {progress.step} of {self.total_steps}, {waited} evaluations without "
            f"a higher MAP@3; step {progress.kept_step} is kept"
        )
        return True

    def save_when_due(self) -> None:
        """Write a checkpoint every `checkpoint_seconds`; none after the last step, whose result is saved at once."""
        progress, now = self.progress, time.monotonic()
        due = distributed.rank() == 0 and now - self._last_saved >= self.run.training.checkpoint_seconds
        if not due or progress.step == self.last_step:
            return
        progress.seconds = self.seconds()
        if self.run.device.scales_loss:
            progress.scaler = self.scaler.state_dict()
        tensors = {"kept": self.best, "average": self.average.values if self.average else []}
        save_checkpoint(self.files.checkpoint, self.parameters, self.optimizer, progress, tensors)
        self._last_saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Put the parameters to keep into the modules, which are left ready to score; returns the run's facts."""
        if self.best:
            put(self.parameters, self.best)
        elif self.average is not None:
            put(self.parameters, self.average.values)
        self._set_training(False)
        progress = self.progress
        ends = {"kept_step": progress.kept_step, "stopped_step": progress.stopped_step}
        return {
            **{name: step for name, step in ends.items() if step is not None},
            **({"skipped_steps": progress.skipped} if self.run.device.scales_loss else {}),
            "steps": progress.step,
            "planned_steps": self.total_steps,
            "loss": progress.loss,
            "evaluations": progress.evaluations,
            "train_seconds": round(self.seconds(), 1),
        }
