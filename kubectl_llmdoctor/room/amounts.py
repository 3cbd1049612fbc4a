"""Amounts as messages write them, and as limits are written."""

from __future__ import annotations

import math

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.units import GIB

_AMOUNT = expression(r"(?P<number>[\d.]{1,20}) ?(?P<unit>[KMGT]?)(?:i?B|bytes)?")

#: What sizes of hosts and limits are usual, in GiB.
_USUAL = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


def amount(text: str | None) -> float | None:
    """`41.2 GiB`, `448.00M` or `17179869184` in bytes."""
    found = _AMOUNT.fullmatch((text or "").strip())
    if found is None or found["number"].count(".") > 1 or not found["number"].strip("."):
        return None
    number, unit = float(found["number"]), found["unit"]
    if not unit and "." in found["number"]:
        unit = "G"  # of a message that says it once; no program counts parts of bytes
    return number * float(1024 ** " KMGT".index(unit or " "))


def quantity(size: float) -> str:
    """The next usual size of a memory limit."""
    gib = math.ceil(size / GIB)
    return f"{next((usual for usual in _USUAL if usual >= gib), gib)}Gi"
