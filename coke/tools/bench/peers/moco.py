"""MoCo-v2: a view is told apart from a queue of earlier images' keys.

He et al., CVPR 2020, https://arxiv.org/abs/1911.05722; Chen et al., https://arxiv.org/abs/2003.04297.
Shapes: B batch, D feature dimension, Q length of the queue.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from coke.config.optimizer import OptimizerConfig
from coke.model.coke_model import CoKe
from coke.model.precision import autocast
from coke.tools.bench.peers.peer import Peer


def info_nce(query_BD: Tensor, key_BD: Tensor, queue_QD: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each query's own key against the queue (Eqn. 1), a mean over the batch.

    Args:
        query_BD, key_BD: (B, D) float32, unit norm; rows belong together.
        queue_QD: (Q, D) float32, unit norm: keys of other images.
    """
    own_B1 = (query_BD * key_BD).sum(dim=1, keepdim=True)
    logits = torch.cat([own_B1, query_BD @ queue_QD.T], dim=1) / temperature
    own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, own)


class KeyQueue:
    """The newest Q keys, as a ring: full of random directions at first.

    Args:
        length: Q.
        dim: D.
    """

    def __init__(self, length: int, dim: int, device: torch.device | str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(length, dim, generator=generator)
        self.keys_QD = F.normalize(start, dim=1).to(device)
        self._next = 0
        self._pushed = 0

    @property
    def full(self) -> bool:
        """Whether no random direction is left."""
        return self._pushed >= len(self.keys_QD)

    def push(self, keys_BD: Tensor) -> None:
        """Puts new keys where the oldest are; of a batch longer than the queue, the last Q."""
        length = len(self.keys_QD)
        keys_BD = keys_BD[-length:]
        stop = self._next + len(keys_BD)
        fitting = min(stop, length) - self._next
        self.keys_QD[self._next : self._next + fitting] = keys_BD[:fitting]
        self.keys_QD[: len(keys_BD) - fitting] = keys_BD[fitting:]
        self._next = stop % length
        self._pushed += len(keys_BD)


class MoCo(Peer):
    """MoCo-v2 in training: the first view is the query, the second the key.

    Its batch shuffling is left out: it matters only where a batch is spread over several GPUs.

    Args:
        queue: length Q; 65,536 as in the paper, and much less than the images of a small data set.
        momentum: of the key encoder's weights.
        temperature: 0.2 as in MoCo-v2.
    """

    def __init__(
        self,
        model: CoKe,
        optimizer: OptimizerConfig,
        precision: str,
        *,
        queue: int = 65_536,
        momentum: float = 0.999,
        temperature: float = 0.2,
    ) -> None:
        super().__init__(model, optimizer, precision)
        self.key_model = copy.deepcopy(model).requires_grad_(False)
        self.queue = KeyQueue(queue, model.config.dim, next(model.parameters()).device)
        self.momentum = momentum
        self.temperature = temperature

    def loss(self, views: Sequence[Tensor]) -> Tensor:
        query_view, key_view = views
        self._move_key_model()
        with torch.no_grad(), autocast(self.precision, key_view.device):
            ((key_BD, _),) = self.key_model([key_view])
        with autocast(self.precision, query_view.device):
            ((query_BD, _),) = self.model([query_view])
        assert isinstance(query_BD, Tensor)
        self._keys_BD = key_BD
        return info_nce(query_BD, key_BD, self.queue.keys_QD, self.temperature)

    def step(self, views: Sequence[Tensor], ids: Tensor) -> Tensor:
        loss = super().step(views, ids)
        self.queue.push(self._keys_BD)  # not before: backward reads the queue
        return loss

    @torch.no_grad()
    def _move_key_model(self) -> None:
        """Key weights become ``momentum`` of themselves and the rest of the query's (Eqn. 2)."""
        keys: list[Tensor] = list(self.key_model.parameters())
        queries: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(keys, queries, 1 - self.momentum)
