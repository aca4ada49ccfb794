"""The reranker's model: a cross-encoder, which reads question and passage together, trained in the rankers' loop.

A question's passages take the place that a ranker's options have: each is a sequence, and the loss is over all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from solution.config import RerankerSettings
from solution.errors import UserError
from solution.files import content_hash
from solution.learning.ahead import Encoder
from solution.learning.loop import train
from solution.learning.task import RunFiles, RunSettings, Targets
from solution.progress import progress_bar, say
from solution.rankers.multiple_choice import EncodedChoices, MultipleChoiceRanker
from solution.rankers.neural import Item
from solution.rankers.prompts import share_room, token_ids
from solution.rankers.scoring import BatchScoring, not_finite
from solution.retrieval.reranker.candidates import LabelledList, PassageList

_QUESTIONS_AT_ONCE = 512


@dataclass(frozen=True)
class Pairs(Item[EncodedChoices]):
    """One question's encoded pairs; those at the first `alternatives` positions are right ones and count as one."""

    alternatives: int = 1


@dataclass(frozen=True)
class Tokens:
    """The token ids of a question and of its passages."""

    query: list[int]
    passages: list[list[int]]


class CrossEncoder(MultipleChoiceRanker):
    """An AutoModelForSequenceClassification with one output: the higher, the better the passage.

    With `retrieval_prior` the score is that of retrieval times a learnt scale, plus the model's output. A head that the
    checkpoint does not have starts at zero, so before any training the order is that of retrieval.

    Raises:
        UserError: on loading: see `NeuralRanker.build`; or the head is new and is not to be trained.
    """

    auto_class = "AutoModelForSequenceClassification"
    least_batch = "one passage at a time"
    memory_advice = "Set a smaller retrieval.reranker.max_tokens, or name a smaller retrieval.reranker.model"

    def __init__(self, settings: RerankerSettings, cache: Path):
        super().__init__(settings.as_ranker(), cache)
        self.settings = settings
        self.title = "the reranker"
        self.float32_pairs = 0
        """Pairs whose score overflowed in float16, and was computed again in float32, since the last `learn`."""
        self._lists: list[tuple[Tokens, LabelledList]] = []  # while it is trained

    def _check_stored_head(self) -> None:
        """Its own check is that of the loaded model, below: a new head is given other weights there."""

    def _load_base(self, source: str, **options: Any) -> Any:
        model = super()._load_base(source, num_labels=1, **options)
        architectures = model.config.architectures or []
        if not any(name.endswith("ForSequenceClassification") for name in architectures):
            if not self.config.trains:
                raise UserError(
                    f"the reranker's model {self.config.model} is no cross-encoder ({', '.join(architectures)}): its "
                    "head would be new. Set retrieval.reranker.training.epochs to 1 or more and train it, or name a "
                    "model with a head"
                )
            for module in model.modules():
                if isinstance(module, nn.Linear) and module.out_features == 1:
                    nn.init.zeros_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        return model

    def _sequence_scores(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(**inputs).logits[:, 0]

    # --- pairs ---

    @functools.cached_property
    def _frame(self) -> tuple[list[int], list[int], list[int]]:
        """The special tokens before, between and behind two texts, as the model's own tokenizer sets them."""
        encoded = self.tokenizer("a", "a", return_special_tokens_mask=True)
        runs: list[list[int]] = [[], [], []]
        place, inside = 0, False
        for token, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            if special:
                runs[place].append(token)
            elif not inside:
                place += 1
            inside = not special
        return runs[0], runs[1], runs[2]

    def pair(self, query: list[int], passage: list[int]) -> tuple[list[int], int]:
        """The sequence of a question and a passage, and the number of its tokens that are the question's.

        Of a long question the end is kept, where the options stand.
        """
        begin, middle, end = self._frame
        room = self._limit - len(begin) - len(middle) - len(end)
        query_room, passage_room = share_room(len(query), len(passage), room)
        first = begin + query[len(query) - query_room :] + middle
        return first + passage[:passage_room] + end, len(first)

    def _pairs(
        self,
        query: list[int],
        passages: Sequence[list[int]],
        priors: Sequence[float],
        positions: Sequence[int],
        alternatives: int = 1,
    ) -> Pairs:
        pairs = [self.pair(query, passage) for passage in passages]
        encoded = EncodedChoices([sequence for sequence, _ in pairs], [end for _, end in pairs], list(positions))
        return Pairs(encoded, list(priors), alternatives)

    def tokens(self, lists: Sequence[PassageList]) -> list[Tokens]:
        """The token ids of questions and passages, each distinct text encoded once."""
        distinct = list(
            dict.fromkeys([entry.query for entry in lists] + [text for entry in lists for text in entry.texts])
        )
        ids = dict(zip(distinct, token_ids(self.tokenizer, distinct), strict=True))
        return [Tokens(ids[entry.query], [ids[text] for text in entry.texts]) for entry in lists]

    def take_lists(self, lists: Sequence[LabelledList]) -> None:
        """Hold the questions from which `encode` draws."""
        self._lists = list(zip(self.tokens(lists), lists, strict=True))

    def scores(self, items: Sequence[Item[EncodedChoices]]) -> torch.Tensor:
        """float [b, columns]; several right passages are one column, the logarithm of the sum of their exponentials.

        The loop's cross-entropy is then minus the logarithm of the share of all right passages: which of
        them answers the question is left to the model (the marginal likelihood of Clark and Gardner 2018).
        """
        table = super().scores(items)
        first = getattr(items[0], "alternatives", 1)
        if first == 1:
            return table
        return torch.cat([table[:, :first].logsumexp(dim=1, keepdim=True), table[:, first:]], dim=1)

    # --- training ---

    def learn(
        self,
        lists: Sequence[LabelledList],
        checkpoint: Path,
        logs: Path,
        evaluate: Callable[[], float] | None = None,
    ) -> dict[str, Any]:
        """Train on `lists`. Killed and called again, goes on from `checkpoint`; returns facts for metrics.json.

        Raises:
            UserError: see `learning.loop.train`.
        """
        self.model = None  # training starts from the base model
        self.build()
        settings = self.settings
        trainable, total = self.parameter_counts
        title = f"reranker {checkpoint.name.replace('_', ' ')}"
        say(f"{title}: {trainable:,} of {total:,} parameters are trained, {self.device}")
        key = content_hash(
            settings.trained_hash(),
            [(entry.query, entry.texts, entry.right, np.round(entry.priors, 4).tolist()) for entry in lists],
        )
        # The right passages of a question are one column, the first; each wrong one is a column of its own.
        wrong = np.array([min(settings.negatives, entry.right.count(False)) for entry in lists])
        self.take_lists(lists)
        try:
            facts = train(
                self,
                Targets(np.zeros(len(lists), dtype=np.int64), 1 + wrong),
                RunSettings(title, key, settings.training, self.device, settings.seed),
                RunFiles(checkpoint, logs),
                evaluate,
            )
        finally:
            self._lists = []
        self.float32_pairs = 0
        return {**facts, "trainable_parameters": trainable, "parameters": total, "computed_on": str(self.device)}

    def encoding_job(self, rows: Sequence[int], epoch: int) -> Any:
        """See `Scorer.encoding_job`."""
        return rows, epoch

    def encode_job(self, job: Any) -> list[Any]:
        """See `Scorer.encode_job`."""
        rows, epoch = job
        return [self.encode(row, epoch) for row in rows]

    def for_processes(self) -> Encoder | None:
        """None: the texts are token ids already."""
        return None

    def encode(self, row: int, epoch: int) -> Pairs:
        """One training question with some of its right and wrong passages, drawn by seed, epoch and row."""
        settings = self.settings
        tokens, labelled = self._lists[row]
        rng = np.random.default_rng([settings.seed, epoch, row, 11])
        right, wrong = np.flatnonzero(labelled.right), np.flatnonzero(~np.array(labelled.right))
        right = rng.choice(right, min(settings.positives, len(right)), replace=False)
        wrong = rng.choice(wrong, min(settings.negatives, len(wrong)), replace=False)
        drawn = [*right.tolist(), *wrong.tolist()]
        positions = [*range(len(right)), *range(settings.positives, settings.positives + len(wrong))]
        priors = [labelled.priors[i] for i in drawn] if labelled.priors else []
        return self._pairs(tokens.query, [tokens.passages[i] for i in drawn], priors, positions, settings.positives)

    # --- scoring ---

    def score(self, lists: Sequence[PassageList]) -> list[np.ndarray]:
        """For each question float64 [its passages]. A pair's score depends on no other pair.

        Raises:
            UserError: a score is not finite, or not even one pair fits into the memory.
        """
        self.build()
        for module in self.modules:
            module.eval()
        scores: list[np.ndarray] = []
        with torch.inference_mode(), progress_bar(sum(len(entry.texts) for entry in lists), "reranking") as bar:
            for begin in range(0, len(lists), _QUESTIONS_AT_ONCE):
                scores += self._list_scores(lists[begin : begin + _QUESTIONS_AT_ONCE], bar.advance)
        if not all(np.isfinite(values).all() for values in scores):
            raise UserError(f"the reranker {not_finite(self.device, 'retrieval.reranker.precision')}")
        return scores

    def _list_scores(self, lists: Sequence[PassageList], advance: Callable[[int], None]) -> list[np.ndarray]:
        """For each question float64 [its passages]; the pairs of all of them share batches."""
        # Each pair alone: sorted by length, the pairs of many questions leave next to no padding.
        items = [
            self._pairs(tokens.query, [passage], entry.priors[i : i + 1], [0])
            for tokens, entry in zip(self.tokens(lists), lists, strict=True)
            for i, passage in enumerate(tokens.passages)
        ]
        scores = np.zeros(len(items))
        scoring = BatchScoring(self, items)
        for batch, values in scoring.results(advance):  # values: float64 [b, 1]
            scores[batch] = values[:, 0]
        self.float32_pairs += len(scoring.repeated)
        ends = np.cumsum([len(entry.texts) for entry in lists])
        return np.split(scores, ends[:-1])
