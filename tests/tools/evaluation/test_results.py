"""``eval.json`` keeps every result, with the run, data and settings it belongs to."""

from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.figures import accuracy_row
from coke.tools.evaluation.results import check_results, keep_result
from tests.support.eval_report import DATA, REPORT, shown


def test_a_result_replaces_only_its_equal(tmp_path: Path) -> None:
    others = [
        replace(REPORT, method="linear"),
        replace(REPORT, epoch=2),
        replace(REPORT, weights_sha256="34"),
        replace(REPORT, settings={"k": 1}),
        replace(REPORT, data=replace(REPORT.data, test=replace(DATA, location="/e/val"))),
        replace(REPORT, data=replace(REPORT.data, test=replace(DATA, identity="12"))),
        replace(REPORT, data=replace(REPORT.data, test=replace(DATA, labels_sha256="23"))),
        replace(REPORT, data=replace(REPORT.data, train=replace(REPORT.data.train, identity="12"))),
        replace(REPORT, data=replace(REPORT.data, test=replace(DATA, images=8, unlabelled=2))),
    ]
    for report in (REPORT, *others):
        path = keep_result(report, tmp_path)
    assert len(json.loads(path.read_text(encoding="utf-8"))) == 1 + len(others)
    again = replace(
        REPORT, run="moved/r", rows={"CoKe": accuracy_row(Accuracy(top1=51.0, top5=None), 10)}
    )
    keep_result(again, tmp_path)
    records = list(json.loads(path.read_text(encoding="utf-8")).values())
    assert len(records) == 1 + len(others), "an equal result is replaced"
    row = records[-1]["rows"]["CoKe"]
    assert (row["top1"], row["top5"]) == (51.0, None)
    assert records[-1]["data"]["test"]["location"] == "/d/val"
    assert records[-1]["evaluated"].endswith("+00:00")


def test_records_of_earlier_versions_stay(tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text('{"knn, epoch 1": {"method": "knn"}}', encoding="utf-8")
    records = json.loads(keep_result(REPORT, tmp_path).read_text(encoding="utf-8"))
    assert len(records) == 2 and records["knn, epoch 1"] == {"method": "knn"}


def test_evaluations_at_one_time_lose_nothing(tmp_path: Path) -> None:
    reports = [replace(REPORT, settings={"k": k}) for k in range(1, 25)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda report: keep_result(report, tmp_path), reports))
    assert len(json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


def test_a_file_system_that_locks_no_folder_keeps_results_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise OSError(errno.EBADF, "Bad file descriptor")  # as on NFS

    monkeypatch.setattr("coke.files.lock.take", refuse)
    assert len(json.loads(keep_result(REPORT, tmp_path).read_text(encoding="utf-8"))) == 1


@pytest.mark.parametrize("text", ['{"knn', "[]", "\x00"])
def test_a_damaged_file_is_told_before_the_work_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "eval.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"eval\.json .*; move it away, then evaluate"):
        check_results(tmp_path)
    assert (tmp_path / "eval.json").read_text(encoding="utf-8") == text


def test_testing_on_the_training_images_is_told() -> None:
    text = "the test images are the training images"
    other = replace(DATA, identity="99")
    assert text in shown(REPORT)
    apart = replace(REPORT, data=replace(REPORT.data, test=other))
    assert text not in shown(apart) and "also training images" not in shown(apart)
    assert "3 of 10 test images are also training images" in shown(
        replace(apart, repeated_images=3)
    )


def test_the_table_names_the_data_and_what_counts_as_an_error() -> None:
    text = shown(
        replace(
            REPORT,
            untrained_classes={"zebra": 3, "yak": 1},
            data=replace(REPORT.data, train=replace(REPORT.data.train, images=8, unlabelled=2)),
        )
    )
    assert "test: 10 images of /d/val\n" in text and "90.00" in text
    assert (
        "4 of 10 test images are of classes without a training image: 'zebra' (3), 'yak' (1)"
        in text
    )
    assert "train: 8 images of /d/train (2 without a label left out)\n" in text


def test_top_5_is_shown_only_where_it_says_something() -> None:
    assert "top-5" in shown(REPORT)
    assert "top-5" not in shown(
        replace(REPORT, rows={"CoKe": accuracy_row(Accuracy(top1=50.0, top5=None), 10)})
    )
