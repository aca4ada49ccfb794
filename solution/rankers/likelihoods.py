"""Log-likelihoods of options by a model before training, kept for every fold that takes them out of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from solution.files import atomic_file, content_hash
from solution.progress import say

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
        keys = np.array(_keys(text, options), np.uint64)
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
        for key, value in zip(_keys(text, options), values, strict=True):
            if np.isfinite(value):
                self._new[key] = value

    def save(self) -> None:
        """Write what was added, together with what another process has written meanwhile.

        Where the file cannot be written a note tells why, and the values are computed again the next time: a training
        of hours must not end with it.
        """
        if not self._new:
            return
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        old_keys, old_values = _read(self._path)
        keys = np.concatenate([self._keys, old_keys, np.fromiter(self._new, np.uint64, len(self._new))])
        values = np.concatenate([self._values, old_values, np.fromiter(self._new.values(), np.float32, len(self._new))])
        self._keys, first = np.unique(keys, return_index=True)
        self._values = values[first]
        self._new = {}
        try:
            with atomic_file(self._path) as temporary:
                save_file({"keys": self._keys, "values": self._values}, temporary)
        except (OSError, SafetensorError) as error:  # a full disk is either, by the moment at which it is full
            say(f"note: the likelihoods before training are not kept for other folds: {self._path}: {error}")


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
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # those at the end: formats that NumPy lacks
        return np.empty(0, np.uint64), np.empty(0, np.float32)
    right = keys.dtype == np.uint64 and values.dtype == np.float32 and keys.ndim == 1 and keys.shape == values.shape
    if not right or (keys[1:] <= keys[:-1]).any() or not np.isfinite(values).all():
        return np.empty(0, np.uint64), np.empty(0, np.float32)
    return keys, values


def _keys(text: Sequence[int], options: Sequence[Sequence[int]]) -> list[int]:
    """The key of each option.

    The question's other options count too: they pass through the model together, and a value that came from another
    question would differ in its last bits, by the order in which the questions were read.
    """
    ids = [*text]
    for option in sorted(map(list, options)):
        ids += [-1, *option]
    question = blake2b(np.array(ids, np.int64).tobytes(), digest_size=16).digest()
    keys = (blake2b(question + np.array(option, np.int64).tobytes(), digest_size=8) for option in options)
    return [int.from_bytes(key.digest(), "little") for key in keys]
