"""An exam from a corpus: drafts in turn, wrong options, letters, and no question twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from solution.files import content_hash
from solution.folds import group_questions
from solution.generation.cloze import cloze_drafts
from solution.generation.drafts import KINDS, Draft, Kind
from solution.generation.material import Material
from solution.generation.meaning import definition_drafts
from solution.generation.options import Chooser
from solution.progress import say
from solution.questions import SOURCE, Questions
from solution.retrieval.corpus import Document

NEAR_DUPLICATE = 0.8
"""Two questions are one where the TF-IDF cosine of their prompts is at least this; see `folds.group_questions`."""
_SPARE = 1.1


@dataclass(frozen=True)
class Wish:
    """What an exam shall be.

    Attributes:
        count: questions; fewer where the corpus has no more.
        options: of each question.
        without: an exam of which no question may be asked again.
    """

    count: int
    options: int = 5
    kinds: Sequence[Kind] = KINDS
    seed: int = 0
    without: Questions | None = None


@dataclass(frozen=True)
class _Made:
    draft: Draft
    wrong: list[str]


def generate_exam(documents: Iterable[Document], wish: Wish) -> Questions:
    """An exam of at most `wish.count` questions; extra columns: `passage` (the source's id), `title`, `kind`.

    The same corpus, wish and version of the package give the same exam.
    """
    material = Material.read(documents, wish.seed)
    sample = material.sample
    part = "" if sample.whole else ", a sample of the corpus"
    say(
        f"{len(sample.passages)} passages{part}: {len(material.terms.terms)} key terms, "
        f"{len(material.glossary.definitions)} definitions, for questions of {wish.options} options"
    )
    rng = random.Random(wish.seed)
    queues = _drafts_by_kind(material, wish.kinds, rng)
    # Of a short text every term may be a wrong option: it has too few that are asked for.
    every = range(len(material.terms.terms))
    askable = {
        kind: every if sample.short else sorted({draft.term for draft in drafts}) for kind, drafts in queues.items()
    }
    chooser = Chooser(material, askable, wish.options, rng)
    made = (_Made(draft, wrong) for draft in _in_turn(queues) if (wrong := chooser.choose(draft)) is not None)
    accepted: list[_Made] = []
    while len(accepted) < wish.count:
        missing = wish.count - len(accepted)
        new = list(itertools.islice(made, int(missing * _SPARE) + 1))
        if not new:
            break
        accepted = _distinct([*accepted, *new], wish.without)
    return _questions(accepted[: wish.count], material, wish, rng)


def _drafts_by_kind(material: Material, kinds: Sequence[Kind], rng: random.Random) -> dict[Kind, list[Draft]]:
    """The drafts of each kind in random order; a term's second one behind the first ones of all terms."""
    of_term, of_meaning = definition_drafts(material)
    found: dict[Kind, list[list[Draft]]] = {"cloze": cloze_drafts(material), "term": of_term, "definition": of_meaning}
    queues: dict[Kind, list[Draft]] = {}
    for kind in KINDS:
        if kind in kinds:
            terms = found[kind]
            rng.shuffle(terms)
            terms.sort(key=lambda drafts: -drafts[0].worth)  # all alike but in a short text
            most = max(map(len, terms), default=0)
            queues[kind] = [drafts[turn] for turn in range(most) for drafts in terms if turn < len(drafts)]
    return queues


def _in_turn(queues: dict[Kind, list[Draft]]) -> Iterator[Draft]:
    """A draft of each kind in turn, and no sentence twice: one blank would show what stood in the other.

    Those whose term had a question come when no other term is left.
    """
    waiting = {kind: iter(drafts) for kind, drafts in queues.items()}
    terms: set[int] = set()
    sentences: set[int] = set()
    later: list[Draft] = []
    while waiting:
        for kind in list(waiting):
            for draft in waiting[kind]:
                if draft.term in terms:
                    later.append(draft)
                elif draft.sentence not in sentences:
                    terms.add(draft.term)
                    sentences.add(draft.sentence)
                    sentences.discard(-1)
                    yield draft
                    break
            else:
                del waiting[kind]
    for draft in later:
        if draft.sentence not in sentences:
            sentences.add(draft.sentence)
            sentences.discard(-1)
            yield draft


def _distinct(made: Sequence[_Made], without: Questions | None) -> list[_Made]:
    """Those of which no earlier one, and none of the exam `without`, is a near-duplicate."""
    old = list(without.prompts) if without is not None else []
    prompts = old + [question.draft.prompt for question in made]
    n = len(prompts)
    every = Questions([str(row) for row in range(n)], prompts, [[] for _ in prompts], np.full(n, -1))
    groups = group_questions(every, None, NEAR_DUPLICATE)
    seen = set(groups[: len(old)].tolist())
    kept = []
    for question, group in zip(made, groups[len(old) :].tolist(), strict=True):
        if group not in seen:
            seen.add(group)
            kept.append(question)
    return kept


def _questions(made: Sequence[_Made], material: Material, wish: Wish, rng: random.Random) -> Questions:
    """The exam, every letter right as often as every other."""
    answers = [row % wish.options for row in range(len(made))]
    rng.shuffle(answers)
    options, ids, passages = [], [], [material.sample.passages[question.draft.passage] for question in made]
    for question, answer in zip(made, answers, strict=True):
        wrong = list(question.wrong)
        rng.shuffle(wrong)
        options.append([*wrong[:answer], question.draft.answer, *wrong[answer:]])
        ids.append(f"{question.draft.kind}-{content_hash(question.draft.prompt, question.draft.answer)[:12]}")
    return Questions(
        ids=ids,
        prompts=[question.draft.prompt for question in made],
        options=options,
        answers=np.array(answers, dtype=np.int64),
        extra={
            SOURCE: [passage.id for passage in passages],
            "title": [passage.title for passage in passages],
            "kind": [question.draft.kind for question in made],
        },
    )
