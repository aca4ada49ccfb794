"""Contexts: the passages of each question that the rankers read, and scores of its options."""
