"""Projections by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coke.config.config import Config
from coke.tools.bench.paper import IMAGENET_IMAGES, Projection, imagenet_minutes, project


def test_the_papers_own_rate_gives_its_own_minutes() -> None:
    assert IMAGENET_IMAGES == 1_281_167
    assert imagenet_minutes(2542.0) == pytest.approx(8.4, abs=0.005)
    assert imagenet_minutes(2542.0 / 8, gpus=8) == pytest.approx(8.4, abs=0.005)


def projected(gpus: int = 1, config: Config | None = None) -> Projection:
    return project(
        100.0,
        gpus=gpus,
        config=config or Config().changed(data={"batch_size": 128}),
        precision="bf16",
        device="H100",
        cores=16,
        image_kilobytes=110.2,
    )


def test_spells_out_what_it_assumes() -> None:
    one, eight = projected(1), projected(8)
    assert one.minutes == pytest.approx(8 * eight.minutes)
    assert "110 kB" in one.assumptions[0]
    assert "page cache" in one.assumptions[0]
    for left_out in ("scan", "soft labels", "between epochs"):
        assert left_out in one.assumptions[2]
    assert not any("gradients" in line for line in one.assumptions)
    text = "; ".join(eight.assumptions)
    for named in ("8 devices", "H100", "16 CPU cores", "a batch of 1,024", "gradients"):
        assert named in text


def test_says_what_differs_from_the_paper() -> None:
    paper = "paper: ResNet-50, 224 px, 8 × 16 GB GPUs; here: "
    same = Config().changed(data={"batch_size": 128})
    assert projected().beside_the_paper == paper + "ResNet-50, width 64, 1 view of 224 px, bf16"
    smaller = replace(same, model=replace(same.model, depth=18)).changed(data={"views": 2})
    assert projected(config=smaller).beside_the_paper == (
        f"{paper}ResNet-18, width 64, 2 views of 224 px, bf16: not the same work, so the figures "
        "cannot be compared"
    )
    low = same.changed(data={"view": replace(same.data.view, size=96)})
    assert projected(config=low).beside_the_paper.endswith("cannot be compared")
