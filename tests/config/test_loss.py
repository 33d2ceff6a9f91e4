"""Settings of the loss that are refused."""

from __future__ import annotations

import pytest

from coke.config.loss import LossConfig


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("instance", 1.5, "loss.instance is 1.5; it is a weight between 0 and 1"),
        ("instance_temperature", 0.0, "loss.instance_temperature is 0.0; it must be positive"),
        ("temperature", -0.1, "loss.temperature is -0.1; it must be positive"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**{name: value})
