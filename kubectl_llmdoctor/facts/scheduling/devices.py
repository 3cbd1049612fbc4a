"""The devices that DRA drivers publish, who has them, and whether a node's free ones satisfy claims.

After `dynamic-resource-allocation/structured` of 1.36: an exhaustive search over the node's devices. What is not known
here (a selector that is not understood) is left out; if the rest does not suffice, the answer is `UnsureError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.constraints import unmet
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling import cel
from kubectl_llmdoctor.facts.scheduling.objects import (
    Amount,
    Attribute,
    Device,
    DeviceConstraint,
    DeviceRequest,
    DeviceSelector,
    DeviceToleration,
    Objects,
    Policy,
    Quantity,
    ResourceClaim,
    ResourceSlice,
    SliceSpec,
)
from kubectl_llmdoctor.facts.units import milli

#: Steps of one search; real claims need a few dozen.
_MOST_STEPS = 5000

#: Devices that a claim can have (`AllocationResultsMaxSize`).
_MOST_DEVICES = 32

#: driver, pool, name
Id = tuple[str, str, str]


class UnsureError(Exception):
    """Whether the devices suffice cannot be said, and why."""

    def __init__(self, why: str, *, ends: bool = False) -> None:
        super().__init__(why)
        #: the scheduler gives the whole pod up with an error when it comes to this
        self.ends = ends


class Slot(msgspec.Struct, frozen=True):
    """A device that a node can reach."""

    id: Id
    device: Device
    #: the counters of its pool: `(driver, pool)`
    pool: tuple[str, str]


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A request with all that its devices must be; its alternatives in order, where it lists several."""

    #: empty for the claim that the scheduler makes for extended resources
    claim: str = ""
    name: str
    #: the device class
    kind: str
    class_selectors: tuple[DeviceSelector, ...]
    #: the request's own
    selectors: tuple[DeviceSelector, ...] = ()
    #: None means all that match
    count: int | None
    tolerations: tuple[DeviceToleration, ...] = ()
    admin: bool = False
    #: how much it takes of a device that several claims may share
    amounts: Mapping[str, Quantity] = {}


class Demand(msgspec.Struct, frozen=True):
    """All requests of one claim: each a choice of alternatives; and what their devices must have in common."""

    requests: tuple[tuple[str, tuple[Want, ...]], ...]
    constraints: tuple[DeviceConstraint, ...] = ()


class Shortage(msgspec.Struct, frozen=True):
    """Why a node's devices do not suffice for a request."""

    want: Want
    #: devices here that match, and those of them that no claim has and no taint keeps back
    matching: int
    free: int
    tainted: int
    #: by which taints
    taints: tuple[str, ...]
    #: devices here that the class alone would take
    of_class: int
    #: whether each request alone could be satisfied, but not all together
    together: bool = False
    takers: tuple[str, ...] = ()
    #: the pools here from which nothing is taken, as slices of them are missing
    partial: tuple[str, ...] = ()


