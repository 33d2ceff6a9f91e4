"""SimCLR: two views of an image attract, all other images of the batch repel.

Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709.
Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import CoKe
from coke.tools.bench.peers.peer import Peer


def nt_xent(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """Normalised, temperature-scaled cross entropy (Eqn. 1), averaged over all 2B views.

    Each view is told apart from the 2B - 2 views of other images by its similarity to the other
    view of its own.

    Args:
        first_BD, second_BD: (B, D) float32, unit norm; rows belong together.
    """
    features_2BD = torch.cat([first_BD, second_BD])
    logits = features_2BD @ features_2BD.T / temperature
    logits.fill_diagonal_(-torch.inf)  # a view is not its own negative
    batch = len(first_BD)
    other = torch.arange(2 * batch, device=logits.device).roll(batch)
    return F.cross_entropy(logits, other)


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
