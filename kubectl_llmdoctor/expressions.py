"""Regular expressions that are compiled when they are first searched with.

A diagnosis loads more than a hundred of them and needs some twenty: compiling the rest costs as much as the diagnosis.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, cast


class Expression:
    """What `expression` returns: it has the methods of the compiled expression, each from its first use on."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self._source: Any = pattern, flags

    @property
    def pattern(self) -> Any:
        """Its source, for which nothing is compiled."""
        return self._source[0]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copies and pickles ask for before there is a source
            raise AttributeError(name)
        found = getattr(re.compile(*self._source), name)
        setattr(self, name, found)
        return found


def expression(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """`re.compile`, put off: for the constants of modules."""
    return cast("re.Pattern[AnyStr]", Expression(pattern, flags))
