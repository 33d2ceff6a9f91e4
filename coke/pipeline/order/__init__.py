"""Which ids come when.

``order`` makes the three orders; ``epoch_order`` says what an order is; ``blocks`` is the one that
reads a few containers at a time. ``permutation`` and ``live_ids`` are what they are made of.
"""
