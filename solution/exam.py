"""The exam as rankers read it: questions, the contexts retrieved for them and the scores of their options."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, overload

import numpy as np

from solution.config import SIGNALS, ContextView, RankerConfig
from solution.errors import UserError
from solution.files import content_hash
from solution.option_rules import OptionRules
from solution.questions import Questions, joined, positions
from solution.tables import cell_text
from solution.words import in_word

SENTENCE_SIGNAL = "cosine_sentence_best"
"""The signal that means what the option score `sentence` means."""
SIGNAL_STEPS = (
    ("cosine_passage", "cosine_option_question", "cosine_joined_question"),
    ("bm25_passage",),
    ("pmi",),
    ("bm25_sentence",),
    ("cosine_sentence",),
)
"""Beginnings of the names of the signals that are made together, in the order in which they are made: the cheap ones
first. Where time is short the last ones are missing (NaN)."""


@dataclass(frozen=True)
class Supervision:
    """What a training is told of its questions beside their answers.

    Attributes:
        weights: float64 [n], how much each question counts in the loss; 1: as a question of the exam.
        is_extra: bool [n], true for questions that are only trained on (`training.extra`).
        teacher: float32 [n, width], a teacher's probabilities of the options (`training.soft_labels`), NaN in the rows
            of questions of which it has none.
    """

    weights: np.ndarray
    is_extra: np.ndarray
    teacher: np.ndarray

    @classmethod
    def of(
        cls, n: int, weights: np.ndarray | None = None, is_extra: bool = False, teacher: np.ndarray | None = None
    ) -> Supervision:
        """That of n questions, of weight 1 and without a teacher where nothing else is said."""
        return cls(
            np.ones(n) if weights is None else weights,
            np.full(n, is_extra),
            np.full((n, 1), np.nan, dtype=np.float32) if teacher is None else teacher,
        )

    @property
    def key(self) -> str:
        """A hash of all of it."""
        return content_hash(self.weights.tolist(), self.is_extra.tolist(), self.teacher.tobytes())

    def subset(self, rows: list[int]) -> Supervision:
        return Supervision(self.weights[rows], self.is_extra[rows], self.teacher[rows])

    def followed_by(self, other: Supervision) -> Supervision:
        return Supervision(
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.is_extra, other.is_extra]),
            _stacked([self.teacher, other.teacher], 1),
        )


@dataclass
class Exam:
    """Questions with their contexts.

    Attributes:
        questions: n questions.
        passages: n lists of passages, best first; empty where nothing was retrieved.
        option_scores: kind -> float32 [n, max_options], see `Contexts`.
        signals: name -> float32 [n, max_options], see `Contexts`.
        supervision: of questions to train on; None: all count alike, and all are of the exam.
    """

    questions: Questions
    passages: Sequence[list[ContextPassage]]
    option_scores: dict[str, np.ndarray] = field(default_factory=dict)
    signals: dict[str, np.ndarray] = field(default_factory=dict)
    supervision: Supervision | None = None

    @classmethod
    def join(cls, questions: Questions, contexts: Contexts | None) -> Exam:
        """Questions with contexts made for them, or closed-book."""
        if contexts is None:
            return cls(questions, [[] for _ in range(len(questions))])
        return cls(questions, contexts.passages, contexts.option_scores, contexts.signals)

    @classmethod
    def views(
        cls, config: RankerConfig, questions: Questions, contexts: Mapping[str, Mapping[ContextView, Contexts]]
    ) -> list[Exam]:
        """An exam for each of the ranker's `contexts` of each retrieval that it reads; one for a reader of signals,
        with those of all its retrievals; of a closed-book ranker, one without passages.

        Args:
            contexts: name of a retrieval -> name of the contexts -> contexts; empty: closed-book.
        """
        if not contexts:
            return [cls.join(questions, None)]
        if config.contexts == [SIGNALS]:
            first, *others = contexts
            beside = {name: contexts[name][SIGNALS] for name in others}
            return [cls.join(questions, contexts[first][SIGNALS].with_signals(beside))]
        return [cls.join(questions, views[view]) for views in contexts.values() for view in config.contexts]

    def __len__(self) -> int:
        return len(self.questions)

    def subset(self, rows: Sequence[int] | np.ndarray) -> Exam:
        """The questions at these positions, in the order given (or where a bool array [n] is true)."""
        rows = positions(rows)
        return Exam(
            self.questions.subset(rows),
            _chosen(self.passages, rows),
            {kind: table[rows] for kind, table in self.option_scores.items()},
            {name: table[rows] for name, table in self.signals.items()},
            None if self.supervision is None else self.supervision.subset(rows),
        )

    def followed_by(self, other: Exam) -> Exam:
        """These questions and, behind them, those of another exam with the same kinds of scores and signals."""
        taught = [exam.supervision or Supervision.of(len(exam)) for exam in (self, other)]
        width = max(self.questions.max_options, other.questions.max_options)
        return Exam(
            joined([self.questions, other.questions]),
            _joined_passages([self.passages, other.passages]),
            {kind: _stacked([table, other.option_scores[kind]], width) for kind, table in self.option_scores.items()},
            {name: _stacked([table, other.signals[name]], width) for name, table in self.signals.items()},
            taught[0].followed_by(taught[1]),
        )

    def prior(self, config: RankerConfig) -> np.ndarray:
        """The option score that the ranker asks for, float32 [n, max_options], 0 where there is no option.

        The ranker's score rules are applied.

        Raises:
            UserError: retrieval did not make it.
        """
        if config.option_score not in self.option_scores:
            raise UserError(
                f"the ranker {config.name} uses the option score {config.option_score!r}, and retrieval does not make "
                f"it: add it to retrieval.option_scores (and set a retrieval.source other than none)"
            )
        # A fold's questions may all have fewer options than the exam that the scores were made for.
        scores = np.nan_to_num(self.option_scores[config.option_score][:, : self.questions.max_options])
        return self.rules(config).apply(scores, self.questions.exists()) if config.score_rules else scores

    def rules(self, config: RankerConfig) -> OptionRules:
        """The ranker's score rules for these questions."""
        asked = config.score_rules
        questions = self.questions
        return OptionRules.of(questions.prompts, questions.options, "negations" in asked, "references" in asked)

    def similarities(self) -> dict[str, np.ndarray]:
        """Cosines of the options by which retrieval alone ranks them: kind -> float32 [n, max_options]; may be empty.

        The option scores, or in their place the signal of the same meaning.
        """
        signal, exists = self.signals.get(SENTENCE_SIGNAL), self.questions.exists()
        if self.option_scores or signal is None or np.isnan(signal[:, : exists.shape[1]][exists]).any():
            return self.option_scores
        return {"sentence": signal}

    def hidden(self) -> Exam:
        """The same exam without its answers, as `predict` gets it."""
        return replace(self, questions=self.questions.without_answers())


