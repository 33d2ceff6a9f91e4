"""Which part limits, by hand: a loader of 80 images per second and a step of 50."""

from __future__ import annotations

import pytest

from coke.tools.bench.limit import find_limit


@pytest.mark.parametrize(
    ("training", "shared"),
    [
        (29, True),  # in turns: 1 / (1 / 80 + 1 / 50) = 30.8
        (35, True),  # 14 % above
        (36, False),  # 17 % above
        (26, False),  # 16 % below: something else took the time
        (46, False),  # 92 % of the step's
    ],
)
def test_cores_limit_where_the_parts_times_add_up(training: float, shared: bool) -> None:
    found = find_limit(80, 50, training, "cpu")
    assert found.shared_cores is shared
    assert found.slower == "step"
    assert found.share == pytest.approx(training / 50)


def test_a_gpu_shares_no_cores_with_the_loader() -> None:
    assert not find_limit(80, 50, 29, "cuda").shared_cores


def test_a_slow_loader_limits() -> None:
    """In turns 9.1: within 10 % of the loader's own rate, which is no sign of sharing."""
    found = find_limit(10, 100, 9.2, "cpu")
    assert (found.slower, found.shared_cores) == ("loader", False)
