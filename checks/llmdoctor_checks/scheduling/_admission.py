"""Pods that the kubelet refused for want of a device, and the device plugins of their nodes."""

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from typing import Literal

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Event,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Node,
    Pending,
    Pod,
    Subject,
    count_of,
    dig,
    events_of,
    expression,
    fixes,
    is_accelerator,
    k8s,
    log_evidence,
    milli,
    parse_time,
    pod_evidence,
    requests_of,
    rows,
    say_bytes,
    units,
    usage_of,
)
from llmdoctor_checks.scheduling._daemons import named, offering

Verdict = Literal["not-ready", "down", "shared"]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that the kubelet refused at admission, for want of a device."""

    verdict: Verdict
    resource: str
    text: str


#: The device manager's texts (kubelet `cm/devicemanager/manager.go`), and what each says of the plugin.
_TEXTS: tuple[tuple[str, Verdict], ...] = (
    (r"maximum request size for shared resources|invalid request for sharing GPU", "shared"),  # NVIDIA's, GKE's
    (r"no healthy devices present.{0,400}devices (?P<resource>\S{1,300}?),? ", "down"),
    (r"previously allocated devices are no longer healthy", "down"),
    (r"can(?:not|'t) allocate unregistered device (?P<resource>[^\s,]+)", "not-ready"),
    (r"requested number of devices unavailable for (?P<resource>\S+?)\. Requested", "not-ready"),
    (r"device plugin \w{1,60}.{0,400}(?:rpc error|nvml|NVML|unable to|failed|error)", "down"),
    # what the plugin itself answered; the CPU manager's refusals have the same beginning
    (r"Allocate failed due to (?:rpc error: |.{0,1000}\b(?:GPU|gpu|device)\b)", "down"),
)

#: What the kubelet counts when it refuses a pod for want of a resource (kubelet `lifecycle/predicate.go`).
_COUNTED = r"requested: (?P<asked>\d+), used: (?P<used>\d+), capacity: (?P<all>\d+)"

#: What the API's copy of a static pod bears.
MIRROR = "kubernetes.io/config.mirror"

#: The device manager's count.
_UNAVAILABLE = r"requested number of devices unavailable for \S{1,200}\. Requested: ?(?P<asked>\d{1,4}), Available: ?(?P<free>\d{1,4})"

#: So long after its start the kubelet waits for no device plugin.
_SOON_SECONDS = 600

#: Within so many lines of its end stands of what a program ended.
_LAST_LINES = 60

#: What the plugin passes on from the driver when the GPU itself is gone: no fault of the plugin's.
_HARDWARE = ("GPU is lost", "fallen off", "Unable to determine the device handle", "requires reset")


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def refusal(pod: Pod, node: Node | None = None) -> Refusal | None:
    """Why the kubelet refused the pod; None when it did not. One that is replaced meanwhile is asked about by its name alone.

    After a reboot the kubelet knows the devices of before from its checkpoint, as unhealthy ones, until the plugin
    registers again: where the node offers all of them by now, the plugin was late and not down.
    """
    status = pod.status
    if status.phase != "Failed":
        return None
    text = f"{status.reason}: {status.message}".rstrip(": ")
    own = next(iter(pod.accelerators), "")
    if status.reason.startswith("OutOf"):
        resource = status.reason.removeprefix("OutOf")
        late = is_accelerator(resource) and not _taken(status.message)
        return Refusal(verdict="not-ready", resource=resource, text=text) if late else None
    if status.reason != "UnexpectedAdmissionError" or any(piece in status.message for piece in _HARDWARE):
        return None
    # it would end any other pod for a critical one that holds a device: it knows fewer of them than the pod asks for
    if unknown := next(filter(is_accelerator, _unreclaimed(status.message)), ""):
        return Refusal(verdict="not-ready", resource=unknown, text=text)
    for pattern, verdict in _TEXTS:
        if found := _regex(pattern).search(status.message):
            resource = found.groupdict().get("resource") or own
            if verdict == "down" and pattern.startswith("no healthy devices"):
                early = (node and _all_back(node, resource)) or _kubelet_began(pod)
                verdict = "not-ready" if early else verdict
            return Refusal(verdict=verdict, resource=resource, text=text)
    return None


def _kubelet_began(pod: Pod) -> bool:
    """Whether the kubelet, or the node, had just started when it refused the pod, by what events say.

    "not registered" is what it says of a pod's ConfigMaps and Secrets that it knew before and has not seen yet.
    """
    refused = parse_time(pod.status.start_time)
    for event in events_of(pod.cluster).about([("Pod", pod.name), ("Node", pod.spec.node_name)]):
        if event.kind == "Pod" and event.namespace == pod.namespace and event.message.endswith(" not registered"):
            return True
        began = event.kind == "Node" and (event.reason == "Rebooted" or event.message == "Starting kubelet.")
        if began and refused and event.last and -60 <= (refused - event.last).total_seconds() <= _SOON_SECONDS:
            return True
    return False


def kept(pod: Pod, refused: Refusal, node: Node | None, cluster: Cluster) -> tuple[k8s.Pod, ...]:
    """The pods that the kubelet has refused for devices which, by all that is to be seen, nobody has; none where it may be otherwise.

    Its device manager clears its record of pods that are gone only on some ways (`devicemanager/manager.go`): what was deleted by
    force while it was being made can stay in it until the kubelet starts again. The scheduler counts pods and sends the next: where
    not all pods of the node are known, that there was room for each of them by its count is enough.
    """
    found = re.search(_UNAVAILABLE, refused.text)
    usage = usage_of(cluster)
    if not found or not node or (not cluster.complete_on(node.name) and not _by_the_scheduler(pod)):
        return ()
    if not _all_back(node, refused.resource) or _kubelet_began(pod):
        return ()
    free = (node.allocatable(refused.resource) or 0) - usage.used(node.name).get(refused.resource, 0)
    if int(found["free"]) >= int(found["asked"]) or free < int(found["asked"]):
        return ()
    of_node = cluster.once("pods by node, also ended ones", lambda: _by_node(cluster)).get(node.name, [])
    alike = [one for one in of_node if _unavailable(one, refused.resource)]
    times = sorted(t for one in alike if (t := parse_time(one.status.start_time)))
    plugins = [t for plugin in plugins_on(cluster, node.name) if (t := parse_time(started(plugin)))]
    if len(times) < 2 or not plugins or (times[-1] - times[0]).total_seconds() < _SOON_SECONDS:
        return ()
    later = [
        o for o in of_node if o.status.container_statuses and (t := parse_time(o.status.start_time)) and t > times[-1]
    ]
    if any(requests_of(one).get(refused.resource, 0) >= int(found["asked"]) for one in later):
        return ()  # as many were given out since
    return tuple(alike) if (times[0] - max(plugins)).total_seconds() > _SOON_SECONDS else ()


def _by_the_scheduler(pod: Pod) -> bool:
    """Whether the default scheduler has sent the pod: nobody counts for one whose template names its node."""
    named = dig(pod.template.pod, "spec.nodeName") if pod.template else None
    return not named and pod.spec.scheduler_name in ("", "default-scheduler")


def was_scheduled(pod: Pod) -> bool:
    """Whether something shows that a scheduler has sent the pod: its event, or the template, which names no node."""
    return pod.template is not None or any(event.reason == "Scheduled" for event in pod.events)


def _by_node(cluster: Cluster) -> dict[str, list[k8s.Pod]]:
    found: dict[str, list[k8s.Pod]] = {}
    for pod in cluster.all(k8s.Pod, "Pod"):
        if pod.spec.node_name:
            found.setdefault(pod.spec.node_name, []).append(pod)
    return found


def _unavailable(pod: k8s.Pod, resource: str) -> bool:
    """Whether the kubelet has refused a pod for want of these devices."""
    message = pod.status.message
    return (
        pod.status.phase == "Failed"
        and f"unavailable for {resource}. " in message
        and bool(re.search(_UNAVAILABLE, message))
    )


def _all_back(node: Node, resource: str) -> bool:
    """Whether every device of a node is allocatable."""
    listed = node.allocatable(resource)
    return bool(listed) and listed == node.capacity(resource)


def replaced(subject: Subject) -> bool:
    """Whether enough replicas are ready: failed pods stay listed beside their replacements."""
    workload = subject.workload
    return bool(workload and workload.replicas and (workload.ready or 0) >= workload.replicas)


def without_it(pod: Pod, subject: Subject) -> Fix | None:
    """What to do about a refused pod whose place is taken by now: nothing but to delete what is left of it."""
    if not replaced(subject) or subject.workload is None:
        return None
    ready = count_of(subject.workload.ready or 0, "ready replica")
    text = f"Delete what is left of the refused pod: {subject.workload.ref} has {ready} without it"
    return fixes.advice(text, f"kubectl -n {pod.namespace} delete pod {pod.name}")


def _taken(message: str) -> bool:
    """Whether the kubelet has enough devices and other pods of its node hold them."""
    found = re.search(_COUNTED, message)
    return found is not None and 0 < int(found["asked"]) <= int(found["all"]) < int(found["asked"]) + int(found["used"])


#: What a critical pod, a static one mostly, lacks on its node even without all that the kubelet may end for it
#: (`preemption/preemption.go`); of CPUs it counts thousandths.
_UNRECLAIMED = "no set of running pods found to reclaim resources: ["
_LACKS = r"\(res: ([^\s,]{1,300}), q: (\d{1,20})\)"


def _unreclaimed(message: str) -> dict[str, int]:
    """What the kubelet could not free for a critical pod: amounts by resource."""
    said = message.partition(_UNRECLAIMED)[2]
    return {name: int(amount) for name, amount in re.findall(_LACKS, said)}


def _lacking(lacks: dict[str, int]) -> str:
    """The same in words."""
    said = {
        "cpu": f"{lacks.get('cpu', 0) / 1000:g} CPUs",
        "memory": f"{say_bytes(lacks.get('memory', 0))} of memory",
        "ephemeral-storage": f"{say_bytes(lacks.get('ephemeral-storage', 0))} of ephemeral storage",
    }
    return " and ".join(said.get(name, f"{amount} {name}") for name, amount in lacks.items())


def _predicate(reason: str, message: str) -> str:
    """The cause for which the kubelet refuses a pod that has been placed, by the pod's status.

    It repeats some of the scheduler's filters: after a restart, when labels have changed or when it counts otherwise.
    """
    known = {
        "NodeAffinity": "node-selector-mismatch",
        "NodePorts": "host-port-conflict",
        "TaintToleration": "taint-untolerated",
        "OutOfcpu": "cpu-memory-insufficient",
        "OutOfmemory": "cpu-memory-insufficient",
        "OutOfpods": "pods-per-node-limit",
        "OutOfephemeral-storage": "ephemeral-storage-insufficient",
    }
    if lacks := _unreclaimed(message):
        return "" if any(map(is_accelerator, lacks)) else known.get(f"OutOf{next(iter(lacks))}", "")
    if not reason.startswith("OutOf") or reason in known:
        return known.get(reason, "")
    if is_accelerator(reason.removeprefix("OutOf")):
        return "gpu-insufficient" if _taken(message) else ""
    return "extended-resource-insufficient"


def refused_for(id: str, pod: Pod, subject: Subject) -> Iterator[Finding]:  # the field's term
    """The finding of a pod that the kubelet refused for the same cause that keeps others unscheduled."""
    status = pod.status
    if status.phase != "Failed" or _predicate(status.reason, status.message) != id:
        return
    node, lacks = pod.spec.node_name or "its node", _lacking(_unreclaimed(status.message))
    room = f"it lacks {lacks}, even if all were ended there that are less important" if lacks else status.message
    yield Finding(
        summary=f"The kubelet of {node} refused it after it was placed: {room}{'.' if lacks else ''}",
        evidence=(pod_evidence(pod, "status", f"{status.reason}: {status.message}"),),
        explains=("pod-failed", "not-ready"),
        fix=_static(node, lacks) if MIRROR in pod.annotations else _again(pod, subject),
    )


def _again(pod: Pod, subject: Subject) -> Fix:
    """Have it made again, where there is room by now; else what makes room first, as it would be refused again."""
    if (left := without_it(pod, subject)) is not None:
        return left
    node, delete = pod.spec.node_name, f"kubectl -n {pod.namespace} delete pod {pod.name}"
    counted = re.search(_COUNTED, pod.status.message)
    resource = pod.status.reason.removeprefix("OutOf")
    by_hand = ", without the nodeName where it states one: no scheduler looks for room then" if fixes.lone(pod) else ""
    if not counted or not node or not pod.status.reason.startswith("OutOf"):
        text = f"Delete the refused pod; its replacement is placed again by what holds now{by_hand}{fixes.lone(pod)}"
        return fixes.advice(text, delete)
    asked, used, whole = (int(counted[name]) for name in ("asked", "used", "all"))
    if _room_now(pod.cluster, node, resource, asked):
        text = f"Delete the refused pod: by now {node} has room for its replacement"
        return fixes.advice(f"{text}{fixes.lone(pod)}", delete)
    free = max(whole - used, 0)
    others = [] if _bound(pod, subject) else _elsewhere(pod, subject)
    has = f"{node} had {_in_words(resource, free)} left of {_in_words(resource, whole)}"
    wants = f"the pod asks for {_in_words(resource, asked)}"
    if asked > whole:
        text = f"Ask for less in {fixes.edited(pod)}, or let it run on a larger node: {has}, and {wants}"
    elif others:
        text = f"Delete the refused pod: {others[0]} has room for its replacement{by_hand} ({has}, and {wants})"
        return fixes.advice(f"{text}{fixes.lone(pod)}", delete)
    elif (
        fixes.lone(pod)
        and not pod.cluster.complete("Node")
        and pod.spec.scheduler_name in (None, "", "default-scheduler")
    ):
        # Kubernetes' own scheduler places none where there is no room
        text = (
            "Delete the refused pod and make it again without the nodeName where it states one, so that the scheduler looks for room on "
            f"all nodes; to run on {node} it has to ask for less, or {_in_words(resource, asked - free)} be freed ({has}, and {wants})"
        )
        return fixes.advice(text, delete, fixes.pods_on(node))
    else:
        text = f"Free {_in_words(resource, asked - free)} on {node}, or ask for less in {fixes.edited(pod)}: {has}, and {wants}"
    return fixes.advice(
        f"{text}; then delete the refused pod, which stays as it is{fixes.lone(pod)}", fixes.pods_on(node), delete
    )


#: How amounts are written that the kubelet counts; of CPUs it counts thousandths.
_IN_WORDS: dict[str, Callable[[int], str]] = {
    "cpu": lambda amount: f"{amount / 1000:g} CPUs",
    "memory": lambda amount: f"{say_bytes(amount)} of memory",
    "ephemeral-storage": lambda amount: f"{say_bytes(amount)} of ephemeral storage",
}


def _in_words(resource: str, amount: int) -> str:
    """An amount as the kubelet counts it."""
    if resource in _IN_WORDS:
        return _IN_WORDS[resource](amount)
    return f"{say_bytes(amount) if resource.startswith('hugepages-') else amount} {resource}"


def _bound(pod: Pod, subject: Subject) -> bool:
    """Whether a pod can run on one node alone, as its owner writes it."""
    if subject.workload and dig(subject.workload.raw, "spec.template.spec.nodeName"):
        return True
    return any(owner.kind == "DaemonSet" for owner in pod.obj.metadata.owner_references)


def _elsewhere(pod: Pod, subject: Subject) -> list[str]:
    """The other nodes on which the pod fits as it is, by all that the scheduler asks."""
    spec = msgspec.structs.replace(pod.spec, node_name="")
    return [v.node.name for v in Pending(pod, subject).where(spec=spec) if v.fits and v.node.name != pod.spec.node_name]


def _room_now(cluster: Cluster, node: str, resource: str, asked: int) -> bool:
    """Whether a node has so much free by the requests of its pods, all of which were read."""
    amounts = cluster.field("Node", "", node, "status.allocatable")
    if not isinstance(amounts, dict) or not cluster.complete_on(node):
        return False
    whole = milli(amounts.get(resource)) if resource == "cpu" else units(amounts.get(resource))
    return whole is not None and whole - usage_of(cluster).used(node).get(resource, 0) >= asked


def _static(node: str, lacks: str) -> Fix:
    """What helps a static pod, which the kubelet reads from a file and tries once."""
    return fixes.platform(
        f"Free {lacks or 'what it asks for'} on {node}, or ask for less in its manifest there, then restart the kubelet: it does not try a "
        "static pod that it refused again by itself, and deleting it here does nothing",
        fixes.pods_on(node),
        fixes.on_node(node, "systemctl restart kubelet"),
    )


#: How the images and pods of device plugins are called: most vendors', Intel's for GPUs and NPUs, Huawei's.
_PLUGIN_NAMES = ("device-plugin", "intel-gpu-plugin", "intel-npu-plugin", "ascend-k8sdeviceplugin")


def is_device_plugin(pod: k8s.Pod) -> bool:
    """Whether a pod is a device plugin, by its image or name."""
    images = [image.rpartition("/")[2] for image in images_of(pod)]
    if any(other in pod.metadata.name for other in ("feature-discovery", "gfd", "mps-control")):  # the same image
        return False
    return any(name in text for text in (pod.metadata.name, *images) for name in _PLUGIN_NAMES)


#: How drivers of claims are called, which offer no resource.
_OF_CLAIMS = r"\bdra\b|kubelet-plugin"


def unmade_plugin(cluster: Cluster, resource: str) -> tuple[Item, Event] | None:
    """The DaemonSet of a resource's device plugin that has no pod, and the API server's last word on why none may be made.

    Of a driver of claims (`gpu.nvidia.com`) it is that of the driver, which may stand beside the maker's device plugin.
    """
    for item in offering(cluster, resource):
        images = (str(row.get("image") or "") for row in rows(item.raw, "spec.template.spec.containers"))
        if any(re.search(_OF_CLAIMS, name) for name in (item.name, *images)) is ("/" in resource):
            continue
        about = events_of(cluster).about([("DaemonSet", item.name)])
        said = [e for e in about if e.reason == "FailedCreate" and e.namespace == item.namespace]
        if said and not dig(item.raw, "status.currentNumberScheduled"):
            return item, said[-1]
    return None


#: States of a container that comes up for the first time, and how long that takes at most: a driver's pod waits in it for the GPUs' own.
_COMING_UP, _UP_BY = ("ContainerCreating", "PodInitializing"), 900


def ending_drivers(cluster: Cluster, driver: str) -> list[k8s.Pod]:
    """The pods of a driver of claims, where none of them stays up: what they found they never published."""
    pods = [pod for node in usage_of(cluster).nodes for pod in usage_of(cluster).pods(node)]
    of_driver = [
        pod
        for pod in pods
        if re.search(_OF_CLAIMS, pod.metadata.name) and named((pod.metadata.name, *images_of(pod)), driver)
    ]
    return of_driver if all(_stays_down(cluster, pod) for pod in of_driver) else []


def _stays_down(cluster: Cluster, pod: k8s.Pod) -> bool:
    """Whether a pod does not run: it has ended with an error, or has come up for long."""
    if (waiting := _waiting_of(pod)) in _COMING_UP:
        return (cluster.seconds_since(pod.status.start_time or pod.metadata.creation_timestamp) or 0) > _UP_BY
    return bool(waiting) or _ended(pod)


def _ended(pod: k8s.Pod) -> bool:
    """Whether a container of a pod ended with an error, and is not started again yet."""
    return any(s.state.terminated and s.state.terminated.exit_code for s in pod.status.of_containers)


def images_of(pod: k8s.Pod) -> list[str]:
    """The images of its containers."""
    return [container.image for container in pod.spec.containers if container.image]


#: The API server of a priority that it lets only into namespaces with a quota for it (plugin ResourceQuota, limitedResources).
_UNCOVERED = expression(r"insufficient quota to match these scopes: \[\{PriorityClass In \[(?P<limited>[^\]]{1,300})\]")


def limited_priorities(said: str) -> list[str]:
    """The priority classes that a namespace must have a quota for, by a refusal."""
    found = _UNCOVERED.search(said)
    return found["limited"].split() if found else []


def given_a_quota(namespace: str, priority: str) -> Fix:
    """A quota for a priority that is let only into namespaces which have one for it."""
    import json  # as dear as this module, and few need it

    wanted = {"scopeName": "PriorityClass", "operator": "In", "values": [priority]}
    spec = {"hard": {"pods": "100"}, "scopeSelector": {"matchExpressions": [wanted]}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": priority}, "spec": spec}
    return fixes.platform(
        f"Give namespace {namespace} a ResourceQuota for priority class {priority}",
        f"echo {shlex.quote(json.dumps(quota))} | kubectl -n {namespace} apply -f -",
    )


def let_made(unmade: tuple[Item, Event]) -> Fix:
    """What lets the pods of such a DaemonSet be made."""
    item, said = unmade[0], unmade[1].message
    where = item.namespace
    priority = str(dig(item.raw, "spec.template.spec.priorityClassName") or "")
    if priority in limited_priorities(said):
        return given_a_quota(where, priority)
    if "violates PodSecurity" in said:
        return fixes.platform(
            f"Let the pods of DaemonSet {item.name} into {where}: a device plugin needs folders of the node, which the level of Pod "
            "Security there forbids",
            f"kubectl label namespace {where} pod-security.kubernetes.io/enforce=privileged --overwrite",
        )
    return fixes.platform(
        f"Let the pods of DaemonSet {item.name} into {where}, which its events say why nobody may make",
        f"kubectl -n {where} describe daemonset {item.name}",
    )


def plugins_on(cluster: Cluster, node: str) -> list[k8s.Pod]:
    """The device plugin pods of a node."""
    return [h.pod for h in usage_of(cluster).holders(node) if is_device_plugin(h.pod)]


#: The pods of a GPU operator for which a device plugin waits, by what their names hold, in the order of their work.
_AWAITED = (
    ("driver-daemonset", "driver"),
    ("kmm-worker-", "kernel module"),  # that of AMD's and Intel's operators, by the Kernel Module Management
    ("container-toolkit-daemonset", "container toolkit"),
)


def awaited(cluster: Cluster, node: str) -> tuple[k8s.Pod, str] | None:
    """The pod that brings the driver, or the container toolkit, to a node, where it is not done: the device plugin waits for it."""
    pods = [h.pod for h in usage_of(cluster).holders(node)]
    for part, title in _AWAITED:
        for pod in pods:
            if part in pod.metadata.name and (pod.status.phase not in ("Running", "Succeeded") or _waiting_of(pod)):
                return pod, title
    return None


def state_of(pod: k8s.Pod) -> str:
    """A pod's state in a few words: `Running`, `CrashLoopBackOff, 12 restarts`."""
    restarts = sum(s.restart_count for s in pod.status.of_containers)
    state = _waiting_of(pod) or ("Error" if _ended(pod) else pod.status.phase) or "unknown"
    return state + (f", {restarts} restarts" if restarts else "")


