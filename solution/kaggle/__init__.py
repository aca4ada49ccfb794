"""Kaggle: the bundle of all that a kernel needs, and what a kernel finds by itself."""
