"""Contexts of a large exam: their passages stay on disk, and are the same as those of a small one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from conftest import random_questions

from solution.config import RetrievalConfig
from solution.exam import ContextPassage, Contexts, Exam, texts_read
from solution.retrieval.contexts import cache, stored

QUESTIONS = random_questions(11)
CONFIG = RetrievalConfig(option_scores=["sentence"])


def contexts() -> Contexts:
    passages = [
        [
            ContextPassage(f"p{row}-{i}", f"Title {row}", f"text {row} {i} é", row + i / 10, "dense")
            for i in range(row % 4)
        ]
        for row in range(len(QUESTIONS))
    ]
    scores = np.random.default_rng(0).random((len(QUESTIONS), 5)).astype(np.float32)
    scores[3, 4] = np.nan
    return Contexts(list(QUESTIONS.ids), passages, {"sentence": scores})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache to which the contexts are written in two parts, where 5 questions are many."""
    monkeypatch.setattr(cache, "LARGE", 5)
    monkeypatch.setattr(stored, "BATCH", 4)
    place = cache.ContextCache(QUESTIONS, CONFIG, tmp_path, {})
    whole = contexts()
    place.write_parts(whole.subset(rows) for rows in (range(7), range(7, 11)))
    return place


def test_passages_on_disk_are_those_that_were_written(place, monkeypatch):
    found, whole = place.read(), contexts()
    assert isinstance(found.passages, stored.StoredPassages) and found.key == place.key
    assert list(found.passages) == whole.passages
    assert found.hash == whole.hash
    np.testing.assert_array_equal(found.option_scores["sentence"], whole.option_scores["sentence"])
    monkeypatch.setattr(cache, "LARGE", 100)
    assert place.read().passages == whole.passages


def test_a_part_of_an_exam_reads_its_own_passages(place):
    """In this process and in another one, to which it is sent without the texts."""
    exam, whole = Exam.join(QUESTIONS, place.read()), contexts()
    rows = [9, 2, 10, 2]
    part = exam.subset(rows).subset([1, 0, 2])
    wanted = [whole.passages[row] for row in (2, 9, 10)]
    assert list(part.passages) == wanted
    sent = pickle.dumps(part.passages)
    assert len(sent) < 1000 and list(pickle.loads(sent)) == wanted
    assert texts_read(part) != texts_read(exam.subset([2, 9, 3]))
    assert texts_read(part) == texts_read(exam.subset([2, 9, 10]))


def test_other_passages_than_those_written_are_made_again(place, tmp_path, capsys):
    import pyarrow.parquet as pq

    with pq.ParquetFile(place.path) as file:
        metadata, table = file.metadata.metadata, file.read()
    changed = table.set_column(0, "id", [[*table.column("id").to_pylist()[:-1], "other"]])
    pq.write_table(changed.replace_schema_metadata(metadata), place.path)
    assert place.read() is None and "corrupt" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.arrow"))
