"""The settings that come with the package, and the folder that --configs names."""

from __future__ import annotations

from pathlib import Path

from solution.errors import UserError
from solution.progress import say

SHIPPED = Path(__file__).parent / "configs"
"""The settings that come with the package: in a checkout a link to its configs/."""
DEFAULT_CONFIGS = Path("configs")
_SHIPPED = {"demo": SHIPPED / "demo", "configs/demo": SHIPPED / "demo", "full": SHIPPED}


def configs_folder(folder: Path) -> Path:
    """The folder that --configs names: `demo` and `full` are shipped, where there is no folder of that name.

    The default is `configs`, which a checkout has: without one it is `full`, the same settings, and a note says so.

    Raises:
        UserError: there is none.
    """
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"--configs {folder} is a file; give the folder that it lies in")
    if folder == DEFAULT_CONFIGS:
        say(
            f"note: no folder {folder} is here: the shipped settings `full` are used (models for a GPU). `demo` names "
            "those of small models for a CPU: --configs demo"
        )
        return SHIPPED
    if not has_configs(folder):
        raise UserError(
            f"the configs folder is not there: {folder}. Name one with --configs: a folder of yours, or a shipped one, "
            "demo (small models, CPU) or full (those for a GPU)"
        )
    return _SHIPPED[folder.as_posix()]


def has_configs(folder: Path) -> bool:
    """Whether `configs_folder` finds this one."""
    return folder.is_dir() or (folder.as_posix() in _SHIPPED and not folder.exists())