def _stacked(tables: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Tables one below the other, each brought to this width at least with columns of NaN."""
    width = max(width, *(table.shape[1] for table in tables))
    padded = [np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=np.nan) for table in tables]
    return np.concatenate(padded)


def is_question(exam: Exam, row: int) -> bool:
    """False where the exam's `is_question` column says that the prompt is an instruction."""
    values = exam.questions.extra.get("is_question")
    return values is None or cell_text(values[row]).lower() not in ("false", "0", "no", "0.0")


@dataclass(frozen=True)
class ContextPassage:
    """A passage found for a question.

    Attributes:
        score: its cosine or BM25 score; where several lists were fused, its fused score; after a reranker, its share
            among the candidates; 1 where nothing was searched.
        retriever: the names of all that found it: `dense+lexical`, or `dense+lexical, reranked`.
    """

    id: str
    title: str
    text: str
    score: float
    retriever: str


@dataclass
class Contexts:
    """The contexts of n questions.

    Attributes:
        ids: the questions' ids, in order.
        passages: n lists, best passage first; empty where nothing was retrieved.
        option_scores: kind of score -> float32 [n, max_options], NaN where there is no option.
            `passage`: the best cosine of question + option to any passage of the corpus;
            `sentence`: to any sentence of the question's own first passages.
        signals: name of a signal of the options -> float32 [n, max_options], NaN where there is no option, and for all
            options of a question for which there was no time to make it; only in the view `signals`, which has no
            passages. See `retrieval.contexts.signals`.
        key: names the questions, corpus, embedder and settings that the contexts were made from. It is the same on
            every machine, also where `hash` differs by rounding.
        seconds: a question, that making the signals took; None: there are none, or it is not known.
    """

    ids: list[str]
    passages: Sequence[list[ContextPassage]]
    option_scores: dict[str, np.ndarray] = field(default_factory=dict)
    key: str = "none"
    signals: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def hash(self) -> str:
        """A hash of ids, texts and scores (to 4 decimals) that does not depend on the order of the questions."""
        return content_hash(sorted(self.row_hashes()))

    def row_hashes(self) -> list[tuple[str, str]]:
        """The id and a hash of each question's contexts."""
        rows = []
        for row, id_ in enumerate(self.ids):
            passages = [(p.id, p.title, p.text, _rounded(p.score), p.retriever) for p in self.passages[row]]
            scores = {kind: [_rounded(score) for score in table[row]] for kind, table in self.option_scores.items()}
            signals = {name: [_rounded(value) for value in table[row]] for name, table in self.signals.items()}
            rows.append((id_, content_hash(passages, scores, *([signals] if signals else []))))
        return rows

    def with_signals(self, others: Mapping[str, Contexts]) -> Contexts:
        """These contexts with the signals and option scores of other retrievals as further signals.

        Args:
            others: name of a retrieval -> contexts of the same questions. The name stands in front of its signals:
                `wiki:pmi_mean`, `wiki:score_sentence`.
        """
        if not others:
            return self
        signals = dict(self.signals)
        for name, contexts in others.items():
            signals |= {f"{name}:{signal}": table for signal, table in contexts.signals.items()}
            signals |= {f"{name}:score_{kind}": table for kind, table in contexts.option_scores.items()}
        return replace(self, signals=signals)

    def subset(self, rows: Sequence[int] | np.ndarray) -> Contexts:
        """The contexts at these positions, in the order given (or where a bool array [n] is true)."""
        chosen = positions(rows)
        return Contexts(
            [self.ids[row] for row in chosen],
            _chosen(self.passages, chosen),
            {kind: table[np.array(chosen, dtype=np.int64)] for kind, table in self.option_scores.items()},
            self.key,
            {name: table[np.array(chosen, dtype=np.int64)] for name, table in self.signals.items()},
            self.seconds,
        )


class PassagesOnDisk(Protocol):
    """Passages that are read when they are looked at; see `retrieval.contexts.stored`."""

    @property
    def identity(self) -> list[Any]: ...
    def subset(self, rows: Sequence[int]) -> Sequence[list[ContextPassage]]: ...


def _on_disk(passages: Sequence[list[ContextPassage]]) -> PassagesOnDisk | None:
    return cast(PassagesOnDisk, passages) if hasattr(passages, "subset") else None


def _chosen(passages: Sequence[list[ContextPassage]], rows: Sequence[int]) -> Sequence[list[ContextPassage]]:
    on_disk = _on_disk(passages)
    return [passages[row] for row in rows] if on_disk is None else on_disk.subset(rows)


def texts_read(exam: Exam) -> list[Any]:
    """A JSON value that is another where any text of a passage is another."""
    return _identity(exam.passages)


def _identity(passages: Sequence[list[ContextPassage]]) -> list[Any]:
    on_disk = _on_disk(passages)
    if on_disk is not None:
        return on_disk.identity
    return [[(p.id, p.title, p.text) for p in found] for found in passages]


@dataclass(frozen=True)
class JoinedPassages(Sequence[list[ContextPassage]]):
    """The passages of several exams, some of which are on disk, as one sequence.

    Attributes:
        places: for each question the number of its exam, and its row there.
    """

    parts: Sequence[Sequence[list[ContextPassage]]]
    places: Sequence[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> list[ContextPassage]: ...
    @overload
    def __getitem__(self, place: slice) -> JoinedPassages: ...
    def __getitem__(self, place: int | slice) -> list[ContextPassage] | JoinedPassages:
        if isinstance(place, slice):
            return JoinedPassages(self.parts, self.places[place])
        part, row = self.places[place]
        return self.parts[part][row]

    def subset(self, rows: Sequence[int]) -> JoinedPassages:
        """Those at these places; nothing of the others is kept."""
        kept: list[list[int]] = [[] for _ in self.parts]
        places = []
        for part, row in (self.places[row] for row in rows):
            places.append((part, len(kept[part])))
            kept[part].append(row)
        return JoinedPassages([_chosen(part, chosen) for part, chosen in zip(self.parts, kept, strict=True)], places)

    @property
    def identity(self) -> list[Any]:
        """A JSON value that is another where any passage is another."""
        return [*map(_identity, self.parts), [list(place) for place in self.places]]


def _joined_passages(parts: Sequence[Sequence[list[ContextPassage]]]) -> Sequence[list[ContextPassage]]:
    if all(_on_disk(part) is None for part in parts):
        return [passages for part in parts for passages in part]
    return JoinedPassages(parts, [(number, row) for number, part in enumerate(parts) for row in range(len(part))])


def _rounded(score: float) -> float | None:
    return None if np.isnan(score) else round(float(score), 4) + 0.0  # + 0.0: no minus zero


class Titled(Protocol):
    """A text with a title, which may be empty."""

    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...


def passage_text(passage: Titled) -> str:
    """ "title. text", as a passage is embedded and as a ranker reads it.

    The title is left out when it is empty or when the text begins with it.
    """
    title, text = passage.title, passage.text
    if not title or begins_with(text, title):
        return text
    return f"{title}. {text}"


def begins_with(text: str, title: str) -> bool:
    """Whether the title's words open the text ("Cell" does not open "Cellular")."""
    after = text[len(title) : len(title) + 1]
    return text[: len(title)].lower() == title.lower() and not in_word(after)


def context_key(keys: Sequence[str]) -> str:
    """A name of all that a ranker's contexts were made from.

    Args:
        keys: `Contexts.key` of each, in the order of the ranker's retrievals, and in each of its `contexts`.
    """
    return keys[0] if len(keys) == 1 else content_hash(list(keys))
