"""The name under which scripts import :func:`load_initial_weights`."""

from coke.tools.runs.initial_weights import load_initial_weights as load_initial_weights
