"""What stands in the place of a fact: that it is not known, does not apply, or has not been made yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class Unknown(msgspec.Struct, frozen=True):
    """A fact that is not known, and why; checks that need it are reported as not checked."""

    reason: str


class NotApplicable:
    """A fact that does not apply to this target; checks that need it have nothing to say."""


NOT_APPLICABLE = NotApplicable()


class Later(msgspec.Struct, frozen=True):
    """A fact that is dear: it is made when a check asks for it."""

    make: Callable[[], Any]
