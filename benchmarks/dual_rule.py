"""The dual rules of a clustering head on a grid of small and middle sizes, and Theorem 1 measured.

    pip install ortools matplotlib
    python benchmarks/dual_rule.py grid [--part exact] [--rules auto paper] [--processes 2] [--save]
    python benchmarks/dual_rule.py theorem [--figure docs/images/theorem1.svg] [--save]

``grid``: features stand still, a head clusters them for five epochs from random centers. Then: the
smallest cluster against its bound, empty clusters, and the sum of similarities to the final centers
against the best that any assignment under the same bound reaches there. That optimum is exact (min
cost flow, OR-tools) up to a million similarities; beyond, it is the Lagrangian bound, which is
above it, so that what is shown is at least the true distance.

``theorem``: one pass over points that stream, centers fixed: regret and violation against N.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from coke.clustering import Clustering
from coke.clustering.sizes import SizeBounds, refine_duals
from coke.clustering.stream import Stream
from coke.clustering.streaming_assignment import assign_stream

DIM = 32
EPOCHS = 5
EXACT = 1_000_000  # similarities, up to which the optimum is exact
RATIOS = (0.4, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the grid."""

    n: int
    k: int
    batch: int
    kind: str
    ratio: float
    rule: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What five epochs led to: smallest size / bound, empty clusters, distance to the optimum."""

    cell: Cell
    smallest: float
    empty: int
    gap: float
    exact: bool

    @property
    def good(self) -> bool:
        """Within 1 % of the bound (5 % where sizes are equal), no empty cluster, gap below 1 %."""
        allowed = 0.95 if self.cell.ratio == 1 else 0.99
        return self.smallest >= allowed - 1e-9 and self.empty == 0 and self.gap <= 0.01


def features(kind: str, n: int, k: int, seed: int = 0) -> Tensor:
    """Unit vectors (N, D): uniform on the sphere, or K clusters of unequal sizes."""
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(n, DIM, generator=generator)
    if kind == "clustered":
        shares_K = torch.rand(k, generator=generator) ** 2 + 0.02
        which_N = torch.multinomial(shares_K, n, replacement=True, generator=generator)
        centers_KD = F.normalize(torch.randn(k, DIM, generator=generator), dim=1)
        x_ND = centers_KD[which_N] + 0.12 * x_ND
    return F.normalize(x_ND, dim=1)


def bounds_of(n: int, k: int, ratio: float) -> SizeBounds:
    lower = math.floor(ratio * n / k + 1e-9)
    return SizeBounds(lower=lower, upper=lower if ratio == 1 and n % k == 0 else math.inf)


def optimum(values_NK: Tensor, bounds: SizeBounds, duals_K: Tensor) -> float:
    """The best sum of similarities under the bounds, exact for few points."""
    if values_NK.numel() <= EXACT:
        return _by_flow(values_NK, int(bounds.lower))
    duals_K, _ = refine_duals(
        values_NK.T.contiguous(),
        duals_K,
        bounds,
        steps=25,
        settled=1e-5,
        reaches=(0.3, 0.1, 0.03),
    )
    total = float((values_NK + duals_K).amax(dim=1).sum(dtype=torch.float64))
    return total - bounds.price(duals_K)


def _by_flow(values_NK: Tensor, lower: int) -> float:
    """Points send one unit each to clusters, which keep ``lower`` and pass the rest on."""
    from ortools.graph.python import min_cost_flow

    n, k = values_NK.shape
    flow = min_cost_flow.SimpleMinCostFlow()
    points = np.repeat(np.arange(n), k)
    clusters = np.tile(np.arange(n, n + k), n)
    costs = -(values_NK.double().numpy().ravel() * 1e6).round().astype(np.int64)
    flow.add_arcs_with_capacity_and_unit_cost(points, clusters, np.ones_like(costs), costs)
    to_rest = np.arange(n, n + k)
    rest = np.full(k, n + k)
    flow.add_arcs_with_capacity_and_unit_cost(to_rest, rest, np.full(k, n), np.zeros(k, np.int64))
    supplies = np.concatenate([np.ones(n), np.full(k, -lower), [lower * k - n]]).astype(np.int64)
    flow.set_nodes_supplies(np.arange(n + k + 1), supplies)
    status = flow.solve()
    if status != flow.OPTIMAL:
        raise RuntimeError(f"min cost flow ended with status {status}")
    return -float(flow.optimal_cost()) / 1e6


def clustered(cell: Cell) -> Outcome:
    """Five epochs of one cell."""
    torch.set_num_threads(1)
    x_ND = features(cell.kind, cell.n, cell.k)
    clustering = Clustering(
        n_ids=cell.n,
        dim=DIM,
        n_clusters=(cell.k,),
        min_ratio=cell.ratio,
        dual_rule=cell.rule,
        dual_lr=20.0,
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(EPOCHS):
        for ids in torch.randperm(cell.n, generator=generator).split(cell.batch):
            clustering.step(x_ND[ids], ids)
        clustering.end_epoch()
    head = clustering.heads[0]
    labels_N = clustering.label_store.read(torch.arange(cell.n))[0]
    sizes_K = torch.bincount(labels_N, minlength=cell.k)
    bounds = bounds_of(cell.n, cell.k, cell.ratio)
    values_NK = x_ND @ head.centers.T
    objective = float(values_NK.gather(1, labels_N.unsqueeze(1)).sum(dtype=torch.float64))
    best = optimum(values_NK, bounds, head.duals if cell.rule == "auto" else head.duals * 0)
    return Outcome(
        cell=cell,
        smallest=int(sizes_K.min()) / bounds.lower,
        empty=int((sizes_K == 0).sum()),
        gap=(best - objective) / abs(best),
        exact=values_NK.numel() <= EXACT,
    )


def grid(part: str, rules: Sequence[str], processes: int) -> list[Outcome]:
    sizes = [(n, k) for n in (2_000, 10_000, 60_000) for k in (10, 100, 1000) if n >= 20 * k]
    if part != "all":
        sizes = [(n, k) for n, k in sizes if (n * k <= EXACT) == (part == "exact")]
    cells = [
        Cell(n=n, k=k, batch=batch, kind=kind, ratio=ratio, rule=rule)
        for (n, k), batch, kind, ratio, rule in itertools.product(
            sizes, (64, 256, 1024), ("clustered", "uniform"), RATIOS, rules
        )
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.imap(clustered, cells, chunksize=1)
        return list(track(found, "grid", total=len(cells)))


def show_grid(outcomes: list[Outcome], console: Console) -> None:
    table = Table(title=f"{EPOCHS} epochs; worst over batches of 64, 256, 1,024 and two kinds")
    for column in ("N", "K", "ratio", "rule", "smallest / bound", "empty", "gap", "cells met"):
        table.add_column(column, justify="left" if column == "rule" else "right")

    def key(outcome: Outcome) -> tuple[Any, ...]:
        c = outcome.cell
        return c.n, c.k, c.ratio, c.rule

    for (n, k, ratio, rule), group in itertools.groupby(sorted(outcomes, key=key), key):
        cells = list(group)
        table.add_row(
            f"{n:,}",
            f"{k:,}",
            f"{ratio}",
            rule,
            f"{min(o.smallest for o in cells):.3f}",
            f"{max(o.empty for o in cells)}",
            f"{'' if cells[0].exact else '<= '}{max(o.gap for o in cells):.2%}",
            f"{sum(o.good for o in cells)} / {len(cells)}",
        )
    console.print(table)
    for rule in sorted({o.cell.rule for o in outcomes}):
        of_rule = [o for o in outcomes if o.cell.rule == rule]
        met = sum(o.good for o in of_rule)
        console.print(f"{rule}: {met} of {len(of_rule)} cells met", highlight=False)
    for outcome in outcomes:
        if outcome.cell.rule == "auto" and not outcome.good:
            c = outcome.cell
            console.print(
                f"auto, not met: N {c.n:,} K {c.k:,} batch {c.batch} {c.kind} ratio {c.ratio}: "
                f"smallest {outcome.smallest:.3f}, gap {outcome.gap:.2%}",
                highlight=False,
            )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Regret and violation of one pass, medians over seeds."""

    n: int
    regret: float
    violation: float


