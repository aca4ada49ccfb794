"""The stage behind `train_fold.py`: rankers trained on folds, and a trained fold merged into one model."""
