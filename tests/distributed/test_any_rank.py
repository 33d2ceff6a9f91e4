"""One rank; several ranks are tested in ``tests/tools/training/test_train_world.py``."""

from __future__ import annotations

import torch

from coke.distributed.any_rank import AnyRank


def test_one_rank_gets_its_own_answer_at_once() -> None:
    any_rank = AnyRank(torch.device("cpu"))
    assert [any_rank(mine) for mine in (False, True, False)] == [False, True, False]
