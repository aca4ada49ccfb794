"""Tokenizers as their models' authors made them: the text reaches the vocabulary in the form that it was learnt from.

A sentencepiece model stores how text is normalised before it is cut (`nmt_nfkc`: superscripts, ligatures and full-width
letters become plain ones, zero-width characters go). transformers 5 builds the tokenizer of DeBERTa-v2 and -v3 without
this map, from `spm.model` and from `tokenizer.json` alike, so that `10³`, `µ` and `ﬁ` hold unknown tokens and HSO₄⁻
equals HSO₃⁻. The map is put back here. In the same way it builds the tokenizer of Llama 2 anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solution.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTENCEPIECE_FILES = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
TOKENIZER = "tokenizer.json"


def load_tokenizer(source: str, revision: str | None = None, subfolder: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with the normaliser that is stored beside it.

    Args:
        source: a folder or a hub name.
        revision: of a hub model.
        subfolder: of the source, where the tokenizer's files lie; "": the source itself.

    Raises:
        UserError: the tokenizer of a sentencepiece model cannot be made, since its packages are missing; or the model
            has no files of a tokenizer.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"revision": revision} if revision else {}
    if subfolder:
        options["subfolder"] = subfolder
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    if len(tokenizer) <= len(special_names(tokenizer)):
        # transformers makes an empty tokenizer where a folder has no file for one.
        raise UserError(
            f"the tokenizer of {source} knows special tokens only: its files are missing (tokenizer.json, or the "
            "vocabulary, such as vocab.txt, spm.model or tokenizer.model)"
        )
    mend_tokenizer(tokenizer, source, revision, subfolder)
    return tokenizer


def mend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, source: str, revision: str | None = None, subfolder: str = ""
) -> None:
    """Put back the stored normaliser; let special tokens' names in a text stay text where they are ordinary pieces too.

    Args:
        tokenizer: of the model in `source`, loaded by any library; it is changed.
        source, revision, subfolder: see `load_tokenizer`.

    Raises:
        UserError: the packages that read a sentencepiece model are missing.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    if not _has_map(backend.normalizer):
        normalizer = _stored_normalizer(source, revision, subfolder)
        if normalizer is not None:
            backend.normalizer = normalizer
    if getattr(backend.model, "byte_fallback", False):
        _take_stored_cutting(backend, source, revision, subfolder)
    if type(backend.model).__name__ == "Unigram":
        _part_special_tokens(backend, special_names(tokenizer))


def _take_stored_cutting(backend: Any, source: str, revision: str | None, subfolder: str) -> None:
    """Have the text of a sentencepiece BPE (Llama 2) put into pieces as the authors' tokenizer.json does it.

    transformers 5 builds the Llama tokenizer anew, and drops the first of the spaces that a text begins with.
    """
    from tokenizers import Tokenizer

    path = _file(source, revision, subfolder, TOKENIZER)
    if path is not None:
        stored = Tokenizer.from_file(str(path))
        backend.normalizer, backend.pre_tokenizer = stored.normalizer, stored.pre_tokenizer


def special_names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The names of all special tokens, those of turns and tools (`<|end|>`) too."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return sorted({*tokenizer.all_special_tokens, *added})


def part_names(names: Sequence[str], text: str) -> str:
    """`text` with a zero-width space behind the first character of every one of `names` in it."""
    for name in names:
        if name in text:
            text = text.replace(name, f"{name[0]}\u200b{name[1:]}")
    return text


def _part_special_tokens(backend: Any, names: Sequence[str]) -> None:
    """Have the special tokens' names in a text cut behind their first character.

    A unigram vocabulary lists `[SEP]` or `</s>` beside the ordinary pieces, so that a text which holds these letters
    would become the special token even where special tokens are not looked for (sentencepiece itself never does that).
    """
    from tokenizers import Regex, pre_tokenizers

    parts = [f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in names if len(name) > 1]
    if not parts:
        return
    split = pre_tokenizers.Split(Regex("|".join(parts)), behavior="isolated")
    before = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    if not before or _state(split) not in _state(before[0]):  # a tokenizer saved after this was done has it already
        backend.pre_tokenizer = pre_tokenizers.Sequence([*before, split])


def _has_map(normalizer: Any) -> bool:
    return "Precompiled" in _state(normalizer)


def _state(part: Any) -> str:
    """A part of a tokenizer as JSON."""
    return "" if part is None else part.__getstate__().decode()


def _stored_normalizer(source: str, revision: str | None, subfolder: str) -> Any | None:
    """The normaliser of `tokenizer.json` or of the sentencepiece model; None where neither has a character map."""
    from tokenizers import Regex, Tokenizer, normalizers

    path = _file(source, revision, subfolder, TOKENIZER)
    if path is not None:
        stored = json.loads(path.read_text(encoding="utf-8")).get("normalizer")
        if "Precompiled" not in json.dumps(stored):
            return None
        return Tokenizer.from_file(str(path)).normalizer
    for name in SENTENCEPIECE_FILES:
        path = _file(source, revision, subfolder, name)
        if path is not None:
            characters, spaces = _sentencepiece_rules(path)
            if not characters:
                return None
            steps: list[normalizers.Normalizer] = [normalizers.Precompiled(characters)]
            if spaces:
                steps.append(normalizers.Strip(left=True, right=True))
                steps.append(normalizers.Replace(Regex(" {2,}"), " "))
            return normalizers.Sequence(steps)
    return None


def _sentencepiece_rules(path: Path) -> tuple[bytes, bool]:
    """The character map of a sentencepiece model, and whether it takes out spaces that repeat."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise UserError(
            f"{path} cannot be read without the packages sentencepiece and protobuf ({error}); run: pip install "
            "sentencepiece protobuf"
        ) from None
    messages: Any = sentencepiece_model_pb2  # its classes are made when it is imported
    model = messages.ModelProto()
    model.ParseFromString(path.read_bytes())
    rules = model.normalizer_spec
    return bytes(rules.precompiled_charsmap), bool(rules.remove_extra_whitespaces)


def _file(source: str, revision: str | None, subfolder: str, name: str) -> Path | None:
    """A file of a model's folder or, of a hub model, of the hub's cache; None where it is not there."""
    folder = Path(source)
    if folder.is_dir():
        path = folder / subfolder / name
        return path if path.is_file() else None
    name = f"{subfolder}/{name}" if subfolder else name
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source, name, revision=revision)
    return Path(cached) if isinstance(cached, str) else None
