"""Curves are the records: of every epoch and head, with gaps where a number is not finite."""

from __future__ import annotations

from typing import Any

from coke.tools.page.content import Chart, Section
from coke.tools.page.curves import curves_section
from coke.tools.page.run_records import RunRecords
from tests.support.made_run import head, record

IMAGES = 1000


def section(*lines: dict[str, Any]) -> Section:
    return curves_section(RunRecords(lines=lines, count=IMAGES))


def chart(of: Section, title: str) -> Chart:
    (found,) = [chart for chart in of.charts if chart.title.startswith(title)]
    return found


def test_a_curve_for_each_head_from_the_epochs_that_have_it() -> None:
    heads = [head(10, IMAGES), head(50, IMAGES)]
    lines = [record(0, heads, IMAGES)]
    for epoch, churn in ((1, 0.75), (2, 0.5)):
        heads = [head(10, IMAGES, churn=churn, largest=200), head(50, IMAGES, churn=0.9)]
        lines.append(record(epoch, heads, IMAGES))
    found = section(*lines)
    churn10, churn50 = chart(found, "Churn").figure["data"]
    assert (churn10["name"], churn10["x"], churn10["y"]) == ("K=10", [1, 2], [0.75, 0.5])
    assert (churn50["name"], churn50["y"]) == ("K=50", [0.9, 0.9])
    sizes = chart(found, "Largest and smallest").figure["data"]
    assert [(c["name"], c["y"]) for c in sizes] == [
        ("K=10", [1.0, 2.0, 2.0]),
        ("K=10, smallest", [1.0, 1.0, 1.0]),
        ("K=50", [1.0, 1.0, 1.0]),
        ("K=50, smallest", [1.0, 1.0, 1.0]),
    ]
    (loss,) = chart(found, "Loss as").figure["data"]
    assert loss["x"] == [1, 2], "the scan has no loss"
    assert "No head had an empty cluster in any epoch." in found.lines
    assert not [c for c in found.charts if c.title.startswith("Empty")]


def test_numbers_that_are_not_finite_are_gaps_and_named() -> None:
    bad = head(10, IMAGES, violation=float("inf"))
    found = section(
        record(0, [bad], IMAGES),
        record(1, [bad], IMAGES, loss=float("nan")),
        record(2, [bad], IMAGES, probe=12.5),
    )
    (loss,) = [c for c in found.charts if c.title == "Loss"]
    assert loss.figure["data"][0]["y"] == [None, 2.8]
    assert not [c for c in found.charts if "violation" in c.title], "nothing of it is finite"
    assert "Left out of the curves: epoch 1: loss is nan." in found.lines
    (probe,) = chart(found, "Probe").figure["data"]
    assert (probe["x"], probe["y"]) == ([2], [12.5])


def test_ranks_and_empty_clusters_are_drawn_where_records_have_them() -> None:
    heads = [head(10, IMAGES, empty=3, largest=700)]
    lines = [record(e, heads, IMAGES, effective_rank=20.0, projected_rank=9.0) for e in (0, 1)]
    found = section(*lines)
    assert [c["y"] for c in chart(found, "Effective rank").figure["data"]] == [[20, 20], [9, 9]]
    assert chart(found, "Empty").figure["data"][0]["y"] == [3, 3]


def test_a_run_without_an_ended_epoch_says_so() -> None:
    assert section().lines == ["No epoch has ended yet, so there are no curves."]


def test_one_epoch_and_records_that_lack_things_are_drawn() -> None:
    found = section({"epoch": 1, "loss": 2.0})
    assert [c.title for c in found.charts] == ["Loss"]
    (line,) = found.charts[0].figure["data"]
    assert "markers" in line["mode"], "a line through one point is nothing"


def test_images_are_those_of_an_epoch() -> None:
    lines = [record(1, [], 990, left_out=10), {"epoch": 2}]
    assert RunRecords(lines=lines, count=5).images == 1000
    assert RunRecords(lines=lines[1:], count=5).images == 5
