"""Sources: whatever holds images, as sorted keys, labels, and bytes on demand.

:func:`find_splits` says what a path or URL holds; everything else sees only :class:`Source`.
One module per layout: ``folders``, ``mnist``, ``imagenet``, ``shards`` (WebDataset), ``parquet``,
``table``. ``docs/sources.md`` has the key and label rule of each.
"""

from coke.pipeline.sources.draft import Splits
from coke.pipeline.sources.find import LABELS, SOURCES, find_splits
from coke.pipeline.sources.keys import key_problem
from coke.pipeline.sources.source import Other, Source
from coke.pipeline.sources.storage import is_url

__all__ = ["LABELS", "SOURCES", "Other", "Source", "Splits", "find_splits", "is_url", "key_problem"]
