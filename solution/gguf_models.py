"""GGUF files as models: named by path, by folder or in the hub's cache, and converted once to a folder of safetensors.

llama.cpp's format holds a model's settings, tokenizer and weights in one file, mostly quantized. transformers reads it
slowly and can neither train it nor map it into memory, so that it is written as transformers itself writes a model; the
weights become those that the file's numbers stand for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import atomic_folder, content_hash, read_manifest, sweep_leftovers, write_manifest
from solution.memory import main_memory
from solution.progress import say

SUFFIX = ".gguf"
CONVERTED = "converted model"  # the kind of its manifest
_HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+):([^:]+\.gguf)", re.IGNORECASE)
_SPLIT = re.compile(r"-\d{5}-of-(\d{5})$")
_MAGIC = b"GGUF"
_EXACT = 1_000_000_000  # parameters up to which float32 costs little: 4 GB
_BEGINNING = 32 << 20  # bytes; a vocabulary of 256,000 pieces takes about ten million
_PIECES, _PIECE = 1024, 4096  # of a file that are compared, and their bytes
_GIB = 1 << 30


def hub_file(spec: str) -> tuple[str, str] | None:
    """Repository and file of `owner/name:folder/file.gguf`; None where a model is not named so."""
    match = _HUB_FILE.fullmatch(spec)
    return (match[1], match[2]) if match else None


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX


def only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder; None where it has none.

    Raises:
        UserError: it has several.
    """
    files = sorted(path for path in folder.iterdir() if is_gguf(path) and path.is_file())
    if len(files) > 1:
        first = files[0]
        refuse_split(first)
        names = ", ".join(path.name for path in files[:5])
        raise UserError(f"the folder {folder} holds {len(files)} GGUF files ({names}): name one, as in {first}")
    return files[0] if files else None


def refuse_split(path: Path) -> None:
    """Raise `UserError` for a part of a model that was split into several files."""
    match = _SPLIT.search(path.stem)
    if match and int(match[1]) > 1:
        raise UserError(
            f"{path} is one of {int(match[1])} parts of a model; write them as one file with llama.cpp's "
            "`llama-gguf-split --merge FIRST_PART WHOLE.gguf`, and name that"
        )


def converted_folder(source: Path, cache: Path, packaged: bool = False) -> Path:
    """The folder of a GGUF file's converted model, there or not.

    Args:
        packaged: the file is one of a Python package, whose name and size tell what it is; of any other the content
            counts: two fine-tuned models of one size are alike in both.
    """
    settings = _settings(source, packaged)
    return cache / "models" / f"{source.stem.lower()}-{content_hash(settings)}"


def _settings(source: Path, packaged: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"source": source.name, "bytes": source.stat().st_size}
    return settings if packaged else settings | {"content": _content(source)}


