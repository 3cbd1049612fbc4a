"""DynamicResources: why the claims of a pod cannot have their devices.

A claim that has its devices ties the pod to the nodes that reach them. One that has none is given some together with
the choice of the node. A plain extended resource becomes such a claim where a DeviceClass serves it and the node's
device plugin does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.facts.constraints import unmet
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter, left_open
from kubectl_llmdoctor.facts.scheduling.devices import Demand, Inventory, Search, Shortage, UnsureError, Want, wants
from kubectl_llmdoctor.facts.scheduling.objects import DeviceClass, DeviceSelector, ResourceClaim, ResourceSlice
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason

_PLUGIN = "DynamicResources"

#: Set on the claim that the scheduler makes for extended resources.
_MADE = "resource.kubernetes.io/extended-resource-claim"

#: How many pods may share a claim.
_MOST_USERS = 256


class Named(msgspec.Struct, frozen=True):
    """A ResourceClaim that a pod names, or that was made for it."""

    #: empty while the template's claim was not made
    name: str
    found: ResourceClaim | None
    lacks: bool
    #: it comes from a template
    made: bool


def claims_of(ask: Ask) -> list[Named]:
    """The pod's ResourceClaims in their order; one that its status says it does not need is left out."""
    made = {s.name: s.resource_claim_name for s in ask.pod.status.resource_claim_statuses}
    found, namespace = [], ask.pod.namespace
    for row in ask.spec.resource_claims:
        own = str(row.get("name") or "")
        name = str(row.get("resourceClaimName") or made.get(own) or "")
        if not name and own in made:
            continue
        one = ask.objects.get(ResourceClaim, name, namespace) if name else None
        lacks = not name or ask.objects.lacks(ResourceClaim, name, namespace)
        found.append(Named(name, one, lacks, not row.get("resourceClaimName")))
    return found


def resources(ask: Ask) -> Filter | Reason | None:
    """Claims, and extended resources that a DeviceClass serves."""
    mapped = {name: amount for name, amount in ask.requests.items() if amount > 0 and name in ask.classes}
    named = claims_of(ask)
    if not named and not mapped:
        return None
    for one in named:
        fault = _fault(ask, one)
        if fault:
            return fault
    unread = [one.name for one in named if one.found is None]
    if unread:
        return left_open(_PLUGIN, f"ResourceClaim {', '.join(unread)} was not read")
    claims = [one.found for one in named if one.found]
    missing = _missing_class(ask, claims)
    if missing:
        return missing
    return _Filter(ask, claims, mapped).judge


def _refusal(text: str, detail: str) -> Reason:
    return Reason(plugin=_PLUGIN, kind="claim", text=text, detail=detail, everywhere=True)


def _fault(ask: Ask, one: Named) -> Reason | None:
    """What is wrong with a claim before any node is looked at."""
    pod, name, found = ask.pod, one.name, one.found
    if not name:
        text = f'pod "{pod.namespace}/{pod.name}": ResourceClaim not created yet'
        return _refusal(text, "its ResourceClaim was not made from the template yet")
    if one.lacks and found is None:
        text = f'resourceclaim.resource.k8s.io "{name}" not found'
        return _refusal(text, f"ResourceClaim {name} does not exist in {pod.namespace}")
    if found is None:
        return None
    if found.metadata.deletion_timestamp:
        return _refusal(f'resourceclaim "{name}" is being deleted', f"ResourceClaim {name} is being deleted")
    uid = pod.obj.metadata.uid
    if one.made and uid and not any(o.uid == uid and o.controller for o in found.metadata.owner_references):
        text = f"ResourceClaim {pod.namespace}/{name} was not created for Pod {pod.namespace}/{pod.name} (Pod is not owner)"
        return _refusal(text, f"ResourceClaim {name}, which should have been made for it, belongs to something else")
    return None


def _is_full(claim: ResourceClaim, ask: Ask) -> bool:
    """Whether a claim has as many users as it may; the scheduler sees it too late, when it binds the pod."""
    users, pod = claim.status.reserved_for, ask.pod.obj.metadata
    return len(users) >= _MOST_USERS and not any(u.uid == pod.uid for u in users)


def _is_used(claim: ResourceClaim, ask: Ask) -> bool:
    """Whether another pod has a claim's devices; else the scheduler takes them back where the pod cannot reach them (PostFilter)."""
    return any(user.uid != ask.pod.obj.metadata.uid for user in claim.status.reserved_for)


def _missing_class(ask: Ask, claims: list[ResourceClaim]) -> Reason | None:
    for claim in claims:
        if claim.status.allocation:
            continue
        for request in claim.spec.devices.requests:
            for want in wants(claim.metadata.name, request, {}):
                if want.kind and ask.objects.lacks(DeviceClass, want.kind):
                    text = f"request {want.name}: device class {want.kind} does not exist"
                    detail = f"claim {want.claim} asks for device class {want.kind}, which does not exist"
                    return _refusal(text, detail)
    return None


