"""Weights read from a model's safetensors files, a layer at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from solution.errors import UserError
from solution.models import weight_files

_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class Weights:
    """The tensors of safetensors files, by name. Only the headers are read until a tensor is asked for.

    Attributes:
        shapes: name -> shape.
        bytes_read: of all tensors read so far, as stored.

    Raises:
        UserError: a file is missing or corrupt.
    """

    def __init__(self, files: Sequence[Path]):
        self.bytes_read = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        for path in files:
            with _opened(path) as stored:
                for name in stored.keys():  # noqa: SIM118 - it is not a dict
                    self._files[name] = path
                    self.shapes[name] = tuple(stored.get_slice(name).get_shape())

    @classmethod
    def of_model(cls, source: str, revision: str | None) -> Weights:
        """Those of a model folder or of a hub model."""
        folder = Path(source)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(source, revision=revision, allow_patterns=["model*.safetensors", _INDEX]))
        index = folder / _INDEX
        return cls([folder / name for name in (weight_files(index) if index.is_file() else [_ONE_FILE])])

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Each tensor in its stored dtype, memory-mapped; use it up before the next is taken.

        Raises:
            UserError: a file has gone or is corrupt.
        """
        for path in sorted({self._files[name] for name in names}):
            with _opened(path) as stored:
                for name in names:
                    if self._files[name] == path:
                        tensor = stored.get_tensor(name)
                        self.bytes_read += tensor.nbytes
                        yield name, tensor


class _opened:  # noqa: N801 - used as a function
    """`safe_open` whose errors tell the user what to do."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(self._path, framework="pt")
            return self._file.__enter__()
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"the weights {self._path} are missing or corrupt ({error}). Streaming needs a complete checkpoint in "
                "safetensors files; fetch the model again"
            ) from None

    def __exit__(self, *raised: Any) -> None:
        self._file.__exit__(*raised)