class Inventory:
    """All devices, and who has which; what `loose` claims have is free."""

    def __init__(self, objects: Objects, without: Collection[str] = (), loose: Collection[ResourceClaim] = ()) -> None:
        #: which selectors fit which devices
        self.memo = objects.memo
        self._local: dict[str, list[ResourceSlice]] = {}
        self._shared: list[ResourceSlice] = []
        #: pools of which slices are missing, by node (empty: of several)
        self._partial: dict[str, list[str]] = {}
        pools: dict[tuple[str, str], list[ResourceSlice]] = {}
        for one in objects.all(ResourceSlice):
            pools.setdefault((one.spec.driver, one.spec.pool.name), []).append(one)
        self._whole: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        self._counters: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        #: devices by id, with the pods that have them
        self.taken: dict[Id, tuple[str, ...]] = {}
        #: what claims have of the devices that they share
        self.shared: dict[Id, Counter[str]] = {}
        for claim in objects.all(ResourceClaim):
            allocation, namespace = claim.status.allocation, claim.metadata.namespace or "default"
            users = tuple(f"{namespace}/{c.name}" for c in claim.status.reserved_for if c.resource == "pods")
            if allocation and claim not in loose and not (users and all(user in without for user in users)):
                for result in allocation.devices.results:
                    device = result.driver, result.pool, result.device
                    if result.admin_access:
                        continue
                    if result.share_id:
                        part = {name: milli(amount) or 0 for name, amount in result.consumed_capacity.items()}
                        self.shared.setdefault(device, Counter()).update(part)
                    else:
                        self.taken[device] = users
        for pool, slices in pools.items():
            newest = max(one.spec.pool.generation for one in slices)
            current = [one for one in slices if one.spec.pool.generation == newest]
            if current[0].spec.pool.resource_slice_count in (0, len(current)):
                self._add(pool, current)
            else:
                for one in current:
                    self._partial.setdefault(one.spec.node_name, []).append(pool[1])

    def _add(self, pool: tuple[str, str], slices: list[ResourceSlice]) -> None:
        left: Counter[tuple[str, str]] = Counter()
        for one in slices:
            for shared in one.spec.shared_counters:
                left.update({(shared.name, name): milli(c.value) or 0 for name, c in shared.counters.items()})
        self._whole[pool] = left.copy()
        for one in slices:
            for device in one.spec.devices:
                if (*pool, device.name) in self.taken or (*pool, device.name) in self.shared:
                    left.subtract(consumed(device))
            if one.spec.node_name:
                self._local.setdefault(one.spec.node_name, []).append(one)
            elif one.spec.devices:
                self._shared.append(one)
        self._counters[pool] = left

    def left(self, pool: tuple[str, str]) -> Counter[tuple[str, str]]:
        """What the devices of a pool may still consume."""
        return self._counters[pool]

    def partial(self, node: Node) -> list[str]:
        """The pools of a node that are being changed; nothing is taken from them."""
        return [*self._partial.get(node.like or node.name, ()), *self._partial.get("", ())]

    def on(self, node: Node) -> Iterator[Slot]:
        """The devices that a node can reach."""
        for one in self._local.get(node.like or node.name, ()):
            spec, pool = one.spec, (one.spec.driver, one.spec.pool.name)
            if node.like:  # a copy of a node has devices like those of the first, and nobody has them yet
                whole, pool = self._whole[pool], (spec.driver, f"{spec.pool.name} of {node.name}")
                self._counters.setdefault(pool, whole)
            for device in spec.devices:
                yield Slot((*pool, device.name), device, pool)
        for one in self._shared:
            for device in _reached(one.spec, node):
                pool = (one.spec.driver, one.spec.pool.name)
                yield Slot((*pool, device.name), device, pool)


def _reached(spec: SliceSpec, node: Node) -> Sequence[Device]:
    if not spec.per_device_node_selection:
        return spec.devices if spec.all_nodes or _selects(spec.node_selector, node) else ()
    return [
        device
        for device in spec.devices
        if device.node_name == node.name or device.all_nodes or _selects(device.node_selector, node)
    ]


def _selects(selector: k8s.NodeSelector | None, node: Node) -> bool:
    return selector is not None and not unmet(selector, node.name, node.labels)


def consumed(device: Device) -> Counter[tuple[str, str]]:
    """What a device takes of its pool's counters."""
    found: Counter[tuple[str, str]] = Counter()
    for one in (device.basic or device).consumes_counters:
        found.update({(one.counter_set, name): milli(c.value) or 0 for name, c in one.counters.items()})
    return found


