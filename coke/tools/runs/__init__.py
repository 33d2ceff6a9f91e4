"""A run on the disk: its folder, lock, checkpoints, records and initial weights."""
