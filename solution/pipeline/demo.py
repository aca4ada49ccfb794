"""The whole pipeline on the built-in exam, a part of which is held out and scored."""

from __future__ import annotations

from solution.config import Run
from solution.demo.exam import read_demo_exam
from solution.inference.outputs import Outputs
from solution.pipeline.run import Clock, Job, run_pipeline
from solution.workdir import Workdir


def run_demo(run: Run, workdir: Workdir, configs: str | None = None) -> None:
    """Index, contexts, folds, training, tuning, submission, and the held-out score of every ranker.

    Args:
        configs: the folder of the settings, see `ensemble.tune.run_tune`.

    Raises:
        UserError: a package that carries weights or text is not installed, or see the steps.
    """
    clock = Clock()
    train, held_out = read_demo_exam()
    clock.step(f"{len(train)} questions to train on, {len(held_out)} held out; {run.ensemble.folds} folds")
    outputs = Outputs(workdir.submission, ranked=workdir.root / "ranked.jsonl")
    scored = f"Held out: {len(held_out)} questions that nothing was trained or tuned on"
    run_pipeline(Job(run, workdir, train, held_out, outputs, scored, configs), clock)
    clock.step(f"done; the answers are in {outputs.submission}")
