"""The parts of ``coke bench-epoch``: what is timed, what is made of it, how it is shown."""
