"""Tiny labelled data sets and settings that train in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from coke.config.clustering import ClusteringConfig
from coke.config.config import Config
from coke.config.presets import presets
from coke.model.coke_model import ModelConfig
from coke.tools.datasets.ingest import ingest


def draw_stripes(folder: Path, images: int, seed: int) -> None:
    """Two classes, of horizontal and of vertical stripes, with noise."""
    rng = np.random.default_rng(seed)
    for i in range(images):
        stripes = np.where(np.arange(16) // 2 % 2, 200, 50)
        plane = np.tile(stripes, (16, 1)) if i % 2 else np.tile(stripes, (16, 1)).T
        pixels = plane[..., None] + rng.integers(-40, 40, (16, 16, 3))
        place = folder / ("vertical" if i % 2 else "horizontal")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i:03d}.jpg")


def equal_states(a: Any, b: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal_states(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal_states, a, b))
    return bool(a == b)


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a train (60 images) and a test (20 images) data set of two classes."""
    root = tmp_path_factory.mktemp("stripes")
    draw_stripes(root / "src" / "train", 60, seed=0)
    draw_stripes(root / "src" / "test", 20, seed=1)
    ingest(root / "src", root / "out", workers=1, console=Console(quiet=True))
    return root / "out"


def tiny_config() -> Config:
    """A ResNet-10 of width 8 at 16 pixels, two heads, three batches of 16 and one of 12."""
    view = replace(presets["cifar10"].view, size=16, evaluation_size=0)
    return replace(
        presets["demo"],
        preset="custom",
        epochs=3,
        batch_size=16,
        device="cpu",
        threads=1,
        keep_checkpoints=10,
        start_size=0,
        view=view,
        second_view=view,
        model=ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8),
        optimizer=replace(presets["demo"].optimizer, lr=0.15),
        clustering=ClusteringConfig(n_clusters=(3, 5)),
    )


@pytest.fixture
def tiny() -> Config:
    """See :func:`tiny_config`."""
    return tiny_config()


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)
