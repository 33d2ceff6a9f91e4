"""What FFCV's loader is not asked to do is said before ffcv is even imported."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import build_loader
from coke.tools.datasets.ingest import ingest

CROP_ONLY = ViewRecipe(size=16, jitter_p=0, gray_p=0, blur_p=0)


def test_other_augmentations_are_refused(color_set: Path) -> None:
    recipe = replace(CROP_ONLY, jitter_p=0.8, blur_p=0.5)
    expected = (
        "loader ffcv crops, flips and normalises, nothing else, and view 1 has jitter_p=0.8, "
        "blur_p=0.5: add --set data.view.jitter_p=0 --set data.view.blur_p=0, or use loader dali"
    )
    with pytest.raises(ValueError, match=expected):
        build_loader(ImageIndex(color_set), [CROP_ONLY, recipe], batch_size=4, backend="ffcv")


def test_a_data_set_that_is_not_one_beton_is_refused(color_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is 3 containers of format wds: `coke ingest --format"):
        build_loader(ImageIndex(color_set), [CROP_ONLY], batch_size=4, backend="ffcv")
    ingest(
        color_set.parent / "src",
        tmp_path / "out",
        format="ffcv",
        shard_size=10,
        workers=1,
        console=Console(quiet=True),
    )
    with pytest.raises(ValueError, match="is 3 containers of format ffcv"):
        build_loader(ImageIndex(tmp_path / "out"), [CROP_ONLY], batch_size=4, backend="ffcv")


def test_without_the_library_the_message_says_what_to_install(
    color_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = color_set.parent / "src", tmp_path / "out"
    ingest(source, out, format="ffcv", shard_size=0, workers=1, console=Console(quiet=True))
    monkeypatch.setitem(sys.modules, "ffcv.loader", None)
    monkeypatch.setitem(sys.modules, "ffcv", None)
    with pytest.raises(ValueError, match=r"needs the ffcv library .*pip install 'coke\[ffcv\]'"):
        build_loader(ImageIndex(out), [CROP_ONLY], batch_size=4, backend="ffcv")