def started(pod: k8s.Pod) -> str:
    """When its last container started, as the API writes it; empty when it has not."""
    times = [
        s.state.running.started_at for s in pod.status.of_containers if s.state.running and s.state.running.started_at
    ]
    return max((t for t in times if parse_time(t)), default="")


def _waiting_of(pod: k8s.Pod) -> str:
    """For what reason a container of the pod does not run; empty where all do."""
    return next((s.state.waiting.reason for s in pod.status.of_containers if s.state.waiting), "")


#: What any plugin prints, beside what it would watch, that watches the kubelet's folder where the node's inotify instances are used up.
WATCHES_USED_UP = "too many open files"

#: What NVIDIA's plugin, and those made of it (HAMi's, Volcano's), print where they find nothing to offer.
NO_DEVICES = "No devices found. Waiting indefinitely."
#: AMD's, which prints it only where the driver's module is loaded (ROCm/k8s-device-plugin, internal/pkg/plugin): it knows none of the GPUs.
NO_AMD_DEVICES = "Found 0 AMDGPUs"

#: What Go's runtime prints of a fault of the program, which ends it.
PANIC = "panic: runtime error"

#: What NVIDIA's plugin prints of its settings where it was told to look for GPUs as on a Tegra: it offers one then, whatever there is.
DISCOVERS = '"deviceDiscoveryStrategy": "tegra"'

