"""Ratios by hand; every method takes a step; nothing is compared across views or left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coke.config import Config
from coke.pipeline.index import ImageIndex
from coke.tools.bench.methods import MethodTime, measure_methods, ratios
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


@pytest.mark.parametrize("name", ["CoKe, two views", "CoKe, multi-crop"])
def test_views_of_one_recipe(name: str, tiny: Config) -> None:
    """The second view is drawn as the first, so that the loader's work is the same for all."""
    from coke.tools.bench.methods import _contenders

    device = torch.device("cpu")
    (contender,) = (c for c in _contenders(tiny, device, "fp32") if c.name == name)
    assert contender.recipes[:2] == (tiny.view, tiny.view)
    assert {r.size for r in contender.recipes[2:]} <= {8}  # 96 / 224 of 16 is below the smallest
