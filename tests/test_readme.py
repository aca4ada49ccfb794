"""Every command of the README, run as it stands there, in order, on a tiny exam with a tiny model."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
from pathlib import Path

import yaml
from pipeline import HEADER, ROOT, ROWS, run_python, tiny_ranker, write_configs
from tiny_models import bert

MODEL_PLACE = "/path/to/the/model"


def readme_commands() -> list[str]:
    """What the README tells to type: lines of code blocks and inline code that begin with `python`."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"^(?P<line>python .+)$|`(?P<inline>python [^`]+)`", text, flags=re.MULTILINE)
    return [line or inline for line, inline in found]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_command_runs(tmp_path: Path) -> None:
    model = bert(tmp_path / "bert")
    corpus = "id,title,text\n" + "".join(f"m{i // 2}-{i},Planet {i},Body number {i} of the Sun.\n" for i in range(9))
    (tmp_path / "corpus.csv").write_text(corpus)
    with gzip.open(tmp_path / "my_corpus.csv.gz", "wt") as stream:
        stream.write(corpus)
    for folder, name in (("configs", "deberta_v3_large"), ("configs/demo", "minilm")):
        (tmp_path / folder).mkdir()
        rankers = {name: tiny_ranker(name, model), "similarity": {"name": "similarity", "family": "similarity"}}
        write_configs(tmp_path / folder, rankers, source="index", corpus="corpus.csv", top_k=2)
        ensemble = tmp_path / folder / "ensemble.yaml"
        settings = yaml.safe_load(ensemble.read_text())
        # Chosen by nine questions, now one ranker is dropped and now another, and a command names one.
        settings["tune"]["choose"] = "equal"
        ensemble.write_text(yaml.safe_dump(settings))
    exam = HEADER.replace("answer", "answer,module") + "".join(
        f"{line},m{i // 2}\n" for i, line in enumerate(ROWS.splitlines())
    )
    (tmp_path / "demo_run").mkdir()
    for name in ("questions.csv", "test.csv", "my_exam.csv", "my_test.csv"):
        (tmp_path / name).write_text(exam)
    for name in ("demo_run/questions.csv", "demo_run/test.csv"):
        (tmp_path / name).write_text(exam)
    for script in ("train_fold.py", "submit.py"):
        shutil.copy(ROOT / script, tmp_path)
    commands = readme_commands()
    assert len(commands) >= 12
    for command in commands:
        words = shlex.split(command.replace(MODEL_PLACE, str(model)))
        done = run_python(words[1:], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert yaml.safe_load((tmp_path / "weights" / "ensemble.json").read_text())["rankers"]
    mine = ("my_submission.csv", "my_ranked.jsonl", "my_probabilities.csv")
    for made in ("submission.csv", "demo_run/submission.csv", *mine):
        assert len((tmp_path / made).read_text().splitlines()) >= 9, made
