"""The parts that the trained families share: loading the base model, LoRA, fitting, predicting, saving."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from solution.config import RankerConfig
from solution.device import Device, choose_device, trim_memory
from solution.errors import UserError
from solution.exam import Exam, is_question
from solution.files import MANIFEST, content_hash, read_json, read_manifest
from solution.learning import adapters, distributed
from solution.learning.adapters import module_state, put_state
from solution.learning.loop import RunFiles, RunSettings, Targets, train
from solution.metrics import map_at_k
from solution.models import MERGED, load_pretrained, resolve_model
from solution.probabilities import masked_softmax
from solution.progress import progress_bar, say
from solution.rankers.alike import Alike, Groups, alike_options, by_letters, settle
from solution.rankers.layout import Encoded, rotations, spread
from solution.rankers.prompts import token_ids
from solution.rankers.scoring import BatchScoring, not_finite
from solution.tokenization import load_tokenizer

HEAD = "head.safetensors"
PRIOR = "prior.safetensors"
WHOLE_WEIGHTS = "model.safetensors"
_BEGINNING = 32  # tokens of an option


class RetrievalPrior(nn.Module):
    """The option score of retrieval times a learnt scale, added to a ranker's own score."""

    def __init__(self, temperature: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((1,), -math.log(temperature)))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores * self.log_scale.exp()


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


