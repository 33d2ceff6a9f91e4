"""InfoNCE by hand; the queue is a ring; the key encoder follows the query's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from coke.config.model import ModelConfig
from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import build_model
from coke.tools.bench.peers.moco import KeyQueue, MoCo, info_nce

SMALL = ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8)


def test_loss_by_hand() -> None:
    """Similarity 0.6 to the own key, 1 and 0 to the queue's two."""
    query, key = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    queue = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    own, one, zero = (math.exp(s / 0.5) for s in (0.6, 1.0, 0.0))
    expected = -math.log(own / (own + one + zero))
    assert info_nce(query, key, queue, 0.5).item() == pytest.approx(expected, abs=1e-6)


def rows(*values: float) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


def test_queue_keeps_the_newest_keys() -> None:
    queue = KeyQueue(5, 1)
    queue.push(rows(1, 2, 3))
    assert not queue.full
    assert queue.keys_QD[:3].flatten().tolist() == [1, 2, 3]
    queue.push(rows(4, 5, 6))  # 6 goes where 1 was
    assert queue.full
    assert queue.keys_QD.flatten().tolist() == [6, 2, 3, 4, 5]
    queue.push(rows(7))
    assert queue.keys_QD.flatten().tolist() == [6, 7, 3, 4, 5]
    queue.push(rows(8, 9, 10, 11, 12, 13, 14))  # longer than the queue: the last five stay
    assert sorted(queue.keys_QD.flatten().tolist()) == [10, 11, 12, 13, 14]


def test_a_step_moves_the_key_encoder_by_the_momentum_only() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, seed=0).train()
    moco = MoCo(model, OptimizerConfig(name="sgd", lr=0.1), "fp32", queue=16, momentum=0.75)
    views, ids = list(torch.randn(2, 4, 3, 16, 16)), torch.arange(4)
    moco.step(views, ids)
    query = next(model.parameters()).detach().clone()
    key = next(moco.key_model.parameters()).clone()
    assert not torch.equal(query, key)  # the optimiser moved the query's alone
    moco.step(views, ids)
    expected = 0.75 * key + 0.25 * query
    torch.testing.assert_close(next(moco.key_model.parameters()), expected)


def test_the_second_views_keys_enter_the_queue_after_the_step() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, seed=0).train()
    moco = MoCo(model, OptimizerConfig(name="sgd", lr=0.1), "fp32", queue=16)
    first, second = torch.randn(2, 4, 3, 16, 16)
    before = moco.queue.keys_QD.clone()
    with torch.no_grad():
        ((expected, _),) = build_model(SMALL, seed=0).train()([second])
    moco.step([first, second], torch.arange(4))
    torch.testing.assert_close(moco.queue.keys_QD[:4], expected)
    assert torch.equal(moco.queue.keys_QD[4:], before[4:])
