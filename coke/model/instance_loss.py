"""The instance term: two views of an image attract, the other images of the batch repel.

SimCLR's loss (Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709). Beside the clusters'
loss it is that of prototypical contrastive learning (Li et al., ICLR 2021,
https://arxiv.org/abs/2005.04966), whose clusters also come in several granularities.

Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F


def nt_xent(first_BD: Tensor, second_BD: Tensor, temperature: float) -> Tensor:
    """Normalised, temperature-scaled cross entropy (Eqn. 1), averaged over all 2B views.

    Each view is told apart from the 2B - 2 views of other images by its similarity to the other
    view of its own.

    Args:
        first_BD, second_BD: (B, D) float32, unit norm; rows belong together.
    """
    features_2BD = torch.cat([first_BD, second_BD])
    if not len(features_2BD):  # a rank may have no rows; the mean would be NaN
        return features_2BD.sum()
    logits = features_2BD @ features_2BD.T / temperature
    logits.fill_diagonal_(-torch.inf)  # a view is not its own negative
    batch = len(first_BD)
    other = torch.arange(2 * batch, device=logits.device).roll(batch)
    return F.cross_entropy(logits, other)


def instance_loss(views: Sequence[Tensor], temperature: float) -> Tensor:
    """The mean of :func:`nt_xent` over all pairs of views, each (B, D) float32 of unit norm."""
    pairs = list(combinations(views, 2))
    return torch.stack([nt_xent(a, b, temperature) for a, b in pairs]).mean()
