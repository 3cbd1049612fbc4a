"""Version numbers of engines and image tags: parsing, comparing, and what a tag says about the engine inside."""

from __future__ import annotations

import functools
import re
from re import Pattern

from kubectl_llmdoctor.expressions import expression

Key = tuple[tuple[int, ...], int, int]

_PHASE = {"dev": -4, "a": -3, "alpha": -3, "b": -2, "beta": -2, "rc": -1, "": 0, "post": 1}


_VERSION = expression(
    r"v?(\d{1,6}(?:\.\d{1,9}){0,3})(?:[.-]?(dev|alpha|a|beta|b|rc|post)\.?(\d{0,6}))?(?:\.(?:post|dev)\d{1,6})?",
    re.ASCII,
)


_TAG_VERSION = expression(
    r"v?(\d{1,4}(?:\.\d{1,4}){1,3}(?:(?:[.]?(?:a|b)|[.-]?(?:rc|post|dev))\d{1,4}){0,2})(?=$|[-_+])", re.ASCII
)


@functools.cache
def parse(text: str) -> Key | None:
    """A comparable key for `0.9.1`, `v0.11.0rc2`, `0.6.6.post1`, `b10434`; None for what is no version."""
    text = text.strip().lower()
    if len(text) > 1 and text[0] == "b" and text[1:].isdecimal() and len(text) < 10:  # llama.cpp's builds
        text = text[1:]
    match = _VERSION.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if rest and rest[0] not in "+-_":  # `0.9.1+cu128` is 0.9.1, `0.9.x` is nothing
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers), _PHASE[match[2] or ""], int(match[3] or 0)


def at_least(version: str | None, other: str) -> bool | None:
    """Whether `version` is `other` or newer; None where either is unknown."""
    mine = parse(version) if version else None
    theirs = parse(other)
    return None if mine is None or theirs is None else mine >= theirs


def split_image(image: str) -> tuple[str, str, str]:
    """Repository, tag and digest of an image reference; what is missing is empty."""
    rest, _, digest = image.strip().partition("@")
    head, _, last = rest.rpartition("/")
    name, _, tag = last.partition(":")
    return (f"{head}/{name}" if head else name), tag, digest


def of_tag(tag: str) -> str | None:
    """The version that a tag begins with: `v0.11.0-cu128` says 0.11.0, `latest` and `2025-05-05-v1` say nothing."""
    match = _TAG_VERSION.match(tag)
    return match[1] if match else None


@functools.cache
def _marked(name: str) -> Pattern[str]:
    import re

    return re.compile(rf"(?:^|[^a-z0-9]|\d){name}[-_]?v?(\d\.\d{{1,3}}[\w.]*)", re.ASCII)


def after(text: str, name: str) -> str | None:
    """The version behind a name inside a tag or a repository: `rocm6.2_py3.9_vllm_0.6.4` says 0.6.4 for `vllm`."""
    match = _marked(name).search(text.lower())
    return of_tag(match[1].replace("_", "-")) if match else None
