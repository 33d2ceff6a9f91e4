"""Learning rates by hand, and which parameters are decayed."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from coke.config.optimizer import OptimizerConfig
from coke.model.adamw import AdamW
from coke.model.lars import LARS
from coke.model.optimizer import (
    build_optimizer,
    learning_rate,
    scaled_to_batch,
    set_learning_rate,
    step_if,
)
from coke.model.sgd import SGD


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.0),
        (2.5, 0.4),  # a quarter of the warm-up
        (10.0, 1.6),
        (30.0, 0.1 + 1.5 * (1 + math.cos(math.pi / 4)) / 2),
        (50.0, 0.85),  # half way down: the mean of 1.6 and 0.1
        (90.0, 0.1),
        (91.0, 0.1),  # after the last epoch the rate stays
    ],
)
def test_warm_up_and_cosine(progress: float, expected: float) -> None:
    config = OptimizerConfig(epochs=90, lr=1.6, warmup_epochs=10, final_lr=0.1)
    assert learning_rate(config, progress=progress) == pytest.approx(expected)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    config = OptimizerConfig(epochs=4, lr=2.0, warmup_epochs=0)
    assert learning_rate(config, progress=0.0) == 2.0
    assert learning_rate(config, progress=2.0) == pytest.approx(1.0)
    assert learning_rate(config, progress=4.0) == pytest.approx(0.0)


def test_a_run_shorter_than_its_warm_up_warms_up_to_the_end() -> None:
    config = OptimizerConfig(epochs=4, lr=2.0, warmup_epochs=10)
    assert learning_rate(config, progress=1.0) == pytest.approx(0.5)
    assert learning_rate(config, progress=3.0) == pytest.approx(1.5)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_step_that_is_not_finite_moves_neither_weights_nor_momentum(name: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = build_optimizer(net, OptimizerConfig(name=name, lr=0.5))

    def state() -> list[list[float]]:
        kept = [t for p in net.parameters() for t in optimizer.state[p].values()]
        return [t.detach().flatten().tolist() for t in (*net.parameters(), *kept)]

    for p in net.parameters():
        p.grad = torch.ones_like(p)
    step_if(torch.tensor(True), optimizer)
    before = state()
    for p in net.parameters():
        p.grad = torch.full_like(p, math.nan)
    step_if(torch.tensor(False), optimizer)
    assert state() == before
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    step_if(torch.tensor(True), optimizer)
    assert all(a != b for a, b in zip(state(), before, strict=True))


def test_an_optimizer_that_would_step_anyway_is_refused() -> None:
    with pytest.raises(AssertionError, match="found_inf"):
        step_if(torch.tensor(True), torch.optim.SGD(network().parameters(), lr=0.1))


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_gradient_scaler_divides_and_leaves_out(name: str) -> None:
    """Scaled gradients give the same step as plain ones; gradients that overflowed give no step."""
    moved = []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        net = nn.Linear(3, 4)
        optimizer = build_optimizer(net, OptimizerConfig(name=name, lr=0.5))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for value in (0.25, math.inf, 0.5):
            scaler.scale(torch.ones(()))
            for p in net.parameters():
                p.grad = torch.full_like(p, value) * scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
        moved.append([p.detach().clone() for p in net.parameters()])
        assert scaler.get_scale() == scale / 2
    for a, b in zip(*moved, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b)


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].weight.requires_grad_(False)
    return net


def test_sgd_decays_matrices_only() -> None:
    net = network()
    config = OptimizerConfig(name="sgd", lr=0.5, momentum=0.8, weight_decay=0.1)
    sgd = build_optimizer(net, config)
    assert isinstance(sgd, SGD)
    decayed, plain = sgd.param_groups
    assert [id(p) for p in decayed["params"]] == [id(net[0].weight)]  # net[2].weight is frozen
    biases = [net[0].bias, net[1].weight, net[1].bias, net[2].bias]
    assert [id(p) for p in plain["params"]] == [id(p) for p in biases]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert all(g["momentum"] == 0.8 and g["lr"] == 0.5 for g in sgd.param_groups)


def test_adamw_decays_matrices_only() -> None:
    config = OptimizerConfig(name="adamw", lr=0.5, betas=(0.8, 0.95), weight_decay=0.1)
    adamw = build_optimizer(network(), config)
    assert isinstance(adamw, AdamW)
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.1, 0.0]
    assert all(g["betas"] == (0.8, 0.95) and g["lr"] == 0.5 for g in adamw.param_groups)


def test_lars_takes_everything_trainable() -> None:
    net = network()
    config = OptimizerConfig(lr=0.5, momentum=0.8, weight_decay=0.1)
    lars = build_optimizer(net, config)
    assert isinstance(lars, LARS)
    found = {id(p) for group in lars.param_groups for p in group["params"]}
    assert found == {id(p) for p in net.parameters() if p.requires_grad}
    assert [group["weight_decay"] for group in lars.param_groups] == [0.1, 0.0]
    assert all((group["lr"], group["momentum"]) == (0.5, 0.8) for group in lars.param_groups)


def test_set_learning_rate_reaches_every_group() -> None:
    sgd = build_optimizer(network(), OptimizerConfig(name="sgd"))
    set_learning_rate(sgd, 0.125)
    assert [g["lr"] for g in sgd.param_groups] == [0.125, 0.125]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer is 'adam'; choose one of lars, sgd, adamw"):
        build_optimizer(network(), OptimizerConfig(name="adam"))


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("none", {256: 1.6, 512: 1.6, 1024: 1.6, 4096: 1.6}),
        ("sqrt", {256: 0.8, 512: 1.131, 1024: 1.6, 4096: 3.2}),  # Table 9: 0.8, 1.2, 1.6
        ("linear", {256: 0.4, 512: 0.8, 1024: 1.6, 4096: 6.4}),
    ],
)
def test_learning_rates_of_other_batch_sizes(scaling: str, expected: dict[int, float]) -> None:
    config = OptimizerConfig(lr=1.6, final_lr=0.016, lr_scaling=scaling)
    for batch_size, lr in expected.items():
        scaled = scaled_to_batch(config, batch_size)
        assert scaled.lr == pytest.approx(lr, abs=1e-3)
        assert scaled.final_lr == pytest.approx(lr / 100, abs=1e-4)
        assert scaled_to_batch(scaled, 7) == scaled


def test_unknown_scaling_is_named() -> None:
    with pytest.raises(ValueError, match="lr_scaling is 'log'; choose one of none, sqrt, linear"):
        OptimizerConfig(lr_scaling="log")


@pytest.mark.parametrize(
    ("config", "torchs"),
    [
        (
            OptimizerConfig(name="sgd", momentum=0.9, weight_decay=0.1),
            partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        ),
        (OptimizerConfig(name="sgd", momentum=0.0, weight_decay=0.1), torch.optim.SGD),
        (
            OptimizerConfig(name="adamw", betas=(0.8, 0.95), weight_decay=0.1),
            partial(torch.optim.AdamW, betas=(0.8, 0.95)),
        ),
    ],
    ids=["sgd", "sgd without momentum", "adamw"],
)
def test_steps_are_those_of_torchs_loop(config: OptimizerConfig, torchs: Any) -> None:
    torch.manual_seed(0)
    nets = [network(), network()]
    nets[1].load_state_dict(nets[0].state_dict())
    trained = [p for p in nets[1].parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.ndim == 1], "weight_decay": 0.0},
    ]
    loop = torchs(groups, lr=0.1, foreach=False)
    ours = build_optimizer(nets[0], replace(config, lr=0.1))
    for _ in range(4):
        for a, b in zip(*(net.parameters() for net in nets), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step()
        loop.step()
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_first_steps_of_adamw_by_hand() -> None:
    """Both means are scaled up to the gradient at first, so a step is the rate times its sign."""
    weights = nn.ParameterList([torch.full((1, 1), 2.0), torch.full((1,), 2.0)])
    adamw = build_optimizer(weights, OptimizerConfig(name="adamw", lr=0.5, weight_decay=0.1))
    for p in weights:
        p.grad = torch.full_like(p, -3.0)
    adamw.step()
    # decayed to 2 x (1 - 0.5 x 0.1) = 1.9; the second has one dimension and is not decayed
    torch.testing.assert_close(weights[0].detach(), torch.full((1, 1), 2.4))
    torch.testing.assert_close(weights[1].detach(), torch.full((1,), 2.5))
    for p in weights:
        p.grad = torch.zeros_like(p)
    adamw.step()
    mean, square = -3 * 0.1 * 0.9 / (1 - 0.9**2), 9 * 0.001 * 0.999 / (1 - 0.999**2)
    expected = 2.5 - 0.5 * mean / math.sqrt(square)
    torch.testing.assert_close(weights[1].detach(), torch.full((1,), expected))


def test_a_first_gradient_may_come_later() -> None:
    weights = nn.ParameterList([torch.ones(2, 2), torch.ones(2, 2)])
    sgd = build_optimizer(weights, OptimizerConfig(name="sgd", lr=0.5, weight_decay=0.0))
    weights[0].grad = torch.ones(2, 2)
    sgd.step()
    weights[1].grad = torch.ones(2, 2)
    sgd.step()
    expected = torch.full((2, 2), 1 - 0.5 * 1.9)  # Nesterov: g + 0.9 g
    torch.testing.assert_close(weights[1].detach(), expected)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_skipped_first_step_leaves_no_momentum(name: str) -> None:
    """Stands for float16's gradient scaler when the first gradients overflow."""
    weights = nn.ParameterList([torch.ones(2, 2)])
    optimizer = build_optimizer(weights, OptimizerConfig(name=name, lr=0.5, weight_decay=0.0))
    weights[0].grad = torch.full((2, 2), torch.inf)
    step_if(torch.tensor(False), optimizer)
    assert torch.equal(weights[0], torch.ones(2, 2))
    assert all(not kept.any() for kept in optimizer.state[weights[0]].values())


NO_DYNAMO = """
import sys
import torch
from coke.config.optimizer import OPTIMIZERS, OptimizerConfig
from coke.model.optimizer import build_optimizer
for name in OPTIMIZERS:
    net = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(net, OptimizerConfig(name=name))
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.slow
def test_no_optimizer_imports_the_compiler() -> None:
    """It would take 1.8 seconds of every start."""
    subprocess.run([sys.executable, "-c", NO_DYNAMO], check=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be positive"),
        ({"momentum": 1.0}, "momentum is 1.0; give 0 <= momentum < 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; give 0 or more"),
        ({"warmup_epochs": -3.0}, "warmup_epochs is -3.0; give 0 or more"),
        ({"final_lr": -0.1}, "final_lr is -0.1; give 0 or more"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0; give 0 or more"),
        ({"betas": (0.9, 1.0)}, "betas are (0.9, 1.0); give two numbers, 0 <= beta < 1"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; give a share, 0 < share <= 1, such as 0.75"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5; give a share"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        OptimizerConfig(**wrong)
