"""``coke demo``: from files to an evaluated representation."""
