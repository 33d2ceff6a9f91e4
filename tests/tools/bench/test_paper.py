"""Projections by hand."""

from __future__ import annotations

import pytest

from coke.tools.bench.paper import IMAGENET_IMAGES, imagenet_minutes, project


def test_the_papers_own_rate_gives_its_own_minutes() -> None:
    assert IMAGENET_IMAGES == 1_281_167
    assert imagenet_minutes(2542.0) == pytest.approx(8.4, abs=0.005)
    assert imagenet_minutes(2542.0 / 8, gpus=8) == pytest.approx(8.4, abs=0.005)


def test_spells_out_what_it_assumes() -> None:
    common = {"device": "H100", "cores": 16, "batch_size": 128, "image_kilobytes": 110.2}
    one = project(100.0, gpus=1, **common)  # type: ignore[arg-type]
    eight = project(100.0, gpus=8, **common)  # type: ignore[arg-type]
    assert one.minutes == pytest.approx(8 * eight.minutes)
    assert "110 kB" in one.assumptions[0]
    assert not any("gradients" in line for line in one.assumptions)
    text = "; ".join(eight.assumptions)
    for named in ("8 devices", "H100", "16 CPU cores", "a batch of 1,024", "gradients"):
        assert named in text
