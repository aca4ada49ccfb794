"""No command hashes or reads a corpus twice: of a large one, each pass is minutes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from pipeline import HEADER, ROWS, run, tiny_ranker, write_configs
from tiny_models import WORDS, bert

# Run before a command, whose forks count too. It writes a line for each time that the whole of TARGET has been read:
# "hashed" where `file_hash` did, else "read".
COUNTER = """
import builtins, io, os, sys

plain = io.open
target, log = TARGET, LOG


class Counted(io.FileIO):
    def __init__(self, path, reader):
        super().__init__(path)
        self.bytes, self.reader = 0, reader

    def readinto(self, buffer):
        count = super().readinto(buffer)
        self.bytes += count
        return count

    def readall(self):
        data = super().readall()
        self.bytes += len(data)
        return data

    def close(self):
        if not self.closed and self.bytes >= os.path.getsize(target):
            with plain(log, "a") as stream:
                stream.write(self.reader + chr(10))
        super().close()


def counted_open(file, mode="r", *arguments, **options):
    if not isinstance(file, (str, os.PathLike)) or os.path.realpath(file) != target:
        return plain(file, mode, *arguments, **options)
    assert mode == "rb", mode
    reader = "hashed" if sys._getframe(1).f_code.co_name == "file_hash" else "read"
    return io.BufferedReader(Counted(file, reader))


builtins.open = io.open = counted_open
"""


class Folder:
    """A working folder whose corpus is watched."""

    def __init__(self, root: Path):
        self.root = root
        self._corpus, self._log = root / "corpus.csv", root / "passes.log"
        self._counter = COUNTER.replace("TARGET", repr(str(self._corpus))).replace("LOG", repr(str(self._log)))
        (root / "questions.csv").write_text(HEADER + ROWS)
        (root / "test.csv").write_text(HEADER + ROWS.replace("Which", "Say which"))
        # More than what is read of a file's head to tell its format.
        texts = [" ".join(WORDS[row % 7 :] + WORDS[: row % 7] + [str(row)]) for row in range(400)]
        self._corpus.write_text("title,text\n" + "".join(f"Stone {row},{text}.\n" for row, text in enumerate(texts)))
        assert self._corpus.stat().st_size > 80_000
        rankers = [
            {**tiny_ranker("tiny", bert(root / "bert")), "contexts": ["lexical", "fused"]},
            {"name": "similarity", "family": "similarity"},
        ]
        write_configs(
            root / "configs",
            {str(ranker["name"]): ranker for ranker in rankers},
            source="index",
            corpus=str(self._corpus),
            embedder=str(root / "bert"),
            passage_tokens=56,
            passage_overlap=8,
            retrievers=["dense", "lexical"],
            option_scores=["passage", "sentence"],
            top_k=2,
        )

    def passes(self, *command: str) -> dict[str, int]:
        """How often a command hashed the corpus, and how often it read the whole of it besides."""
        self._log.write_text("")
        done = run(*command, cwd=self.root, first=self._counter)
        assert done.returncode == 0, done.stderr
        return dict(Counter(self._log.read_text().split()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("passes").resolve())


def test_each_command_hashes_the_corpus_once_and_only_the_first_one_reads_it(folder):
    assert folder.passes("index") == {"hashed": 1, "read": 1}
    assert folder.passes("contexts") == {"hashed": 1}
    assert folder.passes("train", "--all-folds") == {"hashed": 1}
    assert folder.passes("tune", "tune.choose=equal") == {}
    assert folder.passes("submit") == {"hashed": 1}
    # Rankers that were trained with other settings of retrieval have a process each for their contexts.
    other = "retrieval.top_k=1"
    assert folder.passes("train", "--all-folds", "--ranker", "similarity", other) == {"hashed": 1}
    assert folder.passes("tune", "tune.choose=equal") == {}
    shutil.rmtree(folder.root / "cache" / "submission")
    for contexts in (folder.root / "cache").glob("contexts-*"):
        contexts.unlink()
    assert folder.passes("submit") == {"hashed": 1}
    assert folder.passes("train", "--all-folds", "--ranker", "similarity") == {"hashed": 1}
    assert folder.passes("tune", "tune.choose=equal") == {}
    # Where the indexes are not there, both are made of one reading, whichever comes first.
    shutil.rmtree(folder.root / "cache")
    assert folder.passes("submit") == {"hashed": 1, "read": 1}
    shutil.rmtree(folder.root / "cache")
    turned = "retrieval.retrievers=[lexical,dense]"
    assert folder.passes("contexts", turned) == {"hashed": 1, "read": 1}
    assert folder.passes("train", "--fold", "0", "--ranker", "similarity", turned) == {"hashed": 1}
