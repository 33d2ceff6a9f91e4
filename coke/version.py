"""The version of coke."""

__version__ = "0.1.0"
