"""The pretrained model of a ranker: loading it, LoRA, new modules beside it, its trained weights to and from files."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution.config import RankerConfig
from solution.device import Device, choose_device
from solution.errors import UserError
from solution.files import read_manifest
from solution.learning import adapters, distributed
from solution.learning.adapters import module_state, put_state
from solution.models import MERGED, load_pretrained, resolve_model
from solution.suggestions import program
from solution.tokenization import load_tokenizer

HEAD = "head.safetensors"
PRIOR = "prior.safetensors"
WHOLE_WEIGHTS = "model.safetensors"


class RetrievalPrior(nn.Module):
    """The option score of retrieval times a learnt scale, added to a ranker's own score."""

    def __init__(self, temperature: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((1,), -math.log(temperature)))

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return scores * self.log_scale.exp()


class RankerModel:
    """A pretrained model with what a ranker trains of it, and new modules beside it.

    A family gives `_load_base`, and may give `_make_head` and `base_dtype`.
    """

    new_modules: tuple[str, ...] = ()
    """Modules of the base model that are new or must be trained whole (saved with the adapter)."""
    merging = False
    """Take 4-bit weights back to full precision before LoRA is put on them, so that they can be merged."""
    streaming = False
    """True where the base model's weights stay on disk, and are read layer by layer."""

    def __init__(self, config: RankerConfig, cache: Path):
        self.config = config
        self.cache = cache
        self.device: Device = choose_device(config.precision)
        if config.precision == "auto" and self.device.may_overflow and not config.traits.float16:
            self.device = replace(self.device, compute=torch.float32)
        self.model: Any = None
        self.head: nn.Module | None = None
        self.prior: RetrievalPrior | None = None
        self.tokenizer: Any = None
        self.load_seconds = 0.0
        """Time that loading the base model took."""
        self.start: Path | None = None
        """The folder of an earlier training (see `save`) that `fit` goes on from; None: from the base model."""

    # --- given by the family ---

    def _load_base(self, source: str, **options: Any) -> Any:
        """The base model in `source`, a folder or hub name; `options` of `from_pretrained`."""
        raise NotImplementedError

    def pretrained_model(self, kind: Any, source: str, **options: Any) -> Any:
        """The model of a transformers auto class, for `_load_base`."""
        return load_pretrained(kind, source, self.device.kind, **options)

    def _make_head(self) -> nn.Module | None:
        """A head beside the base model; None where the base model has its own."""
        return None

    @property
    def base_dtype(self) -> torch.dtype:
        """Of the frozen weights; weights that are trained whole are always float32."""
        return torch.float32

    # --- building ---

    @property
    def modules(self) -> list[nn.Module]:
        return [module for module in (self.model, self.head, self.prior) if module is not None]

    @property
    def head_names(self) -> tuple[str, ...]:
        return (*self.new_modules, "modules_to_save", "score_weight", "log_scale", "prior_log_scale")

    def build(self) -> None:
        """Load tokenizer and base model, add LoRA and head; the same seed gives the same fresh weights.

        Raises:
            UserError: the model cannot be found or loaded.
        """
        if self.model is not None:
            return
        started = time.monotonic()
        config = self.config
        self._check_sharding()
        source = distributed.main_first(lambda: resolve_model(config.model, self.cache, config.revision))
        torch.manual_seed(config.seed)

        # The base model, with LoRA where it is trained; over several processes, sharded.
        model = self._with_lora(self._load_pretrained(source))
        if distributed.shards():
            distributed.shard(model)
        self.model = model

        # New modules beside it. 4-bit weights are on the device already, streamed ones come to it layer by layer.
        self.head = self._make_head()
        self.prior = RetrievalPrior(config.temperature) if config.retrieval_prior else None
        for module in self.modules:
            if module is not self.model or (config.quantization is None and not self.streaming):
                module.to(self.device.torch)
            module.eval()
        self.parameter_counts = adapters.trainable_in_float32(self.modules)

        if config.merged:
            read_manifest(Path(source), MERGED, f"Name the folder that `{program()} merge` wrote.", verify=False)
            self._load_small(Path(source))
        self.load_seconds = time.monotonic() - started

    def _check_sharding(self) -> None:
        config = self.config
        if distributed.shards() and self.start is not None:
            raise UserError(
                f"{config.name}: FSDP cannot shard a ranker with pretraining. Launch without --use_fsdp: each process "
                "then holds the whole model."
            )
        if distributed.shards() and (config.quantization or (config.trains and config.lora is None)):
            raise UserError(
                f"{config.name}: FSDP shards the frozen weights of a LoRA ranker, and goes with neither quantization "
                "nor lora=null. Launch without --use_fsdp: each process then holds the whole model."
            )

    @property
    def _weights_dtype(self) -> torch.dtype:
        """float32 wherever base weights are trained; else as the family says."""
        return torch.float32 if self.config.lora is None and self.config.trains else self.base_dtype

    def _load_pretrained(self, source: str) -> Any:
        """The base model as transformers loads it, in 4 bits where the settings say so; makes the tokenizer too."""
        from transformers.utils import logging

        # Their bars and load reports would drown ours; missing and unexpected weights are checked by our own code.
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        config = self.config
        options: dict[str, Any] = {"revision": config.revision} if config.revision else {}
        try:
            self.tokenizer = load_tokenizer(source, config.revision)
            quantization = adapters.quantization_config(config.quantization, self.device.compute, self.new_modules)
            if quantization is not None:
                options |= {"quantization_config": quantization, "device_map": {"": self.device.kind}}
            model = self._load_base(source, dtype=self._weights_dtype, trust_remote_code=False, **options)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - transformers raises many kinds for an unusable model
            text = " ".join(str(error).split())[:400]
            raise UserError(f"{config.name}: the model {config.model} cannot be loaded: {text}") from error
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.unk_token or self.tokenizer.eos_token
        return model

    def _with_lora(self, model: Any) -> Any:
        """The base model with what is trained of it: LoRA's matrices, or with `lora: null` all of its weights."""
        config = self.config
        checkpointing = config.training.gradient_checkpointing and config.trains
        if config.quantization is not None and self.merging:
            model = adapters.dequantize(model, self._weights_dtype)
        elif config.quantization is not None:
            model = adapters.prepare_quantized(model, checkpointing)
        elif checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        if not config.trains:
            return model.requires_grad_(False)
        return model if config.lora is None else adapters.add_lora(model, config.lora, self.new_modules)

    # --- files ---

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        from safetensors.torch import save_file

        if not self.config.trains:
            return
        if self.config.lora is not None:
            adapters.save_adapter(self.model, folder)
        else:
            save_file(module_state(self.model), folder / WHOLE_WEIGHTS)
        for module, name in self._small_modules():
            save_file(module_state(module), folder / name)

    def _small_modules(self) -> list[tuple[nn.Module, str]]:
        pairs = ((self.head, HEAD), (self.prior, PRIOR))
        return [(module, name) for module, name in pairs if module is not None]

    def _put_whole(self, path: Path) -> None:
        """Put weights that were trained whole into the base model."""
        put_state(self.model, path)

    def load(self, folder: Path) -> None:
        """See `Ranker.load`."""
        self.build()
        if self.config.trains:
            self._take(folder)

    def _take(self, folder: Path) -> None:
        """Put the weights of `save` into the model as it is built, in place."""
        if self.config.lora is not None:
            adapters.load_adapter(self.model, folder)
        else:
            self._put_whole(folder / WHOLE_WEIGHTS)
        self._load_small(folder)

    def _load_small(self, folder: Path) -> None:
        for module, name in self._small_modules():
            put_state(module, folder / name)
