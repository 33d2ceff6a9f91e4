"""The base class of the estimator: scikit-learn's if it is installed, otherwise a small one."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        ClusterMixin,
        TransformerMixin,
    )
    from sklearn.exceptions import NotFittedError

    class ClusterBase(
        ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
        TransformerMixin,  # type: ignore[misc]
        ClusterMixin,  # type: ignore[misc]
        BaseEstimator,  # type: ignore[misc]
    ):
        """A scikit-learn clusterer whose ``transform`` gives distances to centers."""

        not_fitted = NotFittedError

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
            return tags

except ImportError:

    class ClusterBase:  # type: ignore[no-redef]
        """Parameters and names of outputs, with scikit-learn's methods for them."""

        not_fitted = ValueError

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """Parameters by name; ``deep`` changes nothing."""
            names = inspect.signature(type(self).__init__).parameters
            return {name: getattr(self, name) for name in names if name != "self"}

        def set_params(self, **params: Any) -> Any:
            """Sets parameters by name.

            Raises:
                ValueError: there is no such parameter.
            """
            valid = self.get_params()
            for name, value in params.items():
                if name not in valid:
                    raise ValueError(
                        f"unknown parameter {name!r}; choose one of {', '.join(valid)}"
                    )
                setattr(self, name, value)
            return self

        def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
            """Names (K,) of the columns of ``transform``; ``input_features`` changes nothing.

            Raises:
                ValueError: the estimator is not fitted.
            """
            if not hasattr(self, "cluster_centers_"):
                raise self.not_fitted(f"{type(self).__name__} is not fitted yet; call fit first")
            prefix = type(self).__name__.lower()
            names = [f"{prefix}{i}" for i in range(len(self.cluster_centers_))]
            return np.asarray(names, dtype=object)

        def __repr__(self) -> str:
            named = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
            return f"{type(self).__name__}({named})"
