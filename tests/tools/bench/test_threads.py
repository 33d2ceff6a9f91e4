"""Splits of the cores, and that the best one is found."""

from __future__ import annotations

import pytest
import torch

from coke.tools.bench.threads import splits, tune
from coke.tools.bench.timing import Turns


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_splits_use_all_cores_and_no_more_than_there_are(cores: int) -> None:
    found = splits(cores)
    assert len(found) == len(set(found))
    assert (cores, cores) in found
    for loader, step in found:
        assert 1 <= loader <= cores and 1 <= step <= cores
        assert loader + step >= cores


def test_the_best_split_comes_first_and_torch_is_left_as_it_was() -> None:
    before, seen = torch.get_num_threads(), set()

    def rate(loader: int, seconds: float) -> float:
        assert seconds == 0.5
        seen.add((loader, torch.get_num_threads()))
        return 100.0 if (loader, torch.get_num_threads()) == (1, 3) else 50.0

    found = tune(rate, 4, Turns(seconds=0.5, rounds=2, progress=lambda _: None))
    assert seen == set(splits(4))
    assert (found[0].loader, found[0].step) == (1, 3)
    assert found[0].command == "OMP_NUM_THREADS=3 coke train ... --set machine.threads=1"
    assert torch.get_num_threads() == before
