"""The Python packages that this program needs: the versions allowed, those installed, and what they need in turn."""

from __future__ import annotations

import configparser
import contextlib
import importlib.metadata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from solution.errors import UserError
from solution.files import link_or_copy

PROJECT = "llm-science-exam"
SETUP = Path(__file__).parent.parent / "setup.cfg"


def requirements(extra: str = "") -> list[Requirement]:
    """The requirements in setup.cfg, or in the installed package's metadata where there is no checkout.

    Args:
        extra: also those of this extra (`cpu` or `gpu`: which faiss).

    Raises:
        UserError: neither is there.
    """
    if SETUP.is_file():
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(SETUP, encoding="utf-8")
        is_ours = parser.get("metadata", "name", fallback="") == PROJECT
        lines = parser.get("options", "install_requires", fallback="").splitlines() if is_ours else []
        if extra:
            lines += parser.get("options.extras_require", extra, fallback="").splitlines()
        wanted = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
        if wanted:
            return wanted
    try:
        stored = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"what this program needs is not known: {SETUP} is not there and {PROJECT} is not installed"
        ) from None
    parsed = [Requirement(text) for text in stored]
    return [
        requirement
        for requirement in parsed
        if requirement.marker is None or (extra and requirement.marker.evaluate({"extra": extra}))
    ]


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def faiss_extra() -> str:
    """`gpu` where only that faiss is installed, else `cpu`."""
    return "gpu" if installed("faiss-gpu") and not installed("faiss-cpu") else "cpu"


@dataclass
class Closure:
    """Packages with all that they need.

    Attributes:
        pins: name -> the installed version; None: not installed here.
        skipped: those left out, and what only they need.
        specifiers: name -> the versions allowed, of those not installed here.
    """

    pins: dict[str, str | None] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    specifiers: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One requirement a package, as pip takes it."""
        return [
            f"{name}=={version}" if version else name + self.specifiers.get(name, "")
            for name, version in sorted(self.pins.items())
        ]


def closure(roots: Iterable[Requirement], python: str, skip: Collection[str] = ()) -> Closure:
    """The installed versions of `roots` and of all that they need on Linux (x86-64) with this Python.

    Args:
        python: "3.12".
        skip: packages that are left out, and with them what nothing else needs.
    """
    left_out = {canonicalize_name(name) for name in skip}
    needed, specifiers = _walk(roots, python, left_out)
    all_names, _ = _walk(roots, python, set())
    pins = {name: installed(name) for name in needed}
    return Closure(pins, set(all_names) - set(needed), {name: specifiers[name] for name in pins if pins[name] is None})


def _walk(roots: Iterable[Requirement], python: str, stop: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """The names reached from `roots` without passing through `stop`, and of each the versions first asked for."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    specifiers: dict[str, str] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(root, extra) for root in roots for extra in ("", *sorted(root.extras))]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in stop or (name, extra) in done:
            continue
        done.add((name, extra))
        specifiers.setdefault(name, str(requirement.specifier))
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in needed:
            try:
                inner = Requirement(text)
            except InvalidRequirement:  # of a time before the standard
                continue
            if inner.marker is None or inner.marker.evaluate(environment | {"extra": extra}):
                waiting += [(inner, inner_extra) for inner_extra in ("", *sorted(inner.extras))]
    return sorted({name for name, _ in done}), specifiers


def link_installed(name: str, target: Path) -> None:
    """Link each file of an installed package into another site-packages folder (copy it, on another disk).

    Raises:
        UserError: it is not installed, or does not tell its files.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the Python package {name} is not installed") from None
    folder = Path(str(distribution.locate_file("")))
    files = [file for file in distribution.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
    if not files:
        raise UserError(f"the Python package {name} does not tell which files are its own; install it again")
    for file in files:
        if (folder / file).is_file():
            link_or_copy(folder / file, target / file)


def python_range() -> SpecifierSet:
    """The versions of Python that setup.cfg (or the installed package's metadata) allows."""
    if SETUP.is_file():
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(SETUP, encoding="utf-8")
        return SpecifierSet(parser.get("options", "python_requires", fallback=""))
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return SpecifierSet(importlib.metadata.metadata(PROJECT)["Requires-Python"] or "")
    return SpecifierSet()
