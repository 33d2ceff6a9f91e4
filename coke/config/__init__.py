"""Settings: sections, presets, and everything that may override them.

``config.py`` joins the sections, one file each; ``presets.py`` names whole configs; ``resolve.py``
layers preset, file, ``--set`` and options.
"""
