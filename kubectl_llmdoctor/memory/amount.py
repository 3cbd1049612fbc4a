"""Bytes of one GPU as a range."""

from __future__ import annotations

import msgspec

GIB = 1 << 30


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on one GPU between `low` and `high`, and where they come from, in words."""

    low: int
    high: int
    source: str

    @property
    def exact(self) -> bool:
        """Whether nothing about it is a range."""
        return self.low == self.high


def exactly(value: float, source: str) -> Amount:
    """An amount without a range."""
    return Amount(low=int(value), high=int(value), source=source)
