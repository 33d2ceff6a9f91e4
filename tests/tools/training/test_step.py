"""One step: accumulation, number formats, and what is averaged over what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coke.clustering import Clustering
from coke.config.config import Config
from coke.model.coke_model import CoKe, build_model
from coke.model.instance_loss import nt_xent
from coke.model.loss import views_loss
from coke.model.optimizer import build_optimizer
from coke.model.precision import gradient_scaler
from coke.tools.training import step as train_step_module
from coke.tools.training.step import forward_step, scan_batch, train_step

CPU = torch.device("cpu")
N, SHORT = 44, 12


def still(model: CoKe) -> CoKe:
    """With batch norm in evaluation, an image's features do not depend on its batch."""
    model.eval()
    return model


def steps(
    config: Config, dtype: torch.dtype = torch.float32
) -> tuple[CoKe, Clustering, list[float]]:
    """Two epochs of three batches, the last short, then the scan's labels are trained towards."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(N, 3, 16, 16, generator=generator)
    model = still(build_model(config.model, 0))
    optimizer = build_optimizer(model, config.optimizer)
    clustering = Clustering(n_ids=N, dim=config.model.dim, n_clusters=(3, 5))
    losses = []
    for epoch in range(2):
        for ids in torch.randperm(N, generator=generator).split(16):
            views = [images[ids]]
            if epoch == 0:
                features_BD = scan_batch(model, views, config, "fp32")
            else:
                features_BD, loss, _ = train_step(
                    model, optimizer, views, clustering.targets(ids), clustering, config, "fp32"
                )
                losses.append(float(loss))
            clustering.step(features_BD, ids)
        clustering.end_epoch()
    return model, clustering, losses


@pytest.mark.parametrize("pieces", [2, 8])
def test_accumulation_is_the_step_of_the_whole_batch(tiny: Config, pieces: int) -> None:
    """Labels, duals, centers and counts, and the loss; weights up to rounding."""
    model, clustering, losses = steps(tiny)
    other, in_pieces, other_losses = steps(tiny.changed(optimizer={"accumulate": pieces}))
    assert other_losses == pytest.approx(losses, abs=1e-5)
    ids = torch.arange(N)
    assert torch.equal(clustering.label_store.read(ids), in_pieces.label_store.read(ids))
    for head, same in zip(clustering.heads, in_pieces.heads, strict=True):
        assert torch.allclose(head.duals, same.duals, atol=1e-5)
        assert torch.equal(head.counts, same.counts)
        assert torch.allclose(head.centers, same.centers, atol=1e-5)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_unlabelled_images_weigh_nothing_in_any_piece(tiny: Config) -> None:
    """The gradient is that of the mean over the labelled, computed here in one pass."""
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(SHORT, 3, 16, 16, generator=generator)]
    targets = [torch.randint(k, (SHORT,), generator=generator) for k in (3, 5)]
    for target in targets:
        target[:5] = -1  # the first piece has one labelled image
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    model = still(build_model(tiny.model, 0))
    _, loss = forward_step(model, views, targets, clustering, tiny, "fp32")
    expected = torch.autograd.grad(loss, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    config = tiny.changed(data={"batch_size": 48}, optimizer={"accumulate": 8})
    _, found, _ = train_step(model, optimizer, views, targets, clustering, config, "fp32")
    assert float(found) == pytest.approx(float(loss.detach()), rel=1e-5)
    for parameter, start, gradient in zip(model.parameters(), before, expected, strict=True):
        assert torch.allclose(start - parameter, gradient, atol=1e-5)


def test_a_rank_without_rows_has_no_gradient_and_no_nan(tiny: Config) -> None:
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    model = still(build_model(replace(tiny.model, predictor_hidden=8), 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    nobody: list[Tensor] = [torch.zeros(0, dtype=torch.int64)] * 2
    features_BD, loss, finite = train_step(
        model,
        optimizer,
        [torch.zeros(0, 3, 16, 16)],
        nobody,
        clustering,
        tiny,
        "fp32",
        sizes=(1, 0),
    )
    assert features_BD.shape == (0, 8) and float(loss) == 0 and bool(finite)
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def one_step(config: Config, precision: str, device: torch.device) -> tuple[CoKe, Any, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 16, 16, generator=generator).to(device)
    targets = [torch.arange(16, device=device) % k for k in (3, 5)]
    model = build_model(config.model, 0).to(device)
    optimizer = build_optimizer(model, config.optimizer)
    clustering = Clustering(n_ids=N, dim=config.model.dim, n_clusters=(3, 5), device=device)
    # the scale a run begins with is there to be halved until gradients fit; here it is small
    scaler = torch.amp.GradScaler(device.type, init_scale=256.0, enabled=precision == "fp16")
    _, loss, _ = train_step(
        model, optimizer, [images], targets, clustering, config, precision, scaler=scaler
    )
    return model, scaler, loss


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("pieces", [1, 4])
def test_a_clipped_step_is_as_long_as_rate_times_norm(
    tiny: Config, precision: str, pieces: int
) -> None:
    """Whatever the scale of float16's gradients, and the number of pieces that they come from."""
    largest, lr = 1e-3, 0.5
    config = tiny.changed(
        optimizer={
            "name": "sgd",
            "lr": lr,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "clip_norm": largest,
            "accumulate": pieces,
        }
    )
    start = build_model(tiny.model, 0)
    model, _, _ = one_step(config, precision, CPU)
    moved = [
        a.detach() - b.detach() for a, b in zip(model.parameters(), start.parameters(), strict=True)
    ]
    length = torch.cat([part.flatten() for part in moved]).norm()
    assert float(length) == pytest.approx(lr * largest, rel=1e-3)


