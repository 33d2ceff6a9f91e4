"""Clusters against classes, by hand."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

from coke.tools.evaluation.cluster_scores import (
    check_scikit_learn,
    cluster_scores,
    contingency,
    matched_accuracy,
)

pytest.importorskip("sklearn", reason="scores of clusters need scikit-learn")

#: Six images. Cluster 0 holds classes 0, 0, 1; cluster 1 holds 0; cluster 2 holds 1, 1.
CLUSTERS = np.array([0, 0, 0, 1, 2, 2])
CLASSES = np.array([0, 0, 1, 0, 1, 1])


def entropy(*shares: float) -> float:
    return -sum(p * math.log(p) for p in shares)


def test_scores_by_hand() -> None:
    """Purity: 2 + 1 + 2 of 6. ARI: of 15 pairs, 2 are together in both (0-1 and 4-5); 6 are
    together by class and 4 by cluster, so chance expects 6 * 4 / 15 = 1.6 and 5 would be all.
    """
    found = cluster_scores(CLUSTERS, CLASSES, 3)
    assert "accuracy" not in found, "three clusters, two classes"
    assert found["purity"] == pytest.approx(100 * 5 / 6)
    assert found["ari"] == pytest.approx((2 - 1.6) / (5 - 1.6))
    by_class, by_cluster = entropy(1 / 2, 1 / 2), entropy(1 / 2, 1 / 6, 1 / 3)
    left = 1 / 2 * entropy(2 / 3, 1 / 3)  # of the class's entropy, within cluster 0 alone
    expected = (by_class - left) / ((by_class + by_cluster) / 2)
    assert found["nmi"] == pytest.approx(expected)
    assert (found["clusters"], found["smallest"], found["largest"]) == (3, 1, 3)


def test_accuracy_matches_each_cluster_with_one_class() -> None:
    """Two clusters whose most frequent class is 0: only one of them may stand for it."""
    clusters, classes = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 1])
    found = cluster_scores(clusters, classes, 2)
    assert found["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["purity"] == pytest.approx(100 * 5 / 6)
    swapped = cluster_scores(1 - classes, classes, 2)
    assert [swapped[name] for name in ("accuracy", "purity", "nmi", "ari")] == [100, 100, 1, 1]


def test_matching_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        table = rng.integers(0, 20, (4, 4))
        best = max(table[range(4), order].sum() for order in itertools.permutations(range(4)))
        assert matched_accuracy(table) == pytest.approx(100 * best / table.sum())


def test_empty_clusters_and_classes_without_images() -> None:
    """Class 1 of three has no image, so two clusters match; the third cluster is empty."""
    table = contingency(np.array([0, 0, 2]), np.array([0, 0, 2]), 3)
    assert table.tolist() == [[2, 0], [0, 0], [0, 1]]
    found = cluster_scores(np.array([0, 0, 2]), np.array([0, 0, 2]), 3)
    assert (found["smallest"], found["largest"], found["purity"]) == (0, 2, 100)
    assert "accuracy" not in found


def test_without_scikit_learn_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ValueError, match=r"compares .* pip install 'coke\[sklearn\]'"):
        check_scikit_learn("coke eval clusters")
