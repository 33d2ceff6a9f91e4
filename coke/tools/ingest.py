"""The name under which scripts import :func:`ingest`."""

from coke.tools.datasets.ingest import ingest as ingest
