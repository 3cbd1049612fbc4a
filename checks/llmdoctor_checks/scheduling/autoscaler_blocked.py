"""The autoscaler cannot help, and says why."""

import re
import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GKE_GPU,
    MACHINE,
    Cluster,
    Event,
    Evidence,
    Finding,
    Fix,
    Item,
    Pending,
    Pod,
    Subject,
    check,
    dig,
    event_evidence,
    events_of,
    expression,
    fixes,
    is_provisioner,
    k8s,
    log_evidence,
    object_evidence,
    parse,
    rows,
    words,
)
from llmdoctor_checks.scheduling._clouds import asked_of_cloud
from llmdoctor_checks.scheduling._grown import grown, raised, spent
from llmdoctor_checks.scheduling._karpenter import Pool, pools
from llmdoctor_checks.scheduling._larger import larger, larger_disk, more_offers, more_pods, of_nvidia, without_daemons
from llmdoctor_checks.scheduling._machines import GROWS, LOOP, failed_machine, group_failed, loop_failed, unjoined
from llmdoctor_checks.scheduling._nodepools import LACKS, unready
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._refused import error_of
from llmdoctor_checks.scheduling._separation import causes
from llmdoctor_checks.scheduling._words import EXPLAINS, said_by, sentence

#: Causes that a further node would mend.
_MENDED = frozenset(
    {"gpu-insufficient", "gpu-fragmented", "gpu-resource-absent", "cpu-memory-insufficient", "pods-per-node-limit"}
    | {"ephemeral-storage-insufficient"}
)
_LIMIT = expression(
    r"max node group size reached|limit reached|exceed(?:ed|s)? limits?|limits exceeded|limits have been exhausted|MaxSize"
    r"|no instance type",
    re.IGNORECASE,
)
#: A group or pool with the right nodes, which may not grow: it, and not what is taken now, keeps the pod waiting.
_AT_MOST = r"exceed limits for nodepool|limits have been exhausted|max (?:node group size|limit|cluster [\w ,./-]{1,80} limit) reached"
_FAILED = expression(
    r"backoff after failed scale-up|scale[ -]?up .{0,400}failed|QUOTA_EXCEEDED|quota exceeded|STOCKOUT|(?<!limits have been )exhausted"
    r"|InsufficientInstanceCapacity|insufficient capacity|not ready for scale-up",
    re.IGNORECASE,
)
#: A group of nodes that could not grow is tried again after half an hour at the latest (--max-node-group-backoff-duration).
_AGAIN_SECONDS = 1800
#: A zone, as the address of a group of machines names it in Google's cloud: the one that says of a pod that its try failed.
_ZONE = r"/zones/([\w-]{1,63})/"
#: The machine that Karpenter is getting for a pod: `Pod should schedule on: nodeclaim/gpu-x7k2p, node/ip-10-0-0-7`.
_CLAIM = r"\bnodeclaim/(?P<name>[\w.-]+)"
#: How it names a node in the same message, once the machine has come to be one.
_A_NODE = "node/"
#: After how many machines in turn, and over how long, it is no chance that none became a node: one that does not join is given up
#: after 15 minutes (pkg/controllers/nodeclaim/lifecycle/liveness.go), one that the cloud refuses at once.
_TURNS, _TURN_SECONDS = 2, 600
#: A NodeClaim that nobody has looked at yet.
_AWAITING = "AwaitingReconciliation"
#: Machines with accelerators, by the names that EC2 and Azure give their families.
_ACCELERATED = r"\b(?:p\d|gr?\d|inf\d|trn\d|dl\d)[a-z]{0,3}(?:-[a-z0-9]+)?\.\w+|\bStandard_N[CDV]\d+\w*"
_MESSAGE = r'"message":\s?"((?:[^"\\]|\\.){1,6000})"'
#: Azure's words for its quota, in the middle of an answer of many lines.
_QUOTA = r"(?P<error>Operation could not be completed as it results in exceeding approved [^.]{1,300})"
#: The cloud's own error in what a launch said: the last `VcpuLimitExceeded: You have requested …`.
_CODE = r"(?s)^.*\b(?P<error>[A-Z]\w{0,60}[a-z][A-Z]\w{0,60}: .+)"


