"""A data set: the folder that ``coke ingest`` makes.

``manifest`` is what it says of itself, ``index`` one row per id, ``open`` finds it in a folder or
behind a URL, ``mirror`` copies the index files of a remote one here, ``write_index`` writes them.
"""