@pytest.mark.parametrize(("precision", "counts"), [("fp32", False), ("fp16", True)])
def test_clipping_does_not_hide_a_gradient_that_is_not_finite(
    tiny: Config, precision: str, counts: bool
) -> None:
    """An infinite norm would shrink every other gradient to 0, and the step would be taken."""
    config = tiny.changed(optimizer={"name": "adamw", "clip_norm": 1.0})
    images, targets = torch.randn(16, 3, 16, 16), [torch.arange(16) % k for k in (3, 5)]
    model = build_model(tiny.model, 0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    weight = model.backbone.get_parameter("conv1.weight")
    weight.register_hook(lambda gradient: gradient * math.inf)
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=precision == "fp16")
    optimizer = build_optimizer(model, config.optimizer)
    _, _, finite = train_step(
        model, optimizer, [images], targets, clustering, config, precision, scaler=scaler
    )
    assert bool(finite) is counts
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert not any(kept.any() for of in optimizer.state.values() for kept in of.values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_half_precision_takes_about_the_same_step(
    tiny: Config, precision: str, device: str
) -> None:
    exact, _, loss = one_step(tiny, "fp32", torch.device(device))
    model, scaler, found = one_step(tiny, precision, torch.device(device))
    assert float(found) == pytest.approx(float(loss), rel=0.02)
    start = build_model(tiny.model, 0)
    for a, b, p in zip(exact.parameters(), model.parameters(), start.parameters(), strict=True):
        assert a.dtype == b.dtype == torch.float32
        moved, also = (a.cpu() - p).flatten(), (b.cpu() - p).flatten()
        if p.ndim > 1:
            assert torch.cosine_similarity(moved, also, dim=0) > 0.8
    assert scaler.is_enabled() == gradient_scaler(precision, CPU).is_enabled()


@pytest.mark.parametrize(("init_scale", "counts"), [(4.0, True), (0.5, False)])
def test_gradients_that_no_scale_makes_finite_are_no_step(
    tiny: Config, init_scale: float, counts: bool
) -> None:
    """A run must stop that would otherwise go on to its end without learning."""
    images, targets = torch.randn(16, 3, 16, 16), [torch.arange(16) % k for k in (3, 5)]
    model = build_model(tiny.model, 0)
    weight = model.backbone.get_parameter("conv1.weight")
    weight.register_hook(lambda gradient: gradient * float("nan"))
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    optimizer = build_optimizer(model, tiny.optimizer)
    _, loss, finite = train_step(
        model, optimizer, [images], targets, clustering, tiny, "fp16", scaler=scaler
    )
    assert math.isfinite(float(loss)) and bool(finite) is counts
    assert scaler.get_scale() == init_scale / 2


def test_a_bad_loss_says_nothing_of_float16s_scale(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*args: Any, **kwargs: Any) -> Tensor:
        return views_loss(*args, **kwargs) * float("nan")

    monkeypatch.setattr(train_step_module, "views_loss", diverged)
    images, targets = torch.randn(16, 3, 16, 16), [torch.arange(16) % k for k in (3, 5)]
    model = build_model(tiny.model, 0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    optimizer = build_optimizer(model, tiny.optimizer)
    _, loss, finite = train_step(
        model, optimizer, [images], targets, clustering, tiny, "fp16", scaler=scaler
    )
    assert math.isnan(float(loss)) and not bool(finite)
    assert scaler.get_scale() == 256.0
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_a_gradient_that_overflows_float16_leaves_the_weights_and_halves_the_scale(
    tiny: Config,
) -> None:
    images, targets = torch.randn(16, 3, 16, 16), [torch.arange(16) % k for k in (3, 5)]
    model = build_model(tiny.model, 0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    scaler = torch.amp.GradScaler("cpu", init_scale=1e30)
    train_step(
        model,
        build_optimizer(model, tiny.optimizer),
        [images],
        targets,
        clustering,
        tiny,
        "fp16",
        scaler=scaler,
    )
    assert scaler.state_dict()["scale"] == pytest.approx(5e29)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_the_instance_term_has_its_share_of_the_loss(tiny: Config) -> None:
    """Its share of the two losses, each computed alone; with one view there is no such term."""
    generator = torch.Generator().manual_seed(2)
    views = [torch.randn(6, 3, 16, 16, generator=generator) for _ in range(2)]
    targets = [torch.randint(k, (6,), generator=generator) for k in (3, 5)]
    clustering = Clustering(n_ids=N, dim=tiny.model.dim, n_clusters=(3, 5))
    model = still(build_model(tiny.model, 0))
    two = tiny.changed(data={"views": 2, "second_view": tiny.data.view})
    mixed = two.changed(loss={"instance": 0.25, "instance_temperature": 0.3})
    _, clusters = forward_step(model, views, targets, clustering, two, "fp32")
    _, found = forward_step(model, views, targets, clustering, mixed, "fp32")
    first, second = (projected_BD for projected_BD, _ in model(views))
    expected = 0.75 * clusters + 0.25 * nt_xent(first, second, 0.3)
    torch.testing.assert_close(found, expected)
    alone = tiny.changed(loss={"instance": 0.25})
    _, same = forward_step(model, views[:1], targets, clustering, tiny, "fp32")
    _, one_view = forward_step(model, views[:1], targets, clustering, alone, "fp32")
    torch.testing.assert_close(one_view, same)
