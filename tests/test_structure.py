"""Rules of the code's structure that `lint-imports` does not check."""

from __future__ import annotations

import ast

import pytest
from pipeline import ROOT


def own_imports_in_functions(text: str) -> list[int]:
    """The lines on which a function imports from this package."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = set()
    for node in (node for function in functions for node in ast.walk(function)):
        modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = ["solution" if node.level else node.module or ""]
        if isinstance(node, ast.Import | ast.ImportFrom) and any(name.split(".")[0] == "solution" for name in modules):
            lines.add(node.lineno)
    return sorted(lines)


def unexplained(text: str) -> list[int]:
    """Those of them that no comment stands above."""
    lines = text.splitlines()
    return [line for line in own_imports_in_functions(text) if not lines[line - 2].lstrip().startswith("#")]


def test_an_own_import_inside_a_function_says_why() -> None:
    """Own imports stand at the top of a file, where the layers are seen; an exception has its reason beside it."""
    files = sorted((ROOT / "solution").rglob("*.py"))
    found = {str(path.relative_to(ROOT)): unexplained(path.read_text(encoding="utf-8")) for path in files}
    assert len(files) > 100 and {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from solution.oof import load_oof", [2]),
        ("from . import oof", [2]),
        ("import json, solution.oof", [2]),
        ("# Here: it loads torch.\n    from solution import oof", []),
        ("import torch", []),
        ("from solutions import x", []),
    ],
)
def test_an_unexplained_import_is_found(line: str, expected: list[int]) -> None:
    assert unexplained(f"def f() -> None:\n    {line}\n") == expected
