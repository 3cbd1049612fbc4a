"""For the site: links from the documentation to the rest of the repository lead to the forge."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs with each page's text; a file that exists neither here nor there is left for it to complain of."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[1]))
        if path.startswith("docs/") and files.get_file_from_path(path.removeprefix("docs/")):
            return match[0]
        place = ROOT / path
        if path.startswith("..") or not place.exists():
            return match[0]
        return f"]({config.repo_url}/{'tree' if place.is_dir() else 'blob'}/main/{path}{match[2] or ''})"

    return _LINK.sub(moved, markdown)
