"""Ratios by hand; every method takes a step; nothing is compared across views or left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.bench.methods import MethodTime, _contenders, measure_methods, ratios
from coke.tools.bench.timing import Spread, Turns


def method(name: str, alone: float | None, training: float = 1.0) -> MethodTime:
    def spread(value: float) -> Spread:
        return Spread.of([value])

    return MethodTime(
        name=name,
        views=1,
        precision="fp32",
        alone=None if alone is None else spread(alone),
        training=None if alone is None else spread(training),
        missing="no such hardware" if alone is None else "",
    )


def test_ratios_of_time_beside_the_papers() -> None:
    found = ratios(
        [method("CoKe", 60, 90), method("CoKe+", None), method("MoCo-v2", 100, 180),
         method("SwAV", 120, 180)]
    )  # fmt: skip
    assert [(r.method, r.other) for r in found] == [("CoKe", "MoCo-v2"), ("CoKe", "SwAV")]
    assert [(r.alone, r.training) for r in found] == [(0.6, 0.5), (0.5, 0.5)]
    paper = [0 if r.paper is None else round(r.paper, 2) for r in found]
    assert paper == [0.61, 0.53]


@pytest.mark.slow
def test_all_methods_are_timed(stripes: Path, tiny: Config) -> None:
    said: list[str] = []
    turns = Turns(seconds=0.01, rounds=1, progress=said.append)
    index = ImageIndex(stripes / "train")
    found = measure_methods(tiny, index, torch.device("cpu"), "fp32", turns)
    views = {m.name: m.views for m in found}
    assert views.pop("CoKe+") == 1
    assert views == {
        "CoKe": 1, "CoKe, two views": 2, "CoKe, multi-crop": 8, "MoCo-v2": 2, "SwAV": 2,
    }  # fmt: skip
    for m in found:
        assert (m.alone is None) == (m.training is None) == bool(m.missing)
        if m.alone is not None and m.training is not None:
            assert m.alone.median > 0 and m.training.median > 0
    assert {m.missing for m in found if m.name != "CoKe+"} == {""}


@pytest.mark.parametrize(
    ("device", "native", "asked", "expected"),
    [
        ("cuda", True, "fp32", "bf16"),
        ("cuda", True, "fp16", "fp16"),
        ("cuda", False, "fp32", "fp16"),
        ("cuda", False, "bf16", "fp16"),
        ("cpu", True, "fp16", "bf16"),
    ],
)
def test_mixed_precision_is_measured_wherever_it_exists(
    device: str,
    native: bool,
    asked: str,
    expected: str,
    tiny: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coke.tools.bench.methods.has_native_bf16", lambda _device: native)
    built: list[str] = []
    monkeypatch.setattr(
        "coke.tools.bench.methods.CokeStep", lambda _c, _d, precision: built.append(precision)
    )
    contenders = _contenders(tiny, torch.device(device), asked)
    (mixed,) = (c for c in contenders if c.name == "CoKe+")
    mixed.build()
    assert [mixed.precision] == built == [expected]


def test_a_cpu_without_bf16_is_said_to_have_none(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coke.tools.bench.methods.has_native_bf16", lambda _device: False)
    contenders = _contenders(tiny, torch.device("cpu"), "fp32")
    (mixed,) = (c for c in contenders if c.name == "CoKe+")
    with pytest.raises(ValueError, match="this CPU has no bf16 hardware"):
        mixed.build()


def test_peers_are_compiled_and_checkpointed_as_coke_is(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    config = tiny.changed(machine={"compile": True, "checkpoint_activations": True})
    images = list(torch.randn(2, 4, 3, 16, 16))
    for contender in _contenders(config, torch.device("cpu"), "fp32"):
        if contender.name in ("MoCo-v2", "SwAV"):
            peer = contender.build()
            assert torch.isfinite(peer.step(images, torch.arange(4)))
    assert len(compiled) == 3  # MoCo's query and key encoders, SwAV's network


@pytest.mark.parametrize("name", ["CoKe, two views", "CoKe, multi-crop"])
def test_views_of_one_recipe(name: str, tiny: Config) -> None:
    """The second view is drawn as the first, so that the loader's work is the same for all."""
    device = torch.device("cpu")
    (contender,) = (c for c in _contenders(tiny, device, "fp32") if c.name == name)
    assert contender.recipes[:2] == (tiny.data.view, tiny.data.view)
    assert {r.size for r in contender.recipes[2:]} <= {8}  # 96 / 224 of 16 is below the smallest


def test_small_views_of_a_vit_are_whole_patches(tiny: Config) -> None:
    """96 / 224 of 24 pixels is 10.3; 12 is 3 patches of 4."""
    config = replace(
        tiny.changed(data={"view": replace(tiny.data.view, size=24)}),
        model=ModelConfig(backbone="vit", patch=4, image_size=24),
    )
    (contender,) = (
        c for c in _contenders(config, torch.device("cpu"), "fp32") if c.name == "CoKe, multi-crop"
    )
    assert {r.size for r in contender.recipes[2:]} == {12}
