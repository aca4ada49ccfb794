"""The wheels of all packages, for a kernel that cannot fetch any.

The default Python and C library are those of Kaggle's image (github.com/Kaggle/docker-python, pull request 1496). The
image's torch fits its driver and its GPUs, and that of PyPI need not: it is left to the image unless it is asked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from solution.errors import UserError
from solution.kaggle.items import Item, tail
from solution.packages import Closure, closure, faiss_extra, requirements
from solution.progress import say

PYTHON, PLATFORM = "3.12", "manylinux_2_35_x86_64"
TORCH = "torch"
# docs.nvidia.com/deploy/cuda-compatibility, minor version compatibility: CUDA's major version -> the least driver.
_LEAST_DRIVERS = {"11": 450, "12": 525, "13": 580}
_OLD_TAGS = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}


@dataclass(frozen=True)
class Wheels:
    """Where the packages come from.

    Attributes:
        folder: one that holds wheels; None: they are downloaded.
        left_out: no wheels at all: the kernel has every package.
        skip: packages that the kernel has (and what only they need), beside torch.
        with_torch: torch and the CUDA libraries that it needs are among the wheels.
        python: "3.12".
        platform: the newest of the kernel's platform tags; older manylinux ones are taken too.
    """

    folder: Path | None = None
    left_out: bool = False
    skip: Sequence[str] = ()
    with_torch: bool = False
    python: str = PYTHON
    platform: str = PLATFORM

    @property
    def left_to_kernel(self) -> list[str]:
        """The packages that the kernel has."""
        return sorted({*self.skip, *([] if self.with_torch else [TORCH])})

    @property
    def faiss(self) -> str:
        """The extra of setup.cfg: faiss for GPUs brings CUDA libraries along, which stay away as those of torch do."""
        return faiss_extra() if self.with_torch or self.left_out else "cpu"

    def check(self) -> None:
        """Raise `UserError` where the attributes do not go together."""
        if not re.fullmatch(r"3\.\d+", self.python):
            raise UserError(f"--python {self.python!r}: give the kernel's version as 3.12")
        if self.left_out and (self.folder or self.skip):
            raise UserError("--no-wheels leaves all packages out; give neither --wheels nor --skip with it")
        if self.folder and self.skip:
            raise UserError("--skip says what is not downloaded, and --wheels that nothing is; give one of them")
        if self.with_torch and (self.folder or self.left_out):
            raise UserError("--with-torch says what is downloaded; give neither --wheels nor --no-wheels with it")
        if self.with_torch and TORCH in [canonicalize_name(name) for name in self.skip]:
            raise UserError("--with-torch and --skip torch contradict each other; give one of them")


def needed_packages(wheels: Wheels) -> Closure:
    """The packages of this program with all that they need, but those that the kernel has.

    Raises:
        UserError: nothing needs a package that is named as one that the kernel has.
    """
    needed = closure(requirements(wheels.faiss), wheels.python, wheels.left_to_kernel)
    unknown = sorted(set(map(canonicalize_name, wheels.skip)) - needed.skipped)
    if unknown:
        raise UserError(f"--skip {unknown[0]}: nothing here needs a package of that name")
    if (needed.pins.get("torch") or "").endswith("+cpu"):
        say(
            "warning: torch is a build without a GPU here, and so would it be in the kernel; without --with-torch the "
            "kernel uses that of its image"
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


def lacking_packages(folder: Path, wheels: Wheels) -> list[str]:
    """The packages that this program needs and of which a folder has no wheel for the kernel's Python and platform."""
    version = tuple(map(int, wheels.python.split(".")))
    platforms = platform_tags(wheels.platform)
    interpreter = f"cp{wheels.python.replace('.', '')}"
    fitting = {*cpython_tags(version, platforms=platforms), *compatible_tags(version, interpreter, platforms)}
    there = {name for path in folder.glob("*.whl") if (name := _package_of(path, fitting)) is not None}
    return sorted(set(closure(requirements(wheels.faiss), wheels.python).pins) - there)


def _package_of(wheel: Path, fitting: set[Tag]) -> str | None:
    """The package of a wheel that may be installed; None of another file."""
    try:
        name, _, _, tags = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename:
        return None
    return str(name) if tags & fitting else None


class TorchBuild(NamedTuple):
    """A wheel of torch: its version, the CUDA version that it was built for, and the least driver that this needs."""

    version: str
    cuda: str
    driver: int | None

    def __str__(self) -> str:
        driver = f", which needs an NVIDIA driver of version {self.driver} or newer" if self.driver else ""
        return f"torch {self.version} is built for CUDA {self.cuda}{driver}"


def torch_build(folder: Path) -> TorchBuild | None:
    """What the wheel of torch in a folder was built for; None where there is no such wheel, or it is one for CPUs."""
    for wheel in sorted(folder.glob("torch-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            text = archive.read("torch/version.py").decode()
        cuda = re.search(r"^cuda\b[^=\n]*=\s*['\"](\d+)(\.[\d.]+)?['\"]", text, re.MULTILINE)
        if cuda:
            version = str(parse_wheel_filename(wheel.name)[1])
            return TorchBuild(version, cuda[1] + (cuda[2] or ""), _LEAST_DRIVERS.get(cuda[1]))
    return None
