"""Containers: the files that hold the images of a data set, many in one.

``plan`` decides one container's bytes. ``tar`` and ``beton`` are the file formats,
``tar_container`` and ``beton_container`` write a plan in them, ``formats`` lists both. ``mapped``
reads any of them: an image is a slice of a file.
"""
