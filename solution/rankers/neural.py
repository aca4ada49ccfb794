"""The parts that the trained families share: fitting and predicting (their model: `model.py`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from solution.config import RankerConfig
from solution.device import trim_memory
from solution.errors import UserError
from solution.exam import Exam, is_question, texts_read
from solution.files import MANIFEST, content_hash, read_json
from solution.learning import adapters, distributed
from solution.learning.ahead import Encoder, encoded_windows, encoding_processes, pieces
from solution.learning.batches import window_size
from solution.learning.loop import train
from solution.learning.task import RunFiles, RunSettings, Targets
from solution.metrics import map_at_k
from solution.probabilities import masked_softmax
from solution.progress import Bar, progress_bar, say
from solution.rankers.alike import Alike, Groups, alike_options, by_letters, settle
from solution.rankers.layout import Encoded, rotations, shuffled, spread
from solution.rankers.model import RankerModel
from solution.rankers.prompts import token_ids
from solution.rankers.scoring import BatchScoring, not_finite
from solution.rankers.supervision import question_weights, target_probabilities

_BEGINNING = 32  # tokens of an option


E = TypeVar("E", bound=Encoded)
"""The form in which a family encodes a question."""


@dataclass(frozen=True)
class Item(Generic[E]):
    """An encoded question.

    Attributes:
        prior: retrieval's scores of the encoded options, float [options]; empty without `retrieval_prior`.
    """

    encoded: E
    prior: list[float]


@dataclass(frozen=True)
class EncodingJob:
    """Questions to encode, and what is read of the exam for that.

    Attributes:
        priors: retrieval's scores, float [n, max_options]; None without `retrieval_prior`.
        rows: places of these questions among all that are trained on; None: they are scored.
        epoch: of the training.
    """

    exam: Exam
    priors: np.ndarray | None
    rows: Sequence[int] | None = None
    epoch: int = 0


def _targets(exam: Exam, config: RankerConfig) -> Targets:
    counts = exam.questions.exists().sum(axis=1)
    weights, soft = question_weights(exam, config.training), target_probabilities(exam, config.training)
    return Targets(exam.questions.answers, counts, weights, soft)


class NeuralRanker(RankerModel, Generic[E]):
    """A ranker with a pretrained model.

    A family gives `encode_question`, `encoded_length` and `encoded_scores` and what `RankerModel` asks for, and may
    give `parts`.
    """

    encodes_with: tuple[str, ...] = ("config", "tokenizer")
    """Attributes that encoding needs: all that other processes get of a ranker."""
    least_batch = "one question at a time"
    memory_advice = "Set a smaller max_tokens, quantization (4-bit weights) or, for a causal ranker, stream: true"

    def __init__(self, config: RankerConfig, cache: Path):
        super().__init__(config, cache)
        self.title = config.name
        self.model_seconds = 0.0
        """Time in the model, of all `predict` calls together."""
        self.alike: Alike = {}
        """The options that were read alike in the last `predict` call."""
        self.float32_ids: set[str] = set()
        """Ids of the questions some of whose scores overflowed in float16, of all `predict` calls since the last
        `fit`: those were computed again in float32."""
        self._train_exam: Exam | None = None
        self._train_priors: np.ndarray | None = None
        self.trained_share = 1.0
        """The share of the steps after which `fit` ends; the learning rate falls as if it went on."""
        self.token_limit: int | None = None
        """Padded tokens that a batch may have since memory ran out; None: it never has."""

    # --- given by the family ---

    def encode_question(self, exam: Exam, row: int, passages: int, option_order: Sequence[int]) -> E:
        """A question with its first `passages` passages, its options in the order given."""
        raise NotImplementedError

    def encoded_length(self, encoded: E) -> int:
        """Padded tokens that an encoded question costs."""
        raise NotImplementedError

    def encoded_scores(self, items: Sequence[E]) -> torch.Tensor:
        """float [b, max_options] of encoded questions, -inf where there is no option."""
        raise NotImplementedError

    # --- ranker ---

    def fit(self, train_exam: Exam, valid_exam: Exam, checkpoint: Path, logs: Path | None = None) -> dict[str, Any]:
        """See `Ranker.fit`."""
        config = self.config
        if not config.trains:
            self.build()
            if not self.streaming:  # its layers are on disk: the check would read them all
                self._check_before_training(train_exam)
            return self._report_bits()
        train_exam.questions.require_answers("training")
        self.model = None  # after an earlier `fit` or `load` too, training starts from the base model
        self.build()
        if self.start is not None:
            self._take(self.start)
        trainable, total = self.parameter_counts
        computed_on = f"{self.device}{distributed.describe_processes(self.modules)}"
        say(
            f"{config.name}: {trainable:,} of {total:,} parameters are trained ({trainable / total:.2%}), {computed_on}"
        )
        bits = self._report_bits()

        # The validation questions are watched: those with an answer are scored now and then.
        answers = valid_exam.questions.answers
        rows = np.flatnonzero(answers >= 0)

        def evaluate() -> float:
            return map_at_k(self.predict(valid_exam.hidden().subset(rows)), answers[rows])

        self._train_exam, self._train_priors = train_exam, self._priors(train_exam)
        title = checkpoint.name and f"{config.name} {checkpoint.name.replace('_', ' ')}"
        key = self._run_key(train_exam, valid_exam)
        try:
            self._check_before_training(train_exam)
            facts = train(
                self,
                _targets(train_exam, config),
                RunSettings(title, key, config.training, self.device, config.seed, self.trained_share),
                RunFiles(checkpoint, logs),
                evaluate if len(rows) else None,
            )
        finally:
            self._train_exam = self._train_priors = None
        self.float32_ids.clear()
        counts = {"trainable_parameters": trainable, "parameters": total}
        return {**facts, **counts, **bits, "computed_on": computed_on}

    def _check_before_training(self, exam: Exam) -> None:
        """Raise `UserError` where the loaded model cannot be trained or scored as the family does it."""

    def _run_key(self, train_exam: Exam, valid_exam: Exam) -> str:
        """A hash of all that the result of a training depends on."""
        return content_hash(
            self.config.hash(),
            train_exam.questions.content_hash(),
            [is_question(train_exam, row) for row in range(len(train_exam))],
            texts_read(train_exam),
            None if self._train_priors is None else np.round(self._train_priors, 4).tolist(),
            train_exam.questions.ids,
            valid_exam.questions.content_hash(),
            *([] if self.trained_share == 1 else [self.trained_share]),
            *([] if self.start is None else [read_json(self.start / MANIFEST, "the pretraining's manifest", "")]),
            *([] if train_exam.supervision is None else [train_exam.supervision.key]),
        )

    def _report_bits(self) -> dict[str, Any]:
        """Say, and return for metrics.json, the bits that a parameter takes in memory; nothing without quantization."""
        if self.config.quantization is None:
            return {}
        bits = adapters.bits_per_parameter(self.model)
        say(
            f"{self.config.name}: {bits['quantized']:.3f} bits a 4-bit parameter with its constants, "
            f"{bits['model']:.2f} a parameter over the whole model"
        )
        return {"bits_per_parameter": bits}

    def length(self, item: Item[E]) -> int:
        """Padded tokens that an item costs."""
        return self.encoded_length(item.encoded)

    def columns(self, item: Item[E]) -> list[int]:
        """The places of an item's scores in its row."""
        return item.encoded.positions

    def parts(self, item: Item[E]) -> list[Item[E]]:
        """Pieces of an item that may be scored apart in `predict`, each option in exactly one of them."""
        return [item]

    def scores(self, items: Sequence[Item[E]]) -> torch.Tensor:
        """float [b, max_options], -inf where there is no option."""
        return self.with_prior(self.encoded_scores([item.encoded for item in items]), items)

    def with_prior(self, scores: torch.Tensor, items: Sequence[Item[E]]) -> torch.Tensor:
        """The scores of the encoded questions plus retrieval's, where the ranker is to use them."""
        if self.prior is None:
            return scores
        flat = torch.tensor([value for item in items for value in item.prior], device=scores.device)
        return scores + spread(self.prior(flat), [item.encoded for item in items])

    def batch_scores(
        self, batches: Sequence[Sequence[Item[E]]], advance: Callable[[int], None]
    ) -> Iterator[torch.Tensor]:
        """`scores` of one batch after the other; `advance` is called with the number of items scored since."""
        for batch in batches:
            with self.device.autocast():
                scores = self.scores(batch)
            advance(len(batch))
            yield scores

    def _priors(self, exam: Exam) -> np.ndarray | None:
        return exam.prior(self.config) if self.config.retrieval_prior else None

    def _item(self, exam: Exam, priors: np.ndarray | None, row: int, passages: int, order: list[int]) -> Item[E]:
        prior = [] if priors is None else priors[row, order].tolist()
        return Item(self.encode_question(exam, row, passages, order), prior)

    def encoding_job(self, rows: Sequence[int], epoch: int) -> EncodingJob:
        """See `Scorer.encoding_job`."""
        exam, priors = self._train_exam, self._train_priors
        assert exam is not None
        return EncodingJob(exam.subset(rows), _of_rows(priors, rows), rows, epoch)

    def encode_job(self, job: EncodingJob) -> list[Item[E]]:
        """A training's questions with their augmentation; others once for each rotation of their options."""
        if job.rows is None:
            return self._items(job.exam, job.priors)
        return [self._augmented(job, place) for place in range(len(job.rows))]

    def _augmented(self, job: EncodingJob, place: int) -> Item[E]:
        """A training question as an epoch reads it: a function of seed, epoch and row."""
        # Options in another order, and now and then no context, so that the ranker relies on neither.
        assert job.rows is not None
        exam, settings = job.exam, self.config.training
        rng = np.random.default_rng([self.config.seed, job.epoch, job.rows[place], 7])
        passages = 0 if rng.random() < settings.context_dropout else self.config.passages
        options = exam.questions.options[place]
        order = shuffled(options, rng) if settings.option_shuffle else [i for i, option in enumerate(options) if option]
        return self._item(exam, job.priors, place, passages, order)

    def for_processes(self) -> Encoder | None:
        """See `Scorer.for_processes`; a ranker without its model."""
        copy = object.__new__(type(self))
        vars(copy).update({name: getattr(self, name) for name in self.encodes_with})
        return copy

    def items(self, exam: Exam) -> tuple[list[int], list[Item[E]]]:
        """Every question to score, once for each rotation of its options, and the exam's row of each."""
        return self._rotated_rows(exam), self._items(exam, self._priors(exam))

    def _rotated_rows(self, exam: Exam) -> list[int]:
        every = enumerate(exam.questions.options)
        return [row for row, options in every for _ in rotations(options, self.config.rotations)]

    def _items(self, exam: Exam, priors: np.ndarray | None) -> list[Item[E]]:
        return [
            self._item(exam, priors, row, self.config.passages, order)
            for row, options in enumerate(exam.questions.options)
            for order in rotations(options, self.config.rotations)
        ]

    def use_less_memory(self) -> bool:
        """Take less memory from now on, beside that of a batch; False where there is nothing left to do."""
        return False

    def predict(self, exam: Exam) -> np.ndarray:
        """See `Ranker.predict`."""
        self.build()
        for module in self.modules:
            module.eval()

        # A large exam is encoded window by window, ahead of the device.
        count, priors = len(exam), self._priors(exam)
        size = window_size(count)
        parts = [range(begin, min(begin + size, count)) for begin in range(0, max(count, 1), size)]
        jobs = ([EncodingJob(exam.subset(rows), _of_rows(priors, rows)) for rows in pieces(part)] for part in parts)
        processes = encoding_processes(count, self.config.training.encoding_processes)
        windows = encoded_windows(self, self.for_processes() if processes else None, jobs, processes)

        tables: list[np.ndarray] = []
        groups: Groups = {}
        with progress_bar(0, f"{self.config.name} scoring") as bar:
            for part, stored in zip(parts, windows, strict=True):
                window = exam if len(parts) == 1 else exam.subset(part)
                items = [one.item for one in stored]
                scores, rows = self._item_scores(window, items, bar, (count - part.start) / max(len(part), 1))
                tables.append(_averaged(scores, rows, exam.questions.exists()[part.start : part.stop]))
                encoded = {row: item.encoded for row, item in zip(reversed(rows), reversed(items), strict=True)}
                groups |= {part[row]: found for row, found in self._read_alike(window, encoded).items()}
        trim_memory()
        self.alike = by_letters(exam.questions, groups)
        return settle(np.concatenate(tables), exam, groups, self.config)

    def _item_scores(
        self, exam: Exam, items: Sequence[Item[E]], bar: Bar, share: float
    ) -> tuple[np.ndarray, list[int]]:
        """Float [items, max_options], the scores of `items(exam)`, and the exam's row of each.

        Args:
            share: so many times as much as this is still to do, this included.
        """
        rows = self._rotated_rows(exam)
        # Cut into parts that may share a batch with any other.
        parts = [(number, part) for number, item in enumerate(items) for part in self.parts(item)]
        exists = exam.questions.exists()  # bool [n, max_options]
        scores = np.zeros((len(items), exists.shape[1]))  # [rotated questions, max_options]

        scoring = BatchScoring(self, [part for _, part in parts])
        bar.expect(round(scoring.total * share))
        # Layers that FSDP gathers in inference mode could not be trained afterwards.
        without_gradients = torch.no_grad() if distributed.shards() else torch.inference_mode()
        started = time.monotonic()
        with without_gradients:
            for batch, values in scoring.results(bar.advance):  # values: float64 [b, max_options]
                for i, row in zip(batch, values, strict=True):
                    number, part = parts[i]
                    scores[number, part.encoded.positions] = row[part.encoded.positions]
        self.model_seconds += time.monotonic() - started

        # Each process has scored its own part of the questions, and has zeros for the others.
        scores = distributed.sum_tables(scores)
        repeated = np.zeros((len(exam), 1))
        repeated[[rows[parts[i][0]] for i in scoring.repeated]] = 1
        self.float32_ids |= {exam.questions.ids[row] for row in np.flatnonzero(distributed.sum_tables(repeated))}
        if not np.isfinite(scores[exists[rows]]).all():
            raise UserError(f"the ranker {self.config.name} {not_finite(self.device, 'precision')}")
        return scores, rows

    def read_options(self, exam: Exam, row: int, encoded: E) -> list[list[int]]:
        """The token ids by which the ranker knows each option of an encoded question, in the order of `positions`."""
        return encoded.option_ids

    def find_alike(self, exam: Exam) -> Groups:
        """The options that a built ranker cannot tell apart, without scoring; contexts are not read."""
        options = exam.questions.options
        there = [(row, i) for row, texts in enumerate(options) for i, text in enumerate(texts) if text]
        begins: dict[int, dict[int, tuple[int, ...]]] = {}
        for (row, i), ids in zip(there, token_ids(self.tokenizer, [options[row][i] for row, i in there]), strict=True):
            begins.setdefault(row, {})[i] = tuple(ids[:_BEGINNING])
        # A large exam is encoded as it is read only where options begin with the same tokens.
        rows = [row for row, tokens in begins.items() if alike_options(options[row], tokens)]
        return self._read_alike(exam, {row: self.encode_question(exam, row, 0, list(begins[row])) for row in rows})

    def _read_alike(self, exam: Exam, questions: Mapping[int, E]) -> Groups:
        """The options that are the same tokens, see `alike`; `questions`: row -> the encoded question."""
        groups: Groups = {}
        for row, encoded in questions.items():
            ids = map(tuple, self.read_options(exam, row, encoded))
            found = alike_options(exam.questions.options[row], dict(zip(encoded.positions, ids, strict=True)))
            if found:
                groups[row] = found
        return groups


def _of_rows(table: np.ndarray | None, rows: Sequence[int]) -> np.ndarray | None:
    return None if table is None else table[list(rows)]


def _averaged(scores: np.ndarray, rows: Sequence[int], exists: np.ndarray) -> np.ndarray:
    """Probabilities, float32 [n, width]: the rotations of a question are averaged as log-probabilities.

    Args:
        scores: float [rotated questions, at most width].
        rows: the question of each.
        exists: bool [n, width].
    """
    from scipy.special import log_softmax

    scores = np.pad(scores, ((0, 0), (0, exists.shape[1] - scores.shape[1])))
    table = np.zeros(exists.shape)
    np.add.at(table, rows, log_softmax(np.where(exists[rows], scores, -np.inf), axis=1))
    return masked_softmax(table / np.bincount(rows, minlength=len(table))[:, None], exists)
