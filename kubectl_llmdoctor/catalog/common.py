"""What names nobody in particular: public domains, names that every cluster has, and the words of the trade.

`common.json`: `hosts` are domains whose subdomains are public too, `names` are names of objects and settings, `words` are
lower-case words that names of engines, models, hardware and environments are made of.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec


class Common(msgspec.Struct, frozen=True):
    """The three lists."""

    hosts: frozenset[str]
    names: frozenset[str]
    words: frozenset[str]


@cache
def table() -> Common:
    """The lists of common.json."""
    return msgspec.json.decode(Path(__file__).with_name("common.json").read_bytes(), type=Common)
