"""Inference: sequential submission, one model in memory at a time."""
