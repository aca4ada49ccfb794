"""Encoding in other processes: the same questions in the same order, whatever happens to a process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_exam
from test_training import Killed
from test_training_options import Toy

from solution.learning import batches
from solution.learning.ahead import Encoder, encoded_windows, encoding_processes, pieces
from solution.learning.batches import WHOLE, epoch_windows, window_size


class Squares:
    """An encoder whose process ends at a negative number."""

    def encode_job(self, job: list[int]) -> list[tuple[int, int]]:
        if min(job) < 0 and multiprocessing.parent_process() is not None:
            os._exit(9)
        return [(number, number**2) for number in job]

    def length(self, item: tuple[int, int]) -> int:
        return item[1]


class NotSent(Squares):
    """An encoder that cannot be pickled, as a tokenizer with a normaliser in Python."""

    def __reduce__(self) -> Any:
        raise Exception("Custom Normalizer cannot be serialized")


class NotReceived(Squares):
    """An encoder that another process cannot read."""

    def __reduce__(self) -> Any:
        return int, ("no encoder",)


def numbers(
    windows: list[list[list[int]]], processes: int, encoder: Encoder | None = None
) -> list[list[tuple[Any, int]]]:
    encoder = encoder or Squares()
    found = encoded_windows(encoder, encoder, windows, processes)
    return [[(stored.item, stored.length) for stored in window] for window in found]


def test_processes_encode_in_order_and_one_that_dies_is_replaced(capsys):
    windows = [[[4, 5], [6]], [[7]], [[8], [9, 1]], [[2, -3], [4]], [[5]], [[6]]]
    assert numbers(windows, 1) == numbers(windows, 0)
    assert "a process that encodes questions has ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("encoder", "told"), [(NotSent(), "cannot be sent to other processes (Custom"), (NotReceived(), "has ended")]
)
def test_an_encoder_that_no_other_process_can_have_encodes_here(encoder, told, capfd):
    windows = [[[4, 5], [6]], [[7]]]
    assert numbers(windows, 1, encoder) == numbers(windows, 0)
    error = capfd.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_script_is_not_run_once_more_by_the_processes_that_encode(tmp_path):
    (tmp_path / "lengths.py").write_text(
        "class Lengths:\n    encode_job, length = staticmethod(list), staticmethod(len)\n"
    )
    (tmp_path / "script.py").write_text(
        "from lengths import Lengths\n"
        "from solution.learning.ahead import encoded_windows\n"
        "print([each.pickled for window in encoded_windows(None, Lengths(), [[['ab', 'c']]], 1) for each in window])\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[True, True]\n", "")


def test_encoding_stops_where_the_training_does():
    """No more than two windows are encoded ahead of the one that is read."""
    read = []

    def windows():
        for number in range(9):
            read.append(number)
            yield [[number]]

    found = encoded_windows(Squares(), Squares(), windows(), 1)
    assert next(found)[0].item == (0, 0)
    found.close()
    assert read == [0, 1, 2]


@pytest.mark.parametrize("kind", ["deberta", "bert", "llama", "t5"])
def test_a_ranker_without_its_model_encodes_the_same(kind, tiny, tmp_path):
    from solution.rankers.families import make_ranker
    from solution.rankers.neural import EncodingJob

    family = {"llama": "causal", "t5": "seq2seq"}.get(kind, "multiple_choice")
    ranker: Any = make_ranker(tiny_config(family, tiny(kind)), tmp_path)
    ranker.build()
    copy: Encoder = pickle.loads(pickle.dumps(ranker.for_processes()))
    exam = tiny_exam(6, words=60)
    for job in (EncodingJob(exam, None, [3, 1, 4, 1, 5, 9], 2), EncodingJob(exam, None)):
        items = ranker.encode_job(job)
        assert copy.encode_job(job) == items
        assert list(map(copy.length, items)) == list(map(ranker.length, items))


def test_few_questions_are_encoded_by_the_training_itself():
    assert encoding_processes(2048, None) == 0
    assert 1 <= encoding_processes(300_000, None) <= 4
    assert encoding_processes(10, 3) == 3


def test_a_long_epoch_is_planned_by_windows():
    assert [window_size(count) for count in (0, 1, WHOLE, WHOLE + 1)] == [1, 1, WHOLE, 1024]
    count, per_step = WHOLE + 100, 24
    windows = epoch_windows(count, per_step, seed=3, epoch=1)
    assert [len(window.rows) for window in windows] == [768] * 5 + [count - 5 * 768]
    assert sorted(row for window in windows for row in window.rows) == list(range(count))
    assert windows == epoch_windows(count, per_step, seed=3, epoch=1)
    lengths = np.random.default_rng(0).integers(1, 500, 768).tolist()
    steps = windows[0].steps(lengths, per_step)
    assert sorted(place for step in steps for place in step) == list(range(768))
    assert np.mean([np.ptp([lengths[place] for place in step]) for step in steps]) < 60  # in random order about 480


def test_pieces():
    assert [len(piece) for piece in pieces(range(70))] == [32, 32, 6]


class DyingToy(Toy):
    left = -1

    def scores(self, items):
        if self.left == 0:
            raise Killed
        self.left -= 1
        return super().scores(items)


@pytest.mark.parametrize("life", [1, 15, 16, 17, 38, 39, 70])
def test_a_training_by_windows_goes_on_with_the_same_steps(life, tmp_path, monkeypatch):
    """Killed within a window, at its end, and in the second epoch; an epoch has three windows and 38 steps."""
    monkeypatch.setattr(batches, "WHOLE", 20)
    monkeypatch.setattr(batches, "_WINDOW", 1)
    whole, killed = Toy(150), DyingToy(150)
    settings = {"epochs": 2, "checkpoint_seconds": 0}
    assert whole.train(tmp_path / "whole", **settings)["steps"] == 76
    killed.left = life
    with pytest.raises(Killed):
        killed.train(tmp_path / "killed", **settings)
    again = Toy(150)
    again.train(tmp_path / "killed", **settings)
    assert len(again.seen) == 76 - life
    assert all(map(torch.equal, again.seen, whole.seen[life:]))
    assert torch.equal(again.layer.weight, whole.layer.weight)


def test_a_checkpoint_of_a_version_with_another_order_is_not_continued(tmp_path, monkeypatch, capsys):
    """Versions before there were windows read a long epoch as a whole."""
    settings = {"epochs": 1, "checkpoint_seconds": 0}
    killed = DyingToy(150)
    killed.left = 5
    with pytest.raises(Killed):
        killed.train(tmp_path / "killed", **settings)
    monkeypatch.setattr(batches, "WHOLE", 20)
    whole, again = Toy(150), Toy(150)
    whole.train(tmp_path / "whole", **settings)
    assert "starting this one anew" not in capsys.readouterr().err
    again.train(tmp_path / "killed", **settings)
    assert "an older version of this program, which read many questions in another order" in capsys.readouterr().err
    assert torch.equal(again.layer.weight, whole.layer.weight)
