"""Fixtures of the commands' tests."""

from __future__ import annotations

import pytest

from coke.tools.bench.result import EpochBench
from tests.support.epoch_bench import epoch_bench


@pytest.fixture
def bench() -> EpochBench:
    """See :func:`epoch_bench`."""
    return epoch_bench()
