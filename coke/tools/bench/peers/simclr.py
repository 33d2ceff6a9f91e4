"""SimCLR: two views of an image attract, all other images of the batch repel.

Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709.
Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import CoKe
from coke.model.instance_loss import nt_xent
from coke.tools.bench.peers.peer import Peer


class SimCLR(Peer):
    """SimCLR in training.

    Args:
        temperature: 0.1 on ImageNet; 0.5 is the paper's best on CIFAR-10 (its App. B.9).
    """

    def __init__(
        self, model: CoKe, optimizer: OptimizerConfig, precision: str, *, temperature: float = 0.1
    ) -> None:
        super().__init__(model, optimizer, precision)
        self.temperature = temperature

    def loss(self, views: Sequence[Tensor]) -> Tensor:
        first_BD, second_BD = self.project(views)
        return nt_xent(first_BD, second_BD, self.temperature)
