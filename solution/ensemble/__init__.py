"""Blending rankers: the blend itself, the search for its weights with an honest estimate, and the table of results."""
