"""Answer an exam with the trained ensemble: one base model in memory at a time, every fold's adapter on it in turn."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solution.answers_file import read_answers
from solution.config import DEFAULT, ContextView, RetrievalConfig
from solution.config_files import check_settings, parse_overrides, retrieval_owner
from solution.ensemble.record import EnsembleRecord
from solution.errors import UserError
from solution.exam import Contexts
from solution.files import write_json
from solution.folds import already_parted
from solution.inference.answering import Answering
from solution.inference.asking import ReadyRanker
from solution.inference.devices import DEFAULT_DEVICE, ComputeDevice, find_devices, speed_of
from solution.inference.engine import Engine
from solution.inference.jobs import Fault, OutOfTime
from solution.inference.journal import AnswerJournal
from solution.inference.limits import Limits
from solution.inference.outputs import AnswerFile, Ended, Outputs, submission_report, write_submission
from solution.inference.retrieving import Retrieving
from solution.inference.schedule import Schedule
from solution.inference.trained import TrainedRanker, ranker_exams, read_ensemble, settings_of
from solution.inference.turns import Answers
from solution.metrics import bootstrap_interval, credit_at_k
from solution.progress import say
from solution.questions import Questions
from solution.rankers.alike import described
from solution.weights import read_record, record_path, stored_retrievals, trained_folders
from solution.workdir import Workdir


def run_submission(
    workdir: Workdir,
    questions: Questions,
    outputs: Outputs,
    overrides: Sequence[str] = (),
    added: Mapping[str, Path] | None = None,
    limits: Limits | None = None,
    sample: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answer `questions` and write the files asked for.

    A complete answer is in `outputs.submission` before any model loads, and is replaced by better ones. Each model runs
    in a process of its own; what it has answered is kept in `WORKDIR/cache/submission`, and the same call goes on from
    there.

    Args:
        overrides: settings, `key.path=value`; a key begins with a ranker's name or `retrieval`.
        added: imported ranker -> the file of its answers to these questions, see `answers_file.read_answers`.
        limits: deadline and what to do with a ranker that fails; its time is already running.
        sample: bool [n], the only questions that rankers with a model read; None: all of them.

    Returns:
        The blended probabilities, float32 [n, max_options], and those of each ranker that answered everything.

    Raises:
        UserError: the ensemble, an override or an output path is not usable (nothing is written then); or no ranker
            answered, or one was left out and `limits.strict` is set (the best answer is written).
        SystemExit: SIGTERM came; code 143, the best answer is written.
        KeyboardInterrupt: it came; the best answer is written.
    """
    limits = limits or Limits()
    # Everything is read and checked before anything is written.
    outputs.check()
    members = _read_members(workdir, questions, overrides, added or {})
    outputs.check_writable()
    submission = _Submission.prepare(workdir, questions, members, outputs, limits, sample)
    _note_known_questions(workdir, questions)
    # From here on a signal does not end the command before the best answer is written.
    with _terminable():
        ended = submission.run()
        blended = submission.write(ended)
    submission.describe(ended, blended)
    submission.raise_for(ended)
    return blended, submission.whole_tables()


# --- reading -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Members:
    """The rankers of the ensemble.

    Attributes:
        ensemble: what `ensemble.json` holds.
        trained: those with usable weights.
        faults: the others -> why not.
        imported: those of another program -> float32 [n, width].
        overrides: settings of the command line.
    """

    ensemble: EnsembleRecord
    trained: list[TrainedRanker]
    faults: dict[str, str]
    imported: dict[str, np.ndarray]
    overrides: Sequence[str]


def _read_members(
    workdir: Workdir, questions: Questions, overrides: Sequence[str], added: Mapping[str, Path]
) -> _Members:
    faults: dict[str, str] = {}
    ensemble, trained = read_ensemble(workdir, overrides, added, faults)
    imported = {name: read_answers(path, questions) for name, path in added.items()}
    return _Members(ensemble, trained, faults, imported, overrides)


def _note_known_questions(workdir: Workdir, questions: Questions) -> None:
    known = already_parted(questions, workdir.folds)
    if known:
        say(
            f"note: the rankers were trained on {known} of these {len(questions)} questions ({workdir.folds}): "
            "a score on them is too high; the table of `tune` has the honest one"
        )


# --- answering -----------------------------------------------------------------------------


