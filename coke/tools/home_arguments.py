"""``~`` in arguments of the command line, where no shell expands it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup

from coke.files.home import expanded

#: A path with a tilde at its start: a word, or the value in ``--option=VALUE`` or ``key=VALUE``.
_TILDE = re.compile(r"((?:--)?[A-Za-z][\w.-]*=)?(~.*)", re.DOTALL)


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
