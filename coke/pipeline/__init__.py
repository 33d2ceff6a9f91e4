"""The pipeline: images on disk become ``Batch(ids, views)``.

A room imports only rooms above it in this list, besides ``config``, ``files`` and ``distributed``:

- ``randomness``: numbers that are a pure function of what they are for.
- ``remote``: files behind a URL.
- ``images``: whether and how an image file is stored.
- ``sources``: what holds images: their keys, labels and bytes.
- ``order``: which ids come when.
- ``dataset``: manifest and index, of a local or remote data set.
- ``containers``: tars and betons: writing them, and mapping them into memory.
- ``cache``: containers of remote data sets, downloaded ahead of the order.
- ``views``: from a recipe and stored bytes to pixels.
- ``loading``: the loader and its three backends.
"""
