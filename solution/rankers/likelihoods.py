"""Log-likelihoods of options by a model before training, kept for every fold that takes them out of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from solution.files import atomic_file, content_hash

NAME = "likelihoods"
_WEIGHTS = (".safetensors", ".bin", ".gguf")


class UntrainedLikelihoods:
    """Mean log-likelihoods of options behind texts, by one model, in a file of a working folder's cache.

    A model before training says the same in every fold and epoch. The file grows; a value in it is never changed.

    Args:
        path: a safetensors file with `keys`, uint64 [n], ascending, and `values`, float32 [n]. One that is not there
            or cannot be read holds nothing: what it held is computed again.
    """

    def __init__(self, path: Path):
        self._path = path
        self._keys, self._values = _read(path)
        self._new: dict[int, float] = {}

    def find(self, text: Sequence[int], options: Sequence[Sequence[int]]) -> list[float] | None:
        """The values of a question's options; None where one of them is not known.

        Args:
            text: token ids of what stands before the options.
            options: token ids of each option.
        """
        keys = np.array([_key(text, option) for option in options], np.uint64)
        places = np.searchsorted(self._keys, keys).clip(max=max(len(self._keys) - 1, 0))
        found = []
        for key, place in zip(keys, places, strict=True):
            if len(self._keys) and self._keys[place] == key:
                found.append(float(self._values[place]))
            elif int(key) in self._new:
                found.append(self._new[int(key)])
            else:
                return None
        return found

    def add(self, text: Sequence[int], options: Sequence[Sequence[int]], values: Sequence[float]) -> None:
        """Keep the values of a question's options; those that are not finite are left out."""
        for option, value in zip(options, values, strict=True):
            if np.isfinite(value):
                self._new[_key(text, option)] = value

    def save(self) -> None:
        """Write what was added, together with what another process has written meanwhile."""
        if not self._new:
            return
        from safetensors.numpy import save_file

        old_keys, old_values = _read(self._path)
        keys = np.concatenate([old_keys, np.fromiter(self._new, np.uint64, len(self._new))])
        values = np.concatenate([old_values, np.fromiter(self._new.values(), np.float32, len(self._new))])
        self._keys, first = np.unique(keys, return_index=True)
        self._values = values[first]
        self._new = {}
        with atomic_file(self._path) as temporary:
            save_file({"keys": self._keys, "values": self._values}, temporary)


def likelihoods_file(cache: Path, source: str, *computed: object) -> Path:
    """The file in `cache` for a model.

    Args:
        source: its folder or hub name.
        computed: what else its values depend on: revision, number formats.
    """
    folder = Path(source)
    files = sorted(path for path in folder.glob("*") if path.suffix in _WEIGHTS) if folder.is_dir() else []
    about = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return cache / f"{NAME}-{content_hash(source, about, *map(str, computed))[:16]}.safetensors"


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        keys, values = tensors["keys"], tensors["values"]
    except (OSError, SafetensorError, KeyError):
        return np.empty(0, np.uint64), np.empty(0, np.float32)
    if keys.dtype != np.uint64 or keys.shape != values.shape or (keys[1:] <= keys[:-1]).any():
        return np.empty(0, np.uint64), np.empty(0, np.float32)
    return keys, values


def _key(text: Sequence[int], option: Sequence[int]) -> int:
    ids = np.array([*text, -1, *option], np.int64)
    return int.from_bytes(blake2b(ids.tobytes(), digest_size=8).digest(), "little")
