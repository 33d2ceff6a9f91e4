"""The tiny data sets and settings that the commands' tests have."""

from tests.tools.conftest import stripes, tiny

__all__ = ["stripes", "tiny"]
