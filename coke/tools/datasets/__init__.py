"""Data sets: ``coke ingest``, ``index``, ``verify`` and ``inspect``."""
