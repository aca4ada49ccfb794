"""Training of an embedder by sentence-transformers' own trainer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from solution.config import EmbedderTuning
from solution.device import Device, choose_device
from solution.errors import UserError
from solution.progress import progress_bar
from solution.retrieval.embedder_tuning.pairs import Texts

WARMUP = 0.1


def check_packages() -> None:
    """Raise `UserError` where a package that the trainer needs is not installed."""
    from sentence_transformers.util import is_training_available

    if not is_training_available():
        raise UserError(
            "sentence-transformers trains with packages that are not installed; run: pip install datasets accelerate"
        )


def train(model: Any, columns: Mapping[str, Texts], settings: EmbedderTuning) -> list[float]:
    """Train all weights of a sentence-transformers model in place, by MultipleNegativesRankingLoss.

    For each anchor the right text is to have a higher cosine than its negatives and than the texts of the step's other
    anchors (Henderson et al. 2017, arXiv 1705.00652). Batches of the sets take turns, in proportion to their lengths.

    Args:
        columns: name of a set -> its texts.

    Returns:
        The loss of each step.

    Raises:
        UserError: see `check_packages`.
    """
    check_packages()
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    # No model card is written: nothing is looked up for one, and no examples are sought where it has some.
    model.model_card_data.local_files_only, model.model_card_data.widget = True, [{"text": ""}]
    device = choose_device()
    with tempfile.TemporaryDirectory() as scratch, _shorter(model, settings.max_tokens):
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=WARMUP,
            seed=settings.seed,
            batch_sampler="no_duplicates",  # a passage that two questions share is wrong for neither
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            **_number_format(device),
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset={name: Dataset.from_dict(texts) for name, texts in columns.items()},
            loss=MultipleNegativesRankingLoss(model),
        )
        with _watched(trainer) as losses:
            trainer.train()
    model.to(device.torch).eval()
    return losses


def _number_format(device: Device) -> dict[str, Any]:
    """The trainer's settings for the machine's device and number format."""
    import torch

    return {
        "use_cpu": device.kind == "cpu",
        "bf16": device.compute == torch.bfloat16,
        "fp16": device.compute == torch.float16,
        "dataloader_pin_memory": device.kind == "cuda",
    }


@contextlib.contextmanager
def _shorter(model: Any, tokens: int) -> Iterator[None]:
    """Let the model read at most so many tokens of a text."""
    longest = model.max_seq_length
    model.max_seq_length = min(longest, tokens)
    try:
        yield
    finally:
        model.max_seq_length = longest


@contextlib.contextmanager
def _watched(trainer: Any) -> Iterator[list[float]]:
    """Show the steps of a training as a progress bar; gives the list that takes their losses."""
    from transformers import PrinterCallback, TrainerCallback

    losses: list[float] = []
    steps = len(trainer.get_train_dataloader()) * trainer.args.num_train_epochs
    with progress_bar(int(steps), "tuning the embedder") as bar:

        class Watch(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if logs and "loss" in logs:
                    losses.append(float(logs["loss"]))

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                bar.advance(note=f"loss {losses[-1]:.3f}" if losses else None)

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Watch())
        yield losses
