"""An answer as a piece of HTML, for notebooks: no script, no style sheet, nothing from elsewhere."""

from __future__ import annotations

from html import escape

from solution.interactive.answers import Explanation, RankerAnswer, ShownPassage
from solution.interactive.words import joined, ranker_says, ranker_weight, sureness

_PASSAGES = 3
_BAR = "display:inline-block;height:.8em;background:#2a7ab9;width:{:.1f}em"


class DrawnExplanation(Explanation):
    """An answer that a notebook draws."""

    def _repr_html_(self) -> str:
        return answer_html(self)


def answer_html(answer: Explanation) -> str:
    """The ranked options with bars, how sure the ensemble is, what each ranker says, and the marked passages."""
    options = "".join(
        f"<tr><td>{option.letter}</td><td>{escape(option.text)}</td>"
        f'<td><span style="{_BAR.format(10 * probability)}"></span></td><td>{probability:.1%}</td></tr>'
        for option, probability in answer.ranking
    )
    rankers = "".join(map(_ranker_row, answer.rankers))
    passages = "".join(map(_passage, answer.passages[:_PASSAGES]))
    notes = "".join(f"<li>{escape(note)}</li>" for note in answer.notes)
    return (
        f"<div><p><b>{escape(answer.prompt)}</b></p><table>{options}</table><p>{escape(sureness(answer))}</p>"
        f"<table><tr><th>ranker</th><th>weight</th><th>says</th><th>seconds</th></tr>{rankers}</table>"
        f"{passages}{f'<ul>{notes}</ul>' if notes else ''}</div>"
    )


def _ranker_row(ranker: RankerAnswer) -> str:
    seconds = "" if ranker.probabilities is None else f"{ranker.seconds:.2f}"
    says = escape(ranker_says(ranker))
    return f"<tr><td>{escape(ranker.name)}</td><td>{ranker_weight(ranker)}</td><td>{says}</td><td>{seconds}</td></tr>"


def _passage(passage: ShownPassage) -> str:
    text, place = "", 0
    for start, end, letters in joined(passage.marks):
        text += f"{escape(passage.text[place:start])}<mark>{escape(passage.text[start:end])}</mark> <b>[{letters}]</b>"
        place = end
    return f"<p><b>{escape(passage.title or passage.id)}</b><br>{text}{escape(passage.text[place:])}</p>"
