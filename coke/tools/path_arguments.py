"""Paths among the arguments of the command line: ``~`` in them, and URLs instead of them."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from coke.files.home import expanded

#: A path with a tilde at its start: a word, or the value in ``--option=VALUE`` or ``key=VALUE``.
_TILDE = re.compile(r"((?:--)?[A-Za-z][\w.-]*=)?(~.*)", re.DOTALL)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # of a URL that was made a Path


class HomeGroup(TyperGroup):
    """Commands whose arguments name the home folder by ``~``, wherever a path stands.

    Shells expand it only at the start of a word, and nothing does in quotes or for other programs.
    """

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = sys.argv[1:] if args is None else args
        return super().main([with_home(argument) for argument in given], *rest, **options)


def with_home(argument: str) -> str:
    """An argument with its tilde expanded.

    Raises:
        ValueError: it has one, and the user has no home folder.
    """
    match = _TILDE.fullmatch(argument)
    return argument if match is None else f"{match[1] or ''}{expanded(match[2])}"


def with_local_paths(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, which refuses a URL where it takes a path of this machine.

    A URL that is taken for a path loses a slash, and may become a folder called ``s3:``.
    """

    @functools.wraps(command)
    def checked(**arguments: Any) -> Any:
        for name, value in arguments.items():
            if isinstance(value, Path) and _URL.match(str(value)):
                url = _URL.sub(r"\1://", str(value), count=1)
                raise ValueError(
                    f"{name} is {url}, and must be a path on this machine: download what is there, "
                    "or write to a folder here and copy that"
                )
        return command(**arguments)

    return checked
