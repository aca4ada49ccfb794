"""The trained rankers of an ensemble as they lie on disk, checked before a model loads."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from solution.config import SIGNALS, AnswerWith, ContextView, RankerConfig, RetrievalConfig
from solution.config_files import NAMED, Overrides, check_settings, parse_overrides, retrieval_owner
from solution.ensemble.record import (
    EnsembleRecord,
    RankerAbout,
    about_all,
    load_ensemble,
    unweighted_sources,
    used_rankers,
)
from solution.errors import UserError
from solution.exam import Contexts, Exam
from solution.models import check_model
from solution.oof import IMPORTED, signal_sources
from solution.questions import Questions
from solution.retrieval.reranker.trained import rerankers_key
from solution.suggestions import running_arguments, suggest
from solution.weights import (
    FoldRecord,
    answering_folders,
    check_folder,
    deployed_folders,
    differing_folds,
    differing_inputs,
    is_of_a_fold,
    read_record,
    record_path,
    stored_retrievals,
    trained_folders,
)
from solution.workdir import Workdir

_WRONG = "the settings are wrong"


class WeightsError(UserError):
    """A ranker's weights are missing, changed or not those that the ensemble was tuned with."""


@dataclass
class TrainedRanker:
    """One ranker of the ensemble as it lies on disk.

    Attributes:
        name: of the ranker and of its folder.
        config: the settings it was trained with, and those of the command line.
        folders: of its usable weights, at least one: of its folds, or those trained on all questions.
        retrievals: what its contexts are made by, by name, in its order; empty: it reads none.
        lost: folder's name -> why its weights are not usable; the others answer without it.
    """

    name: str
    config: RankerConfig
    folders: list[Path]
    retrievals: dict[str, RetrievalConfig] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def asked_folders(self) -> list[Path]:
        """Of the weights that answer: all of them, or the first where they would all say the same."""
        return self.folders if self.config.folds_differ else self.folders[:1]

    @property
    def asked_text(self) -> str:
        """ "3 folds", "2 of 3 folds", "1 seed" of a training on all questions, or "the mean of its folds"."""
        count, kind = len(self.asked_folders), self._kind
        if kind == "average":
            return "the mean of its folds"
        every = count + (len(self.lost) if self.config.folds_differ else 0)
        return f"{count} {f'of {every} ' if every > count else ''}{kind}{'s' * (every > 1)}"

    @property
    def _kind(self) -> str:
        """What its folders are, in a word: "fold", "seed" (of a training on all questions) or "average"."""
        kind = self.folders[0].name.partition("_")[0]
        return "seed" if kind == "full" else kind

    @property
    def shortfall(self) -> str:
        """A sentence on the lost weights that the answer misses; empty: it misses none."""
        if not self.lost or not self.config.folds_differ:
            return ""
        numbers = ", ".join(name.rpartition("_")[2] for name in self.lost)
        lost = f"{self._kind}{'s' * (len(self.lost) > 1)} {numbers}"
        return f"{self.name} answers with {self.asked_text}: the weights of {lost} are missing or cannot be used."

    @classmethod
    def read(
        cls, workdir: Workdir, name: str, about: RankerAbout, overrides: Overrides, partly: bool = False
    ) -> TrainedRanker:
        """The ranker in the working folder, its files checked.

        Args:
            about: what the ensemble file says of the ranker.
            overrides: of the command line, those of other owners among them.
            partly: whether a ranker some of whose weights are not usable goes on with the others.

        Raises:
            WeightsError: its folders are not usable, or its model is not there.
            UserError: an override is wrong.
        """
        answer_with = _answers_with(workdir, name, about)
        again = training_command(workdir, name, answer_with)
        remedy = f"Train it again, with the exam, corpus and settings that it was trained with: {again}"
        folders, records, lost = [], [], {}
        for folder in answering_folders(workdir, name, answer_with, int(about["folds"])):
            try:
                records.append(_checked_record(workdir, folder, about, remedy))
                folders.append(folder)
            except WeightsError as error:
                if not partly:
                    raise
                lost[folder.name] = str(error)
        if not records:
            raise WeightsError(next(iter(lost.values())))
        first, source = records[0], record_path(folders[0])
        config, retrievals = _changed_settings(name, first, source, overrides)
        _check_rerankers(workdir, name, retrievals, first["about"].get("reranker"), remedy)
        if config.has_model:
            try:
                check_model(config.model, workdir.cache, config.revision)
            except UserError as error:
                raise WeightsError(str(error)) from None
        return cls(name, config, folders, retrievals, lost)


def _answers_with(workdir: Workdir, name: str, about: RankerAbout) -> AnswerWith:
    """Which weights answer: the folds, too, of a ranker whose folds are all alike, which is never trained on all
    questions."""
    answer_with = about.get("answer_with", "folds")
    if answer_with != "folds" and not deployed_folders(workdir, name, answer_with):
        with contextlib.suppress(UserError, OSError, KeyError, ValueError):
            record = read_record(workdir.fold_weights(name, 0), "")
            config = RankerConfig.model_validate({**record["config"], "answer_with": answer_with})
            return config.answers_with
    return answer_with


