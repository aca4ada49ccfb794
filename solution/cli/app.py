"""`python -m solution`, installed `llm-science-exam`: the verbs, in the order in which they are used, and their names.

A verb is a function of a module here (about retrieval, the ensemble, Kaggle, ...) and a line at the end of this file.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from solution import __version__
from solution.cli import ask, convert, demo, doctor, embedder, ensemble, exam, generate, kaggle, merge, retrieval, serve
from solution.cli.options import APP_SETTINGS
from solution.cli.sharing import pull, push
from solution.cli.submit import submit
from solution.cli.train_fold import train_fold
from solution.suggestions import COMMAND, is_installed_command

_HELP = """LLM Science Exam: rank the options of science questions.

train-fold and submit are also the scripts train_fold.py and submit.py of a checkout.
"""
INDEX_TUNE = "index tune"


class Verbs(TyperGroup):
    """The verbs, one of which is two words: `index tune`.

    Typer would have `index` be a group for that, and a group takes no arguments of its own: `index key.path=value`.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb's name, its command and the words that are left for it."""
        if args[:1] == ["index"]:
            place = first_argument(args)
            if args[place : place + 1] == ["tune"]:
                args = [INDEX_TUNE, *args[1:place], *args[place + 1 :]]
        return super().resolve_command(ctx, args)


def first_argument(words: list[str]) -> int:
    """The position of the first word behind the verb that is neither an option nor an option's value.

    Every option of `index` and `index tune` but --help has a value.
    """
    place = 1
    while place < len(words) and words[place].startswith("--"):
        alone = "=" in words[place] or words[place] in ("--help", "--")
        place += 1 if alone else 2
    return place


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit()


# A shell completes words of a command, not those behind `python -m`.
_SETTINGS = APP_SETTINGS | {"add_completion": is_installed_command()}
app = typer.Typer(cls=Verbs, help=_HELP, no_args_is_help=True, **_SETTINGS)  # type: ignore[arg-type]


@app.callback()
def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


reranker_app = typer.Typer(help="The cross-encoder that puts retrieved passages into order.", no_args_is_help=True)


@reranker_app.callback()
def _a_group_of_one_verb() -> None:
    """With a callback Typer asks for the verb's name, though there is one verb only."""


app.command("convert", short_help="Write a question file in another form.")(convert.convert)
app.command("index", short_help="Cut the corpus into passages and index them.")(retrieval.index)
app.command(INDEX_TUNE, short_help="Try the kinds of dense index on this corpus.")(retrieval.index_tune)
app.command("generate", short_help="Make an exam from the passages of a corpus.")(generate.generate)
app.command("tune-embedder", short_help="Train the embedder on generated questions.")(embedder.tune_embedder_verb)
app.command("contexts")(retrieval.contexts)
app.command("folds")(ensemble.folds)
app.command("train-fold", short_help="Train the rankers on one fold, on every fold, or on all.")(train_fold)
app.command("tune", short_help="Find the ensemble's weights from the OOF files.")(ensemble.tune)
app.command("report", short_help="Write what tune found as one HTML page.")(ensemble.report)
app.command("import-oof", short_help="Add another program's out-of-fold probabilities.")(ensemble.import_oof)
app.command("submit", short_help="Answer questions with the ensemble.")(submit)
app.command("ask", short_help="Rank the options of a question, and say why.")(ask.ask)
app.command("merge", short_help="Write a trained fold as a stand-alone model.")(merge.merge)
app.command("bundle", short_help="Make a folder with all that a Kaggle kernel needs.")(kaggle.bundle)
app.command("serve", short_help="Serve a web page: ask questions, and practise.")(serve.serve)
app.command("push", short_help="Share a trained ensemble: a folder, or the Hugging Face hub.")(push)
app.command("pull", short_help="Fetch an ensemble that push has shared.")(pull)
app.command("doctor", short_help="Tell whether machine and working folder are fit.")(doctor.doctor)
app.command("demo", short_help="Run the whole pipeline on the built-in exam.")(demo.demo)
app.command("exam", short_help="Run the whole pipeline on a folder of your own.")(exam.exam)
app.add_typer(reranker_app, name="reranker")
reranker_app.command("train", short_help="Train the reranker of each fold; show its gain.")(retrieval.reranker_train)


def main() -> None:
    """The installed command."""
    app(prog_name=COMMAND)
