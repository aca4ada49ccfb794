"""The wheels of all packages, for a kernel that cannot fetch any.

The default Python and C library are those of Kaggle's image (github.com/Kaggle/docker-python, pull request 1496).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from solution.errors import UserError
from solution.kaggle.items import Item, tail
from solution.packages import Closure, closure, faiss_extra, requirements
from solution.progress import say

PYTHON, PLATFORM = "3.12", "manylinux_2_35_x86_64"
_OLD_TAGS = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}


@dataclass(frozen=True)
class Wheels:
    """Where the packages come from.

    Attributes:
        folder: one that holds wheels; None: they are downloaded.
        left_out: no wheels at all: the kernel has every package.
        skip: packages that the kernel has (and what only they need).
        python: "3.12".
        platform: the newest of the kernel's platform tags; older manylinux ones are taken too.
    """

    folder: Path | None = None
    left_out: bool = False
    skip: Sequence[str] = ()
    python: str = PYTHON
    platform: str = PLATFORM

    def check(self) -> None:
        """Raise `UserError` where the attributes do not go together."""
        if not re.fullmatch(r"3\.\d+", self.python):
            raise UserError(f"--python {self.python!r}: give the kernel's version as 3.12")
        if self.left_out and (self.folder or self.skip):
            raise UserError("--no-wheels leaves all packages out; give neither --wheels nor --skip with it")
        if self.folder and self.skip:
            raise UserError("--skip says what is not downloaded, and --wheels that nothing is; give one of them")


def needed_packages(wheels: Wheels) -> Closure:
    """The packages of this program with all that they need, but those that the kernel has.

    Raises:
        UserError: nothing needs a package that is named as one that the kernel has.
    """
    needed = closure(requirements(faiss_extra()), wheels.python, wheels.skip)
    unknown = sorted(set(map(canonicalize_name, wheels.skip)) - needed.skipped)
    if unknown:
        raise UserError(f"--skip {unknown[0]}: nothing here needs a package of that name")
    if (needed.pins.get("torch") or "").endswith("+cpu"):
        say(
            "warning: torch is a build without a GPU here, and so would it be in the kernel; --skip torch uses Kaggle's"
        )
    for name in needed.specifiers:
        say(f"note: {name} is not installed here; its newest version is taken")
    return needed


def download(needed: Closure, wheels: Wheels, folder: Path) -> None:
    """Fetch the wheels of all packages needed, in the versions installed here, with pip and as pip is set up.

    Raises:
        UserError: pip is not installed or one of them cannot be had.
    """
    folder.mkdir(parents=True)
    say(f"downloading the wheels of {len(needed.pins)} packages for Python {wheels.python}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "--python-version", wheels.python]
    command += ["--implementation", "cp"]
    for tag in platform_tags(wheels.platform):
        command += ["--platform", tag]
    done = subprocess.run([*command, *needed.lines()], capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"the packages for Python {wheels.python} on {wheels.platform} cannot be had: {tail(done.stderr, 3)}\n"
            "Leave out what the kernel has with --skip NAME,NAME, or give a folder of wheels with --wheels DIR."
        )


def platform_tags(newest: str) -> list[str]:
    """This tag and, of manylinux, all older ones: a wheel for an older C library runs with a newer one (PEP 600)."""
    parts = re.fullmatch(
        r"manylinux_2_(\d+)_(\w+)", {"manylinux2014_x86_64": "manylinux_2_17_x86_64"}.get(newest, newest)
    )
    if not parts:
        return [newest]
    minor, machine = int(parts[1]), parts[2]
    tags = [f"manylinux_2_{older}_{machine}" for older in range(minor, 4, -1)]
    return tags + [f"{name}_{machine}" for name, least in _OLD_TAGS.items() if least <= minor]


def wheel_files(folder: Path) -> list[Item]:
    """The wheels in a folder.

    Raises:
        UserError: it holds none.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise UserError(f"--wheels {folder} holds no wheel (*.whl)")
    return [Item(path, f"wheels/{path.name}", link=True) for path in wheels]
