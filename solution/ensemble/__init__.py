"""Blends of several rankers.

A submission needs `blend` and `cascade` (what they are) and `record` (ensemble.json). `tune` makes them: `candidates`
are the blends that compete, fitted by `search`, `sampler`, `line_search` and `stacker` on an `evaluator`; `nested`
judges and chooses; `frontier` plans the cascade by `costs`; `rows` and `table` show it. `imported` takes in the answers
of other programs.
"""
