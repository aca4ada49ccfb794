"""Rankers: one module a family; `families.make_ranker` builds the one that a config names."""

from solution import noise  # noqa: F401 - silences other libraries before they are imported
