"""Answer an exam with the trained ensemble: one base model in memory at a time, every fold's adapter on it in turn."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import RetrievalConfig
from solution.config_files import check_settings, parse_overrides
from solution.ensemble.cascade import Stage
from solution.ensemble.costs import measured_cost
from solution.ensemble.imported import read_answers
from solution.ensemble.record import read_recipe
from solution.errors import UserError
from solution.exam import Exam
from solution.files import content_hash, write_json
from solution.folds import already_parted
from solution.inference.engine import Engine
from solution.inference.journal import Journal
from solution.inference.limits import Limits
from solution.inference.outputs import (
    _check_writable,
    submission_report,
    write_probabilities,
    write_ranked,
    write_submission,
)
from solution.inference.schedule import ensemble_points, fitting, reading
from solution.inference.trained import TrainedRanker, ranker_exams, read_ensemble, settings_of
from solution.metrics import bootstrap_interval, credit_at_k
from solution.progress import say
from solution.questions import Questions
from solution.retrieval.contexts.build import build_views
from solution.tables import file_format
from solution.weights import read_record, record_path, trained_folders
from solution.workdir import Workdir


def run_submission(
    workdir: Workdir,
    questions: Questions,
    output: Path,
    ranked: Path | None = None,
    probabilities: Path | None = None,
    overrides: Sequence[str] = (),
    added: Mapping[str, Path] | None = None,
    limits: Limits | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answer `questions` and write the files asked for.

    A complete answer is in `output` before any model loads, and is replaced by better ones. Each model runs in a
    process of its own; what it has answered is kept in `WORKDIR/cache/submission`, and the same call goes on from
    there. `<output>.report.json` tells what happened.

    Args:
        added: imported ranker -> the file of its answers to these questions, see `imported.read_answers`.
        limits: deadline and what to do with a ranker that fails; its time is already running.

    Returns:
        The blended probabilities, float32 [n, max_options], and those of each ranker that answered everything.

    Raises:
        UserError: the ensemble, an override or an output path is not usable (nothing is written then); or no ranker
            answered, or one was left out and `limits.strict` is set (the best answer is written).
        SystemExit: SIGTERM came; code 143, the best answer is written.
        KeyboardInterrupt: it came; the best answer is written.
    """
    limits = limits or Limits()
    report = output.with_name(f"{output.stem}.report.json")
    for path in (output, ranked, probabilities, report):
        if path is not None and path.is_dir():
            raise UserError(f"the output {path} is a folder; give a file")
    if probabilities is not None and file_format(probabilities) not in (".csv", ".parquet"):
        raise UserError(f"--probabilities {probabilities}: use .csv or .parquet")
    outputs = [path.resolve() for path in (output, ranked, probabilities) if path is not None]
    if len(set(outputs)) < len(outputs):
        raise UserError("two of --output, --ranked and --probabilities are the same file; give each its own")
    if report.resolve() in outputs:
        raise UserError(f"{report} is where the report on {output} is written; give another output")
    faults: dict[str, str] = {}
    ensemble, rankers = read_ensemble(workdir, overrides, added or {}, faults)
    answers = {name: read_answers(path, questions) for name, path in (added or {}).items()}
    for path in outputs:
        _check_writable(path)
    engine, point = _engine(workdir, questions, ensemble, rankers, output, limits)
    trained_on = already_parted(questions, workdir.folds)
    if trained_on:
        say(
            f"note: the rankers were trained on {trained_on} of these {len(questions)} questions ({workdir.folds}): "
            "a score on them is too high; the table of `tune` has the honest one"
        )
    ended = "finished"
    with _terminable():
        try:
            engine.write(engine.baseline)
            engine.note(f"baseline: {engine.baseline_kind}")
            engine.add_imported(answers)
            for name, reason in faults.items():
                engine.fail(name, reason)
            for ranker in rankers:
                for reason in ranker.lost:
                    say(f"WARNING: {ranker.name} goes on without one of its folds: {reason}")
                    engine.note(f"{ranker.name} without a fold: {reason}")
            _retrieve(engine, rankers, questions, workdir)
            if not any(ranker.retrieval for ranker in rankers):
                _retrieve_for_baseline(engine, faults, questions, workdir, overrides)
            engine.store(force=True)
            stages, everything = point()
            engine.run(stages, everything)
            if any(turn.state in ("partial", "skipped") for turn in engine.turns.values()):
                ended = "deadline"
        except _Terminated:
            ended = "terminated"
        except KeyboardInterrupt:
            ended = "interrupted"
        if ended in ("terminated", "interrupted"):
            engine.give_up("it was ended by a signal")
        blended = engine.blended()
        write_submission(output, questions, blended)
        if ranked is not None:
            write_ranked(ranked, questions, blended)
        if probabilities is not None:
            write_probabilities(probabilities, questions, blended)
        engine.note("answer written")
        try:
            write_json(report, submission_report(engine, ended, output))
        except OSError as error:
            say(f"WARNING: {report} cannot be written ({error.strerror})")
    _tell(engine, ended, output, questions, blended)
    if ended == "terminated":
        raise SystemExit(143)
    if ended == "interrupted":
        raise KeyboardInterrupt
    failed = {name: turn.reason for name, turn in engine.turns.items() if turn.state == "failed"}
    late = {name: turn.reason for name, turn in engine.turns.items() if turn.state == "skipped"}
    left_out, some = _left_out(failed | late), any(turn.answered.any() for turn in engine.turns.values())
    if failed and not some:
        raise UserError(f"no ranker answered, and {output} holds only {engine.baseline_kind}: {left_out}")
    if limits.strict and left_out:
        best = "the best answer of the others" if some else f"only {engine.baseline_kind}"
        raise UserError(f"--strict: {left_out}; {output} holds {best}")
    lost = {ranker.name: ranker.lost[0] for ranker in rankers if ranker.lost}
    if limits.strict and lost:
        raise UserError(f"--strict: folds are {_left_out(lost)}; {output} holds the answer of the other folds")
    n = len(questions)
    whole = {name: turn for name, turn in engine.turns.items() if turn.answered.sum() == n}
    return blended, {name: turn.table() for name, turn in whole.items() if (turn.alive == engine.exists).all()}


