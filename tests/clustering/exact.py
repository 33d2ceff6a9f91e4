"""The best assignment that keeps cluster sizes, by a solver."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def exact_optimum(similarities: NDArray[Any], lower: float, upper: float) -> float:
    """By HiGHS: the linear program of the assignment, whose corners are whole numbers."""
    optimize = pytest.importorskip("scipy.optimize", reason="the exact optimum needs scipy")
    sparse = pytest.importorskip("scipy.sparse")
    n, k = similarities.shape
    once = sparse.kron(sparse.eye(n), np.ones((1, k)))
    sizes = sparse.kron(np.ones((1, n)), sparse.eye(k))
    rows = [-sizes] if math.isinf(upper) else [-sizes, sizes]
    limits = [-lower * np.ones(k)] + ([] if math.isinf(upper) else [upper * np.ones(k)])
    found = optimize.linprog(
        -similarities.ravel(),
        A_ub=sparse.vstack(rows),
        b_ub=np.concatenate(limits),
        A_eq=once,
        b_eq=np.ones(n),
        bounds=(0, 1),
        method="highs",
    )
    assert found.status == 0
    return -float(found.fun)
