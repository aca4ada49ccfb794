"""The mechanics of training: loop, adapters, batches, checkpoints, several processes. No exam and no folds."""