def training_command(workdir: Workdir, ranker: str, answer_with: AnswerWith = "folds") -> str:
    """The command that trains a ranker's answering weights again, with exam and corpus as far as they are known."""
    given, more = running_arguments(), []
    if not workdir.questions.exists() and given.get("questions") is None:
        more += ["--questions", "FILE"]
    if given.get("corpus") is None and (corpus := _trained_corpus(workdir, ranker)):
        more += ["--corpus", corpus]
    what = "--all-folds" if answer_with == "folds" else f"--{answer_with}"
    return suggest("train_fold", what, "--ranker", ranker, *more)


def _trained_corpus(workdir: Workdir, ranker: str) -> str | None:
    """The corpus that a ranker was trained with; None where it read none or no fold tells."""
    for folder in trained_folders(workdir, ranker):
        with contextlib.suppress(UserError, OSError, KeyError, TypeError, AttributeError):
            retrieval = read_record(folder, "")["retrieval"] or {}
            if retrieval.get("source") == "index":
                return str(retrieval.get("corpus") or "") or None
    return None


def _changed_settings(
    name: str, record: FoldRecord, source: Path, overrides: Overrides
) -> tuple[RankerConfig, dict[str, RetrievalConfig]]:
    """A ranker's stored settings and those of its retrievals, with those of the command line put on top.

    Raises:
        UserError: every problem of all.
    """
    problems: list[str] = []
    config = None
    retrievals: dict[str, RetrievalConfig] = {}
    try:
        config = check_settings(RankerConfig, record["config"], source, name, settings_of(overrides, name))
    except UserError as error:
        problems += error.problems
    for retrieval, values in stored_retrievals(record).items():
        try:
            owner = retrieval_owner(retrieval)
            changes = settings_of(overrides, owner)
            retrievals[retrieval] = check_settings(RetrievalConfig, values, source, owner, changes)
        except UserError as error:
            problems += error.problems
    if config is not None and config.retrieval != RankerConfig.model_validate(record["config"]).retrieval:
        problems.append(f"the command line: {name}.retrieval: it was trained on other retrievals; train it again")
    if config is None or problems:
        raise UserError.join(problems, _WRONG)
    return config, retrievals


def _checked_record(workdir: Workdir, folder: Path, about: RankerAbout, remedy: str) -> FoldRecord:
    """`ranker.json` of weights whose files are whole and that the ensemble was tuned with.

    Raises:
        WeightsError: they are not.
    """
    try:
        check_folder(folder, remedy)
        record = read_record(folder, remedy)
    except (UserError, OSError) as error:
        raise WeightsError(str(error)) from None
    tune_again = f"Run again, with the --configs of its rankers: {suggest('tune')}"
    differing = differing_inputs(record, about)
    if "questions" in differing and is_of_a_fold(folder):
        raise WeightsError(
            f"the weights in {folder} were trained on other questions or folds than those that the ensemble was tuned "
            f"on. {tune_again}"
        )
    # A fold's OOF file is written with it, so that `tune` is to run again. Other weights have none: either they are
    # older than the ensemble, or the folds were trained again since, and these weights after them.
    if differing and not is_of_a_fold(folder):
        name = folder.parent.name
        is_like_folds = trained_folders(workdir, name) and not differing_folds(workdir, name, record)
        mend = tune_again if is_like_folds else remedy
        raise WeightsError(
            f"the weights in {folder} and the OOF files that the ensemble was tuned on were made with other "
            f"{', '.join(differing)}. {mend}"
        )
    if signal_sources(record["about"]) != signal_sources(about):
        raise WeightsError(
            f"the weights in {folder} learnt from other scores of {', '.join(signal_sources(about))} than the OOF "
            f"files that the ensemble was tuned on. {remedy} Then: {suggest('tune')}"
        )
    if record["about"]["config"] != about["config"] or record["about"]["contexts"] != about["contexts"]:
        raise WeightsError(
            f"the weights in {folder} (settings {record['about']['config']}, contexts "
            f"{record['about']['contexts']}) are not those that the ensemble was tuned with (settings "
            f"{about['config']}, contexts {about['contexts']}). {tune_again}"
        )
    if differing:
        raise WeightsError(
            f"the weights in {folder} were made with other {', '.join(differing)} than the OOF files that the ensemble "
            f"was tuned on. {tune_again}"
        )
    return record


def _check_rerankers(
    workdir: Workdir, name: str, retrievals: Mapping[str, RetrievalConfig], key: str | None, remedy: str
) -> None:
    """Refuse contexts by another reranker than those that the ranker was trained and tuned on."""
    if key is None or all(retrieval.reranker is None for retrieval in retrievals.values()):
        return
    if rerankers_key(retrievals.values(), workdir.root) != key:
        raise WeightsError(
            f"the ranker {name} was trained on contexts of another reranker than the one in "
            f"{workdir.weights / 'reranker'}. {remedy}"
        )


