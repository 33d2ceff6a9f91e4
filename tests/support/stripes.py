"""Images of two classes that a network learns to tell apart within seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


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
