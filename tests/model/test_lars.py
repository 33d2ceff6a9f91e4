"""LARS by hand and against a plain loop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from coke.model.lars import LARS


def parameter(*values: object) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))


def test_two_steps_by_hand() -> None:
    p = parameter([3.0, 4.0])
    lars = LARS([p], lr=2.0, momentum=0.5, weight_decay=0.1, trust=0.01)
    # With decay the gradient is (0.3 + 0.1 * 3, 0.4 + 0.1 * 4) = (0.6, 0.8), of norm 1; the weight
    # has norm 5: ratio 0.01 * 5 = 0.05, step 2 * 0.05 * (0.6, 0.8).
    p.grad = torch.tensor([[0.3, 0.4]])
    lars.step()
    torch.testing.assert_close(p.data, torch.tensor([[2.94, 3.92]]))
    # No gradient but decay: direction (3, 4) again, ratio * norm = 0.01 * 4.9; half the last step
    # is added by momentum: 2 * (0.049 + 0.025) * (0.6, 0.8).
    p.grad = torch.zeros(1, 2)
    lars.step()
    expected = torch.tensor([[2.94 - 0.148 * 0.6, 3.92 - 0.148 * 0.8]])
    torch.testing.assert_close(p.data, expected)


def test_one_dimensional_tensors_get_neither_trust_nor_decay() -> None:
    bias, scalar = parameter(3.0, 4.0), nn.Parameter(torch.tensor(7.0))
    lars = LARS([bias, scalar], lr=0.5, momentum=0.9, weight_decay=10.0, trust=0.001)
    bias.grad, scalar.grad = torch.tensor([1.0, 0.0]), torch.tensor(2.0)
    lars.step()
    torch.testing.assert_close(bias.data, torch.tensor([2.5, 4.0]))
    torch.testing.assert_close(scalar.data, torch.tensor(6.0))
    lars.step()  # momentum: 0.9 * 1 + 1
    torch.testing.assert_close(bias.data, torch.tensor([2.5 - 0.5 * 1.9, 4.0]))


@pytest.mark.parametrize(
    ("weight", "gradient", "expected"),
    [
        # Without a norm on either side the ratio is 1.
        ([[0.0, 0.0]], [[1.0, 2.0]], [[-1.0, -2.0]]),
        ([[3.0, 4.0]], [[0.0, 0.0]], [[3.0, 4.0]]),
    ],
)
def test_zero_norms(
    weight: list[list[float]], gradient: list[list[float]], expected: list[list[float]]
) -> None:
    p = parameter(*weight)
    p.grad = torch.tensor(gradient)
    LARS([p], lr=1.0, weight_decay=0.0).step()
    assert p.data.tolist() == expected


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2)
    )


def set_gradients(net: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in net.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def test_it_agrees_with_a_plain_loop() -> None:
    net = network()
    lars = LARS(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, trust=0.02)
    weights = [p.detach().double() for p in net.parameters()]
    momenta = [torch.zeros_like(w) for w in weights]
    for step in range(6):
        lr = 0.1 * (step + 1)
        lars.param_groups[0]["lr"] = lr
        set_gradients(net, step)
        lars.step()
        for w, m, p in zip(weights, momenta, net.parameters(), strict=True):
            assert p.grad is not None
            g: Tensor = p.grad.double()
            if w.ndim > 1:
                g = g + 0.01 * w
                g = g * 0.02 * math.sqrt(float((w * w).sum())) / math.sqrt(float((g * g).sum()))
            m.mul_(0.9).add_(g)
            w.sub_(lr * m)
        for w, p in zip(weights, net.parameters(), strict=True):
            torch.testing.assert_close(p.detach().double(), w, atol=1e-5, rtol=1e-5)


def test_gradients_are_left_alone() -> None:
    net = network()
    set_gradients(net, 0)
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    LARS(net.parameters(), lr=0.1).step()
    after = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_parameters_without_gradient_do_not_move() -> None:
    moved, still = parameter([1.0, 2.0]), parameter([3.0, 4.0])
    moved.grad = torch.ones(1, 2)
    lars = LARS([moved, still], lr=1.0, trust=1.0)
    lars.step()
    assert still.data.tolist() == [[3.0, 4.0]]
    assert moved.data.tolist() != [[1.0, 2.0]]
    assert len(lars.state) == 1


def test_groups_have_their_own_settings() -> None:
    a, b = parameter(1.0, 1.0), parameter(1.0, 1.0)
    lars = LARS([a], lr=1.0)
    lars.add_param_group({"params": [b], "lr": 0.25})
    a.grad = b.grad = torch.ones(2)
    lars.step()
    assert a.data.tolist() == [0.0, 0.0]
    assert b.data.tolist() == [0.75, 0.75]


def test_state_round_trip() -> None:
    a = network()
    first = LARS(a.parameters(), lr=0.1, trust=0.1)
    for step in range(3):
        set_gradients(a, step)
        first.step()
    b = network(seed=1)
    b.load_state_dict(a.state_dict())
    second = LARS(b.parameters(), lr=99.0, trust=99.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(3, 6):
        for net, lars in ((a, first), (b, second)):
            set_gradients(net, step)
            lars.step()
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
