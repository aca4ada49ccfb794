"""Mermaid charts of the pages, drawn without a script in the reader's browser.

A chain of boxes is drawn by docs/site_pages.py itself. Any other chart has a picture in docs/pictures, named by a hash
of its source. After a change of such a chart: python docs/mermaid.py path/to/mermaid.min.js (from npm's package
`mermaid`; it needs Chromium).
"""

from __future__ import annotations

import hashlib
import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"


def charts() -> list[str]:
    """The sources of all charts in docs/ that are no chains."""
    pages = [page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))]
    sources = [source for page in pages for source in re.findall(r"^```mermaid\n(.*?)^```$", page, re.M | re.S)]
    return [source for source in sources if chain(source) is None]


def chain(source: str) -> list[str] | None:
    """The boxes of a chart in which each box leads to the next one; None: it is another chart."""
    lines = [line.strip() for line in source.strip().splitlines()[1:]]
    boxes = dict(re.findall(r'^(\w+)\["([^"]*)"\]$', "\n".join(lines), flags=re.MULTILINE))
    arrows = [f"{first} --> {second}" for first, second in zip(boxes, [*boxes][1:], strict=False)]
    return list(boxes.values()) if lines == [f'{key}["{text}"]' for key, text in boxes.items()] + arrows else None


def picture_of(source: str) -> Path:
    return PICTURES / f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.svg"


def draw(source: str, library: Path) -> str:
    """The chart as SVG, by Mermaid in Chromium."""
    page = f"""<body><pre class="mermaid">{html.escape(source)}</pre>
<script src="{library.resolve().as_uri()}"></script>
<script>mermaid.initialize({{startOnLoad: false, htmlLabels: false, theme: "neutral",
flowchart: {{htmlLabels: false, wrappingWidth: 500}}, deterministicIds: true, fontFamily: "sans-serif"}});
mermaid.run().then(() => {{ document.body.innerHTML = new XMLSerializer().serializeToString(
document.querySelector("svg")).replace(/^/, "<textarea>"); }});</script></body>"""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chart.html"
        file.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        done = subprocess.run(
            ["chromium", *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
    found = re.search(r"<textarea>(.*)</textarea>", done.stdout, flags=re.DOTALL)
    if found is None:
        raise SystemExit(f"Mermaid drew nothing:\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
    return html.unescape(found[1])


def main() -> None:
    wanted = {picture_of(source): source for source in charts()}
    PICTURES.mkdir(exist_ok=True)
    for path in PICTURES.glob("*.svg"):
        path.unlink()
    for path, source in wanted.items():
        path.write_text(draw(source, Path(sys.argv[1])), encoding="utf-8")


if __name__ == "__main__":
    main()
