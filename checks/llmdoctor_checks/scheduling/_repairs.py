"""What would let the pod onto the nodes that are meant for it; each change is tried on the snapshot before it is offered.

A change may touch the pod (a JSON patch of its spec), what runs on a node, or a node. What stands between the pod and a
node may be several things: then the changes for all of them are offered as one.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator

import msgspec

from kubectl_llmdoctor.api import (
    HOSTNAME,
    Container,
    Fix,
    Holder,
    Item,
    Mismatch,
    Node,
    NodeVerdict,
    Patch,
    Pending,
    Pod,
    Reason,
    Workload,
    count_of,
    dig,
    escaped,
    fixes,
    is_accelerator,
    k8s,
    names_of,
    node_hardware,
    parse_time,
    requests_of,
    rows,
    say_amount,
    say_pairs,
    say_selector,
    selected,
    sentence,
    show_taint,
    table,
    top_of,
)
from llmdoctor_checks.scheduling._daemons import toleration
from llmdoctor_checks.scheduling._demands import REQUIRED, Json, demands_met, labels_wanted, states
from llmdoctor_checks.scheduling._obstacles import PRIORITY, Cause, Obstacle, obstacle_of, vendor
from llmdoctor_checks.scheduling._words import asking, shared_by, told_of

#: Nodes that a change is tried for, ways out that are offered, and pods that one of them stops.
_MOST_NODES, _MOST_WAYS, _MOST_PODS = 6, 3, 4

#: The name of a node that is not there yet.
_NEW = "new-node"
_CORDON = "node.kubernetes.io/unschedulable"
#: How long what readies a new node may take: drivers, images, caches.
_READIED_SECONDS = 3600
#: What a program needs so much of whatever it asks for.
_SIZED = ("cpu", "memory", "ephemeral-storage")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change; `text` says what to do, as a clause that `; then it fits on …` may follow."""

    text: str
    #: a JSON patch inside the pod spec
    operations: tuple[Json, ...] = ()
    #: pods that would be gone
    gone: tuple[str, ...] = ()
    #: nodes that would be otherwise
    nodes: tuple[Node, ...] = ()
    commands: tuple[str, ...] = ()
    #: whether something of it can be done by its owner only, so that the commands only show it
    by_hand: bool = False
    owner: fixes.Owner = "model"
    #: the fix itself, where it is no patch of the pod
    fix: Fix | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a pod off one node, all of one kind."""

    pending: Pending
    verdict: NodeVerdict
    reasons: tuple[Reason, ...]

    @property
    def node(self) -> Node:
        return self.verdict.node


Repair = Callable[[Stop], Iterator[Change]]


def ways(pending: Pending, found: Cause, repair: Repair | None = None) -> list[Fix]:
    """The fixes after which the pod fits, the first the one to take; empty where none is known.

    `repair` is what a check knows to do about its cause, else the usual is done about it. What else stands in the way on
    the same node is mended along with it.
    """
    usual = repair or _REPAIRS.get(found.obstacle, _none)
    offered = [*_of_sidecar(pending, found), *_of_kueue(pending, found)]
    for place in range(_MOST_WAYS):
        for verdict in _nearest(found):
            change = _on(pending, verdict, found.obstacle, usual, place)
            fix = tried(pending, change) if change else None
            if fix:
                offered.append(fix)
                break
    return list({fix.summary: fix for fix in offered}.values())


#: What is put into a pod when it is made, and the annotation of the pod that says what it asks for (GKE's webhook of Cloud Storage FUSE).
_PUT_IN = {"gke-gcsfuse-sidecar": ("gke-gcsfuse/{}-request", "gke-gcsfuse/{}-limit")}


def _of_sidecar(pending: Pending, found: Cause) -> Iterator[Fix]:
    """Less of one resource for a container that a webhook has put in: no template has it, and an annotation says what it gets."""
    resources = {reason.resource for reason in found.reasons}
    if len(resources) != 1 or not resources <= {"cpu", "memory", "ephemeral-storage"}:
        return
    resource = resources.pop()
    over = pending.requests.get(resource, 0) - max(reason.free or 0 for reason in found.reasons)
    for container in asking(pending, resource)[:1]:  # what asks for little needs it
        mine = container.request(resource) or 0
        less = _round(resource, mine - over) if container.name in _PUT_IN and over > 0 else None
        if less:
            values = {key.format(resource): less for key in _PUT_IN[container.name]}
            text = f"Give {container.name} {less} of {resource} instead of {say_amount(resource, mine)}, by the pod's annotations"
            yield fixes.annotate(pending.pod, values, text)
            return


#: With these Kueue marks pods whose node it has picked itself (topology-aware scheduling, pkg/controller/tas), by this label of the node.
_BY_KUEUE = ("kueue.x-k8s.io/tas", "kueue.x-k8s.io/podset")


def _of_kueue(pending: Pending, found: Cause) -> Iterator[Fix]:
    """Another node than the one that Kueue has picked although others have its room."""
    node = pending.pod.spec.node_selector.get(HOSTNAME)
    if (
        node is None
        or found.obstacle not in ("gpu", "cpu-memory")
        or not any(k in pending.pod.labels for k in _BY_KUEUE)
    ):
        return
    anew = tried(
        pending,
        Change(
            text=f"Have Kueue place it again (spec.active of its Workload false, then true): it has picked {node}, which others fill",
            operations=({"op": "remove", "path": f"/nodeSelector/{escaped(HOSTNAME)}"},),
            commands=(f"kubectl -n {pending.pod.namespace} get workloads.kueue.x-k8s.io",),
            by_hand=True,
            owner="platform",
        ),
    )
    yield from (anew,) if anew else ()


def tried(pending: Pending, change: Change) -> Fix | None:
    """A change as a fix that says where the pod then fits; None where something would still stop it everywhere."""
    where = _where(pending, change)
    return _as_fix(pending, change, where) if where else None


def one_more(pending: Pending, found: Cause) -> list[Fix]:
    """One more node like one of those that could run the pod, if that would do."""
    for verdict in _nearest(found)[:1]:
        change = Change(text=f"Add a node like {verdict.node.name}", nodes=(verdict.node.twin(_NEW),), owner="platform")
        fix = tried(pending, change)
        return [fix] if fix else []
    return []


def old_first(pending: Pending, workload: Workload, gone: tuple[str, ...]) -> Fix:
    """The rollout removes an old pod before it adds a new one."""
    summary = f"Let the old pod go first: maxSurge 0, maxUnavailable 1 in {workload.ref}"
    if by := fixes.maker(workload.item):
        at = "spec.predictor.deploymentStrategy of " if by.startswith("InferenceService/") else ""
        made = fixes.advice(f"{summary}, by {at}{by}, which makes that and writes it again")
    elif workload.kind == "Rollout":
        if not isinstance(dig(workload.raw, "spec.strategy.canary"), dict):
            return fixes.advice(
                f"Scale {workload.ref} down before the update: its strategy makes a second set of pods beside the old one; a canary with "
                "maxSurge 0 and maxUnavailable 1 does not"
            )
        numbers = (("maxSurge", 0), ("maxUnavailable", 1))
        made = fixes.patch_object(
            workload.item,
            summary,
            [{"op": "add", "path": f"/spec/strategy/canary/{name}", "value": value} for name, value in numbers],
        )
    else:
        text = '{"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}}}'
        made = Fix(
            summary=summary,
            commands=(
                f"kubectl -n {workload.namespace} patch {workload.kind.lower()}/{workload.name} --type=merge -p '{text}'",
            ),
            patch=Patch(
                target=f"{workload.api_version} {workload.ref}",
                type="merge",
                body={"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}},
            ),
        )
    return tried(pending, Change(text=made.summary, gone=gone, fix=made)) or made


def _nearest(found: Cause) -> list[NodeVerdict]:
    """The nodes that ask for the least."""

    def effort(verdict: NodeVerdict) -> tuple[int, float, str]:
        short = [(r.asked - (r.free or 0)) / max(r.asked, 1) for r in verdict.reasons if r.kind == "resource"]
        return len(verdict.reasons), sum(short), verdict.node.name

    return sorted(found.verdicts, key=effort)[:_MOST_NODES]


def _on(pending: Pending, verdict: NodeVerdict, main: Obstacle, repair: Repair, place: int) -> Change | None:
    """All that must change for one node: the main thing in the given way, the rest in the usual one."""
    reasons: dict[Obstacle, list[Reason]] = {}
    for reason in verdict.reasons:
        obstacle = obstacle_of(verdict.node, reason)
        if obstacle is None:
            return None
        reasons.setdefault(obstacle, []).append(reason)
    if main == "pod-affinity":  # what is done about it asks nothing of the node, of which it may be known by word only
        reasons.setdefault(main, [])
    parts: list[Change] = []
    for obstacle in sorted(reasons, key=lambda o: (o != main, PRIORITY.index(o))):
        if parts and parts[0].gone and _where(pending, parts[0]):
            break  # those pods have what else is short there, too
        usual = repair if obstacle == main else _REPAIRS.get(obstacle, _none)
        known = [*usual(Stop(pending=pending, verdict=verdict, reasons=tuple(reasons[obstacle])))]
        at = place if obstacle == main else 0
        if at >= len(known):
            return None
        parts.append(known[at])
    return _together(parts) if parts else None


def _together(parts: list[Change]) -> Change | None:
    if len(parts) == 1:
        return parts[0]
    nodes = tuple(node for part in parts for node in part.nodes)
    by_hand = any(part.by_hand for part in parts)
    if len({node.name for node in nodes}) < len(nodes):
        return None
    return Change(
        text=", and ".join(part.text[:1].lower() + part.text[1:] if at else part.text for at, part in enumerate(parts)),
        operations=tuple(op for part in parts for op in part.operations),
        gone=tuple(ref for part in parts for ref in part.gone),
        nodes=nodes,
        commands=tuple(c for part in parts for c in part.commands if part.by_hand or not by_hand),
        by_hand=by_hand,
        owner=next((p.owner for p in parts if not p.operations), parts[0].owner),
    )


def _where(pending: Pending, change: Change) -> tuple[NodeVerdict, ...] | None:
    """The nodes on which nothing stops the pod after a change; None when there is none."""
    changed = {node.name: node for node in change.nodes}
    nodes = [changed.pop(n.name, n) for n in pending.subject.nodes]
    spec = fixes.applied(pending.pod.spec, change.operations) if change.operations else None
    if change.operations and spec is None:
        return None
    said = pending.where(spec=spec, without=change.gone, nodes=[*nodes, *changed.values()])
    left = tuple(v for v in said if not v.reasons)
    if any(gap.ends for v in left for gap in v.gaps):
        return None  # the scheduler meets an error there, and gives the pod up
    return left or None


def _as_fix(pending: Pending, change: Change, where: tuple[NodeVerdict, ...]) -> Fix:
    sure = tuple(v for v in where if v.fits)
    promise = f"; then it fits on {names_of(sure)}" if sure else ""
    if sure and all(v.node.like for v in sure):
        promise = "; then it fits there"
    if change.fix:
        return Fix(
            summary=change.fix.summary + promise,
            owner=change.fix.owner,
            commands=change.fix.commands,
            patch=change.fix.patch,
        )
    if not change.operations or change.by_hand:
        return fixes.advice(change.text + promise, *change.commands, owner=change.owner)
    made = fixes.patch(pending.pod, change.text + promise, [*change.operations], owner=change.owner)
    return Fix(summary=made.summary, owner=made.owner, commands=(*change.commands, *made.commands), patch=made.patch)


# --- what is done about each thing ------------------------------------------------------------------------------------


def _none(_: Stop) -> Iterator[Change]:
    """Nothing that could be tried here."""
    return iter(())


def _taint(stop: Stop) -> Iterator[Change]:
    node, taints = stop.node, [r.taint for r in stop.reasons if r.taint]
    pool, passing = _of_its_start(node, taints), any(re.search(_PASSING, named([taint])) for taint in taints)
    tolerated = Change(
        text=f"Tolerate {named(taints)}, if it may run there", operations=tuple(tolerating(stop.pending, taints))
    )
    if not pool and not passing:
        yield tolerated
    yield Change(
        text=f"Remove the taint {named(taints)} from {node.name}, "
        + (
            "which what readies new nodes should have taken away, if that is not at work there; where it is gone for good, also from "
            f"startupTaints of NodePool {pool}"
            if pool
            else "when what it is there for is over"
            if passing
            else "if it is no longer meant"
        ),
        nodes=(node.changed(taints=[t for t in node.taints if t not in taints]),),
        commands=tuple(f"kubectl taint nodes {node.name} {show_taint(t)}-" for t in taints),
        owner="platform",
    )
    if passing and not pool:
        yield tolerated


#: Words of taints that people put on a node for a time, like a cordon: no pod should tolerate them to get there.
_PASSING = r"(?i)maintenance|quarantin|decommission|drain|unhealthy|broken|faulty|repair|(?<![a-z])rma(?![a-z])"


def _of_its_start(node: Node, taints: list[k8s.Taint]) -> str:
    """Karpenter's NodePool by which a node began with these taints, long ago, until something would take them away."""
    name = node.labels.get("karpenter.sh/nodepool", "")
    pool = node.cluster.item("NodePool", "", name) if name else None
    begun = {str(row.get("key")) for row in rows(pool.raw, "spec.template.spec.startupTaints")} if pool else set()
    made, now = parse_time(node.obj.metadata.creation_timestamp), node.cluster.now
    old = made is not None and now is not None and (now - made).total_seconds() > _READIED_SECONDS
    return name if old and taints and all(taint.key in begun for taint in taints) else ""


