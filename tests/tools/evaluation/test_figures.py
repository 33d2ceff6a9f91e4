"""Confidence intervals by hand, several seeds, and rows in records."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from coke.tools.evaluation.accuracy import Accuracy
from coke.tools.evaluation.figures import METRICS, Figure, Row, accuracy_row, wilson
from tests.support.eval_report import REPORT, shown


def test_wilson_by_hand() -> None:
    """Half of 100: z^2 = 3.84146; half width z sqrt(0.0025 + 0.0000960) / 1.0384146."""
    low, high = wilson(50.0, 100)
    assert [low, high] == pytest.approx([40.38, 59.62], abs=0.01)
    # Where nothing is right, the upper end is z^2 / (n + z^2).
    assert [*wilson(0.0, 10)] == pytest.approx([0.0, 100 * 3.84146 / 13.84146], abs=0.01)
    assert wilson(100.0, 10)[1] == pytest.approx(100.0)
    low, high = wilson(50.0, 10_000)
    assert high - low < 2.0, "within one point from 10,000 images on"


@pytest.mark.parametrize("percent", [0.0, 3.0, 50.0, 97.0, 100.0])
def test_wilson_solves_its_equation(percent: float) -> None:
    """An end p of the interval is a share from which the found one is z standard errors away."""
    for end in wilson(percent, 37):
        p = end / 100
        if 1e-9 < p < 1 - 1e-9:
            away = abs(percent / 100 - p) / math.sqrt(p * (1 - p) / 37)
            assert away == pytest.approx(1.96, abs=1e-3)


def test_seeds_become_mean_and_standard_deviation() -> None:
    seeds = [Accuracy(top1=t, top5=None) for t in (80.0, 82.0, 84.0)]
    figure = accuracy_row(seeds, 500).figures["top1"]
    assert (figure.value, figure.deviation, figure.seeds) == (82.0, 2.0, 3)
    assert figure.interval == wilson(82.0, 500)
    alone = accuracy_row(seeds[0], 500)
    assert alone.figures["top1"].deviation is None and alone.top5 is None


def test_a_record_gives_the_row_back() -> None:
    figures = {
        "top1": Figure(value=82.0, deviation=2.0, seeds=3, interval=(78.0, 85.0)),
        "top5": Figure(value=99.0),
    }
    row = Row(figures=figures, chosen={"lr": 0.1})
    assert row.record() == {
        "top1": 82.0,
        "top1_interval": [78.0, 85.0],
        "top1_deviation": 2.0,
        "top1_seeds": 3,
        "top5": 99.0,
        "chosen": {"lr": 0.1},
    }
    assert Row.from_record(row.record()) == row
    old = Row.from_record({"top1": 51.0, "top5": None})  # of a version without intervals
    assert old == Row(figures={"top1": Figure(value=51.0)})
    other = Row(figures={name: Figure(value=1.0) for name in METRICS if not name.startswith("top")})
    assert Row.from_record(other.record()) == other


def test_the_table_shows_intervals_of_small_test_sets_seeds_and_choices() -> None:
    row = accuracy_row([Accuracy(top1=t, top5=None) for t in (40.0, 60.0)], 100, {"lr": 0.01})
    few = shown(replace(REPORT, rows={"CoKe": row}, test_images=100))
    assert "50.00 ± 14.14" in few and "40.4 to 59.6" in few and "95 % interval" in few
    assert "0.01" in few
    many = shown(replace(REPORT, rows={"CoKe": row}, test_images=10_000))
    assert "50.00 ± 14.14" in many and "95 % interval" not in many