class NeuralRanker(Generic[E]):
    """A ranker with a pretrained model.

    A family gives `_load_base`, `encode_question`, `encoded_length` and `encoded_scores`, and may give `_make_head`,
    `base_dtype` and `parts`.
    """

    new_modules: tuple[str, ...] = ()
    """Modules of the base model that are new or must be trained whole (saved with the adapter)."""
    merging = False
    """Take 4-bit weights back to full precision before LoRA is put on them, so that they can be merged."""
    least_batch = "one question at a time"
    memory_advice = "Set a smaller max_tokens, quantization (4-bit weights) or, for a causal ranker, stream: true"
    streaming = False
    """True where the base model's weights stay on disk, and are read layer by layer."""

    def __init__(self, config: RankerConfig, cache: Path):
        self.config = config
        self.title = config.name
        self.cache = cache
        self.device: Device = choose_device(config.precision)
        if config.precision == "auto" and self.device.may_overflow and not config.traits.float16:
            self.device = replace(self.device, compute=torch.float32)
        self.model: Any = None
        self.head: nn.Module | None = None
        self.prior: RetrievalPrior | None = None
        self.tokenizer: Any = None
        self.load_seconds = 0.0
        """Time that loading the base model took."""
        self.model_seconds = 0.0
        """Time in the model, of all `predict` calls together."""
        self.alike: Alike = {}
        """The options that were read alike in the last `predict` call."""
        self.float32_ids: set[str] = set()
        """Ids of the questions some of whose scores overflowed in float16, of all `predict` calls since the last
        `fit`: those were computed again in float32."""
        self._train_exam: Exam | None = None
        self._train_priors: np.ndarray | None = None
        self.start: Path | None = None
        """The folder of an earlier training (see `save`) that `fit` goes on from; None: from the base model."""
        self.trained_share = 1.0
        """The share of the steps after which `fit` ends; the learning rate falls as if it went on."""
        self.token_limit: int | None = None
        """Padded tokens that a batch may have since memory ran out; None: it never has."""

    # --- given by the family ---

    def _load_base(self, source: str, **options: Any) -> Any:
        """The base model in `source`, a folder or hub name; `options` of `from_pretrained`."""
        raise NotImplementedError

    def pretrained_model(self, kind: Any, source: str, **options: Any) -> Any:
        """The model of a transformers auto class, for `_load_base`."""
        return load_pretrained(kind, source, self.device.kind, **options)

    def _make_head(self) -> nn.Module | None:
        """A head beside the base model; None where the base model has its own."""
        return None

    def encode_question(self, exam: Exam, row: int, passages: int, option_order: Sequence[int]) -> E:
        """A question with its first `passages` passages, its options in the order given."""
        raise NotImplementedError

    def encoded_length(self, encoded: E) -> int:
        """Padded tokens that an encoded question costs."""
        raise NotImplementedError

    def encoded_scores(self, items: Sequence[E]) -> torch.Tensor:
        """float [b, max_options] of encoded questions, -inf where there is no option."""
        raise NotImplementedError

    @property
    def base_dtype(self) -> torch.dtype:
        """Of the frozen weights; weights that are trained whole are always float32."""
        return torch.float32

    # --- building ---

    @property
    def modules(self) -> list[nn.Module]:
        return [module for module in (self.model, self.head, self.prior) if module is not None]

    @property
    def head_names(self) -> tuple[str, ...]:
        return (*self.new_modules, "modules_to_save", "score_weight", "log_scale")

    def build(self) -> None:
        """Load tokenizer and base model, add LoRA and head; the same seed gives the same fresh weights.

        Raises:
            UserError: the model cannot be found or loaded.
        """
        if self.model is not None:
            return
        started = time.monotonic()
        config = self.config
        self._check_sharding()
        source = distributed.main_first(lambda: resolve_model(config.model, self.cache, config.revision))
        torch.manual_seed(config.seed)

        # The base model, with LoRA where it is trained; over several processes, sharded.
        model = self._with_lora(self._load_pretrained(source))
        if distributed.shards():
            distributed.shard(model)
        self.model = model

        # New modules beside it. 4-bit weights are on the device already, streamed ones come to it layer by layer.
        self.head = self._make_head()
        self.prior = RetrievalPrior(config.temperature) if config.retrieval_prior else None
        for module in self.modules:
            if module is not self.model or (config.quantization is None and not self.streaming):
                module.to(self.device.torch)
            module.eval()
        self.parameter_counts = adapters.trainable_in_float32(self.modules)

        if config.merged:
            read_manifest(Path(source), MERGED, "Name the folder that `python -m solution merge` wrote.", verify=False)
            self._load_small(Path(source))
        self.load_seconds = time.monotonic() - started

    def _check_sharding(self) -> None:
        config = self.config
        if distributed.shards() and self.start is not None:
            raise UserError(
                f"{config.name}: FSDP cannot shard a ranker with pretraining. Launch without --use_fsdp: each process "
                "then holds the whole model."
            )
        if distributed.shards() and (config.quantization or (config.trains and config.lora is None)):
            raise UserError(
                f"{config.name}: FSDP shards the frozen weights of a LoRA ranker, and goes with neither quantization "
                "nor lora=null. Launch without --use_fsdp: each process then holds the whole model."
            )

    @property
    def _weights_dtype(self) -> torch.dtype:
        """float32 wherever base weights are trained; else as the family says."""
        return torch.float32 if self.config.lora is None and self.config.trains else self.base_dtype

    def _load_pretrained(self, source: str) -> Any:
        """The base model as transformers loads it, in 4 bits where the settings say so; makes the tokenizer too."""
        from transformers.utils import logging

        # Their bars and load reports would drown ours; missing and unexpected weights are checked by our own code.
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        config = self.config
        options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
        try:
            self.tokenizer = load_tokenizer(source, config.revision)
            quantization = adapters.quantization_config(config.quantization, self.device.compute, self.new_modules)
            if quantization is not None:
                options |= {"quantization_config": quantization, "device_map": {"": self.device.kind}}
            model = self._load_base(source, dtype=self._weights_dtype, trust_remote_code=False, **options)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - transformers raises many kinds for an unusable model
            text = " ".join(str(error).split())[:400]
            raise UserError(f"{config.name}: the model {config.model} cannot be loaded: {text}") from error
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.unk_token or self.tokenizer.eos_token
        return model

    def _with_lora(self, model: Any) -> Any:
        """The base model with what is trained of it: LoRA's matrices, or with `lora: null` all of its weights."""
        config = self.config
        checkpointing = config.training.gradient_checkpointing and config.trains
        if config.quantization is not None and self.merging:
            model = adapters.dequantize(model, self._weights_dtype)
        elif config.quantization is not None:
            model = adapters.prepare_quantized(model, checkpointing)
        elif checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        if not config.trains:
            return model.requires_grad_(False)
        return model if config.lora is None else adapters.add_lora(model, config.lora, self.new_modules)

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
                Targets(train_exam.questions.answers, train_exam.questions.exists().sum(axis=1)),
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
            [[(p.id, p.title, p.text) for p in passages] for passages in train_exam.passages],
            None if self._train_priors is None else np.round(self._train_priors, 4).tolist(),
            train_exam.questions.ids,
            valid_exam.questions.content_hash(),
            *([] if self.trained_share == 1 else [self.trained_share]),
            *([] if self.start is None else [read_json(self.start / MANIFEST, "the pretraining's manifest", "")]),
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

    def encode(self, row: int, epoch: int) -> Item[E]:
        """One training question, with its augmentation (a function of seed, epoch and row)."""
        # Options in another order, and now and then no context, so that the ranker relies on neither.
        exam, settings = self._train_exam, self.config.training
        assert exam is not None
        rng = np.random.default_rng([self.config.seed, epoch, row, 7])
        passages = 0 if rng.random() < settings.context_dropout else self.config.passages
        order = [i for i, option in enumerate(exam.questions.options[row]) if option]
        if settings.option_shuffle:
            rng.shuffle(order)
        return self._item(exam, self._train_priors, row, passages, order)

    def items(self, exam: Exam) -> tuple[list[int], list[Item[E]]]:
        """Every question to score, once for each rotation of its options, and the exam's row of each."""
        priors = self._priors(exam)
        rows: list[int] = []
        items: list[Item[E]] = []
        for row, options in enumerate(exam.questions.options):
            for order in rotations([i for i, option in enumerate(options) if option], self.config.rotations):
                rows.append(row)
                items.append(self._item(exam, priors, row, self.config.passages, order))
        return rows, items

    def use_less_memory(self) -> bool:
        """Take less memory from now on, beside that of a batch; False where there is nothing left to do."""
        return False

    def predict(self, exam: Exam) -> np.ndarray:
        """See `Ranker.predict`."""
        from scipy.special import log_softmax

        self.build()
        for module in self.modules:
            module.eval()

        # Each question once for each rotation of its options, cut into parts that may share a batch with any other.
        exists = exam.questions.exists()  # bool [n, max_options]
        rows, items = self.items(exam)
        parts = [(number, part) for number, item in enumerate(items) for part in self.parts(item)]
        scores = np.zeros((len(items), exists.shape[1]))  # [rotated questions, max_options]

        scoring = BatchScoring(self, [part for _, part in parts])
        # Layers that FSDP gathers in inference mode could not be trained afterwards.
        without_gradients = torch.no_grad() if distributed.shards() else torch.inference_mode()
        started = time.monotonic()
        with without_gradients, progress_bar(scoring.total, f"{self.config.name} scoring") as bar:
            for batch, values in scoring.results(bar.advance):  # values: float64 [b, max_options]
                for i, row in zip(batch, values, strict=True):
                    number, part = parts[i]
                    scores[number, part.encoded.positions] = row[part.encoded.positions]
        self.model_seconds += time.monotonic() - started
        trim_memory()

        # Each process has scored its own part of the questions, and has zeros for the others.
        scores = distributed.sum_tables(scores)
        repeated = np.zeros((len(exam), 1))
        repeated[[rows[parts[i][0]] for i in scoring.repeated]] = 1
        self.float32_ids |= {exam.questions.ids[row] for row in np.flatnonzero(distributed.sum_tables(repeated))}
        if not np.isfinite(scores[exists[rows]]).all():
            raise UserError(f"the ranker {self.config.name} {not_finite(self.device, 'precision')}")

        # Rotations of a question are averaged as log-probabilities.
        table = np.zeros(exists.shape)
        np.add.at(table, rows, log_softmax(np.where(exists[rows], scores, -np.inf), axis=1))
        probabilities = masked_softmax(table / np.bincount(rows, minlength=len(table))[:, None], exists)

        encoded = {row: item.encoded for row, item in zip(reversed(rows), reversed(items), strict=True)}
        groups = self._read_alike(exam, encoded)
        self.alike = by_letters(exam.questions, groups)
        return settle(probabilities, exam, groups, self.config)

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

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        from safetensors.torch import save_file

        if not self.config.trains:
            return
        if self.config.lora is not None:
            adapters.save_adapter(self.model, folder)
        else:
            save_file(module_state(self.model), folder / WHOLE_WEIGHTS)
        for module, name in self._small_modules():
            save_file(module_state(module), folder / name)

    def _small_modules(self) -> list[tuple[nn.Module, str]]:
        pairs = ((self.head, HEAD), (self.prior, PRIOR))
        return [(module, name) for module, name in pairs if module is not None]

    def _put_whole(self, path: Path) -> None:
        """Put weights that were trained whole into the base model."""
        put_state(self.model, path)

    def load(self, folder: Path) -> None:
        """See `Ranker.load`."""
        self.build()
        if self.config.trains:
            self._take(folder)

    def _take(self, folder: Path) -> None:
        """Put the weights of `save` into the model as it is built, in place."""
        if self.config.lora is not None:
            adapters.load_adapter(self.model, folder)
        else:
            self._put_whole(folder / WHOLE_WEIGHTS)
        self._load_small(folder)

    def _load_small(self, folder: Path) -> None:
        for module, name in self._small_modules():
            put_state(module, folder / name)