def named(taints: Iterable[k8s.Taint]) -> str:
    """Taints as kubectl writes them."""
    return ", ".join(show_taint(t) for t in taints)


def tolerating(pending: Pending, taints: Iterable[k8s.Taint]) -> list[Json]:
    """The patch of the pod spec that tolerates taints."""
    values = [toleration(t) for t in taints]
    if pending.pod.spec.tolerations:
        return [{"op": "add", "path": "/tolerations/-", "value": value} for value in values]
    return [{"op": "add", "path": "/tolerations", "value": values}]


def _uncordon(stop: Stop) -> Iterator[Change]:
    node = stop.node
    if node.cordoned and node.ready is not False and all(r.kind == "unschedulable" for r in stop.reasons):
        hardware = node_hardware(node.cluster, node.name)
        told = next(iter(hardware.conditions), None) if hardware else None
        when = "when its maintenance is over"
        if told:
            when = (
                f"once what its condition {told.type} says of its GPUs is seen to, for which it may have been cordoned"
            )
        yield Change(
            text=f"Uncordon {node.name} {when}",
            nodes=(node.changed(taints=[t for t in node.taints if t.key != _CORDON], cordoned=False),),
            commands=(f"kubectl uncordon {node.name}",),
            owner="platform",
        )


def _selector(stop: Stop) -> Iterator[Change]:
    """The demands as this node meets them; or this node with the labels that are demanded."""
    node, unmet = stop.node, [m for r in stop.reasons for m in r.mismatches]
    if not unmet or any(not m.key or states(m) for m in unmet):
        return
    operations, text = demands_met(stop.pending.pod.spec, node, unmet)
    yield Change(text=text, operations=tuple(operations), fix=_where_it_stands(stop.pending, node, unmet))
    if labels := labels_wanted(unmet):
        pairs = shlex.join(f"{key}={value}" for key, value in labels.items())
        yield Change(
            text=f"Label {node.name} {pairs}, if that is true of it",
            nodes=(node.changed(labels=labels),),
            commands=(f"kubectl label node {node.name} --overwrite {pairs}",),
            owner="platform",
        )


