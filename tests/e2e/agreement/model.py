"""What a generator of clusters gives: objects as a person would create them, and the pods to be judged on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass
class Part:
    """An object, and what happens to it after it was created."""

    object: Object
    #: merged into its status
    status: Object | None = None
    #: it is then deleted with this grace period; finalizers or a node keep it in place
    deleted: int | None = None


@dataclass
class Case:
    """A pod to be judged."""

    pod: Object
    #: what of the generator has a part in it
    features: tuple[str, ...] = ()
    #: what controllers make for it before the scheduler can place it: claims of its templates
    made: list[Part] = field(default_factory=list)
    #: its `status.resourceClaimStatuses`, which a controller writes
    claim_statuses: list[Object] = field(default_factory=list)


@dataclass
class World:
    """One cluster and its pods; the parts in the order in which they can be created."""

    seed: str
    parts: list[Part] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    #: a pod that is to take its place from others before any is judged, and then waits for it
    preemptor: Object | None = None
