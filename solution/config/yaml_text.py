"""YAML texts: their values, and what YAML's own reader would drop without a word."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import yaml

_MOST_NODES = 100_000
# ValueError: a date such as 2024-13-01; the others come of tags on what they do not fit: !!bool x, !!int "".
YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError, OverflowError)


class RepeatedKey(NamedTuple):
    """A key that stands in its mapping already: its dotted name, its line, and the line of the first."""

    name: str
    line: int
    first: int


def parse_yaml(text: str) -> tuple[Any, list[RepeatedKey]]:
    """The value of a YAML text, and its repeated keys.

    Raises:
        one of `YAML_ERRORS`: it is not YAML, or so many aliases stand in it that reading it would not end.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if _size(root, {}) > _MOST_NODES:
        raise yaml.YAMLError(f"its aliases (*name) hold themselves or stand for more than {_MOST_NODES} values")
    return yaml.safe_load(text), _repeated_keys(root)


def _size(node: yaml.Node | None, sizes: dict[int, float]) -> float:
    """The number of nodes with each alias replaced by its value; `sizes` keeps the numbers that are known, by id."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known: a node that holds itself has no end
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _repeated_keys(root: yaml.Node | None) -> list[RepeatedKey]:
    """The keys of all mappings that YAML's own reader would drop without a word: it keeps the last of equal ones."""
    repeated: list[RepeatedKey] = []
    done: set[int] = set()

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if id(node) in done:  # an anchor may be named many times, and from inside itself
            return
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item, prefix)
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if (key.tag, name) in lines:
                    repeated.append(RepeatedKey(prefix + name, line, lines[key.tag, name]))
                lines.setdefault((key.tag, name), line)
                walk(value, f"{prefix}{name}.")

    walk(root, "")
    return repeated