def theorem(rule: str, k: int = 10, ratio: float = 0.8, seeds: int = 5) -> list[Measured]:
    """One pass for each N, with the centers of a clustering that ignored sizes."""
    found = []
    for n in track([1000 * 2**i for i in range(7)], rule):
        runs = [_pass(rule, n, k, ratio, seed) for seed in range(seeds)]
        regret, violation = (statistics.median(values) for values in zip(*runs, strict=True))
        found.append(Measured(n=n, regret=regret, violation=violation))
    return found


def _pass(rule: str, n: int, k: int, ratio: float, seed: int) -> tuple[float, float]:
    centers_KD = features("uniform", k, k, seed=100)
    x_ND = features("clustered", n, k, seed=seed)
    values_NK = x_ND @ centers_KD.T
    bounds = bounds_of(n, k, ratio)
    if rule == "Theorem 1":
        labels_N = _theorem_pass(values_NK, bounds.lower / n)
    else:
        before_N = torch.full((n,), -1)
        duals_K, sizes_K, stream = torch.zeros(k), torch.zeros(k), Stream.of(bounds, n, k)
        for _ in range(1 if rule == "auto, first pass" else 5):
            order = torch.randperm(n)
            for rows in order.split(256):
                before_N[rows], duals_K, sizes_K = assign_stream(
                    values_NK[rows], before_N[rows], duals_K, sizes_K, stream
                )
        labels_N = before_N
    sizes_K = torch.bincount(labels_N, minlength=k)
    objective = float(values_NK.gather(1, labels_N.unsqueeze(1)).sum(dtype=torch.float64))
    regret = optimum(values_NK, bounds, torch.zeros(k)) - objective
    return regret, float((bounds.lower - sizes_K).clamp(min=0).max())