#: What puts its selector into each pod of a namespace: OpenShift's and Kubernetes' admission plugins of that name.
_OF_NAMESPACES = ("openshift.io/node-selector", "scheduler.alpha.kubernetes.io/node-selector")


def _where_it_stands(pending: Pending, node: Node, unmet: list[Mismatch]) -> Fix | None:
    """The selector of a RuntimeClass or a namespace as this node meets it: admission put it into the pod, no template has it."""
    pod, template = pending.pod, pending.pod.template
    own = table(dig(template.pod, "spec.nodeSelector")) if template else None
    keys = {m.key for m in unmet if m.path == "nodeSelector"}
    if own is None or len(keys) < len(unmet) or keys & own.keys():
        return None
    have = {key: node.labels.get(key) for key in keys}
    shown = ", ".join(f"{m.demand}" for m in unmet)
    name = pod.spec.runtime_class_name
    kind = pod.cluster.item("RuntimeClass", "", name) if name else None
    if kind and keys <= table(dig(kind.raw, "scheduling.nodeSelector")).keys():
        text = f"Have RuntimeClass {kind.name} select what nodes have: it puts {shown} into the pods that name it"
        return _made_again(
            pod,
            kind,
            text,
            [
                {"op": "remove" if value is None else "replace", "path": f"/scheduling/nodeSelector/{escaped(key)}"}
                | ({} if value is None else {"value": value})
                for key, value in have.items()
            ],
        )
    space = pod.cluster.item("Namespace", "", pod.namespace)
    notes = table(dig(space.raw, "metadata.annotations")) if space else {}
    for note in _OF_NAMESPACES if space else ():
        pairs = dict(pair.strip().split("=", 1) for pair in str(notes.get(note) or "").split(",") if "=" in pair)
        if space and keys <= pairs.keys():
            left = {key: value for key, value in (pairs | have).items() if value is not None}
            text = f"Have the annotation {note} of namespace {space.name} select what nodes have: it puts {shown} into its pods"
            value = say_selector(left)
            at = f"/metadata/annotations/{escaped(note)}"
            return _made_again(pod, space, text, [{"op": "replace", "path": at, "value": value}])
    return None


