"""The verbs of `python -m solution`: `index tune` is one of two words, in every place where the second may stand."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.main import get_command

from solution.cli.app import app


def parse(line: str) -> tuple[str, dict[str, Any]]:
    """The verb of a command line and its parameters, by the real parser."""
    group: Any = get_command(app)
    words = shlex.split(line)
    name, command, rest = group.resolve_command(group.make_context("solution", words), words)
    return name, command.make_context(name, rest).params


@pytest.mark.parametrize(
    ("line", "verb", "overrides"),
    [
        ("index", "index", []),
        ("index retrieval.top_k=5", "index", ["retrieval.top_k=5"]),
        ("index --workdir w retrieval.top_k=5 --corpus tune", "index", ["retrieval.top_k=5"]),
        ("index --questions exam.csv", "index", []),
        ("index retrieval.top_k=5 tune", "index", ["retrieval.top_k=5", "tune"]),
        ("index tune", "index tune", []),
        ("index tune --workdir w retrieval.top_k=5 --kinds hnsw", "index tune", ["retrieval.top_k=5"]),
        ("index --workdir w tune retrieval.top_k=5 --queries 3", "index tune", ["retrieval.top_k=5"]),
        ("index --workdir=w --recall 0.9 tune retrieval.top_k=5", "index tune", ["retrieval.top_k=5"]),
        ("index --corpus tune tune", "index tune", []),
        ("index -- tune", "index tune", []),
        ("tune --workdir w tune.trials=3", "tune", ["tune.trials=3"]),
    ],
)
def test_index_tune_is_a_verb_wherever_its_second_word_stands(line: str, verb: str, overrides: list[str]) -> None:
    name, parameters = parse(line)
    assert (name, list(parameters["overrides"] or [])) == (verb, overrides)
    if "workdir" in line:
        assert str(parameters["workdir"]) == "w"
