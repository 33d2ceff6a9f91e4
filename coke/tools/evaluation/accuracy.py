"""Top-k accuracy from class scores, with ties that no order of the classes decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Scores are logarithms of votes or logits. A smaller difference is rounding: the scores are equal.
_EQUAL_SCORE = 1e-5
#: With at most so many classes, every class is among the top 5.
_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy on the test images in percent; ``top5`` is None where it would say nothing."""

    top1: float
    top5: float | None


def accuracy(
    scores_MC: Tensor, labels_M: Tensor, *, trained_classes: int, places: int = _TOP
) -> Accuracy:
    """Top-1 and top-5 accuracy.

    Args:
        scores_MC: class scores (M, C); -inf where a class cannot be predicted.
        labels_M: true classes (M,) int64.
        trained_classes: classes with training images; there is no top-5 among 5 or fewer.
        places: classes that can be told apart at most: k neighbours vote for at most k classes, so
            fewer than 5 neighbours fill fewer than 5 places.
    """
    top5 = None
    if trained_classes > _TOP:
        top5 = topk_accuracy(scores_MC, labels_M, min(_TOP, places))
    return Accuracy(top1=topk_accuracy(scores_MC, labels_M, 1), top5=top5)


def topk_accuracy(scores_MC: Tensor, labels_M: Tensor, k: int) -> float:
    """Share of rows whose label is among the k best-scored classes, in percent.

    Classes with equal scores share the places left to them: a label that is one of t such classes
    for p places counts p / t. That is the expected accuracy if chance broke ties, so constant
    scores give chance accuracy, and the order of the classes does not matter. A class that scores
    -inf has no place.
    """
    assert not scores_MC.isnan().any(), "no rank among NaN"
    own_M1 = scores_MC.gather(1, labels_M.unsqueeze(1))
    above_M = (scores_MC > own_M1 + _EQUAL_SCORE).sum(dim=1)
    tied_M = ((scores_MC - own_M1).abs() <= _EQUAL_SCORE).sum(dim=1)
    shares_M = ((k - above_M) / tied_M.clamp(min=1)).clamp(0, 1)
    hits_M = torch.where(own_M1.squeeze(1) == -math.inf, 0.0, shares_M)
    return 100 * float(hits_M.double().mean())
