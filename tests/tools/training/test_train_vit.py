"""A vision transformer through the whole loop, its evaluation and its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.config.config import Config
from coke.config.model import ModelConfig
from coke.model.coke_model import CoKe, build_model
from coke.model.vit import VisionTransformer
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.representations import load_run
from coke.tools.features.embed import EmbedSettings, embed
from coke.tools.training.memory_estimate import estimate_memory
from coke.tools.training.train import train
from tests.support.small_vit import WIDTH

pytestmark = pytest.mark.usefixtures("small_vit")
CPU = torch.device("cpu")


@pytest.fixture
def vit(tiny: Config) -> Config:
    """Two growing views and two small ones, of 4 to 9 patches; evaluated on 16 patches."""
    return replace(
        tiny,
        model=ModelConfig(
            backbone="vit",
            size="tiny",
            patch=4,
            image_size=16,
            drop_path=0.2,
            freeze_patches=True,
            projector_hidden=16,
            dim=8,
        ),
    ).changed(
        data={
            "loader": "pil",
            "views": 2,
            "small_views": 2,
            "start_size": 8,
            "small_view": replace(tiny.data.view, size=8),
        },
        optimizer={"name": "adamw", "lr": 0.002, "epochs": 2, "clip_norm": 3.0},
    )


@pytest.mark.slow
def test_views_of_three_sizes_train_it_and_its_features_are_evaluated(
    stripes: Path, vit: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[tuple[int, ...]] = []
    forward = CoKe.forward

    def spy(self: CoKe, views: Sequence[Tensor]) -> Any:
        fed.append(tuple(view.shape[-1] for view in views))
        return forward(self, views)

    monkeypatch.setattr(CoKe, "forward", spy)
    run = tmp_path / "run"
    train(vit, stripes, run, console=quiet)
    assert list(dict.fromkeys(fed)) == [(8, 8), (8, 8, 8), (12, 12, 8)]
    _, model, _ = load_run(run)
    net = model.backbone
    assert isinstance(net, VisionTransformer)
    fresh = VisionTransformer(size="tiny", patch=4, image_size=16)
    assert fresh.state_dict().keys() == net.state_dict().keys()
    report = eval_knn(run, stripes, console=quiet)
    assert report.rows["CoKe"].top1 > 0
    embed(run, stripes, tmp_path / "features", EmbedSettings(device="cpu"), console=quiet)
    assert np.load(tmp_path / "features" / "features.npy").shape == (60, WIDTH)
    with pytest.raises(ValueError, match=r"the side of the crops \(--size\) is 18, but ViT-tiny/4"):
        embed(run, stripes, tmp_path / "odd", EmbedSettings(size=18, device="cpu"), console=quiet)
    assert not (tmp_path / "odd").exists()


def test_a_start_size_that_is_no_multiple_of_the_patch_is_refused_before_the_run(
    stripes: Path, vit: Config, tmp_path: Path, quiet: Console
) -> None:
    config = vit.changed(data={"start_size": 10})
    with pytest.raises(ValueError, match="data.start_size is 10, but ViT-tiny/4 takes sides"):
        train(config, stripes, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_its_memory_is_estimated(vit: Config) -> None:
    def estimated(config: Config) -> Any:
        return estimate_memory(
            config,
            config.recipes_at(config.optimizer.epochs),
            n_ids=60,
            pixels=256.0,
            world=1,
            precision="fp32",
            device=CPU,
        )

    deeper = vit.changed(data={"batch_size": 64})
    whole = estimated(deeper)
    less = estimated(deeper.changed(machine={"checkpoint_activations": True}))
    assert 0 < less.activations < 0.7 * whole.activations
    frozen = 4 * (WIDTH * 3 * 4 * 4 + WIDTH)  # bytes of the patches' projection
    # two means of each parameter, and its number of steps
    assert 0 <= whole.optimizer - 2 * whole.gradients < 1000
    frozen = 4 * (WIDTH * 3 * 4 * 4 + WIDTH)  # bytes of the patches' projection
    buffers = build_model(vit.model, 0).buffers()
    assert whole.weights - whole.gradients == frozen + sum(b.nbytes for b in buffers)
