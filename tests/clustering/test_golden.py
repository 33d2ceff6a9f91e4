"""Replay of traces of the authors' released code; see golden/README.md."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coke.clustering import Clustering

GOLDEN = Path(__file__).parents[1] / "golden"


def dense_label_weights(
    clusters: NDArray[Any], weights: NDArray[Any], n_clusters: int
) -> NDArray[np.float64]:
    """Weight per cluster (N, K): the released code may split a cluster over two slots."""
    dense = np.zeros((len(clusters), n_clusters))
    rows = np.arange(len(clusters))[:, None]
    np.add.at(dense, (rows, clusters.astype(np.int64)), weights)
    return dense


def as_distribution(target: Tensor, n_clusters: int) -> Tensor:
    return target if target.ndim == 2 else F.one_hot(target, n_clusters).float()


@pytest.mark.parametrize("name", ["single_view", "two_views", "balanced"])
def test_replay(name: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    n, dim, _, epochs, stage, label_size, _ = map(int, golden["config"])
    dual_lr, ratio, _, label_temperature = map(float, golden["hyper"])
    n_clusters = [int(k) for k in golden["K"]]
    c = Clustering(
        n_ids=n,
        dim=dim,
        n_clusters=n_clusters,
        min_ratio=ratio,
        dual_rule="paper",
        dual_lr=dual_lr,
        first_stage_epochs=stage,
        label_size=label_size,
        label_temperature=label_temperature,
        centers=[torch.tensor(golden[f"init_centers_{j}"]).T for j in range(len(n_clusters))],
    )
    features = torch.tensor(golden["features"]).mean(0)
    ids = torch.tensor(golden["ids"])
    offsets = golden["offsets"].tolist()
    steps = [slice(a, b) for a, b in pairwise(offsets)]
    per_epoch = len(steps) // epochs
    assert per_epoch * epochs == len(steps)
    everything = torch.arange(n)

    for epoch in range(epochs):
        for rows in steps[epoch * per_epoch : (epoch + 1) * per_epoch]:
            before = c.targets(ids[rows])
            c.step(features[rows], ids[rows])
            used = c.targets(ids[rows]) if epoch == 0 else before
            for j, k in enumerate(n_clusters):
                recorded = torch.tensor(golden[f"targets_{j}"][rows]).float()
                assert (as_distribution(used[j], k) - recorded).abs().max() < 1e-3

        for j, head in enumerate(c.heads):
            labels = golden[f"labels_{epoch}_{j}"]
            if c.second_stage:
                assert c.soft_labels is not None
                ours, k = c.soft_labels[j], head.n_clusters
                recorded_weights = golden[f"label_weights_{epoch}_{j}"]
                difference = dense_label_weights(
                    ours.clusters_NS.numpy(), ours.weights_NS.numpy(), k
                ) - dense_label_weights(labels, recorded_weights, k)
                assert np.abs(difference).max() < 1e-3
            else:
                hard = labels if labels.ndim == 1 else labels[:, 0]
                np.testing.assert_array_equal(c.label_store.read(everything)[j].numpy(), hard)
            np.testing.assert_array_equal(head.counts.numpy(), golden[f"counts_{epoch}_{j}"])
            duals, running = golden[f"duals_{epoch}_{j}"], f"cur_centers_before_{epoch}_{j}"
            np.testing.assert_allclose(head.duals.numpy(), duals, atol=1e-5, rtol=0)
            np.testing.assert_allclose(
                head.running_centers.numpy(), golden[running].T, atol=1e-5, rtol=0
            )
        c.end_epoch()
        for j, head in enumerate(c.heads):
            frozen = golden[f"centers_{epoch}_{j}"].T
            np.testing.assert_allclose(head.centers.numpy(), frozen, atol=1e-5, rtol=0)
    assert c.second_stage == (name == "single_view")
