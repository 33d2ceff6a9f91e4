"""Sizes steered while points stream: by hand, against a plain loop, and on whole data sets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from coke.clustering import Clustering
from coke.clustering.sizes import SizeBounds
from coke.clustering.stream import Stream
from coke.clustering.streaming_assignment import (
    GAIN,
    assign_stream,
    dual_step,
    spread_of,
)
from coke.clustering.sweeps_in_torch import sweeps_in_torch
from tests.clustering.exact import exact_optimum

ROOT2 = math.sqrt(2)


def test_what_sizes_are_steered_to() -> None:
    lower = Stream.of(SizeBounds(lower=40), 1000, 10)
    assert lower.steered.lower == pytest.approx(40.9)
    assert (lower.held, lower.sweep) == (40, 8)
    fraction = Stream.of(SizeBounds(lower=2.5), 1000, 100)
    assert fraction.steered.lower == pytest.approx(3.025) and fraction.held == 3
    # If the bound were rounded up, no point could ever change its cluster.
    assert Stream.of(SizeBounds(lower=2.9), 303, 100).held == 2
    # A margin above N / K would ask for more points than there are.
    assert Stream.of(SizeBounds(lower=99.9), 1000, 10).steered.lower == 100
    equal = Stream.of(SizeBounds(lower=100, upper=100), 1000, 10)
    assert (equal.steered.lower, equal.steered.upper, equal.held) == (100, 100, 96)
    # Few points a cluster: one may leave, or labels could never change.
    assert Stream.of(SizeBounds(lower=20, upper=20), 400, 20).held == 19
    assert Stream.of(SizeBounds(lower=5_000), 1_000_000, 100).sweep == 1250


def test_spread() -> None:
    values = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    assert float(spread_of(values)) == pytest.approx(ROOT2 / 2)  # of (0, 2): sqrt 2; of (1, 1): 0
    assert float(spread_of(torch.zeros(3, 2))) > 0
    assert float(spread_of(torch.zeros(3, 1))) == 1


def test_new_points_by_hand() -> None:
    """Spread 1 / sqrt 2 for all, four points of two clusters: a step of 4 * 0.7071 * 2 / 4, and
    twelve times that where no point has a label yet."""
    values = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    stream = Stream(n_points=4, steered=SizeBounds(lower=1.0), held=0, sweep=1, first_step=12)
    new, none = torch.tensor([-1, -1]), torch.zeros(2)
    labels, duals, sizes = assign_stream(values, new, none, none, stream)
    step = 12 * GAIN / ROOT2 * 2 / 4
    # The first takes cluster 0: duals 0 - step + step / 4 -> 0 and step / 4 = 4.24, so the second
    # takes 1: step / 4 and step / 4 - step + step / 4 -> 0.
    assert labels.tolist() == [0, 1]
    assert sizes.tolist() == [1, 1]
    assert duals.tolist() == [pytest.approx(step / 4), 0]

    # Half of the points have labels: a quarter of what the step is longer by.
    half = torch.tensor([1.0, 1.0])
    _, duals, _ = assign_stream(values[:1], new[:1], none, half, stream)
    step = (1 + 11 / 4) * GAIN / ROOT2 * 2 / 4
    assert duals.tolist() == [0, pytest.approx(step / 4)]


def test_points_seen_before_by_hand() -> None:
    """One of four points changes from cluster 0, which has three of them, to cluster 1."""
    stream = Stream(n_points=4, steered=SizeBounds(lower=1.5), held=0, sweep=4)
    labels, duals, sizes = assign_stream(
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([0]),
        torch.tensor([0.0, 0.5]),
        torch.tensor([3.0, 1.0]),
        stream,
    )
    step = GAIN / ROOT2 * 2 / 4
    assert labels.tolist() == [1] and sizes.tolist() == [2, 2]
    # Cluster 0 gave one (+ step), but was 1.5 above its bound, 0.15 more for being off it.
    # Cluster 1 got one (- step), and was 0.5 below: both times one of four points came by.
    first = step - step * (1.5 + 0.15) / 4
    second = 0.5 - step + step * (0.5 + 0.15) / 4
    assert duals.tolist() == [pytest.approx(first), pytest.approx(max(second, 0))]


def test_a_cluster_at_its_bound_lets_nobody_go() -> None:
    values = torch.tensor([[0.0, 1.0]] * 3)
    stream = Stream(n_points=6, steered=SizeBounds(lower=2.0), held=2, sweep=8)
    before, sizes = torch.zeros(3, dtype=torch.int64), torch.tensor([3.0, 3.0])
    labels, _, after = assign_stream(values, before, torch.zeros(2), sizes, stream)
    assert labels.tolist() == [1, 0, 0]  # the first point may leave its cluster
    assert after.tolist() == [2, 4]


def test_settled_labels_leave_the_duals_alone() -> None:
    duals = torch.tensor([0.3, 0.0, 0.1])
    values = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2])).float()
    stream = Stream(n_points=6, steered=SizeBounds(lower=2.0, upper=2.0), held=1, sweep=4)
    labels, after, _ = assign_stream(
        values, values.argmax(1), duals, torch.tensor([2.0, 2.0, 2.0]), stream
    )
    assert labels.tolist() == values.argmax(1).tolist()
    assert torch.equal(after, duals)


def plain_loop(
    values: Tensor, before: list[int], duals: list[float], sizes: list[float], stream: Stream
) -> tuple[list[int], list[float], list[float]]:
    """The rule in plain Python, from its description."""
    k, n, bounds = len(duals), stream.n_points, stream.steered
    spread = sum(float(row.std()) for row in values[:32]) / len(values[:32])
    known = sum(sizes) / n
    new = sum(was < 0 for was in before) / len(before)
    step = GAIN * (1 + (stream.first_step - 1) * new * (1 - known) ** 2) * spread * k / n
    duals, sizes, labels = list(duals), list(sizes), []
    for start in range(0, len(values), stream.sweep):
        old = before[start : start + stream.sweep]
        rows = values[start : start + stream.sweep].tolist()
        moved, left, given = [0.0] * k, [0.0] * k, [0.0] * k
        for row, was in zip(rows, old, strict=True):
            best = max(range(k), key=lambda j: row[j] + duals[j])
            label = best
            if was >= 0 and best != was:
                if sizes[was] - left[was] <= stream.held:
                    label = was
                left[was] += 1
            moved[best] += 1
            given[label] += 1
            if was >= 0:
                moved[was] -= 1
                given[was] -= 1
            labels.append(label)
        seen = sum(was >= 0 for was in old)

        for j in range(k):
            free = duals[j] - step * moved[j]
            lower, upper = (
                seen / n * (above + 0.1 * bound * ((above > 0) - (above < 0)))
                - (len(old) - seen) / n * bound
                for bound, above in (
                    (bounds.lower, sizes[j] - bounds.lower * known),
                    (bounds.upper, sizes[j] - bounds.upper * known),
                )
            )
            drawn = free - step * lower
            if bounds.lower == bounds.upper:
                duals[j] = drawn
            elif drawn > 0 or math.isinf(bounds.upper):
                duals[j] = max(drawn, 0.0)
            else:
                duals[j] = min(free - step * upper, 0.0)
        sizes = [a + b for a, b in zip(sizes, given, strict=True)]
    return labels, duals, sizes


@pytest.mark.parametrize("upper", [math.inf, 12.0, 40.0])
@pytest.mark.parametrize("sweep", [1, 7, 64])
def test_both_implementations_agree_with_a_plain_loop(upper: float, sweep: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n, k = 120, 10
    values = torch.randn(n, k, generator=generator)
    stream = Stream(
        n_points=n, steered=SizeBounds(lower=12.0, upper=upper), held=11, sweep=sweep, first_step=3
    )
    labels = torch.full((n,), -1)
    duals, sizes = torch.zeros(k), torch.zeros(k)
    for _ in range(4):  # the first ten rows keep no label until the second pass
        rows = torch.randperm(n, generator=generator)[:110]
        expected = plain_loop(
            values[rows], labels[rows].tolist(), duals.tolist(), sizes.tolist(), stream
        )
        state = (values[rows], labels[rows], duals, sizes)
        got, duals, sizes = assign_stream(*state, stream)
        labels[rows] = got
        assert got.tolist() == expected[0]
        torch.testing.assert_close(duals, torch.tensor(expected[1]), atol=1e-4, rtol=1e-4)
        assert sizes.tolist() == expected[2]
        on_device = sweeps_in_torch(*state, stream, dual_step(*state, stream))
        assert torch.equal(on_device[0], got)
        torch.testing.assert_close(on_device[1:], (duals, sizes), atol=1e-5, rtol=1e-5)
        known = labels[labels >= 0]
        assert sizes.tolist() == torch.bincount(known, minlength=k).tolist()


def test_sizes_never_fall_below_what_is_held() -> None:
    """The bounds hold for adversarial input: all points prefer one cluster, then another."""
    generator = torch.Generator().manual_seed(0)
    n, k = 200, 8
    stream = Stream.of(SizeBounds(lower=10), n, k)
    labels = torch.arange(n) % k
    duals, sizes = torch.zeros(k), torch.bincount(labels).float()
    for drawn in range(6):
        values = torch.randn(n, k, generator=generator)
        values[:, drawn] += 5
        for rows in torch.randperm(n, generator=generator).split(64):
            labels[rows], duals, sizes = assign_stream(
                values[rows], labels[rows], duals, sizes, stream
            )
            assert sizes.min() >= 10
            assert sizes.tolist() == torch.bincount(labels, minlength=k).tolist()
    assert sizes[5] > 75  # the cluster grows to three times its share


def features(kind: str, n: int, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 32, generator=generator)
    if kind == "clustered":  # of unequal sizes
        shares = torch.rand(k, generator=generator) ** 2 + 0.02
        which = torch.multinomial(shares, n, replacement=True, generator=generator)
        x = F.normalize(torch.randn(k, 32, generator=generator), dim=1)[which] + 0.12 * x
    return F.normalize(x, dim=1)


@pytest.mark.parametrize("ratio", [0.4, 1.0])
@pytest.mark.parametrize("kind", ["clustered", "uniform"])
@pytest.mark.parametrize(("k", "batch"), [(10, 64), (50, 256)])
def test_five_epochs_keep_the_bound_and_come_near_the_exact_optimum(
    k: int, batch: int, kind: str, ratio: float
) -> None:
    n, lower = 1000, ratio * 1000 / k
    x = features(kind, n, k)
    clustering = Clustering(n_ids=n, dim=32, n_clusters=(k,), min_ratio=ratio, dual_rule="auto")
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for ids in torch.randperm(n, generator=generator).split(batch):
            clustering.step(x[ids], ids)
        (report,) = clustering.end_epoch()
    labels = clustering.label_store.read(torch.arange(n))[0]
    sizes = torch.bincount(labels, minlength=k)
    assert (report.smallest, report.largest) == (int(sizes.min()), int(sizes.max()))
    assert sizes.min() >= (lower if ratio < 1 else 0.95 * lower) - 1e-6
    values = x @ clustering.heads[0].centers.T
    objective = float(values.gather(1, labels.unsqueeze(1)).sum())
    optimum = exact_optimum(values.numpy(), int(lower), int(lower) if ratio == 1 else math.inf)
    assert objective >= optimum - 0.01 * abs(optimum)
