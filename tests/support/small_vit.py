"""A ViT of 2 blocks, for tests that train one."""

from __future__ import annotations

import pytest

from coke.model.vit import SIZES

WIDTH, BLOCKS, HEADS = 16, 2, 2


def shrink_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """``model.size=tiny`` is this small one, which takes milliseconds."""
    monkeypatch.setitem(SIZES, "tiny", (WIDTH, BLOCKS, HEADS))
