"""Rankers: one module a family; `families.make_ranker` builds the one that a config names."""
