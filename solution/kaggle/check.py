"""A bundle tried as a kernel would use it: installed into a new environment and run without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import write_text
from solution.kaggle.items import tail
from solution.kaggle.kernel import ROOT, TEST, model_settings, read_bundle
from solution.kaggle.public import read_public
from solution.kaggle.supervisor import BAR, REMARKS, incomplete
from solution.packages import installed, link_installed
from solution.progress import say
from solution.questions import write_questions

_RUNNER = """\
import json, sys, time
seconds, names = [], {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        started = time.monotonic()
        exec("".join(cell["source"]), names)
        seconds.append(time.monotonic() - started)
json.dump(seconds, open(sys.argv[2], "w"))
"""

# In a namespace of its own: the folder $0 at $1, read-only, then the command that follows.
_READ_ONLY = 'mount --bind "$0" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TMPDIR")


@dataclass(frozen=True)
class Checked:
    """The outcome of trying a bundle.

    Attributes:
        seconds: of each step.
        submission: the text of the submission.csv that the bundle wrote.
        remarks: what the notebook showed at its end beside the answer: a public run, warnings.
        questions: how many were answered.
    """

    seconds: dict[str, float]
    submission: str
    remarks: list[str]
    questions: int


def check_bundle(bundle: Path, test: Path | None = None) -> Checked:
    """Run a bundle's notebook as a kernel without a network would, in a new virtual environment, on its sample.

    Packages that the bundle leaves to the kernel are this environment's. The bundle is mounted read-only and the
    network cut off by namespaces (`unshare`) where the system allows it; else a proxy that is not there stands in the
    network's way, and it is seen afterwards whether the bundle was written to.

    Args:
        test: the questions to answer; None: those of the bundle's sample.

    Raises:
        UserError: a file is missing or changed, a model is missing, another Python than the bundle's, a step fails, the
            answers are not complete, or the bundle was written to.
    """
    bundle = bundle.resolve()
    seconds: dict[str, float] = {}
    started = time.monotonic()

    def done(step: str) -> None:
        nonlocal started
        seconds[step] = time.monotonic() - started
        started = time.monotonic()

    manifest = read_bundle(bundle)
    model_settings(bundle, manifest)
    before = _listing(bundle)
    done("hashes of all files")
    with tempfile.TemporaryDirectory(prefix="bundle-check-") as place:
        folder = Path(place)
        python = _environment(folder / "venv", manifest)
        done("virtual environment")
        root = folder / "kaggle"
        for name in ("input/datasets/" + manifest["user"], f"input/competitions/{manifest['competition']}"):
            (root / name).mkdir(parents=True)
        for name in ("working", "temp"):
            (root / name).mkdir()
        questions = root / "input" / "competitions" / manifest["competition"] / TEST
        exam = read_public(test or bundle / "sample.csv")
        write_questions(questions, exam)
        attached = root / "input" / "datasets" / manifest["user"] / manifest["name"]
        (seconds["install"], seconds["submission"]), output = _run_notebook(python, bundle, attached, root, folder)
        submission = root / "working" / "submission.csv"
        if lacking := incomplete(submission, questions):
            raise UserError(f"the submission made from the bundle is not complete: {lacking}")
        text = submission.read_text(encoding="utf-8")
    changed = sorted(set(before.items()) ^ set(_listing(bundle).items()))
    if changed:
        raise UserError(f"the submission wrote into the bundle, which is read-only in a kernel: {changed[0][0]}")
    # The block that `supervisor` shows at the end, and what follows it.
    remarks = "".join(output.split(BAR)[-2:]).splitlines()
    return Checked(seconds, text, [line for line in remarks if line.startswith(REMARKS)], len(exam))


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """The files of a folder: path -> size in bytes and time of the last change in nanoseconds."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


def _environment(folder: Path, manifest: Mapping[str, Any]) -> Path:
    """Make a virtual environment that holds pip and the packages that the bundle leaves to the kernel.

    Returns:
        Its Python.

    Raises:
        UserError: it cannot be made, or the bundle's Python is not on this machine.
    """
    here, wanted = f"{sys.version_info[0]}.{sys.version_info[1]}", manifest["python"]
    other = wanted not in (None, here)
    python = shutil.which(f"python{wanted}") if other else sys.executable
    if python is not None and not (other and manifest["skipped"]):
        command = [python, "-m", "venv", "--without-pip", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True)
        if not other and made.returncode:
            raise UserError(f"no virtual environment can be made: {tail(made.stderr + made.stdout, 3)}")
    if not (folder / "bin" / "python").exists():
        raise UserError(
            f"the bundle is for Python {wanted}, and this is {here}: check it where Python {wanted} is, or make one "
            f"with --python {here}"
        )
    packages = folder / "lib" / f"python{wanted or here}" / "site-packages"
    if wanted is None:
        # No wheels: every package is the kernel's, and nothing is installed.
        others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        write_text(packages / "kernel.pth", "".join(f"{path}\n" for path in others))
    else:
        for name in ("pip", *filter(installed, manifest["skipped"])):
            link_installed(name, packages)
    return folder / "bin" / "python"


def _run_notebook(python: Path, bundle: Path, attached: Path, root: Path, folder: Path) -> tuple[list[float], str]:
    """Run the bundle's notebook without a network; give the seconds of each of its cells, and its output.

    Args:
        attached: where the kernel in `root` sees the bundle.
    """
    attached.mkdir()
    alone = ["unshare", "-rnm", "--propagation", "private", "sh", "-c", _READ_ONLY, str(bundle), str(attached)]
    cut = bool(shutil.which("unshare")) and subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    if not cut:
        say("note: this system gives no namespaces; a proxy that is not there stands in the network's way instead")
        attached.rmdir()
        attached.symlink_to(bundle, target_is_directory=True)
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": str(folder), "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", ROOT: str(root)}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if not cut:
        environment |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    times = folder / "seconds.json"
    command = [*(alone if cut else []), str(python), "-c", _RUNNER, str(bundle / "submission.ipynb"), str(times)]
    done = subprocess.run(
        command, cwd=root / "working", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise UserError(f"the bundle's notebook fails in a new environment:\n{tail(done.stdout, 12)}")
    return json.loads(times.read_text()), done.stdout
