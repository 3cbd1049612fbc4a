"""What the layers of a model are made of: the fields of a config.json, and one layer by what it keeps and weighs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Kind = Literal["full", "window", "chunked", "latent", "state"]
#: What a layer keeps: kind, heads, values, window, state, extra, as `architecture.Cache` has them.
Stored = tuple[Kind, int, int, int, int, int]


class GapError(Exception):
    """An input that the configuration does not have, by its name there."""


class Config:
    """A configuration with checked access: a number that is missing or absurd is a gap, not a zero."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    def get(self, *names: str) -> Any:
        """What stands under the first of these names that is there; None where none is."""
        return next((self.raw[name] for name in names if self.raw.get(name) is not None), None)

    def number(self, *names: str) -> int:
        """The number under the first of these names that is there. Raises GapError where it is none."""
        value = self.optional(*names)
        if value is None:
            raise GapError(names[0])
        return value

    def optional(self, *names: str) -> int | None:
        """The number under the first of these names that is there; None where it is none, or differs between layers."""
        value = self.get(*names)
        if isinstance(value, list) and value and value.count(value[0]) == len(value):
            value = value[0]  # one for each layer, all alike
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            return None
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """What is true or false under a name, else the default."""
        value = self.raw.get(name)
        return value if isinstance(value, bool) else default


class Family(msgspec.Struct, frozen=True):
    """What the fields of a class mean: matrices of one MLP, biases, whether embeddings are tied by default, and the
    attention of its layers: `plain`, `mla`, or a pattern that the class has of its own.
    """

    mlp: int = 3
    qkv_bias: bool = False
    tied: bool = False
    attention: str = "plain"
    encoder_only: bool = False


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One decoder layer: what its attention keeps, its parameters, and whether its MLP is `dense`, `moe` or none."""

    cache: Stored | None
    attention: int = 0
    kv: int = 0
    replicated: int = 0
    plain: int = 0
    mlp: str = "dense"


def divided(total: int, parts: int) -> int:
    """An exact quotient. Raises GapError where there is none."""
    if not parts or total % parts:
        raise GapError("head_dim")
    return total // parts


def multiple(value: int, of: int) -> int:
    """The least multiple of `of` that is not below a value."""
    return -(-value // of) * of
