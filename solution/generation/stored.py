"""Exams made from a corpus once, and kept in `WORKDIR/cache` for every later use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from solution.config import RetrievalConfig
from solution.errors import UserError
from solution.files import content_hash
from solution.formats.items import Reading
from solution.generation.exam import Wish, generate_exam
from solution.progress import say
from solution.questions import Questions, read_questions, write_questions
from solution.retrieval.articles import article_rules
from solution.retrieval.corpus import read_corpus
from solution.retrieval.sources import corpus_fingerprint

_VERSION = 3  # of the rules by which questions are made: another one makes other exams


LEAST_OPTIONS = 3
_GAIN = 1.5
"""Fewer options must give more than so many times as many questions: with three, a guess is often right."""


@dataclass(frozen=True)
class StoredExam:
    """The place of an exam that was made, or will be made, from the corpus of the settings."""

    retrieval: RetrievalConfig
    wish: Wish
    path: Path

    @classmethod
    def of(cls, retrieval: RetrievalConfig, wish: Wish, cache: Path) -> StoredExam:
        """The exam that belongs to this corpus and wish; it may not be made yet.

        Raises:
            UserError: see `corpus_fingerprint`.
        """
        rules = article_rules(retrieval)
        without = [] if wish.without is None else sorted(wish.without.prompts)
        key = content_hash(
            _VERSION,
            corpus_fingerprint(retrieval.corpus, retrieval.encoding),
            [rules.stub_words, rules.disambiguations, rules.sections],
            [wish.count, wish.options, list(wish.kinds), wish.seed, without],
            *([retrieval.encoding] if retrieval.encoding else []),
        )
        return cls(retrieval, wish, cache / f"generated-{key}.csv")

    @property
    def is_made(self) -> bool:
        return self.path.is_file()

    def read(self) -> Questions:
        """The exam, made now where it is not there; at most `wish.count` questions.

        Raises:
            UserError: the corpus cannot be read, or gives no question.
        """
        if not self.is_made:
            say(f"making up to {self.wish.count} questions of {self.wish.options} options from {self.retrieval.corpus}")
            rules, encoding = article_rules(self.retrieval), self.retrieval.encoding
            exam = generate_exam(read_corpus(self.retrieval.corpus, rules, encoding=encoding), self.wish)
            if not len(exam):
                raise UserError(no_question(self.retrieval.corpus))
            write_questions(self.path, exam)
        # The questions as the file has them, also where they were made just now: the same in every process.
        return read_questions(self.path, reading=Reading(keep_html=True))


def with_fewer_options(make: Callable[[Wish], Questions], wish: Wish, least: int = 0) -> Questions:
    """The exam with as many options as the corpus gives enough questions for, 3 or more.

    A small corpus has few terms that are alike, and gives more questions of fewer options. Where it never gives enough,
    fewer options are taken for many more questions.

    Args:
        make: makes an exam.
        least: questions; below this number fewer options are taken for any more questions.

    Raises:
        UserError: no question can be made.
    """
    best: Questions | None = None
    for options in range(wish.options, LEAST_OPTIONS - 1, -1):
        try:
            made = make(replace(wish, options=options))
        except UserError:
            if options > LEAST_OPTIONS or best is not None:
                continue
            raise
        if best is None or len(made) >= wish.count or len(made) > len(best) * _gain(best, least):
            best = made
        if len(best) >= wish.count:
            break
    if best is None:
        return make(wish)
    if len(best) and best.max_options < wish.options:
        say(f"note: the questions have {best.max_options} options, not {wish.options}: the corpus gives more of these")
    return best


def _gain(best: Questions, least: int) -> float:
    return 1.0 if len(best) < least else _GAIN


def no_question(corpus: str) -> str:
    """The message on a corpus that gives no question; what helps depends on the command, which adds it."""
    return (
        f"no question can be made from {corpus}. Questions are made from English passages: glossary entries "
        '("term: definition"), sentences that say what something is, and sentences that can be understood alone with a '
        "key term taken out. The wrong options are terms of the same kind as the right one, and a text of a few pages "
        "has too few of these. A PDF file of scanned pages has no text at all: a program for OCR adds it"
    )
