"""Answered questions of the training folds that a prompt shows before its question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solution.config import RankerConfig
from solution.exam import Exam, is_question


@dataclass(frozen=True)
class Example:
    """An answered question of the training folds, shown in the prompt."""

    id: str
    prompt: str
    options: list[str]
    answer: int


def choose_examples(exam: Exam, config: RankerConfig) -> list[Example]:
    """`prompt.few_shot` answered questions and one to spare, of the shorter half; a function of exam and seed.

    Questions that are only trained on (`training.extra`) are none of them: examples are kept with the weights.
    """
    if not config.prompt.few_shot:
        return []
    if exam.supervision is not None:
        exam = exam.subset(~exam.supervision.is_extra)
    exam.questions.require_answers("examples in the prompt")
    questions = exam.questions
    both = zip(questions.prompts, questions.options, strict=True)
    sizes = [len(prompt) + sum(map(len, options)) for prompt, options in both]
    rows = [row for row in np.argsort(sizes, kind="stable") if is_question(exam, int(row))]
    rows = rows[: max(config.prompt.few_shot + 1, len(rows) // 2)]
    picked = np.random.default_rng([config.seed, 11]).permutation(len(rows))[: config.prompt.few_shot + 1]
    examples = []
    for row in (int(rows[i]) for i in picked):
        positions = [i for i, option in enumerate(questions.options[row]) if option]
        options = [questions.options[row][i] for i in positions]
        answer = positions.index(int(questions.answers[row]))
        examples.append(Example(questions.ids[row], questions.prompts[row], options, answer))
    return examples
