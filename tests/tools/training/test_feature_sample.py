"""Which features an epoch keeps, through an interruption, and from several pieces of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coke.config.config import Config
from coke.model.coke_model import build_model
from coke.pipeline.loading.loader import Batch
from coke.tools.training import feature_sample
from coke.tools.training.feature_sample import FeatureRows, FeatureSample, is_sampled
from coke.tools.training.learner import Learner, Place
from tests.support.equal_states import equal_states

CPU = torch.device("cpu")


def rows(values: Tensor, *, valid: bool = True) -> FeatureRows:
    return FeatureRows.of(values, values[:, :2], torch.tensor(valid))


def test_the_last_steps_of_an_epoch_are_sampled() -> None:
    """2,048 images are 8 steps of 256, 7 of 300 (the first of them in part), and 1 of 4,096."""
    for images, expected in ((256, 8), (300, 7), (2048, 1), (4096, 1)):
        assert sum(is_sampled(step, 20, images) for step in range(20)) == expected
        assert is_sampled(19, 20, images)
    assert all(is_sampled(step, 3, 16) for step in range(3)), "an epoch of fewer images"


def test_the_sample_is_the_last_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_sample, "SAMPLE_IMAGES", 3)
    sample = FeatureSample()
    assert sample.ranks().represented is None and sample.state() == {}
    for first in (0, 2):  # four orthonormal rows, of which the first is one too many
        sample.add(rows(torch.eye(4)[first : first + 2]))
        sample.add(None)
    state = sample.state()
    assert torch.equal(state["represented"], torch.eye(4)[1:])
    assert torch.equal(state["projected"], torch.eye(4)[1:, :2])
    assert sample.ranks().represented == pytest.approx(3) and sample.ranks().projected == 1


def test_goes_on_where_it_was() -> None:
    parts = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    whole, half = FeatureSample(), FeatureSample()
    for i, part in enumerate(parts):
        whole.add(rows(part))
        if i in (0, 2):
            half = FeatureSample(half.state(), CPU)
        half.add(rows(part))
    assert equal_states(half.state(), whole.state()) and half.ranks() == whole.ranks()


def test_a_step_that_is_not_valid_has_no_features() -> None:
    sample = FeatureSample()
    sample.add(rows(torch.full((2, 3), torch.nan), valid=False))
    assert sample.ranks().represented is None
    sample.add(rows(torch.ones(2, 3)))
    assert sample.ranks().represented == 1


def test_a_learner_gives_the_features_that_it_computed(tiny: Config) -> None:
    """Of the first view and the last piece; of the clustered features all rows."""
    config = tiny.changed(data={"views": 2, "batch_size": 8}, optimizer={"accumulate": 2})
    model = build_model(config.model, 0)
    learner = Learner(config, model, n_ids=20, n_points=20, device=CPU, precision="fp32")
    seen: list[Tensor] = []
    model.backbone.register_forward_hook(lambda _module, _args, output: seen.append(output))
    views = list(torch.randn(2, 7, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    batch = Batch(ids=torch.arange(7), views=views, sizes=(7,))
    for place, take in ((Place(epoch=0, step=3, steps=4), learner.scan),
                        (Place(epoch=1, step=3, steps=4), learner.step)):  # fmt: skip
        seen.clear()
        step = take(batch, place)
        assert step.rows is not None and len(seen) == 4
        # Pieces of 4 and 3 images, two views each: the third pass is the last piece's first view.
        assert torch.equal(step.rows.represented, seen[2].detach())
        assert step.rows.projected.shape == (7, 8)
        assert step.rows.represented.requires_grad is step.rows.projected.requires_grad is False
    early = learner.step(batch, Place(epoch=1, step=0, steps=1000))
    assert early.rows is None, "the first of many steps"
