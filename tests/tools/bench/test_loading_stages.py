"""The loader's stages are timed where they can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from coke.config.config import Config
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.views import dali
from coke.tools.bench.loading_stages import LOADING_STAGES, LoadingStages

CPU = torch.device("cpu")


@pytest.mark.skipif(not dali.AVAILABLE, reason="DALI is not installed here")
def test_times_all_three_with_dali(stripes: Path, tiny: Config) -> None:
    index = ImageIndex(stripes / "train")
    found = LoadingStages(tiny, index, [tiny.data.view] * 2, CPU).milliseconds(0.01)
    assert tuple(found) == LOADING_STAGES
    assert all(milliseconds > 0 for milliseconds in found.values())


def test_times_only_bytes_where_decoding_and_augmenting_are_one(
    stripes: Path, tiny: Config
) -> None:
    config, index = tiny.changed(data={"loader": "pil"}), ImageIndex(stripes / "train")
    assert tuple(LoadingStages(config, index, [tiny.data.view], CPU).milliseconds(0.01)) == (
        "bytes by id",
    )
