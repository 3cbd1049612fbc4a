"""Pools of machines that Karpenter passes over, since they are not ready.

Sources: kubernetes-sigs/karpenter pkg/controllers/nodepool/readiness and pkg/apis/v1 (conditions ValidationSucceeded, NodeClassReady,
Ready); the node classes of the providers for AWS, Azure and Google have conditions of their own, of which Ready is the sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import msgspec

from kubectl_llmdoctor.api import Finding, Item, Pending, dig, fixes, object_evidence, parse_time, rows, words
from llmdoctor_checks.scheduling._karpenter import ACCELERATED, FAMILIES
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._words import EXPLAINS, said_by, sentence

#: What a further node would mend, and what nodes of a kind that is not there now lack.
_LACKS = ("gpu", "gpu-size", "absent", "selector", "cpu-memory", "pods", "ephemeral")

#: EC2's and Azure's names of machines with accelerators.
_TYPES = r"(?:p\d|gr?\d|inf\d|trn\d|dl\d)[a-z]{0,3}(?:-[a-z0-9]+)?\.\w+|Standard_N[CDV]\d+\w*"

#: Labels that any node has, whatever a pool says of them.
_OF_ANY = r"kubernetes\.io/(?:os|arch|hostname)|topology\.kubernetes\.io/|karpenter\.sh/capacity-type"

#: How long a controller may take to look at an object: until then its conditions are Unknown.
_LOOKED_AT = timedelta(minutes=10)


class _Fault(msgspec.Struct, frozen=True):
    """The object that is not ready, and its condition that says why."""

    item: Item
    type: str
    text: str
    message: str
    answered: bool


def unready(pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """Every pool that would make nodes for the pod is not ready, by its own conditions and those of its node class."""
    if not found or found[0].obstacle not in _LACKS:
        return
    meant = [pool for pool in pending.pod.cluster.items("NodePool") if _of_karpenter(pool) and _takes(pool, pending)]
    faults = [_faults(pool, pending) for pool in meant]
    if not faults or not all(faults):
        return
    pool, reasons = meant[0], faults[0]
    deepest = reasons[-1]
    kind = deepest.item.kind.partition(".")[0]
    by = "" if deepest.item is pool else f", because {kind} {deepest.item.name} is not"
    way = f"Correct {kind}/{deepest.item.name} as its condition {deepest.type} says (image, subnets, security groups, role)"
    if not deepest.answered:
        way = f"See in the log of Karpenter what keeps it from an answer on {deepest.type} of {kind}/{deepest.item.name} (its rights)"
    yield Finding(
        role="cause",
        confidence="likely",
        summary=f"Karpenter passes over NodePool {pool.name}, which is not ready{by}: {sentence(deepest.message or deepest.text)}",
        evidence=(
            *(object_evidence(fault.item, f"status.conditions[{fault.type}]", fault.text) for fault in reasons),
            *said_by(pending),
        ),
        explains=(*EXPLAINS, *(cause.id for cause in found)),
        fixes=(fixes.advice(way, f"kubectl describe {kind.lower()} {deepest.item.name}", owner="platform"),),
        order=float(len(found)),
    )


def _of_karpenter(pool: Item) -> bool:
    return pool.api_version.startswith("karpenter.sh/") and "deletionTimestamp" not in pool.metadata


def _takes(pool: Item, pending: Pending) -> bool:
    """Whether nodes of the pool are meant for the pod: by its nodeSelector, else by machines with accelerators, or its name."""
    labels = dig(pool.raw, "spec.template.metadata.labels")
    own = {str(key): {str(value)} for key, value in labels.items()} if isinstance(labels, dict) else {}
    own["karpenter.sh/nodepool"] = {pool.name}
    for row in rows(pool.raw, "spec.template.spec.requirements"):
        if row.get("operator") == "In":
            own[str(row.get("key"))] = set(words(row, "values"))
    asked = {k: str(v) for k, v in pending.pod.spec.node_selector.items() if not re.match(_OF_ANY, k)}
    if any(value not in own.get(key, ()) for key, value in asked.items()):
        return False
    families = [one for key in FAMILIES for one in own.get(key, ())]
    types = own.get("node.kubernetes.io/instance-type", set())
    accelerated = bool(families or types) and all(
        [re.fullmatch(ACCELERATED, one) for one in families] + [re.match(_TYPES, one) for one in types]
    )
    return accelerated or "gpu" in pool.name.lower() if pending.accelerators else bool(asked)


def _faults(pool: Item, pending: Pending) -> list[_Fault]:
    """Why a pool is not ready, its node class's reason last; empty where it is, or has not been looked at."""
    found = [*_said(pool, pending)]
    ref = dig(pool.raw, "spec.template.spec.nodeClassRef")
    if found and isinstance(ref, dict):
        made_of = pending.pod.cluster.item(str(ref.get("kind")), "", str(ref.get("name")))
        found += _said(made_of, pending) if made_of else ()
    return found


def _said(item: Item, pending: Pending) -> Iterator[_Fault]:
    """The conditions of an object that is not ready, the sum of them only where no other says more."""
    unmet = [row for row in rows(item.raw, "status.conditions") if _unmet(row, pending)]
    if not any(row.get("type") == "Ready" for row in unmet):
        return
    parts = [row for row in unmet if row.get("type") != "Ready"] or unmet
    for row in parts[:2]:
        message = str(row.get("message") or "")
        yield _Fault(
            item,
            str(row.get("type")),
            f"{row.get('reason')}: {message}".rstrip(": "),
            message,
            row.get("status") == "False",
        )


def _unmet(row: dict[str, object], pending: Pending) -> bool:
    """Whether a condition is not met, or has been left without an answer for longer than a look at the object takes."""
    since, now = parse_time(row.get("lastTransitionTime")), pending.pod.cluster.now
    left = since is not None and now is not None and now - since > _LOOKED_AT
    return row.get("status") == "False" or (row.get("status") == "Unknown" and left)
