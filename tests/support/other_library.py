"""Libraries that coke works with and does not need."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


def other_library(name: str) -> Any:
    """The library, or the test is skipped: its wheels may need another torch than this one."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} cannot be imported here: {error}")
