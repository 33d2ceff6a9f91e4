"""One training of a whole classifier, against the same steps written out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coke.pipeline.loading.loader import Batch
from coke.tools.evaluation.classifier import Cell, Classifier, TrainingSettings, train_classifier

CPU = torch.device("cpu")


class Loader:
    """Gives the same images, in batches of four."""

    batch_size = 4
    steps_per_epoch = 2

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for ids in torch.arange(8).split(4):
            yield Batch(ids=ids, views=[self.images[ids]])


class Backbone(nn.Module):
    """Features (B, 5): a linear map of the pixels, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.linear(images.flatten(1)))
        return features


def trained(cell: Cell, settings: TrainingSettings) -> tuple[Classifier, bool, int]:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 2, 2)
    classifier = Classifier(Backbone(), 5, 3, settings.seed)
    loader: Any = Loader(images)
    ticks: list[None] = []
    finite = train_classifier(
        classifier,
        loader,
        torch.arange(8) % 3,
        settings,
        cell,
        device=CPU,
        precision="fp32",
        on_step=lambda: ticks.append(None),
    )
    return classifier, finite, len(ticks)


def test_the_steps_are_those_of_sgd_by_hand() -> None:
    """Nesterov's momentum, the head ten times as fast, half a cosine, decay of matrices alone."""
    cell, settings = Cell(lr=3.2, weight_decay=0.1), TrainingSettings(epochs=2, batch_size=4)
    found, finite, ticks = trained(cell, settings)
    assert finite and ticks == 4
    torch.manual_seed(0)
    images = torch.randn(8, 3, 2, 2)
    model = Classifier(Backbone(), 5, 3, 0)
    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(4):
        ids = torch.arange(8)[step % 2 * 4 : step % 2 * 4 + 4]
        loss = F.cross_entropy(model(images[ids]), ids % 3)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rate = 3.2 * 4 / 256 * (1 + math.cos(math.pi * step / 4)) / 2
        with torch.no_grad():
            for (name, p), gradient in zip(model.named_parameters(), gradients, strict=True):
                decayed = gradient + (0.1 * p if p.ndim > 1 else 0)
                momentum[name] = 0.9 * momentum[name] + decayed
                fast = 10 if name.startswith("head") else 1
                p.sub_(rate * fast * (decayed + 0.9 * momentum[name]))
    for name, value in model.state_dict().items():
        assert torch.allclose(found.state_dict()[name], value, atol=1e-5), name
    assert not found.training and found.backbone.norm.num_batches_tracked == 4  # type: ignore[union-attr]


def test_the_heads_first_weights_are_the_seeds() -> None:
    torch.manual_seed(1)
    heads = [Classifier(nn.Identity(), 500, 10, seed).head for seed in (0, 0, 1)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    assert float(heads[0].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not heads[0].bias.any()


def test_a_loss_that_is_not_finite_ends_the_training_with_its_epoch() -> None:
    _, finite, ticks = trained(
        Cell(lr=1e25, weight_decay=0.0), TrainingSettings(epochs=50, batch_size=4)
    )
    assert not finite and ticks < 20


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 256), (1, 1)])
def test_settings_out_of_range_are_refused(epochs: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"epochs is {epochs} and batch_size {batch_size}; train"):
        TrainingSettings(epochs=epochs, batch_size=batch_size)