def _left_out(reasons: Mapping[str, str]) -> str:
    """The rankers that are left out, those with the same reason together."""
    alike: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        alike.setdefault(reason, []).append(name)
    return "; ".join(f"left out: {', '.join(names)} ({reason})" for reason, names in alike.items())


def _engine(
    workdir: Workdir,
    questions: Questions,
    ensemble: dict[str, Any],
    rankers: Sequence[TrainedRanker],
    output: Path,
    limits: Limits,
) -> tuple[Engine, Callable[[], tuple[list[Stage], list[Stage]]]]:
    """The engine, and what chooses its stages: a cascade that fits the time, and what to do with time left over."""
    recipe = read_recipe(ensemble)
    costs = {name: measured_cost(workdir, name, ensemble["about"][name]) for name in recipe.used}
    cascade = ensemble.get("cascade")
    points = ensemble_points(ensemble, costs)
    whole = points[-1][1]
    journal = Journal(workdir.cache / "submission" / questions.content_hash(with_answers=False))
    engine = Engine(
        questions=questions,
        recipe=recipe,
        recipes={frozenset(s.ranker for s in whole[: i + 1]): s.recipe for i, s in enumerate(whole) if cascade},
        rankers={ranker.name: ranker for ranker in rankers},
        costs=costs,
        order=[stage.ranker for stage in whole],
        journal=journal,
        limits=limits,
        write=lambda blend: write_submission(output, questions, blend),
        cache=str(workdir.cache.resolve()),
    )

    def point() -> tuple[list[Stage], list[Stage]]:
        if cascade is None:
            return whole, []
        taken = chosen = cascade["chosen"]
        if limits.deadline is not None:
            key = content_hash("cascade", ensemble, limits.deadline)
            taken = journal.note(key)
            if not isinstance(taken, int) or not 0 <= taken <= chosen:
                taken = fitting(points[: chosen + 1], len(questions), limits.left())
                journal.write_note(key, taken)
            engine.note(f"cascade: {points[taken][0]['note']}")
        if taken < len(points) - 1:
            why = "the cascade that `tune` chose for its time limit"
            if taken != chosen:
                why = f"the deadline does not leave the time for {points[chosen][0]['note']}"
            say(f"{reading(points[taken][1], len(questions))} ({why})")
        # Time that is left over goes to what the cascade left out, unless the user chose it when tuning.
        return points[taken][1], whole if taken < chosen == len(points) - 1 else []

    return engine, point


