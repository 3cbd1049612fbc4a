"""The GPU of a container, with what says so; facts.gpu finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from kubectl_llmdoctor.facts.logs import Line

if TYPE_CHECKING:
    from kubectl_llmdoctor.catalog.gpus import Gpu

Source = Literal["label", "agent", "log", "selector", "nodes"]


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU that each device of a container is, and what says so.

    `text` is quotable and `ref` its place. `shared` is by how many containers a device may be used at once (time
    slicing, MPS); `memory` is then still the whole device's.
    """

    gpu: Gpu
    source: Source
    ref: str
    text: str
    shared: int = 1
    sharing: str = ""
    line: Line | None = None


def shares_of(labels: Mapping[str, str]) -> int:
    """By how many containers each GPU of a node may be used at once (time slicing, MPS), by its labels; 1 where none says so."""
    named = ("nvidia.com/gpu.replicas", "cloud.google.com/gke-max-shared-clients-per-gpu")
    counts = [labels.get(name, "") for name in named]
    return max(1, *(int(text) for text in counts if text.isdecimal() and len(text) < 8), 1)