#: The part of Karpenter that gets machines, as its log names it (pkg/controllers/nodeclaim/lifecycle), and its lines of errors:
#: `failed launching nodeclaim`, or what its part for a cloud has to say.
_LAUNCHES, _ERROR = "nodeclaim.lifecycle", r'"level":\s?"ERROR"'
#: What it says where it got one, and its errors about something else: a write that it does again, a machine that it takes away.
_LAUNCHED = r'"message":\s?"(?:launched|registered|initialized) nodeclaim"'
_OTHER_ERROR = r"the object has been modified|terminating |finalizer|deleting nodeclaim"

#: Karpenter's words for instance types that are large enough and lack only an offering (pkg/controllers/provisioning/scheduling).
_ROOMY = "had enough resources, had a required offering"

#: KAITO's word for a type of machine that cannot be had (pkg/utils/consts/consts.go).
_NO_MACHINE = "all requested instance types were unavailable during launch"


@check("autoscaler-blocked", since="0.1", literals=(_LAUNCHES, LOOP, *GROWS))
def autoscaler_blocked(pod: Pod, subject: Subject, cluster: Cluster, pending: Pending | None) -> Iterator[Finding]:
    """The autoscaler would have to add a node and cannot.

    The pod needs a node more. The cluster autoscaler or Karpenter has looked at it and says what keeps it from adding
    one: a node group at its maximum, a limit of the node pool, the cloud's quota, no capacity left for that instance
    type, or waiting after such a failure. Where Karpenter (for KAITO, too) has chosen a machine, its NodeClaim says what
    the cloud answered. A NodePool that is not ready, because its node class finds no image, subnet or role, is passed over, and
    only their conditions say so. A machine may be made and never join, by its NodeClaim's conditions; a Machine (OpenShift, Cluster
    API, Gardener) says in its status why it was not made. An autoscaler whose rounds fail as a whole says so in its log alone.

    ## Fix

    Raise the limit that it names, ask the cloud for quota, allow further instance types or zones; or free GPUs.

    ## References

    - https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
    - https://karpenter.sh/docs/troubleshooting/
    - https://karpenter.sh/docs/concepts/nodeclaims/
    """
    if pending is None:
        if not pod.exists and not subject.static:
            yield from [*_unlaunched(_of_workspace(subject, cluster), cluster)] or _none_of_type(subject)
        return
    found = causes(pending)
    if not pending.scaling:
        lacks_gpus = bool(found) and found[0].id in _MENDED and found[0].id.startswith("gpu-")
        refused = [*_unlaunched(_with_gpus(pending), cluster, pending)] if lacks_gpus else []
        yield from refused or [*_no_capacity(pending, [])] or [*unready(pending, found)] or _unmade(pending, found)
        return
    event = _word(pending.scaling)
    if event.reason == "Nominated":
        claims = [claim for n in re.findall(_CLAIM, event.message) if (claim := cluster.item("NodeClaim", "", n))]
        told = [*_unlaunched(claims, cluster, pending)] or [*unjoined(claims, pending, found)]
        if not told and all(map(_asked, claims)):  # what such a claim does not say stands in events and in the log
            nominated = (e.message for e in pending.scaling if e.reason == "Nominated")
            told = [*_no_capacity(pending, [n for message in nominated for n in re.findall(_CLAIM, message)])]
        yield from told or _in_turn(pending, found)
    elif event.reason != "TriggeredScaleUp":
        yield from [*_adds_none(pending, event, found)] or _in_turn(pending, found)
    elif found and found[0].obstacle in LACKS:
        yield from [*failed_machine(pending, found)] or group_failed(pending, event, found)


