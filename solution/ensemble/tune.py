"""Ensemble weights: fit the candidates, estimate them honestly, choose, and write `weights/ensemble.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from solution import metrics
from solution.config import Run, TuneSettings
from solution.ensemble.blend import Recipe
from solution.ensemble.candidates import Candidate, Fit, Problem, candidates
from solution.ensemble.costs import Cost, measured_cost
from solution.ensemble.frontier import plan_cascade
from solution.ensemble.imported import is_imported
from solution.ensemble.nested import (
    Choice,
    added_values,
    choose,
    chosen_credits,
    error_correlation,
    estimate_interval,
    fit_all,
)
from solution.ensemble.record import plan_record, recipe_record, record_hash
from solution.ensemble.search import TrialJournal
from solution.ensemble.table import Row, random_row, score_row
from solution.errors import UserError
from solution.files import SCHEMA, content_hash, write_json
from solution.oof import load_oof, read_about
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
    configs: str | None = None,
) -> dict[str, Any]:
    """Fit and choose the blend from the OOF store, and write `weights/ensemble.json`.

    Args:
        rankers: names to load, baselines among them or not; None: every one that has OOF files.
        groups: see `EnsembleConfig.groups`; members that are not there are left out.
        seconds: ranker name -> seconds a question in a submission, in the place of what training measured.
        limit: seconds a question that the submission may take, see `cascade.plan_cascade`.
        configs: the folder of the settings, kept for messages that suggest to tune again.

    Returns:
        What was written, see `Ensemble`; its `table` is for `table.print_table`. The same OOF files and settings
        give the same bytes, unless several processes shared a search.

    Raises:
        UserError: see `oof.load_oof`; there is no ranker to blend (only baselines); or `settings.choose` needs
            groups that are not there.
    """
    oof = load_oof(workdir, rankers)
    names = oof.rankers
    if not names:
        raise UserError(
            f"{', '.join(oof.baselines)}: only baselines have OOF files in {workdir.oof}, and a baseline is never "
            f"blended. Train a ranker: {suggest('train_fold', '--all-folds')}"
        )
    costs = _costs(workdir, oof.about, names, seconds or {})
    answers, exists = oof.answers, oof.exists
    present = [[name for name in members if name in names] for members in (groups or {}).values()]
    problem = Problem(
        names=names,
        table=np.stack([oof.probabilities[name] for name in names]),
        exists=exists,
        answers=answers,
        folds=oof.folds,
        groups=[members for members in present if len(members) > 1],
    )
    samples, seed = settings.bootstrap_samples, settings.seed
    searches: dict[str, dict[str, float]] = {}
    rivals: list[Candidate] = []
    if len(names) == 1:
        recipes = {"single": Recipe({names[0]: 1.0})}
        tables = {"single": oof.probabilities[names[0]]}
        parts: dict[str, dict[int, Recipe]] = {}
        choice = Choice("single", f"single: {names[0]} is the only ranker")
    else:
        key = content_hash(oof.files, names, seed)
        journal = TrialJournal(workdir.cache / "tune" / f"{key}.journal") if settings.trials > 0 else None
        rivals = candidates(problem, settings, journal, key, searches)
        if settings.choose not in ("auto", *(rival.name for rival in rivals)):
            raise UserError(
                f"tune.choose={settings.choose} merges groups, and ensemble.groups names no group of two rankers "
                "with OOF files"
            )
        with progress_bar(len(rivals), "blends") as bar:
            recipes, tables, parts = fit_all(problem, rivals, bar.advance)
        if journal is not None:
            journal.close()
    credits = {name: metrics.credit_at_k(table, answers) for name, table in tables.items()}
    if len(names) > 1:
        if settings.choose == "auto":
            sizes = {name: len(recipe.used) for name, recipe in recipes.items()}
            choice = choose(credits, sizes, seed)
            fold_sizes = {
                fold: {name: len(parts[name][fold].used) for name in parts} for fold in np.unique(oof.folds).tolist()
            }
            final = chosen_credits(credits, fold_sizes, oof.folds, seed)
        else:
            choice = Choice(settings.choose, f"{settings.choose}: asked for by tune.choose={settings.choose}")
            final = credits[choice.name]
    else:
        final = credits["single"]
    recipe = recipes[choice.name]
    equal = credits.get("equal", credits[choice.name])

    def row(name: str, kind: Any, probabilities: np.ndarray, weight: float | None = None, shipped: bool = False) -> Row:
        return score_row(name, kind, probabilities, answers, equal, samples, seed, weight, shipped)

    in_sample = {name: metrics.map_at_k(problem.answer(each), answers) for name, each in recipes.items()}
    rows = [row(name, "ranker", oof.probabilities[name], recipe.weights[name], len(names) == 1) for name in names]
    rows += [row(name, "baseline", oof.probabilities[name]) for name in oof.baselines]
    rows.append(random_row(exists))
    told = []
    for rival in rivals:
        kind = {"equal": "equal", "tuned": "tuned_nested"}.get(rival.name, "candidate")
        made = row(rival.title, kind, tables[rival.name], None, rival.name == choice.name)
        if rival.name == "tuned":
            best = problem.answer(recipes["tuned"])
            rows.append(row(f"{rival.title}, in-sample", "tuned_in_sample", best))
        rows.append(made)
        fitted = recipes[rival.name]
        told.append(
            {
                "name": rival.name,
                "title": rival.title,
                "nested": {"map3": made.map3, "low": made.low, "high": made.high, "log_loss": made.log_loss},
                "versus_equal": {"gain": made.difference, "low": made.difference_low, "high": made.difference_high},
                "in_sample_map3": in_sample[rival.name],
                "rankers": len(fitted.used),
                **recipe_record(fitted),
            }
        )
    low, high = estimate_interval(final, credits[choice.name], samples, seed)
    plan = None
    if len(recipe.used) > 1 and all(costs[name].seconds_per_question is not None for name in recipe.used):
        fit = _prefix_fit(problem, settings, choice.name)
        plan = plan_cascade(problem, recipe, parts[choice.name], tables[choice.name], fit, costs, samples, seed, limit)
    elif limit is not None and len(recipe.used) == 1:
        say(f"note: the ensemble uses {recipe.used[0]} alone; --seconds-per-question has nothing to choose from")
    elif limit is not None:
        unknown = next(name for name in recipe.used if costs[name].seconds_per_question is None)
        raise UserError(
            f"--seconds-per-question needs each ranker's speed, and that of {unknown} was not measured: give it with "
            f"--seconds {unknown}=SECONDS"
        )
    unfitted = len(names) == 1 or settings.choose == "equal"
    record = {
        "schema": SCHEMA,
        "rankers": names,
        **recipe_record(recipe),
        "choice": choice.name,
        "reason": choice.reason,
        "estimate": {"map3": float(final.mean()), "low": low, "high": high, "kind": "oof" if unfitted else "nested"},
        "in_sample_map3": in_sample[choice.name],
        "table": [each.record() for each in rows],
        "candidates": told,
        "added_value": added_values(problem, parts[choice.name], credits[choice.name], samples, seed)
        if rivals
        else dict.fromkeys(names),
        "error_correlation": error_correlation(problem),
        "cascade": plan and plan_record(plan),
        "search": searches,
        "oof_files": oof.files,
        "questions": oof.about[names[0]]["questions"],
        "about": oof.about,
        "tune": settings.model_dump(mode="json"),
    }
    if configs is not None:
        record["configs"] = configs
    record["hash"] = record_hash(record)
    write_json(workdir.ensemble, record)
    return record


def _costs(
    workdir: Workdir, about: Mapping[str, Mapping[str, Any]], names: Sequence[str], seconds: Mapping[str, float]
) -> dict[str, Cost]:
    strange = sorted(set(seconds) - set(names))
    if strange:
        raise UserError(f"--seconds {strange[0]}: no such ranker among those tuned ({', '.join(names)})")
    costs = {name: measured_cost(workdir, name, about[name]) for name in names}
    return {
        name: replace(cost, seconds_per_question=seconds[name]) if name in seconds else cost
        for name, cost in costs.items()
    }


def _prefix_fit(problem: Problem, settings: TuneSettings, name: str) -> Fit:
    """How the recipe of some of the rankers is found: as the candidate that ships, without a sampler."""
    name = {"tuned": "tuned_exact", "tuned_cma": "tuned_exact"}.get(name, name)
    alone = settings.model_copy(update={"candidates": [name], "choose": "auto"})
    found = next(candidate for candidate in candidates(problem, alone) if candidate.name == name)

    def fit(part: Problem) -> Recipe:
        return Recipe({part.names[0]: 1.0}) if len(part.names) == 1 else found.fit(part)

    return fit


def rankers_with_oof(folder: Workdir, run: Run) -> list[str] | None:
    """The rankers listed that have OOF files; tells which are left out, on either side."""
    listed = run.ensemble.rankers
    there = sorted(path.name for path in folder.oof.glob("*") if any(path.glob("fold_*.parquet")))
    lacking = [name for name in listed if name not in there]
    unlisted = [name for name in there if name not in listed]
    used = [name for name in listed if name in there]
    # Files that say different things, or nonsense, are for the reader to refuse: it names the file.
    said = [read_about(path).get("folds") for path in sorted(folder.oof.glob("*/fold_*.parquet"))]
    folds = said[0] if said and all(isinstance(one, int) and one == said[0] for one in said) else None
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
