"""A run to evaluate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from coke.tools.training.train import train
from tests.support.tiny_config import tiny_config


@pytest.fixture(scope="session")
def trained(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the stripes, to copy."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = tiny_config().changed(optimizer={"epochs": 1})
    train(config, stripes, folder, console=Console(quiet=True))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one epoch on the stripes, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
