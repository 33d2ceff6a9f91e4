"""The finished benchmark that the page shows."""

from tests.tools.bench.conftest import bench

__all__ = ["bench"]
