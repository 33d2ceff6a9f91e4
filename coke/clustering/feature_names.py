"""Names of features: read from a data frame, and compared with those of ``fit``.

Rules and messages are those of scikit-learn, which need not be installed.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LISTED = 5  # names that a message lists


def feature_names(x: Any) -> NDArray[np.object_] | None:
    """Names (D,) of the columns of a pandas, polars or Arrow table; None for anything else.

    Raises:
        TypeError: some names are texts and others are not.
    """
    columns: Any = None
    if hasattr(x, "column_names"):  # Arrow, whose `columns` are data
        columns = x.column_names
    elif hasattr(x, "columns") and hasattr(x, "shape"):
        columns = x.columns
    if columns is None or callable(columns) or not len(columns):
        return None
    names = np.empty(len(columns), dtype=object)
    names[:] = list(columns)
    types = sorted({type(name).__qualname__ for name in names})
    if "str" not in types:
        return None
    if len(types) > 1:
        raise TypeError(
            "Feature names are only supported if all input features have string names, but your "
            f"input has {types} as column name types; use X.columns = X.columns.astype(str)"
        )
    return names


def check_same_names(
    fitted: NDArray[np.object_] | None, found: NDArray[np.object_] | None, estimator: str
) -> None:
    """Compares the names of new points with those of ``fit``; warns if only one has names.

    Raises:
        ValueError: the names or their order differ.
    """
    if fitted is None and found is None:
        return
    if fitted is None:
        warnings.warn(
            f"X has feature names, but {estimator} was fitted without feature names", stacklevel=4
        )
    elif found is None:
        warnings.warn(
            f"X does not have valid feature names, but {estimator} was fitted with feature names",
            stacklevel=4,
        )
    elif found.tolist() != fitted.tolist():
        raise ValueError(
            "The feature names should match those that were passed during fit.\n"
            + _difference(set(fitted), set(found))
        )


def _difference(fitted: set[str], found: set[str]) -> str:
    text = ""
    for names, title in (
        (found - fitted, "Feature names unseen at fit time"),
        (fitted - found, "Feature names seen at fit time, yet now missing"),
    ):
        if names:
            more = ["..."] if len(names) > _LISTED else []
            listed = [*sorted(names)[:_LISTED], *more]
            text += f"{title}:\n" + "".join(f"- {name}\n" for name in listed)
    return text or "Feature names must be in the same order as they were in fit.\n"
