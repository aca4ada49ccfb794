"""docs/models.md has a row for every model that a settings file names, and each row says what was proven."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STATES = ("measured", "twin", "not tried")


def rows() -> dict[str, str]:
    """The first cell of each row of a table -> its last one."""
    cells = (
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    )
    return {first.strip("`"): last for first, *_, last in cells if first != "model"}


def named() -> set[str]:
    models = set()
    for path in (ROOT / "configs").rglob("*.yaml"):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        reranker = settings.get("reranker") or {}
        models |= {settings.get("model"), settings.get("embedder"), reranker.get("model")} - {None}
    return models


@pytest.mark.parametrize("model", sorted(named()))
def test_each_model_of_the_settings_files_has_a_row(model: str) -> None:
    assert model in rows(), f"docs/models.md has no row for {model}"


def test_each_row_says_what_was_proven() -> None:
    assert len(rows()) > 5
    unclear = {model: state for model, state in rows().items() if not re.match("|".join(STATES), state)}
    assert not unclear
