"""Weighted k-NN classification on cosine similarity, as in DINO (Caron et al., ICCV 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNK = 1024  # queries at once, at most
_CELLS = 2**28  # of the cosine matrix at once: 1 GiB of float32
#: A smaller difference of cosines is rounding: four units in the last place of float32 at 1.
_EQUAL_COSINE = 2.5e-7
_COLDEST = 1e-30  # a lower temperature would not be a float32


@torch.no_grad()
def knn_classify(
    train_ND: Tensor,
    train_labels_N: Tensor,
    test_MD: Tensor,
    *,
    n_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Tensor:
    """Class scores (M, C) float32: the logarithm of the sum of a class's votes, -inf without one.

    Each of the k nearest votes with exp(cosine / temperature), relative to the nearest, so that no
    temperature overflows. Training images that are equally near as the k-th share its place and
    those of its equals: each of t images for p places votes with the weight p / t. So neither the
    order of the images nor that of the classes decides.

    Args:
        train_ND: finite features (N, D) of labelled images; scaled to unit norm here.
        train_labels_N: (N,) int64 class labels.
        test_MD: finite features (M, D) to classify.
        k: neighbours; all N where there are fewer.
    """
    k = min(k, len(train_ND))
    bank_DN = _unit(train_ND).T.contiguous()
    scores_MC = torch.empty((len(test_MD), n_classes), device=train_ND.device)
    chunk = max(1, min(_CHUNK, _CELLS // len(train_ND)))
    for start in range(0, len(test_MD), chunk):
        cosines_BN = _unit(test_MD[start : start + chunk]) @ bank_DN
        near_Bm, rows_Bm = cosines_BN.topk(min(k + 1, len(train_ND)), dim=1)
        near_Bk, rows_Bk, last_B1 = near_Bm[:, :k], rows_Bm[:, :k], near_Bm[:, k - 1 : k]
        votes_Bk = (near_Bk - near_Bk[:, :1]) / max(temperature, _COLDEST)  # logarithms
        chunk_BC = _sum_by_class(votes_Bk, train_labels_N[rows_Bk], n_classes)
        next_B1 = near_Bm[:, k:]  # empty where all vote
        tied_B = (next_B1 >= last_B1 - _EQUAL_COSINE).any(dim=1)
        for b in torch.nonzero(tied_B).flatten().tolist():
            nearer_k = near_Bk[b] > last_B1[b] + _EQUAL_COSINE
            equals_N = torch.nonzero((cosines_BN[b] - last_B1[b]).abs() <= _EQUAL_COSINE).flatten()
            share = math.log((k - int(nearer_k.sum())) / len(equals_N))
            shared = (votes_Bk[b, -1:] + share).repeat(len(equals_N))
            rows = torch.cat([rows_Bk[b][nearer_k], equals_N])
            votes = torch.cat([votes_Bk[b][nearer_k], shared])
            chunk_BC[b] = _sum_by_class(votes[None], train_labels_N[rows][None], n_classes)[0]
        scores_MC[start : start + chunk] = chunk_BC
    return scores_MC


def _sum_by_class(votes_Bk: Tensor, labels_Bk: Tensor, n_classes: int) -> Tensor:
    """Logarithm (B, C) of the sum of exp(votes) per class, without underflow."""
    best_BC = votes_Bk.new_full((len(votes_Bk), n_classes), -math.inf)
    best_BC.scatter_reduce_(1, labels_Bk, votes_Bk, "amax")
    relative_Bk = (votes_Bk - best_BC.gather(1, labels_Bk)).exp()
    return best_BC + torch.zeros_like(best_BC).scatter_add_(1, labels_Bk, relative_Bk).log()


def _unit(features_ND: Tensor) -> Tensor:
    """Rows of unit norm, however large or small; zeros stay zeros."""
    tiny = torch.finfo(features_ND.dtype).tiny
    unit_ND: Tensor = features_ND / features_ND.norm(torch.inf, dim=1, keepdim=True).clamp(min=tiny)
    return unit_ND.div_(unit_ND.norm(dim=1, keepdim=True).clamp(min=tiny))
