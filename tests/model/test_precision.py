"""Number formats and devices, resolved or refused."""

from __future__ import annotations

import builtins
import io
import re
from typing import Any

import pytest
import torch

from coke.model import precision
from coke.model.precision import (
    MEASURED,
    autocast,
    has_native_bf16,
    inference_precision,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")


def fake_cpu(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    """A machine whose /proc/cpuinfo reads like this, or that has none."""
    real_open = builtins.open

    def fake_open(file: Any, *args: Any, **options: Any) -> Any:
        if file != "/proc/cpuinfo":
            return real_open(file, *args, **options)
        if text is None:
            raise FileNotFoundError(file)
        return io.StringIO(text)

    monkeypatch.setattr(builtins, "open", fake_open)


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [
        ("model name : x\nflags\t\t: fpu avx2 avx512f\n", False),
        ("flags\t\t: fpu avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu not_avx512_bf16_really\n", False),
        ("Features : fp asimd\n", False),
        ("", False),
        (None, False),
    ],
)
def test_auto_takes_bf16_only_where_hardware_computes_it(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, native: bool
) -> None:
    fake_cpu(monkeypatch, cpuinfo)
    assert has_native_bf16(CPU) is native
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"  # an explicit choice is taken as it is


@pytest.mark.parametrize("supported", [False, True])
def test_auto_on_a_gpu_does_not_count_emulation(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    expected = "bf16" if supported else "fp32"
    assert resolve_precision("auto", torch.device("cuda")) == expected


def test_unknown_precision_is_named() -> None:
    message = "precision is 'int8'; choose one of auto, fp32, tf32, bf16, fp16"
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_precision("int8", CPU)
    with pytest.raises(ValueError, match="precision is 'tf32', which cpu does not have; use fp32"):
        resolve_precision("tf32", CPU)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(name: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2)
    with precision.autocast(name, CPU):
        assert layer(torch.ones(1, 2)).dtype == dtype
    with autocast(name, CPU):
        assert torch.is_autocast_enabled("cpu") == (name == "bf16")


def test_resolve_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ValueError, match="device is 'cuda:1', but torch sees no GPU here"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="device is 'cuda:1', but there are 1 GPUs"):
        resolve_device("cuda:1")
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize("device", ["gpu", "mps", "", "cuda:x"])
def test_unknown_devices_are_named(device: str) -> None:
    message = f"device is {device!r}; choose auto, cpu, cuda or cuda:N"
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_device(device)


@pytest.mark.parametrize(
    ("setting", "plain_cpu", "bf16_cpu", "gpu"),
    [
        ("auto", "fp32", MEASURED, "bf16"),
        ("fp32", "fp32", "fp32", "fp32"),
        ("tf32", "fp32", "fp32", "tf32"),
        ("bf16", "fp32", "bf16", "bf16"),
        ("fp16", "fp32", "fp32", "fp16"),
    ],
)
def test_inference_is_in_the_runs_precision_where_the_device_has_it(
    setting: str, plain_cpu: str, bf16_cpu: str, gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert inference_precision(setting, torch.device("cuda")) == gpu
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: False)
    assert inference_precision(setting, CPU) == plain_cpu
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: True)
    assert inference_precision(setting, CPU) == bf16_cpu
    with pytest.raises(ValueError, match="precision is 'int8'; choose one of auto, fp32"):
        inference_precision("int8", CPU)


def test_a_gpu_without_bf16_infers_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert inference_precision("auto", torch.device("cuda")) == "fp32"
    assert inference_precision("bf16", torch.device("cuda")) == "fp32"
