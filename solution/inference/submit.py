"""Answer an exam with the trained ensemble: one base model in memory at a time, every fold's adapter on it in turn."""

from __future__ import annotations

import contextlib
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.config import TRAINED_FAMILIES, Overrides, RankerConfig, RetrievalConfig, check_settings, parse_overrides
from solution.ensemble.cascade import Cost, Stage, measured_cost
from solution.ensemble.tune import load_ensemble, read_recipe, read_stages
from solution.errors import UserError
from solution.files import SCHEMA, atomic_file, content_hash, read_json, read_manifest, write_json
from solution.folds import already_parted
from solution.inference.engine import START_SECONDS, Engine
from solution.inference.journal import Journal
from solution.inference.limits import Limits
from solution.inference.plan import MIB
from solution.metrics import bootstrap_interval, credit_at_k
from solution.models import check_model
from solution.progress import say
from solution.questions import LETTERS, Questions, file_format, kaggle_prediction, ranked_options, write_csv
from solution.suggestions import suggest
from solution.workdir import Workdir


class WeightsError(UserError):
    """A ranker's weights are missing, changed or not those that the ensemble was tuned with."""


class TrainedRanker:
    """One ranker of the ensemble as it lies on disk: its settings and the folders of its folds.

    Attributes:
        lost: what is wrong with folds that are left out; `folders` has the others.

    Args:
        partly: whether a ranker some of whose folds are not usable goes on with the others.

    Raises:
        WeightsError: its folders are not usable, or its model is not there.
        UserError: an override is wrong.
    """

    def __init__(self, workdir: Workdir, name: str, about: dict[str, Any], overrides: Overrides, partly: bool = False):
        self.name = name
        again = suggest("train_fold", "--all-folds", "--ranker", name)
        remedy = f"Train it again, with the exam, corpus and settings that it was trained with: {again}"
        self.folders: list[Path] = []
        self.lost: list[str] = []
        stored = []
        for fold in range(int(about["folds"])):
            folder = workdir.fold_weights(name, fold)
            try:
                stored.append(self._facts(folder, about, remedy))
                self.folders.append(folder)
            except WeightsError as error:
                if not partly:
                    raise
                self.lost.append(str(error))
        if not stored:
            raise WeightsError(self.lost[0])
        values, retrieval = stored[0]["config"], stored[0]["retrieval"]
        source = self.folders[0] / "ranker.json"

        self.config: RankerConfig = check_settings(RankerConfig, values, source, name, _typed(overrides, name))
        self.retrieval: RetrievalConfig | None = None
        if retrieval is not None:
            changes = _typed(overrides, "retrieval")
            self.retrieval = check_settings(RetrievalConfig, retrieval, source, "retrieval", changes)
            self._check_reranker(workdir, stored[0]["about"].get("reranker"), remedy)
        if self.config.family in TRAINED_FAMILIES:
            try:
                check_model(self.config.model, workdir.cache, self.config.revision)
            except UserError as error:
                raise WeightsError(str(error)) from None

    @staticmethod
    def _facts(folder: Path, about: dict[str, Any], remedy: str) -> dict[str, Any]:
        """What stands in the `ranker.json` of a fold whose files are whole."""
        from solution.training.run import KIND

        try:
            read_manifest(folder, KIND, remedy)
            facts: dict[str, Any] = read_json(folder / "ranker.json", "the file of the ranker's settings", remedy)
        except (UserError, OSError) as error:
            raise WeightsError(str(error)) from None
        if facts["about"]["config"] != about["config"] or facts["about"]["contexts"] != about["contexts"]:
            raise WeightsError(
                f"the weights in {folder} (settings {facts['about']['config']}, contexts "
                f"{facts['about']['contexts']}) are not those that the ensemble was tuned with (settings "
                f"{about['config']}, contexts {about['contexts']}). Run again, with the --configs of its rankers: "
                f"{suggest('tune')}"
            )
        return facts

    def _check_reranker(self, workdir: Workdir, key: str | None, remedy: str) -> None:
        """Refuse contexts by another reranker than those that the ranker was trained and tuned on."""
        if key is None or self.retrieval is None or self.retrieval.reranker is None:
            return
        from solution.retrieval.rerank import Reranker

        if Reranker(self.retrieval.reranker, workdir.root).key != key:
            raise WeightsError(
                f"the ranker {self.name} was trained on contexts of another reranker than the one in "
                f"{workdir.weights / 'reranker'}. {remedy}"
            )


def _typed(overrides: Overrides, owner: str) -> Overrides:
    """The settings of the command line that are the owner's, without its name."""
    return [(path[1:], value) for path, value in overrides if path[0] == owner and len(path) > 1]


