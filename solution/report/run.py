"""`python -m solution report`: everything read, every figure computed, one folder written whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from solution import __version__
from solution.errors import UserError
from solution.files import MANIFEST, atomic_folder, read_manifest, write_manifest, write_text
from solution.learning.tracking import track_artifact, tracked
from solution.progress import progress_bar, say
from solution.questions import Questions
from solution.report.blend import headline
from solution.report.figures import Figures
from solution.report.material import gather
from solution.report.page import render
from solution.report.plots import require_matplotlib, save
from solution.report.sections import all_sections
from solution.workdir import Workdir

_REPORT = "report"
PAGE = "index.html"


def write_report(
    workdir: Workdir,
    questions: Questions | None,
    output: Path,
    by: Sequence[str] = (),
    gold: str | None = None,
) -> list[Path]:
    """Write the page and the PNGs of a tuned working folder.

    Args:
        questions: the exam; None: what needs it is left out.
        output: a folder that is made, or holds an earlier report.
        by: columns to report by; none: every one that has 2 to 40 values.
        gold: column of the right passages, see `retrieval.gold.Gold`; None: weak labels.

    Returns:
        The files written.

    Raises:
        UserError: matplotlib is missing, the output holds other files, or see `material.gather` and
            `figures.Figures`.
    """
    require_matplotlib()
    output = output.resolve()
    check_output(output)
    material = gather(workdir, questions)
    figures = Figures(material, by, gold)
    sections = all_sections(figures)
    for section in sections:
        if section.missing:
            say(f"note: left out: {section.title}: {section.missing}")
    charts = {chart.name: chart for section in sections for chart in section.charts}
    footer = (
        f"LLM Science Exam {__version__}, report from OOF files and weights/ensemble.json alone; exam and folds "
        f"{material.record['questions']}. The plots lie beside this page as PNGs."
    )
    with atomic_folder(output) as temporary:
        write_text(temporary / PAGE, render("Ensemble report", headline(figures), sections, footer, material.notes))
        with progress_bar(len(charts), "plots") as bar:
            for name, chart in charts.items():
                save(chart, temporary / f"{name}.png")
                bar.advance()
        write_manifest(temporary, _REPORT)
    record = material.record
    with tracked(record.get("trackers", ()), workdir.tracking, "report", {"choice": record["choice"]}):
        track_artifact(output, "report")
    return [output / PAGE, *(output / f"{name}.png" for name in charts)]


def check_output(output: Path) -> None:
    """Raise `UserError` where the folder to write holds anything but an earlier report: it is replaced whole."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"--output {output} is a file; give a folder")
    there = {path.name for path in output.iterdir()}
    if not there:
        return
    ours: set[str] = {MANIFEST}
    if MANIFEST in there:
        try:
            ours |= set(read_manifest(output, _REPORT, "", verify=False)["files"])
        except UserError:
            ours = set()
    strange = sorted(there - ours)
    if strange:
        raise UserError(
            f"--output {output} holds other files ({strange[0]}), and a report replaces its folder whole; "
            "give a new or empty folder"
        )
