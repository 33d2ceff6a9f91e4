"""Limits of a remote data set's order: named before the first download."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from coke.config.view_recipe import ViewRecipe
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.loading.loader import build_loader
from tests.support.web_server import WebServer


def test_a_hard_limit_of_open_files_below_what_an_order_needs_is_named(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 12 containers take two descriptors each, and the process 32 more."""
    hard = 55
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: None)
    index = ImageIndex(web.url, cache_dir=tmp_path)
    message = (
        r"reads 12 containers at a time, which takes 56 open files, and this process may open 55: "
        r"raise the hard limit of open files \(ulimit -Hn\) to 56 or more, or use order=blocks"
    )
    with pytest.raises(ValueError, match=message):
        build_loader(index, [ViewRecipe(size=8)], batch_size=4, backend="pil")
    assert not any(name.endswith(".tar") for name in web.served)
    hard = 56
    build_loader(index, [ViewRecipe(size=8)], batch_size=4, backend="pil")
