"""Medians and ranges as they are written."""

from __future__ import annotations

from coke.tools.bench.figures import median, spread_range, with_share
from coke.tools.bench.timing import Spread


def test_one_round_has_no_range() -> None:
    once = Spread.of([25.0])
    assert median(once, 1) == "25.0"
    assert spread_range(once, 1) == "–"
    assert with_share(once, 1) == "25.0 –"


def test_equal_rounds_have_one() -> None:
    assert spread_range(Spread.of([25.0, 25.0]), 1) == "25.0-25.0"
    assert with_share(Spread.of([25.0, 25.0]), 1) == "25.0 ±0%"


def test_large_figures_have_no_decimals() -> None:
    large = Spread.of([900.04, 1000.06, 1100.08])
    assert median(large, 1) == "1,000"
    assert spread_range(large, 1) == "900-1,100"
    assert with_share(large, 1) == "1,000 ±10%"


def test_what_was_not_measured_is_empty() -> None:
    assert (median(None, 1), spread_range(None, 1), with_share(None, 1)) == ("", "", "")
