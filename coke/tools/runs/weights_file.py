"""Tensors by name from a file of weights; no code of the file is run."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Tensors by name, by the keys of the mapping that holds them, joined with dots.
Groups = dict[str, dict[str, Tensor]]

#: What a folder of weights may hold: a checkpoint of ours, a model of Hugging Face.
_FILES = ("state.pt", "model.safetensors", "pytorch_model.bin")
#: A large model of Hugging Face is in several files; one of these says which tensor is in which.
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
#: What wrappers of modules add anywhere in a name.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
#: How torch's reader names an object that it does not read.
_UNKNOWN = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed global")
_DEEPEST = 8  # mappings inside mappings
_SAVE = "torch.save(model.state_dict(), FILE)"


class _StandIn:
    """Takes the place of a Python object in a file, such as parsed arguments. It does nothing."""

    def __new__(cls, *args: Any) -> Any:
        # Objects that are filled by item or attribute are made without arguments; torch's reader
        # fills an OrderedDict both ways. defaultdict is made with one and filled by item.
        filled_later = not args or cls.__name__ == "defaultdict"
        return OrderedDict() if filled_later else super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_weights(source: Path) -> Groups:
    """The tensors of a file, or of a folder that holds ``state.pt`` or a Hugging Face model.

    Raises:
        ValueError: there is no such file, it cannot be read as weights, or it holds no tensors by
            name; the message starts with the source.
    """
    file = source
    if source.is_dir():
        found = [source / name for name in (*_FILES, *_INDICES) if (source / name).is_file()]
        if not found:
            raise ValueError(
                f"--init-from {source}: the folder holds no config.toml (of a run), nor "
                f"{', '.join(_FILES)}; name a file of weights in it"
            )
        file = found[0]
    if file.name in _INDICES and file.is_file():
        groups: Groups = {}
        for part in _parts(source, file):
            for path, tensors in _read(source, part).items():
                groups.setdefault(path, {}).update(tensors)
        return groups
    return _read(source, file)


def _parts(source: Path, index: Path) -> list[Path]:
    """The files that an index of Hugging Face names."""
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        parts = [index.parent / Path(name).name for name in sorted(named)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"--init-from {source}: {index} cannot be read as an index of weights "
            f"({type(error).__name__}); copy it again"
        ) from error
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ValueError(
            f"--init-from {source}: {len(missing)} of the {len(parts)} files that {index} names "
            f"are not beside it, the first is {missing[0]}; copy them there"
        )
    return parts


def _read(source: Path, file: Path) -> Groups:
    """The tensors of one file."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except FileNotFoundError:
        if re.match(r"\w{2,}:/", str(source)):
            raise ValueError(
                f"--init-from {source}: weights are read from the local disk; download them first"
            ) from None
        raise ValueError(
            f"--init-from {source}: there is no {file}; name a run folder, a checkpoint, or a file "
            "of weights"
        ) from None
    except OSError as error:
        raise ValueError(f"--init-from {source}: {file} cannot be read ({error})") from error
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"--init-from {source}: {file} is a pointer of Git LFS, not the weights; "
            "`git lfs pull` fetches them"
        )
    objects: list[str] = []
    # A safetensors file starts with the length of its header (8 bytes) and the header, in JSON.
    if start[8:9] == b"{" and not start.startswith(b"PK"):
        state: Any = _safetensors(source, file)
    else:
        state, objects = _torch(source, file)
    groups = tensors_by_name(state)
    if not groups and objects:
        raise ValueError(_code(source, objects))
    if not groups:
        raise ValueError(f"--init-from {source}: it holds no tensors by name; save {_SAVE}")
    return groups


def tensors_by_name(state: Any) -> Groups:
    """The tensors of nested mappings, by the keys of their mapping."""
    groups: Groups = {}
    _collect(state, "", _DEEPEST, groups)
    return groups


def _collect(state: Any, path: str, depth: int, groups: Groups) -> None:
    if not isinstance(state, Mapping) or depth == 0:
        return
    named = [(key, value) for key, value in state.items() if isinstance(key, str)]
    tensors = {_plain(key): value for key, value in named if isinstance(value, Tensor)}
    if tensors:
        groups[path] = tensors
    for key, value in named:
        _collect(value, f"{path}.{key}" if path else key, depth - 1, groups)


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _safetensors(source: Path, file: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(
            f"--init-from {source}: reading {file} needs safetensors: "
            "pip install 'coke[safetensors]'"
        ) from error
    try:
        loaded: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(_unreadable(source, file, error)) from error
    return loaded


def _torch(source: Path, file: Path) -> tuple[Any, list[str]]:
    """What ``torch.save`` wrote, and the names of Python objects in it."""
    objects: list[str] = []
    with suppress(Exception):  # torch raises half a dozen unrelated types; loading says more
        objects = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    while True:
        try:
            with torch.serialization.safe_globals(_stand_ins(objects)):
                return torch.load(file, map_location="cpu", weights_only=True), objects
        except Exception as error:  # as above
            # Files of the format before torch 1.6 tell their objects only in this way.
            unknown = _UNKNOWN.search(str(error))
            if unknown is not None and unknown[1] not in objects:
                objects = [*objects, unknown[1]]
                continue
            message = _code(source, objects) if objects else _unreadable(source, file, error)
            raise ValueError(message) from error


def _stand_ins(objects: Iterable[str]) -> list[Any]:
    """A class under the name of each object, so that the file can be read without them."""
    found: list[Any] = []
    for name in objects:
        module, _, last = name.rpartition(".")
        found.append(type(last, (_StandIn,), {"__module__": module}))
    return found


def _code(source: Path, objects: list[str]) -> str:
    return (
        f"--init-from {source}: it holds Python objects ({', '.join(objects[:3])}), no tensors by "
        f"name. Reading them would run code; where it was made, save {_SAVE}"
    )


def _unreadable(source: Path, file: Path, error: Exception) -> str:
    kind = type(error).__name__
    if "TorchScript" in str(error):
        kind = "it is a TorchScript archive"
    return f"--init-from {source}: {file} cannot be read as weights ({kind}); save {_SAVE}"
