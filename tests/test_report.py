"""The report: its figures, its page (in a real browser too), its plots, and what it does without this or that."""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_chromium
from pipeline import run

from solution import metrics
from solution.config import TuneSettings
from solution.ensemble.tune import run_tune
from solution.errors import UserError
from solution.folds import exam_with_folds_hash
from solution.learning.log import TrainingLog
from solution.oof import write_oof
from solution.questions import Questions
from solution.report.blend import correlation, headline
from solution.report.charts import Forest, Mark, ticks
from solution.report.figures import Figures
from solution.report.material import gather
from solution.report.page import render, text
from solution.report.plots import folded_label
from solution.report.run import write_report
from solution.report.section import Section
from solution.report.sections import all_sections
from solution.workdir import Workdir

EVIL = '<script>alert(1)</script> & "quotes" </table> $x_1$ \x00 \u202e Δt≤5 ' + "verylongword" * 30
SETTINGS = TuneSettings(trials=0, bootstrap_samples=200, candidates="equal fewer single log_loss".split())
STRENGTHS = {"strong": 1.6, "a_ranker_with_quite_a_long_name_of_sixty_letters_as_is_allowed": 1.0, "weak": 0.3}
FOLDS = 3


def simulate(folder: Path, strengths: dict[str, float] = STRENGTHS, n: int = 120, family: str = "causal") -> Questions:
    """A tuned working folder of simulated rankers, with logs and an exam of odd texts of 3 to 5 options."""
    rng = np.random.default_rng(0)
    counts = rng.integers(3, 6, n)
    answers = rng.integers(0, counts)
    options = [[f"{EVIL} {row} {c}" if c == 1 else f"option {c}" for c in range(counts[row])] for row in range(n)]
    questions = Questions(
        ids=[f"q{row}" for row in range(n)],
        prompts=[f"{EVIL if row % 2 else 'Which of these'} number {row}?" for row in range(n)],
        options=options,
        answers=answers,
        extra={
            "subject": [f"subject <{row % 4}>" for row in range(n)],
            "page": [str(row) for row in range(n)],
            "context": [f"{EVIL} option {answers[row]} of {row}." if row % 3 else "" for row in range(n)],
        },
    )
    workdir = Workdir.open(folder)
    folds = np.arange(n) % FOLDS
    exists = questions.exists()
    exam = exam_with_folds_hash(questions, folds)
    for name, strength in strengths.items():
        scores = rng.normal(size=exists.shape)
        scores[np.arange(n), answers] += strength
        powers = np.where(exists, np.exp(scores), 0)
        table = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        for fold in range(FOLDS):
            rows = np.flatnonzero(folds == fold)
            about = {"ranker": name, "family": family, "role": "ranker", "fold": fold, "folds": FOLDS}
            about |= {"questions": exam, "contexts": "somewhere", "config": name}
            write_oof(workdir.oof_part(name, fold), questions.subset(rows), table[rows], about)
            if family == "imported":
                continue
            with TrainingLog(workdir.fold_weights(name, fold), [], False) as log:
                for step in range(1, 41):
                    log.add(step, 1.6 - 0.01 * step, 0.1, 1.0, 0.5 + 0.005 * step if step % 20 == 0 else None, 1.0, 9)
    run_tune(workdir, SETTINGS)
    return questions


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Questions]:
    folder = tmp_path_factory.mktemp("report")
    questions = simulate(folder)
    write_report(Workdir.open(folder), questions, folder / "report")
    return folder, questions


def built(exam: tuple[Path, Questions], **options: object) -> tuple[Figures, dict[str, Section]]:
    figures = Figures(gather(Workdir.open(exam[0]), exam[1]), **options)  # type: ignore[arg-type]
    return figures, {section.anchor: section for section in all_sections(figures)}


