"""A ResourceClaim that is not allocated."""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Events,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    NodeVerdict,
    Pending,
    Pod,
    Reason,
    check,
    count_of,
    dig,
    event_evidence,
    expression,
    fixes,
    k8s,
    log_evidence,
    names_of,
    pod_evidence,
    rows,
    say_seconds,
    table,
)
from llmdoctor_checks.scheduling._admission import (
    ending_drivers,
    images_of,
    last_errors,
    let_made,
    said_by,
    state_of,
    unmade_plugin,
)
from llmdoctor_checks.scheduling._claims import DeviceClaim, device_claims
from llmdoctor_checks.scheduling._daemons import let_in, why_none
from llmdoctor_checks.scheduling._daemons import missing as unmade
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._plugin_repairs import driver_of_amd, shortened
from llmdoctor_checks.scheduling._separation import cause, causes
from llmdoctor_checks.scheduling._words import EXPLAINS, asking, finding, lower, node_lines, shared_by, told_of

#: How long the scheduler may take to say something about a new pod.
_SILENT_SECONDS = 10
#: How the API server refuses a claim that a template was to make.
_OVER_QUOTA = "exceeded quota: "
#: How the scheduler says that a class is not there.
_LACKED = expression(r"device class (?P<name>[\w.-]{1,253}) does not exist")


class _Silent(msgspec.Struct, frozen=True):
    """Why no node offers devices of a driver: in words that end a sentence, what shows it, and what helps."""

    why: str
    evidence: list[Evidence]
    ways: list[Fix]
    #: whether nothing else helps
    alone: bool = True


@check("dra-claim-pending", since="0.1")
def dra_claim_pending(pending: Pending, events: Events | None) -> Iterator[Finding]:
    """No devices are allocated for a ResourceClaim of the pod.

    With Dynamic Resource Allocation a pod asks for devices through claims. A claim is allocated together with the
    choice of the node. It stays open when the DeviceClass it names does not exist, when no device matches its
    selectors, or when all that match are taken: also by a claim that was deleted and whose finalizer stays. Nothing is
    taken from a pool of which the driver has published only some slices, and free devices do not help a claim whose
    constraints they do not meet together. A pod that names a claim which does not exist waits without a condition and
    without an event.

    ## Fix

    Create what is missing, name a DeviceClass that exists, or relax the selector.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
    """
    if pending.gates:
        return
    found = cause(pending, "dra-claim-pending")
    if events and any(_OVER_QUOTA in e.message for e in events.of("FailedResourceClaimCreation")[-1:]):
        return  # quota-exceeded says so
    claims = list(device_claims(pending.pod))
    absent = list(_missing(pending, claims, events)) if found or not causes(pending) else []
    if absent:
        yield from absent
    elif found:
        yield from _refused(pending, found, claims)


def _refused(pending: Pending, found: Cause, claims: list[DeviceClaim]) -> Iterator[Finding]:
    open_ = [c for c in claims if not c.allocated] or claims
    requests = [(c, r) for c in open_ for r in c.requests(pending.pod.cluster, pending.pod.namespace)]
    words = "; ".join(dict.fromkeys([c.text for c in found.counts] or [r.detail for r in found.reasons]))
    names = ", ".join(c.claim or c.template or c.name for c in open_) or "of it"
    older = next((c for c in open_ if _of_older_template(pending.pod, c)), None)
    replaced = [_with_newer_claim(pending.pod, older)] if older else []
    if missing := _missing_class(pending, words, [r for _, r in requests]):
        have = ", ".join(_classes(pending))
        summary = f"Its claim {names} asks for DeviceClass {missing}, which does not exist" + (
            f" (there is {have})." if have else "."
        )
        evidence = [*_quotes(requests), *node_lines(pending, found)]
        ways = replaced or _by_words(pending, words, open_, missing, requests)
        yield finding(pending, found, summary, evidence, ways)
        return
    asked = [str(r.get("deviceClassName")) for _, r in requests]
    kept = _lingering(pending, asked)
    silent = _unoffered(pending, asked) or _silent(pending, asked or _classes(pending))
    evidence = [*_quotes(requests), *(_lingers(item) for item in kept[:3]), *node_lines(pending, found)]
    evidence += silent.evidence if silent else []
    freed = [*_released(kept), *(silent.ways if silent else [])]
    if elsewhere := "; ".join(dict.fromkeys(m.demand for r in found.reasons for m in r.mismatches)):
        summary = f"The devices of its claim {names} were chosen already and are only where {elsewhere}, and it cannot run there."
        ways = [_own_claim(pending, open_)]
    elif special := _of_its_devices(pending, found, names, open_, requests):
        summary, ways = special[0], replaced or [*freed, *special[1]]
    else:
        summary = _unallocated(names, words, requests)
        known = silent is not None and silent.alone
        ways = replaced or [*freed, *([] if known else _by_words(pending, words, open_, "", requests))]
    yield finding(pending, found, summary + _and_why_none(kept, silent), evidence, ways)


