"""Train the rankers on one fold (or all): python train_fold.py --fold 0"""

from solution.cli.train_fold import train_fold_app

if __name__ == "__main__":
    train_fold_app()
