"""Width and names of the features that an estimator was fitted with.

Shapes: D dimensions.
"""

from __future__ import annotations

from typing import Any

from coke.clustering.feature_names import check_same_names
from coke.clustering.point_array import PointArray


def learn_features(estimator: Any, given: PointArray) -> None:
    """Sets ``n_features_in_``, and ``feature_names_in_`` if the points have names."""
    estimator.n_features_in_ = given.array.shape[1]
    if given.names is not None:
        estimator.feature_names_in_ = given.names
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def check_features(estimator: Any, given: PointArray) -> None:
    """Checks that points have the features that the estimator was fitted with.

    Raises:
        ValueError: the number of features, their names or their order differ.
    """
    name, width = type(estimator).__name__, given.array.shape[1]
    check_same_names(getattr(estimator, "feature_names_in_", None), given.names, name)
    if width != estimator.n_features_in_:
        raise ValueError(
            f"X has {width} features, but {name} is expecting {estimator.n_features_in_} features "
            "as input"
        )
