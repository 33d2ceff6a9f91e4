"""The clock of the labels: epoch e is taught what epoch e - 1 wrote, and nothing later.

A spy notes in a plain dictionary which epoch wrote which label for every id.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from coke.clustering import Clustering
from coke.config.config import Config
from coke.tools.training.train import train

N = 60  # images; at batch 16 an epoch is three batches and a ragged one of 12


@dataclass
class Clock:
    """Per id and epoch the labels of all heads, as they were handed to the label store."""

    written: dict[int, dict[int, list[int]]] = field(default_factory=dict)  # epoch -> id -> labels
    read: dict[int, list[int]] = field(default_factory=dict)  # epoch -> ids
    stale: int = 0  # reads of a label that is older than the epoch before

    def note(self, epoch: int, ids: Tensor, labels: list[Tensor]) -> None:
        for row, image_id in enumerate(ids.tolist()):
            of_epoch = self.written.setdefault(epoch, {})
            assert image_id not in of_epoch, f"id {image_id} was written twice in epoch {epoch}"
            of_epoch[image_id] = [int(head[row]) for head in labels]

    def last_before(self, epoch: int, image_id: int) -> int:
        """The newest epoch before ``epoch`` that wrote this id; -1 for none."""
        return max(
            (e for e in self.written if e < epoch and image_id in self.written[e]), default=-1
        )

    def check_read(self, epoch: int, ids: Tensor, targets: list[Tensor]) -> None:
        self.read.setdefault(epoch, []).extend(ids.tolist())
        for row, image_id in enumerate(ids.tolist()):
            wrote = self.last_before(epoch, image_id)
            self.stale += wrote < epoch - 1
            expected = self.written[wrote][image_id] if wrote >= 0 else [-1] * len(targets)
            assert [int(head[row]) for head in targets] == expected


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    seen = Clock()
    targets, step = Clustering.targets, Clustering.step

    def spy_targets(self: Clustering, ids: Tensor) -> list[Tensor]:
        found = targets(self, ids)
        if all(head.ndim == 1 for head in found):
            seen.check_read(self.epoch, ids, found)
        return found

    def spy_step(
        self: Clustering, features: Tensor, ids: Tensor, valid: Tensor | None = None
    ) -> list[Tensor]:
        labels = step(self, features, ids, valid)
        seen.note(self.epoch, ids, labels)
        return labels

    monkeypatch.setattr(Clustering, "targets", spy_targets)
    monkeypatch.setattr(Clustering, "step", spy_step)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 2])
def test_an_epoch_reads_the_labels_of_the_one_before_and_writes_each_id_once(
    stripes: Path, tiny: Config, tmp_path: Path, quiet: Console, clock: Clock, views: int
) -> None:
    train(tiny.changed(data={"views": views}), stripes, tmp_path / "run", console=quiet)
    assert sorted(clock.written) == [0, 1, 2, 3] and sorted(clock.read) == [1, 2, 3]
    assert all(sorted(of_epoch) == list(range(N)) for of_epoch in clock.written.values())
    assert all(sorted(ids) == list(range(N)) for ids in clock.read.values())
    assert clock.stale == 0
    record = json.loads(
        (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    )
    assert record["left_out"] == 0


def test_ids_left_out_keep_their_label_and_are_counted(
    stripes: Path, tiny: Config, tmp_path: Path, clock: Clock
) -> None:
    console = Console(file=io.StringIO(), width=200)
    config = tiny.changed(data={"drop_ragged": True}, optimizer={"epochs": 4})
    train(config, stripes, tmp_path / "run", console=console)
    everything = set(range(N))
    left_out = [everything - set(clock.written[epoch]) for epoch in range(5)]
    assert [len(ids) for ids in left_out] == [12] * 5
    assert len(set(map(frozenset, left_out))) > 1, "others are left out in other epochs"
    stale = sum(len(set(clock.read[e]) & left_out[e - 1]) for e in range(1, 5))
    assert clock.stale == stale > 0, "who was left out is taught the label that was kept"

    state = torch.load(
        tmp_path / "run" / "checkpoints" / "epoch-0004" / "state.pt", weights_only=True
    )
    stored = Clustering(n_ids=N, dim=config.model.dim, n_clusters=config.clustering.n_clusters)
    stored.load_state_dict(state["clustering"])
    for image_id, labels in enumerate(stored.label_store.read(torch.arange(N)).T.tolist()):
        assert labels == clock.written[clock.last_before(5, image_id)][image_id]

    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["left_out"] for line in lines] == [12] * 5
    assert "12 images left out" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_averaged_labels_are_those_of_the_second_stage_up_to_the_epoch_before(
    stripes: Path,
    tiny: Config,
    tmp_path: Path,
    quiet: Console,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second stage starts in epoch 2: epoch e is taught the mean of epochs 2 to e - 1."""
    read = Clustering.targets
    soft_epochs = []

    def spy(self: Clustering, ids: Tensor) -> list[Tensor]:
        found = read(self, ids)
        if found[0].ndim == 2:
            soft_epochs.append(self.epoch)
            for head, target_BK in enumerate(found):
                mean_BK = torch.zeros_like(target_BK)
                for epoch in range(2, self.epoch):
                    for row, image_id in enumerate(ids.tolist()):
                        label = clock.written[epoch][image_id][head]
                        mean_BK[row, label] += 1 / (self.epoch - 2)
                weights_BK = torch.where(mean_BK > 0, (mean_BK / 0.5).exp(), 0.0)
                expected_BK = weights_BK / weights_BK.sum(dim=1, keepdim=True)
                torch.testing.assert_close(target_BK, expected_BK)
        return found

    monkeypatch.setattr(Clustering, "targets", spy)
    config = replace(
        tiny, clustering=replace(tiny.clustering, first_stage_epochs=2, label_temperature=0.5)
    ).changed(optimizer={"epochs": 5})
    train(config, stripes, tmp_path / "run", console=quiet)
    assert sorted(set(soft_epochs)) == [3, 4, 5]
