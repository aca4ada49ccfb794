"""The passages of an index, read by row from their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from solution.errors import UserError
from solution.retrieval import store
from solution.retrieval.passages import Passage
from solution.retrieval.store import Passages


def written(path: Path, count: int, groups: int, prefix: str = "p") -> list[Passage]:
    made = [Passage(f"{prefix}{row}", f"title {row % 3}", f"text of {row}") for row in range(count)]
    columns = {name: [getattr(one, name) for one in made] for name in ("id", "title", "text")}
    pq.write_table(pa.table(columns), path, row_group_size=groups)
    return made


def test_rows_in_any_order(tmp_path):
    made = written(tmp_path / "p.parquet", 50, 8)
    passages = Passages(tmp_path / "p.parquet", "")
    assert len(passages) == 50 and list(passages) == made
    rows = np.random.default_rng(0).integers(0, 50, 200)
    assert passages.take(rows) == [made[row] for row in rows]
    assert passages.take([]) == []
    assert passages[-1] == made[-1] and passages[3:20:4] == made[3:20:4] and passages[60:] == []
    for row in (50, -51):
        with pytest.raises(IndexError):
            passages[row]


def test_a_row_group_is_read_once_for_all_its_rows_and_the_last_ones_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_GROUPS_KEPT", 2)
    made = written(tmp_path / "p.parquet", 50, 8)
    passages = Passages(tmp_path / "p.parquet", "")
    read: list[int] = []
    original = passages._read
    monkeypatch.setattr(passages, "_read", lambda group, columns: read.append(group) or original(group, columns))
    assert passages.take([49, 0, 40, 1, 17, 48, 2]) == [made[row] for row in (49, 0, 40, 1, 17, 48, 2)]
    assert read == [0, 2, 5, 6]
    assert passages[48] == made[48] and passages[41] == made[41] and read == [0, 2, 5, 6]
    assert passages[0] == made[0] and read == [0, 2, 5, 6, 0]
    assert len(passages._kept) == 2


def test_ids_are_compared(tmp_path):
    written(tmp_path / "a.parquet", 30, 8)
    written(tmp_path / "b.parquet", 30, 8, prefix="q")
    written(tmp_path / "c.parquet", 29, 8)
    one, *others = (Passages(tmp_path / f"{name}.parquet", "") for name in "abc")
    assert one.same_ids(Passages(tmp_path / "a.parquet", ""))
    assert not any(one.same_ids(other) for other in others)


def test_a_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "p.parquet"
    written(path, 50, 8)
    whole = path.read_bytes()
    pq.write_table(pq.read_table(path).drop_columns(["title"]), tmp_path / "less.parquet")
    with pytest.raises(UserError, match=r"less\.parquet is corrupt \(.*no column title.*\)\. Build it again"):
        Passages(tmp_path / "less.parquet", "Build it again")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="corrupt"):
        Passages(path, "")
    # The footer is whole and the rows are not: told when they are read.
    path.write_bytes(whole[:8] + bytes(200) + whole[208:])
    passages = Passages(path, "Build it again")
    with pytest.raises(UserError, match="corrupt.*Build it again"):
        passages.take(range(50))
