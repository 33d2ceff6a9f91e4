"""CoKe and what a user would pick instead, on CIFAR-10: a grid of trainings, kept as records.

``python -m benchmarks.quality`` trains what has no record yet; ``--page`` writes the tables of
docs/quality.md from the records; ``--time-steps`` measures what a step of each method costs.
"""
