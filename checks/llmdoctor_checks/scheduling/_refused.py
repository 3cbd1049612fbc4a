"""Pods that the API server refuses: there is none to look at, only what the controllers that should make it say.

Sources: FailedCreate events and the conditions ReplicaFailure of kube-controller-manager (replicaset, statefulset, job);
KubeRay's events and its condition of the same name (ray-operator/controllers/ray/raycluster_controller.go, 1.4 on); events of the
schedulers that bind a pod (kube-scheduler's FailedScheduling, KAI's BindingError of pkg/binder/controllers). Other
operators repeat the API server's words under reasons and conditions of their own, or in their logs only.
"""

import re
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    RAY_NODE_TYPE,
    Cluster,
    Evidence,
    Subject,
    Workload,
    dig,
    event_evidence,
    is_provisioner,
    log_evidence,
    told_elsewhere,
    workload_evidence,
)

_KINDS = (
    "ReplicaSet", "Deployment", "StatefulSet", "Revision", "Service.serving.knative.dev", "InferenceService",
    "RayCluster",
)  # fmt: skip

#: How many pods a group of a LeaderWorkerSet has, on each of them (api/leaderworkerset/v1).
_GROUP_SIZE = "leaderworkerset.sigs.k8s.io/size"

#: Objects that a pod needs to run, not what makes it.
_BELOW = ("Pod", "Node", "PersistentVolumeClaim")

#: The reasons under which controllers say that a pod could not be made.
REASONS = ("FailedCreate", "FailedToCreateHeadPod", "FailedToCreateWorkerPod")

#: How the API server words a refusal, whoever repeats it: pieces of log lines that checks on refusals declare.
LITERALS = ("is forbidden: ", '" is invalid: ', "denied the request", "failed calling webhook")
_WORDS = (
    r'\bis forbidden: |" is invalid: |denied the request|failed calling webhook|'
    r"ServiceAccount \S+ is not found\. Please create one|The Ray\w+ (?:spec|metadata) is invalid"
)
#: The error of a controller that logs in JSON.
_JSON_ERROR = r'"(?:error|err)":\s?"((?:[^"\\]|\\.){1,6000})"'


def lacking(subject: Subject) -> bool:
    """Whether the target has no pod and wants one."""
    return not subject.exists and not _finished(subject.workload)


def unmade(subject: Subject) -> bool:
    """Whether pods of it are still to be made, by its own status too: Volcano's Job waits for its group before it makes any."""
    return lacking(subject) and not (subject.workload and subject.workload.at_rest)


def refusals(subject: Subject, cluster: Cluster) -> Iterator[tuple[str, Evidence]]:
    """What is said of pods that could not be made, the latest first; nothing where none is missing."""
    if subject.static:
        return
    missing = lacking(subject) or holds(subject.workload, "ReplicaFailure") or _incomplete(subject)
    for event in reversed(subject.events.of(*REASONS)):
        if missing or _wants(cluster, event.kind, subject.namespace, event.name):
            yield event.message, event_evidence(event, cluster)
    if missing:
        for where, message in _conditions(subject, cluster):
            yield message, Evidence(source="workload", ref=where, text=message)
    yield from _unbound(subject, cluster)
    if lacking(subject):
        for event in reversed(list(subject.events)):
            other = event.warning and event.kind not in _BELOW and event.reason not in REASONS
            if other and re.search(_WORDS, event.message):
                yield event.message, event_evidence(event, cluster)
    for above in subject.platform:
        for said in above.said if lacking(subject) or _lacks_workers(subject, above) else ():
            yield said.text, workload_evidence(above, said.path, said.text)
    if lacking(subject):
        yield from _logged(subject)


def _unbound(subject: Subject, cluster: Cluster) -> Iterator[tuple[str, Evidence]]:
    """What is said of a pod that is there, and may not be given to the node that was chosen for it: admission judges that, too."""
    waiting = {pod.name for pod in subject.pods if pod.exists and not pod.spec.node_name}
    for event in reversed(list(subject.events)):
        if event.warning and event.kind == "Pod" and event.name in waiting and not is_provisioner(event.reporter):
            waiting.remove(event.name)  # what was said before is overcome
            if re.search(_WORDS, event.message):
                yield event.message, event_evidence(event, cluster)


