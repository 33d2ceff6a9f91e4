"""Docstrings as the reference shows them: Sphinx's roles become links, ``#:`` comments become text.

An extension of griffe, which reads the package for mkdocstrings. A role whose target does not exist
is a warning, and so ends a strict build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(~?)([\w.]+)`")
_NAMES = re.compile(r"^ +\w+(?:, \w+)+(?=: )", re.MULTILINE)  # of attributes described together
_log = griffe.get_logger("coke.docs")


class Roles(griffe.Extension):  # type: ignore[misc]
    """Rewrites all docstrings of the package once it has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        objects = list(_objects(pkg))
        for item in objects:
            if item.docstring is None and (text := _comment_above(item)):
                item.docstring = griffe.Docstring(text, parent=item, lineno=item.lineno)
        for item in objects:
            if item.docstring is not None:
                text = with_links(item.docstring.value, item)
                # griffe takes what follows a space for a type.
                item.docstring.value = _NAMES.sub(lambda m: m[0].replace(", ", ",\u00a0"), text)
                _set_types(item, item.docstring)


def with_links(text: str, item: griffe.Object) -> str:
    """The docstring of ``item`` with a link, where the target has a place, for each role."""

    def link(match: re.Match[str]) -> str:
        target = _target(match[2], item)
        shown = match[2].rpartition(".")[2] if match[1] else match[2]
        if target is None:
            _log.warning(f"{item.path}: {match[0]} names nothing")
            return f"<code>{shown}</code>"
        return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'

    return _ROLE.sub(link, text)


def _target(name: str, item: griffe.Object) -> str | None:
    """The full path of a name as the docstring of ``item`` means it."""
    first, _, rest = name.partition(".")
    try:
        path = "coke" if first == "coke" else item.resolve(first)
        found = item.package if path == "coke" else item.package[path.removeprefix("coke.")]
        if rest:
            found = found[rest]
        return str(found.canonical_path)
    except (griffe.NameResolutionError, griffe.AliasResolutionError, KeyError):
        return None


def _set_types(item: griffe.Object, docstring: griffe.Docstring) -> None:
    """Types of described attributes from the code: griffe repeats the last one that it found."""
    for section in docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.attributes:
            for described in section.value:
                member = item.members.get(described.name)
                described.annotation = getattr(member, "annotation", None)


def _objects(item: griffe.Object) -> Iterator[griffe.Object]:
    yield item
    for member in item.members.values():
        if isinstance(member, griffe.Object):
            yield from _objects(member)


def _comment_above(item: griffe.Object) -> str:
    """The ``#:`` lines directly above an attribute, without their marks."""
    if not item.is_attribute or item.lineno is None:
        return ""
    above: list[str] = []
    for line in reversed(item.lines_collection[item.filepath][: item.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        above.insert(0, line.strip().removeprefix("#:").strip())
    return "\n".join(above)
