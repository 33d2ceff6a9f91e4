"""The choice among a file's named arrays: which one holds the features, which one the ids."""

from __future__ import annotations

from pathlib import Path

from coke.tools.features.formats.feature_file import LISTED, USUAL

IDS = "ids"  # member of an .npz or .safetensors file that holds the ids of its rows


def chosen_member(path: Path, shapes: dict[str, tuple[int, ...]], key: str | None) -> str:
    """The member that holds the features: ``key``, the usual one, or the only one of shape (N, D).

    Raises:
        ValueError: there is no such member, or several are possible.
    """
    listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:LISTED])
    if key is not None:
        if key not in shapes:
            raise ValueError(f"{path} has no {key!r} (--key); it holds {listed or 'nothing'}")
        return key
    if USUAL in shapes:
        return USUAL
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    if len(shapes) == 1:
        return next(iter(shapes))  # its shape is wrong, and the check of the shape says so
    if not matrices:
        raise ValueError(f"{path} holds no array (N, D), only {listed or 'nothing'}; save one")
    raise ValueError(f"{path} holds several arrays (N, D): {listed}; choose one with --key NAME")