def _unallocated(names: str, words: str, requests: list[tuple[DeviceClaim, dict[str, Any]]]) -> str:
    """That no node has what a claim asks for, by its first selector or else in the scheduler's words."""
    selector = next((s for _, r in requests for s in _selectors(r)), None)
    return f"No node can allocate its claim {names}: {f'no free device satisfies {selector}' if selector else words}."


def _and_why_none(kept: list[Item], silent: _Silent | None) -> str:
    """What keeps devices, and why no node offers any, as sentences that follow."""
    said = ""
    if kept:
        one = len(kept) == 1
        said += f" {count_of(len(kept), 'claim')} that {'is' if one else 'are'} deleted and not gone"
        said += f" {'keeps' if one else 'keep'} devices: "
        said += ", ".join(f"{item.namespace}/{item.name}" for item in kept[:3]) + "."
    if silent:
        said += f" No node offers such devices: {silent.why}."
    return said


def _by_words(
    pending: Pending,
    words: str,
    claims: list[DeviceClaim],
    missing: str,
    requests: list[tuple[DeviceClaim, dict[str, Any]]],
) -> list[Fix]:
    """What helps a claim that nothing but the scheduler's words tells of."""
    return [_of_controller(pending, claims)] if _CONTROLLER in words else [*_fixes(pending, missing, requests)]


def _of_its_devices(
    pending: Pending,
    found: Cause,
    names: str,
    claims: list[DeviceClaim],
    requests: list[tuple[DeviceClaim, dict[str, Any]]],
) -> tuple[str, list[Fix]] | None:
    """What the devices of the nodes lack beside being free, and what helps."""
    none = f"No node can allocate its claim {names}: "
    if apart := list(dict.fromkeys(name for r in found.reasons for name in r.constraints)):
        what = ", ".join(apart)
        return f"{none}enough devices are free, but not with the {what} that it demands.", [
            _unconstrained(pending.pod, claims, apart)
        ]
    if partial := [v for v in found.verdicts if any(r.partial_pools for r in found.on(v))]:
        told = f"{none}{_incomplete(partial)}, and the scheduler takes nothing from such a pool."
        return told, [_published(partial)]
    if too_many := _beyond_any_node(found):
        asked, most = too_many[0].asked, max(r.allocatable or 0 for r in too_many)
        if not claims:
            told = f"It asks for {asked} {found.resource}, which DRA serves here, and no node has more than {most}."
            return told, [_fewer_of(pending, found.resource, most)]
        told = f"Its claim {names} asks for {asked} devices on one node, and no node has more than {most} such."
        return told, [_fewer_devices(pending, requests, asked, most)]
    if tainted := [v for v in found.verdicts if any(_tainted(r) for r in found.on(v))]:
        reasons = [r for v in tainted for r in found.on(v)]
        taints = ", ".join(dict.fromkeys(t for r in reasons for t in r.device_taints))
        told = f"{none}the {count_of(sum(r.tainted for r in reasons), 'device')} that nobody has "
        told += f"on {names_of(tainted)} may not be given away, as they have the taint {taints}."
        return told, [_untainted(taints, tainted)]
    return None


def _tainted(reason: Reason) -> bool:
    """Whether a node had enough of the devices without their taints."""
    return bool(reason.tainted) and (reason.free or 0) + reason.tainted >= reason.asked > 0


def _untainted(taints: str, on: list[NodeVerdict]) -> Fix:
    """What a taint of a device asks for: its driver, or a person by a DeviceTaintRule, has taken the device out of use."""
    return fixes.platform(
        f"See why devices of {names_of(on)} have the taint {taints}: the driver's log there says what is wrong with them, and it takes the "
        "taint away when that is mended (a reset, a new machine); else a DeviceTaintRule of yours sets it. Let the claim's request "
        "tolerate it only where such a device will do",
        "kubectl get devicetaintrules",
        "kubectl get resourceslices -o yaml",
        *(f"kubectl get pods -A -o wide --field-selector spec.nodeName={verdict.node.name}" for verdict in on[:1]),
    )


def _beyond_any_node(found: Cause) -> list[Reason]:
    """Where a request of the claim is for more devices than match it on any node."""
    reasons = [r for v in found.verdicts for r in found.on(v)]
    beyond = [r for r in reasons if r.asked > (r.allocatable or 0)]
    return beyond if len(beyond) == len(reasons) and any(r.allocatable for r in beyond) else []


