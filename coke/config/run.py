"""Section ``[run]``: what a run saves and watches; nothing of it changes what is learned."""

from __future__ import annotations

from dataclasses import dataclass

#: Figures of the online probe, by which the best checkpoint may be chosen.
PROBES = ("knn", "linear")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Checkpoints, probes and patience. A resumed run may differ here.

    Attributes:
        checkpoint_every: steps between two checkpoints within an epoch; 0 for checkpoints at the
            ends of epochs only.
        keep_checkpoints: number of newest checkpoints that stay, beside the best probe's.
        keep_best: figure of the probe that decides which is the best: ``"knn"`` or ``"linear"``.
        max_bad_steps: steps in a row that are not finite before the run ends.
        probe_every: epochs between two probes on labelled images, by k-NN and by a linear
            classifier; 0 for none.
        probe_images: largest number of training images in a probe; half as many are classified.
        probe_labelled_only: leave images without a label out of the probe's data, instead of
            refusing them.
    """

    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    keep_best: str = "knn"
    max_bad_steps: int = 5
    probe_every: int = 0
    probe_images: int = 10_000
    probe_labelled_only: bool = False

    def __post_init__(self) -> None:
        for name in ("keep_checkpoints", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("checkpoint_every", "probe_every"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"run.{name} is {getattr(self, name)}; give a number, or 0 for never"
                )
        if self.keep_best not in PROBES:
            raise ValueError(
                f"run.keep_best is {self.keep_best!r}; choose one of {', '.join(PROBES)}"
            )
        if self.probe_images < 2:
            raise ValueError(f"run.probe_images is {self.probe_images}; a probe needs at least 2")
