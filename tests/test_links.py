"""No page leads nowhere: links, anchors, images, and files named in text exist.

Pages are the Markdown files for readers. A link in a page is checked as GitHub resolves it. A span
of code that looks like a file (``coke/cli.py``), a test (``tests/test_api.py::test_...``) or a
module (``coke.config.views``) must be one; pages that docstrings and comments name must exist too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^( *)(```+|~~~+).*?^ *\2[`~]* *$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^\s>)]*)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HTML = re.compile(r"<(?:img|a)\b[^>]*?\b(?:src|href)=[\"']([^\"']+)[\"']")
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
_ANCHOR = re.compile(r"<[^>]+\b(?:id|name)=[\"']([^\"']+)[\"']")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # http:, mailto:
_PATH = re.compile(r"(?:coke|tests|benchmarks|docs|\.ci)/[\w./-]*(?:::\w+)?")
_MODULE = re.compile(r"(coke(?:\.\w+)+)(?:\(.*\))?")
_PAGE_IN_CODE = re.compile(r"\bdocs/[\w/-]+\.md\b")


@dataclass(frozen=True)
class Page:
    """A Markdown file, taken apart.

    Attributes:
        text: without its code; every line is where it was.
        code: the spans of code, each with its line number; blocks of code are left out.
    """

    path: Path
    text: str
    code: list[tuple[int, str]]

    @classmethod
    def read(cls, path: Path) -> Page:
        text = _FENCE.sub(_blank, path.read_text(encoding="utf-8"))
        code = [(_line(text, m.start()), " ".join(m[2].split())) for m in _CODE.finditer(text)]
        return cls(path, text, code)

    def links(self) -> Iterator[tuple[int, str]]:
        """Line number and target of every link and image."""
        text = _CODE.sub(_blank, self.text)
        for pattern in (_LINK, _REFERENCE, _HTML):
            for match in pattern.finditer(text):
                yield _line(text, match.start()), match[1]

    def anchors(self) -> set[str]:
        """What follows ``#`` in links to this page's headings, by GitHub's rule."""
        found: set[str] = set(_ANCHOR.findall(self.text))
        for match in _HEADING.finditer(self.text):
            slug = base = slug_of(match[2])
            number = 0
            while slug in found:
                number += 1
                slug = f"{base}-{number}"
            found.add(slug)
        return found


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def slug_of(heading: str) -> str:
    """GitHub's anchor of a heading: lower case, no punctuation, a hyphen for each space."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")


def pages(root: Path) -> list[Path]:
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def problems(root: Path) -> list[str]:
    """All that leads nowhere in the pages below ``root``, each with its place."""
    read = {path: Page.read(path) for path in pages(root)}
    found = []
    for path, page in read.items():
        at = path.relative_to(root).as_posix()
        for line, target in page.links():
            if why := _dead(target, page, read, root):
                found.append(f"{at}:{line}: {target} {why}")
        for line, code in page.code:
            if why := _missing(code, root):
                found.append(f"{at}:{line}: `{code}` {why}")
    return found + _pages_in_code(root)


def _dead(target: str, page: Page, read: dict[Path, Page], root: Path) -> str | None:
    """Why a link's target cannot be followed; None if it can, or lies on the web."""
    if _ELSEWHERE.match(target) or target.startswith("//"):
        return None
    file, _, anchor = unquote(target).partition("#")
    path = (page.path.parent / file).resolve() if file else page.path
    if not path.is_relative_to(root.resolve()):
        return "lies outside the repository"
    if not path.exists():
        return "does not exist"
    if (
        anchor
        and path.suffix == ".md"
        and anchor not in (read.get(path) or Page.read(path)).anchors()
    ):
        return "names no heading"
    return None


def _missing(code: str, root: Path) -> str | None:
    """Why a span of code names a file, test or module that is not there; None if it does not."""
    words = code.split()
    if words and _PATH.fullmatch(words[0]):
        file, _, test = words[0].partition("::")
        if Path(file).stem == "NAME":  # the reader's own file
            file = file.rpartition("/")[0]
        if not (root / file).exists():
            return "does not exist"
        if test and test not in _names(root / file):
            return f"has no {test}"
    match = _MODULE.fullmatch(code)
    if match and not _module_has(root, match[1].split(".")):
        return "is no module, and no name in one"
    return None


