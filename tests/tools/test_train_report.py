"""What an epoch shows: its line, its scalars, its warnings."""

from __future__ import annotations

from dataclasses import replace

from coke.clustering import HeadReport
from coke.tools.train_report import EpochRecord, collapse_warnings, epoch_lines, scalars

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


def test_warns_of_a_loss_at_chance_but_not_at_the_start() -> None:
    stuck = replace(RECORD, loss_over_chance=0.99)
    (warning,) = collapse_warnings(stuck, 100)
    assert "0.99 of ln K" in warning and "temperature" in warning
    assert collapse_warnings(replace(stuck, epoch=2), 100) == []
