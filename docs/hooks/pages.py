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
#: Draws the diagrams. `make docs` brings it where there is npm; else readers fetch it from the web.
MERMAID = ".venv/mermaid.min.js"

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
_IN_REPOSITORY = {site: repository for repository, site in ELSEWHERE.items()}


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    for name, site in ELSEWHERE.items():
        files.append(File.generated(config, site, content=(root / name).read_text("utf-8")))
    for path in sorted((root / RESULTS).iterdir()):
        uri = f"{RESULTS}/{path.name}"
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    if (root / MERMAID).is_file():
        script = "assets/mermaid.min.js"
        files.append(File.generated(config, script, abs_src_path=str(root / MERMAID)))
        config.extra_javascript.append(script)
    return files


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
