"""``coke train``: begin with ``train.py`` (the loop), then ``learner.py`` and ``session.py``."""
