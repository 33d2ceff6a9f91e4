"""The seed of a fit, in every form that ``random_state`` takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

LARGEST_SEED = 2**63 - 1


def generator_of(random_state: Any) -> torch.Generator:
    """A new generator; the global random numbers of numpy and torch stay as they are.

    Args:
        random_state: None for another result each time; a whole number from 0 to 2**63 - 1; or one
            of numpy's ``RandomState`` and ``Generator``, the module ``numpy.random``, and torch's
            ``Generator``, from which one number is drawn.

    Raises:
        ValueError: ``random_state`` is something else.
    """
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
    elif isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        if not 0 <= random_state <= LARGEST_SEED:
            raise ValueError(
                f"random_state is {random_state}; give a whole number from 0 to {LARGEST_SEED}"
            )
        generator.manual_seed(int(random_state))
    elif isinstance(random_state, np.random.RandomState) or random_state is np.random:
        generator.manual_seed(int(random_state.randint(2**31)))
    elif isinstance(random_state, np.random.Generator):
        generator.manual_seed(int(random_state.integers(LARGEST_SEED)))
    elif isinstance(random_state, torch.Generator):
        drawn = torch.randint(
            LARGEST_SEED, (1,), generator=random_state, device=random_state.device
        )
        generator.manual_seed(int(drawn))
    else:
        shown = " ".join(repr(random_state).split())
        raise ValueError(
            f"random_state is {shown}; give None, a whole number, or a generator of numpy or torch"
        )
    return generator
