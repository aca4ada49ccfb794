"""Answers with their reasons: what each ranker says, the passages, and how often such an answer is right."""

from __future__ import annotations

import time
from collections.abc import Sequence

from solution.config import SIGNALS
from solution.folds import known_options, options_print
from solution.inference.turns import Turn
from solution.interactive.answers import Explanation, Option, RankerAnswer, ShownPassage
from solution.interactive.deciding import distinct_passages, marked_passages
from solution.interactive.html import DrawnExplanation
from solution.interactive.loaded import Asked, LoadedEnsemble
from solution.interactive.question import one_question
from solution.interactive.reliability import OofReliability
from solution.questions import Questions, letter, ranked_options, repeated_options

PASSAGES = 8
"""Passages that are shown at the most."""


class Explainer:
    """Explains the answers of a loaded ensemble."""

    def __init__(self, ensemble: LoadedEnsemble):
        self.ensemble = ensemble
        names = [stage.ranker for stage in ensemble.schedule.whole]
        self._learnt = known_options(ensemble.workdir.folds)
        self._reliability = OofReliability(ensemble.workdir, names)

    def explain(self, prompt: str, options: Sequence[str], context: str | None = None) -> Explanation:
        """The answer to one question.

        Args:
            context: see `one_question`.

        Raises:
            UserError: see `one_question` and `LoadedEnsemble.ask`.
        """
        started = time.monotonic()
        question = one_question(prompt, options, context)
        # One lock for both: the embedder and the indexes serve one thread at a time.
        with self.ensemble.lock:
            asked = self.ensemble.ask(question)
            before = time.monotonic()
            passages, kind = self._passages(question, asked)
        seconds = {**asked.seconds, "sentences": time.monotonic() - before}
        seconds["total"] = time.monotonic() - started
        answers, blended = asked.answers, asked.blended[0]
        confidence = float(blended.max())
        blenders = [name for name, turn in answers.blended_turns.items() if turn.answered[0]]
        return DrawnExplanation(
            prompt=question.prompts[0],
            options=tuple(Option(letter(place), text) for place, text in enumerate(question.options[0])),
            order=tuple(ranked_options(asked.blended, answers.exists)[0]),
            probabilities=tuple(map(float, blended)),
            rankers=self._rankers(asked),
            passages=passages,
            mark_kind=kind,
            confidence=confidence,
            reliability=self._reliability.at(confidence, blenders, answers.recipes.of(blenders)),
            seconds={stage: round(value, 4) for stage, value in seconds.items()},
            notes=tuple(self._notes(question, asked)),
        )

    def _rankers(self, asked: Asked) -> tuple[RankerAnswer, ...]:
        weights, families = self.ensemble.weights(asked.answers), self._families
        rows = [
            RankerAnswer(
                name,
                families.get(name, ""),
                weights.get(name, 0.0),
                tuple(map(float, turn.table()[0])) if turn.answered[0] else None,
                round(asked.seconds.get(name, 0.0), 4),
                _note(turn),
            )
            for name, turn in asked.answers.turns.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-1 if row.weight is None else -row.weight, row.name)))

    @property
    def _families(self) -> dict[str, str]:
        return {ranker.name: ranker.config.family for ranker in self.ensemble.trained}

    def _passages(self, question: Questions, asked: Asked) -> tuple[tuple[ShownPassage, ...], str]:
        """The passages that rankers have read; where they read none, those that their signals' retrieval finds."""
        every = [
            (key, contexts.passages[0])
            for key, views in asked.contexts.items()
            for view, contexts in views.items()
            if view != SIGNALS and contexts.passages[0]
        ]
        if not every and asked.contexts:
            key = next(iter(asked.contexts))
            every = [(key, self.ensemble.retrievals[key].views(question, ["fused"])["fused"].passages[0])]
        retrieval = self.ensemble.retrievals[every[0][0]] if every else None
        return marked_passages(question, distinct_passages((found for _, found in every), PASSAGES), retrieval)

    def _notes(self, question: Questions, asked: Asked) -> list[str]:
        """What whoever reads the answer should know."""
        notes = []
        if options_print(question.options[0]) in self._learnt:
            notes.append("The rankers were trained on a question with these very options: they may know its answer.")
        if repeated_options(question):
            notes.append("Two options are the same text: which of the two stands first means nothing.")
        for name, turn in asked.answers.turns.items():
            groups = ", ".join(group for groups in turn.alike.values() for group in groups)
            if groups:
                notes.append(f"{name} reads the options {groups} alike: their texts are the same tokens to it.")
        notes += [
            ranker.shortfall
            for ranker in self.ensemble.trained
            if ranker.shortfall and asked.answers.turns[ranker.name].answered[0]
        ]
        left_out = [name for name, turn in asked.answers.blended_turns.items() if turn.state == "failed"]
        if left_out:
            notes.append(f"Answered without {', '.join(left_out)}: the others keep the proportions of their weights.")
        return notes


def _note(turn: Turn) -> str:
    if turn.answered[0]:
        return ""
    return turn.reason or "it was not asked"
