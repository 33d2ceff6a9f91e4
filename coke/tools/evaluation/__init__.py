"""``coke eval``: classifiers on frozen features, and the probe during training."""
