"""The README and the pages of docs/: their commands run on a tiny exam, and what they name is there."""

from __future__ import annotations

import functools
import gzip
import itertools
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from pipeline import HEADER, ROOT, ROWS, run_python, tiny_ranker, write_configs
from tiny_models import bert

from solution.cli.app import app
from solution.config import EnsembleConfig, RankerConfig, RetrievalConfig, TuneSettings
from solution.config.problems import setting_names
from solution.exam import ContextPassage, Exam
from solution.questions import Questions

sys.path.insert(0, str(ROOT / "docs"))
from mermaid import charts, picture_of  # noqa: E402
from reference import FILES, commands, commands_page, descriptions, settings_page  # noqa: E402

MODEL_PLACE = "/path/to/the/model"
RUN = ("README", *(f"docs/{name}" for name in "tutorial own_exam kaggle submission retrieval report training".split()))
"""The pages whose commands are run, in this order. Those of the others are only read, by the program itself."""
PAGES = {
    str(path.relative_to(ROOT).with_suffix("")): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
}
MADE = {"docs/settings.md", "docs/commands.md", "docs/python_names.md"}
"""Pages that the site has and the checkout has not."""


def typed(text: str, *programs: str) -> list[str]:
    """What a page tells to type: lines of code blocks and inline code that begin with a program's name."""
    names = "|".join(map(re.escape, programs))
    found = re.findall(rf"^ *(?P<line>(?:{names}) .+)$|`(?P<inline>(?:{names}) [^`]+)`", text, flags=re.MULTILINE)
    return [(line or inline).strip() for line, inline in found if "..." not in (line or inline)]


# --- run -------------------------------------------------------------------------------------------------------------


def make_checkout(folder: Path) -> Path:
    """Fill a folder with the settings, corpora and exams that the pages' commands name.

    Returns:
        The folder of the tiny model.
    """
    model = bert(folder / "bert")
    corpus = "id,title,text\n" + "".join(f"m{i // 2}-{i},Planet {i},Body number {i} of the Sun.\n" for i in range(9))
    (folder / "corpus.csv").write_text(corpus)
    with gzip.open(folder / "my_corpus.csv.gz", "wt") as stream:
        stream.write(corpus)
    for configs, name in (("configs", "deberta_v3_large"), ("configs/demo", "minilm")):
        (folder / configs).mkdir()
        rankers = {name: tiny_ranker(name, model), "similarity": {"name": "similarity", "family": "similarity"}}
        write_configs(folder / configs, rankers, source="index", corpus="corpus.csv", top_k=2)
        ensemble = folder / configs / "ensemble.yaml"
        settings = yaml.safe_load(ensemble.read_text())
        # Chosen by nine questions, now one ranker is dropped and now another, and a command names one.
        settings["tune"]["choose"] = "equal"
        ensemble.write_text(yaml.safe_dump(settings))
    exam = HEADER.replace("answer", "answer,module") + "".join(
        f"{line},m{i // 2}\n" for i, line in enumerate(ROWS.splitlines())
    )
    (folder / "demo_run").mkdir()
    for name in ("questions.csv", "test.csv", "my_exam.csv", "my_test.csv"):
        (folder / name).write_text(exam)
    for name in ("demo_run/questions.csv", "demo_run/test.csv"):
        (folder / name).write_text(exam)
    for script in ("train_fold.py", "submit.py"):
        shutil.copy(ROOT / script, folder)
    return model


def test_every_command_runs(tmp_path: Path) -> None:
    model = make_checkout(tmp_path)
    told = dict.fromkeys(itertools.chain.from_iterable(typed(PAGES[page], "python") for page in RUN))
    assert len(told) >= 25
    # The report of the README needs what the tutorial's commands make.
    for command in sorted(told, key=lambda command: " report " in command):
        if command.endswith("--help"):
            continue
        if command.startswith("python benchmarks/"):  # they measure: minutes, and the shipped settings
            assert (ROOT / command.split()[1]).is_file(), command
            continue
        words = shlex.split(command.replace(MODEL_PLACE, str(model)))
        done = run_python(words[1:], tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert yaml.safe_load((tmp_path / "weights" / "ensemble.json").read_text())["rankers"]
    mine = ("my_submission.csv", "my_ranked.jsonl", "my_probabilities.csv")
    for made in ("submission.csv", "demo_run/submission.csv", *mine):
        assert len((tmp_path / made).read_text().splitlines()) >= 9, made
    for made in ("demo_run", "my_run"):
        assert (tmp_path / made / "report" / "index.html").is_file(), made


def test_the_ranker_of_the_page_ranks(tmp_path: Path) -> None:
    (source,) = re.findall(r"^```python\n(\"\"\".*?)^```$", PAGES["docs/new_ranker"], flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "overlap"}
    exec(compile(source, "overlap.py", "exec"), names)
    config = RankerConfig(name="overlap", family="longest", temperature=0.2)
    options = [["the red planet", "a moon", ""], ["ice", "rock", "gas of the planet"]]
    questions = Questions(["1", "2"], ["Mars?", "Saturn?"], options, np.array([-1, -1]))
    texts = ("Mars is the red planet.", "Much gas")
    passages = [[ContextPassage("1", "", text, 1.0, "dense")] for text in texts]
    table = names["OverlapRanker"](config, tmp_path).predict(Exam(questions, passages))
    assert table.dtype == np.float32 and table.shape == (2, 3)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-6)
    assert table[0, 2] == 0 and table[0].argmax() == 0 and table[1].argmax() == 2


# --- read by the real command lines ----------------------------------------------------------------------------------


@functools.cache
def command_line() -> Any:
    return typer.main.get_command(app)