#: What NVIDIA's plugin prints when it gives up a device, or finds none (`internal/rm/health.go`, `cmd/…/main.go`).
PLUGIN_LINES = (
    "XidCriticalError",
    "marking device as unhealthy",
    "marking all devices as unhealthy",
    NO_DEVICES,
    NO_AMD_DEVICES,
    "Incompatible strategy detected",
    "Incompatible platform detected",
    "could not load NVML library",
    "Failed to initialize NVML",
    # the first container of GKE's plugin, which waits for the driver
    "GPU driver auto installation is disabled",
    WATCHES_USED_UP,
    PANIC,
    DISCOVERS,
)


def _logs(cluster: Cluster, pod: k8s.Pod) -> Iterator[Log]:
    for text in cluster.snapshot.logs:
        if text.pod == pod.metadata.name and (text.namespace or "default") == (pod.metadata.namespace or "default"):
            yield Log(text)


def said_by(cluster: Cluster, pod: k8s.Pod, literal: str) -> Line | None:
    """The last line of a pod with a text."""
    return next((line for log in _logs(cluster, pod) if (line := log.last(literal)) is not None), None)


def plugin_lines(cluster: Cluster, pod: k8s.Pod) -> Iterator[Line]:
    """The lines in which a plugin says why it offers nothing, the last of each kind."""
    for log in _logs(cluster, pod):
        for literal in PLUGIN_LINES:
            last = None
            for last in log.find(literal):  # noqa: B007 # the last one is wanted
                pass
            if last:
                yield last


