"""Practice on a corpus without an ensemble: the passages that share most words with a question."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from solution.errors import UserError
from solution.exam import ContextPassage, passage_text
from solution.generation.exam import generate_exam
from solution.generation.sample import SAMPLE_CHARACTERS, paragraphs_of
from solution.generation.stored import no_question
from solution.interactive.answers import Explanation, Option, RankerAnswer
from solution.interactive.deciding import marked_passages, nearest_by_words
from solution.interactive.question import one_question
from solution.progress import say
from solution.questions import Questions, letter
from solution.retrieval.corpus import Document, read_corpus
from solution.web.answerer import About, Tell
from solution.web.ensemble import practice_exam

_RANKER = "words in common"
_PASSAGES = 3
_SHARPNESS = 8.0
"""By which the shares of words, 0 to 1, are multiplied before the softmax."""
_NOTE = (
    "No ensemble answers here: the options are ordered by the words that a sentence of the corpus shares with them, "
    "which is often wrong. Read the passages."
)


class PassageAnswerer:
    """Shows the passages that share most words with a question, and orders the options by them.

    Args:
        documents: of the corpus.
    """

    def __init__(self, documents: Sequence[Document], tell: Tell):
        from sklearn.feature_extraction.text import TfidfVectorizer

        tell("the passages are being counted")
        self._passages = [part for document in documents for part in paragraphs_of(document)]
        self._vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
        self._vectors = self._vectorizer.fit_transform(map(passage_text, self._passages))

    def about(self) -> About:
        """The name of what orders the options; no estimate is known."""
        return About((_RANKER,))

    def explain(self, prompt: str, options: Sequence[str], tell: Tell) -> Explanation:
        """The passages with the sentences nearest to the options; see `Answerer.explain`."""
        from scipy.special import softmax

        started = time.monotonic()
        tell("the passages are being searched")
        question = one_question(prompt, options)
        texts = question.options[0]
        passages = self._nearest(question)
        near = [sentence.cosine for sentence in nearest_by_words(question, passages)]
        p = softmax(_SHARPNESS * np.array(near))
        order = np.argsort(-p, kind="stable").tolist()
        shown, kind = marked_passages(question, passages, None)
        seconds = round(time.monotonic() - started, 4)
        probabilities = tuple(map(float, p))
        return Explanation(
            prompt=question.prompts[0],
            options=tuple(Option(letter(place), text) for place, text in enumerate(texts)),
            order=tuple(letter(place) for place in order),
            probabilities=probabilities,
            rankers=(RankerAnswer(_RANKER, "", 1.0, probabilities, seconds),),
            passages=shown,
            mark_kind=kind,
            confidence=max(probabilities),
            reliability=None,
            seconds={"total": seconds},
            notes=(_NOTE,),
        )

    def _nearest(self, question: Questions) -> list[ContextPassage]:
        """The passages with the largest cosine of TF-IDF with the question and one of its options."""
        asked = self._vectorizer.transform([f"{question.prompts[0]} {option}" for option in question.options[0]])
        scores = (self._vectors @ asked.T).toarray().max(axis=1)
        best = np.argsort(-scores, kind="stable")[:_PASSAGES].tolist()
        found = [(self._passages[place], float(scores[place])) for place in best]
        return [ContextPassage(p.id, p.title, p.text, score, "tfidf") for p, score in found if score > 0]


def corpus_to_practise(corpus: str, count: int) -> tuple[list[Document], Questions]:
    """The documents of a corpus, and at most `count` questions that are made from them.

    Raises:
        UserError: the corpus cannot be read, is too large to be held in memory, or gives no question.
    """
    documents: list[Document] = []
    size = 0
    for document in read_corpus(corpus):
        documents.append(document)
        size += len(document.text)
        if size > SAMPLE_CHARACTERS:
            raise UserError(
                f"--corpus {corpus} has more than {SAMPLE_CHARACTERS // 1_000_000} million characters, and the page "
                "holds it in memory. Name a part of it, or train an ensemble with it and name its --workdir"
            )
    say(f"making up to {count} questions from {corpus}")
    exam = practice_exam(lambda wish: generate_exam(documents, wish), count)
    if not len(exam):
        raise UserError(no_question(corpus))
    return documents, exam