def _logged(subject: Subject) -> Iterator[tuple[str, Evidence]]:
    """What controllers log of pods that they could not make for the target: some tell it nowhere else (kthena)."""
    name = subject.workload.name if subject.workload else ""
    longer = [
        item.name
        for item in (subject.cluster.items(subject.workload.item.kind, subject.namespace) if subject.workload else ())
        if item.name.startswith(f"{name}-")
    ]
    named = re.compile(rf"(?<![\w.-]){re.escape(name)}(?!\w)")
    for _, log in subject.controllers if name else ():
        said = {line.number: (line, literal) for literal in LITERALS for line in log.find(literal)}
        for _, (line, literal) in sorted(said.items(), reverse=True):
            text = line.text
            if not named.search(text) or told_elsewhere(text, (name,), subject.namespace):
                continue
            if not any(other in text for other in longer):
                yield error_of(text), log_evidence(line, literal)
                break


def error_of(text: str) -> str:
    """The error of a line: of one in JSON, without what else it tells."""
    found = re.search(_JSON_ERROR, text)
    return found[1].replace('\\"', '"').replace("\\n", " ") if found else text


def _incomplete(subject: Subject) -> bool:
    """Whether a group of a LeaderWorkerSet has fewer pods than it says of itself, and none is ready."""
    if any(pod.ready for pod in subject.pods):
        return False
    sizes = [pod.annotations.get(_GROUP_SIZE, "") for pod in subject.pods if pod.exists]
    return any(size.isdecimal() and len(size) < 8 and int(size) > len(sizes) for size in sizes)


def hurts(subject: Subject) -> bool:
    """Whether a pod that is refused is missed: there is none, one fails, or fewer are ready than wanted."""
    workload = subject.workload
    short = workload is not None and workload.ready is not None and (workload.replicas or 0) > workload.ready
    failed = (
        short or holds(workload, "ReplicaFailure") or (workload is not None and _short(workload.kind, workload.raw))
    )
    return lacking(subject) or failed or _incomplete(subject) or any(pod.failing for pod in subject.pods)


def holds(workload: Workload | None, *types: str) -> bool:
    """Whether one of these conditions of the workload is met."""
    return workload is not None and any(workload.item.condition(kind, "True") for kind in types)


def _wants(cluster: Cluster, kind: str, namespace: str, name: str) -> bool:
    """Whether a controller has fewer pods than it was asked for."""
    item = cluster.item(kind, namespace, name)
    return item is not None and _short(kind, item.raw)


def _lacks_workers(subject: Subject, above: Workload) -> bool:
    """Whether a RayCluster has fewer workers than it wants, those that wait or start counted as well, beside a head that runs."""
    there = sum(pod.exists and pod.labels.get(RAY_NODE_TYPE) == "worker" for pod in subject.pods)
    asked = dig(above.raw, "status.desiredWorkerReplicas")
    return above.kind == "RayCluster" and _short(above.kind, above.raw) and isinstance(asked, int) and asked > there


def _short(kind: str, raw: Any) -> bool:
    paths = ("status.desiredWorkerReplicas", "status.availableWorkerReplicas")
    asked, have = (dig(raw, path) for path in (paths if kind == "RayCluster" else ("spec.replicas", "status.replicas")))
    return isinstance(asked, int) and asked > (have if isinstance(have, int) else 0)


def _finished(workload: Workload | None) -> bool:
    """Whether it wants no pod now: scaled to zero, suspended, or done."""
    if workload is None:
        return False
    done = holds(workload, "Complete", "Failed", "Suspended")
    return workload.replicas == 0 or done or dig(workload.raw, "spec.suspend") is True


def _conditions(subject: Subject, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """What the conditions of the target and of the objects that it owns say: they outlive events."""
    mine = {id(item) for item in subject.related.values()}
    for kind in _KINDS:
        for item in cluster.items(kind, subject.namespace):
            if id(item) in mine or any(id(owner) in mine for owner in cluster.chain(item)):
                for condition in item.conditions:
                    yield f"{item.plain_kind}/{item.name} status.conditions[{condition.type}]", condition.message