#: NVIDIA's plugin where NVML does not start (`internal/plugin/factory.go`), and NVML's word for devices that may not be opened.
WITHOUT_NVML = expression(r"Failed to initialize NVML: (?P<why>[A-Za-z][\w /-]{2,60})")
_NOT_OPENED = ("Failed to initialize NVML: Unknown Error", "Failed to initialize NVML: ERROR_UNKNOWN")


def not_opened(line: Line) -> bool:
    """Whether NVIDIA's plugin says that NVML is there for it, and may not open the GPUs."""
    return any(text in line.text for text in _NOT_OPENED)


def opening(node: str, line: Line, cluster: Cluster) -> Fix:
    """What gives the container of NVIDIA's plugin back the devices of its GPUs: NVML is there, and may not open them."""
    by_crio = str(cluster.field("Node", "", node, "status.nodeInfo.containerRuntimeVersion")).startswith("cri-o")
    how = (
        "put runc, or a crun before 1.18, first in the list runtimes of /etc/nvidia-container-runtime/config.toml"
        if by_crio
        else "no-cgroups = false in /etc/nvidia-container-runtime/config.toml, one cgroup driver for kubelet and runtime, and the links "
        "below /dev/char (nvidia-ctk system create-dev-char-symlinks --create-all)"
    )
    space, plugin, _ = line.log.whose
    return fixes.platform(
        f"Where nvidia-smi answers on {node} itself, let the device plugin's container open its GPUs: {how}; then delete the plugin's pod",
        fixes.on_node(node, "nvidia-smi"),
        f"kubectl -n {space or 'default'} delete pod {plugin}",
    )


