"""A made-up corpus from which questions can be made: a glossary of minerals, and prose about them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from solution.retrieval.corpus import Document

_PLACES = "lava tubes,salt marshes,hot springs,glacier mouths,desert basins,coastal cliffs,deep mines,peat bogs".split(
    ","
)
_COLOURS = "crimson violet amber turquoise ivory indigo scarlet olive".split()
_USES = "dyeing wool,curing leather,hardening glass,lining kilns,grinding lenses,sealing barrels".split(",")
_TOOLS = "tongbox slagpot flarepan kilnbin meltcup rakejar quenchtub drosskeg".split()
_STEMS = "vor bren kal tum sar wel dov nar pel gor hask mir lund oster fenn rud ".split()


def _minerals() -> list[tuple[str, str]]:
    """Made-up minerals of one and two words, each with a definition of its own."""
    names = [a + b + "ite" for a in _STEMS for b in ("an", "ol", "ex")]
    names += [f"{colour} {name}" for colour, name in zip(_COLOURS * 2, ["felspar"] * 8 + ["gangue"] * 8, strict=True)]
    rng = random.Random(1)
    rng.shuffle(names)
    choices = [
        (place, use, "brittle" if row % 2 else "heavy") for row, place in enumerate(_PLACES * 8) for use in _USES
    ]
    rng.shuffle(choices)
    # Lengths differ as in a real glossary.
    tails = ["", " in the far north", ", where it was first seen by miners of the old kingdom"]
    return [
        (name, f"{weight} rock of {place} that is quarried for {use}{tails[row % 3]}")
        for row, (name, (place, use, weight)) in enumerate(zip(names, choices, strict=False))
    ]


def mineral_documents() -> list[Document]:
    """A glossary, and prose that names each mineral in sentences that stand alone."""
    documents = []
    for row, (name, definition) in enumerate(_minerals()):
        documents.append(Document(f"g{row}", "Minerals > Glossary", f"{name}: {definition}"))
        text = (
            f"Smiths of province {row} cool the {name} in a {_TOOLS[row % 8]} before the {_TOOLS[row % 7]} splits it. "
            f"They call this the best of all. A crystal of {name} bends light."
        )
        documents.append(Document(f"p{row}", f"Mining {row // 4}", text))
    for row, tool in enumerate(_TOOLS):
        definition = f"vessel number {row} which guild {row * 7} keeps for {_COLOURS[row]} dust"
        documents.append(Document(f"t{row}", "Tools > Glossary", f"{tool}: {definition}"))
    documents += [
        Document("d0", "Tomograph", "A tomograph is a machine that draws slices of a body from many shadows of it."),
        Document("n0", "Notes", "Note: the words below are explained elsewhere in the book by its authors"),
    ]
    return documents


def write_documents(path: Path, documents: list[Document]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "title", "text"])
        writer.writerows([document.id, document.title, document.text] for document in documents)
    return path
