"""The public API."""

from __future__ import annotations

import pytest

import coke


def test_every_public_name_resolves() -> None:
    for name in coke.__all__:
        assert getattr(coke, name) is not None
    assert coke.presets["demo"].preset == "demo"
    with pytest.raises(AttributeError, match="no attribute 'colk'"):
        _ = coke.colk