def _fewer_devices(pending: Pending, requests: list[tuple[DeviceClaim, dict[str, Any]]], asked: int, most: int) -> Fix:
    """As many devices as the largest node has, or another node."""
    claim = next((c for c, r in requests if r.get("count") == asked), None)
    kind = "ResourceClaimTemplate" if claim and claim.template else "ResourceClaim"
    where = f" of {kind} {claim.template or claim.claim}" if claim else ""
    engines = pending.subject.engines(pending.pod)
    engine = next((one for one in engines if one.value("tensor_parallel_size") == asked), None)
    count = pending.subject.sizing(engine).splits(most) if engine else most
    text = (
        f"Ask for {count_of(count, 'device')} instead of {asked} in the request{where} (count; {_anew(kind)}), and "
        f"tell the engine as many (tensor parallel size), if the model fits on them; or bring nodes with {asked}"
    )
    told = fixes.replaced_flag(engine, "tensor_parallel_size", str(count)) if engine else []
    then = fixes.patch(pending.pod, "", told).commands if told else ()

    def fewer(request: dict[str, Any]) -> dict[str, Any]:
        return {**request, "count": count} if request.get("count") == asked else request

    return _of_other_requests(pending.pod, claim, text, fewer, then=then) or fixes.advice(
        text,
        "kubectl get resourceslices -o custom-columns=NODE:.spec.nodeName,DRIVER:.spec.driver,DEVICES:.spec.devices[*].name",
    )


def _anew(kind: str) -> str:
    """How it is changed: the API server changes the spec of neither, and no claim that exists follows its template."""
    told = "its spec is not changed but made anew"
    return f"{told}, and so is a pod whose claim is of the old one" if kind == "ResourceClaimTemplate" else told


def _of_other_requests(
    pod: Pod,
    claim: DeviceClaim | None,
    text: str,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    then: tuple[str, ...] = (),
) -> Fix | None:
    """The claim or its template made anew with other requests; `then` replaces the pod, which is deleted else."""

    def changed(request: dict[str, Any]) -> dict[str, Any]:
        if options := rows(request, "firstAvailable"):
            return {**request, "firstAvailable": [change(option) for option in options]}
        exactly = request.get("exactly")
        return {**request, "exactly": change(exactly)} if isinstance(exactly, dict) else change(request)

    devices = _devices(pod, claim) if claim else {}
    asked = rows(devices, "requests")
    if claim is None or not asked or [changed(request) for request in asked] == asked:
        return None
    return _remade(pod, claim, text, {**devices, "requests": [changed(request) for request in asked]}, then=then)


def _source(pod: Pod, claim: DeviceClaim) -> Item | None:
    """What a person writes a claim in: its template, where it has one."""
    if claim.template:
        return pod.cluster.item("ResourceClaimTemplate", pod.namespace, claim.template)
    return claim.item


def _devices(pod: Pod, claim: DeviceClaim) -> dict[str, Any]:
    item = _source(pod, claim)
    return table(dig(item.raw, "spec.spec.devices" if claim.template else "spec.devices")) if item else {}


def _of_older_template(pod: Pod, claim: DeviceClaim) -> bool:
    """Whether the claim was made of its template before that came to ask for something else."""
    now = _devices(pod, claim) if claim.template and claim.item else {}
    mine = table(dig(claim.item.raw, "spec.devices")) if claim.item else {}
    return bool(now) and any(rows(now, of) != rows(mine, of) for of in ("requests", "constraints"))