def read_ensemble(
    workdir: Workdir,
    overrides: Sequence[str],
    added: Collection[str] = (),
    faults: dict[str, str] | None = None,
) -> tuple[dict[str, Any], list[TrainedRanker]]:
    """The ensemble file and its rankers of positive weight, everything checked before a model loads.

    Args:
        added: imported rankers whose answers are given.
        faults: takes the rankers whose weights are not usable and why, and a ranker goes on with the folds that are;
            None: these are errors.

    Raises:
        UserError: no ensemble, missing or changed weights (see `faults`), an override of a ranker that is not there,
            an imported ranker whose answers are not given.
    """
    from solution.ensemble.imported import FAMILY

    ensemble = load_ensemble(workdir)
    changes = parse_overrides(overrides)
    used = [name for name in ensemble["rankers"] if ensemble["weights"][name] > 0]
    unknown = [".".join(path) for path, _ in changes if path[0] not in (*used, "retrieval") or len(path) < 2]
    if unknown:
        raise UserError(
            f"unknown setting {unknown[0]}; here a setting begins with retrieval. or a ranker's name "
            f"({', '.join(used)}), as in {used[0]}.predict_tokens_per_batch=8192"
        )
    imported = [name for name in used if ensemble["about"][name].get("family") == FAMILY]
    lacking = [name for name in imported if name not in added]
    if lacking:
        raise UserError(
            f"the ranker {lacking[0]} was imported, and nothing here can answer for it: give its probabilities for "
            f"these questions with --add {lacking[0]}=FILE, or tune without it (remove {workdir.oof / lacking[0]})"
        )
    strange = sorted(set(added) - set(imported))
    if strange:
        there = ", ".join(imported) or "none"
        raise UserError(f"--add {strange[0]}: the ensemble uses no imported ranker of that name (it uses: {there})")
    trained = []
    for name in used:
        if name in imported:
            continue
        try:
            trained.append(TrainedRanker(workdir, name, ensemble["about"][name], changes, partly=faults is not None))
        except WeightsError as error:
            if faults is None:
                raise
            faults[name] = str(error)
    return ensemble, trained


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
    from solution.ensemble.imported import read_answers

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


