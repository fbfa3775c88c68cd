"""Pages of the documentation that lie outside docs/, and the page of commands made from the command line itself."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / ".ci")]

import make_manual  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402

OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ under their paths in the repository."""
    weights = ROOT / "weights"
    found = [ROOT / name for name in OUTSIDE]
    found += [*weights.rglob("*.md"), *weights.glob("recipes/*"), weights / "CREDITS.tsv"]
    for path in found:
        if path.is_file():
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "commands.md", content=make_manual.markdown()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the repository as links of the site, where docs/ is the root."""
    here = page.file.src_uri
    in_docs = (ROOT / "docs" / here).is_file()
    folder = posixpath.dirname(f"docs/{here}" if in_docs else here)

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1])).removeprefix("docs/")
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}"

    return _LINK.sub(moved, markdown)
