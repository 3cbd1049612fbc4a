"""The scheduler's words, parsed: messages of any vintage since 1.16, and of schedulers that speak alike."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import re

Kind = Literal[
    "unschedulable",
    "node-name",
    "taint",
    "affinity",
    "ports",
    "resource",
    "volume",
    "spread",
    "anti-affinity",
    "pod-affinity",
    "claim",
    "features",
    "shares",
    "gang",
    "group-limit",
    "unregistered",
    "other",
]

#: The filters in the scheduler's order, by kind. A node that fails at one of them has passed all before it.
STAGES: tuple[Kind, ...] = (
    "unschedulable", "node-name", "taint", "affinity", "ports", "resource", "volume", "spread", "pod-affinity",
    "anti-affinity", "claim", "features",
)  # fmt: skip


#: What is not evaluated here: gangs, limits of provisioners, and words of other schedulers.
NEVER_JUDGED: tuple[Kind, ...] = ("gang", "group-limit", "other")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the scheduler's histogram: so many nodes gave this reason."""

    number: int
    text: str
    kind: Kind
    #: the resource of an `Insufficient …`
    resource: str = ""
    #: `{key: value}` of a taint, where that version still names it
    taint: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler's message, parsed."""

    #: the number of nodes it looked at; None where the message does not say
    total: int | None = None
    counts: tuple[Count, ...] = ()
    #: texts of a PreFilter that rejected the pod before any node was looked at
    refused: tuple[Count, ...] = ()
    #: nodes on which evicting pods cannot help (they can never hold it as things are)
    helpless: int | None = None
    #: the text was cut where the event's note ends
    cut: bool = False
    #: a gang that found room for so many of so many pods
    gang: tuple[int, int] | None = None

    @property
    def all(self) -> tuple[Count, ...]:
        """The texts of PreFilters, then the histogram."""
        return (*self.refused, *self.counts)

    def of(self, *kinds: Kind) -> tuple[Count, ...]:
        """The items of some kinds."""
        return tuple(c for c in self.all if c.kind in kinds)

    def number(self, *kinds: Kind) -> int:
        """How many nodes gave a reason of these kinds."""
        return sum(c.number for c in self.counts if c.kind in kinds)


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    import re

    return re.compile(pattern, re.DOTALL)


_HEAD = r"(?:^|[\s:])(\d{1,9})/(\d{1,9}) (?:nodes|placements) are (?:un)?available[:,]?"
#: What PostFilter plugins append; everything after it repeats what was said before.
_TAIL = (
    r"[.,]{0,4}\s{0,4}(?:no new claims to deallocate|still not schedulable|deallocation of ResourceClaim completed"
    r"|deletion of ResourceClaim completed|plugin disabled|preemption: |No preemption victims found)"
)
#: Volcano's account of a group, of which others could be placed; what follows is why one of its members could not.
_ORIGIN = (
    r"^(\d{1,9}/\d{1,9} tasks in gang unschedulable: .*?\b[1-9]\d{0,8} Schedulable)\b[^.]{0,200}\. Origin reason is "
)
_ITEM = r"(\d{1,9}) (\S.*)"
#: KAI's; some of its releases begin it with a capital.
_KAI = r"[Nn]o nodes with enough resources were found[: ]*"


def parse(text: str) -> Said:
    """A scheduler's message of any vintage; what is not understood is kept as kind `other`."""
    body = text.strip()
    cut = body.endswith("...")
    body = body.removesuffix("...").rstrip(" ,") if cut else body
    group = _regex(_ORIGIN).search(body)
    total = None
    head = _regex(_HEAD).search(body)
    if head:
        total = int(head.group(2))
        body = body[head.end() :]
    elif body.startswith("all nodes are unavailable:"):  # Volcano
        body = body.partition(":")[2].lstrip()
    elif kai := _regex(_KAI).search(body):
        body = body[kai.end() :]
    tail = _regex(_TAIL).search(body)
    after = ""
    if tail:
        body, after = body[: tail.start()], body[tail.start() :]
    # ". not found" after a PreFilter's text comes from the DRA PostFilter, which found no state of its own
    body = _regex(r"\. not found\.?\s*$").sub("", body.strip()).rstrip(". \n")
    refused = list(_count(0, group.group(1))) if group else []
    counts: list[Count] = []
    for part in _regex(r"(?:, |\. ?\s)(?=\d+ \S)").split(body) if body else ():
        item = _regex(_ITEM).fullmatch(part.strip().rstrip(".")) if part else None
        if item:
            counts.extend(_count(int(item.group(1)), item.group(2)))
        elif part.strip():
            refused.extend(_count(total or 0, part.strip()))
    gang = _regex(
        r"found for (\d{1,9}) pods? while (\d{1,9}) are required|(\d{1,9}) Pending, (\d{1,9}) minAvailable"
    ).search(text)
    return Said(
        total=total,
        counts=tuple(counts),
        refused=tuple(refused),
        helpless=_number(r"(\d{1,9}) Preemption is not helpful", after),
        cut=cut,
        gang=(int(gang.group(1)), int(gang.group(2))) if gang and gang.group(1) else None,
    )


def _number(pattern: str, text: str) -> int | None:
    found = _regex(pattern).search(text)
    return int(found.group(1)) if found else None


