"""Views of noise in the memory of the device: what the step is timed on alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coke.config.view_recipe import ViewRecipe


def synthetic_views(
    recipes: Sequence[ViewRecipe], batch_size: int, device: torch.device
) -> list[Tensor]:
    """(B, 3, S, S) float32 per recipe, in the memory format of the loader's views."""
    return [
        torch.randn(batch_size, 3, r.size, r.size, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for r in recipes
    ]
