"""Ranks and worker processes: joining, exchanging, starting, and ending together."""
