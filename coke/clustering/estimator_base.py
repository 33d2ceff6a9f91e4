"""What scikit-learn gives an estimator; without it, the little that is needed."""

from __future__ import annotations

import inspect
from typing import Any

try:
    from sklearn.base import BaseEstimator, ClusterMixin
    from sklearn.exceptions import NotFittedError

    class ClusterBase(ClusterMixin, BaseEstimator):  # type: ignore[misc]
        """A scikit-learn clusterer."""

        not_fitted = NotFittedError

except ImportError:

    class ClusterBase:  # type: ignore[no-redef]
        """Parameters by name, as scikit-learn's estimators have them."""

        not_fitted = ValueError

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            names = inspect.signature(type(self).__init__).parameters
            return {name: getattr(self, name) for name in names if name != "self"}

        def set_params(self, **params: Any) -> Any:
            valid = self.get_params()
            for name, value in params.items():
                if name not in valid:
                    raise ValueError(
                        f"unknown parameter {name!r}; choose one of {', '.join(valid)}"
                    )
                setattr(self, name, value)
            return self

        def __repr__(self) -> str:
            named = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
            return f"{type(self).__name__}({named})"