def _made_again(pod: Pod, item: Item, text: str, operations: list[Json]) -> Fix:
    """Another selector in what admission takes it from, and the pod anew: one that exists keeps what it was made with."""
    fix = fixes.patch_object(
        item, f"{text}, and delete the pod, which keeps it{fixes.lone(pod)}", operations, owner="platform"
    )
    return msgspec.structs.replace(fix, commands=(*fix.commands, f"kubectl -n {pod.namespace} delete pod {pod.name}"))


def _ports(stop: Stop) -> Iterator[Change]:
    pod, taken = stop.pending.pod, {port for r in stop.reasons for port in r.ports}
    operations = [
        {"op": "remove", "path": f"{container.pointer}/ports/{at}/hostPort"}
        for container in pod.containers
        for at, port in enumerate(container.spec.ports)
        if port.host_port in taken
    ]
    if operations and not pod.spec.host_network:
        ports = ", ".join(map(str, sorted(taken)))
        yield Change(text=f"Drop hostPort {ports}; a Service reaches the pod without it", operations=tuple(operations))
    yield from _without(stop, [ref for r in stop.reasons for ref in r.pods], "Free the port")


def _less(stop: Stop) -> Iterator[Change]:
    """Smaller requests: the greatest is lowered until the sum fits. Where little would be left of one, what others have goes first."""
    spec, operations, said = stop.pending.pod.spec, [], []
    lowered: Change | None = None
    for reason in stop.reasons:
        made = _lowered(stop.pending, spec, reason)
        if made is None:
            break
        spec, more, words = made
        operations += more
        said.append(words)
    else:
        text = ", and ".join(said)
        lowered = Change(text=sentence(text), operations=tuple(operations))
    little = any(
        r.resource in _SIZED
        and _requested(spec, r.resource) < r.asked / 2
        and not _may_use_more(stop.pending, r.resource)
        for r in stop.reasons
    )
    if lowered and not little:
        yield lowered
    need = {r.resource: r.asked - (r.free or 0) for r in stop.reasons if r.asked <= (r.allocatable or 0)}
    if len(need) == len(stop.reasons):
        yield from _free(stop, need)
    if lowered and little:
        yield msgspec.structs.replace(lowered, text=f"{lowered.text}, if it needs no more")