#: Reason texts by what they contain, the first that fits; all vintages since 1.16.
_TEXTS: tuple[tuple[str, Kind], ...] = (
    ("node(s) were unschedulable", "unschedulable"),
    ("unknown conditions", "unschedulable"),
    ("node(s) were not ready", "unschedulable"),
    ("node(s) were out of disk space", "unschedulable"),
    ("didn't match the requested node name", "node-name"),
    ("didn't match the requested hostname", "node-name"),
    ("volume node affinity conflict", "volume"),
    ("PersistentVolume", "volume"),
    ("persistentvolume", "volume"),
    ("persistent volumes to bind", "volume"),
    ("enough free storage", "volume"),
    ("pvc(s) bound to non-existent", "volume"),
    ("available volume zone", "volume"),
    ("no available disk", "volume"),
    ("max volume count", "volume"),
    ("ephemeral volume controller", "volume"),
    ("CSI driver is not installed", "volume"),
    ("storageclass", "volume"),
    ("binding volumes: ", "volume"),
    ("pod topology spread constraints", "spread"),
    ("pod anti-affinity rules", "anti-affinity"),
    ("existing pods anti-affinity", "anti-affinity"),
    ("pod affinity/anti-affinity", "anti-affinity"),
    ("pod affinity rules", "pod-affinity"),
    ("pod affinity terms conflict", "affinity"),
    ("node affinity", "affinity"),
    ("node selector", "affinity"),
    ("plugin(s) [NodeAffinity]", "affinity"),
    ("plugin NodeAffinity", "affinity"),
    (
        "label [accelerator-type] Failed",
        "affinity",
    ),  # Volcano's plug-in for Ascend: the pod's kind of module is not the node's
    ("untolerated taint", "taint"),
    ("had taint", "taint"),
    ("didn't tolerate", "taint"),
    ("free ports", "ports"),
    ("Too many pods", "resource"),
    ("resourceclaim", "claim"),
    ("resource claim", "claim"),
    ("allocate all claims", "claim"),
    ("waiting for resource driver", "claim"),  # classic DRA, up to 1.31: the driver's controller allocates
    ("resource class", "claim"),
    ("device class", "claim"),
    ("cannot fit resource", "claim"),
    ("Pod's required features", "features"),
    ("sibling pods", "gang"),
    ("minCount pods from a gang", "gang"),
    ("pod group", "gang"),
    ("gang", "gang"),
    ("pgName", "gang"),
    ("at plugin Coscheduling", "gang"),
    ("node group size reached", "group-limit"),
    ("max limit reached", "group-limit"),
    ("limit reached", "group-limit"),
    ("backoff after failed scale-up", "group-limit"),
    ("not ready for scale-up", "group-limit"),
    ("node unregistered", "unregistered"),  # HAMi: no device plugin told it of devices there
    ("CardNotHealth", "unregistered"),  # HAMi: its device plugin says that they are not healthy
    ("node not initialized with device", "unregistered"),  # Volcano's deviceshare: the same
)


#: What HAMi says of a node that does not do, up to 2.5 and since (pkg/scheduler/score.go): it knows devices of that one.
_UNFIT = ("node not fit pod", "NodeUnfitPod")
#: What such schedulers give.
_SHARE = "a share of a GPU"


def is_unfit(text: str) -> bool:
    """Whether a scheduler that shares GPUs says of a node only that it does not do."""
    return any(words in text for words in _UNFIT)


def as_share(count: Count) -> Count:
    """Such words as a shortage of what it gives."""
    return msgspec.structs.replace(count, kind="resource", resource=_SHARE)


def _count(number: int, text: str) -> Iterator[Count]:
    short = _regex(r"Insufficient (\S+)").fullmatch(text)
    if short:
        yield Count(number=number, text=text, kind="resource", resource=short.group(1))
        return
    kai = _regex(r"node\(s\) didn't have enough (?:resources|of mig profile): (.+)").fullmatch(text)
    if kai:
        names = {"CPU cores": "cpu", "GPUs": "nvidia.com/gpu", "GPU memory": "nvidia.com/gpu"}
        for name in kai.group(1).split(", "):
            yield Count(number=number, text=text, kind="resource", resource=names.get(name, name))
        return
    if _regex(
        r"Card\w{0,60}(?:Insufficient|Mismatch|Exhausted|CustomFilterRule|Cordoned|Infeasible)\w*|NodeInsufficientDevice|(?:Numa|Mode)NotFit"
        r"|ResourceQuotaNotFit|ExclusiveDeviceAllocateConflict|not? enough gpu (?:cards on|fitted on this) node"
    ).search(text):  # HAMi, and Volcano (api/devices/nvidia/vgpu)
        yield Count(number=number, text=text, kind="resource", resource=_SHARE)
        return
    if "resource fit failed" in text:  # Volcano, which does not say which resource
        yield Count(number=number, text=text, kind="resource")
        return
    kind: Kind = next((kind for piece, kind in _TEXTS if piece in text), "other")
    resource = "pods" if text == "Too many pods" else ""
    taint = _regex(r"\{([^{}]*)\}").search(text) if kind == "taint" else None
    yield Count(number=number, text=text, kind=kind, resource=resource, taint=taint.group(1).strip() if taint else "")


#: Who reports FailedScheduling without being a scheduler: they speak of nodes that they could add.
_PROVISIONERS = ("karpenter", "autoscaler", "eks-auto-mode", "node-autoprovision")


def is_provisioner(reporter: str) -> bool:
    """Whether an event's reporter adds nodes rather than choosing one."""
    return any(name in reporter for name in _PROVISIONERS)