def _with_newer_claim(pod: Pod, claim: DeviceClaim) -> Fix:
    return fixes.advice(
        f"Delete pod {pod.name}, whose claim {claim.claim} is of ResourceClaimTemplate {claim.template} as it was: that asks for "
        f"something else by now, and only a new pod gets a claim of it{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )


def _remade(
    pod: Pod, claim: DeviceClaim, text: str, devices: dict[str, Any], *, then: tuple[str, ...] = ()
) -> Fix | None:
    item = _source(pod, claim)
    if item is None:
        return None
    if not claim.template:
        fix = fixes.recreate(item, text, {"devices": devices})
        return msgspec.structs.replace(fix, commands=(*fix.commands, *then))
    spec = {**table(dig(item.raw, "spec.spec")), "devices": devices}
    fix = fixes.recreate(item, text if then else text + fixes.lone(pod), {"spec": spec})
    gone = then or (f"kubectl -n {pod.namespace} delete pod {pod.name}",)
    return msgspec.structs.replace(fix, commands=(*fix.commands, *gone))


def _fewer_of(pending: Pending, resource: str, most: int) -> Fix:
    """Less of an extended resource for which the scheduler makes a claim."""
    containers = asking(pending, resource)
    if len(containers) > 1:
        return fixes.advice(f"Ask for at most {most} {resource} in all containers together")
    count, told = shared_by(pending, containers[0], most)
    text = f"Ask for {count} {resource} instead of {pending.requests[resource]}{told}"
    return lower(containers[0], resource, str(count), text, told_of(pending, containers[0], count))


def _incomplete(on: list[NodeVerdict]) -> str:
    """How much of the first pool is there."""
    node = on[0].node
    pool = next(name for reason in on[0].reasons for name in reason.partial_pools)
    slices = [i.raw for i in node.cluster.items("ResourceSlice") if dig(i.raw, "spec.pool.name") == pool]
    newest = max((int(dig(s, "spec.pool.generation") or 0) for s in slices), default=0)
    current = [s for s in slices if int(dig(s, "spec.pool.generation") or 0) == newest]
    whole = next((dig(s, "spec.pool.resourceSliceCount") for s in current), "?")
    others = f", and such of {len(on) - 1} more" if len(on) > 1 else ""
    return f"the driver has published {len(current)} of {whole} slices of pool {pool}{others}"


def _published(on: list[NodeVerdict]) -> Fix:
    """Slices of a pool that are missing: the driver's plugin on the node writes them."""
    return fixes.platform(
        f"See in the log of the DRA driver's plugin on {names_of(on)} why it has not published all slices of its pool, and restart it "
        "there: it publishes them anew (until then its devices cannot be had)",
        "kubectl get resourceslices -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,POOL:.spec.pool",
        f"kubectl get pods -A -o wide --field-selector spec.nodeName={on[0].node.name}",
    )


def _unconstrained(pod: Pod, claims: list[DeviceClaim], attributes: list[str]) -> Fix:
    """Devices that need not share an attribute."""

    def demanded(claim: DeviceClaim) -> list[dict[str, Any]]:
        return rows(_devices(pod, claim), "constraints")

    def meant(constraint: dict[str, Any]) -> bool:
        return constraint.get("matchAttribute") in attributes or constraint.get("distinctAttribute") in attributes

    of = next((c for c in claims if any(meant(one) for one in demanded(c))), None)
    claim = of or next((c for c in claims if c.template), None) or next(iter(claims), None)
    kind = "ResourceClaimTemplate" if claim and claim.template else "ResourceClaim"
    where = f"{kind} {claim.template or claim.claim}" if claim else "the claim"
    text = (
        f"Drop the constraint on {', '.join(attributes)} from {where} ({_anew(kind)}), or ask for fewer devices: "
        "on no node are as many free that meet it"
    )
    if of:
        kept = [one for one in demanded(of) if not meant(one)]
        devices = {key: value for key, value in _devices(pod, of).items() if key != "constraints"}
        if fix := _remade(pod, of, text, devices | ({"constraints": kept} if kept else {})):
            return fix
    return fixes.advice(text, "kubectl get resourceslices -o yaml")


def _own_claim(pending: Pending, claims: list[DeviceClaim]) -> Fix:
    """Another claim in place of one whose devices are where the pod cannot run."""
    names = ", ".join(c.claim for c in claims if c.claim and c.allocated) or "the claim"
    users = [str(row.get("name")) for c in claims if c.item for row in rows(c.item.raw, "status.reservedFor")]
    shared = (
        f" which {', '.join(users[:3])} {'uses' if len(users) == 1 else 'use'}"
        if users
        else " which has its devices already"
    )
    return fixes.advice(
        f"Give {fixes.edited(pending.pod)} a claim of its own (resourceClaimTemplateName) in place of {names},{shared}; or free what it "
        "lacks where these devices are",
        f"kubectl -n {pending.pod.namespace} get resourceclaims {names.partition(',')[0]} -o yaml",
    )


#: Of classic DRA (up to 1.31): the controller of the driver is asked to choose devices, and has not answered.
_CONTROLLER = "waiting for resource driver"


def _of_controller(pending: Pending, claims: list[DeviceClaim]) -> Fix:
    """What answers the scheduler in classic DRA: a controller of the driver, fed by its plugin on the nodes."""
    found = (str(dig(claim.item.raw, "spec.resourceClassName") or "") for claim in claims if claim.item)
    driver = next(filter(None, found), "")
    return fixes.platform(
        f"Fix the DRA driver{f' of class {driver}' if driver else ''}: its controller has chosen no devices for the claim. See that the "
        "controller and its plugin on the GPU nodes run and what their logs say (drivers of this kind ended with Kubernetes 1.32; newer "
        "ones publish ResourceSlices)",
        "kubectl get pods -A -o wide | grep -i dra",
        f"kubectl -n {pending.pod.namespace} get resourceclaims,podschedulingcontexts -o yaml",
    )


def _offering_nothing(pending: Pending, classes: list[str]) -> list[str]:
    """The drivers of classes of which there is no device at all."""
    publishing = {str(dig(item.raw, "spec.driver")) for item in pending.pod.cluster.items("ResourceSlice")}
    return sorted(_drivers_of(pending, classes) - publishing)


def _unoffered(pending: Pending, classes: list[str]) -> _Silent | None:
    """That the DaemonSet of a driver makes no pod where devices could be.

    Nothing where a driver of the claim offers any: what is asked for is another thing then.
    """
    cluster, drivers = pending.pod.cluster, _drivers_of(pending, classes)
    if drivers - {*_offering_nothing(pending, classes)}:
        return None
    nodes = [node for node in pending.subject.nodes if not node.control_plane]
    likely = [node for node in nodes if node.should_offer("nvidia.com/gpu")]
    found = [unmade(cluster, likely or nodes, driver) for driver in sorted(drivers)]
    without = next((one for one in found if one and (likely or len(one) == len(nodes))), [])
    if not without:
        return None
    evidence = [proof for one in without[:1] for proof in one.evidence]
    return _Silent(why_none(without), evidence, [*let_in(without, known=bool(likely))], alone=False)


def _silent(pending: Pending, classes: list[str]) -> _Silent | None:
    """Why a driver that goes to the nodes offers nothing: none of its pods may be made, or none stays up."""
    cluster = pending.pod.cluster
    for driver in _offering_nothing(pending, classes):
        if made := unmade_plugin(cluster, driver):
            item, event = made
            why = f"no pod of DaemonSet {item.name} is let into namespace {item.namespace}"
            return _Silent(why, [event_evidence(event, cluster)], [let_made(made)])
        if ending := ending_drivers(cluster, driver):
            return _of_ending(ending, cluster)
    return None


#: What NVIDIA's driver before 0.4.0 ends with at a GPU without memory of its own (`cmd/gpu-kubelet-plugin/nvlib.go`).
_NO_MEMORY = expression(r"error getting memory info for device \d{1,3}: (?:Not Supported|ERROR_NOT_SUPPORTED)")


#: The releases of NVIDIA's driver since then, which are numbered by themselves no more by the year.
_KNOWS_UNIFIED = expression(r":v?(?:0\.(?:[4-9]|\d\d)|[1-9]\.\d)")

#: What its init container prints while it waits for the GPUs' driver (`hack/kubelet-plugin-prestart.sh`), and AMD's.
_NO_DRIVER, _ELSEWHERE, _NO_AMDGPU = (
    "Has the NVIDIA GPU driver been set up?",
    "exists on the host, you may want to re-install",
    "amdgpu driver is not loaded",
)
_SET_TO = expression(r"currently set to '(?P<root>/[\w./-]{0,200})'")


def _of_ending(pods: list[k8s.Pod], cluster: Cluster) -> _Silent:
    """That no pod of a driver stays up, with the last error of one of them."""
    last = {pod.metadata.name: last_errors(cluster, pod)[-1:] for pod in pods}
    pod = max(pods, key=lambda one: len(last[one.metadata.name]))
    name, where = pod.metadata.name, f"-n {pod.metadata.namespace or 'default'}"
    waits = _waits_for_driver(pod, cluster)
    said = [waits[0]] if waits else last[name]
    state = state_of(pod).partition(",")[0]
    words = "waits for the driver of the GPUs" if waits else shortened(said[0], 100) if said else ""
    why = f"pod {name} of its driver does not run on {pod.spec.node_name} ({state}{f': {words}' if words else ''})"
    look = [f"kubectl {where} describe pod {name}"]
    if any(one.restart_count for one in pod.status.of_containers):
        look.insert(0, f"kubectl {where} logs {name} --all-containers --prefix --previous")
    text = f"Fix what keeps pod {name} of the driver on {pod.spec.node_name} from running: it publishes the node's devices then"
    image = next(iter(images_of(pod)), "")
    if said and _NO_MEMORY.search(said[0].text[:2000]) and not _KNOWS_UNIFIED.search(image):
        text = (
            f"Take NVIDIA's DRA driver 0.4.0 or later on {pod.spec.node_name} (now {image or 'an earlier one'}): those "
            "before end at a GPU without memory of its own"
        )
    evidence = [
        Evidence(source="pod", ref=f"{pod.metadata.namespace or 'default'}/{name}", text=f"driver: {state_of(pod)}")
    ]
    return _Silent(why, [*evidence, *map(log_evidence, said)], [waits[1] if waits else fixes.platform(text, *look)])


def _waits_for_driver(pod: k8s.Pod, cluster: Cluster) -> tuple[Line, Fix] | None:
    """What the init container of a driver of claims waits for, where that is the driver of the GPUs; and what brings that."""
    node = pod.spec.node_name or "?"
    if (line := said_by(cluster, pod, _NO_AMDGPU)) is not None:
        return line, driver_of_amd(node, loaded=False)
    if (line := said_by(cluster, pod, _NO_DRIVER)) is None:
        return None
    chart = f"helm -n {pod.metadata.namespace or 'default'} list"
    if said_by(cluster, pod, _ELSEWHERE) is not None:
        return line, fixes.platform(
            "Set nvidiaDriverRoot=/run/nvidia/driver in the chart of NVIDIA's DRA driver: the GPU operator has its driver there",
            chart,
        )
    at = _SET_TO.search(line.text[:2000])
    root = at["root"] if at else "nvidiaDriverRoot"
    return line, fixes.platform(
        f"Install the NVIDIA driver on {node}, or see why the GPU operator's driver pod there does not bring it; where it is there, name "
        f"its folder in nvidiaDriverRoot of the DRA driver's chart (now {root}; /home/kubernetes/bin/nvidia on GKE)",
        fixes.on_node(node, "nvidia-smi"),
        chart,
    )


def _lingering(pending: Pending, classes: list[str]) -> list[Item]:
    """Claims that were deleted long ago and keep such devices: a finalizer stays until what used them is known to have ended."""
    cluster, drivers, found = pending.pod.cluster, _drivers_of(pending, classes), []
    for item in cluster.items("ResourceClaim"):
        if (cluster.seconds_since(dig(item.raw, "metadata.deletionTimestamp")) or 0) <= _LINGER_SECONDS:
            continue
        if any(str(row.get("driver")) in drivers for row in rows(item.raw, "status.allocation.devices.results")):
            found.append(item)
    return found


def _drivers_of(pending: Pending, classes: list[str]) -> set[str]:
    """The drivers of classes of devices."""
    cluster = pending.pod.cluster
    return {driver for name in classes for driver in _drivers(cluster.item("DeviceClass", "", name), name)}


def _drivers(of_class: Item | None, name: str) -> list[str]:
    """The drivers whose devices are of a class, by its expressions; where it has none that tells, it is often called like its driver."""
    said = " ".join(_selectors(dig(of_class.raw, "spec") or {})) if of_class else ""
    return re.findall(r"device\.driver == [\'\"]([\w.-]{1,253})", said) or [name]


def _lingers(item: Item) -> Evidence:
    users = ", ".join(str(row.get("name")) for row in rows(item.raw, "status.reservedFor")) or "nobody"
    when = dig(item.raw, "metadata.deletionTimestamp")
    return Evidence(
        source="pod", ref=f"ResourceClaim/{item.name}", text=f"deletionTimestamp {when}; reserved for {users}"
    )


def _released(kept: list[Item]) -> Iterator[Fix]:
    for item in kept[:1]:
        yield fixes.platform(
            f"Make sure that no process of what {item.namespace}/{item.name} was for is left, then let go of the claim: "
            "end its pod, or take it out of status.reservedFor",
            f"kubectl -n {item.namespace} get resourceclaims {item.name} -o yaml",
        )


def _classes(pending: Pending) -> list[str]:
    return sorted(i.name for i in pending.pod.cluster.items("DeviceClass"))


def _missing_class(pending: Pending, words: str, requests: list[dict[str, Any]]) -> str:
    cluster = pending.pod.cluster
    for request in requests:
        name = request.get("deviceClassName")
        there = cluster.exists("DeviceClass", "", name) if isinstance(name, str) else True
        # it may have been made since the scheduler said so
        if isinstance(name, str) and not there and (there is False or f"device class {name} does not exist" in words):
            return name
    before, _, _ = words.partition(" does not exist")
    said = before.rpartition("device class ")[2] if "device class " in before and "does not exist" in words else ""
    return "" if said and cluster.exists("DeviceClass", "", said) else said


def _selectors(request: dict[str, Any]) -> Iterator[str]:
    for selector in rows(request, "selectors"):
        cel = selector.get("cel")
        if isinstance(cel, dict) and isinstance(cel.get("expression"), str):
            yield " ".join(cel["expression"].split())


def _quotes(requests: list[tuple[DeviceClaim, dict[str, Any]]]) -> Iterator[Evidence]:
    for claim, request in requests[:3]:
        ref = f"ResourceClaim/{claim.claim}" if claim.item else f"ResourceClaimTemplate/{claim.template}"
        amount = "all of a node" if request.get("allocationMode") == "All" else f"count {request.get('count', 1)}"
        text = f"{request.get('name')}: deviceClassName {request.get('deviceClassName')}, {amount}"
        yield Evidence(source="pod", ref=ref, text="; ".join([text, *_selectors(request)]))


def _fixes(pending: Pending, missing: str, requests: list[tuple[DeviceClaim, dict[str, Any]]]) -> Iterator[Fix]:
    """What gives the claim its devices: a class that is there, a claim that is made, devices that are free and fit."""
    lacked = _LACKED.search(pending.message)
    allocating = "cannot allocate" in pending.message  # it has been made then
    if missing:
        yield from _of_a_missing_class(pending, missing, requests)
    elif lacked:
        yield fixes.platform(
            f"Wait for the scheduler, which tries again by itself: DeviceClass {lacked['name']}, which it did not find, is there by now",
            f"kubectl -n {pending.pod.namespace} describe pod {pending.pod.name}",
        )
    elif not allocating and any(_UNMADE in reason.detail for verdict in pending.verdicts for reason in verdict.reasons):
        yield _why_not_made(pending)
    else:
        yield _other_devices(pending, requests)


def _named_by(requests: list[tuple[DeviceClaim, dict[str, Any]]]) -> tuple[str, str]:
    """The kind of the object in which requests stand, and the object in words."""
    template = next((claim.template for claim, _ in requests if claim.template), "")
    kind = "ResourceClaimTemplate" if template else "ResourceClaim"
    name = template or next((claim.claim for claim, _ in requests), "")
    return kind, f"{kind} {name}" if name else "the claim"


def _of_a_missing_class(
    pending: Pending, missing: str, requests: list[tuple[DeviceClaim, dict[str, Any]]]
) -> Iterator[Fix]:
    """The class of devices that was meant, else the driver that brings the one that is named."""
    have = _classes(pending)
    alike = [name for name in have if _kinds(name) & _kinds(missing)]
    if near := difflib.get_close_matches(missing, alike, n=1, cutoff=0):
        yield _of_class(pending, near[0], missing, requests)
    if missing not in _NVIDIA_GPUS:
        yield fixes.platform(f"Install the DRA driver that brings {missing}")
    elif any(name.startswith("compute-domain-") for name in have):
        yield fixes.platform(
            "Have NVIDIA's DRA driver serve GPUs, too, which its chart leaves out by default: resources.gpus.enabled=true "
            "and gpuResourcesEnabledOverride=true"
        )
    else:
        yield fixes.platform(
            f"Install NVIDIA's DRA driver (chart nvidia-dra-driver-gpu) with GPUs switched on, which makes DeviceClass {missing}; "
            "where the GPU operator brings the driver add nvidiaDriverRoot=/run/nvidia/driver, on GKE /home/kubernetes/bin/nvidia. Its "
            "nodes' device plugin must go, which hands the same GPUs out",
            "helm upgrade --install nvidia-dra-driver-gpu nvidia-dra-driver-gpu --repo https://helm.ngc.nvidia.com/nvidia "
            "-n nvidia-dra-driver-gpu --create-namespace --set resources.gpus.enabled=true --set gpuResourcesEnabledOverride=true",
        )


def _of_class(pending: Pending, name: str, missing: str, requests: list[tuple[DeviceClaim, dict[str, Any]]]) -> Fix:
    """The name of a class that is there, in each request that names one that is not."""
    kind, where = _named_by(requests)
    text = f"Name {name} instead of {missing} in {where}"
    naming = next((claim for claim, request in requests if request.get("deviceClassName") == missing), None)

    def named(request: dict[str, Any]) -> dict[str, Any]:
        return {**request, "deviceClassName": name} if request.get("deviceClassName") == missing else request

    patch = _of_other_requests(pending.pod, naming, f"{text} ({_anew(kind)})", named)
    return patch or fixes.advice(text, "kubectl get deviceclasses")


def _other_devices(pending: Pending, requests: list[tuple[DeviceClaim, dict[str, Any]]]) -> Fix:
    """Devices for a claim that none of the nodes has free: by another selector where there is one, else free ones."""
    kind, where = _named_by(requests)
    said, of = next(((s, request) for _, request in requests for s in _selectors(request)), ("", None))
    asked = [of] if of else [request for _, request in requests]
    count = max((n for request in asked if isinstance(n := request.get("count"), int)), default=1)
    if said:
        text = f"Relax the selector {said} in {where} to devices that there are{_such(pending, said)} ({_anew(kind)})"
        text += f", {count} of them on one node" if count > 1 else ""
    elif any(request.get("allocationMode") == "All" for request in asked):
        text = f"Free all such devices of one node for {where}, which takes no fewer (allocationMode All)"
    else:
        text = f"Free or add {count_of(count, 'device')} for {where}"
    if not said and (users := _users(pending)):
        others = " and others" if len(users) > 3 else ""
        text += f": {', '.join(users[:3])}{others} {'has' if len(users) == 1 else 'have'} some"
    return fixes.advice(
        text, "kubectl get resourceslices -o yaml", f"kubectl -n {pending.pod.namespace} get resourceclaims"
    )


#: What a selector compares: `device.attributes['gpu.nvidia.com'].productName`.
_COMPARED = expression(r"device\.(attributes|capacity)\[['\"]([\w.-]{1,253})['\"]\]\.(\w{1,63})")


def _such(pending: Pending, selector: str) -> str:
    """What the devices of the nodes have of that which a selector compares first."""
    compared = _COMPARED.search(selector)
    if compared is None:
        return ""
    kind, driver, name = compared.groups()
    nodes, found = {verdict.node.name for verdict in pending.verdicts}, set[str]()
    for item in pending.pod.cluster.items("ResourceSlice"):
        if dig(item.raw, "spec.driver") != driver or dig(item.raw, "spec.nodeName") not in nodes:
            continue
        for device in rows(item.raw, "spec.devices"):
            values = table((table(device.get("basic")) or device).get(kind))
            value = values.get(name, values.get(f"{driver}/{name}"))
            found |= {str(one) for one in (value.values() if isinstance(value, dict) else [value]) if one is not None}
    return f", whose {name} is {' or '.join(sorted(found)[:3])}" if found else ""


def _users(pending: Pending) -> list[str]:
    """The pods that have devices of the nodes that could run it, by the claims that are reserved for them."""
    cluster, nodes = pending.pod.cluster, {verdict.node.name for verdict in pending.verdicts}
    slices = [item.raw for item in cluster.items("ResourceSlice")]
    pools = {
        (str(dig(s, "spec.driver")), str(dig(s, "spec.pool.name"))) for s in slices if dig(s, "spec.nodeName") in nodes
    }
    users = [
        f"{item.namespace}/{row.get('name')}"
        for item in cluster.items("ResourceClaim")
        if any(
            (str(r.get("driver")), str(r.get("pool"))) in pools
            for r in rows(item.raw, "status.allocation.devices.results")
        )
        for row in rows(item.raw, "status.reservedFor")
    ]
    return sorted(dict.fromkeys(users))


def _why_not_made(pending: Pending) -> Fix:
    """What says why the controller makes no claim of a template."""
    return fixes.platform(
        "See why the claim was not made from its template: the pod's events, else the log of kube-controller-manager, which makes it",
        f"kubectl -n {pending.pod.namespace} describe pod {pending.pod.name}",
        f"kubectl -n {pending.pod.namespace} get resourceclaims,resourceclaimtemplates",
    )


def _template_created(pod: Pod, claim: DeviceClaim) -> Fix:
    """A template that is not there: the only one of its namespace, else a new one of the only class of devices."""
    cluster, namespace = pod.cluster, pod.namespace
    look = "kubectl get resourceclaimtemplates -A"
    at = next((n for n, row in enumerate(pod.spec.resource_claims) if row.get("name") == claim.name), None)
    others = [item.name for item in cluster.items("ResourceClaimTemplate", namespace)]
    if at is not None and len(others) == 1:
        text = f"Name ResourceClaimTemplate {others[0]}, the one of {namespace}, instead of {claim.template}"
        return fixes.set_spec(pod, f"/resourceClaims/{at}/resourceClaimTemplateName", others[0], text)
    text = f"Create ResourceClaimTemplate {claim.template} in {namespace}: a pod uses none of another namespace"
    classes = list(cluster.items("DeviceClass"))
    if len(classes) != 1:
        return fixes.advice(text, look)
    spec = {"spec": {"devices": {"requests": [{"name": claim.name, "exactly": {"deviceClassName": classes[0].name}}]}}}
    made = fixes.create("resource.k8s.io/v1", "ResourceClaimTemplate", claim.template, namespace, spec=spec)
    return fixes.advice(text, look, made)


def _created(pod: Pod, name: str) -> Fix:
    """A claim that is not there, of the only class of devices that there is."""
    cluster, namespace = pod.cluster, pod.namespace
    look = f"kubectl -n {namespace} get resourceclaims,resourceclaimtemplates"
    classes, others = list(cluster.items("DeviceClass")), [i.name for i in cluster.items("ResourceClaim", namespace)]
    known = f" ({', '.join(sorted(others)[:4])})" if others else ""
    text = f"Create ResourceClaim {name} in {namespace}, or name one that exists{known}"
    if len(classes) != 1:
        return fixes.advice(text, look)
    exactly = {"name": "gpu", "exactly": {"deviceClassName": classes[0].name}}
    spec = {"devices": {"requests": [exactly]}}
    return fixes.advice(text, look, fixes.create("resource.k8s.io/v1", "ResourceClaim", name, namespace, spec=spec))


#: What is said of a claim that the controller is still to make.
_UNMADE = "was not made from the template"

#: A claim is let go of within seconds.
_LINGER_SECONDS = 60
#: DeviceClasses of the half of NVIDIA's DRA driver that its chart switches off: k8s-dra-driver-gpu, deployments/helm.
_NVIDIA_GPUS = ("gpu.nvidia.com", "mig.nvidia.com", "vfio.gpu.nvidia.com")
#: What names of DeviceClasses share without meaning the same devices.
_OF_VENDORS = {"nvidia", "amd", "intel", "google", "com", "dev", "io", "example"}


def _kinds(name: str) -> set[str]:
    """The words of a DeviceClass's name that say what its devices are: `gpu` of `gpu.nvidia.com`."""
    return set(re.split(r"[.-]", name)) - _OF_VENDORS


def _missing(pending: Pending, claims: list[DeviceClaim], events: Events | None) -> Iterator[Finding]:
    """A claim that the pod names and that is not there: the scheduler leaves the pod aside without a word."""
    pod, cluster = pending.pod, pending.pod.cluster
    silent = not pending.condition and not pending.event and (pending.seconds or 0) > _SILENT_SECONDS
    failed = events.of("FailedResourceClaimCreation") if events else []
    for claim in claims:
        known = cluster.exists("ResourceClaim", pod.namespace, claim.claim) if claim.claim else None
        if claim.item or (claim.template and not failed) or not (silent or known is False or failed):
            continue
        fix = _created(pod, claim.claim or claim.name)
        if claim.template and any(f'resource claim template "{claim.template}"' in e.message for e in failed):
            summary = f"It names ResourceClaimTemplate {claim.template}, which does not exist in {pod.namespace}."
            fix = _template_created(pod, claim)
        elif claim.template:
            summary = f"Its claim {claim.name} was never made from template {claim.template}."
            fix = _why_not_made(pending)
        else:
            summary = (
                f"It names ResourceClaim {claim.claim}, which {'does not exist' if known is False else 'was not found'}"
            )
            length = say_seconds(pending.seconds or 0)
            summary += (
                f"; the scheduler leaves such a pod aside without a word, this one for {length}." if silent else "."
            )
        yield Finding(
            confidence="certain" if known is False or failed else "likely",
            summary=summary,
            evidence=(
                pod_evidence(pod, "resourceClaims", f"{claim.name}: {claim.claim or claim.template}"),
                *(event_evidence(e, cluster) for e in failed[-1:]),
                pod_evidence(
                    pod, "status.conditions", "no PodScheduled condition" if silent else "PodScheduled is False"
                ),
            ),
            explains=EXPLAINS,
            fix=fix,
        )
        return
