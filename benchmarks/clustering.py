"""OnlineConstrainedKMeans against what users would pick, in one run; ratios of medians.

    pip install k-means-constrained faiss-cpu scikit-learn
    python benchmarks/clustering.py [--rounds 3] [--large 1000000] [--save]

Small sets against k-means-constrained (exact sizes by min-cost flow), a large one against faiss
and scikit-learn's MiniBatchKMeans (no sizes). All start from the same centers and make as many
passes; inertia is the sum of squared distances to the own center. MiniBatchKMeans moves centers
with few points to other points, which none of the others does: it runs also without that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from coke import OnlineConstrainedKMeans

PASSES = 10


class Result(NamedTuple):
    """Labels and centers of one fit, and its wall time."""

    labels: NDArray[Any]
    centers: NDArray[Any]
    seconds: float


Clusterer: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.float32], int], Result]


class Contest(NamedTuple):
    """Points, a number of clusters, a smallest size, and those who cluster them."""

    name: str
    points: NDArray[np.float32]
    n_clusters: int
    min_size: int
    others: dict[str, Clusterer]
    rounds: int


def blobs(n: int, k: int, d: int) -> NDArray[np.float32]:
    """Overlapping clusters of very different sizes."""
    rng = np.random.default_rng(0)
    shares = rng.random(k) ** 2 + 0.05
    which = rng.choice(k, n, p=shares / shares.sum())
    points = rng.normal(size=(k, d)).astype(np.float32)[which]
    points += 0.7 * rng.normal(size=(n, d)).astype(np.float32)
    return points


def coke(x: NDArray[np.float32], start: NDArray[np.float32], min_size: int) -> Result:
    began = time.perf_counter()
    km = OnlineConstrainedKMeans(
        len(start), min_size=min_size, metric="euclidean", init=start, max_iter=PASSES, tol=0
    ).fit(x)
    return Result(km.labels_, km.cluster_centers_, time.perf_counter() - began)


def k_means_constrained(
    x: NDArray[np.float32], start: NDArray[np.float32], min_size: int
) -> Result:
    from k_means_constrained import KMeansConstrained

    began = time.perf_counter()
    km = KMeansConstrained(
        len(start), size_min=min_size, init=start, n_init=1, max_iter=PASSES, tol=0
    ).fit(x)
    return Result(km.labels_, km.cluster_centers_, time.perf_counter() - began)


def faiss(x: NDArray[np.float32], start: NDArray[np.float32], min_size: int) -> Result:
    import faiss as library

    began = time.perf_counter()
    km = library.Kmeans(x.shape[1], len(start), niter=PASSES, max_points_per_centroid=10**9)
    km.train(x, init_centroids=start)
    _, labels = km.index.search(x, 1)
    assert km.centroids is not None
    return Result(labels[:, 0], km.centroids, time.perf_counter() - began)


def mini_batch(
    x: NDArray[np.float32],
    start: NDArray[np.float32],
    min_size: int,
    reassignment_ratio: float = 0.01,
) -> Result:
    from sklearn.cluster import MiniBatchKMeans

    began = time.perf_counter()
    km = MiniBatchKMeans(
        len(start),
        init=start,
        n_init=1,
        max_iter=PASSES,
        batch_size=1024,
        max_no_improvement=None,
        reassignment_ratio=reassignment_ratio,
        random_state=0,
    ).fit(x)
    return Result(km.labels_, km.cluster_centers_, time.perf_counter() - began)


def inertia(x: NDArray[np.float32], result: Result) -> float:
    total = 0.0
    for first in range(0, len(x), 100_000):
        rows = slice(first, first + 100_000)
        difference = x[rows] - result.centers[result.labels[rows]]
        total += float((difference.astype(np.float64) ** 2).sum())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=1_000_000, help="points; 0 to leave out")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    exact: dict[str, Clusterer] = {"k-means-constrained": k_means_constrained}
    contests = [
        Contest("5,000 x 32, K = 20", blobs(5000, 20, 32), 20, 100, exact, options.rounds),
        Contest("23,000 x 50, K = 10", blobs(23000, 10, 50), 10, 920, exact, options.rounds),
    ]
    if options.large:
        n = options.large
        others: dict[str, Clusterer] = {
            "faiss": faiss,
            "MiniBatchKMeans": mini_batch,
            "MiniBatchKMeans, centers stay": partial(mini_batch, reassignment_ratio=0.0),
        }
        points = blobs(n, 1000, 64)
        size = int(0.4 * n / 1000)
        contests.append(Contest(f"{n:,} x 64, K = 1,000", points, 1000, size, others, 1))
    table = Table(title=f"{PASSES} passes from the same centers; medians")
    for column in ("points", "library", "seconds", "/ coke", "inertia / coke", "smallest", "asked"):
        table.add_column(column, justify="left" if column in ("points", "library") else "right")
    for contest in contests:
        x, k = contest.points, contest.n_clusters
        start = x[np.random.default_rng(1).permutation(len(x))[:k]].copy()
        runs: dict[str, list[Result]] = {name: [] for name in ("coke", *contest.others)}
        for _ in track(range(contest.rounds), contest.name):
            for name, run in (("coke", coke), *contest.others.items()):
                runs[name].append(run(x, start, contest.min_size))
        seconds = {n: statistics.median(r.seconds for r in results) for n, results in runs.items()}
        base = inertia(x, runs["coke"][0])
        for name, results in runs.items():
            sizes = np.bincount(results[0].labels, minlength=k)
            table.add_row(
                contest.name,
                name,
                f"{seconds[name]:.2f}",
                f"{seconds[name] / seconds['coke']:.2f}",
                f"{inertia(x, results[0]) / base:.4f}",
                f"{sizes.min():,}",
                f"{contest.min_size:,}",
            )
    console = Console(record=True, width=120)
    console.print(table)
    cores = len(os.sched_getaffinity(0))
    console.print(f"{date.today()}: {cores} cores, torch {torch.__version__}", highlight=False)
    if options.save:
        path = Path(__file__).parent / "results" / f"clustering-{date.today()}.txt"
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