def _may_use_more(pending: Pending, resource: str) -> bool:
    """Whether a pod without GPUs may use more than it asks for, by its limits: then it gets no less where it asks for less."""
    most = next(iter(asking(pending, resource)), None)
    return not pending.accelerators and most is not None and (most.limit(resource) or 0) > (most.request(resource) or 0)


def _lowered(pending: Pending, spec: k8s.PodSpec, reason: Reason) -> tuple[k8s.PodSpec, list[Json], str] | None:
    """The spec that asks for no more of a resource than is free, how it comes about, and in words."""
    resource, free = reason.resource, reason.free or 0
    operations: list[Json] = []
    said = []
    whole = spec.resources.requests if spec.resources else {}  # what counts then; the containers share it
    for container in asking(pending, resource) if resource not in whole else ():
        asked = _requested(spec, resource)
        if asked <= free:
            break
        if container.name in _PUT_IN:
            continue
        mine = container.request(resource) or 0
        amount, hint = mine - (asked - free), ""
        if is_accelerator(resource):
            amount, hint = shared_by(pending, container, amount)
        value = _round(resource, amount)
        if value is None:
            return None
        for kind in ("limits", "requests"):
            if kind == "requests" or (resource in container.spec.resources.limits and _equal(resource)):
                path = f"{container.pointer}/resources/{kind}/{escaped(resource)}"
                operations.append({"op": "add", "path": path, "value": value})
        if is_accelerator(resource):
            operations += told_of(pending, container, amount)
        made = fixes.applied(spec, operations)
        if made is None:
            return None
        spec = made
        said.append(f"ask for {value} {resource} in {container.name} instead of {say_amount(resource, mine)}{hint}")
    if resource in whole and (value := _round(resource, free)):
        if sum(c.request(resource) or 0 for c in pending.pod.containers if c.role != "init") > free:
            return None  # the API server takes no less for the pod than its containers ask for together
        operations = [{"op": "add", "path": f"/resources/requests/{escaped(resource)}", "value": value}]
        spec = fixes.applied(pending.pod.spec, operations) or spec
        said = [f"ask for {value} {resource} instead of {whole[resource]} for the whole pod"]
    if _requested(spec, resource) > free or not operations:
        return None
    return spec, operations, ", and ".join(said)


def _requested(spec: k8s.PodSpec, resource: str) -> int:
    return requests_of(k8s.Pod(spec=spec)).get(resource, 0)


def _equal(resource: str) -> bool:
    """Whether request and limit of a resource must be the same."""
    return "/" in resource or resource.startswith("hugepages-")


