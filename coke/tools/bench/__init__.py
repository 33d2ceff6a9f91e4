"""``coke bench-epoch``: its measurements, its conclusions, and how it shows both."""
