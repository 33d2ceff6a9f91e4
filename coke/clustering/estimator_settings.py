"""Checks of the estimator's settings, made when it is fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from coke.clustering.points import METRICS
from coke.clustering.seeding import SEEDINGS

_SAMPLED = ("random", "sample")  # two names of the same way to start
_AUTO_STARTS = 10  # starts that `n_init="auto"` makes of random points, as in scikit-learn


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks the estimator's parameters.

    Args:
        settings: the parameters by name.

    Raises:
        ValueError: a parameter is out of its range; the message names it and the range.
    """
    for name in ("n_clusters", "n_init", "max_iter", "batch_size"):
        value = settings[name]
        if name == "n_init" and isinstance(value, str) and value == "auto":
            continue
        if not _is_whole(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; give a whole number, 1 or more")
    for name in ("min_size", "max_size"):
        value = settings[name]
        if value is not None and (not _is_whole(value) or value < 0):
            raise ValueError(
                f"{name} is {value!r}; give a number of points as a whole number (int), or None"
            )
    ratio, tol = settings["min_ratio"], settings["tol"]
    if not _is_number(ratio) or not 0 <= ratio <= 1:
        raise ValueError(f"min_ratio is {ratio!r}; it is a share of N / K, in [0, 1]")
    if not _is_number(tol) or not 0 <= tol < math.inf:
        raise ValueError(f"tol is {tol!r}; give a number, 0 or more")
    largest = settings["max_ratio"]
    if largest is not None and (not _is_number(largest) or not largest >= 1):
        raise ValueError(
            f"max_ratio is {largest!r}; it is a share of N / K, 1 or more, or None for no limit"
        )
    metric, init = settings["metric"], settings["init"]
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; choose one of {', '.join(METRICS)}")
    if settings["dual_rule"] != "auto":
        raise ValueError(f"dual_rule is {settings['dual_rule']!r}; the estimator has only 'auto'")
    if init is None or (isinstance(init, str) and init not in (*SEEDINGS, *_SAMPLED)):
        names = ", ".join(dict.fromkeys((*SEEDINGS, *_SAMPLED)))
        raise ValueError(
            f"init is {init!r}; choose one of {names}, or give an array (K, D) or a function"
        )


def is_sampled(init: Any) -> bool:
    """Whether ``init`` asks for points drawn at random."""
    return isinstance(init, str) and init in _SAMPLED


def number_of_starts(n_init: int | str, init: Any) -> int:
    """How many starts a fit makes.

    ``"auto"`` means ten for random points and for a function, and one for k-means++. An array is
    always one start, since further ones would be the same.
    """
    if not isinstance(init, str) and not callable(init):
        return 1
    if isinstance(n_init, str):
        return _AUTO_STARTS if callable(init) or is_sampled(init) else 1
    return n_init


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, complex)
