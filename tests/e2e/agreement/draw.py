"""Chance with a few words of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Draws from one source, so that a seed gives the same cluster again."""

    def __init__(self, source: random.Random) -> None:
        self.random = source
        #: whether what is drawn is to be undemanding
        self.calm = False

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self.random.random() < share

    def one(self, choices: Sequence[T]) -> T:
        """One of them."""
        return self.random.choice(choices)

    def some(self, choices: Sequence[T], least: int, most: int) -> list[T]:
        """A few of them, each once, in their order."""
        count = min(self.random.randint(least, most), len(choices))
        picked = set(self.random.sample(range(len(choices)), count))
        return [choice for at, choice in enumerate(choices) if at in picked]

    def between(self, least: int, most: int) -> int:
        """A number, both ends included."""
        return self.random.randint(least, most)

    def labels(self) -> dict[str, str]:
        """Labels of a pod."""
        found = {"app": self.one(["llama", "mistral", "gateway"])}
        if self.chance(0.6):
            found["version"] = self.one(["v1", "v2"])
        if self.chance(0.3):
            found["tier"] = self.one(["front", "back"])
        return {} if self.chance(0.05) else found
