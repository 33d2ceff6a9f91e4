"""The few labelled images of a low-shot evaluation: chosen by fraction and seed, or listed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coke.pipeline.dataset.index import ImageIndex
from coke.tools.evaluation.id_lists import read_list, write_list
from coke.tools.evaluation.subset import Ids, class_balanced

#: Shares of the training images in the literature (SimCLR, BYOL, SwAV).
FRACTIONS = (0.01, 0.1)
SEEDS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """A few labelled images of the training data.

    Attributes:
        name: ``seed 0``, or the name of a list's file.
        seed: of the choice; of a list, its place among the lists.
        ids: (M,) ascending.
    """

    name: str
    seed: int
    ids: Ids

    def record(self) -> dict[str, Any]:
        """What a result says of it."""
        digest = hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()
        return {"name": self.name, "images": len(self.ids), "ids_sha256": digest}


@dataclass(frozen=True, kw_only=True, eq=False)
class FewImages:
    """Subsets of equal size, whose results are averaged.

    Attributes:
        name: such as ``1 % (500 images)``.
    """

    name: str
    subsets: tuple[Subset, ...]


def few_images(
    index: ImageIndex, fractions: Sequence[float], lists: Sequence[Path], seeds: int | None
) -> list[FewImages]:
    """The subsets of each fraction, or those that are listed, by their number of images.

    Args:
        index: the labelled training images.
        fractions: 1 % and 10 % if empty.
        lists: files to read instead.
        seeds: subsets of each fraction; 3 when None.

    Raises:
        ValueError: both fractions and lists are given, or no seed; or a fraction or a list is
            refused, see :func:`class_balanced` and :func:`read_list`.
    """
    if lists:
        if fractions:
            raise ValueError("--ids names the images; leave out --fraction")
        if seeds is not None:
            raise ValueError("--ids names the images; leave out --seeds")
        found = [
            Subset(name=path.name, seed=place, ids=read_list(path, index))
            for place, path in enumerate(lists)
        ]
        sizes = dict.fromkeys(len(subset.ids) for subset in found)
        groups = [tuple(s for s in found if len(s.ids) == size) for size in sizes]
    else:
        seeds = SEEDS if seeds is None else seeds
        if seeds < 1:
            raise ValueError(f"seeds is {seeds}; choose at least one subset of each fraction")
        groups = [
            tuple(
                Subset(name=f"seed {seed}", seed=seed, ids=class_balanced(index, fraction, seed))
                for seed in range(seeds)
            )
            for fraction in dict.fromkeys(fractions or FRACTIONS)
        ]
    return [
        FewImages(name=_name(len(group[0].ids), index.n_live), subsets=group) for group in groups
    ]


def write_lists(folder: Path, index: ImageIndex, groups: Sequence[FewImages]) -> list[Path]:
    """Writes the keys of each subset into a file of its own, such as ``500-images-seed-0.txt``.

    Raises:
        ValueError: a file is there already, or the folder cannot be written.
    """
    files = {
        folder / f"{len(s.ids)}-images-{s.name.replace(' ', '-').removesuffix('.txt')}.txt": s.ids
        for group in groups
        for s in group.subsets
    }
    for path in files:
        if path.exists():
            raise ValueError(f"--write-ids: {path} exists; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, ids in files.items():
            write_list(path, index, ids)
    except OSError as error:
        raise ValueError(
            f"--write-ids {folder} cannot be written ({error.strerror or error}); name another "
            "folder"
        ) from error
    return list(files)


def _name(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} % ({part:,} images)"
