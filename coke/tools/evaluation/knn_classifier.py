"""Weighted k-NN classification on cosine similarity, as in DINO (Caron et al., ICCV 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 1024  # queries at once: bounds the similarity matrix


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
    """Class scores (M, C) float32: each of the k nearest votes with exp(cosine / temperature),
    relative to the nearest, so that no temperature overflows.

    Args:
        train_ND: features (N, D) of labelled images; scaled to unit norm here.
        train_labels_N: (N,) int64 class labels.
        test_MD: features (M, D) to classify.
    """
    k = min(k, len(train_ND))
    bank_DN = F.normalize(train_ND, dim=1).T.contiguous()
    scores_MC = torch.zeros((len(test_MD), n_classes), device=train_ND.device)
    for start in range(0, len(test_MD), _CHUNK):
        queries_BD = F.normalize(test_MD[start : start + _CHUNK], dim=1)
        near_Bk, rows_Bk = (queries_BD @ bank_DN).topk(k, dim=1)
        votes_Bk = ((near_Bk - near_Bk[:, :1]) / temperature).exp()  # the nearest: 1
        scores_MC[start : start + _CHUNK].scatter_add_(1, train_labels_N[rows_Bk], votes_Bk)
    return scores_MC


def topk_accuracy(scores_MC: Tensor, labels_M: Tensor, k: int) -> float:
    """Share of rows whose label is among the k best-scored classes, in percent."""
    k = min(k, scores_MC.shape[1])
    hits = (scores_MC.topk(k, dim=1).indices == labels_M.unsqueeze(1)).any(dim=1)
    return 100 * float(hits.float().mean())
