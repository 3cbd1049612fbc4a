"""Lists of objects that are not decoded, read leniently."""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.api import dig, rows

__all__ = ["QUOTED", "rows", "words"]

#: As many characters of a script as are quoted.
QUOTED = 160


def words(tree: Any, path: str = "") -> list[str]:
    """The scalars of the list at a dotted path, as strings."""
    found = dig(tree, path)
    return [str(word) for word in found] if isinstance(found, list) else []
