"""The verb generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solution.cli.options import CONFIGS, ConfigsOption, CorpusOption, OverridesArgument, read_settings
from solution.command import command
from solution.errors import UserError
from solution.formats.forms import BY_ENDING, WRITTEN
from solution.generation.drafts import KINDS, Kind
from solution.generation.exam import Wish, generate_exam
from solution.generation.stored import no_question
from solution.progress import say
from solution.questions import MAX_OPTIONS, MIN_OPTIONS, Questions, read_questions, write_questions
from solution.retrieval.articles import article_rules
from solution.retrieval.corpus import read_corpus
from solution.retrieval.sources import corpus_files


# More than seven parameters: each is an option of the command line.
@command
def generate(
    count: Annotated[int, typer.Option(help="Questions to make.", min=1)],
    output: Annotated[Path, typer.Option(help="The exam to write; its ending tells the form (.csv, .gift, ...).")],
    overrides: OverridesArgument = None,
    corpus: CorpusOption = None,
    options: Annotated[int, typer.Option(help="Options of a question.", min=MIN_OPTIONS, max=MAX_OPTIONS)] = 5,
    kinds: Annotated[str, typer.Option(help="Kinds of questions, separated by commas.")] = ",".join(KINDS),
    seed: Annotated[int, typer.Option(help="Another one draws other questions.", min=0)] = 0,
    without: Annotated[
        Path | None, typer.Option(metavar="EXAM", help="Leave out near-duplicates of this exam's questions.")
    ] = None,
    at_most: Annotated[
        bool, typer.Option("--at-most", help="Write what there is where the corpus has not enough questions.")
    ] = False,
    configs: ConfigsOption = CONFIGS,
) -> None:
    """Make an exam from the passages of an English corpus, without a model: see docs/generated_exams.md.

    Kinds: cloze (a sentence with a blank), term (which term has this definition), definition (which has this term).
    The columns `passage`, `title` and `kind` tell what each question was made from.
    """
    chosen = _kinds(kinds)
    retrieval = read_settings(configs, overrides, corpus).retrieval
    sources = [*corpus_files(retrieval.corpus).values(), *([without] if without else [])]
    form = _check_output(output, sources)
    old = read_questions(without) if without is not None else None
    documents = read_corpus(retrieval.corpus, article_rules(retrieval), encoding=retrieval.encoding)
    exam = generate_exam(documents, Wish(count, options, chosen, seed, old))
    _check_count(exam, count, at_most, retrieval.corpus)
    write_questions(output, exam, form)
    made = [(kind, exam.extra["kind"].count(kind)) for kind in chosen]
    print(f"{output}: {len(exam)} questions ({', '.join(f'{number} {kind}' for kind, number in made)})")


def _kinds(text: str) -> list[Kind]:
    """The kinds that an option names, in the order of `KINDS`.

    Raises:
        UserError: an unknown name, or none.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(names.difference(KINDS))
    if unknown or not names:
        raise UserError(f"--kinds {text!r}: give one or more of {', '.join(KINDS)}")
    return [kind for kind in KINDS if kind in names]


def _check_output(output: Path, sources: list[Path]) -> str:
    """The form to write. An output that cannot be written, or that is one of the command's own sources, is refused.

    Raises:
        UserError: see above.
    """
    form = BY_ENDING.get(output.suffix.lower())
    if form is None or form.name not in WRITTEN:
        endings = [ending for written in WRITTEN.values() for ending in written.endings]
        raise UserError(f"--output {output}: give a name that ends in one of {', '.join(endings)}")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; name a file")
    if output.exists() and any(source.exists() and output.samefile(source) for source in sources):
        raise UserError(f"--output {output} is what the questions are made from; name another file")
    return form.name


def _check_count(exam: Questions, count: int, at_most: bool, corpus: str) -> None:
    """Tell that the corpus gave fewer questions than asked for.

    Raises:
        UserError: none, or fewer without `--at-most`.
    """
    if not len(exam):
        raise UserError(f"{no_question(corpus)}. Give a larger corpus, or fewer --options (3, or 2)")
    if len(exam) < count:
        if not at_most:
            raise UserError(
                f"{corpus} gives {len(exam)} questions, not {count}. Ask for no more (--count {len(exam)}), take what "
                "there is with --at-most, or give fewer --options, more --kinds or a larger corpus"
            )
        say(f"note: {corpus} gives {len(exam)} questions, not {count}")
