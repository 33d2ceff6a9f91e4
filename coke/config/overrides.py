"""Settings as text: TOML files, ``--set`` assignments, differences; of any config dataclass."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

C = TypeVar("C")


def load_toml(path: Path) -> dict[str, Any]:
    """Settings from a TOML file. Raises ValueError where it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"config file {path} is not valid TOML: {error}") from error


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["model.depth=18"]`` as nested settings; values are TOML, bare words are strings.

    Raises:
        ValueError: an assignment without ``=``.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"--set {assignment!r} has no '='; write --set model.depth=18")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        at = settings
        *parents, last = key.strip().split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(f"--set {assignment!r}: {parent!r} was set to {at!r} before")
        at[last] = value
    return settings


def with_settings(config: C, settings: Mapping[str, Any], where: str = "") -> C:
    """A copy of a config dataclass with nested settings applied.

    Raises:
        ValueError: an unknown key (the message lists the valid ones) or a value of another type.
    """
    return _replaced(config, checked_settings(config, settings, where))


def _replaced(config: C, settings: Mapping[str, Any]) -> C:
    assert is_dataclass(config) and not isinstance(config, type)
    changes = {
        key: _replaced(current, value) if is_dataclass(current := getattr(config, key)) else value
        for key, value in settings.items()
    }
    return replace(config, **changes)


def checked_settings(config: Any, settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings in the types of a config's fields; their values are not checked.

    Raises:
        ValueError: as :func:`with_settings`.
    """
    hints = get_type_hints(type(config))
    unknown = [key for key in settings if key not in hints]
    if moved := {old: new for key in unknown for old, new in _moved(config, key, settings[key])}:
        raise ValueError(
            "config keys are in sections now: "
            + ", ".join(f"{where}{old} is {where}{new}" for old, new in moved.items())
        )
    if unknown:
        raise ValueError(
            f"unknown config key {where + unknown[0]!r}; valid keys: {', '.join(_keys(config))}"
        )
    changes: dict[str, Any] = {}
    for key, value in settings.items():
        current = getattr(config, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise ValueError(f"config key {where + key!r} is a section, not {value!r}")
            changes[key] = checked_settings(current, value, f"{where}{key}.")
        else:
            changes[key] = _checked(value, hints[key], where + key)
    return changes


def _moved(config: Any, key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Old and new name if a key, or each key of a table, is that of a section's field."""
    for section in fields(config):
        of_section = getattr(config, section.name)
        if not is_dataclass(of_section) or key not in (f.name for f in fields(of_section)):
            continue
        inner = value if isinstance(value, Mapping) and value else {"": None}
        for name in inner:
            old = f"{key}.{name}" if name else key
            yield old, f"{section.name}.{old}"


def _keys(config: Any) -> Iterator[str]:
    """All keys of a config: those of sections one level down, as ``section.key``."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from (f"{f.name}.{g.name}" for g in fields(value))
        else:
            yield f.name


def layered(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Nested settings of all layers in one, later ones over earlier ones, key by key."""
    whole: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = whole.get(key)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                value = layered([below, value])
            whole[key] = value
    return whole


def _checked(value: Any, hint: Any, name: str) -> Any:
    """The value in the field's type: integers may stand for floats, lists for tuples."""
    if get_origin(hint) is tuple:
        arguments = get_args(hint)
        if isinstance(value, list | tuple):
            if arguments[-1] is Ellipsis:
                return tuple(_checked(v, arguments[0], name) for v in value)
            if len(value) == len(arguments):
                return tuple(_checked(v, a, name) for v, a in zip(value, arguments, strict=True))
    elif hint is float and type(value) in (int, float):
        if abs(value) <= sys.float_info.max:  # integers may be larger; NaN is not
            return float(value)
        raise ValueError(f"config key {name!r} is {value!r}; it must be a finite number")
    elif type(value) is hint:
        return value
    shown = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    raise ValueError(f"config key {name!r} is {value!r}; it must be {shown}")


def changed_settings(a: Any, b: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs between two configs of one type: both values by the key's full name."""
    found: dict[str, tuple[Any, Any]] = {}
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if is_dataclass(x):
            found |= changed_settings(x, y, f"{where}{f.name}.")
        elif x != y:
            found[where + f.name] = x, y
    return found


def differences(a: Any, b: Any) -> list[str]:
    """What differs between two configs of one type, as ``key: a != b`` lines."""
    return [f"{key}: {x!r} != {y!r}" for key, (x, y) in changed_settings(a, b).items()]


def to_toml(config: Any, section: str = "") -> str:
    """A config as TOML that :func:`load_toml` and :func:`with_settings` read back."""
    plain, nested = [], []
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            nested.append(f"\n[{section}{f.name}]\n" + to_toml(value, f"{section}{f.name}."))
        else:
            plain.append(f"{f.name} = {json.dumps(value)}\n")  # JSON scalars and arrays are TOML
    return "".join(plain + nested)