def _retrieve(engine: Engine, rankers: Sequence[TrainedRanker], questions: Questions, workdir: Workdir) -> None:
    reading = [ranker for ranker in rankers if ranker.retrieval is not None]
    settings = {ranker.retrieval.hash(): ranker.retrieval for ranker in reading if ranker.retrieval is not None}
    views: dict[str, list[str]] = {key: [] for key in settings}
    for ranker in reading:
        assert ranker.retrieval is not None
        views[ranker.retrieval.hash()] += ranker.config.contexts
    engine.retrieve(str(workdir.root), settings, views)
    usable = [ranker for ranker in rankers if engine.turns[ranker.name].state == "waiting"]
    try:
        engine.set_exams(ranker_exams(usable, questions, workdir))
    except (UserError, OSError):
        exams: dict[str, list[Any]] = {}
        for ranker in usable:
            try:
                exams |= ranker_exams([ranker], questions, workdir)
            except (UserError, OSError) as error:
                engine.fail(ranker.name, str(error))
        engine.set_exams(exams)


def _retrieve_for_baseline(
    engine: Engine, names: Iterable[str], questions: Questions, workdir: Workdir, overrides: Sequence[str]
) -> None:
    """Where no ranker that reads contexts is usable: rank the options as the lost ones' retrieval does."""
    changes = settings_of(parse_overrides(overrides), "retrieval")
    for folder in [folder for name in names for folder in trained_folders(workdir, name)]:
        with contextlib.suppress(UserError, OSError, KeyError, TypeError):
            values = read_record(folder, "")["retrieval"]
            if values is None:
                continue
            config = check_settings(RetrievalConfig, values, record_path(folder), "retrieval", changes)
            if config.source == "none" or not config.option_scores:
                continue
            if not engine.retrieve(str(workdir.root), {config.hash(): config}, {config.hash(): ["fused"]}):
                return
            contexts = build_views(questions, config, ["fused"], workdir.root)["fused"]
            if engine.set_baseline(Exam.join(questions, contexts).option_scores, "sentence"):
                return


class _Terminated(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """The first SIGTERM raises `_Terminated`; more of them change nothing until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def stop(*_: Any) -> None:
        nonlocal came
        if not came:
            came = True
            raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(engine: Engine, ended: str, output: Path, questions: Questions, blended: np.ndarray) -> None:
    used = [name for name in engine.order if engine.turns[name].answered.any()]
    why = {"deadline": " at the deadline", "terminated": " before SIGTERM", "interrupted": " before the interruption"}
    by = ", ".join(used) or f"the baseline ({engine.baseline_kind})"
    say(f"{output}: {len(questions)} questions answered by {by}{why.get(ended, '')}")
    for line in engine.shortfalls():
        say(f"WARNING: {line}")
    if (questions.answers >= 0).all():
        credits = credit_at_k(blended, questions.answers)
        low, high = bootstrap_interval(credits)
        say(f"the question file has the answers: MAP@3 {credits.mean():.4f} [{low:.3f}, {high:.3f}]")
