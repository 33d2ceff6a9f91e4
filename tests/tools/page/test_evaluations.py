"""Results of a run beside their baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.results import keep_result
from coke.tools.page.evaluations import Evaluation, evaluations_section, read_evaluations
from tests.support.eval_report import REPORT


def result(**rows: Any) -> Evaluation:
    return Evaluation(method="knn", epoch=3, tested_on="10 of /d", rows=rows)


def test_what_an_evaluation_keeps_is_read_back(tmp_path: Path) -> None:
    keep_result(REPORT, tmp_path)
    (found,) = read_evaluations(tmp_path)
    assert (found.title, found.tested_on, found.top1) == ("knn, epoch 1", "10 of /d/val", 50.0)
    (table,) = evaluations_section([found]).tables
    assert table.header == ("evaluation", "test images", "features", "top-1 %", "top-5 %")
    assert table.rows == [
        ("knn, epoch 1", "10 of /d/val", "CoKe", "50.00 (23.66 to 76.34)", "90.00")
    ]


def test_baselines_stand_below_each_other_and_the_newest_evaluation_first() -> None:
    old = result(**{"raw pixels": {"top1": 40.0, "top5": None}, "CoKe": {"top1": 50.0}})
    new = Evaluation(method="clusters", epoch=None, tested_on="", rows={"CoKe": {"nmi": 0.5}})
    section = evaluations_section([old, new])
    assert section.tables[0].header == ("evaluation", "test images", "features", "top-1 %", "NMI")
    assert section.tables[0].rows == [
        ("clusters", "", "CoKe", "", "0.500"),
        ("knn, epoch 3", "10 of /d", "raw pixels", "40.00", ""),
        ("", "", "CoKe", "50.00", ""),
    ]
    assert section.note == ""
    assert old.best_baseline() == ("raw pixels", 40.0) and new.best_baseline() is None


def test_intervals_and_deviations_stand_in_parentheses() -> None:
    row = {"top1": 50.0, "top1_interval": [45.0, 55.0], "ari": 0.25, "ari_deviation": 0.01,
           "ari_seeds": 3, "chosen": {"lr": 0.1}}  # fmt: skip
    section = evaluations_section([result(CoKe=row)])
    assert section.tables[0].rows[0][3:] == ("50.00 (45.00 to 55.00)", "0.250 (± 0.01)")
    assert "confidence interval" in section.note


def test_nothing_evaluated_and_a_file_that_is_damaged(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path) == []
    assert "Nothing was evaluated" in evaluations_section([]).lines[0]
    for text in ("{", "[]", json.dumps({"a": {"rows": {}}})):
        (tmp_path / "eval.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"eval\.json cannot be read"):
            read_evaluations(tmp_path)


def test_the_metrics_of_accuracy_have_headings() -> None:
    assert set(vars(Accuracy(top1=1.0, top5=2.0))) == {"top1", "top5"}