def _theorem_pass(values_NK: Tensor, share: float, tau: float = 10.0) -> Tensor:
    """Eqns. 8 and 9, one instance at a time, with the step of the theorem."""
    values, duals = values_NK.numpy(), np.zeros(values_NK.shape[1], np.float32)
    step = tau / math.sqrt(2 * len(values))
    labels = np.empty(len(values), np.int64)
    for i, row in enumerate(values):
        labels[i] = best = int((row + duals).argmax())
        duals[best] -= step
        duals += step * share
        np.maximum(duals, 0, out=duals)
        if duals.sum() > tau:
            duals = _onto_simplex(duals, tau)
    return torch.from_numpy(labels)


def _onto_simplex(duals: Any, tau: float) -> Any:
    """The nearest point of non-negative coordinates that sum to tau."""
    falling = np.sort(duals)[::-1]
    excess = (falling.cumsum() - tau) / np.arange(1, len(duals) + 1)
    return np.maximum(duals - excess[np.nonzero(falling > excess)[0][-1]], 0)


def exponent(ns: Sequence[int], values: Sequence[float]) -> float | None:
    """Slope of a line through the logarithms; None where values are not all positive."""
    points = [(n, v) for n, v in zip(ns, values, strict=True) if v > 0]
    if len(points) < 3 or any(v < 0 for v in values):
        return None
    logs = [(math.log(n), math.log(v)) for n, v in points]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def show_theorem(measured: dict[str, list[Measured]], console: Console) -> None:
    table = Table(title="regret and violation of one pass, K = 10, ratio 0.8; medians of 5 seeds")
    table.add_column("rule")
    for found in next(iter(measured.values())):
        table.add_column(f"{found.n:,}", justify="right")
    table.add_column("exponent", justify="right")
    for rule, found_N in measured.items():
        for name in ("regret", "violation"):
            values = [getattr(m, name) for m in found_N]
            slope = exponent([m.n for m in found_N], values)
            shown = "-" if slope is None else f"{slope:.2f}"
            table.add_row(f"{rule}: {name}", *(f"{v:.1f}" for v in values), shown)
    console.print(table)


def draw(measured: dict[str, list[Measured]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, name in zip(axes, ("regret", "violation"), strict=True):
        for rule, found in measured.items():
            ns, values = [m.n for m in found], [getattr(m, name) for m in found]
            slope = exponent(ns, values)
            label = rule if slope is None else f"{rule}: N^{slope:.2f}"
            ax.plot(ns, values, marker="o", label=label)
        start = measured["Theorem 1"][0].regret
        guide = [start * math.sqrt(n / ns[0]) for n in ns]
        ax.plot(ns, guide, color="gray", linestyle=":", label="N^0.5")
        ax.set(xscale="log", yscale="symlog", xlabel="points N", title=name)
        ax.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("grid", "theorem"))
    parser.add_argument(
        "--part",
        choices=("all", "exact", "bounded"),
        default="all",
        help="by how the best is known",
    )
    parser.add_argument("--rules", nargs="+", default=["auto", "paper"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="where to draw the theorem's figure")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    console = Console(record=True, width=120)
    if options.what == "grid":
        show_grid(grid(options.part, options.rules, options.processes), console)
    else:
        torch.manual_seed(0)
        rules = ("Theorem 1", "auto, first pass", "auto, fifth pass")
        measured = {rule: theorem(rule) for rule in rules}
        show_theorem(measured, console)
        if options.figure:
            draw(measured, options.figure)
    console.print(f"{date.today()}: torch {torch.__version__}", highlight=False)
    if options.save:
        part = "" if options.part == "all" else f"-{options.part}"
        of_rule = "" if len(options.rules) == 2 else f"-{options.rules[0]}"
        name = f"dual-rule-{options.what}{part}{of_rule}-{date.today()}.txt"
        (Path(__file__).parent / "results" / name).write_text(
            console.export_text(), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
