"""What an epoch shows: its line, its scalars, its warnings."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.progress import Progress

from coke.clustering import HeadReport
from coke.tools.runs.record import EpochRecord
from coke.tools.training.meter import EpochMeter
from coke.tools.training.report import collapse_warnings, epoch_lines, kind_of, scalars

HEAD = HeadReport(n_clusters=10, smallest=2, largest=40, empty=0, violation=0.5, churn=0.25)
RECORD = EpochRecord(
    epoch=4,
    loss=1.5,
    loss_over_chance=0.65,
    lr=0.1,
    images_per_second=1234.0,
    data_wait=0.07,
    seconds=2.0,
    heads=[HEAD],
)


def test_line_shows_what_an_epoch_did() -> None:
    assert epoch_lines(RECORD, 20) == (
        "epoch 4/20   loss 1.500 (0.65 ln K)  1,234 img/s  data wait 7%\n"
        "  K=10: 2-40 images, 0 empty, violation 50.0%, churn 25%"
    )
    scan = replace(RECORD, epoch=0, loss=None, loss_over_chance=None)
    assert epoch_lines(scan, 20).startswith("scan         1,234 img/s")


def test_scalars_leave_out_the_loss_of_the_scan() -> None:
    assert scalars(RECORD)["train/loss"] == 1.5
    assert scalars(RECORD)["head0/violation"] == 0.5
    assert "train/loss" not in scalars(replace(RECORD, loss=None, loss_over_chance=None))


def test_warns_of_one_cluster_that_holds_most_images() -> None:
    assert collapse_warnings(RECORD, 100) == []
    (warning,) = collapse_warnings(RECORD, 79)
    assert "one cluster of head 0 (K=10) holds 51% of the images" in warning
    assert "min_ratio" in warning


def test_half_of_the_images_are_no_collapse_of_two_clusters() -> None:
    two = replace(RECORD.heads[0], n_clusters=2, largest=75)
    assert collapse_warnings(replace(RECORD, heads=[two]), 100) == []
    assert len(collapse_warnings(replace(RECORD, heads=[replace(two, largest=76)]), 100)) == 1


def test_warnings_of_one_kind_differ_in_figures_only() -> None:
    """The reporter tells the first of several epochs in a row."""
    ((first,), (second,)) = (collapse_warnings(RECORD, n) for n in (79, 70))
    assert first != second and kind_of(first) == kind_of(second)
    (stuck,) = collapse_warnings(replace(RECORD, loss_over_chance=0.99), 100)
    assert kind_of(stuck) != kind_of(first)


def test_warns_of_a_loss_at_chance_but_not_at_the_start() -> None:
    stuck = replace(RECORD, loss_over_chance=0.99)
    (warning,) = collapse_warnings(stuck, 100)
    assert "0.99 of ln K" in warning and "temperature" in warning
    assert collapse_warnings(replace(stuck, epoch=2), 100) == []


def test_warns_of_features_that_point_one_way_but_not_at_the_scan() -> None:
    flat = replace(RECORD, effective_rank=1.26)
    (warning,) = collapse_warnings(flat, 100)
    assert "effective rank of the features is 1.3" in warning and "optimizer.lr" in warning
    assert collapse_warnings(replace(flat, epoch=0), 100) == []
    assert collapse_warnings(replace(flat, effective_rank=2.1), 100) == []


def test_what_was_skipped_and_probed_is_shown_and_logged() -> None:
    record = replace(RECORD, skipped_steps=3, probe=61.5, linear_probe=70, peak_memory=2**30)
    first, features, _ = epoch_lines(record, 20).split("\n")
    assert (
        first.endswith("data wait 7%  3 steps skipped")
        and features == "  features: k-NN 61.50, linear 70.00"
    )
    found = scalars(record)
    assert (found["train/skipped_steps"], found["probe/knn_top1"]) == (3, 61.5)
    assert found["probe/linear_top1"] == 70
    assert found["train/peak_memory"] == 2**30
    assert not [name for name in scalars(RECORD) if name.startswith("probe/")]


def test_ranks_are_shown_and_logged_where_there_are_any() -> None:
    record = replace(RECORD, effective_rank=101.26, projected_rank=31.04)
    _, line, _ = epoch_lines(record, 20).split("\n")
    assert line == "  features: effective rank 101.3, projected 31.0"
    found = scalars(record)
    assert found["features/effective_rank"] == 101.26
    assert found["features/projected_rank"] == 31.04
    assert not [name for name in scalars(RECORD) if name.startswith("features/")]


def test_a_record_comes_back_from_its_line() -> None:
    line = json.loads(json.dumps(asdict(RECORD)))
    assert EpochRecord.of(line) == RECORD


YES = torch.tensor(True)


def test_a_meter_goes_on_where_it_was() -> None:
    """Two halves of an epoch count what the whole counts, to the bit."""
    device = torch.device("cpu")
    losses = torch.rand(5, generator=torch.Generator().manual_seed(0)) / 3

    def meter(state: dict[str, Any] | None = None) -> EpochMeter:
        progress = Progress(disable=True)
        tasks = progress.add_task("a"), progress.add_task("b")
        return EpochMeter(1, progress, tasks, device, state=state)

    whole, half = meter(), meter()
    for i in range(5):
        whole.update(10 + i, losses[i], YES)
        if i == 3:
            half.update(7, torch.tensor(float("nan")), ~YES)
            half.skipped = 1
            half = meter(half.state())
        half.update(10 + i, losses[i], YES)
    assert whole.mean_loss() == half.mean_loss()
    assert (half.images, half.skipped, whole.skipped) == (whole.images + 7, 1, 0)
    assert meter(meter().state()).mean_loss() is None