#: What is an error near the end of an operator's pod that ends again and again: of Go's loggers, of shells, and of the kernel's driver.
_ERROR = expression(
    r"(?i)\b(?:error|fatal|failed|panic|unable to|cannot|could not|no such file)\b|^[EF]\d{4} "
    r"|NVRM: .{0,120}(?:not supported by|routine failed|None of the)|unsigned module is rejected|Key was rejected by service"
)


def last_errors(cluster: Cluster, pod: k8s.Pod) -> list[Line]:
    """The last errors that a pod which ends again and again printed, two at the most; of its earlier instance where that is there."""
    logs = sorted(_logs(cluster, pod), key=lambda log: not log.previous)
    for log in logs if _waiting_of(pod) or _ended(pod) else ():
        if found := [x for x in log.tail(_LAST_LINES) if _ERROR.search(x.text[:500])]:
            return found[-2:]
    return []


def plugin_evidence(cluster: Cluster, node: str) -> Iterator[Evidence]:
    """The device plugins of a node: their state, and what they say."""
    if first := awaited(cluster, node):
        pod, title = first
        ref = f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}"
        yield Evidence(source="pod", ref=ref, text=f"{title}: {state_of(pod)}")
        yield from map(log_evidence, last_errors(cluster, pod)[::-1])
    plugins = plugins_on(cluster, node)
    for plugin in plugins[:2]:
        ref = f"{plugin.metadata.namespace or 'default'}/{plugin.metadata.name}"
        since = f", started {started(plugin)}" if started(plugin) else ""
        yield Evidence(source="pod", ref=ref, text=f"device plugin: {state_of(plugin)}{since}")
        for line in list(plugin_lines(cluster, plugin))[:2] or last_errors(cluster, plugin)[::-1]:
            yield log_evidence(line)
    if not plugins and cluster.complete_on(node):
        yield Evidence(source="node", ref=f"Node/{node}", text="no device plugin pod runs here")
