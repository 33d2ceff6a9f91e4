"""How far clusters agree with classes: accuracy by matching, purity, NMI and ARI.

Shapes: N images, K clusters, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def check_scikit_learn(command: str) -> None:
    """Raises ValueError, with the command that brings it, where scikit-learn is missing."""
    try:
        import scipy.optimize  # noqa: F401
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{command} compares clusters with classes by scikit-learn, which cannot be imported "
            f"({error}): pip install 'coke[sklearn]'"
        ) from error


def cluster_scores(
    clusters_N: NDArray[np.int64], classes_N: NDArray[np.int64], n_clusters: int
) -> Mapping[str, float]:
    """Scores by the names of :data:`coke.tools.evaluation.figures.METRICS`.

    ``accuracy``, in percent, is the largest share of images whose cluster stands for their class,
    where each cluster stands for one class and each class for one cluster (Hungarian matching;
    Kuhn, 1955). It is left out unless there are as many clusters as classes. ``purity``, in
    percent, is the share of images of the most frequent class of their cluster: several clusters
    may stand for one class, so it grows with K. ``nmi`` is the mutual information over the mean of
    both entropies; ``ari`` the Rand index adjusted for chance (Hubert and Arabie, 1985).
    ``smallest`` and ``largest`` are sizes in images.

    Args:
        clusters_N: (N,) in 0..K-1.
        classes_N: (N,) >= 0.
        n_clusters: K, those without an image included.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    table_KC = contingency(clusters_N, classes_N, n_clusters)
    sizes_K = table_KC.sum(axis=1)
    found = {"clusters": float(n_clusters)}
    if n_clusters == table_KC.shape[1]:
        found["accuracy"] = matched_accuracy(table_KC)
    return found | {
        "purity": 100 * float(table_KC.max(axis=1).sum()) / len(clusters_N),
        "nmi": float(normalized_mutual_info_score(classes_N, clusters_N)),
        "ari": float(adjusted_rand_score(classes_N, clusters_N)),
        "smallest": float(sizes_K.min()),
        "largest": float(sizes_K.max()),
    }


def contingency(
    clusters_N: NDArray[np.int64], classes_N: NDArray[np.int64], n_clusters: int
) -> NDArray[np.int64]:
    """Images (K, C) of each cluster and class; of classes, only those that have an image."""
    _, rows_N = np.unique(classes_N, return_inverse=True)
    n_classes = int(rows_N.max()) + 1
    cells = np.bincount(clusters_N * n_classes + rows_N, minlength=n_clusters * n_classes)
    return cells.reshape(n_clusters, n_classes).astype(np.int64)


def matched_accuracy(table_KC: NDArray[np.int64]) -> float:
    """Accuracy in percent under the best one-to-one matching of clusters and classes."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table_KC, maximize=True)
    return 100 * float(table_KC[rows, columns].sum()) / float(table_KC.sum())