def parsed(command: Any, words: list[str], name: str = "") -> dict[str, Any]:
    """The values of a command line, read by the command itself; nothing is run."""
    context = command.make_context(name, list(words))
    if not hasattr(command, "resolve_command"):
        return dict(context.params)
    verb, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    assert inner is not None, words
    return parsed(inner, rest, verb)


@functools.cache
def known_settings() -> set[str]:
    rankers = setting_names(RankerConfig)
    files = [*(ROOT / "configs").rglob("*.yaml")]
    groups = {
        "": rankers,
        **{f"{path.stem}.": rankers for path in files},
        "retrieval.": setting_names(RetrievalConfig),
        "ensemble.": setting_names(EnsembleConfig),
        "tune.": setting_names(TuneSettings),
    }
    dotted = {prefix + name for prefix, names in groups.items() for name in names}
    # A group of settings may be set as a whole: `lora=null`.
    return dotted | {name.rsplit(".", depth)[0] for name in dotted for depth in range(1, name.count(".") + 1)}


def assert_known(setting: str) -> None:
    """Assert that there is a setting of this name; the name of a ranker or a retrieval may stand in front."""
    parts = setting.split(".")
    forms = {setting, ".".join(parts[1:])}
    if parts[0] == "retrievals":
        forms.add(f"retrieval.{'.'.join(parts[2:])}")
    assert forms & known_settings(), f"there is no setting {setting}"


def assert_read(command: str) -> None:
    words = shlex.split(command, comments=True)
    places = [i for i, word in enumerate(words) if word in ("train_fold.py", "submit.py")]
    if words[0] == "llm-science-exam":
        rest = words[1:]
    elif "solution" in words[:6]:
        rest = words[words.index("solution") + 1 :]
    elif places:
        verb = words[places[0]].removesuffix(".py").replace("_", "-")
        rest = [verb, *words[places[0] + 1 :]]
    else:
        script = ROOT / words[1]
        if words[1] != "-m":  # a benchmark, or a script of docs/
            text = script.read_text(encoding="utf-8")
            # Behind `--` stand options of submit.py.
            own = words[2 : words.index("--")] if "--" in words else words[2:]
            unknown = [word for word in own if word.startswith("--") and f'"{word}"' not in text]
            assert not unknown, (command, unknown)
        for path in words[3:] if "pytest" in words else ():
            assert not path.startswith("tests/") or (ROOT / path.partition("::")[0]).exists(), path
        return
    if not rest or rest[-1] in ("--help", "--install-completion"):
        known = {words for words, _ in commands()}
        assert rest[:-1] == [] or f"python -m solution {' '.join(rest[:-1])}" in known, rest
        return
    values = parsed(command_line(), rest)
    for override in values.get("overrides") or ():
        assert "=" in override, f"{override} is no setting"
        assert_known(override.partition("=")[0])


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_what_the_program_reads(page: str) -> None:
    text = PAGES[page].replace(".venv/bin/", "")
    for command in typed(text, "python", "accelerate launch", "torchrun", "llm-science-exam"):
        try:
            assert_read(command)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{page}: {command}: {error or getattr(error, 'message', '')}") from error


@pytest.mark.parametrize("page", PAGES)
def test_settings_are_there(page: str) -> None:
    """Those of YAML blocks, and those in code that are written with their value."""
    sections = "training|retrieval|ensemble|tune|lora|prompt|pretraining|quantization|signals|reranker"
    text = PAGES[page]
    for setting in re.findall(rf"`\"?((?:\w+\.)?(?:{sections})\.[a-z_.0-9]+)(?:=|: )", text):
        assert_known(setting.removeprefix("reranker.") if setting.startswith("reranker.") else setting)
    for block in re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        for setting in flat(yaml.safe_load(block)):
            forms = (setting, f"retrieval.{setting}", f"ensemble.{setting}")
            known = any(form in known_settings() for form in forms)
            assert known or re.match(r"retrievals\.\w+\.", setting), f"{page}: there is no setting {setting}"


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    ci = set(re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^ *|`)make (\w+)(?=$|`| \w+=)", PAGES["README"], flags=re.MULTILINE))
    assert ci and ci <= named, "CI calls what the README does not name"
    for page, text in PAGES.items():
        for target in re.findall(r"(?:^|`)make (\w+)(?=$|`| \w+=)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), (page, target)


# --- the site --------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as its viewers make them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = [
        re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", PAGES[page]):
        path = (folder / target).resolve() if target else (ROOT / page).with_suffix(".md")
        name = str(path.relative_to(ROOT))
        assert path.exists() or name in MADE, f"{page}: {target} is not there"
        if anchor and name.removesuffix(".md") in PAGES:
            assert anchor in anchors(PAGES[name.removesuffix(".md")]), f"{page}: {target}#{anchor} is not there"


def test_every_page_is_in_the_menu() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": (\w+\.md)$", settings, flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(listed)


def test_the_readme_is_short() -> None:
    assert len(PAGES["README"].splitlines()) <= 150


def test_every_setting_and_command_is_in_the_reference() -> None:
    page = settings_page()
    for _, prefix, model in FILES:
        for name in setting_names(model):
            assert f"| `{name}` |" in page, name
        assert descriptions(model), prefix
    assert "Only the context is cut" not in page and "only the context is cut" in page
    told = commands_page()
    for option in ("--all-folds", "--deadline", "--skip-bad-rows", "index tune", "reranker train"):
        assert option in told, option


def test_charts_have_their_pictures() -> None:
    for source in charts():
        assert picture_of(source).is_file(), "a chart has changed: draw its picture again, see docs/mermaid.py"
