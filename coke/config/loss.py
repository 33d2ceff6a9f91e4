"""Section ``[loss]``: the discrimination loss and its targets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Temperatures and weights of the discrimination loss.

    Attributes:
        temperature: lambda of the softmax (Eqn. 12).
        reference_temperature: temperature of the other views' prediction; 0 for ``temperature``,
            as in the paper.
        beta: weight of the predictor's loss if the model has a predictor.
        alpha: weight of the label with several views. The mean prediction of the other large views
            has the remaining weight (Sec. 3.4). One large view learns its label alone.
        alpha_start: alpha of the first epoch.
        alpha_warmup: share of the epochs over which alpha moves from ``alpha_start`` to ``alpha``;
            0 keeps alpha constant, as in the paper. See :meth:`alpha_at`.
        instance: weight of the instance term of several large views, which tells each image apart
            from the others of its batch; the clusters' loss has the rest. 0 for none, as in the
            paper. See :mod:`coke.model.instance_loss`.
        instance_temperature: temperature of that term.
    """

    temperature: float = 0.1
    reference_temperature: float = 0.0
    beta: float = 1.0
    alpha: float = 0.2
    alpha_start: float = 1.0
    alpha_warmup: float = 0.0
    instance: float = 0.0
    instance_temperature: float = 0.5

    def __post_init__(self) -> None:
        for name in ("temperature", "instance_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"loss.{name} is {getattr(self, name)}; it must be positive")
        for name in ("alpha", "alpha_start", "beta", "instance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"loss.{name} is {getattr(self, name)}; it is a weight between 0 and 1"
                )
        if not 0 <= self.alpha_warmup <= 1:
            raise ValueError(
                f"loss.alpha_warmup is {self.alpha_warmup}; it is a share of the epochs, from 0 "
                "to 1"
            )
        if self.reference_temperature < 0:
            raise ValueError(
                f"loss.reference_temperature is {self.reference_temperature}; it is positive, or 0 "
                "for loss.temperature"
            )

    def alpha_at(self, epoch: int, epochs: int) -> float:
        """Weight of the label in an epoch: from ``alpha_start`` in epoch 1 evenly to ``alpha``.

        The predictions of a new network are nearly uniform. If they make up most of the target,
        the loss stays near ln K and little is learned. Labels are sharp from the first epoch on.

        Args:
            epoch: from 0 (the scan) to ``epochs``.
            epochs: training epochs of the run.
        """
        if self.alpha_warmup == 0:
            return self.alpha
        left = max(1 - max(epoch - 1, 0) / (self.alpha_warmup * epochs), 0.0)
        return self.alpha + left * (self.alpha_start - self.alpha)
