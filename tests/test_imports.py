"""What imports what: arrows point down, none in a circle.

Every import counts: those within functions and
those for type checkers too.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "coke"

#: Rooms from the ground up, one line per floor. A file imports from its own room and from lower
#: floors, not from another room of its own floor.
FLOORS = (
    ("files", "version"),
    ("config", "distributed"),
    ("pipeline", "model", "clustering"),
    ("tools/console",),
    ("tools/runs", "tools/datasets"),
    ("tools/evaluation",),
    ("tools/training", "tools/features", "tools/export"),
    ("tools/page",),
    ("tools/bench",),
    ("tools/demo",),
    ("command line",),
    ("public face",),
)


@dataclass(frozen=True, kw_only=True, order=True)
class Arrow:
    """An import: files as paths in the package, such as ``files/lock.py``."""

    source: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line} -> {self.target}"


def room_of(file: str) -> str:
    """The room of a file.

    Raises:
        ValueError: it stands in none.
    """
    parts = file.split("/")
    if file == "__init__.py":
        return "public face"
    if parts[0] == "tools":
        # tools/options.py and tools/messages.py are for commands; a command's options are theirs.
        if len(parts) == 2 or parts[-1] == "command.py":
            return "command line"
        room = "/".join(parts[:2])
    elif file in ("cli.py", "__main__.py"):
        room = "command line"
    else:
        room = parts[0].removesuffix(".py")
    if not any(room in floor for floor in FLOORS):
        raise ValueError(f"{file} is in no room that FLOORS names")
    return room


def arrows_in(package: Path) -> list[Arrow]:
    """All imports between files of a package, in order; those of its public face are left out."""
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    modules = {_module_of(f"{package.name}/{file}"): file for file in files}
    found = set()
    for file in sorted(files - {"__init__.py"}):
        tree = ast.parse((package / file).read_text(encoding="utf-8"), filename=file)
        module = _module_of(f"{package.name}/{file}")
        holder = module if file.endswith("__init__.py") else module.rpartition(".")[0]
        for line, name in _imported(tree, holder):
            target = _file_of(name, modules)
            if target not in (None, file):
                found.add(Arrow(source=file, line=line, target=target))
    return sorted(found)


def _module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported(tree: ast.Module, holder: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that is imported; ``holder`` is the file's package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = holder.split(".")[: len(holder.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _is_import_function(node.func):
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value


def _is_import_function(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def _file_of(name: str, modules: dict[str, str]) -> str | None:
    """The file of a module, or that in which a name is defined; None outside the package."""
    if name in modules:
        return modules[name]
    return modules.get(name.rpartition(".")[0])


def upward(arrows: Iterable[Arrow]) -> list[Arrow]:
    """Arrows against the order of rooms."""
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for arrow in arrows:
        source, target = room_of(arrow.source), room_of(arrow.target)
        if source != target and floor_of[target] >= floor_of[source]:
            wrong.append(arrow)
    return wrong


def circles(arrows: Iterable[Arrow]) -> list[list[Arrow]]:
    """For each file that imports itself by way of others, the shortest way; each circle once."""
    from_file = _by_source(arrows)
    found: dict[frozenset[str], list[Arrow]] = {}
    for file in sorted(from_file):
        if circle := _way(file, file, from_file):
            found.setdefault(frozenset(arrow.source for arrow in circle), circle)
    return list(found.values())


def _by_source(arrows: Iterable[Arrow]) -> dict[str, list[Arrow]]:
    found: dict[str, list[Arrow]] = {}
    for arrow in arrows:
        found.setdefault(arrow.source, []).append(arrow)
    return found


def _way(start: str, goal: str, from_file: dict[str, list[Arrow]]) -> list[Arrow]:
    """The shortest way along arrows, one at least; empty where there is none."""
    ways: deque[list[Arrow]] = deque([arrow] for arrow in from_file.get(start, ()))
    seen: set[str] = set()
    while ways:
        way = ways.popleft()
        end = way[-1].target
        if end == goal:
            return way
        if end not in seen:
            seen.add(end)
            ways.extend([*way, arrow] for arrow in from_file.get(end, ()))
    return []


def problems(package: Path) -> list[str]:
    """One line for each thing that is wrong with a package's imports."""
    arrows = arrows_in(package)
    return [f"upwards: {arrow}" for arrow in upward(arrows)] + [
        f"in a circle: {', '.join(map(str, circle))}" for circle in circles(arrows)
    ]


def test_arrows_point_down_and_never_in_a_circle() -> None:
    assert problems(PACKAGE) == []


