"""One pass over features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from coke.clustering.distances import distances
from coke.tools.page.neighbours import NearestRows
from coke.tools.page.survey import Assigned, Survey, margins


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_margins_are_those_of_all_pairs(metric: str, offset: float) -> None:
    """A common offset, whose squares have more digits than float32, costs none."""
    generator = torch.Generator().manual_seed(5)
    points_ND = torch.randn(60, 6, generator=generator) + offset
    centers_KD = torch.randn(9, 6, generator=generator) + offset
    labels_N = torch.randint(-1, 9, (60,), generator=generator)
    nothing_N = np.zeros(60, dtype=np.float32)
    head = Assigned(name="", centers=centers_KD, labels=labels_N.numpy(), distances=nothing_N)
    queries = NearestRows(np.array([0]), points_ND[:1], metric=metric)

    def again() -> Iterator[tuple[int, Tensor]]:
        yield 0, points_ND[:25]
        yield 25, points_ND[25:]

    found = Survey(
        metric=metric,
        heads=[head],
        nearest=queries,
        sample_rows=np.array([0]),
        sample=points_ND[:1],
        again=again,
    )
    rows, values, others = margins(found, head, np.array([1, 2, 5]))
    assert rows.tolist() == [i for i, label in enumerate(labels_N.tolist()) if label in (1, 2, 5)]
    for row, value, other in zip(rows.tolist(), values.tolist(), others.tolist(), strict=True):
        to_all = distances(points_ND[row : row + 1], centers_KD, metric)[0].tolist()
        own = to_all.pop(int(labels_N[row]))
        assert value == pytest.approx(min(to_all) - own, rel=1e-6, abs=1e-12)
        assert other == to_all.index(min(to_all)) + (to_all.index(min(to_all)) >= labels_N[row])
