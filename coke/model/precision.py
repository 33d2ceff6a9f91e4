"""The number format of the forward pass, and the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
#: Of inference on a CPU that computes bf16 in hardware: the first batch decides by its speed.
MEASURED = "measured"


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 in hardware.

    A CPU without such instructions still runs bf16, ten times slower than float32 (62 against 636
    img/s on a CPU with AVX2 only).
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` becomes bf16 if the hardware computes it, else fp32.

    Raises:
        ValueError: an unknown precision, or tf32 on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"precision is 'tf32', which {device} does not have; use fp32")
    return precision


def inference_precision(precision: str, device: torch.device) -> str:
    """The precision of forward passes without gradients, of weights trained in ``precision``.

    It is the run's where the device computes that in hardware, else fp32. On a CPU, ``auto``
    becomes :data:`MEASURED` where there is a choice: for small networks bf16 gains nothing there.

    Args:
        precision: a setting ``machine.precision``.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if device.type == "cpu" and precision == "auto":
        return MEASURED if has_native_bf16(device) else "fp32"
    if device.type == "cpu" and precision in ("tf32", "fp16"):
        return "fp32"
    if precision == "bf16" and not has_native_bf16(device):
        return "fp32"
    return resolve_precision(precision, device)


def set_tensor_cores(precision: str) -> None:
    """Says whether a GPU may round float32 products to TF32; a setting of the whole process.

    ``fp32`` never rounds. ``tf32`` rounds convolutions and matrix products. ``bf16`` and ``fp16``
    round convolutions alone: autocast rounds the network's products more than TF32 would, and
    similarities to centers stay float32.
    """
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales float16's gradients above its smallest number; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass in a resolved precision."""
    if precision in ("fp32", "tf32"):
        return nullcontext()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype)


def resolve_device(device: str) -> torch.device:
    """``auto`` becomes the first GPU, else the CPU.

    Raises:
        ValueError: an unknown device, or a GPU where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; choose auto, cpu, cuda or cuda:N") from error
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; choose auto, cpu, cuda or cuda:N")
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch sees no GPU here; use --device cpu")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {device!r}, but there are {torch.cuda.device_count()} GPUs")
    return resolved