@dataclass
class _Submission:
    """One submission: `run` answers, then `write`, `describe` and `raise_for` say how it ended.

    Attributes:
        schedule: which rankers may run.
        answers: all that is known of the answers so far.
        journal: what an earlier run of the same submission has answered.
        retrieving: makes the contexts.
        devices: those that share a ranker's questions.
    """

    workdir: Workdir
    members: _Members
    outputs: Outputs
    schedule: Schedule
    answers: Answers
    journal: AnswerJournal
    retrieving: Retrieving
    devices: Sequence[ComputeDevice] = (DEFAULT_DEVICE,)

    @classmethod
    def prepare(
        cls,
        workdir: Workdir,
        questions: Questions,
        members: _Members,
        outputs: Outputs,
        limits: Limits,
        sample: np.ndarray | None = None,
    ) -> _Submission:
        """A submission that has done nothing yet."""
        schedule = Schedule.read(workdir, members.ensemble)
        answers = schedule.answers(questions, members.trained, limits, sample)
        journal = AnswerJournal(workdir.cache / "submission" / questions.content_hash(with_answers=False))
        return cls(workdir, members, outputs, schedule, answers, journal, Retrieving(workdir, answers))

    def run(self) -> Ended:
        """Answer until everything is answered, the deadline comes or a signal."""
        try:
            self._begin()
            self._find_devices()
            contexts = self.retrieving.contexts_of(self.members.trained)
            rankers = self._ready_rankers(contexts)
            self._improve_baseline(rankers)
            self._ask(rankers)
        except _Terminated:
            ended: Ended = "terminated"
        except KeyboardInterrupt:
            ended = "interrupted"
        else:
            cut = any(turn.state in ("partial", "skipped") for turn in self.answers.turns.values())
            return "deadline" if cut else "finished"
        self.answers.give_up("it was ended by a signal")
        return ended

    def _begin(self) -> None:
        """Write an answer that needs no ranker, and take what is known before any runs."""
        answers, timeline = self.answers, self.answers.timeline
        if answers.sample is not None:
            say(
                f"public run: these are the competition's public questions, so the rankers with a model read only "
                f"{answers.sample.sum()} of {len(answers.questions)}; any other file is answered whole "
                "(submit.py --full-run: this one too)"
            )
        write_submission(self.outputs.submission, answers.questions, answers.baseline)
        timeline.note(f"baseline: {answers.baseline_kind}")
        answers.add_imported(self.members.imported)
        for name, reason in self.members.faults.items():
            answers.fail(name, reason)
        for ranker in self.members.trained:
            for reason in ranker.lost.values():
                say(f"WARNING: {ranker.name} goes on without one of its folds: {reason}")
                timeline.note(f"{ranker.name} without a fold: {reason}")

    def _find_devices(self) -> None:
        """Look on which devices the rankers with a model can answer."""
        timeline = self.answers.timeline
        if not any(ranker.config.has_model for ranker in self.members.trained):
            return
        # Where the deadline comes meanwhile, the rankers' turns say so.
        with contextlib.suppress(OutOfTime):
            self.devices, timeline.device_remarks = find_devices(timeline.limits)
        timeline.devices = [device.name for device in self.devices]
        if len(self.devices) > 1:
            timeline.note(f"devices: {', '.join(timeline.devices)}")

    def _ready_rankers(self, contexts: Mapping[str, Mapping[ContextView, Contexts]]) -> dict[str, ReadyRanker]:
        """The rankers that can be asked, with all that they read."""
        questions, costs = self.answers.questions, self.schedule.costs
        ready = {}
        for ranker in self.members.trained:
            if self.answers.turns[ranker.name].state == "waiting":
                exams, cost = ranker_exams(ranker, questions, contexts), costs[ranker.name]
                ready[ranker.name] = ReadyRanker(ranker, exams, cost.fold_seconds, cost.load_seconds)
        return ready

    def _improve_baseline(self, rankers: Mapping[str, ReadyRanker]) -> None:
        """Take retrieval's ranking of the options as the baseline, where there is one: it beats the longest option."""
        for ranker in rankers.values():
            if self.answers.set_baseline(ranker.exams[0].similarities(), ranker.trained.config.option_score):
                break
        if not any(ranker.retrievals for ranker in self.members.trained):
            self._retrieve_for_baseline()

    def _retrieve_for_baseline(self) -> None:
        """Rank the options as the retrieval of the rankers left out does: no usable ranker reads contexts."""
        overrides = parse_overrides(self.members.overrides)
        for path, owner, values in baseline_retrievals(self.workdir, self.members.faults, self.members.ensemble):
            try:
                changes = settings_of(overrides, owner)
                config = check_settings(RetrievalConfig, values, path, owner, changes)
                if config.source == "none" or not config.option_scores:
                    continue
                contexts = self.retrieving.contexts(config, ["fused"])["fused"]
                if self.answers.set_baseline(contexts.option_scores, "sentence"):
                    return
            except (Fault, OutOfTime):
                return
            except (UserError, OSError, KeyError, TypeError):
                continue  # its record is damaged: perhaps that of another fold is not

    def _ask(self, rankers: Mapping[str, ReadyRanker]) -> None:
        """Give every ranker its turn."""
        answers, submission = self.answers, self.outputs.submission
        file = AnswerFile(answers, lambda blend: write_submission(submission, answers.questions, blend))
        file.store(force=True)
        cache = self.workdir.cache.resolve()
        answering = Answering(answers, rankers, cache, self.journal, file, self.devices)
        engine = Engine(answers, answering)
        if answers.sample is None:
            speeds = {name: speed_of(answering.devices_of(name)) for name, each in rankers.items() if each.has_model}
            engine.run(*self.schedule.choose(len(answers.questions), self.journal, answers.timeline, speeds))
        else:
            engine.run(self.schedule.whole)

    # --- the end ---

    def write(self, ended: Ended) -> np.ndarray:
        """Write all outputs and the report; returns the blend, float32 [n, width]."""
        blended = self.answers.blended()
        self.outputs.write(self.answers.questions, blended)
        self.answers.timeline.note("answer written")
        if self.answers.sample is not None:
            self.answers.timeline.note(self.answers.public_run())
        lost_folds = {ranker.name: [*ranker.lost.values()] for ranker in self.members.trained}
        report = submission_report(self.answers, lost_folds, self.retrieving.time_taken, ended, self.outputs.submission)
        try:
            write_json(self.outputs.report, report)
        except OSError as error:
            say(f"WARNING: {self.outputs.report} cannot be written ({error.strerror})")
        return blended

    def describe(self, ended: Ended, blended: np.ndarray) -> None:
        """Say what answered, what is missing, and the score where the question file has the answers."""
        answers, questions = self.answers, self.answers.questions
        used = [name for name, turn in answers.blended_turns.items() if turn.answered.any()]
        when = {
            "deadline": " at the deadline",
            "terminated": " before SIGTERM",
            "interrupted": " before the interruption",
        }
        by = ", ".join(used) or f"the baseline ({answers.baseline_kind})"
        say(f"{self.outputs.submission}: {len(questions)} questions answered by {by}{when.get(ended, '')}")
        for line in (*answers.shortfalls(), *answers.unscored()):
            say(f"WARNING: {line}")
        if answers.sample is not None:
            say(answers.public_run())
        for name, turn in answers.turns.items():
            if turn.alike:
                say(f"note: {name} {described(turn.alike, int(turn.answered.sum()))}")
        for line in answers.overflows():
            say(f"note: {line}")
        if (questions.answers >= 0).all():
            credits = credit_at_k(blended, questions.answers)
            low, high = bootstrap_interval(credits)
            say(f"the question file has the answers: MAP@3 {credits.mean():.4f} [{low:.3f}, {high:.3f}]")

    def raise_for(self, ended: Ended) -> None:
        """Raise what a signal, or an answer without its rankers, ends the command with; see `run_submission`."""
        if ended == "terminated":
            raise SystemExit(143)
        if ended == "interrupted":
            raise KeyboardInterrupt
        answers, output, strict = self.answers, self.outputs.submission, self.answers.timeline.limits.strict
        failed = {name: turn.reason for name, turn in answers.turns.items() if turn.state == "failed"}
        late = {name: turn.reason for name, turn in answers.turns.items() if turn.state == "skipped"}
        left_out, some = _left_out(failed | late), answers.any_answer().any()
        if failed and not some:
            raise UserError(f"no ranker answered, and {output} holds only {answers.baseline_kind}: {left_out}")
        if strict and left_out:
            best = "the best answer of the others" if some else f"only {answers.baseline_kind}"
            raise UserError(f"--strict: {left_out}; {output} holds {best}")
        lost = {ranker.name: next(iter(ranker.lost.values())) for ranker in self.members.trained if ranker.lost}
        if strict and lost:
            raise UserError(f"--strict: folds are {_left_out(lost)}; {output} holds the answer of the other folds")

    def whole_tables(self) -> dict[str, np.ndarray]:
        """Of each ranker that answered every question and was shown every option, float32 [n, width]."""
        whole = {name: turn for name, turn in self.answers.turns.items() if turn.answered.all()}
        return {name: turn.table() for name, turn in whole.items() if (turn.alive == self.answers.exists).all()}


def _left_out(reasons: Mapping[str, str]) -> str:
    """The rankers that are left out, those with the same reason together."""
    alike: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        alike.setdefault(reason, []).append(name)
    return "; ".join(f"left out: {', '.join(names)} ({reason})" for reason, names in alike.items())


# --- signals -------------------------------------------------------------------------------


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


def baseline_retrievals(
    workdir: Workdir, names: Iterable[str], ensemble: EnsembleRecord
) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """The settings of retrieval that are stored, each with the file that has them, and behind that the beginning of
    their names on the command line.

    Those of the rankers `names` come first, then those of any ranker that was trained here, and then those that the
    ensemble was tuned with, which are there even where all weights are gone.
    """
    for name in [*names, "*"]:
        for folder in trained_folders(workdir, name):
            with contextlib.suppress(UserError, OSError, KeyError, TypeError):
                for retrieval, values in stored_retrievals(read_record(folder, "")).items():
                    yield record_path(folder), retrieval_owner(retrieval), values
    if (tuned := ensemble.get("retrieval")) is not None:
        yield workdir.ensemble, retrieval_owner(DEFAULT), tuned
