"""A run on chosen ids: which images it sees, what it keeps, and how it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.clustering import Clustering
from coke.clustering.label_store import LabelStore
from coke.config.config import Config
from coke.pipeline.dataset.chosen_ids import hash_of_ids
from coke.pipeline.dataset.index import ImageIndex
from coke.tools.page.report import run_page
from coke.tools.runs.checkpoint import CheckpointName, list_checkpoints, load_checkpoint
from coke.tools.runs.checkpoint_writer import CheckpointWriter
from coke.tools.runs.run_folder import RunFolder
from coke.tools.training.start import check_fits
from coke.tools.training.train import train
from tests.support import command_line
from tests.support.equal_states import equal_states

CHOSEN = np.array([58, 1, 2, 3, 5, 8, 13, 21, 34, 55, 30, 31, 32, 33, 40, 41, 42, 43, 44, 45])


def newest(run: Path) -> dict[str, Any]:
    return load_checkpoint(list_checkpoints(run / "checkpoints")[-1])


@pytest.mark.slow
def test_each_chosen_image_once_an_epoch_and_again_after_any_step(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 of 60 images: batches of 12 and 8. A copy after each save is what a kill leaves."""
    config = tiny.changed(
        optimizer={"epochs": 1},
        data={"loader": "pil", "batch_size": 12},
        run={"checkpoint_every": 1},
    )
    whole, left, seen = tmp_path / "whole", tmp_path / "left", []
    step, save = Clustering.step, CheckpointWriter.save

    def spy_step(
        self: Clustering, features: Tensor, ids: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        seen.extend(ids.tolist())
        return step(self, features, ids, valid)

    def save_and_copy(self: CheckpointWriter, moment: CheckpointName, *args: Any) -> None:
        save(self, moment, *args)
        self.wait()
        shutil.copytree(whole, left / moment.folder_name, symlinks=True)

    monkeypatch.setattr(Clustering, "step", spy_step)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "save", save_and_copy)
        train(config, stripes, whole, ids=CHOSEN, console=quiet)
    assert sorted(seen[:20]) == sorted(seen[20:]) == sorted(CHOSEN.tolist())
    assert seen[:20] != seen[20:]
    final = newest(whole)
    store = LabelStore(60, config.clustering.n_clusters)  # by the data set's own ids
    store.load_state_dict(final["clustering"]["label_store"])
    for labels in store.read(torch.arange(60)).numpy():
        assert np.flatnonzero(labels >= 0).tolist() == sorted(CHOSEN.tolist())
    assert np.load(whole / "ids.npy").tolist() == sorted(CHOSEN.tolist())
    said = json.loads((whole / "data.json").read_text(encoding="utf-8"))
    sha256 = hash_of_ids(np.sort(CHOSEN))
    assert said["count"] == 60 and said["ids"] == {"images": 20, "sha256": sha256}
    assert f"(20 images, chosen by id: ids.npy, hash {sha256[:12]})" in run_page(whole).note
    stops = sorted(left.iterdir(), key=CheckpointName.of)
    assert len(stops) == 4
    for taken, run in enumerate(stops[:-1], start=1):
        uninterrupted = seen[:40]
        del seen[40:]
        ids = CHOSEN if taken == 1 else None  # without --ids, those of the run
        train(config, stripes, run, ids=ids, resume=True, console=quiet)
        assert seen[40:] == uninterrupted[[12, 20, 32][taken - 1] :]
        assert equal_states(newest(run), final), run.name


def test_other_ids_cannot_go_on(stripes: Path, tiny: Config, tmp_path: Path) -> None:
    index = ImageIndex(stripes / "train")
    run, whole = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "whole")
    for folder, view in ((run, index.subset(CHOSEN)), (whole, index)):
        folder.path.mkdir()
        folder.write_description(tiny, view)
    run.check_data(index.subset(CHOSEN[::-1].copy()))
    sha256 = hash_of_ids(np.sort(CHOSEN))[:12]
    other = hash_of_ids(np.arange(3))[:12]
    line = (
        rf"was trained on 20 chosen ids \(hash {sha256}\), this would be 3 chosen ids "
        rf"\(hash {other}\): resume with the same --ids, or without"
    )
    with pytest.raises(ValueError, match=line):
        run.check_data(index.subset([0, 1, 2]))
    with pytest.raises(ValueError, match="this would be all images of the data set: resume"):
        run.check_data(index)
    with pytest.raises(ValueError, match="on all images of the data set, this would be 3 chosen"):
        whole.check_data(index.subset([0, 1, 2]))
    assert run.subset_of(index).live_ids is not None and whole.subset_of(index) is index
    assert whole.chosen_ids() is None
    np.save(run.path / "ids.npy", np.arange(20))
    with pytest.raises(ValueError, match=r"ids\.npy holds other ids than .*data\.json says"):
        run.chosen_ids()
    (run.path / "ids.npy").unlink()
    with pytest.raises(ValueError, match=r"ids\.npy cannot be read .*give a copy of the file"):
        run.subset_of(index)


def test_sizes_are_those_of_the_subset(stripes: Path, tiny: Config, quiet: Console) -> None:
    """60 images are enough for each of these; the chosen ones are not."""
    index = ImageIndex(stripes / "train")
    config = tiny.changed(data={"batch_size": 32, "drop_ragged": True})
    device: Any = "cpu"
    with pytest.raises(ValueError, match="batch_size is 32 but the data set has 20 images, and"):
        check_fits(config, index.subset(CHOSEN), device, quiet)
    config = tiny.changed(data={"batch_size": 19})
    with pytest.raises(ValueError, match="with 20 images the last batch has 1, too few"):
        check_fits(config, index.subset(CHOSEN), device, quiet)
    with pytest.raises(ValueError, match="the data set has 1 image; training needs at least 2"):
        check_fits(config, index.subset([4]), device, quiet)


def test_bad_ids_are_one_line(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    np.save(tmp_path / "kept.npy", np.array([3, 60]))
    given = ("--ids", tmp_path / "kept.npy")
    for command in (
        ("train", stripes, "--out", tmp_path / "run", "--preset", "demo"),
        ("embed", "pixels", stripes, tmp_path / "features"),
        ("inspect", stripes),
    ):
        line = command_line.fails(monkeypatch, capsys, *command, *given, status=2)
        assert "kept.npy has id 60, but the ids of" in line and "are 0 to 59" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.npy"]
