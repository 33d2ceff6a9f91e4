"""How good the assignment of OnlineConstrainedKMeans is, against an exact solver, and its speed.

    python benchmarks/assignments.py [--save]

First table: points that make assignments hard, three kinds of sizes. The clustering's own centers
are kept, and HiGHS finds the best assignment of the points to them under the same sizes. Second
table: the seconds that identical rows cost, side by side with distinct ones.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import sparse
from scipy.optimize import linprog

from coke import OnlineConstrainedKMeans

K = 8
ROUNDS = 3
SIZES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("equal", {"min_ratio": 1.0}),
    ("at least 0.8", {"min_ratio": 0.8}),
    ("0.5 to 1.2", {}),
)


def kinds(n: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Names and points (N, D)."""
    rng = np.random.default_rng(0)
    yield "uniform, 3 features", rng.random((n, 3))
    yield "normal, 1 feature", rng.normal(size=(n, 1))
    yield "whole numbers 0 to 3, 2 features", rng.integers(0, 4, size=(n, 2)).astype(float)
    yield "binary, 16 features", rng.integers(0, 2, size=(n, 16)).astype(float)
    x = rng.normal(size=(n, 8))
    x[: 6 * n // 10] = x[0]
    yield "60 % identical", x
    yield "20 different points", rng.normal(size=(20, 8))[rng.integers(0, 20, n)]
    x = rng.normal(size=(n, 8))
    x[: 9 * n // 10] *= 1e-3
    yield "90 % within 0.001", x
    yield "heavy tails (t, 1.5)", rng.standard_t(1.5, size=(n, 4))
    yield "one outlier at 1,000", np.concatenate([rng.normal(size=(n - 1, 2)), [[1e3, 1e3]]])
    yield "shifted by 1e6", rng.normal(size=(n, 3)) + 1e6


def exact(squares_NK: NDArray[np.float64], lower: int, upper: float) -> float:
    """The smallest sum of squared distances under the sizes, by HiGHS."""
    n, k = squares_NK.shape
    sizes = sparse.kron(np.ones((1, n)), sparse.eye(k))
    found = linprog(
        squares_NK.ravel(),
        A_ub=sparse.vstack([sizes, -sizes]),
        b_ub=np.concatenate([np.full(k, min(upper, n)), np.full(k, -lower)]),
        A_eq=sparse.kron(sparse.eye(n), np.ones((1, k))),
        b_eq=np.ones(n),
        bounds=(0, 1),
        method="highs",
    )
    assert found.status == 0, found.message
    return float(found.fun)


def quality(n: int) -> Table:
    table = Table(title=f"{n:,} points, K = {K}: the assignment and the best one, at its centers")
    for column in ("points", "sizes", "inertia", "above the best", "optimality_gap_", "seconds"):
        table.add_column(column, justify="left" if column in ("points", "sizes") else "right")
    for name, x in track(list(kinds(n))):
        for words, chosen in SIZES:
            sizes = chosen or {"min_size": n // K // 2, "max_size": int(1.2 * n / K) + 1}
            began = time.perf_counter()
            km = OnlineConstrainedKMeans(K, metric="euclidean", random_state=0, **sizes).fit(x)
            seconds = time.perf_counter() - began
            lower = sizes.get("min_size", math.floor(sizes.get("min_ratio", 0) * n / K + 1e-9))
            squares = ((x[:, None] - km.cluster_centers_[None]) ** 2).sum(axis=2)
            reached = squares[np.arange(n), km.labels_].sum()
            best = exact(squares, lower, sizes.get("max_size", math.inf))
            table.add_row(
                name,
                words,
                f"{km.inertia_:.6g}",
                f"{max(reached - best, 0) / best if best else 0:.1e}",
                f"{km.optimality_gap_:.1e}",
                f"{seconds:.2f}",
            )
    return table


def speed(n: int, k: int, d: int) -> Table:
    """Medians of seconds, in turns."""
    table = Table(title=f"{n:,} x {d}, K = {k}, at least 0.8; medians of {ROUNDS} rounds")
    for column in ("metric", "distinct rows", "60 % identical", "ratio", "optimality_gap_"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    distinct = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    identical = distinct.copy()
    identical[: 6 * n // 10] = identical[0]
    for metric in ("cosine", "euclidean"):
        seconds: dict[str, list[float]] = {"distinct": [], "identical": []}
        gap = 0.0
        for _ in track(range(ROUNDS), metric):
            for name, x in (("distinct", distinct), ("identical", identical)):
                began = time.perf_counter()
                km = OnlineConstrainedKMeans(k, min_ratio=0.8, random_state=0, metric=metric).fit(x)
                seconds[name].append(time.perf_counter() - began)
                gap = km.optimality_gap_
        one, other = (statistics.median(seconds[name]) for name in ("distinct", "identical"))
        table.add_row(metric, f"{one:.2f} s", f"{other:.2f} s", f"{other / one:.2f}", f"{gap:.1e}")
    return table


def cpu() -> str:
    """The name of this machine's CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    console = Console(record=True, width=120)
    console.print(quality(400))
    console.print(speed(20_000, 200, 32))
    cores = len(os.sched_getaffinity(0))
    console.print(
        f"{date.today()}: {cores} cores of {cpu()}, torch {torch.__version__}", highlight=False
    )
    if options.save:
        path = Path(__file__).parent / "results" / f"assignments-{date.today()}.txt"
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
