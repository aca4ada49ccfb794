"""The passages of an answer, with the sentences that decided: those nearest to the question with each option."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from solution.exam import ContextPassage
from solution.interactive.answers import Mark, ShownPassage
from solution.questions import LETTERS, Questions
from solution.retrieval.contexts.opened import OpenRetrieval
from solution.retrieval.contexts.option_scores import NearSentence
from solution.sentences import sentence_spans
from solution.words import words


def distinct_passages(contexts: Iterable[Sequence[ContextPassage]], most: int) -> list[ContextPassage]:
    """The passages of several contexts of one question, each once, the first of every context first.

    Args:
        most: so many at the most.
    """
    lists = [list(passages) for passages in contexts]
    found: dict[tuple[str, str], ContextPassage] = {}
    for place in range(max(map(len, lists), default=0)):
        for passages in lists:
            if place < len(passages):
                found.setdefault((passages[place].id, passages[place].text), passages[place])
    return list(found.values())[:most]


def marked_passages(
    question: Questions, passages: Sequence[ContextPassage], retrieval: OpenRetrieval | None
) -> tuple[tuple[ShownPassage, ...], str]:
    """The passages with their marks, and how these were sought, see `Explanation.mark_kind`.

    Args:
        question: one.
        retrieval: its embedder compares; without one the words do.
    """
    shown = [ShownPassage(p.id, p.title, p.text, p.score, p.retriever) for p in passages]
    if not shown:
        return (), ""
    near = None if retrieval is None else retrieval.nearest_sentences(question, [passages])
    nearest = near[0] if near is not None else nearest_by_words(question, passages)
    letters = [letter for letter, option in zip(LETTERS, question.options[0], strict=False) if option]
    marks: list[list[Mark]] = [[] for _ in shown]
    for letter, sentence in zip(letters, nearest, strict=False):
        if sentence.cosine <= 0:  # nothing in common
            continue
        marks[sentence.passage].append(Mark(sentence.begin, sentence.end, letter, sentence.cosine))
    ordered = [tuple(sorted(row, key=lambda mark: (mark.start, mark.option))) for row in marks]
    kind = "terms" if near is None else "embedding"
    return tuple(replace(passage, marks=row) for passage, row in zip(shown, ordered, strict=True)), kind


def nearest_by_words(question: Questions, passages: Sequence[ContextPassage]) -> list[NearSentence]:
    """For each option the sentence that has the largest share of the words of question and option, those of the option
    counted double; nothing where no sentence has any of them."""
    spans = [(n, begin, end) for n, passage in enumerate(passages) for begin, end in sentence_spans(passage.text)]
    there = [set(words(passages[n].text[begin:end])) for n, begin, end in spans]
    asked, nearest = set(words(question.prompts[0])), []
    for option in filter(None, question.options[0]):
        own = set(words(option))
        total = len(asked | own) + len(own)
        scores = [(len((asked | own) & found) + len(own & found)) / max(total, 1) for found in there]
        score, place = max(zip(scores, spans, strict=True), key=lambda pair: pair[0], default=(0.0, (0, 0, 0)))
        nearest.append(NearSentence(*place, score))
    return nearest
