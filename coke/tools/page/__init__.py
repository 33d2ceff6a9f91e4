"""Pages that people look at: one HTML file each, which works offline (extra ``report``).

``content.py`` says what a page holds, ``charts.py`` draws, ``render.py`` writes the file. Whoever
has something to show composes a page of these.
"""
