"""The site beside `docs/`: pages and results that lie elsewhere, with links that fit, and Mermaid.

A hook of MkDocs. Pages are written for GitHub, where README.md is above docs/; here they move.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

#: Where a file of the repository stands in the site. (MkDocs would make an index of README.md.)
ELSEWHERE = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
RESULTS = "benchmarks/results"
#: Scripts that `make docs` brings where there is npm; browsers fetch the others from the web. The
#: first draws diagrams, the second makes the search work in a site that is read from files.
SCRIPTS = (".venv/mermaid.min.js", ".venv/iframe-worker.js")

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
_IN_REPOSITORY = {site: repository for repository, site in ELSEWHERE.items()}


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    for name, site in ELSEWHERE.items():
        files.append(
            File.generated(config, site, content=(root / name).read_text(encoding="utf-8"))
        )
    for path in sorted(p for p in (root / RESULTS).rglob("*") if p.is_file()):
        uri = path.relative_to(root).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    for path in sorted((root / "tests").rglob("test_*.py")):  # pages name tests that hold a row
        uri = path.relative_to(root).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    for script in SCRIPTS:
        path = root / script
        if path.is_file():
            uri = f"assets/{path.name}"
            files.append(File.generated(config, uri, abs_src_path=str(path)))
            _load(config, path.stem, uri)
    return files


def _load(config: MkDocsConfig, name: str, uri: str) -> None:
    """Lets pages load a script of the site, in place of one of that name from the web."""
    before_others = config.extra.get("polyfills", [])
    for number, url in enumerate(before_others):
        if name in url:
            before_others[number] = uri
            return
    config.extra_javascript.append(uri)


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    return linked(markdown, page.file.src_uri)


def linked(markdown: str, page: str) -> str:
    """The text of a page of the site, with links between its pages instead of GitHub's."""
    here = posixpath.dirname(_IN_REPOSITORY.get(page, f"docs/{page}"))

    def moved(match: re.Match[str]) -> str:
        if ":" in match[1]:
            return match[1]
        target = posixpath.normpath(posixpath.join(here, match[1]))
        site = ELSEWHERE.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(site, posixpath.dirname(page) or ".")

    return _LINK.sub(moved, markdown)
