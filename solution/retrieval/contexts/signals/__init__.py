"""Signals of the options: numbers that say how well each option fits its question and the corpus.

Each kind has a module: `cosines` (embeddings), `words` (BM25 and shared words), `information` (how often terms of the
question and of the option stand in one sentence), `form` (lengths; they need no corpus). `build` makes all of them.
"""
