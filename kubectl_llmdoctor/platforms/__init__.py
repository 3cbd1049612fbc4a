"""The platforms: which pods an operator makes of its object, and where in the object each part of them is edited.

One file per operator, and a table for kinds that hold plain pod templates. All are pure and accept anything: what an
object does not state stays out of the template, and what an operator adds by itself is in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .status import Said
    from .template import Finder, Stated, Template, Told

__all__ = ["Finder", "Said", "Stated", "Template", "Told", "has_templates", "is_release", "templates"]


def has_templates(api_version: str, kind: str) -> bool:
    """Whether objects of this kind lead to pods."""
    from .table import reader_of

    return reader_of(api_version, kind) is not None


def is_release(api_version: str, kind: str) -> bool:
    """Whether objects of this kind are releases of charts, whose pods belong to other objects, or do not exist."""
    from .table import is_release

    return is_release(api_version, kind)


def templates(raw: dict[str, object], find: Finder) -> list[Template]:
    """The pod templates of an object; empty for a kind that has none, and for one that is malformed."""
    from .table import reader_of

    read = reader_of(str(raw.get("apiVersion") or ""), str(raw.get("kind") or ""))
    return [t for t in read(raw, find) if isinstance(t.pod.get("spec"), dict)] if read else []
