"""LoRA and QLoRA: the set-up of a model for training, and its trained weights to and from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution.config import LoraSettings, QuantizationSettings
from solution.errors import UserError

ADAPTER = "adapter_model.safetensors"


def quantization_config(
    settings: QuantizationSettings | None, compute: torch.dtype, new_modules: Iterable[str] = ()
) -> Any:
    """The BitsAndBytesConfig of a 4-bit base model, or None.

    Args:
        new_modules: stay in full precision, since they are trained whole; where a family has none,
            transformers leaves the output layer alone.
    """
    if settings is None:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.kind,
        bnb_4bit_use_double_quant=settings.double,
        bnb_4bit_compute_dtype=compute,
        # The name says 8 bits and holds for 4 too: ends of module names, or patterns of whole names.
        llm_int8_skip_modules=[text for name in new_modules for text in (name, rf"(?:.*\.)?{name}")] or None,
    )


def keep_exact_on_cpu(model: nn.Module) -> None:
    """Switch off bitsandbytes' packed CPU kernel.

    On CPUs with AVX512-BF16 the first forward pass in eval mode repacks the 4-bit weights for a
    kernel without gradients; later training steps then silently lose them.
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def prepare_quantized(model: nn.Module, gradient_checkpointing: bool) -> nn.Module:
    """Make a 4-bit model ready for LoRA (norms in float32, inputs that carry gradients)."""
    from peft import prepare_model_for_kbit_training

    keep_exact_on_cpu(model)
    return prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )


def dequantize(model: Any, dtype: torch.dtype) -> Any:
    """Take a 4-bit model's weights back to ordinary ones, rounded as they are: what an adapter was trained on.

    Before any forward pass: weights that the packed CPU kernel has repacked come back as garbage.
    """
    return model.dequantize(dtype=dtype).to(dtype)


def bits_per_parameter(model: nn.Module) -> dict[str, float]:
    """The bits that a parameter takes in memory, quantization constants counted.

    A 4-bit weight has a constant for each block of 64: 32 bits, so 0.5 bits a parameter; with
    double quantisation 8 bits and 32 bits more for each 256 blocks, so 0.127 (QLoRA, section 3).
    bitsandbytes keeps the tables of the levels, 16 and 256 numbers, with each matrix; they count too.

    Returns:
        `quantized`: of the 4-bit weights; `model`: of all parameters, trained ones included.

    Raises:
        ValueError: no weight is quantized.
    """
    seen: set[int] = set()

    def bits(tensor: torch.Tensor | None) -> int:
        if tensor is None or tensor.data_ptr() in seen:
            return 0
        seen.add(tensor.data_ptr())
        return tensor.numel() * tensor.element_size() * 8

    small = count = 0
    whole, total = 0, 0
    for parameter in model.parameters():
        size = bits(parameter)
        if size == 0:
            continue
        state = getattr(parameter, "quant_state", None)
        elements = parameter.numel()
        if state is not None:
            elements = state.shape.numel()
            second = [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
            size += sum(map(bits, (state.absmax, state.code, *second)))
            small, count = small + size, count + elements
        whole, total = whole + size, total + elements
    if not count:
        raise ValueError("no weight of the model is quantized")
    return {"quantized": round(small / count, 4), "model": round(whole / total, 4)}


def add_lora(model: nn.Module, settings: LoraSettings, new_modules: Iterable[str]) -> Any:
    """Wrap a model with LoRA; `new_modules` (a fresh head, a fresh pooler) are trained whole and saved.

    Raises:
        UserError: PEFT refuses the settings for this architecture.
    """
    from peft import LoraConfig, get_peft_model

    values = settings.model_dump()
    # A module trained whole is copied by PEFT; one named but absent would be ignored in silence.
    present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    absent = [name for name in settings.modules_to_save if name not in present]
    if absent:
        raise UserError(f"lora.modules_to_save names no module of the model: {', '.join(absent)}")
    # A copy of a 4-bit weight could not be trained.
    whole = {*settings.modules_to_save, *new_modules}
    quantized = [
        name
        for name, module in model.named_modules()
        if hasattr(getattr(module, "weight", None), "quant_state") and whole & set(name.split("."))
    ]
    if quantized:
        raise UserError(
            f"lora.modules_to_save names a module with 4-bit weights ({quantized[0]}), which cannot be trained whole: "
            "give it LoRA by lora.target_modules instead, or set quantization to null"
        )
    values["modules_to_save"] = sorted(whole) or None
    try:
        wrapped = get_peft_model(model, LoraConfig(**values))  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise UserError(f"PEFT refuses the lora settings: {error}") from None
    return wrapped


def trainable_in_float32(modules: Iterable[nn.Module]) -> tuple[int, int]:
    """Cast every trainable parameter to float32, and count the parameters.

    Half-precision weights lose small AdamW updates: the loss then stays at ln(options) for ever.

    Returns:
        (trainable, all) parameter counts; a 4-bit weight counts its elements, not its bytes.
    """
    trainable = total = 0
    for module in modules:
        for parameter in module.parameters():
            count = parameter.numel()
            shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
            if shape is not None:
                count = int(torch.Size(shape).numel())
            total += count
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                trainable += count
    return trainable, total


def save_adapter(model: Any, folder: Path) -> None:
    """Write a PEFT model's adapter, new modules included, in PEFT's own format (safetensors)."""
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    for leftover in folder.glob("README.md"):
        leftover.unlink()


def load_adapter(model: Any, folder: Path) -> None:
    """Put a saved adapter's weights into a PEFT model of the same settings, in place.

    Raises:
        UserError: tensors are missing, unexpected or of another shape, or the file is corrupt.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    tensors = read_tensors(folder / ADAPTER)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    check_tensors(tensors, {name: tuple(value.shape) for name, value in expected.items()}, folder / ADAPTER)
    set_peft_model_state_dict(model, tensors)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: missing or corrupt.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"the weights {path} are missing or corrupt ({error}). Train that fold again.") from None


def check_tensors(tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], path: Path) -> None:
    """Raise `UserError` unless names and shapes are those expected."""
    got = {name: tuple(value.shape) for name, value in tensors.items()}
    if got != expected:
        wrong = sorted(set(got.items()) ^ set(expected.items()))
        name, shape = wrong[0]
        side = "in the file" if got.get(name) == shape else "expected"
        raise UserError(
            f"{path} does not fit this ranker's settings: {len(wrong)} tensors differ, the first is {name} "
            f"of shape {list(shape)} {side}. Train that fold again, or use the config that it was trained with."
        )


def module_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's weights for a safetensors file."""
    # Tied weights share memory, which safetensors refuses: clone every tensor.
    return {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}


def put_state(module: nn.Module, path: Path) -> None:
    """Put the weights of a safetensors file into a module, in place.

    Raises:
        UserError: tensors are missing, unexpected or of another shape, or the file is corrupt.
    """
    tensors = read_tensors(path)
    check_tensors(tensors, {name: tuple(value.shape) for name, value in module.state_dict().items()}, path)
    module.load_state_dict(tensors)
