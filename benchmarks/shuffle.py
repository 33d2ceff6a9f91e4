"""How well orders shuffle a data set whose images are sorted by class.

    python benchmarks/shuffle.py [--epochs 3] [--save]

Ids and containers as `coke ingest` makes them of ImageNet: 1,281,167 ids in class order, 1,000
classes. Batches of 1,024. For the blocks order by window (containers x images per container), and
for the global one:

- classes per batch: mean and smallest, of distinct classes; and the largest share of one class in
  any batch;
- longest run: most images of one class in a row;
- rank correlation of position with id, and of positions in one epoch with the next: mean of the
  absolute values. Of independent uniform shuffles it is 0.0007;
- spread: mean distance in the epoch of two images that are neighbours in the data set, relative to
  that of a uniform shuffle, a third of the epoch.

No image is read: the order alone decides these.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from coke.pipeline.order.epoch_order import EpochOrder
from coke.pipeline.order.order import epoch_order

N, CLASSES, BATCH = 1_281_167, 1000, 1024
#: (images per container, containers per window): windows of up to 64 containers of `coke ingest`'s
#: size, and as many bytes in smaller containers.
BLOCKS = [(2000, w) for w in (1, 2, 4, 8, 16, 32, 64)] + [(500, 256), (250, 512)]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Of some epochs of one order."""

    classes_mean: float
    classes_min: int
    largest_share: float
    longest_run: int
    with_id: float
    with_next: float
    spread: float


def blocks(size: int, window: int) -> EpochOrder:
    spans = [(start, min(start + size, N)) for start in range(0, N, size)]
    return epoch_order("blocks", N, spans, window=window)


def measure(order: EpochOrder, epochs: int) -> Quality:
    classes = np.arange(N) * CLASSES // N
    sequences = [order.ids(epoch, np.arange(N)) for epoch in range(epochs)]
    places = [np.argsort(ids, kind="stable") for ids in sequences]
    distinct, shares, runs = [], [], []
    for ids in sequences:
        counts = class_counts(classes[ids])
        distinct.append((counts > 0).sum(axis=1))
        shares.append(counts.max() / BATCH)
        runs.append(longest_run(classes[ids]))
    return Quality(
        classes_mean=float(np.mean(distinct)),
        classes_min=int(np.min(distinct)),
        largest_share=float(np.max(shares)),
        longest_run=max(runs),
        with_id=float(np.mean([abs(correlation(np.arange(N), p)) for p in places])),
        with_next=float(
            np.mean([abs(correlation(places[e - 1], places[e])) for e in range(epochs)])
        ),
        spread=float(np.mean([np.abs(np.diff(p)).mean() / (N / 3) for p in places])),
    )


def class_counts(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Images of each class (batches, CLASSES) in each whole batch."""
    whole = len(classes) // BATCH
    cells = np.repeat(np.arange(whole), BATCH) * CLASSES + classes[: whole * BATCH]
    return np.bincount(cells, minlength=whole * CLASSES).reshape(whole, CLASSES)


def longest_run(classes: NDArray[np.int64]) -> int:
    ends = np.flatnonzero(np.diff(classes) != 0)
    return int(np.diff(np.concatenate([[-1], ends, [len(classes) - 1]])).max())


def correlation(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Spearman's: both are permutations, so it is Pearson's of them as they are."""
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    console = Console(record=True, width=110)
    orders = {f"{w} x {size}": blocks(size, w) for size, w in BLOCKS}
    orders["global"] = epoch_order("global", N, [(0, N)])
    table = Table(
        title=f"{N:,} ids in class order, batches of {BATCH:,}, "
        f"{options.epochs} epochs, {date.today()}"
    )
    table.add_column("window")
    for column in (
        "classes per batch",
        "fewest",
        "largest share",
        "longest run",
        "corr. with id",
        "with next epoch",
        "spread",
    ):
        table.add_column(column, justify="right")
    for name, order in orders.items():
        q = measure(order, options.epochs)
        table.add_row(
            name,
            f"{q.classes_mean:.1f}",
            f"{q.classes_min}",
            f"{q.largest_share:.1%}",
            f"{q.longest_run}",
            f"{q.with_id:.4f}",
            f"{q.with_next:.4f}",
            f"{q.spread:.3f}",
        )
    console.print(table)
    if options.save:
        path = Path(__file__).parent / "results" / f"shuffle-{date.today()}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(console.export_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
