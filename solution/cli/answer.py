"""An answer with its reasons, printed in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from solution.interactive.answers import Explanation, RankerAnswer, ShownPassage
from solution.interactive.words import joined, ranker_says, ranker_weight, sureness

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_BAR = 24
"""Characters of a bar of probability 1."""
_UNMARKED = 200
"""Characters shown of a passage in which no sentence decided."""


def print_answer(answer: Explanation, passages: int) -> None:
    """Print an answer on stdout.

    Args:
        passages: how many of them.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)
    console.print(answer.prompt, style="bold", markup=False)
    _print_options(console, answer)
    console.print(sureness(answer), markup=False)
    _print_rankers(console, answer.rankers)
    for passage in answer.passages[:passages]:
        console.print(passage_text(passage))
    if answer.passages and passages:
        how = "cosine" if answer.mark_kind == "embedding" else "share of its words"
        console.print(f"» « the sentence nearest to the question with the options behind it ({how})\n", markup=False)
    for note in answer.notes:
        console.print(f"note: {note}", markup=False)
    console.print(timing(answer), style="dim", markup=False)
    console.print()


def _print_options(console: Console, answer: Explanation) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for place, (option, probability) in enumerate(answer.ranking):
        bar = "█" * round(_BAR * probability)
        style = "green" if place == 0 else ""
        table.add_row(
            f"{place + 1}. {option.letter}", Text(option.text, style=style), Text(bar, style), f"{probability:.1%}"
        )
    console.print(table)


def _print_rankers(console: Console, rankers: Sequence[RankerAnswer]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("ranker", overflow="fold")
    table.add_column("weight", justify="right")
    table.add_column("says", overflow="fold")
    table.add_column("seconds", justify="right")
    for ranker in rankers:
        seconds = "" if ranker.probabilities is None else f"{ranker.seconds:.2f}"
        table.add_row(ranker.name, ranker_weight(ranker), Text(ranker_says(ranker)), seconds)
    console.print()
    console.print(table)


def passage_text(passage: ShownPassage) -> Text:
    """A passage with its title; the deciding sentences stand between » and «, with the letters of their options."""
    from rich.text import Text

    text = Text(f"{passage.title or passage.id} ", style="bold")
    text.append(f"({passage.retriever} {passage.score:.3f})\n", style="dim")
    if not passage.marks:
        return text.append(shortened(passage.text) + "\n", style="dim")
    place = 0
    for start, end, letters in joined(passage.marks):
        text.append(passage.text[place:start])
        text.append(f"»{passage.text[start:end]}«", style="bold yellow")
        text.append(f" [{letters}]", style="bold")
        place = end
    return text.append(passage.text[place:] + "\n")


def shortened(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= _UNMARKED else f"{text[: _UNMARKED - 4].rstrip()} ..."


def timing(answer: Explanation) -> str:
    """The seconds by stage, in a line."""
    parts = [f"{stage} {seconds:.2f} s" for stage, seconds in answer.seconds.items() if stage != "total"]
    return f"{answer.seconds.get('total', 0.0):.2f} s: {', '.join(parts)}"
