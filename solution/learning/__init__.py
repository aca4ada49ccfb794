"""The mechanics of training: the loop, adapters, batches, checkpoints, several processes. No exam and no folds.

`loop.train` is the place to begin.
"""
