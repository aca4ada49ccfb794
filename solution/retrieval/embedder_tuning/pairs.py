"""What an embedder learns from: questions, the passage that each was made from, and passages mistaken for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solution.config import EmbedderTuning, RetrievalConfig
from solution.errors import UserError
from solution.exam import passage_text
from solution.files import content_hash
from solution.progress import say
from solution.questions import SOURCE, Questions
from solution.retrieval.contexts.signals.texts import OptionTexts
from solution.retrieval.dense import as_cosines
from solution.retrieval.passages import Passage
from solution.retrieval.search import Indexes, Searcher, fitted
from solution.sentences import sentences
from solution.suggestions import program
from solution.tables import cell_text
from solution.words import words

_NEAR = 10


@dataclass(frozen=True)
class SourcedQuestion:
    """A question and passages of the index, by their rows.

    Attributes:
        row: of the question.
        source: the passage of its source document that is nearest to it.
        near: the ten nearest passages, right or wrong.
        wrong: as many as the settings' `negatives`, of other documents, the nearest first.
    """

    row: int
    source: int
    near: list[int]
    wrong: list[int]


def mine(
    questions: Questions, config: RetrievalConfig, indexes: Indexes, settings: EmbedderTuning
) -> list[SourcedQuestion]:
    """The questions whose source document is in the index, with wrong passages that the untuned embedder puts high.

    Raises:
        UserError: the questions do not name their sources, or none of these is in the corpus.
    """
    if SOURCE not in questions.extra:
        raise UserError(
            f"the questions have no column `{SOURCE}` that names the document each was made from: make them with "
            f"`{program()} generate`, or add the column"
        )
    documents = [cell_text(value) for value in questions.extra[SOURCE]]
    dense = indexes.dense
    own_rows = dense.passages.rows_of_documents(filter(None, documents))
    if not own_rows:
        raise UserError(
            f"no document that the column `{SOURCE}` names is in the corpus (first: {documents[0]!r}): give the corpus "
            "that the questions were made from"
        )
    query = "prompt_and_options" if config.query == "prompt_each_option" else config.query
    vectors = Searcher(questions, config, indexes).query_vectors(query)
    most = max(map(len, own_rows.values()))
    scores, rows = dense.search(vectors, settings.mined + most)
    scores = as_cosines(scores, config)
    draw = np.random.default_rng([settings.seed, 3])
    found = []
    for row, document in enumerate(documents):
        if document not in own_rows:
            continue
        own = own_rows[document]
        cosines = dense.pair_cosines(vectors[row : row + 1], own[None])[0]
        wrong = (rows[row] >= 0) & ~np.isin(rows[row], own) & (scores[row] <= settings.margin * cosines.max())
        chosen = rows[row][wrong][: settings.negatives].tolist()
        while len(chosen) < settings.negatives:  # all near ones may be right: any other passage is wrong
            chosen.append(_other(draw, len(dense.passages), {*own.tolist(), *chosen}))
        near = rows[row][rows[row] >= 0][:_NEAR].tolist()
        found.append(SourcedQuestion(row, int(own[cosines.argmax()]), near, chosen))
    if len(found) < len(questions):
        say(f"note: the sources of {len(questions) - len(found)} of {len(questions)} questions are not in the corpus")
    return found


def _other(draw: np.random.Generator, count: int, taken: set[int]) -> int:
    """A row below `count` that is not taken.

    Raises:
        UserError: there is none.
    """
    if len(taken) >= count:
        raise UserError(f"the corpus has {count} passages, too few to mine wrong ones: give a larger corpus")
    while (row := int(draw.integers(count))) in taken:
        pass
    return row


def part(
    found: Sequence[SourcedQuestion], questions: Questions, settings: EmbedderTuning
) -> tuple[list[SourcedQuestion], list[SourcedQuestion]]:
    """The questions to learn from, and those held out: all questions of a document are on one side.

    Raises:
        UserError: one of the sides is empty.
    """
    sides: tuple[list[SourcedQuestion], list[SourcedQuestion]] = ([], [])
    for question in found:
        document = cell_text(questions.extra[SOURCE][question.row])
        drawn = int(content_hash("held out", settings.seed, document), 16) / 16**16
        sides[drawn < settings.held_out].append(question)
    if len(sides[0]) < settings.batch_size or not sides[1]:
        raise UserError(
            f"{len(sides[0])} questions to learn from and {len(sides[1])} held out are too few: give more questions "
            f"(at least {settings.batch_size} to learn from), or change --batch-size or --held-out"
        )
    return sides


Texts = dict[str, list[str]]
"""Columns of texts as sentence-transformers' losses read them: `anchor`, `positive`, `negative_1`, ..."""


def passage_columns(
    learnt: Sequence[SourcedQuestion], questions: Questions, config: RetrievalConfig, indexes: Indexes
) -> Texts:
    """Each question as retrieval asks it, its source, and the passages that are mistaken for it."""
    embedder, passages = indexes.embedder, indexes.dense.passages
    prompts = [questions.prompts[question.row] for question in learnt]
    tails = [" ".join(filter(None, questions.options[question.row])) for question in learnt]
    queries = fitted(embedder, prompts, tails if config.query != "prompt" else [""] * len(learnt))

    def texts(rows: list[int]) -> list[str]:
        return [embedder.prefix(query=False) + passage_text(passage) for passage in passages.take(rows)]

    columns = {
        "anchor": [embedder.prefix(query=True) + query for query in queries],
        "positive": texts([question.source for question in learnt]),
    }
    for place in range(len(learnt[0].wrong)):
        columns[f"negative_{place + 1}"] = texts([question.wrong[place] for question in learnt])
    return columns


def option_columns(
    learnt: Sequence[SourcedQuestion], questions: Questions, indexes: Indexes, seed: int
) -> Texts | None:
    """A sentence of each question's source, and the question joined with its right and with wrong options.

    Questions without an answer are left out; None: no question is left. As many wrong options are taken as every
    question has, drawn from its own.
    """
    answered = [question for question in learnt if questions.answers[question.row] >= 0]
    if not answered:
        return None
    embedder = indexes.embedder
    texts = OptionTexts.of(questions.subset([question.row for question in answered]))
    joined = fitted(embedder, *texts.joined())
    sources = indexes.dense.passages.take([question.source for question in answered])
    draw = np.random.default_rng([seed, 5])
    lists: list[list[str]] = []
    for question, places, source in zip(answered, texts.by_question(), sources, strict=True):
        # Joined texts are those of the options that are there, the answer among them at its place.
        there = [place for place, option in enumerate(questions.options[question.row]) if option]
        right = there.index(int(questions.answers[question.row]))
        own = joined[places]
        wrong = [own[place] for place in draw.permutation(len(own)).tolist() if place != right]
        lists.append([_nearest_sentence(source, own[right]), own[right], *wrong])
    count = min(map(len, lists))
    names = ["anchor", "positive", *(f"negative_{place}" for place in range(1, count - 1))]
    prefixes = [embedder.prefix(query=False)] + [embedder.prefix(query=True)] * (count - 1)
    return {
        name: [prefix + texts[place] for texts in lists]
        for place, (name, prefix) in enumerate(zip(names, prefixes, strict=True))
    }


def _nearest_sentence(passage: Passage, statement: str) -> str:
    """The sentence of a passage that has the most of a statement's words, title in front as option scores have it."""
    known = set(words(statement))
    every = sentences(passage.text) or [passage.text]
    best = max(every, key=lambda sentence: len(known.intersection(words(sentence))))
    return f"{passage.title}: {best}" if passage.title else best
