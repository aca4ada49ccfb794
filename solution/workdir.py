"""The places in a working folder; the only module that knows their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solution.errors import UserError
from solution.suggestions import recall_exam


@dataclass(frozen=True)
class Workdir:
    """A working folder: the questions, `oof/`, `weights/`, `logs/` and `cache/` of one exam."""

    root: Path

    @classmethod
    def at(cls, path: str | Path) -> Workdir:
        """The working folder, which need not be there yet.

        Raises:
            UserError: the path is a file.
        """
        root = Path(path)
        if root.exists() and not root.is_dir():
            raise UserError(f"--workdir {root} is a file; give a folder")
        workdir = cls(root)
        recall_exam(workdir.exam_arguments)
        return workdir

    @classmethod
    def open(cls, path: str | Path) -> Workdir:
        """The working folder, made when it is missing.

        Raises:
            UserError: the path is a file.
        """
        workdir = cls.at(path)
        workdir.root.mkdir(parents=True, exist_ok=True)
        return workdir

    @classmethod
    def existing(cls, path: str | Path) -> Workdir:
        """The working folder, for a command that only goes on from what is in it.

        Raises:
            UserError: the path is a file, or nothing.
        """
        workdir = cls.at(path)
        if not workdir.root.exists():
            raise UserError(f"--workdir {path} is not there; name the folder that the exam was trained in")
        return workdir

    @property
    def questions(self) -> Path:
        """The exam to train on, where no other file is named."""
        return self.root / "questions.csv"

    @property
    def test(self) -> Path:
        """The questions to answer, where no other file is named."""
        return self.root / "test.csv"

    @property
    def exam(self) -> Path:
        """What the verbs `exam` and `demo` have finished, and notes for the head of the report."""
        return self.root / "exam.json"

    @property
    def submission(self) -> Path:
        """The answers that the verbs `exam` and `demo` write."""
        return self.root / "submission.csv"

    @property
    def corpus(self) -> Path:
        """Links to the files of a corpus that the verb `exam` has chosen from a folder."""
        return self.root / "corpus"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def oof(self) -> Path:
        return self.root / "oof"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def folds(self) -> Path:
        return self.root / "oof" / "folds.json"

    @property
    def exam_arguments(self) -> Path:
        """What the last command that read the exam was told of it, for the commands that messages suggest."""
        return self.root / "oof" / "exam.json"

    @property
    def ensemble(self) -> Path:
        return self.weights / "ensemble.json"

    def oof_part(self, ranker: str, fold: int) -> Path:
        return self.oof / ranker / f"fold_{fold}.parquet"

    def nested_part(self, ranker: str, fold: int, without: int) -> Path:
        """A ranker's answers to a fold by a training that left another fold out too, see `training.nested`."""
        return self.oof / ranker / f"nested_{fold}_{without}.parquet"

    def fold_weights(self, ranker: str, fold: int) -> Path:
        return self.weights / ranker / f"fold_{fold}"

    def checkpoint(self, ranker: str, fold: int) -> Path:
        return self.cache / "checkpoints" / ranker / f"fold_{fold}"

    def pair_checkpoint(self, ranker: str, fold: int, other: int) -> Path:
        """Of the training that leaves two folds out."""
        return self.cache / "checkpoints" / ranker / f"without_{fold}_{other}"

    def full_weights(self, ranker: str, number: int) -> Path:
        """Of a ranker that was trained on all questions, the weights of its `number`-th seed."""
        return self.weights / ranker / f"full_{number}"

    def average_weights(self, ranker: str) -> Path:
        """The mean of a ranker's folds."""
        return self.weights / ranker / "average"

    def full_checkpoint(self, ranker: str, number: int) -> Path:
        return self.cache / "checkpoints" / ranker / f"full_{number}"

    def full_logs(self, ranker: str, number: int) -> Path:
        return self.root / "logs" / ranker / f"full_{number}"

    def pretrained(self, ranker: str) -> Path:
        """What the folds of a ranker start from, see `training.pretraining`."""
        return self.weights / ranker / "pretrained"

    def pretraining_checkpoint(self, ranker: str) -> Path:
        return self.cache / "checkpoints" / ranker / "pretraining"

    def pretraining_logs(self, ranker: str) -> Path:
        return self.root / "logs" / ranker / "pretraining"

    @property
    def tracking(self) -> Path:
        """What experiment trackers write."""
        return self.root / "logs" / "tracking"

    def logs(self, ranker: str, fold: int) -> Path:
        return self.root / "logs" / ranker / f"fold_{fold}"