def _check_writable(path: Path) -> None:
    """Tell now, not after hours, that a file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give another output") from None


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


def reading(stages: Sequence[Stage], questions: int) -> str:
    """How many questions each ranker of a cascade reads, in words."""
    first, *rest = stages
    told = [f"{first.ranker} reads all {questions} questions"]
    told += [
        f"{stage.ranker} about {round(stage.share * questions)}, those that {before.ranker} leaves least sure"
        if stage.threshold is not None
        else f"{stage.ranker} all of these"
        for before, stage in zip(stages, rest, strict=False)
    ]
    return "; ".join(told)


def ensemble_points(
    ensemble: Mapping[str, Any], costs: Mapping[str, Cost]
) -> list[tuple[Mapping[str, Any], list[Stage]]]:
    """The points of the cascade's frontier, cheapest first: what JSON says of them, and their stages.

    The last one is every ranker on every question, the only one where there is no cascade.
    """
    cascade = ensemble.get("cascade")
    if cascade is not None:
        return [(point, read_stages(point)) for point in cascade["frontier"]]
    recipe, unknown = read_recipe(ensemble), float("inf")
    order = sorted(recipe.used, key=lambda name: (_known(costs[name].seconds_per_question, unknown), name))
    rates = {name: _known(costs[name].seconds_per_question, 0.0) for name in order}
    stages = [
        Stage(name, recipe, seconds_per_question=rates[name], load_seconds=costs[name].load_seconds) for name in order
    ]
    loading = sum(stage.load_seconds for stage in stages)
    return [({"load_seconds": loading, "seconds_per_question": sum(rates.values())}, stages)]


def expected_seconds(point: Mapping[str, Any], stages: Sequence[Stage], questions: int) -> float:
    """What a point takes: its processes' starts, loading, and each question's rankers."""
    starts = sum(START_SECONDS for stage in stages if stage.load_seconds > 0)
    return starts + point["load_seconds"] + questions * point["seconds_per_question"]


def fitting(points: Sequence[tuple[Mapping[str, Any], Sequence[Stage]]], questions: int, left: float) -> int:
    """Which point of the cascade's frontier is to run: the last one when it fits, else the best that does.

    Args:
        points: as JSON holds them, and their stages; cheapest first.
        left: seconds.
    """
    fits = [i for i, (point, stages) in enumerate(points) if expected_seconds(point, stages, questions) <= left]
    if len(points) - 1 in fits:
        return len(points) - 1
    return max(fits, key=lambda i: (points[i][0]["map3"], -i), default=0)


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


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
    from solution.rankers.base import Exam
    from solution.retrieval.contexts import build_views

    changes = _typed(parse_overrides(overrides), "retrieval")
    for path in [path for name in names for path in sorted((workdir.weights / name).glob("fold_*/ranker.json"))]:
        with contextlib.suppress(UserError, OSError, KeyError, TypeError):
            values = read_json(path, "the file of the ranker's settings", "")["retrieval"]
            config = check_settings(RetrievalConfig, values, path, "retrieval", changes)
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


def submission_report(engine: Engine, ended: str, output: Path) -> dict[str, Any]:
    """What `submission.report.json` holds."""
    rankers = []
    for name in engine.order:
        turn = engine.turns[name]
        rate = turn.seconds / turn.done if turn.done else None
        passes = max(1, int(turn.folds.max(initial=0)))
        rankers.append(
            {
                "ranker": name,
                "state": turn.state,
                "reason": turn.reason,
                "asked": int(turn.planned.sum()),
                "answered": int(turn.answered.sum()),
                "folds": int(turn.folds.max(initial=0)),
                "lost_folds": getattr(engine.rankers.get(name), "lost", []),
                "from_journal": turn.from_journal,
                "load_seconds": _rounded(turn.load_seconds),
                "seconds": round(turn.seconds, 3),
                "model_seconds": round(turn.model_seconds, 3),
                "seconds_per_question": _rounded(None if rate is None else rate * passes),
                "peak_memory_mib": turn.peak_mib,
                "model_memory_mib": turn.used_mib,
                "planned_memory_mib": turn.plan.peak // MIB if turn.plan and turn.plan.peak else None,
                "tokens_per_batch": turn.plan and turn.plan.batch,
            }
        )
    recipes = [{"rankers": list(names), "questions": len(rows)} for names, rows in engine.groups()]
    return {
        "schema": SCHEMA,
        "ended": ended,
        "output": output.name,
        "questions": len(engine.questions),
        "baseline": engine.baseline_kind,
        "seconds": round(engine.limits.elapsed(), 2),
        "deadline_seconds": engine.limits.deadline,
        "retrieval_seconds": round(engine.retrieval_seconds, 2),
        "retrieval_model_seconds": round(engine.embedder_seconds, 2),
        "rankers": rankers,
        "recipes": sorted(recipes, key=lambda each: -each["questions"]),
        "timeline": [{"second": second, "event": event} for second, event in engine.timeline],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


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


def ranker_exams(rankers: Sequence[TrainedRanker], questions: Questions, workdir: Workdir) -> dict[str, list[Any]]:
    """For each ranker the exams (`rankers.base.Exam`, answers hidden) that it reads, one for each of its contexts.

    Raises:
        UserError: an index cannot be made or opened.
    """
    from solution.rankers.base import Exam
    from solution.retrieval.contexts import build_views

    views: dict[str, list[Any]] = {}
    settings = {ranker.retrieval.hash(): ranker.retrieval for ranker in rankers if ranker.retrieval is not None}
    for ranker in rankers:
        if ranker.retrieval is not None:
            views.setdefault(ranker.retrieval.hash(), []).extend(ranker.config.contexts)
    made = {key: build_views(questions, settings[key], names, workdir.root) for key, names in views.items()}
    return {
        ranker.name: [
            exam.hidden()
            for exam in Exam.views(
                ranker.config, questions, None if ranker.retrieval is None else made[ranker.retrieval.hash()]
            )
        ]
        for ranker in rankers
    }


def predict_folds(ranker: TrainedRanker, exams: Sequence[Any], workdir: Workdir) -> np.ndarray:
    """The mean of what a ranker's folds say, float32 [n, max_options]; the base model is loaded once and freed.

    Args:
        exams: the questions with each of the ranker's contexts, see `ranker_exams`.
    """
    from solution.inference.memory import watched
    from solution.rankers.base import predict_contexts
    from solution.rankers.families import make_ranker

    folders = ranker.folders if ranker.config.folds_differ else ranker.folders[:1]
    total = np.zeros(exams[0].questions.exists().shape, dtype=np.float64)
    with watched(ranker.name, len(exams[0])) as watch:
        model = make_ranker(ranker.config, workdir.cache)
        for folder in folders:
            model.load(folder)
            watch.loaded(model)
            total += predict_contexts(model, exams)
        del model
    return (total / len(folders)).astype(np.float32)


def write_submission(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """Kaggle's file: `id,prediction` with the three most probable letters, `B A D`."""
    ranked = ranked_options(probabilities, questions.exists())
    write_csv(path, ["id", "prediction"], zip(questions.ids, map(kaggle_prediction, ranked), strict=True))


def write_ranked(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """JSON lines `{"id": ..., "ranked": ["B", "A", "D", "C"]}`: every option, most probable first."""
    ranked = ranked_options(probabilities, questions.exists())
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for id_, letters in zip(questions.ids, ranked, strict=True):
            stream.write(json.dumps({"id": id_, "ranked": letters}, ensure_ascii=False) + "\n")


def write_probabilities(path: Path, questions: Questions, probabilities: np.ndarray) -> None:
    """`id,p_A,p_B,...` as CSV or parquet; empty where an option does not exist."""
    width = probabilities.shape[1]
    names = ["id", *(f"p_{letter}" for letter in LETTERS[:width])]
    exists = questions.exists(width)
    if file_format(path) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = np.where(exists, probabilities, np.nan).astype(np.float32)
        columns = [pa.array(questions.ids, pa.string()), *(pa.array(column, from_pandas=True) for column in table.T)]
        with atomic_file(path) as temporary:
            pq.write_table(pa.table(columns, names=names), temporary)
        return
    rows = (
        [id_, *(f"{value:.6f}" if there else "" for value, there in zip(row, mask, strict=True))]
        for id_, row, mask in zip(questions.ids, probabilities, exists, strict=True)
    )
    write_csv(path, names, rows)