def portion(device: Device, amounts: Mapping[str, Quantity]) -> dict[str, int] | None:
    """What a request takes of each capacity of a device, as its policies round it; None where they do not allow it."""
    device = device.basic or device
    if not amounts.keys() <= device.capacity.keys():
        return None
    found = {}
    for name, has in device.capacity.items():
        policy = has.request_policy if isinstance(has, Amount) else Policy()
        usual = None if policy.default is None else milli(policy.default)
        amount = size_of(has) if usual is None else usual
        if name in amounts:
            amount = _rounded(milli(amounts[name]) or 0, policy)
        if amount != usual and not _is_allowed(amount, policy):
            return None
        found[name] = amount
    return found


def _rounded(amount: int, policy: Policy) -> int:
    """The next part that can be had."""
    allowed, span = [milli(value) or 0 for value in policy.valid_values], policy.valid_range
    if span is not None and span.min is not None:
        least, step = milli(span.min) or 0, milli(span.step) or 1
        return max(least + -(-(amount - least) // step) * step, least)
    return next((value for value in allowed if value >= amount), amount)


def _is_allowed(amount: int, policy: Policy) -> bool:
    allowed, span = [milli(value) or 0 for value in policy.valid_values], policy.valid_range
    if span is not None:
        step = milli(span.step)
        fits = span.max is None or amount <= (milli(span.max) or 0)
        return fits and not (step and (amount - (milli(span.min) or 0)) % step)
    return not allowed or amount in allowed


def size_of(has: Amount | Quantity) -> int:
    """How much a device has of a capacity."""
    return milli(has.value if isinstance(has, Amount) else has) or 0


def wants(claim: str, request: DeviceRequest, classes: dict[str, tuple[DeviceSelector, ...]]) -> Iterator[Want]:
    """A request's alternatives; one, where it has no list of them."""
    for one in request.first_available or (request.exactly or request,):
        kind = one.device_class_name
        yield Want(
            claim=claim,
            name=f"{request.name}/{one.name}" if request.first_available else request.name,
            kind=kind,
            class_selectors=classes.get(kind, ()),
            selectors=one.selectors,
            count=None if one.allocation_mode == "All" else max(one.count, 0),
            tolerations=one.tolerations,
            admin=one.admin_access,
            amounts=one.capacity.requests,
        )


class Search:
    """The devices of one node against the demands of a pod."""

    def __init__(self, inventory: Inventory, node: Node, demands: Sequence[Demand]) -> None:
        self._inventory = inventory
        self._partial = inventory.partial(node)
        self._slots = list(inventory.on(node))
        self._demands = demands
        self._steps = 0
        self._doubts: dict[str, None] = {}
        self._ends = False
        self._used: set[Id] = set()
        self._shares: dict[Id, list[dict[str, int]]] = {}
        self._counted: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        self._matching: dict[tuple[str, str], list[Slot]] = {}

    def shortage(self) -> Shortage | None:
        """Why the devices do not suffice; None when they do. Raises UnsureError."""
        for demand in self._demands:
            # the scheduler counts what "all" is before it looks whether anything is lacking
            if self._partial and any(want.count is None for _, options in demand.requests for want in options):
                raise UnsureError(f"all devices are asked for, and pool {self._partial[0]} is being changed", ends=True)
            least = sum(min(want.count or 0 for want in options) for _, options in demand.requests)
            if least > _MOST_DEVICES:
                raise UnsureError(f"a claim can have {_MOST_DEVICES} devices at most, not {least}", ends=True)
        simple = [
            (d, alternatives[0]) for d in self._demands for _, alternatives in d.requests if len(alternatives) == 1
        ]
        for _, want in simple:
            found = self._alone(want)
            if found:
                return self._or_doubt(found)
        if self._claim(0):
            return None
        last = self._demands[-1].requests[-1][1][-1]
        return self._or_doubt(self._counts(simple[0][1] if simple else last, together=True))

    def _or_doubt(self, found: Shortage) -> Shortage:
        if self._doubts:
            raise UnsureError("; ".join(self._doubts), ends=self._ends)
        return found

    def _alone(self, want: Want) -> Shortage | None:
        """Whether a request lacks devices even if it were the only one."""
        free = [slot for slot in self._fitting(want) if self._is_free(slot, want)]
        enough = bool(self._fitting(want)) if want.count is None else len(free) >= want.count
        if want.count is None and len(free) < len(self._fitting(want)):
            enough = False
        return None if enough else self._counts(want)

    def _counts(self, want: Want, *, together: bool = False) -> Shortage:
        fitting = self._fitting(want)
        takers = [user for slot in fitting for user in self._inventory.taken.get(slot.id, ())]
        untaken = [slot for slot in fitting if want.admin or slot.id not in self._inventory.taken]
        free = [slot for slot in untaken if self._is_free(slot, want)]
        return Shortage(
            want=want,
            matching=len(fitting),
            free=len(free),
            tainted=sum(bool(_taints(slot.device, want)) for slot in untaken),
            taints=tuple(dict.fromkeys(t for slot in untaken for t in _taints(slot.device, want))),
            of_class=sum(self._selected(want.class_selectors, slot) for slot in self._slots),
            together=together,
            takers=tuple(dict.fromkeys(takers)),
            partial=tuple(self._partial),
        )

    def _fitting(self, want: Want) -> list[Slot]:
        """The devices here that class and request select."""
        key = want.claim, want.name
        if key not in self._matching:
            selectors = (*want.class_selectors, *want.selectors)
            self._matching[key] = [slot for slot in self._slots if self._selected(selectors, slot)]
            if self._doubts and want.count is None:
                raise UnsureError("; ".join(self._doubts), ends=self._ends)
        return self._matching[key]

    def _selected(self, selectors: Sequence[DeviceSelector], slot: Slot) -> bool:
        for selector in selectors:
            try:
                if selector.cel is None or not self._matches(selector.cel.expression, slot):
                    return False
            except cel.UnsupportedError as error:
                self._doubts[f"the selector has {error}, which is not evaluated here"] = None
                return False
            except cel.FaultError as error:
                self._doubts[f"the selector fails on device {slot.id[2]}: {error}"] = None
                self._ends = True
                return False
        return True

    def _matches(self, expression: str, slot: Slot) -> bool:
        """Evaluated once for all devices that are alike in what the expression names."""
        key = expression, slot.id[0], cel.fingerprint(expression, slot.device)
        if key not in self._inventory.memo:
            self._inventory.memo[key] = cel.matches(expression, slot.id[0], slot.device)
        found: bool = self._inventory.memo[key]
        return found

    def _is_free(self, slot: Slot, want: Want) -> bool:
        if not want.admin and (slot.id in self._inventory.taken or slot.id in self._used):
            return False
        if _taints(slot.device, want):
            return False
        return self._has_room(slot, want) and (self._is_shared(slot) or self._has_counters(slot))

    def _is_shared(self, slot: Slot) -> bool:
        """Whether others have a part of a device already; its counters are consumed then."""
        others = slot.id in self._inventory.shared or bool(self._shares.get(slot.id))
        return slot.device.allow_multiple_allocations and others

    def _has_room(self, slot: Slot, want: Want) -> bool:
        if not (want.amounts or slot.id in self._inventory.shared or slot.id in self._shares):
            return True
        asked = portion(slot.device, want.amounts)
        if asked is None:
            return False
        had = Counter(self._inventory.shared.get(slot.id, {}))
        for part in self._shares.get(slot.id, ()):
            had.update(part)
        sizes = {name: size_of(has) for name, has in (slot.device.basic or slot.device).capacity.items()}
        return all(had[name] + amount <= sizes[name] for name, amount in asked.items())

    def _has_counters(self, slot: Slot) -> bool:
        takes = consumed(slot.device)
        if not takes:
            return True
        left, counted = self._inventory.left(slot.pool), self._counted.get(slot.pool, Counter())
        return all(left[counter] - counted[counter] >= takes[counter] for counter in left.keys() | takes.keys())

    # --- the search ---------------------------------------------------------------------------------------------------

    def _claim(self, at: int) -> bool:
        if at >= len(self._demands):
            return True
        return self._request(at, 0, [])

    def _request(self, claim: int, at: int, chosen: list[tuple[str, Slot]]) -> bool:
        demand = self._demands[claim]
        if at >= len(demand.requests):
            return self._claim(claim + 1)
        name, alternatives = demand.requests[at]
        for want in alternatives:
            fitting = self._fitting(want)
            count = len(fitting) if want.count is None else want.count
            if count > _MOST_DEVICES:
                continue
            if (want.count is not None or fitting) and self._pick(claim, at, want, fitting, count, 0, chosen, name):
                return True
        return False

    def _pick(
        self,
        claim: int,
        at: int,
        want: Want,
        fitting: list[Slot],
        count: int,
        start: int,
        chosen: list[tuple[str, Slot]],
        request: str,
    ) -> bool:
        """Takes `count` more devices from `start` on, then goes on with the next request; undoes what leads nowhere."""
        if count == 0:
            return self._request(claim, at + 1, chosen)
        for position in range(start, len(fitting) - count + 1):
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise UnsureError("too many ways to combine its devices")
            slot = fitting[position]
            if not self._is_free(slot, want):
                continue
            chosen.append((f"{request}\n{want.name}", slot))
            if self._agree(self._demands[claim].constraints, chosen):
                give_back = self._take(slot, want)
                if self._pick(claim, at, want, fitting, count - 1, position + 1, chosen, request):
                    return True
                give_back()
            chosen.pop()
        return False

    def _take(self, slot: Slot, want: Want) -> Callable[[], None]:
        """Takes a device, or a part of it; what it returns undoes that."""
        takes = Counter() if self._is_shared(slot) else consumed(slot.device)
        counted = self._counted.setdefault(slot.pool, Counter())
        counted.update(takes)
        shares = self._shares.setdefault(slot.id, []) if slot.device.allow_multiple_allocations else None
        if shares is None:
            self._used.add(slot.id)
        else:
            shares.append(portion(slot.device, want.amounts) or {})

        def give_back() -> None:
            counted.subtract(takes)
            if shares is None:
                self._used.discard(slot.id)
            else:
                shares.pop()

        return give_back

    def _agree(self, constraints: tuple[DeviceConstraint, ...], chosen: list[tuple[str, Slot]]) -> bool:
        for constraint in constraints:
            name = constraint.match_attribute or constraint.distinct_attribute
            if not name:
                self._doubts["a constraint other than matchAttribute and distinctAttribute"] = None
                return False
            values = [
                (names.partition("\n")[0], _value(slot, name))
                for names, slot in chosen
                if not constraint.requests or {*names.split("\n")} & {*constraint.requests}
            ]
            if any(value is None for _, value in values):
                return False
            if constraint.match_attribute:
                if any(value != values[0][1] for _, value in values):
                    return False
            elif values and values[-1][1] in dict(values[:-1]).values():  # of each request the last one counts
                return False
        return True


def _value(slot: Slot, name: str) -> Attribute | None:
    """An attribute by its full name; one without a domain is the driver's."""
    attributes = (slot.device.basic or slot.device).attributes
    found = attributes.get(name)
    domain, _, key = name.partition("/")
    if found is None and domain == slot.id[0]:
        found = attributes.get(key)
    return found


def _taints(device: Device, want: Want) -> list[str]:
    """The taints of a device that keep it from a request."""
    return [
        f"{t.key}{f'={t.value}' if t.value else ''}:{t.effect}"
        for t in (device.basic or device).taints
        if t.effect in ("NoSchedule", "NoExecute") and not any(_tolerates(x, t) for x in want.tolerations)
    ]


def _tolerates(toleration: DeviceToleration, taint: k8s.Taint) -> bool:
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    return toleration.operator == "Exists" or (
        toleration.operator in ("", "Equal") and toleration.value == str(taint.value)
    )
