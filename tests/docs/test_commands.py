"""What pages tell readers to type exists: commands of coke, their options, settings and presets.

Nothing is run here. Words in capitals, and what stands in quotes of a shell, are the reader's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from coke.cli import app
from coke.config.config import Config
from coke.config.presets import presets
from coke.config.wishes import AUTO

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
APP: Any = get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
#: Options of other programs that pages name.
FOREIGN = {"--extra-index-url", "--index-url", "--shm-size", "--sort", "--user"}

_FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_INDENTED = re.compile(r"^ {4}(.*)$", re.MULTILINE)
_COMMAND = re.compile(
    r"^(?:\$ |srun |[A-Z_]+=\S+ )*(?:python -m )?"
    r"(coke [a-z-]+.*|make [a-z].*|python benchmarks/.*)$"
)


def typed(page: str) -> Iterator[str]:
    """The commands of a page, whole lines of blocks and spans of code; ``--option`` alone too."""
    rest = _FENCE.sub("", page)
    for block in [*_FENCE.findall(page), "\n".join(_INDENTED.findall(rest))]:
        for line in block.replace("\\\n", " ").splitlines():
            if match := _COMMAND.match(line.strip()):
                yield match[1]
    for span in _SPAN.findall(rest):
        text = " ".join(span.split())
        if (match := _COMMAND.match(text)) or text.startswith("--"):
            yield match[1] if match else text


def problem(text: str) -> str | None:
    """Why a command cannot be typed as it stands; None if it can."""
    words = shlex.split(text, comments=True)
    if words[0] == "python":
        return None if (ROOT / words[1]).is_file() else f"there is no {words[1]}"
    if words[0] == "make":
        unknown = [w for w in words[1:] if "=" not in w and w not in TARGETS]
        return f"make has no {unknown[0]}" if unknown else None
    options: set[str] = FOREIGN | _all_options(APP)
    if words[0] == "coke":
        command, words = _command(words[1:])
        if command is None:
            return f"coke has no {words[0]}"
        if not hasattr(command, "commands"):
            options = _options_of(command)
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word.startswith("--"):
            name, _, value = word.partition("=")
            if name not in options:
                return f"there is no {name}"
            if why := _wrong(name, value or following):
                return why
    return None


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words begin with, and the words after it; None if there is none."""
    found: Any = APP
    while words and hasattr(found, "commands"):
        if words[0] not in found.commands:
            return (None if words[0].islower() and words[0].isalpha() else found), words
        found, words = found.commands[words[0]], words[1:]
    return found, words


def _options_of(command: Any) -> set[str]:
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


def _all_options(command: Any) -> set[str]:
    parts = getattr(command, "commands", {}).values()
    return set().union(_options_of(command), *map(_all_options, parts))


def _wrong(name: str, value: str) -> str | None:
    if name == "--preset" and value.islower() and value not in (*presets, AUTO):
        return f"there is no preset {value}"
    if name == "--set" and "=" in value:
        key = value.partition("=")[0]
        found: Any = Config()
        for part in key.split("."):
            if key.islower() and key != "section.key" and not hasattr(found, part):
                return f"there is no setting {key}"
            found = getattr(found, part, None)
    return None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_page_tells_to_type_exists(path: Path) -> None:
    commands = list(typed(path.read_text(encoding="utf-8")))
    assert {text: why for text in commands if (why := problem(text))} == {}


def test_commands_are_found_in_blocks_and_spans() -> None:
    page = (
        "`coke ingest a\nb` and `--out` and `make demo`, not `coke/cli.py` or `coke`\n"
        "    $ coke runs\n\n    A=1 python benchmarks/a.py\n"
        "```bash\n$ coke train DATA \\\n    --epochs 3  # so many\nmake test\nls\n```\n"
        "``coke none``\n"
    )
    assert list(typed(page)) == [
        "coke train DATA      --epochs 3  # so many",
        "make test",
        "coke runs",
        "python benchmarks/a.py",
        "coke ingest a b",
        "--out",
        "make demo",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("coke train DATA --epochs 3 --set data.view.size=8", None),
        ("coke eval knn RUN DATA --k=5", None),
        ("coke COMMAND", None),
        ("make demo PYTHON=python3.11", None),
        ("--preset NAME", None),
        ("coke tame DATA", "coke has no tame"),
        ("coke eval tree RUN DATA", "coke has no tree"),
        ("coke eval knn RUN DATA --fast", "there is no --fast"),
        ("coke train DATA --set epochs=3", "there is no setting epochs"),
        ("--set data.colour=red", "there is no setting data.colour"),
        ("--preset imagenet", "there is no preset imagenet"),
        ("--no-such", "there is no --no-such"),
        ("make tea", "make has no tea"),
        ("python benchmarks/heads.py --rows 3", None),
        ("python benchmarks/none.py", "there is no benchmarks/none.py"),
    ],
)
def test_what_does_not_exist_is_named(text: str, why: str | None) -> None:
    assert problem(text) == why
