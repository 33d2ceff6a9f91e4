"""Every peer learns: its loss falls on a batch it sees again and again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from coke.config.model import ModelConfig
from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import CoKe, build_model
from coke.tools.bench.peers import MoCo, Peer, SimCLR, SwAV

SMALL = ModelConfig(depth=10, width=8, stem="small", projector_hidden=16, dim=8)
SGD = OptimizerConfig(name="sgd", lr=0.05, momentum=0.0)
PEERS: dict[str, Callable[[CoKe], Peer]] = {
    "simclr": lambda model: SimCLR(model, SGD, "fp32"),
    "moco": lambda model: MoCo(model, SGD, "fp32", queue=8),
    "swav": lambda model: SwAV(model, SGD, "fp32", prototypes=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_the_loss_falls(name: str) -> None:
    torch.manual_seed(0)
    peer = PEERS[name](build_model(SMALL, seed=0).train())
    views = list(torch.randn(2, 8, 3, 16, 16))
    losses = [float(peer.step(views, torch.arange(8))) for _ in range(25)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_project_splits_what_it_joined() -> None:
    torch.manual_seed(0)
    peer = PEERS["simclr"](build_model(SMALL, seed=0).eval())  # in eval rows are independent
    views = list(torch.randn(2, 3, 3, 16, 16))
    for view, features in zip(views, peer.project(views), strict=True):
        ((expected, _),) = peer.model([view])
        torch.testing.assert_close(features, expected)