def settings_of(overrides: Overrides, owner: str) -> Overrides:
    """The settings of the command line that are the owner's ("retrieval", "retrievals.wiki", a ranker), without its
    name."""
    parts = owner.split(".")
    count = len(parts)
    return [(path[count:], value) for path, value in overrides if path[:count] == parts and len(path) > count]


def imported_rankers(ensemble: EnsembleRecord) -> list[str]:
    """Of the rankers that have a weight those whose answers come from another program."""
    return [name for name in used_rankers(ensemble) if ensemble["about"][name].get("family") == IMPORTED]


def read_ensemble(
    workdir: Workdir,
    overrides: Sequence[str],
    added: Collection[str] = (),
    faults: dict[str, str] | None = None,
) -> tuple[EnsembleRecord, list[TrainedRanker]]:
    """The ensemble file, its rankers of positive weight and those whose scores these read, everything checked before a
    model loads.

    Args:
        added: imported rankers whose answers are given.
        faults: takes the rankers whose weights are not usable and why, and a ranker goes on with the folds that are;
            None: these are errors.

    Raises:
        UserError: no ensemble, missing or changed weights (see `faults`), an override of a ranker that is not there,
            an imported ranker whose answers are not given.
    """
    ensemble = load_ensemble(workdir)
    return ensemble, read_rankers(workdir, ensemble, overrides, added, faults)


def read_rankers(
    workdir: Workdir,
    ensemble: EnsembleRecord,
    overrides: Sequence[str],
    added: Collection[str] = (),
    faults: dict[str, str] | None = None,
) -> list[TrainedRanker]:
    """The rankers of an ensemble that `load_ensemble` returned; see `read_ensemble`."""
    problems: list[str] = []
    changes = parse_overrides(overrides, problems)
    _choose_weights(ensemble, changes)
    used, imported = [*used_rankers(ensemble), *unweighted_sources(ensemble)], imported_rankers(ensemble)
    owners = (*used, "retrieval", NAMED)
    unknown = [".".join(path) for path, _ in changes if path[0] not in owners or len(path) < 2 + (path[0] == NAMED)]
    if unknown:
        problems.append(
            f"the command line: unknown setting {', '.join(unknown)}; here a setting begins with retrieval. or a "
            f"ranker's name ({', '.join(used)}), as in {used[0]}.predict_tokens_per_batch=8192"
        )
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
            about = about_all(ensemble)[name]
            trained.append(TrainedRanker.read(workdir, name, about, changes, partly=faults is not None))
        except WeightsError as error:
            if faults is None:
                raise
            faults[name] = str(error)
        except UserError as error:  # of the command line: those of the other rankers' settings are told with it
            problems += error.problems
    if not faults:
        known = {NAMED: {retrieval for ranker in trained for retrieval in ranker.retrievals}}
        strange = [path[1] for path, _ in changes if path[0] in known and path[1] not in known[path[0]]]
        problems += [f"the command line: no ranker of the ensemble reads a retrieval {each}" for each in strange]
    if problems:
        raise UserError.join(dict.fromkeys(problems), _WRONG)
    return trained


def _choose_weights(ensemble: EnsembleRecord, changes: Overrides) -> None:
    """Put `NAME.answer_with` of the command line in the place of what the ensemble says, for its costs too."""
    about = about_all(ensemble)
    for path, value in changes:
        # A value that is none is refused with the ranker's settings.
        if path[1:] == ["answer_with"] and path[0] in about and value in get_args(AnswerWith):
            about[path[0]]["answer_with"] = value


@dataclass
class ContextRequest:
    """Contexts that rankers read: settings, the views of all of these rankers, and the rankers' names."""

    config: RetrievalConfig
    views: list[ContextView] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)

    @property
    def is_signals(self) -> bool:
        return SIGNALS in self.views


def context_requests(rankers: Sequence[TrainedRanker]) -> list[ContextRequest]:
    """What these rankers read: a request for each retrieval, then one for its signals.

    Signals are asked for alone and last: they may take long, and no other ranker is to wait for them in vain.
    """
    requests: dict[tuple[bool, str], ContextRequest] = {}
    for ranker in rankers:
        for retrieval in ranker.retrievals.values():
            key = (SIGNALS in ranker.config.contexts, retrieval.hash())
            request = requests.setdefault(key, ContextRequest(retrieval))
            request.views += ranker.config.contexts
            request.readers.append(ranker.name)
    return sorted(requests.values(), key=lambda request: request.is_signals)


def ranker_exams(
    ranker: TrainedRanker, questions: Questions, contexts: Mapping[str, Mapping[ContextView, Contexts]]
) -> list[Exam]:
    """The exams that a ranker reads, answers hidden: see `Exam.views`.

    Args:
        contexts: by the hash of the retrieval's settings, those of the questions.
    """
    own = {name: contexts[retrieval.hash()] for name, retrieval in ranker.retrievals.items()}
    return [exam.hidden() for exam in Exam.views(ranker.config, questions, own)]
