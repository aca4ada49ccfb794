"""The report as one HTML page that needs nothing else: no script, no file and no network."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from solution.report.charts import Forest, Heat, Mark, Panel, Panels, ticks
from solution.report.section import Section, Worst

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that must not stand in HTML (a carriage return has become a line break before)."""
_COLORS = 6
# Width, height, and room on the left, at the top, on the right, at the bottom, in the units of the text's 12.
_LARGE = (360.0, 230.0, 46.0, 22.0, 12.0, 36.0)
_SMALL = (180.0, 190.0, 30.0, 22.0, 12.0, 36.0)
CSS = Path(__file__).with_name("page.css")


def text(value: str) -> str:
    """A text escaped for HTML, whatever characters it holds."""
    return html.escape(_CONTROL.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n")))


def name(value: str) -> str:
    """A text that may break behind its underscores, as long names must."""
    return text(value).replace("_", "_<wbr>")


def render(
    title: str,
    headline: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    footer: str,
    notes: Sequence[str] = (),
) -> str:
    """The whole page.

    Args:
        headline: the cards at the top: name, figure and remark.
        notes: what must be known before the figures are read.
    """
    shown = [section for section in sections if not section.missing]
    left_out = [section for section in sections if section.missing]
    links = [f'<li><a href="#{section.anchor}">{text(section.title)}</a></li>' for section in shown]
    cards = [
        f'<div><dt>{text(what)}</dt><dd class="figure">{text(figure)}</dd><dd class="remark">{text(remark)}</dd></div>'
        for what, figure, remark in headline
    ]
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Whatever the exam's texts hold: nothing is run and nothing is fetched.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{text(title)}</title>",
        f"<style>\n{CSS.read_text(encoding='utf-8')}</style>",
        "</head>",
        "<body>",
        f"<header><h1>{text(title)}</h1>",
        *(f'<p class="note">{text(note)}</p>' for note in notes),
        f'<dl class="cards">{"".join(cards)}</dl>',
        f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav></header>',
        "<main>",
        *map(_section, shown),
    ]
    if left_out:
        lines = [f"<li>{text(section.title)}: {text(section.missing)}</li>" for section in left_out]
        parts.append(f'<section id="left-out"><h2>Not in this report</h2><ul>{"".join(lines)}</ul></section>')
    parts += ["</main>", f'<footer><p class="muted">{text(footer)}</p></footer>', "</body>", "</html>"]
    return "\n".join(parts) + "\n"


def _section(section: Section) -> str:
    parts = [f'<section id="{section.anchor}"><h2>{text(section.title)}</h2>']
    parts += [f"<p>{text(line)}</p>" for line in section.lines]
    for chart in section.charts:
        if isinstance(chart, Forest):
            parts.append(_forest(chart, caption=chart.title != section.title))
        elif isinstance(chart, Heat):
            parts.append(_heat(chart))
        else:
            parts.append(_panels(chart))
    parts += [_worst(number, question) for number, question in enumerate(section.worst, 1)]
    return "\n".join([*parts, "</section>"])


# --- tables with a drawn axis --------------------------------------------------------------


def _forest(chart: Forest, caption: bool) -> str:
    low, high = chart.span()

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    marks = ticks(low, high, 3)
    scale = "".join(f'<i style="left:{at(value)}">{value:.3g}</i>' for value in marks)
    grid = "".join(f'<i class="grid" style="left:{at(value)}"></i>' for value in marks)
    heads = [f'<th scope="col">{name(chart.heads[0])}</th><th scope="col">{text(chart.axis)}</th>']
    heads.append(f'<th class="strip" aria-hidden="true"><span>{scale}</span></th>')
    heads += [f'<th scope="col">{name(head)}</th>' for head in chart.heads[1:]]
    rows = [_mark(chart, mark, at, low, grid) for mark in chart.marks]
    intervals = any(mark.low is not None for mark in chart.marks)
    keys = ["dot: the figure; band: 95 % interval"] if intervals else []
    if chart.other:
        keys.append(f"circle: {chart.other}")
    if chart.reference is not None and chart.reference[1]:
        value, what = chart.reference
        keys.append(f"dashed: {what} ({chart.form.format(value)})" if value else f"dashed: {what}")
    key = f'<p class="key">{"".join(f"<span>{text(entry)}</span>" for entry in keys)}</p>' if keys else ""
    head = f"<figcaption>{text(chart.title)}</figcaption>" if caption else ""
    return (
        f"<figure>{head}"
        f'<div class="box" tabindex="0" role="region" aria-label="{text(chart.title)}"><table class="forest">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{key}</figure>"
    )


