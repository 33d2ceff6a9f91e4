"""SwAV: each view predicts the balanced soft assignment of the other to prototypes.

Caron et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882.
Shapes: B batch, D feature dimension, K prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import CoKe
from coke.tools.bench.peers.moco import KeyQueue
from coke.tools.bench.peers.peer import Peer


@torch.no_grad()
def sinkhorn(scores_BK: Tensor, *, eps: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments (B, K) that use all prototypes equally, each row summing to 1 (Eqn. 3).

    Args:
        scores_BK: (B, K) float32 similarities to the prototypes.
        eps: how soft: 0 would be the hard assignment.
        iterations: normalisations of columns and then of rows.
    """
    # The largest score of all cancels in the first normalisation: subtracted, nothing overflows.
    shares_BK = ((scores_BK - scores_BK.max()) / eps).exp()
    for _ in range(iterations):
        shares_BK = shares_BK / shares_BK.sum(dim=0, keepdim=True).clamp(min=1e-12)
        shares_BK = shares_BK / shares_BK.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return shares_BK


def swapped_loss(
    scores: tuple[Tensor, Tensor], codes: tuple[Tensor, Tensor], temperature: float
) -> Tensor:
    """Cross entropy of each view's codes with the other's prediction (Eqn. 2), averaged.

    Args:
        scores: (B, K) float32 similarities of each view.
        codes: (B, K) float32 of each view, see :func:`sinkhorn`.
    """
    swapped = zip(scores, reversed(codes), strict=True)
    return torch.stack([F.cross_entropy(s / temperature, q) for s, q in swapped]).mean()


class SwAV(Peer):
    """SwAV in training, with two views.

    Args:
        prototypes: K; 3,000 as in the paper.
        eps, iterations: of :func:`sinkhorn`.
        temperature: 0.1 as in the paper.
        queue: features of earlier batches per view that take part in the assignment; the paper has
            3,840 of them for small batches and none (0) for large ones.
        frozen_steps: steps at the start in which the prototypes stay; the paper's first epoch.
    """

    def __init__(
        self,
        model: CoKe,
        optimizer: OptimizerConfig,
        precision: str,
        *,
        prototypes: int = 3000,
        eps: float = 0.05,
        iterations: int = 3,
        temperature: float = 0.1,
        queue: int = 0,
        frozen_steps: int = 0,
    ) -> None:
        device = next(model.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = nn.Linear(model.config.dim, prototypes, bias=False)
        self.prototypes = layer.to(device)
        super().__init__(model, optimizer, precision, learned=[self.prototypes])
        self.eps = eps
        self.iterations = iterations
        self.temperature = temperature
        self.queues = [KeyQueue(queue, model.config.dim, device) for _ in range(2 if queue else 0)]
        self._steps = 0
        self._frozen_steps = frozen_steps
        self.prototypes.weight.register_hook(self._frozen_at_first)

    def loss(self, views: Sequence[Tensor]) -> Tensor:
        self._normalise_prototypes()
        features = self.project(views)
        first_BK, second_BK = (self.prototypes(f_BD) for f_BD in features)
        codes = self._codes(0, first_BK, features[0]), self._codes(1, second_BK, features[1])
        return swapped_loss((first_BK, second_BK), codes, self.temperature)

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        self._steps += 1
        return super().step(views, ids)

    def _frozen_at_first(self, gradient: Tensor) -> Tensor:
        """No gradient in the first steps."""
        return torch.zeros_like(gradient) if self._steps <= self._frozen_steps else gradient

    @torch.no_grad()
    def _codes(self, view: int, scores_BK: Tensor, features_BD: Tensor) -> Tensor:
        """Codes (B, K) of one view; the queue's features are assigned along once it is full."""
        scores = scores_BK
        if self.queues:
            queue = self.queues[view]
            if queue.full:
                scores = torch.cat([scores_BK, self.prototypes(queue.keys_QD)])
            queue.push(features_BD.detach())
        codes = sinkhorn(scores, eps=self.eps, iterations=self.iterations)
        return codes[: len(scores_BK)]

    @torch.no_grad()
    def _normalise_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
