"""One clustering step of a training run, against the same rules in plain PyTorch.

    python benchmarks/heads.py [--rounds 15] [--batch 1024] [--device cuda] [--save]

The setting is ImageNet's: 1,281,167 ids, features of 128 dimensions, heads of 3,000, 4,000 and
5,000 clusters. The other side is Eqns. 8, 9, 11 and 13 in plain PyTorch, as the released code
lays it out: centers (D, K), ``unique`` and ``index_add_`` head by head, and a Python loop over the
batch for labels with several clusters. Both get the same batches in turns, and must find the same
labels. Beneath the steps stands the matrix product of features and centers, which both must take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from coke.clustering import Clustering

N_IDS, DIM, N_CLUSTERS = 1_281_167, 128, (3000, 4000, 5000)
RATIO, DUAL_LR, LABEL_SIZE, LABEL_TEMPERATURE = 0.4, 20.0, 5, 0.5
POOL = 4  # batches that come again and again, so that labels have several clusters
WARM_UP = 6  # epochs of the pool before the clock starts: fills the slots of averaged labels


class PlainHead:
    """One head, rule by rule."""

    def __init__(self, centers_KD: Tensor) -> None:
        self.centers = F.normalize(centers_KD, dim=1).T.contiguous()
        self.running = self.centers.clone()
        self.duals = torch.zeros(self.centers.shape[1])
        self.counts = torch.zeros(self.centers.shape[1])
        self.labels = torch.zeros(N_IDS, LABEL_SIZE, dtype=torch.int64)
        self.weights = torch.zeros(N_IDS, LABEL_SIZE)

    @property
    def n_clusters(self) -> int:
        return len(self.duals)

    def step(self, x: Tensor, ids: Tensor, epoch: int, second_stage: bool) -> Tensor:
        centers = self.centers if second_stage else self.running
        labels = (x @ centers + self.duals).argmax(dim=1)
        which, sizes = labels.unique(return_counts=True)
        self.duals[which] -= DUAL_LR * sizes / len(x)
        self.duals += DUAL_LR * RATIO / self.n_clusters
        self.duals[self.duals < 0] = 0
        before = self.counts[which]
        self.counts[which] += sizes
        self.running[:, which] *= before / self.counts[which]
        self.running.index_add_(1, labels, (x / self.counts[labels].unsqueeze(1)).T)
        if second_stage:
            self.average_labels(ids, labels, 1 / (epoch + 1))
        else:
            self.running[:, which] = F.normalize(self.running[:, which], dim=0)
            self.labels[ids, 0] = labels
        return labels

    def average_labels(self, ids: Tensor, labels: Tensor, weight: float) -> None:
        for i, label in zip(ids, labels, strict=True):
            known, weights = self.labels[i], self.weights[i]
            listed = ((known == label) & (weights > 0)).nonzero()
            if len(listed):
                slot = int(listed[0])
                weights *= 1 - weight
            else:
                slot = int(weights.argmin())
                known[slot] = label
                weights[slot] = 0
                weights *= (1 - weight) / weights.sum().clamp(min=1e-12)
            weights[slot] += weight
            weights /= weights.sum()

    def soft_targets(self, ids: Tensor) -> Tensor:
        targets = torch.zeros(len(ids), self.n_clusters)
        for row, i in enumerate(ids):
            listed = self.weights[i] > 0
            soft = torch.softmax(self.weights[i][listed] / LABEL_TEMPERATURE, dim=0)
            targets[row, self.labels[i][listed]] = soft
        return targets

    def end_epoch(self, epoch: int, second_stage: bool) -> None:
        if second_stage:
            latest, weight = F.normalize(self.running, dim=0), 1 / (epoch + 1)
            self.centers = F.normalize((1 - weight) * self.centers + weight * latest, dim=0)
        else:
            self.centers = self.running.clone()
        self.running = self.centers.clone()
        self.counts.zero_()


class Plain:
    """All heads; the side that ours is measured against."""

    def __init__(self, centers: list[Tensor], second_stage: bool) -> None:
        self.heads = [PlainHead(c) for c in centers]
        self.second_stage = second_stage
        self.epoch = 0

    def step(self, x: Tensor, ids: Tensor) -> list[Tensor]:
        return [head.step(x, ids, self.epoch, self.second_stage) for head in self.heads]

    def targets(self, ids: Tensor) -> list[Tensor]:
        if self.second_stage:
            return [head.soft_targets(ids) for head in self.heads]
        return [head.labels[ids, 0] for head in self.heads]

    def end_epoch(self) -> None:
        for head in self.heads:
            head.end_epoch(self.epoch, self.second_stage)
        self.epoch += 1


def ours(centers: list[Tensor], rule: str, second_stage: bool) -> Clustering:
    return Clustering(
        n_ids=N_IDS,
        dim=DIM,
        n_clusters=N_CLUSTERS,
        min_ratio=RATIO,
        dual_rule=rule,
        dual_lr=DUAL_LR,
        first_stage_epochs=0 if second_stage else 10**6,
        label_size=LABEL_SIZE,
        label_temperature=LABEL_TEMPERATURE,
        centers=centers,
        device=torch.get_default_device(),
    )


def pool_of_batches(batch: int) -> list[tuple[Tensor, Tensor]]:
    """Ids and what their features are, up to what a view adds."""
    ids = torch.randperm(N_IDS)[: POOL * batch].split(batch)
    return [(F.normalize(torch.randn(len(rows), DIM), dim=1), rows) for rows in ids]


def seen(features: Tensor) -> Tensor:
    """A view of the images with these features."""
    return F.normalize(features + 2.0 / DIM**0.5 * torch.randn_like(features), dim=1)


def multiply(x: Tensor, centers: Tensor, out: Tensor) -> None:
    torch.mm(x, centers.T, out=out)


def timed(seconds: list[float], call: Callable[..., Any], *arguments: Any) -> Any:
    wait_for_device()
    began = time.perf_counter()
    result = call(*arguments)
    wait_for_device()
    seconds.append(time.perf_counter() - began)
    return result


def wait_for_device() -> None:
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()


def measure(second_stage: bool, options: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """Seconds of every call, by (what, who)."""
    torch.manual_seed(0)
    centers = [torch.randn(k, DIM) for k in N_CLUSTERS]
    plain = Plain(centers, second_stage)
    paper = ours(centers, "paper", second_stage)
    auto = ours(centers, "auto", second_stage)
    sides: dict[str, Any] = {"plain": plain, "paper": paper, "auto": auto}
    stage = "second" if second_stage else "first"
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    batches = pool_of_batches(options.batch)
    all_centers = torch.cat(centers)
    product = torch.empty(options.batch, len(all_centers))
    same = total = 0
    for round_ in track(range(WARM_UP + options.rounds), f"{stage} stage"):
        for base, ids in batches:
            x = seen(base)
            labels = {}
            for name, side in sides.items():
                targets = timed(seconds[f"{stage} stage, targets", name], side.targets, ids)
                assert len(targets) == len(N_CLUSTERS)
                labels[name] = timed(seconds[f"{stage} stage, step", name], side.step, x, ids)
                timed(seconds["  its matrix product", name], multiply, x, all_centers, product)
            for a, b in zip(labels["plain"], labels["paper"], strict=True):
                same += int((a == b).sum())
                total += len(a)
        for side in sides.values():
            side.end_epoch()
        if round_ == WARM_UP - 1:
            seconds.clear()
    assert same / total > 0.999, "both sides follow the same rules"
    for ours_BK, plain_BK in zip(paper.targets(ids), plain.targets(ids), strict=True):
        close = (ours_BK.float() - plain_BK.float()).abs() < 1e-3
        assert close.float().mean() > 0.999, "both sides train towards the same"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help=f"each of {POOL} batches")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    title = f"{options.batch:,} features of {DIM} dimensions, heads of {N_CLUSTERS} clusters"
    table = Table(title=f"{title}, {N_IDS:,} ids; medians, milliseconds")
    for column in ("", "plain", "coke, paper's duals", "plain / coke", "coke, auto duals"):
        table.add_column(column, justify="right" if column else "left")
    for second_stage in (False, True):
        seconds = measure(second_stage, options)
        for what in dict.fromkeys(what for what, _ in seconds):
            median = {
                name: 1e3 * statistics.median(seconds[what, name])
                for name in ("plain", "paper", "auto")
            }
            table.add_row(
                what,
                f"{median['plain']:.2f}",
                f"{median['paper']:.2f}",
                f"{median['plain'] / median['paper']:.1f}",
                f"{median['auto']:.2f}",
            )
    console = Console(record=True, width=120)
    console.print(table)
    cores = len(os.sched_getaffinity(0))
    where = f"{cores} cores" if options.device == "cpu" else torch.cuda.get_device_name()
    console.print(f"{date.today()}: {where}, torch {torch.__version__}", highlight=False)
    if options.save:
        on = "" if options.device == "cpu" else "-gpu"
        path = Path(__file__).parent / "results" / f"heads{on}-{date.today()}.txt"
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
