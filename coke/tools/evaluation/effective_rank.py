"""The effective rank of features: RankMe (Garrido et al., ICML 2023)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features_ND: Tensor) -> float | None:
    """In how many directions features vary: exp of the entropy of their singular values.

    The singular values of the features, which are not centered, are divided by their sum and taken
    as a distribution. It is 1 if all features are multiples of one, and D if all directions are
    equally strong. It is at most min(N, D); N well above D is needed to see a rank near D. The
    scale of the features does not matter. RankMe adds 1e-7 to each share, which is left out here.

    Costs N x D x min(N, D) multiplications in float64, and the eigenvalues of a matrix of side
    min(N, D).

    Args:
        features_ND: (N, D) of any float type.

    Returns: None where there are no features, all are zero, or one is NaN or infinite.
    """
    if not features_ND.numel() or not features_ND.isfinite().all():
        return None
    largest = features_ND.abs().max()
    if largest == 0:
        return None
    # Their squares are summed: tiny features would be lost, huge ones would overflow.
    rows = features_ND.double() / largest.double()
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(gram)
    # Smaller eigenvalues are rounding errors; many of them would add up to a rank.
    noise = len(values) * torch.finfo(values.dtype).eps * values[-1]
    singular = values[values > noise].sqrt()
    shares = singular / singular.sum()
    return float((-shares * shares.log()).sum().exp())
