"""Exact duplicates: images whose source files hold the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coke.tools.datasets.stable_ids import Assignment

DEDUPES = ("report", "drop")


def duplicate_groups(assignment: Assignment) -> list[list[int]]:
    """Ids of images with equal bytes: groups of two or more, ascending, by their first id."""
    live = assignment.live_ids
    by_content: dict[bytes, list[int]] = {}
    for image_id in live.tolist():
        by_content.setdefault(assignment.contents[image_id].tobytes(), []).append(image_id)
    return [group for group in by_content.values() if len(group) > 1]


def without_repeats(
    assignment: Assignment, groups: list[list[int]]
) -> tuple[NDArray[np.int64], dict[int, str]]:
    """The images that remain if only the first of each group stays.

    Returns:
        Positions of the images that stay, ascending, and for each other position the key of the
        image that it repeats.
    """
    repeats = {
        int(assignment.positions[image_id]): assignment.keys[group[0]]
        for group in groups
        for image_id in group[1:]
    }
    stay = np.sort(assignment.positions[assignment.live_ids])
    return stay[~np.isin(stay, np.fromiter(repeats, np.int64, len(repeats)))], repeats


def duplicates_table(
    assignment: Assignment, groups: list[list[int]], line: Callable[[str], str]
) -> bytes:
    """``duplicates.tsv``: one line per image of a group; ``line`` makes a key fit into a field."""
    lines = ["group\tid\tkey\tsha256"]
    for number, group in enumerate(groups):
        for image_id in group:
            sha256 = assignment.contents[image_id].tobytes().hex()
            lines.append(f"{number}\t{image_id}\t{line(assignment.keys[image_id])}\t{sha256}")
    return "".join(f"{text}\n" for text in lines).encode()
