"""Trained ensembles given to others: as a repository of the Hugging Face hub, or as a folder."""