def _in_turn(pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """Karpenter gets one machine after another for the pod, and none of them comes to be a node: each is gone when the next is made."""
    cluster = pending.pod.cluster
    named: dict[str, Event] = {}
    for event in pending.scaling:
        if event.reason == "Nominated" and (hit := re.search(_CLAIM, event.message)) and event.first:
            if _A_NODE in event.message:
                return
            named.setdefault(hit["name"], event)
    events = sorted(named.values(), key=lambda e: e.first.timestamp() if e.first else 0)
    if not found or len(events) < _TURNS or not any(cluster.items("Node")):
        return
    owners = {owner.name for node in cluster.all(k8s.Node, "Node") for owner in node.metadata.owner_references}
    if owners & named.keys() or any(cluster.item("NodeClaim", "", name) for name in named):
        return
    first, last = events[0], events[-1]
    if not first.first or not last.first or (last.first - first.first).total_seconds() < _TURN_SECONDS:
        return
    names = [hit["name"] for event in (first, last) if (hit := re.search(_CLAIM, event.message))]
    yield Finding(
        summary=f"Karpenter has asked for {len(events)} machines for it in turn ({' … '.join(names)}), and none became a node.",
        evidence=(event_evidence(first, cluster), event_evidence(last, cluster), *said_by(pending)),
        explains=(*EXPLAINS, *(cause.id for cause in found)),
        fix=fixes.platform(
            "See why Karpenter's machines do not become nodes, by its events and its log of these NodeClaims: the cloud refuses them "
            "(quota, capacity, permissions), or they start and never join (user data, role, network), until it gives them up",
            "kubectl get nodeclaims -o wide",
            "kubectl get events -A --field-selector involvedObject.kind=NodeClaim",
            "kubectl get pods -A -l app.kubernetes.io/name=karpenter",
        ),
        order=float(len(found)),
    )


def _unmade(pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """No autoscaler has said anything of the pod: machines that were to be nodes for it, and an autoscaler that comes to no pod."""
    if not found or found[0].obstacle not in LACKS:
        return
    lacks_gpus = found[0].id in _MENDED and found[0].id.startswith("gpu-")
    late = [*unjoined(_with_gpus(pending), pending, found)] if lacks_gpus else []
    late = late or [*failed_machine(pending, found)]
    yield from late or (loop_failed(pending, found) if found[0].id in _MENDED else ())


def _adds_none(pending: Pending, event: Event, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """By its last word the autoscaler adds no node."""
    # a group whose nodes would have taken the pod was found: what the nodes that are there lack is not the point
    meant = any(event.reason in ("TriggeredScaleUp", "Nominated") for event in pending.scaling)
    pool = _pool(pending, event)
    if found and found[0].id not in _MENDED and not meant and not pool:
        return
    if pool and pool.typed:
        yield _typeless(pending, pool, event, found)
        return
    limit, failed = _LIMIT.search(event.message), _has_failed(event)
    lacks_types = limit is not None and "instance type" in limit[0]
    if not limit and not failed:
        return
    if lacks_types and found and found[0].id == "gpu-resource-absent":
        return  # pools without GPUs lack them as the nodes do
    yield _cannot_add(pending, event, found, pool, lacks_types=lacks_types, failed=failed)


def _has_failed(event: Event) -> bool:
    """Whether the autoscaler says that it tried, and what came of it."""
    told = event.reason == "FailedScaleUp" and re.search(".+", event.message)
    return bool(_FAILED.search(event.message) or told)


def _cannot_add(
    pending: Pending, event: Event, found: tuple[Cause, ...], pool: Pool | None, *, lacks_types: bool, failed: bool
) -> Finding:
    """A limit that the autoscaler names, a pool without machines of the kind, or what came of its try."""
    full = _full(pending, event)
    typeless = lacks_types and not full
    small = next((p for p in pools(event.message) if p.typed), None) if typeless else None
    mended = failed or pool or re.search(_AT_MOST, event.message)
    who = "Karpenter" if "karpenter" in event.reporter else event.reporter or "The autoscaler"
    why = "cannot add a node" if failed or typeless else "is at its limit"
    words = small.words if small else full.text if full else _short(event)
    return Finding(
        summary=f"{who} {why}: {sentence(words)}",
        evidence=(event_evidence(event, pending.pod.cluster), *said_by(pending)),
        explains=(*EXPLAINS, *(c.id for c in found if mended)),
        fixes=tuple(_of_pool(pending, small) if small else _fixes(pending, event, at_limit=not failed)),
        order=float(len(found)),
    )


def _word(scaling: tuple[Event, ...]) -> Event:
    """The newest word of the autoscaler; where it only tries once more what has failed again and again, that it failed.

    A try in a zone of which nothing has failed is another one.
    """
    last = scaling[-1]
    failed = [event for event in scaling if event.reason == "FailedScaleUp"]
    if last.reason != "TriggeredScaleUp" or not failed or not last.last or not failed[-1].last:
        return last
    zones = re.findall(_ZONE, last.message)
    if zones and not any(re.search(rf"(?<![\w-]){zone}(?![\w-])", event.message) for event in failed for zone in zones):
        return last
    ago = (last.last - failed[-1].last).total_seconds()
    again = sum(max(event.count, 1) for event in failed) > 1
    return failed[-1] if ago <= (_AGAIN_SECONDS if again else 0) else last


def _of_workspace(subject: Subject, cluster: Cluster) -> list[Item]:
    """The machines that KAITO has asked for, before it makes a pod."""
    if subject.item is None or subject.item.kind != "Workspace":
        return []
    wanted = {"kaito.sh/workspace": subject.item.name, "kaito.sh/workspacenamespace": subject.namespace}
    return [claim for claim in cluster.items("NodeClaim") if wanted.items() <= claim.labels.items()]


def _none_of_type(subject: Subject) -> Iterator[Finding]:
    """A type of machine that the cloud has none of now, by the Workspace itself: KAITO deletes the NodeClaim that said so."""
    item = subject.item
    if item is None or item.kind != "Workspace":
        return
    told = next((c for c in item.conditions if c.status == "False" and _NO_MACHINE in c.message), None)
    if told is None:
        return
    kind = dig(item.raw, "resource.instanceType") or "of that type"
    yield Finding(
        summary=f"KAITO gets no machine {kind} from the cloud for {item.plain_kind}/{item.name}: there is none, or the quota is used up.",
        evidence=(object_evidence(item, f"status.conditions[{told.type}]", told.text),),
        explains=EXPLAINS,
        fix=fixes.platform(
            f"Ask for quota of {kind} in the region, where it is used up; else make {item.plain_kind}/{item.name} again with a "
            "resource.instanceType that the region has (it cannot be changed in one that exists), as KAITO does not try again by itself",
            "az vm list-usage --location REGION -o table",
            "kubectl get nodeclaims.karpenter.sh -o wide",
        ),
    )


def _with_gpus(pending: Pending) -> list[Item]:
    """The machines with accelerators that were asked for: by their requests, or by the names of their instance types."""
    found = []
    for claim in pending.pod.cluster.items("NodeClaim"):
        requests = dig(claim.raw, "spec.resources.requests")
        asked = isinstance(requests, dict) and not pending.accelerators.keys().isdisjoint(requests)
        types = (
            kind
            for row in rows(claim.raw, "spec.requirements")
            if row.get("key") == MACHINE
            for kind in words(row, "values")
        )
        if asked or any(re.match(_ACCELERATED, kind) for kind in types):
            found.append(claim)
    return found


def _unlaunched(claims: list[Item], cluster: Cluster, pending: Pending | None = None) -> Iterator[Finding]:
    """A machine that the cloud did not give: its NodeClaim is not launched, and says why.

    Karpenter keeps such a claim and tries again (pkg/controllers/nodeclaim/lifecycle/launch.go); one without capacity
    it deletes.
    """
    claim, reason, said = next(((claim, *why) for claim in claims if (why := _refusal(claim))), (None, "", ""))
    if claim is None:
        return
    code = re.search(_CODE, said)
    found = causes(pending) if pending else ()
    yield Finding(
        summary=f"Karpenter cannot launch the node {claim.name}: {sentence(code['error'] if code else said)}",
        evidence=(
            Evidence(
                source="node", ref=f"NodeClaim/{claim.name} status.conditions[Launched]", text=f"{reason}: {said}"
            ),
            *((event_evidence(e, pending.pod.cluster) for e in pending.scaling[-1:]) if pending else ()),
            *(said_by(pending) if pending else ()),
        ),
        explains=(*EXPLAINS, *(c.id for c in found)),
        fix=asked_of_cloud(said, claim, pool=_pool_of(claim.name, claim, cluster))
        or fixes.platform(
            "Ask the cloud for what it refuses (quota, rights, capacity); or allow other instance types or zones",
            f"kubectl describe nodeclaims.karpenter.sh {claim.name}",
        ),
        order=float(len(found)),
    )


def _pool_of(name: str, claim: Item | None, cluster: Cluster) -> Item | None:
    """The NodePool of a NodeClaim: by its label, or its name, which Karpenter makes of the pool's."""
    pool = claim.labels.get("karpenter.sh/nodepool", "") if claim else ""
    return cluster.item("NodePool", "", pool or name.rpartition("-")[0])


def _no_capacity(pending: Pending, names: list[str]) -> Iterator[Finding]:
    """The cloud has no machine of a kind now: Karpenter says so of the NodeClaim, which it then deletes.

    Where no NodeClaim is known to be for the pod, one counts whose kind of machine has accelerators, as a pod lacks that
    asks for some: in a cluster that gets none of them it is the same answer for all.
    """
    found, cluster = causes(pending), pending.pod.cluster
    if not found or found[0].id not in _MENDED:
        return
    told = [
        event
        for event in events_of(cluster).of_kind("NodeClaim")
        if event.reason == "InsufficientCapacityError"
        and (
            event.name in names if names else found[0].id.startswith("gpu-") and re.search(_ACCELERATED, event.message)
        )
    ]
    if not told:
        yield from _logged(pending, names, len(found))
        return
    event = max(told, key=lambda e: (e.last is not None, e.last.timestamp() if e.last else 0, e.name))
    code, claim = re.search(_CODE, event.message), cluster.item("NodeClaim", "", event.name)
    yield Finding(
        summary=f"Karpenter gets no machine from the cloud: {sentence(code['error'] if code else event.message)}",
        evidence=(event_evidence(event, cluster), *said_by(pending)),
        explains=(*EXPLAINS, *(c.id for c in found)),
        fixes=(
            asked_of_cloud(
                event.message, claim, pool=_pool_of(event.name, claim, cluster), of=event.name.rpartition("-")[0]
            )
            or fixes.platform(
                "Allow other instance types, zones or capacity types in the NodePool; reserve capacity where it must be this one",
                "kubectl get events -A --field-selector reason=InsufficientCapacityError",
            ),
            *_freeing(pending),
        ),
        order=float(len(found)),
    )


def _logged(pending: Pending, names: list[str], order: int) -> Iterator[Finding]:
    """The same by Karpenter's log, of the NodeClaims that were to be for the pod: their events are gone after an hour."""
    mine = []
    for _, log in pending.subject.controllers:
        said = [line for line in log.find(_LAUNCHES) if any(f'"{name}"' in line.text for name in names)]
        got = max((line.number for line in said if re.search(_LAUNCHED, line.text)), default=0)
        errors = (line for line in said if line.number > got and re.search(_ERROR, line.text))
        mine += [line for line in errors if not re.search(_OTHER_ERROR, line.text)]
    if not mine:
        return
    text = mine[-1].text
    error, message = error_of(text), re.search(_MESSAGE, text)
    if error == text and message:  # it is told in the message itself
        error = message[1]
    code = re.search(_QUOTA, error) or re.search(_CODE, error)
    yield Finding(
        summary=f"Karpenter gets no machine from the cloud: {sentence(code['error'] if code else error)}",
        evidence=(log_evidence(mine[-1], _LAUNCHES), *said_by(pending)),
        explains=(*EXPLAINS, *(c.id for c in causes(pending))),
        fix=asked_of_cloud(error, of=next((name.rpartition("-")[0] for name in names if f'"{name}"' in text), ""))
        or fixes.platform(
            "Ask the cloud for what it refuses (quota, rights, capacity); or allow other instance types or zones",
            "kubectl get nodeclaims.karpenter.sh -o wide",
        ),
        order=float(order),
        pods=(pending.pod.name,),
    )


def _asked(claim: Item) -> bool:
    """Whether a machine is still being asked for, by what its NodeClaim says."""
    return not claim.condition("Launched", "True") and not dig(claim.raw, "metadata.deletionTimestamp")


def _refusal(claim: Item) -> tuple[str, str] | None:
    """Reason and message of the attempt to launch a machine; None where it was launched or not tried yet."""
    launched = claim.condition("Launched")
    if launched is None or launched.status == "True" or launched.reason == _AWAITING or not launched.message:
        return None
    return launched.reason, launched.message


def _pool(pending: Pending, event: Event) -> Pool | None:
    """The pool that is meant for the pod and has no instance type for it or may not grow, if Karpenter says so of one.

    Taints and requirements were met where it came to instance types. Meant is a pool by its name, by a requirement that the
    pod's nodeSelector names, or by machines with accelerators where the pod asks for some: a pool for everybody says the
    same of a GPU that it never had. Limits are looked at before all else, so that one that is at its limit says nothing of
    that: it is meant by its name, or where all others are of another kind, and the nodes that are there, too.
    """
    said = pools(event.message)
    values = {str(value) for value in pending.pod.spec.node_selector.values()}
    for pool in said:
        named = any(str(value) in pool.allows(key) for key, value in pending.pod.spec.node_selector.items())
        has_gpus = pending.accelerators and (
            pool.accelerated or any(re.match(_ACCELERATED, kind) for kind in pool.allows(MACHINE))
        )
        if pool.typed and (named or has_gpus or "gpu" in pool.name.lower()):
            return pool
    found = causes(pending)
    other_kind = found and found[0].obstacle in ("selector", "taint")
    full = [pool for pool in said if pool.full]
    alone = len(full) == 1 and all(pool.taint or pool.demand for pool in said if not pool.full)
    for pool in full if other_kind else ():
        if pool.name in values or (not found[0].verdicts and (alone or "gpu" in pool.name.lower())):
            return pool
    return None


def _full(pending: Pending, event: Event) -> Pool | None:
    """The pool that has made the nodes with the GPUs that the pod asks for, or is called so, and may not grow.

    What other pools lack for the pod is not the point then: theirs are other machines.
    """
    makers = {
        verdict.node.labels.get("karpenter.sh/nodepool")
        for verdict in pending.verdicts
        if any(verdict.node.offers(resource) for resource in pending.accelerators)
    }
    full = (pool for pool in pools(event.message) if pool.full and pool.name)
    return next((p for p in full if pending.accelerators and (p.name in makers or "gpu" in p.name.lower())), None)


def _typeless(pending: Pending, pool: Pool, event: Event, found: tuple[Cause, ...]) -> Finding:
    """A pool whose instance types do not do: too small, not on offer now, or none of what is demanded."""
    at_limit = spent(pending, pool.name)
    why = f"NodePool {pool.name} may not grow, since {at_limit}" if at_limit else sentence(pool.words)
    return Finding(
        summary=f"Karpenter cannot add a node: {why}",
        evidence=(event_evidence(event, pending.pod.cluster), *said_by(pending)),
        explains=(*EXPLAINS, *(c.id for c in found)),
        fixes=tuple(_of_pool(pending, pool)),
        order=float(len(found)),
    )


def _of_pool(pending: Pending, pool: Pool) -> Iterator[Fix]:
    """What may be changed of a pool whose instance types do not do, by what Karpenter says of them, or by its limits."""
    if spent(pending, pool.name):  # another instance type or zone counts against the same limits
        yield raised(pending, pool.name)
        return
    small = _ROOMY not in pool.verdict and re.search(r"(?:enough|required|satisfied) resources", pool.verdict)
    offered = "offering" in pool.verdict
    if offered and (more := more_offers(pending, pool)):
        yield more
    disk = larger_disk(pending, pool.name) if small and "ephemeral-storage" in pool.asked else None
    if small and (few := more_pods(pending, pool)):
        yield few
        return
    if small and (other := of_nvidia(pending, pool)):
        yield other
        return
    fewer = without_daemons(pending, pool) if small else None
    made = larger(pending, pool) if small else None
    yield from filter(None, (fewer, made, disk))
    made = made or fewer
    if small and not offered and not made:
        yield fixes.platform(
            f"Allow larger instance types in {pool.title}: the pod takes {pool.asked}"
            if pool.asked
            else f"Allow larger instance types in {pool.title}, or ask for less",
            f"kubectl edit nodepools.karpenter.sh {shlex.quote(pool.name) if pool.name else ''}".rstrip(),
        )
    if offered:
        demanded = [*pool.allows("karpenter.sh/capacity-type"), *pool.allows(MACHINE)]
        now = f" (now {', '.join(demanded[:4])}{' …' * (len(demanded) > 4)})" if demanded else ""
        yield fixes.platform(
            f"Allow other zones, capacity types or instance types in {pool.title}{now}; what the cloud had none of is tried again "
            "by itself",
            "kubectl get events -A --field-selector reason=InsufficientCapacityError",
        )
    if not small and not offered:
        yield fixes.platform(f"Make the requirements of {pool.title} and of the pod name an instance type that exists")


def _short(event: Event) -> str:
    if is_provisioner(event.reporter) and "karpenter" in event.reporter:
        return next((part for part in event.message.split("; ") if "exceed limits" in part), event.message)
    said = parse(event.message.partition(": ")[2] or event.message)
    texts = [f"{c.number} {c.text}" for c in said.of("group-limit")]
    return ", ".join(texts) or event.message


def _freeing(pending: Pending) -> Iterator[Fix]:
    """To use what others hold, where a node has any of it."""
    nodes = pending.subject.nodes
    if not nodes or any(node.amounts.get(name) for node in nodes for name in pending.accelerators):
        yield fixes.platform("Free the GPUs that are there")


#: Compute Engine's names of its quotas for GPUs, by GKE's for their kinds.
_GPU_QUOTAS = {
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-h100-mega-80gb": "NVIDIA_H100_MEGA_GPUS",
    "nvidia-h200-141gb": "NVIDIA_H200_GPUS",
}
_GKE_SPOT = "cloud.google.com/gke-spot"
_GROUP = r"/projects/(?P<project>[a-z0-9-]{1,63})/zones/"
_ZONES = r"(?<![\w-])[a-z]{2,15}-[a-z]{3,20}\d{1,2}-[a-f](?![\w-])"


def _of_google(pending: Pending, event: Event) -> Fix | None:
    """What Compute Engine refused: a quota of the project, or machines that the zone has none of."""
    told = " ".join(e.message for e in pending.scaling)
    project, zones = re.search(_GROUP, told), list(dict.fromkeys(re.findall(_ZONES, event.message)))
    quota = re.search(r"(?i)quota[ _]exceeded", event.message)
    empty = re.search(r"(?i)out of resources|STOCKOUT|does not have enough resources", event.message)
    if not zones or not (quota or empty):
        return None
    selector = {key: str(value) for key, value in pending.pod.spec.node_selector.items()}
    kind, spot = selector.get(GKE_GPU, ""), selector.get(_GKE_SPOT) == "true"
    where, of = f"--project={project['project']}" if project else "--project=PROJECT", f"{kind} " if kind else ""
    region = zones[0].rpartition("-")[0]
    if quota:
        name = ("PREEMPTIBLE_" if spot else "") + _GPU_QUOTAS.get(kind, "that of its GPUs")
        return fixes.platform(
            f"Raise the quota of the project in {region} that is full: {name}, or GPUS_ALL_REGIONS (0 in new projects), or that of CPUs, "
            "disks or addresses; below, a quota whose usage has come to its limit",
            f"gcloud compute regions describe {region} {where} --flatten=quotas "
            "--format='table(quotas.metric,quotas.usage,quotas.limit)'",
            f"gcloud compute project-info describe {where} --flatten=quotas --format='table(quotas.metric,quotas.usage,quotas.limit)'",
        )
    return fixes.platform(
        f"Google has no {of}machine in {', '.join(zones)} now: let the node pool use other zones of {region} that have them, or ask for "
        f"{'on-demand machines' if spot else 'spot machines'}, another GPU or a reservation; it is tried again by itself",
        f"gcloud compute accelerator-types list {where} --filter='zone~{region}'" + (f" | grep {kind}" if kind else ""),
        "gcloud container node-pools update POOL --cluster=CLUSTER --node-locations=ZONES",
    )


def _fixes(pending: Pending, event: Event, *, at_limit: bool) -> Iterator[Fix]:
    of_google = _of_google(pending, event)
    if at_limit:
        yield grown(pending, event.message)
    elif of_google:
        yield of_google
    else:
        yield fixes.platform(
            "Look for the cloud's own error (quota, capacity) at the node group; allow other zones or instance types",
            "kubectl get events -A --field-selector reason=FailedScaleUp",
        )
    yield from _freeing(pending)
