"""Settings of ``coke cluster``, checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass

from coke.clustering.points import METRICS
from coke.clustering.random_state import LARGEST_SEED
from coke.clustering.sizes import SizeBounds, size_bounds


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Settings of ``coke cluster``; see :class:`coke.OnlineConstrainedKMeans`.

    Attributes:
        clusters: number of clusters K.
        min_ratio: smallest size as a share of N / K; 0.4 if neither it nor ``min_size`` is given.
        max_ratio: largest size as a share of N / K; None if there is no limit.
        min_size, max_size: smallest and largest size in rows.
        metric: ``"cosine"`` or ``"euclidean"``.
        passes: largest number of passes over the rows.
        batch_size: rows that are compared with the centers at a time.
        restarts: number of starts; the best result is kept.
        seed: seed of starts and order.
    """

    clusters: int = 100
    min_ratio: float | None = None
    max_ratio: float | None = None
    min_size: int | None = None
    max_size: int | None = None
    metric: str = "cosine"
    passes: int = 10
    batch_size: int = 1024
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clusters", "passes", "batch_size", "restarts"):
            if getattr(self, name) < 1:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} is {getattr(self, name)}; it must be at least 1")
        if self.min_ratio is not None and self.min_size is not None:
            raise ValueError(
                f"--min-ratio {self.min_ratio} and --min-size {self.min_size} both give the "
                "smallest size; leave one out"
            )
        if self.max_ratio is not None and self.max_size is not None:
            raise ValueError(
                f"--max-ratio {self.max_ratio} and --max-size {self.max_size} both give the "
                "largest size; leave one out"
            )
        if self.max_ratio is not None and not self.max_ratio >= 1:
            raise ValueError(
                f"--max-ratio is {self.max_ratio}; it is a share of rows / clusters, 1 or more"
            )
        if self.min_ratio is not None and not 0 <= self.min_ratio <= 1:
            raise ValueError(
                f"--min-ratio is {self.min_ratio}; it is a share of rows / clusters, from 0 to 1"
            )
        for name in ("min_size", "max_size", "seed"):
            if (getattr(self, name) or 0) < 0:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} is {getattr(self, name)}; it cannot be negative")
        if self.seed > LARGEST_SEED:
            raise ValueError(f"--seed is {self.seed}; it must be at most {LARGEST_SEED}")
        if self.metric not in METRICS:
            raise ValueError(f"--metric is {self.metric!r}; choose one of {', '.join(METRICS)}")

    def bounds(self, rows: int) -> SizeBounds:
        """The sizes that clusters of so many rows may have.

        Raises:
            ValueError: no clusters of so many rows have such sizes.
        """
        if self.clusters > rows:
            raise ValueError(
                f"--clusters is {self.clusters:,}, but there are only {rows:,} rows; use fewer "
                "clusters than rows"
            )
        return size_bounds(
            rows,
            self.clusters,
            min_ratio=self.ratio,
            max_ratio=self.max_ratio,
            min_size=self.min_size,
            max_size=self.max_size,
        )

    @property
    def ratio(self) -> float:
        """The ratio in use if sizes are not given in rows."""
        return 0.4 if self.min_ratio is None else self.min_ratio
