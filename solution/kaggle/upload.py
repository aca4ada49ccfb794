"""What Kaggle's own tool and a kernel read of a bundle: metadata, notebook, README.

The metadata is as the tool's documentation wants it (github.com/Kaggle/kaggle-cli, docs/datasets_metadata.md and
docs/kernels_metadata.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solution.kaggle.base_models import Models
from solution.kaggle.kernel import ROOT
from solution.kaggle.wheels import Wheels

SUBMIT = '''"""Answer the competition's questions: python submit.py (all settings are optional)"""

from solution.cli.submit import submit_app

if __name__ == "__main__":
    submit_app()
'''


_CELLS = (
    f"""\
import json
import os
import subprocess
import sys
from pathlib import Path

root = Path(os.environ.get("{ROOT}") or "/kaggle")
names = ["/".join(["input", *"*" * depth, "submission.ipynb"]) for depth in range(1, 5)]
found = [path.parent for name in names for path in sorted(root.glob(name))]
found = [folder for folder in found if (folder / "manifest.json").is_file()]
if not found:
    raise SystemExit("no bundle is attached: add its data set to this notebook's input")
bundle = found[0]


def run(*words):
    process = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        print(line, end="", flush=True)
    if process.wait():
        raise SystemExit(f"{{words[0]}} ended with code {{process.returncode}}")


wanted, here = json.loads((bundle / "manifest.json").read_text())["python"], "%d.%d" % sys.version_info[:2]
if wanted not in (None, here):
    raise SystemExit(f"the bundle is for Python {{wanted}} and this is {{here}}: make it again with --python {{here}}")
wheels = ["--no-index", "--find-links", bundle / "wheels"]
run(sys.executable, "-m", "pip", "install", "--quiet", *wheels, "--requirement", bundle / "requirements.txt")
""",
    """\
# Settings may follow, as "minilm.predict_tokens_per_batch=8192". The competition's kernels may run for nine hours.
run(sys.executable, bundle / "submit.py", "--deadline", "8h30m")
print((root / "working" / "submission.csv").read_text()[:300])
""",
)


def notebook() -> dict[str, Any]:
    """A notebook (nbformat 4.5) that installs from the bundle and submits."""
    text = "# Submission\nInstalls from the bundle, without a network, and answers the competition's questions."
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": "about", "metadata": {}, "source": text.splitlines(keepends=True)}
    ]
    for number, code in enumerate(_CELLS):
        cells.append(
            {
                "cell_type": "code",
                "id": f"code-{number}",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": code.splitlines(keepends=True),
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _title(name: str) -> str:
    return name.replace("-", " ").title()


def dataset_metadata(name: str, user: str) -> dict[str, Any]:
    return {"title": _title(name), "id": f"{user}/{name}", "licenses": [{"name": "other"}]}


def kernel_metadata(name: str, user: str, competition: str) -> dict[str, Any]:
    """A private notebook with a T4 and no network."""
    return {
        "id": f"{user}/{name}",
        "title": _title(name),
        "code_file": "submission.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": "true",
        "enable_gpu": "true",
        "enable_internet": "false",
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [f"{user}/{name}"],
        "competition_sources": [competition],
        "kernel_sources": [],
        "model_sources": [],
    }


def readme(output: Path, name: str, user: str, competition: str, models: Models, wheels: Wheels) -> str:
    lines = [
        f"# {_title(name)}",
        "",
        f"Made by `python -m solution bundle` for the competition {competition}. Upload it and run its notebook with",
        "[Kaggle's tool](https://github.com/Kaggle/kaggle-cli), from the folder that it lies in:",
        "",
        "```",
        f"kaggle datasets create -p {output.name} --dir-mode zip",
        f"kaggle kernels push -p {output.name}",
        "```",
        "",
        "A changed bundle: `kaggle datasets version -m MESSAGE`. Submit the notebook on its page when it is done.",
        "",
    ]
    if models.missing:
        lines += ["Before the upload, in this folder (these models are not in the bundle):", "", "```"]
        lines += [*models.missing.values(), "```", ""]
    if wheels.left_out:
        lines += ["No wheels: the kernel must have every package of `requirements.txt`.", ""]
    elif wheels.skip:
        lines += [f"The kernel must have: {', '.join(wheels.skip)}. All else is in `wheels/`.", ""]
    return "\n".join(lines)
