"""Lists of objects that are not decoded, read leniently."""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.api import dig

#: As many characters of a script as are quoted.
QUOTED = 160


def rows(tree: Any, path: str = "") -> list[dict[str, Any]]:
    """The mappings of the list at a dotted path; empty where there is none."""
    found = dig(tree, path)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def words(tree: Any, path: str = "") -> list[str]:
    """The scalars of the list at a dotted path, as strings."""
    found = dig(tree, path)
    return [str(word) for word in found] if isinstance(found, list) else []
