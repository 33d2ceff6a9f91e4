"""Containers of remote data sets on the local disk.

``container_cache`` keeps them within a size limit, ``fetch_ahead`` downloads them before the order
reads them, in the sequence of ``fetch_queue``; ``cache_check`` refuses a cache that is too small.
"""
