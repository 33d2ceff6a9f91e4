"""``coke embed`` and ``coke cluster``: features in files, and clusters of them."""
