"""How long a run will take: the embedder's speed on this machine, times how many passages' worth of work each step is.

The step's costs were measured on 925 questions and 31,223 passages on two cores (docs/results.md) and are rough: the
first answer to "minutes or hours", not a promise.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from solution.config import RankerConfig, RetrievalConfig, Run, needs_contexts
from solution.questions import Questions
from solution.retrieval.articles import article_rules
from solution.retrieval.corpus import read_corpus
from solution.retrieval.embedding import Embedder
from solution.retrieval.places import DENSE, locate
from solution.retrieval.prefixes import Prefixes
from solution.training.extra import ExtraFiles
from solution.workdir import Workdir

_CHARACTERS_PER_TOKEN = 4.5  # of English
_TRIED = 16  # passages, to measure the speed
_COUNTED = 200_000  # documents; of a larger corpus the rest is not counted
# In passages of 200 tokens:
_CONTEXTS = 5.0  # a question: its queries, the cosines of its options with passages and sentences
_SIGNALS = 10.0  # a question: the sentences near it and near its options
_BACKWARD = 2.5  # a training step, in passes forward
_OVERHEAD = 1.5
# Seconds:
_TUNE_SECONDS = 40.0
_REPORT_SECONDS = 15.0
_PROCESS_SECONDS = 10.0  # the start of a process of a submission, libraries and model


@dataclass(frozen=True)
class Estimate:
    """Seconds by step.

    Attributes:
        uncounted: rankers whose speed is not known here.
        is_least: the corpus is larger than what was counted.
    """

    seconds: dict[str, float]
    uncounted: list[str] = field(default_factory=list)
    is_least: bool = False


def estimate(run: Run, train: Questions, test: Questions | None, workdir: Workdir, is_new: bool) -> Estimate | None:
    """The seconds of each step that is not done yet; an embedder that is used is loaded and tried on some passages.

    Args:
        is_new: nothing that an earlier run left belongs to these questions.

    Returns:
        None where no step is missing.

    Raises:
        UserError: the corpus or a file of training-only questions cannot be read, or the embedder not loaded.
    """
    folds = range(run.ensemble.folds)
    missing = {
        config.name: sum(is_new or not workdir.oof_part(config.name, fold).exists() for fold in folds)
        for config in run.rankers
    }
    is_answered = test is None or (not is_new and workdir.submission.exists())
    if is_answered and not any(missing.values()) and workdir.ensemble.exists():
        return None
    retrieval = run.retrieval
    seconds: dict[str, float] = {}
    unit, is_least = 0.0, False
    if any(config.has_model or needs_contexts(config, retrieval) for config in run.rankers):
        embedder = Embedder(retrieval.embedder, workdir.cache, Prefixes.of(retrieval))
        characters, texts, is_least = _look_at_corpus(retrieval)
        unit = _seconds_of_a_passage(embedder, texts)
        if not locate(DENSE, retrieval, workdir.root, embedder).is_built:
            overlap = retrieval.passage_tokens / (retrieval.passage_tokens - retrieval.passage_overlap)
            seconds["index"] = unit * characters / (200 * _CHARACTERS_PER_TOKEN) * overlap
    asked = 0 if test is None or is_answered else len(test)
    learnt = len(train) if any(missing.values()) else 0
    extra = {config.name: _extra_count(config) if missing[config.name] else 0 for config in run.rankers}
    seconds["contexts"] = unit * (learnt + asked + max(extra.values(), default=0)) * _contexts_of_a_question(run)
    # Of other models the speed is not known.
    known = [config for config in run.rankers if config.has_model and config.model == retrieval.embedder]
    training = scoring = 0.0
    for config in known:
        one = unit * float(train.exists().sum(axis=1).mean()) * config.max_tokens / 200 * _OVERHEAD  # a question
        share = missing[config.name] / len(folds)
        shown = len(train) * (len(folds) - 1) + extra[config.name] * len(folds)  # in an epoch, all folds together
        training += one * (shown * config.training.epochs * _BACKWARD + len(train)) * share
        scoring += one * asked * (len(folds) if config.answers_with == "folds" else 1)
        if config.pretraining is not None and not workdir.pretrained(config.name).exists():
            first = config.pretraining.generated_count if config.pretraining.is_generated else len(train)
            training += first * (one * config.pretraining.epochs * _BACKWARD + unit * _CONTEXTS)
    seconds["training"] = training
    starts = (1 + sum(config.has_model for config in run.rankers)) * _PROCESS_SECONDS if asked else 0.0
    seconds["tuning, answers and report"] = _TUNE_SECONDS + _REPORT_SECONDS + scoring + starts
    others = [config.name for config in run.rankers if config.has_model and config not in known]
    return Estimate(seconds, others, is_least)


def _extra_count(config: RankerConfig) -> int:
    """How many training-only questions a ranker has."""
    files = ExtraFiles()
    return sum(len(files.of(settings)) for settings in config.training.extra)


def _look_at_corpus(retrieval: RetrievalConfig) -> tuple[int, list[str], bool]:
    """The characters of the corpus, some of its texts, and whether it has more documents than were counted."""
    documents = read_corpus(retrieval.corpus, article_rules(retrieval), encoding=retrieval.encoding)
    characters = count = 0
    first: list[str] = []
    for document in itertools.islice(documents, _COUNTED):
        characters += len(document.text)
        count += 1
        if len(first) < _TRIED:
            first.append(document.text)
    return characters, first, count == _COUNTED


def _seconds_of_a_passage(embedder: Embedder, texts: Sequence[str]) -> float:
    """Seconds that the embedder takes for 200 tokens."""
    cut = int(200 * _CHARACTERS_PER_TOKEN)
    some = [(text * (cut // len(text) + 1))[:cut] + f" {row}" for row, text in enumerate(texts)]
    embedder.encode(some[:2], 2)  # the first call is slower
    started = time.monotonic()
    embedder.encode(some, len(some))
    return (time.monotonic() - started) / len(some)


def _contexts_of_a_question(run: Run) -> float:
    reads = [config for config in run.rankers if needs_contexts(config, run.retrieval)]
    signals = any(config.traits.reads == "signals" for config in reads)
    return (_CONTEXTS if reads else 0.0) + (_SIGNALS if signals else 0.0)


def in_words(found: Estimate | None) -> str:
    """The estimate as a line."""
    if found is None:
        return "an earlier run has done every step; only what has changed since is done again"
    parts = [f"{name} {_minutes(seconds)}" for name, seconds in found.seconds.items() if seconds >= 1]
    total = sum(found.seconds.values())
    more = f"; the training of {', '.join(found.uncounted)} is not counted" if found.uncounted else ""
    begin = "at least" if found.is_least or found.uncounted else "about"
    return f"this will take {begin} {_minutes(total)} on this machine ({', '.join(parts)}){more}"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