class _Filter:
    """What the plugin says of each node."""

    def __init__(self, ask: Ask, claims: list[ResourceClaim], mapped: dict[str, int]) -> None:
        self._ask, self._mapped = ask, mapped
        objects = ask.objects
        loose = [c for c in claims if c.status.allocation and not _is_used(c, ask)]
        self._allocated = [c for c in claims if c.status.allocation and c not in loose]
        self._classes = {c.metadata.name: c.spec.selectors for c in objects.all(DeviceClass)}
        self._demands = [self._demand(c) for c in claims if c not in self._allocated and c.spec.devices.requests]
        self._full = [c.metadata.name for c in claims if _is_full(c, ask)]
        self._unread = ""
        kinds = {want.kind for demand in self._demands for _, options in demand.requests for want in options}
        unread = sorted(kind for kind in kinds if kind not in self._classes)
        lists = [kind.__name__ for kind in (ResourceSlice, ResourceClaim) if not objects.complete(kind)]
        if unread:
            self._unread = f"device class {', '.join(unread)} was not read"
        elif lists and (self._demands or mapped):
            self._unread = f"not all of {', '.join(lists)} were read"
        self._inventory = Inventory(objects, ask.without, loose)
        self._stale = any(_is_stale(c, ask) for c in objects.all(ResourceClaim)) if mapped else False

    def _demand(self, claim: ResourceClaim) -> Demand:
        name, devices = claim.metadata.name, claim.spec.devices
        requests = tuple((r.name, tuple(wants(name, r, self._classes))) for r in devices.requests)
        return Demand(requests, devices.constraints)

    def judge(self, node: Node) -> Iterator[Reason | Gap]:
        if self._stale:
            detail = "its claim for extended resources is of a former attempt and is being taken back"
            yield Reason(plugin=_PLUGIN, kind="claim", text="cannot schedule extended resource claim", detail=detail)
            return
        demands = [*self._demands, *self._served(node)]
        if demands and self._unread:
            yield Gap(plugin=_PLUGIN, why=self._unread)
        elif demands:
            try:
                lack = Search(self._inventory, node, demands).shortage()
                apart = self._apart(node, demands) if lack and lack.together else ()
            except UnsureError as doubt:
                yield Gap(plugin=_PLUGIN, why=str(doubt), ends=doubt.ends)
            else:
                if lack:
                    yield self._reason(lack, apart)
        if self._full:
            why = f"ResourceClaim {', '.join(self._full)} has {_MOST_USERS} users, and may have no more"
            yield Gap(plugin=_PLUGIN, why=why)
        for claim in self._allocated:
            allocation = claim.status.allocation
            selector = allocation.node_selector if allocation else None
            missed = unmet(selector, node.name, node.labels) if selector else ()
            if missed:
                name = claim.metadata.name
                yield Reason(
                    plugin=_PLUGIN,
                    kind="claim",
                    text="resourceclaim not available on the node",
                    detail=f"the devices of claim {name} are where {'; '.join(m.demand for m in missed)}",
                    mismatches=missed,
                )

    def _served(self, node: Node) -> Iterator[Demand]:
        """The claim that the scheduler would make for extended resources on a node."""
        rows = []
        for name, amount in self._mapped.items():
            if self._ask.delegated(node, name):
                one = self._ask.classes[name]
                chosen: tuple[DeviceSelector, ...] = one.spec.selectors
                want = Want(name=name, kind=one.metadata.name, class_selectors=chosen, count=amount)
                rows.append((name, (want,)))
        if rows:
            yield Demand(tuple(rows))

    def _apart(self, node: Node, demands: list[Demand]) -> tuple[str, ...]:
        """What the claims demand of their devices together, where these would suffice without that."""
        names = (c.match_attribute or c.distinct_attribute for demand in demands for c in demand.constraints)
        found = tuple(dict.fromkeys(filter(None, names)))
        free = [Demand(demand.requests) for demand in demands]
        return found if found and not Search(self._inventory, node, free).shortage() else ()

    @staticmethod
    def _reason(lack: Shortage, constraints: tuple[str, ...]) -> Reason:
        want = lack.want
        said = f"claim {want.claim}, request {want.name}" if want.claim else want.name
        asked = "all" if want.count is None else str(want.count)
        if not lack.of_class and lack.partial:
            detail = f"{said}: slices of pool {', '.join(lack.partial)} are missing, so nothing is taken from it"
        elif not lack.of_class:
            detail = f"{said}: no device of class {want.kind} here"
        elif not lack.matching:
            detail = f"{said}: none of the {lack.of_class} of class {want.kind} here is what it selects"
        elif constraints:
            detail = f"{said}: {asked} asked, {lack.free} of {lack.matching} free, but not with such {', '.join(constraints)}"
        elif lack.together:
            detail = f"{said}: {asked} asked, {lack.free} of {lack.matching} free, but not all its requests at once"
        else:
            detail = f"{said}: {asked} of class {want.kind} asked, {lack.free} of {lack.matching} free"
            detail += f", {lack.tainted} tainted" if lack.tainted else ""
        return Reason(
            plugin=_PLUGIN,
            kind="claim",
            text="cannot allocate all claims",
            detail=detail,
            resource="" if want.claim else want.name,
            asked=want.count or 0,
            free=lack.free,
            allocatable=lack.matching,
            tainted=lack.tainted,
            device_taints=lack.taints,
            partial_pools=() if lack.of_class else lack.partial,
            constraints=constraints,
            pods=lack.takers,
        )


def _is_stale(claim: ResourceClaim, ask: Ask) -> bool:
    """Whether it is the claim for this pod's extended resources that an attempt before left behind."""
    meta, pod = claim.metadata, ask.pod
    if str(meta.annotations.get(_MADE)) != "true" or not claim.spec.devices.requests:
        return False
    return any(o.name == pod.name and o.controller and o.uid == pod.obj.metadata.uid for o in meta.owner_references)
