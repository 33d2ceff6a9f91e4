"""Weighted k-NN classification on cosine similarity, as in DINO (Caron et al., ICCV 2021).

The bank of training images is read in chunks, each once, and compared with all queries. Of each
query only its nearest so far are kept. So memory is that of the features, and little more.

Shapes: N images of the bank, M queries, B queries and R bank images at once, D features, C classes,
n neighbours kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_QUERIES = 1024  # at once
_ROWS = 2**14  # bank images at once: a matrix of 64 MiB of cosines, 128 MiB of 2,048 features
#: A smaller difference of cosines is rounding: four units in the last place of float32 at 1.
_EQUAL_COSINE = 2.5e-7
#: Neighbours kept beyond k, to see whether more are as near as the k-th. Where they do not show it
#: (many equal images), the bank is read once more.
_SPARE = 12
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
        train_ND: finite features (N, D) of labelled images; scaled to unit norm here, in chunks.
        train_labels_N: (N,) int64 class labels, on the device that computes. Features may be
            elsewhere: on the host, or mapped from a file.
        test_MD: finite features (M, D) to classify.
        k: neighbours; all N where there are fewer.
    """
    k = min(k, len(train_ND))
    queries_MD = _unit(test_MD.to(train_labels_N.device))
    near_Mn, labels_Mn = _nearest(train_ND, train_labels_N, queries_MD, k + _SPARE)
    best_M1, last_M1 = near_Mn[:, :1], near_Mn[:, k - 1 : k]
    nearer_Mn = near_Mn > last_M1 + _EQUAL_COSINE
    equal_Mn = (near_Mn >= last_M1 - _EQUAL_COSINE) & ~nearer_Mn
    equals_MC = last_M1.new_zeros(len(last_M1), n_classes)
    equals_MC.scatter_add_(1, labels_Mn, equal_Mn.float())
    cut_M = equal_Mn[:, -1] & (near_Mn.shape[1] < len(train_ND))
    if bool(cut_M.any()):
        counted = _equals(train_ND, train_labels_N, queries_MD[cut_M], last_M1[cut_M], n_classes)
        # The matrix product of other queries rounds in another way: those that were seen count.
        equals_MC[cut_M] = torch.maximum(counted, equals_MC[cut_M])
    places_M1 = k - nearer_Mn.sum(dim=1, keepdim=True)
    share_M1 = (places_M1 / equals_MC.sum(dim=1, keepdim=True)).log()
    cold = max(temperature, _COLDEST)
    votes_Mn = ((near_Mn - best_M1) / cold).masked_fill(~nearer_Mn, -math.inf)  # logarithms
    shared_MC = (last_M1 - best_M1) / cold + share_M1 + equals_MC.log()
    return torch.logaddexp(_sum_by_class(votes_Mn, labels_Mn, n_classes), shared_MC)


def _nearest(
    train_ND: Tensor, labels_N: Tensor, queries_MD: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Cosines (M, n) of the nearest bank images, falling, and their labels (M, n) int64."""
    count = min(count, len(train_ND))
    near_Mn = queries_MD.new_full((len(queries_MD), count), -math.inf)
    labels_Mn = labels_N.new_zeros(len(queries_MD), count)
    for rows, chunk_RD in _bank(train_ND, queries_MD.device):
        for some in _slices(len(queries_MD), _QUERIES):
            cosines_BR = queries_MD[some] @ chunk_RD.T
            # Most chunks bring most queries nothing nearer: to see that costs less than to sort.
            moved_b = torch.nonzero(cosines_BR.amax(dim=1) > near_Mn[some, -1]).flatten()
            found_bn, at_bn = cosines_BR[moved_b].topk(min(count, len(chunk_RD)), dim=1)
            moved_b += some.start
            both = torch.cat([near_Mn[moved_b], found_bn], dim=1)
            whose = torch.cat([labels_Mn[moved_b], labels_N[rows][at_bn]], dim=1)
            near_Mn[moved_b], kept_bn = both.topk(count, dim=1)
            labels_Mn[moved_b] = whose.gather(1, kept_bn)
    return near_Mn, labels_Mn


def _equals(
    train_ND: Tensor, labels_N: Tensor, queries_MD: Tensor, last_M1: Tensor, n_classes: int
) -> Tensor:
    """How many bank images of each class (M, C) are as near as the k-th of each query."""
    counts_MC = last_M1.new_zeros(len(queries_MD), n_classes)
    for rows, chunk_RD in _bank(train_ND, queries_MD.device):
        for some in _slices(len(queries_MD), _QUERIES):
            cosines_BR = queries_MD[some] @ chunk_RD.T
            query, row = torch.nonzero(
                (cosines_BR - last_M1[some]).abs() <= _EQUAL_COSINE, as_tuple=True
            )
            ones = torch.ones(len(query), device=counts_MC.device)
            counts_MC.index_put_((query + some.start, labels_N[rows][row]), ones, accumulate=True)
    return counts_MC


def _bank(train_ND: Tensor, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """The bank's rows of unit norm (R, D) on the device, chunk by chunk."""
    for rows in _slices(len(train_ND), _ROWS):
        yield rows, _unit(train_ND[rows].to(device))


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _sum_by_class(votes_Mn: Tensor, labels_Mn: Tensor, n_classes: int) -> Tensor:
    """Logarithm (M, C) of the sum of exp(votes) per class, without underflow; -inf is no vote."""
    best_MC = votes_Mn.new_full((len(votes_Mn), n_classes), -math.inf)
    best_MC.scatter_reduce_(1, labels_Mn, votes_Mn, "amax")
    relative_Mn = (votes_Mn - best_MC.gather(1, labels_Mn)).exp().nan_to_num_(nan=0.0)
    return best_MC + torch.zeros_like(best_MC).scatter_add_(1, labels_Mn, relative_Mn).log()


def _unit(features_ND: Tensor) -> Tensor:
    """Rows of unit norm in float32, however large or small; zeros stay zeros."""
    features_ND = features_ND.float()
    tiny = torch.finfo(torch.float32).tiny
    unit_ND: Tensor = features_ND / features_ND.norm(torch.inf, dim=1, keepdim=True).clamp(min=tiny)
    return unit_ND.div_(unit_ND.norm(dim=1, keepdim=True).clamp(min=tiny))
