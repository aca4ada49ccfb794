"""Rankers: one module a family. `make_ranker` builds the one that a config names."""