def _mark(chart: Forest, mark: Mark, at: Callable[[float], str], low: float, grid: str) -> str:
    drawn, figure, interval = [grid], text(mark.text), ""
    if chart.reference is not None:
        drawn.append(f'<i class="reference" style="left:{at(chart.reference[0])}"></i>')
    if mark.value is not None:
        figure = chart.form.format(mark.value)
        if mark.low is not None and mark.high is not None:
            form = "{:+z.3f}" if "+" in chart.form else "{:.3f}"
            interval = f'<span class="interval">[{form.format(mark.low)}, {form.format(mark.high)}]</span>'
            drawn.append(_stretch("interval", at, mark.low, mark.high, low))
        if mark.other is not None:
            drawn.append(f'<i class="other" style="left:{at(mark.other)}"></i>')
        if chart.bars:
            start = chart.reference[0] if chart.reference is not None else low
            drawn.append(_stretch("bar", at, min(start, mark.value), max(start, mark.value), low))
        else:
            drawn.append(f'<i class="dot" style="left:{at(mark.value)}"></i>')
    cells = "".join(f"<td>{text(cell)}</td>" for cell in mark.cells)
    cells += "<td></td>" * (len(chart.heads) - 1 - len(mark.cells))
    shade = ' class="strong"' if mark.strong else ""
    return (
        f'<tr{shade}><th scope="row">{name(mark.label)}</th>'
        f'<td><span class="value">{figure}</span>{interval}</td>'
        f'<td class="strip" aria-hidden="true"><span class="axis">{"".join(drawn)}</span></td>{cells}</tr>'
    )


def _stretch(kind: str, at: Callable[[float], str], begin: float, end: float, low: float) -> str:
    return f'<i class="{kind}" style="left:{at(begin)};width:{at(low + end - begin)}"></i>'


def _heat(chart: Heat) -> str:
    numbers = range(1, len(chart.labels) + 1)
    heads = "".join(f'<th scope="col"><abbr title="{text(chart.labels[i - 1])}">{i}</abbr></th>' for i in numbers)
    rows = []
    for number, label, values in zip(numbers, chart.labels, chart.values, strict=True):
        cells = [
            "<td></td>"
            if value is None
            else f'<td style="--share:{max(0.0, min(1.0, value)):.0%}">{round(value, 2) + 0:.2f}</td>'
            for value in values
        ]
        rows.append(f'<tr><th scope="row">{number} {name(label)}</th>{"".join(cells)}</tr>')
    return (
        f"<figure><figcaption>{text(chart.title)}</figcaption>"
        f'<div class="box" tabindex="0" role="region" aria-label="{text(chart.title)}"><table class="heat"><thead><tr>'
        f'<th scope="col">ranker</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></figure>'
    )


# --- lines ---------------------------------------------------------------------------------


def _panels(chart: Panels) -> str:
    names = chart.legend()
    color = {name: number % _COLORS for number, name in enumerate(names)}
    figures = "".join(
        f"<figure><figcaption>{text(panel.title)}</figcaption>{_svg(panel, color, chart.small)}</figure>"
        for panel in chart.panels
    )
    keys = [
        f'<span><svg viewBox="0 0 32 10" aria-hidden="true"><line class="curve s{color[name]}" x1="0" y1="5" x2="32" '
        f'y2="5"/></svg>{text(name)}</span>'
        for name in names
    ]
    key = f'<p class="key">{"".join(keys)}</p>' if keys else ""
    return f'{key}<div class="panels{" small" if chart.small else ""}">{figures}</div>'


