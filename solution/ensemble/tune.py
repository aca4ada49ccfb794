"""Ensemble weights: fit the candidates, estimate them honestly, choose, and write `weights/ensemble.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from solution import metrics
from solution.config import CandidateName, Run, TuneSettings
from solution.ensemble.blend import Recipe
from solution.ensemble.candidates import Candidate, Fit, Problem, Searches, candidates, oof_problem, search_key
from solution.ensemble.cascade import CascadePlan
from solution.ensemble.costs import Cost
from solution.ensemble.deployment import Deployment, answering_about, costs_of, sources_of
from solution.ensemble.frontier import plan_cascade
from solution.ensemble.imported import is_imported
from solution.ensemble.nested import (
    AddedValue,
    Choice,
    Fits,
    Fitted,
    added_values,
    choose_nested,
    error_correlation,
    estimate_interval,
    fit_candidate,
    fit_nested,
)
from solution.ensemble.record import (
    CandidateRecord,
    EnsembleRecord,
    RankerAbout,
    plan_record,
    recipe_record,
    record_hash,
)
from solution.ensemble.rows import RowKind, Scorer, ScoreRow, random_row
from solution.ensemble.trial_journal import TrialJournal
from solution.errors import UserError
from solution.files import SCHEMA, write_json
from solution.learning.tracking import track, tracked
from solution.oof import Oof, load_oof, read_about
from solution.progress import progress_bar, say
from solution.suggestions import suggest
from solution.workdir import Workdir


def run_tune(
    workdir: Workdir,
    settings: TuneSettings,
    rankers: list[str] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    seconds: Mapping[str, float] | None = None,
    limit: float | None = None,
    deployment: Deployment = Deployment(),  # noqa: B008 - it cannot be changed
) -> EnsembleRecord:
    """Fit and choose the blend from the OOF store, and write `weights/ensemble.json`.

    Args:
        rankers: names to load, baselines among them or not; None: every one that has OOF files.
        groups: see `EnsembleConfig.groups`; members that are not there are left out.
        seconds: ranker name -> seconds a question in a submission, in the place of what training measured.
        limit: seconds a question that the submission may take, see `frontier.plan_cascade`.
        configs: the folder of the settings, kept for messages that suggest to tune again.

    Returns:
        What was written; `table.print_table` shows it. The same OOF files and settings give the same bytes, unless
        several processes shared a search.

    Raises:
        UserError: see `oof.load_oof`; there is no ranker to blend (only baselines); or `settings.choose` needs
            groups that are not there.
    """
    # The rankers' answers to questions that they were not trained on, and what each takes in a submission.
    oof = load_oof(workdir, rankers)
    if not oof.rankers:
        raise UserError(
            f"{', '.join(oof.baselines)}: only baselines have OOF files in {workdir.oof}, and a baseline is never "
            f"blended. Train a ranker: {suggest('train_fold', '--all-folds')}"
        )
    sources = sources_of(workdir, oof)
    about = answering_about(workdir, oof.about | sources, deployment)
    costs = costs_of(workdir, oof.rankers, about, seconds or {})
    problem = oof_problem(oof, (groups or {}).values())

    # Every blend that competes, fitted on all questions and, for each fold, on the others.
    searches = Searches(search_key(oof, settings.seed))
    rivals = _rivals(problem, settings, searches)
    fits = _fit(workdir, problem, settings, rivals, searches)

    # The blend that ships, and cascades of its rankers: costly ones read only what the cheap ones leave open.
    tuned = _Tuned(oof, problem, settings, rivals, fits, *_choose(problem, settings, fits))
    plan = _plan(tuned, costs, limit)

    record = _ensemble_record(tuned, plan, searches.scores)
    record["about"] = cast(dict[str, RankerAbout], {name: about[name] for name in oof.about})
    if sources:
        record["sources"] = cast(dict[str, RankerAbout], {name: about[name] for name in sources})
    if deployment.retrieval is not None:
        record["retrieval"] = deployment.retrieval.model_dump(mode="json")
    if deployment.configs is not None:
        record["configs"] = deployment.configs
    if deployment.trackers:
        record["trackers"] = list(deployment.trackers)
    record["hash"] = record_hash(record)
    write_json(workdir.ensemble, record)
    _track(workdir, record, settings)
    return record


def _track(workdir: Workdir, record: EnsembleRecord, settings: TuneSettings) -> None:
    """Write weights and scores to the experiment trackers."""
    facts = {"choice": record["choice"], **settings.model_dump(mode="json")}
    with tracked(record.get("trackers", ()), workdir.tracking, "ensemble", facts):
        track({f"weight/{name}": weight for name, weight in record["weights"].items()})
        track({f"map3/{row['name']}": row["map3"] for row in record["table"]})


def nested_answers(workdir: Workdir, record: EnsembleRecord, oof: Oof) -> np.ndarray:
    """The answers of what ships, float32 [n, width], each fold's by a recipe that was fitted on the other folds.

    The fit is that of `run_tune`, done again (a sampler's trials are read from its journal while that is there).

    Args:
        record: `weights/ensemble.json`.
        oof: the store that it was tuned on.
    """
    problem = oof_problem(oof, [group["rankers"] for group in record["groups"]])
    if len(problem.names) == 1:
        return problem.table[0]
    choice = record["choice"]
    settings = TuneSettings.model_validate(record["tune"] | {"candidates": [choice]})
    searches = Searches(search_key(oof, settings.seed))
    (rival,) = [rival for rival in candidates(problem, settings, searches) if rival.name == choice]
    journal = _journal_path(workdir, searches)
    if choice in ("tuned", "tuned_cma") and settings.trials > 0 and journal.exists():
        searches.journal = TrialJournal(journal)
    answers, _ = fit_nested(problem, rival.fit)
    searches.close()
    return answers


# --- the steps of run_tune -----------------------------------------------------------------


def _rivals(problem: Problem, settings: TuneSettings, searches: Searches) -> list[Candidate]:
    """The candidates that compete; none where there is one ranker alone."""
    if len(problem.names) == 1:
        return []
    rivals = candidates(problem, settings, searches)
    if settings.choose not in ("auto", *(rival.name for rival in rivals)):
        raise UserError(
            f"tune.choose={settings.choose} merges groups, and ensemble.groups names no group of two rankers "
            "with OOF files"
        )
    return rivals


def _fit(
    workdir: Workdir, problem: Problem, settings: TuneSettings, rivals: Sequence[Candidate], searches: Searches
) -> Fits:
    if not rivals:
        (name,), table = problem.names, problem.table[0]
        credits = metrics.credit_at_k(table, problem.answers)
        return {"single": Fitted(Recipe({name: 1.0}), {}, table, credits)}
    if settings.trials > 0:
        searches.journal = TrialJournal(_journal_path(workdir, searches))
    fits = {}
    with progress_bar(len(rivals), "blends") as bar:
        for rival in rivals:
            fits[rival.name] = fit_candidate(problem, rival.fit)
            bar.advance()
    searches.close()
    return fits


def _journal_path(workdir: Workdir, searches: Searches) -> Path:
    return workdir.cache / "tune" / f"{searches.key}.journal"


def _choose(problem: Problem, settings: TuneSettings, fits: Fits) -> tuple[Choice, np.ndarray]:
    """The candidate that ships, and the credits of the whole procedure, float [n].

    Where there was nothing to choose these are the candidate's own nested credits.
    """
    if len(problem.names) == 1:
        choice = Choice("single", f"single: {problem.names[0]} is the only ranker")
    elif settings.choose != "auto":
        choice = Choice(settings.choose, f"{settings.choose}: asked for by tune.choose={settings.choose}")
    else:
        return choose_nested(fits, problem.folds, settings.seed)
    return choice, fits[choice.name].credits


@dataclass(frozen=True)
class _Tuned:
    """One tuning run, its cascade left out.

    Attributes:
        oof: the rankers' answers, and the baselines'.
        problem: the rankers' answers alone.
        rivals, fits: the candidates and what was fitted; no rivals where there is one ranker alone.
        choice: what ships.
        credits: float [n], of the whole procedure with the choice in it.
    """

    oof: Oof
    problem: Problem
    settings: TuneSettings
    rivals: Sequence[Candidate]
    fits: Fits
    choice: Choice
    credits: np.ndarray

    @property
    def shipped(self) -> Fitted:
        return self.fits[self.choice.name]

    def in_sample(self, name: CandidateName) -> float:
        """MAP@3 of a candidate on the questions that it was fitted on."""
        return metrics.map_at_k(self.problem.answer(self.fits[name].recipe), self.problem.answers)


def _plan(tuned: _Tuned, costs: Mapping[str, Cost], limit: float | None) -> CascadePlan | None:
    """The cascades of what ships; None where one ranker answers, or where the speed of a ranker is not known.

    Raises:
        UserError: a limit that cannot be kept, or not without the missing speed.
    """
    used, settings = tuned.shipped.recipe.used, tuned.settings
    asked = {name: costs[name] for name in used}
    asked |= {source: cost for name in used for source, cost in costs[name].sources.items()}
    unknown = [name for name, cost in asked.items() if cost.seconds_per_question is None]
    if len(used) > 1 and not unknown:
        fit = _prefix_fit(tuned.problem, settings, tuned.choice.name)
        samples, seed = settings.bootstrap_samples, settings.seed
        return plan_cascade(tuned.problem, tuned.shipped, fit, costs, samples, seed, limit)
    if limit is not None and len(used) == 1:
        say(f"note: the ensemble uses {used[0]} alone; --seconds-per-question has nothing to choose from")
    elif limit is not None:
        raise UserError(
            f"--seconds-per-question needs each ranker's speed, and that of {unknown[0]} was not measured: give it "
            f"with --seconds {unknown[0]}=SECONDS"
        )
    return None


def _prefix_fit(problem: Problem, settings: TuneSettings, name: CandidateName) -> Fit:
    """The fit for some of the rankers: that of the candidate that ships, without a sampler."""
    without_sampler: dict[CandidateName, CandidateName] = {"tuned": "tuned_exact", "tuned_cma": "tuned_exact"}
    name = without_sampler.get(name, name)
    alone = settings.model_copy(update={"candidates": [name], "choose": "auto"})
    candidate = next(candidate for candidate in candidates(problem, alone) if candidate.name == name)

    def fit(part: Problem) -> Recipe:
        return Recipe({part.names[0]: 1.0}) if len(part.names) == 1 else candidate.fit(part)

    return fit


# --- what ensemble.json says ---------------------------------------------------------------


def _ensemble_record(tuned: _Tuned, plan: CascadePlan | None, searches: dict[str, dict[str, float]]) -> EnsembleRecord:
    problem, settings, shipped = tuned.problem, tuned.settings, tuned.shipped
    samples, seed = settings.bootstrap_samples, settings.seed
    unfitted = not tuned.rivals or settings.choose == "equal"
    low, high = estimate_interval(tuned.credits, shipped.credits, samples, seed)
    rows, competed = _scores(tuned)
    added: dict[str, AddedValue | None] = dict.fromkeys(problem.names)
    if tuned.rivals:
        added = added_values(problem, shipped.by_fold, shipped.credits, samples, seed)
    return {
        "schema": SCHEMA,
        "rankers": list(problem.names),
        **recipe_record(shipped.recipe),
        "choice": tuned.choice.name,
        "reason": tuned.choice.reason,
        "estimate": {
            "map3": float(tuned.credits.mean()),
            "low": low,
            "high": high,
            "kind": "oof" if unfitted else "nested",
        },
        "in_sample_map3": tuned.in_sample(tuned.choice.name),
        "table": rows,
        "candidates": competed,
        "added_value": added,
        "error_correlation": error_correlation(problem),
        "cascade": None if plan is None else plan_record(plan),
        "search": searches,
        "oof_files": tuned.oof.files,
        "questions": tuned.oof.about[problem.names[0]]["questions"],
        "about": {},  # see `run_tune`
        "tune": settings.model_dump(mode="json"),
    }


def _scores(tuned: _Tuned) -> tuple[list[ScoreRow], list[CandidateRecord]]:
    """The table (rankers, baselines, random, candidates), and the record of each candidate."""
    oof, problem, settings, shipped = tuned.oof, tuned.problem, tuned.settings, tuned.shipped
    equal = tuned.fits.get("equal", shipped)
    scorer = Scorer(problem.answers, equal.credits, settings.bootstrap_samples, settings.seed)
    weights, alone = shipped.recipe.weights, not tuned.rivals
    rows = [scorer.row(name, "ranker", oof.probabilities[name], weights[name], alone) for name in problem.names]
    rows += [scorer.row(name, "baseline", oof.probabilities[name]) for name in oof.baselines]
    rows.append(random_row(problem.exists))
    kinds: dict[CandidateName, RowKind] = {"equal": "equal", "tuned": "tuned_nested"}
    records = []
    for rival in tuned.rivals:
        fitted = tuned.fits[rival.name]
        if rival.name == "tuned":
            rows.append(scorer.row(f"{rival.title}, in-sample", "tuned_in_sample", problem.answer(fitted.recipe)))
        kind = kinds.get(rival.name, "candidate")
        row = scorer.row(rival.title, kind, fitted.answers, shipped=rival.name == tuned.choice.name)
        rows.append(row)
        records.append(_candidate_record(rival, fitted.recipe, row, tuned.in_sample(rival.name)))
    return rows, records


def _candidate_record(rival: Candidate, recipe: Recipe, row: ScoreRow, in_sample: float) -> CandidateRecord:
    return {
        "name": rival.name,
        "title": rival.title,
        "nested": {"map3": row["map3"], "low": row["low"], "high": row["high"], "log_loss": row["log_loss"]},
        "versus_equal": {
            "gain": row["difference"],
            "low": row["difference_low"],
            "high": row["difference_high"],
        },
        "in_sample_map3": in_sample,
        "rankers": len(recipe.used),
        **recipe_record(recipe),
    }


# --- what is tuned -------------------------------------------------------------------------


def rankers_with_oof(folder: Workdir, run: Run) -> list[str] | None:
    """The rankers listed that have OOF files, and those that were imported; a note says which are left out.

    Returns:
        Their names; None where there is none.

    Raises:
        UserError: the OOF files have another number of folds than the settings, and rankers that these do not list.
    """
    listed = run.ensemble.rankers
    stored = sorted(path.name for path in folder.oof.glob("*") if any(path.glob("fold_*.parquet")))
    lacking = [name for name in listed if name not in stored]
    # Those whose scores a ranker reads are among the run's rankers without being listed.
    unlisted = [name for name in stored if name not in listed and name not in {config.name for config in run.rankers}]
    used = [name for name in listed if name in stored]
    folds = _folds_of_store(folder)
    if folds is not None and folds != run.ensemble.folds and unlisted:
        raise UserError(
            f"the OOF files in {folder.oof} are of {folds} folds, and these settings have {run.ensemble.folds} and do "
            f"not list {', '.join(unlisted)}. Name the folder of the settings they were made with: --configs FOLDER"
        )
    imported = [name for name in unlisted if is_imported(folder, name)]
    unlisted = [name for name in unlisted if name not in imported]
    if imported:
        say(f"note: imported and used too: {', '.join(imported)} (remove its folder in {folder.oof} to leave it out)")
        used += imported
    if used and lacking:
        say(f"note: no OOF files yet, left out: {', '.join(lacking)}")
    if used and unlisted:
        say(f"note: not in ensemble.rankers, left out: {', '.join(unlisted)}")
    return used or None


def _folds_of_store(folder: Workdir) -> int | None:
    """The number of folds that all OOF files name; None where they do not agree or are corrupt.

    `oof.load_oof` refuses such files: it names the file.
    """
    numbers = [read_about(path).get("folds") for path in sorted(folder.oof.glob("*/fold_*.parquet"))]
    first = numbers[0] if numbers else None
    return first if isinstance(first, int) and all(number == first for number in numbers) else None
