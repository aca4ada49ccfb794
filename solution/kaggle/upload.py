"""What Kaggle's own tool and a kernel read of a bundle: metadata, notebook, README.

The metadata is as the tool's documentation wants it (github.com/Kaggle/kaggle-cli, docs/datasets_metadata.md and
docs/kernels_metadata.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solution.errors import UserError
from solution.kaggle.base_models import Models
from solution.kaggle.kernel import COMPETITION, ROOT
from solution.kaggle.public import PROVEN
from solution.kaggle.wheels import TorchBuild, Wheels

NAME, USER = "science-exam-bundle", "your-kaggle-name"
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])*")
_NAME_LENGTHS = range(6, 51)  # of a data set's title and slug, by its metadata's documentation


@dataclass(frozen=True)
class Address:
    """The place of a bundle on Kaggle.

    Attributes:
        name: the slug of the data set and of the kernel.
        user: their owner.
        competition: whose questions the kernel answers.
    """

    name: str = NAME
    user: str = USER
    competition: str = COMPETITION

    def check(self) -> None:
        """Raise `UserError` where Kaggle does not take one of the names."""
        if not _SLUG.fullmatch(self.name) or len(self.name) not in _NAME_LENGTHS:
            raise UserError(
                f"--name {self.name!r}: Kaggle takes {_NAME_LENGTHS.start} to {_NAME_LENGTHS.stop - 1} small letters "
                "and digits, with single hyphens between them"
            )
        for option, text in (("--user", self.user), ("--competition", self.competition)):
            if not _SLUG.fullmatch(text.lower()):
                raise UserError(f"{option} {text!r}: give the name as it stands in its address on Kaggle")

    @property
    def slug(self) -> str:
        return f"{self.user}/{self.name}"

    @property
    def title(self) -> str:
        """The title of which Kaggle makes the slug."""
        return self.name.replace("-", " ").title()


SUBMIT = '''"""Answer the competition's questions: python submit.py (all settings are optional)"""

from solution.cli.submit import submit_app

if __name__ == "__main__":
    submit_app()
'''


ANSWER = '''"""Run submit.py and judge what it left: python answer.py (all settings are submit.py's)"""

import sys
from pathlib import Path

from solution.errors import UserError
from solution.kaggle.supervisor import supervise

if __name__ == "__main__":
    try:
        sys.exit(supervise(Path(__file__).with_name("submit.py"), sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
'''


# The first cell may use nothing but the standard library: nothing else need be there yet.
_CELLS = (
    f"""\
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
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
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
        return process.wait()
    except BaseException:
        process.terminate()
        raise


wanted, here = json.loads((bundle / "manifest.json").read_text())["python"], "%d.%d" % sys.version_info[:2]
if wanted not in (None, here):
    raise SystemExit(f"the bundle is for Python {{wanted}} and this is {{here}}: make it again with --python {{here}}")
pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", bundle / "wheels"]
if not list(bundle.glob("wheels/torch-*.whl")) and importlib.util.find_spec("torch"):
    # The image's torch fits its GPU: no package may bring another one.
    kept = Path(tempfile.mkdtemp()) / "constraints.txt"
    kept.write_text(f"torch=={{version('torch')}}\\n")
    pip += ["--constraint", kept]
problems = []
if run(*pip, "--requirement", bundle / "requirements.txt"):
    problems.append("WARNING: pip could not install the bundle's packages; what it said stands above")
""",
    """\
# Settings may follow, as "minilm.predict_tokens_per_batch=8192". The competition's kernels may run for nine hours.
# "--full-run" answers the competition's public questions whole too, and not only a sample of them.
failed = run(sys.executable, bundle / "answer.py", "--deadline", "8h30m")
for problem in problems:
    print(problem)
if failed:
    raise SystemExit("there is no complete submission.csv; the reason stands above")
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


def dataset_metadata(address: Address) -> dict[str, Any]:
    return {"title": address.title, "id": address.slug, "licenses": [{"name": "other"}]}


def kernel_metadata(address: Address) -> dict[str, Any]:
    """A private notebook with a T4 and no network."""
    return {
        "id": address.slug,
        "title": address.title,
        "code_file": "submission.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": "true",
        "enable_gpu": "true",
        "enable_internet": "false",
        "machine_shape": "NvidiaTeslaT4",
        "dataset_sources": [address.slug],
        "competition_sources": [address.competition],
        "kernel_sources": [],
        "model_sources": [],
    }


@dataclass(frozen=True)
class Contents:
    """What there is to say of a bundle's contents.

    Attributes:
        skipped: the packages that are left to the kernel.
        torch: what the wheel of torch was built for; None: it has none.
        public_hash: see `public.public_hash`; None: the public questions are not known.
    """

    wheels: Wheels
    models: Models
    skipped: Sequence[str]
    torch: TorchBuild | None
    public_hash: str | None


def readme(folder: str, address: Address, contents: Contents) -> str:
    """The text of README.md.

    Args:
        folder: the name of the bundle's folder.
    """
    lines = [
        f"# {address.title}",
        "",
        f"Made by `python -m solution bundle` for the competition {address.competition}. "
        "Upload it and run its notebook with",
        "[Kaggle's tool](https://github.com/Kaggle/kaggle-cli), from the folder that it lies in:",
        "",
        "```",
        f"kaggle datasets create -p {folder} --dir-mode zip",
        f"kaggle kernels push -p {folder}",
        "```",
        "",
        "A changed bundle: `kaggle datasets version -m MESSAGE`. Submit the notebook on its page when it is done.",
        "The notebook fails only where no complete `submission.csv` was written; warnings stand at its end.",
        "",
    ]
    if contents.public_hash is not None:
        lines += [
            f"On the competition's public questions every ranker reads {PROVEN} of them only, which proves that it "
            "works; any other file is answered whole (`--full-run` in the notebook: the public questions too).",
            "",
        ]
    if contents.models.missing:
        lines += ["Before the upload, in this folder (these models are not in the bundle):", "", "```"]
        lines += [*contents.models.missing.values(), "```", ""]
    if contents.wheels.left_out:
        lines += ["No wheels: the kernel must have every package of `requirements.txt`.", ""]
    elif contents.skipped:
        lines += [f"The kernel must have: {', '.join(contents.skipped)}. All else is in `wheels/`.", ""]
    if contents.torch is not None:
        lines += [f"{contents.torch}.", ""]
    return "\n".join(lines)
