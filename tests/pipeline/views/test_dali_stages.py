"""Decoding and augmenting one after the other gives what the whole graph gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack

from coke.config.view_recipe import IMAGENET_SINGLE_VIEW, IMAGENET_TWO_VIEW, ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.reader import RecordReader
from coke.pipeline.views import dali
from coke.pipeline.views.draw import draw

if not dali.AVAILABLE:
    pytest.skip("DALI is not installed here", allow_module_level=True)

from coke.pipeline.views.dali_stages import DaliStages
from coke.pipeline.views.dali_views import DaliViews


@pytest.mark.parametrize("recipes", [(IMAGENET_SINGLE_VIEW,), IMAGENET_TWO_VIEW])
def test_agrees_with_the_whole_graph(color_set: Path, recipes: tuple[ViewRecipe, ...]) -> None:
    index, ids = ImageIndex(color_set), np.arange(5)
    encoded = RecordReader(index).read(ids)
    sides = [index.rows[side][ids].astype(np.int64) for side in ("height", "width")]
    drawn = [
        draw(r, seed=0, epoch=1, view=v, ids=ids, heights=sides[0], widths=sides[1])
        for v, r in enumerate(recipes)
    ]
    whole = DaliViews(recipes, batch_size=8, device="cpu", threads=1)
    stages = DaliStages(recipes, batch_size=8, device="cpu", threads=1)
    (expected,) = whole.stream(iter([(encoded, drawn)]))
    for _ in range(2):  # a second batch finds nothing left of the first
        views = stages.augment(stages.decode(encoded, drawn), drawn)
        assert len(views) == len(recipes)
        for view, want in zip(views, expected, strict=True):
            got = from_dlpack(view.as_tensor()).permute(0, 3, 1, 2)
            assert torch.equal(got, want)
