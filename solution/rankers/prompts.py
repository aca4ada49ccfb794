"""The text that a ranker reads. Only the context is ever cut; question and options stay whole where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from solution.exam import Exam, passage_text
from solution.questions import LETTERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n"


def context_text(exam: Exam, row: int, passages: int) -> str:
    """The first `passages` passages of a question, each with its title in front, best first."""
    return SEPARATOR.join(passage_text(passage) for passage in exam.passages[row][:passages])


def cut_text(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> str:
    """The longest beginning of `text` that is at most `tokens` tokens of it, cut between characters."""
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    offsets = encoded["offset_mapping"]
    if len(offsets) <= tokens:
        return text
    # A character that the tokenizer writes in bytes is several tokens: all of them stay, or none.
    while tokens > 0 and offsets[tokens][0] < offsets[tokens - 1][1]:
        tokens -= 1
    return text[: offsets[tokens - 1][1]] if tokens > 0 else ""


def shorten(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> str:
    """`text` without its last `tokens` tokens, and by a character at least."""
    kept = len(token_ids(tokenizer, [text])[0]) - tokens
    return min(cut_text(tokenizer, text, kept), text[:-1], key=len)


def listed_options(options: Sequence[str]) -> str:
    """The options a line each, lettered in the order given."""
    return "".join(f"{SEPARATOR}{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def question_with_options(tokenizer: PreTrainedTokenizerBase, question: str, options: Sequence[str], room: int) -> str:
    """A question with its options listed behind it, in at most `room` tokens.

    Where they do not fit, the question is cut; each option keeps at least its share of half the room.
    """
    whole, listed = question + listed_options(options), listed_options(options)
    if len(token_ids(tokenizer, [whole])[0]) <= room:
        return whole
    count = len(token_ids(tokenizer, [listed])[0])
    if count > room // 2:
        marks = len(token_ids(tokenizer, [listed_options([""])])[0])
        share = max(1, room // 2 // len(options) - marks)
        listed = listed_options([cut_text(tokenizer, option, share) for option in options])
        count = len(token_ids(tokenizer, [listed])[0])
    return cut_text(tokenizer, cut_text(tokenizer, question, room - count) + listed, room)


def question_room(option: int, room: int) -> int:
    """The most tokens that a question may have beside its longest option: what that leaves, or half the room."""
    return max(room - option, room - room // 2)


def share_room(question: int, option: int, room: int) -> tuple[int, int]:
    """The tokens that a question and its longest option keep: all where both fit, else each at least half the room."""
    if question + option <= room:
        return question, option
    kept = min(question, question_room(option, room))
    return kept, min(option, room - kept)


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = False, markup: bool = False
) -> list[list[int]]:
    """Token ids of several texts, without truncation.

    Args:
        special: whether the special tokens that the tokenizer puts around a text are added.
        markup: whether the names of special tokens in the texts are these tokens, as a chat template writes them;
            else they are text like any other.
    """
    if not texts:
        return []
    options = {"add_special_tokens": special, "split_special_tokens": not markup, "verbose": False}
    return tokenizer(list(texts), **options)["input_ids"]