def _svg(panel: Panel, color: dict[str, int], small: bool) -> str:
    width, height, left, top, right, bottom = _SMALL if small else _LARGE
    (x_low, x_high), (y_low, y_high) = panel.spans()

    def x(value: float) -> float:
        return left + (panel.place(value) - x_low) / (x_high - x_low) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - y_low) / (y_high - y_low) * (height - top - bottom)

    most = 3 if small else 5
    parts = []
    for value in ticks(y_low, y_high, most):
        parts.append(
            f'<line class="grid" x1="{left:g}" x2="{width - right:g}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text x="{left - 5:g}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for place in ticks(x_low, x_high, most):
        value = 10**place if panel.log_x else place
        parts.append(f'<text x="{x(value):.1f}" y="{height - bottom + 15:g}" text-anchor="middle">{value:.3g}</text>')
    frame = f"M{left:g} {top:g}V{height - bottom:g}H{width - right:g}"
    parts.append(f'<path class="frame" d="{frame}"/>')
    parts.append(f'<text x="2" y="12">{text(panel.y_label)}</text>')
    parts.append(f'<text x="{width - right:g}" y="{height - 5:g}" text-anchor="end">{text(panel.x_label)}</text>')
    if panel.diagonal:
        parts.append(f'<line class="diagonal" x1="{x(0):g}" y1="{y(0):g}" x2="{x(1):g}" y2="{y(1):g}"/>')
    for series in panel.series:
        shade = f"s{color.get(series.name, 0)}"
        path = "L".join(f"{x(point.x):.1f} {y(point.y):.1f}" for point in series.points)
        if len(series.points) > 1:
            parts.append(f'<path class="curve {shade}" d="M{path}"/>')
        for point in series.points:
            hue = "s1" if point.strong else shade
            if point.low is not None and point.high is not None:
                ends = f'y1="{y(point.low):.1f}" y2="{y(point.high):.1f}"'
                parts.append(f'<line class="whisker {hue}" x1="{x(point.x):.1f}" x2="{x(point.x):.1f}" {ends}/>')
            if point.share or len(series.points) == 1:
                radius = 2 + 9 * point.share**0.5
                parts.append(
                    f'<circle class="point {hue}" cx="{x(point.x):.1f}" cy="{y(point.y):.1f}" r="{radius:.1f}"/>'
                )
    label = text(panel.description())
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


# --- questions -----------------------------------------------------------------------------


def _worst(number: int, question: Worst) -> str:
    facts = ", ".join(f"{what} {value}" for what, value in question.facts)
    options, heads = [], []
    for letter, option in question.options:
        shade, mark = (' class="right"', " (right)") if letter == question.right else ("", "")
        options.append(f'<li{shade} dir="auto"><b>{letter}</b> {text(option)}<b>{mark}</b></li>')
        heads.append(f'<th scope="col"{shade}>{letter}{mark}</th>')
    rows = []
    for ranker, values in question.rows:
        cells = "".join(f'<td><span style="--p:{100 * value:.0f}%">{value:.2f}</span></td>' for value in values)
        rows.append(f'<tr><th scope="row">{name(ranker)}</th>{cells}</tr>')
    contexts = []
    for readers, passages in question.contexts:
        items = []
        for passage in passages:
            tag = ' <span class="tag">right passage</span>' if passage.right else ""
            title = text(passage.title or "(no title)")
            items.append(f'<li dir="auto"><b>{title}</b>{tag}<div class="text">{text(passage.text)}</div></li>')
        summary = text(f"{len(passages)} passage{'' if len(passages) == 1 else 's'} read by {readers}")
        body = f"<details><summary>{summary}</summary><ol>{''.join(items)}</ol></details>"
        contexts.append(body if passages else f"<p>{summary}</p>")
    label = f"Probabilities of question {number}"
    return (
        f'<article aria-labelledby="worst-{number}"><h3 id="worst-{number}">Question {number}</h3>'
        f'<p class="facts">{text(facts)}</p><p class="prompt" dir="auto">{text(question.prompt)}</p>'
        f'<ul class="options">{"".join(options)}</ul>'
        f'<div class="box" tabindex="0" role="region" aria-label="{label}"><table class="said"><thead>'
        f'<tr><th scope="col">probability</th>{"".join(heads)}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"</div>{''.join(contexts)}</article>"
    )
