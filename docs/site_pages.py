"""What MkDocs does to the pages of docs/ when it builds the site (`hooks` in mkdocs.yml).

Pages that are made: the home page from README.md, the settings and commands from the program, the notebook,
CONTRIBUTING and CHANGELOG. Links that lead out of docs/ are turned to these pages, or become plain text. Pictures are
drawn without a script that a reader's browser would have to fetch.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

from mermaid import chain, picture_of  # noqa: E402
from reference import commands_page, linked, settings_page  # noqa: E402

NOTEBOOK = DOCS / "tutorial.ipynb"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "solution/config": "settings.md",
    "docs/tutorial.ipynb": "notebook.md",
}
"""A file or folder of the checkout -> the page that stands for it."""


def on_config(config: Any) -> Any:
    # Anchors as the repository's own viewer makes them, so that a link works in both places.
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: Any) -> Files:
    sources = {name: ROOT / source for source, name in PAGES.items() if source.endswith(".md")}
    texts = {name: source.read_text(encoding="utf-8") for name, source in sources.items()}
    texts |= {"settings.md": settings_page(), "commands.md": commands_page()}
    texts["python_names.md"] = api_page()
    if NOTEBOOK.exists():
        texts["notebook.md"] = notebook_page(NOTEBOOK.read_text(encoding="utf-8"))
    for name, text in texts.items():
        files.append(File.generated(config, name, content=turned_links(text, "") if name in sources else text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    if page.file.generated_by is None:
        markdown = turned_links(markdown, "docs")
    return drawn(markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Docstrings name pages of docs/ as files of the checkout: here they are links."""
    return linked(html, '<a href="{name}.html">{title}</a>') if page.file.src_uri == "python_names.md" else html


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would make a browser ask another host for anything."""
    asked = re.findall(r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s>]*", output)
    asked += [link for link in re.findall(r"<link\b[^>]*>", output) if re.search(r"href=[\"']?(?:https?:)?//", link)]
    if asked:
        raise PluginError(f"{page.file.src_uri} asks another host: {asked[0]}")
    return output


def turned_links(text: str, folder: str) -> str:
    """The text of a file of the checkout, its links such as the site has them.

    Args:
        folder: of the file, from the root of the checkout.
    """

    def turned(match: re.Match[str]) -> str:
        mark, words, target, anchor = match["mark"], match["words"], match["target"], match["anchor"] or ""
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path in PAGES:
            return f"{mark}[{words}]({PAGES[path]}{anchor})"
        inside = path.removeprefix("docs/")
        if path.startswith("docs/") and not inside.endswith((".py", ".jsonl")):
            return f"{mark}[{words}]({inside}{anchor})"
        return f"{words} (`{path}`)" if words.strip("`") != path else f"`{path}`"

    link = re.compile(r"(?P<mark>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
    parts = re.split(r"(^```.*?^```[^\n]*$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else link.sub(turned, part) for part in parts)


def drawn(markdown: str) -> str:
    """The text with its Mermaid charts drawn: a chain as a stack of boxes, any other from docs/pictures."""

    def draw(match: re.Match[str]) -> str:
        boxes = chain(match[1])
        if boxes is not None:
            return '<div class="stack">' + "".join(f"<span>{box}</span>" for box in boxes) + "</div>"
        picture = picture_of(match[1])
        return f"![A chart; its text stands in the source of this page]({picture.relative_to(DOCS)}){{ .drawn }}"

    return re.sub(r"^```mermaid\n(.*?)^```$", draw, markdown, flags=re.MULTILINE | re.DOTALL)


def api_page() -> str:
    """The names that `import solution` promises, each with its documentation."""
    import solution

    names = [name for name in solution.__all__ if name != "__version__"]
    about = "What `import solution` gives. These names are kept; everything else may change."
    return "\n\n".join(["# Python names", about, *(f"::: solution.{name}" for name in names)]) + "\n"


def notebook_page(text: str) -> str:
    """A notebook as Markdown: its texts and its code; it holds no outputs."""
    parts = ["[This page as a notebook](tutorial.ipynb), for Jupyter, Kaggle and Colab."]
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"]).strip()
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"