class Page(HTMLParser):
    """Checks what any page must keep: tags closed in order, ids once, no outside thing."""

    VOID = {"meta", "br", "wbr", "img", "circle", "line", "path"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.tags: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.ids += [values["id"]] if "id" in values else []
        if tag == "a":
            assert values["href"].startswith("#")
            self.links.append(values["href"][1:])
        if tag == "img":
            assert values["src"].startswith("data:") and values["alt"]
        else:
            assert "src" not in values
        if tag == "th":
            assert "scope" in values or values.get("aria-hidden") == "true"
        if tag == "svg":
            assert values.get("aria-hidden") == "true" or (values["role"] == "img" and values["aria-label"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if not {"style", "script"} & set(self.open):
            self.words += data


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open and len(set(page.ids)) == len(page.ids) and set(page.links) <= set(page.ids)
    return page


# --- the page ------------------------------------------------------------------------------


def test_the_page_is_whole_and_needs_nothing_else(exam):
    folder, questions = exam
    source = (folder / "report" / "index.html").read_text(encoding="utf-8")
    page = parse(folder / "report" / "index.html")
    assert not {"script", "iframe", "link", "object", "img"} & page.tags
    assert "http" not in source.replace("http-equiv", "") and "url(" not in source
    assert 'name="viewport"' in source and "prefers-color-scheme: dark" in source
    wanted = ["Scores", "How the blend was chosen", "Weights", "What each ranker adds", "Whose errors go together"]
    wanted += ["Learning curves", "Calibration", "MAP@3 by confidence", "MAP@3 by fold", "MAP@3 by subject"]
    wanted += ["MAP@3 by number of options", "Retrieval", "The worst questions"]
    assert page.headings == wanted
    # The exam's texts stand there as they are, but for what HTML cannot hold.
    assert EVIL.replace("\x00", "\ufffd") in page.words and "subject <3>" in page.words
    assert "\x00" not in source


def test_text_is_escaped():
    assert text("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert text("a\r\nb\rc\x0bd\ufffe\x85") == "a\nb\nc\ufffdd\ufffd\ufffd"


def test_the_plots_are_pngs_of_every_chart(exam):
    folder, _ = exam
    _, sections = built(exam)
    names = {chart.name for section in sections.values() for chart in section.charts}
    assert {"scores", "blends", "weights", "added_value", "error_correlation", "learning_curves"} < names
    assert {"calibration", "by_confidence", "by_fold", "by_options", "by_column_1_subject", "retrieval"} < names
    assert names == {path.stem for path in (folder / "report").glob("*.png")}
    for path in (folder / "report").glob("*.png"):
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert 300 < width < 2000 and 100 < height < 3000 and len(data) > 3000, path


MEASURE = """(width => {
  const problems = [];
  const say = (what, element) => problems.push(what + ': ' + element.outerHTML.slice(0, 120));
  const root = document.documentElement;
  if (root.scrollWidth > width) problems.push('the page is ' + root.scrollWidth + ' wide');
  const number = value => value.match(/[\\d.]+/g).map(Number);
  const solid = color => {
    const parts = number(color), scale = color.startsWith('color(') ? 255 : 1;
    return {rgb: parts.slice(0, 3).map(part => part * scale), alpha: parts.length > 3 ? parts[3] : 1};
  };
  const below = element => {
    if (!element) return [255, 255, 255];
    const {rgb, alpha} = solid(getComputedStyle(element).backgroundColor);
    if (alpha === 1) return rgb;
    return below(element.parentElement).map((part, i) => part * (1 - alpha) + rgb[i] * alpha);
  };
  const light = rgb => rgb.map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  for (const element of document.body.querySelectorAll('*')) {
    const shape = element.getBoundingClientRect();
    if (!shape.width) continue;
    const box = element.closest('.box');
    if (!box && (shape.left < -0.5 || shape.right > width + 0.5)) say('cut off', element);
    if (element.matches('.axis i')) {
      const axis = element.parentElement.getBoundingClientRect();
      if (shape.left < axis.left - 7 || shape.right > axis.right + 7) say('outside its axis', element);
    }
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (own) {
      if (/^[-+]?[\\d.,]+$/.test(element.textContent.trim())) {
        const range = document.createRange();
        range.selectNodeContents(element);
        if (new Set([...range.getClientRects()].map(each => each.top)).size > 1) say('a broken number', element);
      }
      const style = getComputedStyle(element);
      const shade = element.closest('svg') ? style.fill : style.color;
      const a = light(solid(shade).rgb), b = light(below(element.closest('svg') || element));
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) say('contrast ' + contrast.toFixed(2), element);
      if (parseFloat(style.fontSize) < 11) say('font of ' + style.fontSize, element);
    }
  }
  for (const svg of document.querySelectorAll('svg[role=img]')) {
    const frame = svg.getBoundingClientRect();
    if (frame.width < 100 || frame.height < 80) say('a plot of no size', svg);
    const texts = [...svg.querySelectorAll('text')];
    const shapes = texts.map(each => each.getBoundingClientRect());
    shapes.forEach((one, i) => {
      if (one.left < frame.left - 1 || one.right > frame.right + 1 || one.top < frame.top - 1 ||
          one.bottom > frame.bottom + 1) say('cut off in its plot', texts[i]);
      shapes.slice(i + 1).forEach(other => {
        if (one.left < other.right - 1 && other.left < one.right - 1 && one.top < other.bottom - 2 &&
            other.top < one.bottom - 2) say('another text lies on it', texts[i]);
      });
      if (one.height < 9) say('a text of ' + one.height + ' pixels', texts[i]);
    });
  }
  for (const image of document.images) if (!image.naturalWidth) say('not loaded', image);
  return {
    problems, background: solid(getComputedStyle(document.body).backgroundColor).rgb,
    headings: [...document.querySelectorAll('h2')].filter(each => each.getBoundingClientRect().height > 0)
      .map(each => each.textContent),
    plots: document.querySelectorAll('svg[role=img]').length,
    forests: document.querySelectorAll('.forest').length,
  };
})(WIDTH)"""  # a phone zooms out of a page that is too wide, so its own innerWidth would grow with it


def test_nothing_is_cut_off_in_a_browser(exam, tmp_path):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    page = exam[0] / "report" / "index.html"
    headings = parse(page).headings
    _, sections = built(exam)
    forests = sum(isinstance(chart, Forest) for section in sections.values() for chart in section.charts)
    # Something that is cut off is found: the page's own style, with one thing that is too wide.
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text(encoding="utf-8").replace("<main>", '<main><p style="width:900px">wide</p>'))
    with Browser(program, tmp_path / "profile") as browser:
        for width, height in ((360, 740), (1280, 900)):
            for scheme in ("light", "dark"):
                browser.open(page, width, height, scheme)
                browser.ask("document.querySelectorAll('details').forEach(each => { each.open = true; })")
                found = browser.ask(MEASURE.replace("WIDTH", str(width)))
                assert not found["problems"], (width, scheme, found["problems"][:10])
                assert found["headings"] == headings
                assert found["plots"] >= 10 and found["forests"] == forests
                assert (sum(found["background"]) > 600) == (scheme == "light")
        browser.open(broken, 360, 740, "light")
        problems = browser.ask(MEASURE.replace("WIDTH", "360"))["problems"]
        assert problems and any(problem.startswith("cut off: <p style") for problem in problems)


# --- the figures ---------------------------------------------------------------------------


def test_the_blend_is_judged_nested(exam):
    figures, sections = built(exam)
    record = json.loads((exam[0] / "weights" / "ensemble.json").read_text())
    stored = next(each for each in record["candidates"] if each["name"] == record["choice"])
    own = metrics.map_at_k(figures.material.blended, figures.answers)
    assert own == pytest.approx(stored["nested"]["map3"], abs=1e-9)
    assert [mark.label for mark in sections["choice"].charts[0].marks if mark.strong] == [f"{stored['title']} (ships)"]
    shown = {mark.label: mark for mark in sections["scores"].charts[0].marks}
    assert shown["strong"].low < shown["strong"].value < shown["strong"].high
    assert shown["random guessing"].value == pytest.approx(metrics.expected_random_map(figures.oof.exists.sum(axis=1)))
    # Option B is the longest everywhere, and the others tie.
    counts, first = figures.oof.exists.sum(axis=1), figures.answers == 1
    longest = shown["longest option (baseline)"]
    assert longest.value == pytest.approx(np.where(first, 1, (1 / 2 + 1 / 3) / (counts - 1)).mean())
    assert float(longest.cells[0]) == pytest.approx(first.mean(), abs=5e-4)


def test_the_longest_option_is_found_by_its_family(exam):
    figures, _ = built(exam)
    lengths = exam[1].subset([exam[1].ids.index(id_) for id_ in figures.oof.ids]).option_lengths()
    shown = {name: value for name, value, _ in headline(figures)}
    assert shown["Longest option"] == f"{metrics.map_at_k(lengths, figures.answers):.4f}"
    # A baseline of that family under another name, and another one whose name begins so.
    figures.oof.about["weak"]["family"] = "longest"
    shown = {name: value for name, value, _ in headline(figures)}
    assert shown["Longest option"] == f"{figures.credits['weak'].mean():.4f}"


def test_rankers_that_earn_the_same_everywhere_have_no_correlation(exam):
    figures, _ = built(exam)
    names = figures.material.rankers
    figures.record = figures.record | {"error_correlation": [[None] * len(names) for _ in names]}
    assert correlation(figures).missing == "each ranker earns the same on every question"


def test_a_tuned_blend_is_refitted_without_each_fold(exam, tmp_path):
    folder = tmp_path / "tuned"
    shutil.copytree(exam[0], folder)
    workdir = Workdir.open(folder)
    record = run_tune(workdir, SETTINGS.model_copy(update={"choose": "tuned", "trials": 5}))
    stored = next(each for each in record["candidates"] if each["name"] == "tuned")
    for _ in range(2):  # from the journal, and searched again
        material = gather(workdir, exam[1])
        assert metrics.map_at_k(material.blended, material.oof.answers) == pytest.approx(stored["nested"]["map3"])
        shutil.rmtree(workdir.cache, ignore_errors=True)


def test_groups_hold_each_question_once_and_score_their_own(exam):
    figures, sections = built(exam)
    credits = metrics.credit_at_k(figures.material.blended, figures.answers)
    order = [exam[1].ids.index(id_) for id_ in figures.oof.ids]
    subjects = np.array(exam[1].extra["subject"])[order]
    expected = {value: (credits[subjects == value].mean(), int((subjects == value).sum())) for value in set(subjects)}
    marks = sections["subject-1"].charts[0].marks
    assert {mark.label: (pytest.approx(mark.value), int(mark.cells[0])) for mark in marks} == expected
    for anchor in ("confidence", "folds", "options", "subject-1"):
        chart = sections[anchor].charts[0]
        assert sum(int(mark.cells[0]) for mark in chart.marks) == len(credits)
        whole = sum(mark.value * int(mark.cells[0]) for mark in chart.marks) / len(credits)
        assert whole == pytest.approx(credits.mean()) and chart.reference[0] == pytest.approx(credits.mean())
    confidence = [mark.value for mark in sections["confidence"].charts[0].marks]
    assert confidence[0] < confidence[-1]
    chance = {mark.label: mark.other for mark in sections["options"].charts[0].marks}
    assert chance["3 options"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_the_worst_questions_come_with_what_was_said_and_read(exam):
    figures, sections = built(exam)
    right = figures.material.blended[np.arange(len(figures.answers)), figures.answers]
    worst = sections["worst"].worst
    assert len(worst) == 20
    said = []
    for each in worst:
        letters = [letter for letter, _ in each.options]
        at = letters.index(each.right)
        rows = dict(each.rows)
        assert list(rows) == ["blend", *figures.material.rankers]
        assert all(sum(values) == pytest.approx(1, abs=1e-5) for values in rows.values())
        said.append(rows["blend"][at])
    assert said == pytest.approx(sorted(right)[:20])
    row = figures.oof.ids.index(dict(worst[0].facts)["id"])
    (readers, passages), *_ = worst[0].contexts
    assert readers == ", ".join(figures.material.rankers)
    own = figures.material.questions.extra["context"][row].strip()
    assert [passage.text for passage in passages] == ([own[:400].rstrip() + " …"] if own else [])


def test_calibration_of_every_ranker(exam):
    figures, sections = built(exam)
    bars, curves = sections["calibration"].charts
    for mark in bars.marks:
        table = figures.material.blended if mark.label == "blend" else figures.oof.probabilities[mark.label]
        assert mark.value == pytest.approx(metrics.calibration_error(table, figures.answers))
    assert [panel.title for panel in curves.panels] == [mark.label for mark in bars.marks]
    assert sum(point.share for point in curves.panels[0].series[0].points) == pytest.approx(1)


def test_learning_curves_follow_the_log(exam):
    _, sections = built(exam)
    loss, score, *_ = sections["learning"].charts[0].panels
    assert [series.name for series in loss.series] == ["fold 0", "fold 1", "fold 2"]
    last = loss.series[0].points[-1]
    assert (last.x, last.y) == (40, pytest.approx(np.mean([1.6 - 0.01 * step for step in range(37, 41)])))
    points = [(point.x, point.y) for point in score.series[0].points]
    assert points == [(20, pytest.approx(0.6)), (40, pytest.approx(0.7))]


def test_the_cascade_is_drawn_when_it_is_there(exam):
    figures, sections = built(exam)
    assert "cascade" not in sections
    plans = [
        {"seconds_per_question": seconds, "map3": score, "low": score - 0.1, "high": score + 0.1, "note": note}
        for seconds, score, note in ((0.01, 0.6, "cheap"), (0.2, 0.7, "half"), (1.0, 0.72, "all"))
    ]
    figures.record["cascade"] = {"frontier": plans, "chosen": 1}
    made = {section.anchor: section for section in all_sections(figures)}["cascade"]
    panels, table = made.charts
    assert [(point.x, point.y, point.strong) for point in panels.panels[0].series[0].points] == [
        (0.01, 0.6, False), (0.2, 0.7, True), (1.0, 0.72, False),
    ]  # fmt: skip
    assert [mark.label for mark in table.marks] == ["cheap", "half (chosen)", "all"] and panels.panels[0].log_x
    assert "half (chosen)" in render("t", [], [made], "f")


def test_recall_of_the_contexts(finished, tmp_path):
    """The real commands' folder: stored contexts, a real log, a ranker without one."""
    done = run("report", "--output", str(tmp_path / "out"), cwd=finished)
    assert done.returncode == 0, done.stderr
    page = parse(tmp_path / "out" / "index.html")
    assert {"Retrieval", "Learning curves", "The worst questions"} <= set(page.headings)
    assert "longest option (baseline)" in page.words and "Body number" in page.words
    assert "every question has 3 options" in done.stderr and "every question has 3 options" in page.words
    # Nothing of it is an unknown file for the next run.
    done = run("report", "--output", str(tmp_path / "out"), "--gold", "module", cwd=finished)
    assert done.returncode == 2 and "no column 'module'" in done.stderr and "Traceback" not in done.stderr
    assert parse(tmp_path / "out" / "index.html").headings == page.headings


# --- what is not there ---------------------------------------------------------------------


def left_out(folder: Path, questions: Questions | None) -> dict[str, str]:
    figures = Figures(gather(Workdir.open(folder), questions))
    sections = all_sections(figures)
    assert "<h2>Not in this report</h2>" in render("t", headline(figures), sections, "f")
    return {section.anchor: section.missing for section in sections if section.missing}


def test_without_questions(exam):
    missing = left_out(exam[0], None)
    assert set(missing) == {"subjects", "retrieval", "worst"}
    assert all("no question file" in reason or "not in" in reason for reason in missing.values())


def test_with_one_imported_ranker(tmp_path):
    questions = simulate(tmp_path, {"alone": 1.0}, n=60, family="imported")
    missing = left_out(tmp_path, questions)
    assert set(missing) == {"choice", "added", "errors", "learning"}
    assert "no log.csv of alone" in missing["learning"]
    del questions.extra["context"], questions.extra["subject"]
    missing = left_out(tmp_path, questions)
    assert "are not in" in missing["retrieval"] and "no further column" in missing["subjects"]


def test_rankers_without_training_steps_lack_no_log(tmp_path):
    simulate(tmp_path, {"alone": 1.0}, n=60, family="features")
    for path in tmp_path.glob("weights/alone/fold_*/log.csv"):
        path.unlink()
    assert left_out(tmp_path, None)["learning"] == "no ranker of the ensemble is trained in steps"


def test_old_runs_have_their_losses_in_the_metrics(exam, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(exam[0], folder)
    for path in folder.glob("weights/strong/fold_*/log.csv"):
        facts = {"loss": [2.0, 1.0], "evaluations": [[1, 0.5], [2, 0.75]], "score_seconds_per_question": 0.25}
        path.with_name("metrics.json").write_text(json.dumps(facts | {"peak_memory_mib": 1234}))
        path.unlink()
    figures, sections = built((folder, exam[1]))
    panels = {(panel.title, panel.y_label): panel for panel in sections["learning"].charts[0].panels}
    assert [point.y for point in panels["strong", "validation MAP@3"].series[0].points] == [0.5, 0.75]
    cells = {mark.label: mark.cells for mark in sections["weights"].charts[0].marks}
    assert cells["strong"] == ("causal", "1.00", "0.25", "1,234") and cells["weak"] == ("causal", "1.00", "", "")


# --- wrong things --------------------------------------------------------------------------


@pytest.fixture
def spoilt(exam, tmp_path):
    folder = tmp_path / "spoilt"
    shutil.copytree(exam[0], folder)
    return folder


def refuses(folder: Path, questions: Questions | None, match: str, **options: object) -> None:
    before = sorted(path.read_bytes() for path in (folder / "report").iterdir())
    with pytest.raises(UserError, match=match):
        write_report(Workdir.open(folder), questions, folder / "report", **options)  # type: ignore[arg-type]
    assert sorted(path.read_bytes() for path in (folder / "report").iterdir()) == before


def test_columns_that_cannot_be_shown(exam):
    folder, questions = exam
    refuses(folder, questions, r"--by book: .*its further columns: subject, page, context", by=["book"])
    refuses(folder, questions, r"--by page: the column has 120 different values; 2 to 40", by=["page"])
    refuses(folder, None, r"--by subject: no question file", by=["subject"])
    refuses(folder, None, r"--gold subject: no question file", gold="subject")


def test_another_exam(exam):
    folder, questions = exam
    rows = list(range(len(questions)))
    refuses(folder, questions.subset(rows[1:]), r"not the exam .*1 ids of the OOF files are not in it, first q0")
    changed = questions.subset(rows)
    changed.prompts[5] += "?"
    refuses(folder, changed, r"not the exam .*its content differs.*--questions")


def test_oof_files_that_changed_after_tuning(spoilt, exam):
    path = Workdir.open(spoilt).oof_part("weak", 1)
    shutil.copy(Workdir.open(spoilt).oof_part("strong", 1), path)
    refuses(spoilt, exam[1], "holds a file of the ranker")
    path.write_bytes(b"PAR1")
    refuses(spoilt, exam[1], "corrupt")
    record = json.loads((spoilt / "weights" / "ensemble.json").read_text())
    shutil.copy(exam[0] / "oof" / "weak" / "fold_1.parquet", path)
    record["oof_files"]["weak/fold_1.parquet"] = "0"
    record.pop("hash", None)
    (spoilt / "weights" / "ensemble.json").write_text(json.dumps(record))
    refuses(spoilt, exam[1], r"have changed since .*weak/fold_1.parquet.*python -m solution tune")


def test_a_log_that_is_cut_off(spoilt, exam):
    path = spoilt / "weights" / "strong" / "fold_0" / "log.csv"
    path.write_text(path.read_text().replace("1.580000", "what"))
    refuses(spoilt, exam[1], "fold_0/log.csv is corrupt at line 3")


def test_a_folder_of_other_files_is_left_alone(exam, tmp_path):
    folder, questions = exam
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files .mine.txt."):
        write_report(Workdir.open(folder), questions, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="is a file"):
        write_report(Workdir.open(folder), questions, tmp_path / "mine.txt")
    with pytest.raises(UserError, match="holds other files"):
        write_report(Workdir.open(folder), questions, folder)


def test_without_matplotlib(exam, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refuses(exam[0], exam[1], "pip install matplotlib")


def test_the_command_says_what_is_missing(tmp_path):
    done = run("report", cwd=tmp_path)
    assert done.returncode == 2 and "python -m solution tune" in done.stderr and "Traceback" not in done.stderr
    done = run("report", "--questions", "none.csv", cwd=tmp_path)
    assert done.returncode == 2 and "question file not found: none.csv" in done.stderr


# --- small parts ---------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(0, 1), (0.43, 0.71), (-0.02, 0.015), (3, 40_000), (0.61, 0.6102)])
def test_ticks_are_few_and_inside(low, high):
    for most in (3, 5):
        found = ticks(low, high, most)
        assert 2 <= len(found) <= most and low - 1e-9 <= min(found) and max(found) <= high + 1e-9
        steps = np.diff(found)
        digit = steps[0] / 10 ** math.floor(math.log10(steps[0] * 1.01))
        assert np.allclose(steps, steps[0]) and round(digit, 3) in (1, 2, 5)


def test_an_axis_holds_all_that_is_drawn():
    marks = (Mark("a", 0.5, 0.4, 0.6, other=0.9), Mark("b", None, text="not used"))
    low, high = Forest("n", "t", "a", marks, ("h",), (0.1, "r")).span()
    assert low < 0.1 and high > 0.9
    low, high = Forest("n", "t", "a", (Mark("a", 0.0), Mark("b", 0.0)), ("h",), (0.0, ""), bars=True).span()
    assert low == 0 and high > 0


def test_a_long_label_is_folded_and_not_cut() -> None:
    label = "similarity + minilm on 30% + smollm2 on 20% by margin, options below 0.05 dropped"
    folded = folded_label(label)
    assert folded.replace("\n", " ") == label and max(map(len, folded.split("\n"))) <= 42
    assert folded_label("minilm") == "minilm"
