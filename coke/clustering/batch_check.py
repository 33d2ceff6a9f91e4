"""Checks of the batches that are clustered, which never wait for the device.

Shapes: B batch, D feature dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NONE = torch.iinfo(torch.int64).min


class BatchCheck:
    """Collects errors of batches on the device, until they are asked for.

    Args:
        n_ids: number of images N; ids are 0..N-1.
        device: device of the batches.
    """

    def __init__(self, n_ids: int, device: torch.device | str) -> None:
        self._n_ids = n_ids
        # The largest so far of five kinds: an id whose features are not finite, one whose features
        # are zero, one that comes twice in a batch, any id, any negated id.
        self._found = torch.full((5,), _NONE, dtype=torch.int64, device=device)

    def add(self, features_BD: Tensor, ids_B: Tensor, valid: Tensor | None = None) -> None:
        """Checks a batch of at least one row.

        Args:
            features_BD: (B, D) floating point.
            ids_B: (B,) int64.
            valid: () bool; false if the features are known to be unfit, so that only ids are
                checked. None means true.
        """
        norms_B = torch.linalg.vector_norm(features_BD, dim=1)
        if valid is not None:
            norms_B = torch.where(valid, norms_B, 1.0)
        in_order_B = ids_B.sort().values
        twice_B = in_order_B.diff(prepend=in_order_B[:1] - 1) == 0
        found = [
            torch.where(norms_B.isfinite(), _NONE, ids_B).max(),
            torch.where(norms_B == 0, ids_B, _NONE).max(),
            torch.where(twice_B, in_order_B, _NONE).max(),
            in_order_B[-1],
            -in_order_B[0],
        ]
        self._found = torch.maximum(self._found, torch.stack(found))

    def raise_for_findings(self) -> None:
        """Waits for the device, raises the first error found, and forgets all of them.

        Raises:
            ValueError: a batch could not be clustered; the message names an id and a remedy.
        """
        infinite, zero, twice, largest, negated = self._found.tolist()
        self._found = torch.full_like(self._found, _NONE)
        if infinite != _NONE:
            raise ValueError(
                f"the features of id {infinite} hold NaN or infinity: leave such rows out; where "
                "a model made them, it has diverged, and a lower learning rate may help"
            )
        if zero != _NONE:
            raise ValueError(
                f"the features of id {zero} are a zero vector, which is near to no cluster: leave "
                "such rows out, or find out why the model gives zeros"
            )
        if twice != _NONE:
            raise ValueError(
                f"id {twice} is repeated inside a batch: give each image once, with the mean of "
                "its views' features"
            )
        for value in (-negated, largest):
            if largest != _NONE and not 0 <= value < self._n_ids:
                raise ValueError(
                    f"ids hold {value}; with n_ids {self._n_ids} they must be 0 to "
                    f"{self._n_ids - 1}: give row numbers of the index, or a larger n_ids"
                )
