"""Section ``[optimizer]``: epochs, optimiser, learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

OPTIMIZERS = ("lars", "sgd", "adamw")
LR_SCALINGS = ("none", "sqrt", "linear")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Defaults are the paper's (App. B.1): LARS, 1.6 at batch 1,024, 10 epochs of warm-up.

    Attributes:
        name: ``"lars"``, ``"sgd"`` (Nesterov) or ``"adamw"``.
        epochs: training epochs; the initialisation scan (epoch 0) comes on top.
        accumulate: number of pieces in which a step is computed, one after the other, to save
            memory. Loss, labels, duals, centers and counts are those of the whole batch; batch
            norm sees one piece at a time.
        lr: peak learning rate, for this batch size or, with ``lr_scaling``, for batch 1,024.
        lr_scaling: ``"none"``, ``"sqrt"`` (with the square root of the batch size, nearly the
            paper's Table 9: 0.8, 1.13 for its 1.2, 1.6 at 256, 512, 1,024) or ``"linear"``.
        momentum: of ``lars`` and ``sgd``.
        betas: decays of the two means of ``adamw``.
        weight_decay: of matrices and convolutions. Biases, norms, class token and position
            embeddings have none.
        layer_decay: learning rate of each layer of a vision transformer as a share of the next
            one's; 1 for equal rates. See :func:`coke.model.parameter_groups.parameter_groups`.
        clip_norm: largest norm of all gradients together; longer ones are shrunk to it before the
            step. 0 for no limit.
        warmup_epochs: linear warm-up after the initialisation scan, then cosine to ``final_lr``.
        restart_epochs: epochs after which the schedule restarts, in a run that was extended.
        restart_lrs: the rate of each restart, from which a cosine falls to ``final_lr`` until the
            next restart or the end (SGDR, Loshchilov & Hutter 2017). In the unit of ``lr``.
    """

    name: str = "lars"
    epochs: int = 200
    accumulate: int = 1
    lr: float = 1.6
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-6
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    warmup_epochs: float = 10.0
    final_lr: float = 0.0
    lr_scaling: str = "none"
    restart_epochs: tuple[int, ...] = ()
    restart_lrs: tuple[float, ...] = ()

    @property
    def first_epochs(self) -> int:
        """Training epochs before the first restart: views have grown and alpha has moved by then,
        and stay so."""
        return self.restart_epochs[0] if self.restart_epochs else self.epochs

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"optimizer.{name} is {getattr(self, name)}; it must be at least 1"
                )
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; it must be positive")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; give 0 <= momentum < 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; give two numbers, 0 <= beta < 1")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay is {self.layer_decay}; give a share, 0 < share <= 1, such as 0.75"
            )
        for name in ("weight_decay", "warmup_epochs", "final_lr", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        spans = (0, *self.restart_epochs, self.epochs)
        if any(a >= b for a, b in pairwise(spans)):
            raise ValueError(
                f"restart_epochs are {list(self.restart_epochs)}; give ascending numbers between 1 "
                f"and epochs - 1 ({self.epochs - 1})"
            )
        if len(self.restart_lrs) != len(self.restart_epochs) or any(
            lr <= 0 for lr in self.restart_lrs
        ):
            raise ValueError(
                f"restart_lrs are {list(self.restart_lrs)}; give a positive rate for each of "
                f"restart_epochs {list(self.restart_epochs)}"
            )
        if self.lr_scaling not in LR_SCALINGS:
            raise ValueError(
                f"lr_scaling is {self.lr_scaling!r}; choose one of {', '.join(LR_SCALINGS)}"
            )