def test_every_room_is_there() -> None:
    """So that a floor's order is not held of a name that nothing has."""
    rooms = {room_of(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py")}
    assert {room for floor in FLOORS for room in floor} <= rooms


def made(folder: Path, **files: str) -> Path:
    """A package ``coke`` of these files: ``files__lock`` is ``files/lock.py``."""
    for name, text in files.items():
        path = folder / "coke" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for parent in path.parents:
            if parent == folder:
                break
            (parent / "__init__.py").touch()
    return folder / "coke"


FINE = {
    "files__lock": "import os\nfrom __future__ import annotations\n",
    "files__durable": "from coke.files import lock\n",
    "config__config": "from coke.files.lock import take\n",
    "pipeline__order__order": "import coke.config.config as c\nfrom . import blocks\n",
    "pipeline__order__blocks": "from ...files import lock, durable\nfrom coke_other import order\n",
    "tools__runs__run": "from coke.pipeline.order import order\n",
    "tools__runs__command": "def run():\n    from coke.tools.training import train\n",
    "tools__training__train": "from coke.tools.runs.run import Run\n",
    "cli": "from coke.tools.runs import command\nfrom coke.tools.messages import fail\n",
    "tools__messages": "import sys\n",
}


def test_a_fine_tree_has_no_problems(tmp_path: Path) -> None:
    package = made(tmp_path, **FINE)
    (package / "__init__.py").write_text(
        "from coke.tools.training.train import train\n", encoding="utf-8"
    )
    assert problems(package) == []
    assert [str(arrow) for arrow in arrows_in(package)] == [
        "cli.py:1 -> tools/runs/command.py",
        "cli.py:2 -> tools/messages.py",
        "config/config.py:1 -> files/lock.py",
        "files/durable.py:1 -> files/lock.py",
        "pipeline/order/blocks.py:1 -> files/durable.py",
        "pipeline/order/blocks.py:1 -> files/lock.py",
        "pipeline/order/order.py:1 -> config/config.py",
        "pipeline/order/order.py:2 -> pipeline/order/blocks.py",
        "tools/runs/command.py:2 -> tools/training/train.py",
        "tools/runs/run.py:1 -> pipeline/order/order.py",
        "tools/training/train.py:1 -> tools/runs/run.py",
    ]


@pytest.mark.parametrize(
    ("file", "text", "arrow"),
    [
        ("files__lock", "import coke.config.config", "files/lock.py:1 -> config/config.py"),
        ("config__config", "\nfrom coke.distributed import gather", "config/config.py:2 -> "),
        ("pipeline__loader", "from coke.model.loss import loss", "pipeline/loader.py:1 -> model/"),
        ("pipeline__loader", "from ..model import loss", "pipeline/loader.py:1 -> model/loss.py"),
        ("model__loss", "from coke.tools.runs.run import Run", "model/loss.py:1 -> tools/runs/run"),
        ("model__loss", "def f():\n    import coke.tools.runs.run", "model/loss.py:2 -> tools/"),
        ("model__loss", "if TYPE_CHECKING:\n    from coke.tools.runs.run import Run", "loss.py:2"),
        ("model__loss", "import_module('coke.tools.runs.run')", "model/loss.py:1 -> tools/runs/"),
        (
            "tools__runs__run",
            "from coke.tools.datasets import a",
            "runs/run.py:1 -> tools/datasets",
        ),
        ("tools__page__bench", "from coke.tools.bench import a", "page/bench.py:1 -> tools/bench/"),
        ("tools__runs__run", "from coke.tools.runs import command", "run.py:1 -> tools/runs/comm"),
        ("tools__runs__run", "from coke import train", "tools/runs/run.py:1 -> __init__.py"),
        ("tools__runs__run", "import coke", "tools/runs/run.py:1 -> __init__.py"),
    ],
)
def test_an_arrow_upwards_or_aside_is_named(
    tmp_path: Path, file: str, text: str, arrow: str
) -> None:
    others = {
        "config__config": "",
        "distributed__gather": "",
        "model__loss": "",
        "tools__runs__run": "",
        "tools__runs__command": "",
        "tools__datasets__a": "",
        "tools__bench__a": "",
    }
    found = problems(made(tmp_path, **(others | {file: text})))
    assert len(found) == 1 and found[0].startswith("upwards: ") and arrow in found[0]


def test_a_circle_is_named_once_by_its_shortest_way(tmp_path: Path) -> None:
    package = made(
        tmp_path,
        files__a="from coke.files import b\nfrom coke.files import c\n",
        files__b="def later():\n    from coke.files.c import x\n",
        files__c="from coke.files import a\n",
        files__alone="from coke.files import a\n",
        model__one="import coke.model.two\n",
        model__two="\nif TYPE_CHECKING:\n    from coke.model.one import One\n",
    )
    assert problems(package) == [
        "in a circle: files/a.py:2 -> files/c.py, files/c.py:1 -> files/a.py",
        "in a circle: files/b.py:2 -> files/c.py, files/c.py:1 -> files/a.py, "
        "files/a.py:1 -> files/b.py",
        "in a circle: model/one.py:1 -> model/two.py, model/two.py:3 -> model/one.py",
    ]


def test_a_package_that_imports_its_own_part_makes_a_circle_with_it(tmp_path: Path) -> None:
    package = made(tmp_path, model__one="from coke.model import Two\n")
    (package / "model" / "__init__.py").write_text(
        "from coke.model.one import One\n", encoding="utf-8"
    )
    assert problems(package) == [
        "in a circle: model/__init__.py:1 -> model/one.py, model/one.py:1 -> model/__init__.py"
    ]


def test_a_file_in_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"attic/x.py is in no room"):
        problems(made(tmp_path, attic__x="from coke.files import a", files__a=""))