def _content(source: Path) -> str:
    """A hash of a file's beginning, where settings and tokenizer stand, and of 1024 pieces, evenly spread: that takes
    little time, and training moves the weights of a whole layer at least."""
    digest, size = hashlib.sha256(), source.stat().st_size
    with open(source, "rb") as stream:
        digest.update(stream.read(_BEGINNING))
        for piece in range(_PIECES):
            stream.seek(max(0, size - _PIECE) * piece // (_PIECES - 1))
            digest.update(stream.read(_PIECE))
    return digest.hexdigest()[:16]


def convert(source: Path, cache: Path, packaged: bool = False) -> Path:
    """The folder of the converted model, written once; afterwards it loads in a second.

    Weights are float32 for models of up to a billion parameters, else float16, or bfloat16 where the file's are.

    Raises:
        UserError: the file is no GGUF, or a part of one; its architecture, quantization or positions are none that
            transformers reads; or disk or memory do not suffice.
    """
    target = converted_folder(source, cache, packaged)
    if not target.is_dir():
        refuse_split(source)
        with open(source, "rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise UserError(f"{source} is no GGUF file")
        with _alone(target):
            if not target.is_dir():  # another process may have been at it
                sweep_leftovers(target.parent, target.name)
                _write(source, target, _settings(source, packaged))
    read_manifest(target, CONVERTED, f"Delete {target} and run again.", verify=False)
    return target


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Only one process at a time is inside it for a target; the others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f".{target.name}.lock", "w") as lock:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(source: Path, target: Path, settings: dict[str, Any]) -> None:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    # The GGUF reader takes its bar from tqdm itself, which that does not reach.
    library: Any = modeling_gguf_pytorch_utils
    library.tqdm = lambda tensors, **_: tensors
    logging.set_verbosity_error()
    try:
        header = _Header(source)
        dtype = header.dtype()
        header.require_room(target.parent, dtype)
        say(f"converting {source.name} ({header.parameters / 1e6:.0f} million parameters) to safetensors, once")
        model = _loaded(source, header, dtype)
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
        _cut_as_sentencepiece(tokenizer, header)
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - the readers raise many kinds for a file that they do not understand
        text = " ".join((str(error) or type(error).__name__).split())[:300]
        raise UserError(
            f"{source} cannot be read as a model: {text}. Where the file is cut short, fetch it again; else use the "
            "model's safetensors"
        ) from error
    try:
        with atomic_folder(target) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            write_manifest(temporary, CONVERTED, settings=settings)
    except SafetensorError as error:  # a full disk, above all: the library's own kind of error
        raise UserError(f"the converted model cannot be written into {target.parent} ({error})") from None


def _cut_as_sentencepiece(tokenizer: Any, header: _Header) -> None:
    """Have the tokenizer of a sentencepiece BPE keep every space that a text begins with.

    transformers builds Llama's tokenizer with a pre-tokenizer that drops the first of them; stored so, the text is cut
    as sentencepiece does it (see `tokenization.load_tokenizer`, which takes what is stored).
    """
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    if header.value("tokenizer.ggml.model") != "llama" or type(backend.pre_tokenizer).__name__ != "Metaspace":
        return
    prefix = header.value("tokenizer.ggml.add_space_prefix")
    steps = [normalizers.Prepend("▁")] if prefix is None or prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None


class _Header:
    """What a GGUF file says of itself."""

    def __init__(self, source: Path):
        import gguf

        self.source = source
        try:
            self._reader = gguf.GGUFReader(source)
        except ValueError as error:
            unknown = re.search(r"(\d+)\)? is not a valid GGMLQuantizationType", str(error))
            if unknown is None:
                raise
            raise UserError(
                f"{source} holds weights in a number format ({unknown[1]}) that the package gguf does not know: update "
                "it (pip install --upgrade gguf), or use another quantization of the model"
            ) from None
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.parameters = sum(int(tensor.n_elements) for tensor in self._reader.tensors)
        self.architecture = str(self.value("general.architecture"))

    def value(self, key: str) -> Any:
        """A value of the file's metadata; None where it does not have the key."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    def own(self, key: str) -> Any:
        """A value under the architecture's name."""
        return self.value(f"{self.architecture}.{key}")

    def dtype(self) -> Any:
        """The dtype in which the weights are written."""
        import torch

        kinds = {tensor.tensor_type.name for tensor in self.tensors.values() if len(tensor.shape) > 1}
        if self.parameters <= _EXACT or "F32" in kinds:
            return torch.float32
        return torch.bfloat16 if kinds == {"BF16"} else torch.float16

    def require_room(self, folder: Path, dtype: Any) -> None:
        """Raise `UserError` where disk or memory are too small for the converted model."""
        needed = self.parameters * dtype.itemsize
        largest = max(int(tensor.n_elements) for tensor in self.tensors.values())
        free, memory = shutil.disk_usage(folder).free, main_memory()
        what = f"converting {self.source.name} takes {needed / _GIB:.1f} GiB"
        if free < needed:
            raise UserError(
                f"{what} of disk, and {free / _GIB:.1f} GiB are free in {folder}. Make room there, or give a --workdir "
                "on another disk"
            )
        # While a tensor is converted it is there in float32, twice.
        if memory is not None and memory.available < needed + 8 * largest:
            raise UserError(
                f"{what} and {8 * largest / _GIB:.1f} GiB more of memory, and {memory.available / _GIB:.1f} GiB are "
                "free. Convert it on a larger machine, or use the model's safetensors"
            )


def _loaded(source: Path, header: _Header, dtype: Any) -> Any:
    """The model with its weights, as a plain transformers model."""
    import transformers
    from accelerate import init_empty_weights

    known = transformers.modeling_gguf_pytorch_utils.GGUF_SUPPORTED_ARCHITECTURES
    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        config = transformers.AutoConfig.from_pretrained(**place, trust_remote_code=False)
    except ValueError as error:
        raise UserError(
            f"{source}: transformers reads no GGUF of the architecture {header.architecture} ({error}); it reads "
            f"{', '.join(sorted(known))}. Use the model's safetensors"
        ) from None
    take_positions(header, config)
    name = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    options = {"config": config, "dtype": dtype, "output_loading_info": True, "trust_remote_code": False}
    loaded, info = getattr(transformers, name).from_pretrained(**place, **options)
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{source} is incomplete: {len(missing)} of the model's tensors are missing, {missing[0]} first"
        )
    settings = loaded.config
    if hasattr(settings, "quantization_config"):
        del settings.quantization_config
    # The loaded model counts as quantized, and could not be saved: one of the same weights can.
    with init_empty_weights(include_buffers=False):
        plain = type(loaded)(settings)
    plain.load_state_dict(loaded.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def take_positions(header: Any, config: Any) -> None:
    """Put what the file says of positions into the config where transformers leaves it out.

    Args:
        header: has `source`, `tensors`, `own` as `_Header` has.

    Raises:
        UserError: the file's rotary positions are scaled in a way that the config would not be: the model would
            answer, and wrongly.
    """
    window = header.own("attention.sliding_window")
    if window and getattr(config, "sliding_window", 0) is None:
        config.sliding_window = int(window)
    rope = getattr(config, "rope_parameters", None) or {}
    scaled = [name for name in header.tensors if name.startswith("rope_f")]  # rope_freqs, rope_factors_long, ...
    kind = header.own("rope.scaling.type")
    if rope.get("rope_type", "default") != "default":
        return
    if scaled == ["rope_freqs.weight"] and _take_llama3(header.tensors["rope_freqs.weight"].data, config, rope):
        return
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = header.own("rope.dimension_count")
    part = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) or 1.0
    reasons = [f"its tensor {scaled[0]} scales rotary positions"] if scaled else []
    if kind not in (None, "none"):
        reasons.append(f"its rotary positions are scaled ({kind})")
    if turned and int(turned) != int(head * part):
        reasons.append(f"it turns {int(turned)} of {head} dimensions of a head")
    if reasons:
        raise UserError(
            f"{header.source}: {' and '.join(reasons)}, which transformers does not take from a GGUF: the model would "
            "answer wrongly. Use the model's safetensors"
        )


def _take_llama3(factors: Any, config: Any, rope: dict[str, Any]) -> bool:
    """Scale the positions as Llama 3.1 and later do, where the file's factors are theirs; False where they are not."""
    import numpy as np
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factors = np.asarray(factors, dtype=np.float64).ravel()
    before = dict(rope)
    # Meta's values but for the factor: 8 in Llama 3.1, 32 in Llama 3.2.
    values = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config.rope_parameters = {**before, "rope_type": "llama3", "factor": float(factors.max()), **values}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    half = len(factors)
    plain = before["rope_theta"] ** -(np.arange(half) / half)
    if len(scaled) == half and np.allclose(plain / scaled.double().numpy(), factors, rtol=1e-3):
        return True
    config.rope_parameters = before
    return False