def _module_has(root: Path, parts: list[str]) -> bool:
    place = root
    for number, part in enumerate(parts):
        file = place / f"{part}.py"
        if (place / part).is_dir():
            place /= part
        elif file.is_file():
            return number + 1 == len(parts) or parts[number + 1] in _names(file)
        else:
            return (place / "__init__.py").is_file() and part in _names(place / "__init__.py")
    return True


def _names(file: Path) -> set[str]:
    """Names that a Python file defines or imports, in its functions and classes too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


def _pages_in_code(root: Path) -> list[str]:
    found = []
    for folder in ("coke", "benchmarks"):  # tests make up names
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for match in _PAGE_IN_CODE.finditer(text):
                if not (root / match[0]).is_file():
                    at = path.relative_to(root).as_posix()
                    found.append(f"{at}:{_line(text, match.start())}: {match[0]} does not exist")
    return found


def test_nothing_leads_nowhere() -> None:
    assert problems(ROOT) == []


def made(root: Path, **files: str) -> Path:
    """A repository of these files; ``docs__a`` is docs/a.md, ``coke__b`` is coke/b.py."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + (".py" if name.startswith("coke") else ".md"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("How good, how fast", "how-good-how-fast"),
        ("`coke bench-epoch`: how long", "coke-bench-epoch-how-long"),
        ('The rule: `dual_rule="auto"`', "the-rule-dual_ruleauto"),
        ("A  b – c & d", "a--b--c--d"),
        ("Größe (Table 1)", "größe-table-1"),
        ("See [the page](a.md#b)", "see-the-page"),
    ],
)
def test_a_slug_is_the_one_of_github(heading: str, slug: str) -> None:
    assert slug_of(heading) == slug


def test_what_leads_somewhere_is_let_pass(tmp_path: Path) -> None:
    root = made(
        tmp_path,
        README='# Top\n## Again\n## Again\n[a](docs/a.md), [b](docs/a.md#one-two "title")\n'
        "[c](#again-1) <a id='here'></a> [d](#here) [e](https://example.org/#x) ![f](docs/a.md)\n"
        "[![g](docs/a.md)](docs/a.md#one-two) `coke/NAME.py` [h](docs/)\n"
        "```\n[not](a-link.md) `coke/none.py`\n# no heading\n```\n``[not](one-either.md)``\n",
        docs__a="## One, two\n[up](../README.md#again)\n`coke/x.py` `coke.x.f(1)` `coke.x`"
        " `coke/x.py::g` `coke ingest`\n",
        coke__x='"""See docs/a.md."""\n\ndef f():\n    def g(): ...\n',
    )
    assert problems(root) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n[a](none.md)", "README.md:2: none.md does not exist"),
        ("![a](none.png)", "README.md:1: none.png does not exist"),
        ("<img src='none.png'>", "README.md:1: none.png does not exist"),
        ("[a]\n\n[a]: none.md", "README.md:3: none.md does not exist"),
        ("[a\nb](none.md)", "README.md:1: none.md does not exist"),
        ("# One\n[a](#two)", "README.md:2: #two names no heading"),
        ("[a](docs/a.md#two)", "README.md:1: docs/a.md#two names no heading"),
        ("```\n# One\n```\n[a](#one)", "README.md:4: #one names no heading"),
        ("[a](../x.md)", "README.md:1: ../x.md lies outside the repository"),
        ("`coke/none.py`", "README.md:1: `coke/none.py` does not exist"),
        ("`coke/none/NAME.py`", "README.md:1: `coke/none/NAME.py` does not exist"),
        ("`benchmarks/none.py a b`", "README.md:1: `benchmarks/none.py a b` does not exist"),
        ("`coke/x.py::g`", "README.md:1: `coke/x.py::g` has no g"),
        ("`coke.y`", "README.md:1: `coke.y` is no module, and no name in one"),
        ("`coke.x.g(1)`", "README.md:1: `coke.x.g(1)` is no module, and no name in one"),
    ],
)
def test_what_leads_nowhere_is_named(tmp_path: Path, text: str, problem: str) -> None:
    root = made(tmp_path, README=text, docs__a="# One", coke__x="def f(): ...")
    assert problems(root) == [problem]


def test_a_page_that_code_names_must_exist(tmp_path: Path) -> None:
    root = made(tmp_path, README="", coke__x='\n"""See docs/none.md."""\n')
    assert problems(root) == ["coke/x.py:2: docs/none.md does not exist"]