def _round(resource: str, amount: int) -> str | None:
    """A round quantity that is not more; None where there is none worth asking for."""
    if resource == "cpu":
        step = 1000 if amount >= 4000 else 500 if amount >= 1000 else 100
        down = amount // step * step
        return None if down <= 0 else f"{down}m" if down % 1000 else str(down // 1000)
    if _equal(resource) and not resource.startswith("hugepages-"):
        return str(amount) if amount > 0 else None
    gib, mib = 1024**3, 1024**2
    return f"{amount // gib}Gi" if amount >= gib else f"{amount // mib}Mi" if amount >= 64 * mib else None


def _occupied(stop: Stop) -> Iterator[Change]:
    """GPUs that others have: theirs, or fewer."""
    yield from freeing(stop)
    yield from fewer(stop)


def freeing(stop: Stop) -> Iterator[Change]:
    """What others have of that which is short."""
    yield from _free(stop, {r.resource: r.asked - (r.free or 0) for r in stop.reasons})


def fewer(stop: Stop) -> Iterator[Change]:
    """As few of a resource as are free."""
    yield from (change for change in _less(stop) if change.operations)


def _free(stop: Stop, need: dict[str, int]) -> Iterator[Change]:
    """As few pods as possible off a node, so that so much more is free."""
    chosen: dict[str, Holder] = {}
    on_node = stop.pending.usage.holders(stop.node.name)
    holders = [h for h in on_node if not _belongs_to_the_node(h) and not _sibling(stop.pending, h.ref)]
    for resource, amount in need.items():
        short = amount - sum(h.requests.get(resource, 0) for h in chosen.values())
        if short > 0:
            rest = [h for h in holders if h.requests.get(resource) and h.ref not in chosen]
            picked = fewest(rest, resource, short)
            if not picked:
                return
            chosen |= {h.ref: h for h in picked}
    what = " and ".join(
        f"{count_of(amount, 'GPU')}" if is_accelerator(resource) else f"{say_amount(resource, amount)} of {resource}"
        for resource, amount in need.items()
    )
    yield from _without(stop, [*chosen], f"Free {what}")


def _belongs_to_the_node(holder: Holder) -> bool:
    """Whether a pod would come back at once: a DaemonSet's, or the node's own."""
    return any(owner.kind in ("DaemonSet", "Node") for owner in holder.pod.metadata.owner_references)


def fewest(holders: list[Holder], resource: str, need: int) -> list[Holder]:
    """As few pods as together have so much: one that suffices and is smallest, else from the largest down."""
    if enough := [h for h in holders if h.requests[resource] >= need]:
        return [min(enough, key=lambda h: (not h.terminating, h.requests[resource], h.ref))]
    chosen: list[Holder] = []
    for holder in sorted(holders, key=lambda h: (-h.requests[resource], h.ref)):
        chosen.append(holder)
        need -= holder.requests[resource]
        if need <= 0:
            return chosen
    return []


def _without(stop: Stop, refs: list[str], why: str) -> Iterator[Change]:
    """The node without some pods; nothing where they are too many, or where it is a finalizer that keeps one.

    Nothing either where one is of the pod's own workload: what takes that away takes the waiting pod away as well.
    """
    pods = {ref: _pod(stop.pending, ref) for ref in refs}
    ending = [ref for ref, pod in pods.items() if pod and pod.metadata.deletion_timestamp]
    kept = any(pod.metadata.finalizers for ref, pod in pods.items() if pod and ref in ending)
    if not refs or kept or len(refs) > _MOST_PODS:
        return
    going = f"wait for {', '.join(ending)}, which {'is' if len(ending) == 1 else 'are'} being deleted"
    others = [ref for ref in refs if ref not in ending]
    if any(_sibling(stop.pending, ref) for ref in others):
        return
    if not others:
        yield Change(text=f"W{going[1:]}", gone=tuple(refs), owner="platform")
        return
    text = f"{why} on {stop.node.name}: stop or scale down {', '.join(others)}, if "
    text += "it can be spared" if len(others) == 1 else "they can be spared"
    text += f", and {going}" if ending else ""
    each = [[*_stopping(stop.pending, ref)] for ref in others]
    commands = [c for commands in each for c in commands]
    by_hand = not all(each)
    if by_hand:
        commands = [fixes.pods_on(stop.node.name)]
    yield Change(text=text, gone=tuple(refs), commands=tuple(commands), by_hand=by_hand, owner="platform")


def _pod(pending: Pending, ref: str) -> k8s.Pod | None:
    namespace, _, name = ref.partition("/")
    pods = pending.pod.cluster.all(k8s.Pod, "Pod", namespace)
    return next((pod for pod in pods if pod.metadata.name == name), None)


def _sibling(pending: Pending, ref: str) -> bool:
    """Whether a pod is of the same workload as the one that waits."""
    namespace, _, name = ref.partition("/")
    item, mine = pending.pod.cluster.item("Pod", namespace, name), pending.subject.workload
    top = top_of(item, pending.pod.cluster) if mine else None
    return top is not None and mine is not None and top.item is mine.item and top.kind != "Pod"


def _stopping(pending: Pending, ref: str) -> Iterator[str]:
    """The commands that take one pod away for good; none where only its owner can say."""
    namespace, _, name = ref.partition("/")
    item = pending.pod.cluster.item("Pod", namespace, name)
    owners = dig(item.raw, "metadata.ownerReferences") if item else None
    top = top_of(item, pending.pod.cluster)
    if not owners:
        yield f"kubectl -n {namespace} delete pod {name}"
    elif top and top.kind in ("Deployment", "StatefulSet", "ReplicaSet") and top.replicas == 1:
        yield f"kubectl -n {namespace} scale {top.resource}/{top.name} --replicas=0"


def _apart(stop: Stop) -> Iterator[Change]:
    """Spread and anti-affinity that must hold, as preferences; or without the pods that repel this one."""
    spec = stop.pending.pod.spec
    operations: list[Json] = []
    said = []
    if any(r.kind == "spread" for r in stop.reasons):
        if fewer := next((c for c in _of_one_spread(stop.pending) if _where(stop.pending, c)), None):
            yield fewer
        for at, one in enumerate(spec.topology_spread_constraints):
            if one.when_unsatisfiable == "DoNotSchedule":
                operations += _anyway(at, one)
        said.append("set whenUnsatisfiable: ScheduleAnyway in the topology spread")
    own = spec.affinity.pod_anti_affinity if spec.affinity else None
    theirs = [r for r in stop.reasons if r.kind == "anti-affinity" and "existing pods" in r.text]
    if any(r.kind == "anti-affinity" and r not in theirs for r in stop.reasons) and own:
        operations += _preferred(stop.pending, "podAntiAffinity")
        said.append("make the pod anti-affinity a preference")
    others = [ref for r in theirs for ref in r.pods]
    if operations and not others:
        text = ", and ".join(said)
        yield Change(text=sentence(text), operations=tuple(operations))
    if not any(r.kind == "spread" for r in stop.reasons):
        yield from _without(stop, [*dict.fromkeys(ref for r in stop.reasons for ref in r.pods)], "Make room")


def _anyway(at: int, one: k8s.SpreadConstraint) -> Iterator[Json]:
    path = f"/topologySpreadConstraints/{at}"
    yield {"op": "replace", "path": f"{path}/whenUnsatisfiable", "value": "ScheduleAnyway"}
    if one.min_domains is not None:  # the API server takes it with DoNotSchedule only
        yield {"op": "remove", "path": f"{path}/minDomains"}


def _chosen(pending: Pending) -> dict[str, str]:
    """The labels by which the pod's owner selects its pods."""
    workload = pending.subject.workload
    labels = table(dig(workload.raw, "spec.selector.matchLabels")) if workload else {}
    return {str(key): str(value) for key, value in labels.items()}


def _counts_others(pending: Pending, one: k8s.SpreadConstraint, mine: dict[str, str]) -> bool:
    """Whether a spread counts pods of the namespace that are not of this one's owner."""
    placed = (
        p.metadata.label_texts
        for p in pending.pod.cluster.all(k8s.Pod, "Pod")
        if p.spec.node_name and (p.metadata.namespace or "default") == pending.pod.namespace
    )
    return any(selected(one.label_selector, labels) and not mine.items() <= labels.items() for labels in placed)


def _of_one_spread(pending: Pending) -> Iterator[Change]:
    """What leaves more of the spread: nodes that the pod may not go to no longer count, or one constraint of several gives way."""
    rules = [
        (at, one)
        for at, one in enumerate(pending.pod.spec.topology_spread_constraints)
        if one.when_unsatisfiable == "DoNotSchedule"
    ]
    for at, one in rules:
        mine = _chosen(pending)
        if mine and _counts_others(pending, one, mine):
            told = say_pairs(mine, ": ")
            yield Change(
                text=f"Have the topology spread over {one.topology_key} count the pod's own replicas: labelSelector {told} in place of one "
                "that selects pods of others, too",
                operations=(
                    {
                        "op": "add",
                        "path": f"/topologySpreadConstraints/{at}/labelSelector",
                        "value": {"matchLabels": mine},
                    },
                ),
            )
    for at, one in rules:
        if one.node_taints_policy != "Honor":
            yield Change(
                text=f"Set nodeTaintsPolicy: Honor in the topology spread over {one.topology_key}: nodes whose taints the pod does not "
                "tolerate no longer count as empty",
                operations=(
                    {"op": "add", "path": f"/topologySpreadConstraints/{at}/nodeTaintsPolicy", "value": "Honor"},
                ),
            )
    # replicas on one host are less of a loss than replicas in one zone
    for at, one in sorted(rules, key=lambda rule: rule[1].topology_key != HOSTNAME) if len(rules) > 1 else ():
        text = (
            f"Set whenUnsatisfiable: ScheduleAnyway in the topology spread over {one.topology_key}, and leave the rest"
        )
        yield Change(text=text, operations=tuple(_anyway(at, one)))


def _beside(stop: Stop) -> Iterator[Change]:
    affinity = stop.pending.pod.spec.affinity
    if affinity and affinity.pod_affinity:
        yield from _in_its_namespace(stop.pending, affinity.pod_affinity)
        operations = tuple(_preferred(stop.pending, "podAffinity"))
        there = _named_by(stop.pending, affinity.pod_affinity, stop.node.name)
        absent = unlabelled(stop.pending)
        other = (
            f"give the nodes the label {absent} by what they share, which its topologyKey asks for and none has"
            if absent
            else f"move {there[0]}, which it names, from {there[1]} to {stop.node.name}"
            if there
            else "start the pod that it names first"
        )
        yield Change(text=f"Make the pod affinity a preference, or {other}", operations=operations)


def unlabelled(pending: Pending) -> str:
    """A topologyKey of its pod affinity that no node has as a label: no pod is near another by that one."""
    affinity = pending.pod.spec.affinity.pod_affinity if pending.pod.spec.affinity else None
    terms = affinity.required_during_scheduling_ignored_during_execution if affinity else ()
    nodes = pending.subject.nodes if pending.nodes_complete else ()
    keys = (term.topology_key for term in terms)
    return next((key for key in keys if nodes and not any(key in node.labels for node in nodes)), "")


def _in_its_namespace(pending: Pending, affinity: k8s.PodAffinity) -> Iterator[Change]:
    """The one other namespace that has what a term names, where the term looks in the pod's own alone, which has nothing of it."""
    running = [p for p in pending.pod.cluster.all(k8s.Pod, "Pod") if p.spec.node_name and p.status.phase == "Running"]
    operations: list[Json] = []
    said = []
    for at, term in enumerate(affinity.required_during_scheduling_ignored_during_execution):
        if term.namespaces or term.namespace_selector is not None:
            continue
        named = [p.metadata for p in running if selected(term.label_selector, p.metadata.label_texts)]
        spaces = {one.namespace for one in named}
        if len(spaces) == 1 and pending.pod.namespace not in spaces:
            path = f"/affinity/podAffinity/{REQUIRED}/{at}/namespaces"
            operations.append({"op": "add", "path": path, "value": sorted(spaces)})
            said.append(f"{named[0].namespace}/{named[0].name}")
    if operations:
        text = f"Have the pod affinity look in the namespace of {', '.join(said)}, which it names: without namespaces it looks in its own"
        yield Change(text=text, operations=tuple(operations))


def _named_by(pending: Pending, affinity: k8s.PodAffinity, node: str) -> tuple[str, str] | None:
    """A pod of its namespace that an affinity names, and another node, on which it runs; None where there is none."""
    terms = affinity.required_during_scheduling_ignored_during_execution
    own = [t for t in terms if not t.namespaces and t.namespace_selector is None]
    for pod in pending.pod.cluster.all(k8s.Pod, "Pod", pending.pod.namespace):
        mine = any(selected(term.label_selector, pod.metadata.label_texts) for term in own)
        if mine and pod.spec.node_name not in ("", node) and pod.status.phase == "Running":
            return f"{pod.metadata.namespace}/{pod.metadata.name}", pod.spec.node_name
    return None


def _preferred(pending: Pending, name: str) -> Iterator[Json]:
    """Moves what an affinity requires to what it prefers."""
    base = f"/affinity/{name}"
    own = table(dig(pending.pod.item.raw if pending.pod.item else {}, f"spec.affinity.{name}"))
    preferred = own.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    value = [*preferred]
    value += [{"weight": 100, "podAffinityTerm": _as_given(row)} for row in own.get(REQUIRED) or ()]
    yield {"op": "remove", "path": f"{base}/{REQUIRED}"}
    yield {"op": "add", "path": f"{base}/preferredDuringSchedulingIgnoredDuringExecution", "value": value}


def _as_given(term: Json) -> Json:
    """A term without what the API server has added for its matchLabelKeys: it refuses the same said twice."""
    added = {("In", key) for key in term.get("matchLabelKeys") or ()}
    added |= {("NotIn", key) for key in term.get("mismatchLabelKeys") or ()}
    selector = term.get("labelSelector") or {}
    rows = selector.get("matchExpressions") or []
    if not added or not rows:
        return term
    kept = [row for row in rows if (row.get("operator"), row.get("key")) not in added]
    return {**term, "labelSelector": {**selector, "matchExpressions": kept}}


def instead(container: Container, resource: str, other: str = "") -> Iterator[Json]:
    """A resource taken out of limits and requests, and as much of another in its place."""
    for kind in ("limits", "requests"):
        quantities = getattr(container.spec.resources, kind)
        if resource in quantities:
            at = f"{container.pointer}/resources/{kind}"
            yield {"op": "remove", "path": f"{at}/{escaped(resource)}"}
            if other:
                yield {"op": "add", "path": f"{at}/{escaped(other)}", "value": str(quantities[resource])}


def renamed(pending: Pending, old: str, names: Iterable[str]) -> Iterator[Change]:
    """The same number of devices under another name that nodes offer."""
    for container in asking(pending, old)[:1]:
        for new in names:
            operations = [*instead(container, old, new)]
            text = f"Ask for {new} instead of {old}"
            if vendor(new) != vendor(old):
                text += ", with an image for that vendor"
            elif "/mig-" in new + old:
                text += " (mind its memory)"
            yield Change(text=text, operations=tuple(operations))


def _volume(stop: Stop) -> Iterator[Change]:
    """Who else uses a claim or disk that one pod only may have."""
    refs = dict.fromkeys(ref for reason in stop.reasons for ref in reason.pods)
    if all(reason.pods for reason in stop.reasons):
        yield from _without(stop, [*refs], "Free the claim")


_REPAIRS: dict[Obstacle, Repair] = {
    "volume": _volume,
    "spread": _apart,
    "pod-affinity": _beside,
    "ports": _ports,
    "ephemeral": _less,
    "extended": _less,
    "cpu-memory": _less,
    "node": _uncordon,
    "own-taint": _taint,
    "taint": _taint,
    "gpu": _occupied,
    "gpu-size": _less,
    "selector": _selector,
}
