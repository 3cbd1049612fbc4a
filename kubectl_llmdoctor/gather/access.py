"""What this user may read, and what a diagnosis loses without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec

from kubectl_llmdoctor.gather import agents
from kubectl_llmdoctor.gather.failure import RequestError, Why, unreachable
from kubectl_llmdoctor.gather.session import Cluster
from kubectl_llmdoctor.gather.transport import PARALLEL
from kubectl_llmdoctor.gather.workers import Workers
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import dig


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessRow:
    """One thing to read. `allowed` is None where the server did not say; `reason` is its word on a refusal."""

    resource: str
    group: str
    verbs: tuple[str, ...]
    namespaced: bool
    needed_for: str
    #: the namespace that is meant, where it is not the one that was asked about
    namespace: str = ""
    allowed: bool | None = None
    reason: str = ""


_STORAGE = (
    ("csinodes", "how many volumes a node can have"),
    ("csidrivers", "storage that says how much room it has"),
    ("csistoragecapacities", "where storage has room"),
    ("volumeattachments", "volumes attached to a node"),
)
_DEVICES = (
    ("deviceclasses", "devices by DRA: classes that a claim names"),
    ("resourceslices", "devices by DRA: which a node has"),
    ("resourceclaims", "devices by DRA: who has them"),
)


def _rules() -> Iterator[AccessRow]:
    def rule(
        resource: str, verbs: str, needed_for: str, group: str = "", *, namespaced: bool = True, at: str = ""
    ) -> AccessRow:
        return AccessRow(
            resource=f"{resource} (namespace {at})" if at else resource,
            group=group,
            verbs=tuple(verbs.split()),
            namespaced=namespaced,
            namespace=at,
            needed_for=needed_for,
        )

    yield rule("pods", "get list", "everything: what runs, and why it does not")
    yield rule("pods/log", "get", "the cause of a crash in the engine's own words")
    yield rule("events", "list", "scheduling, images, volumes, probes")
    yield rule("services", "list", "who reaches the engine; variables that services inject")
    yield rule("endpointslices", "list", "whether a service has an endpoint left", "discovery.k8s.io")
    yield rule("configmaps", "get", "engine settings that a ConfigMap holds")
    yield rule("secrets", "get", "whether a Secret exists (only its metadata is asked for, never its data)")
    yield rule("persistentvolumeclaims", "get", "why a volume is not there")
    yield rule("resourcequotas", "list", "pods that a quota refuses")
    yield rule("limitranges", "list", "limits that nobody wrote into the pod")
    yield rule("deployments", "get", "replicas, rollout, what changed", "apps")
    yield rule("replicasets", "get list", "the previous revision, pods that are refused", "apps")
    yield rule("statefulsets", "get", "replicas, rollout, what changed", "apps")
    yield rule("daemonsets", "get", "replicas, rollout, what changed", "apps")
    yield rule("controllerrevisions", "list", "the previous revision of a StatefulSet", "apps")
    yield rule("jobs", "get", "models that are served or loaded by a Job", "batch")
    yield rule("horizontalpodautoscalers", "list", "scaling on what does not follow the load", "autoscaling")
    yield rule("poddisruptionbudgets", "list", "evictions that a budget blocks", "policy")
    yield rule("networkpolicies", "list", "downloads and ranks that a policy cuts off", "networking.k8s.io")
    yield rule("ingresses", "list", "an API without a key that is reachable from outside", "networking.k8s.io")
    yield rule("scaledobjects", "list", "the same by KEDA, and replicas that never come back from zero", "keda.sh")
    yield rule("leaderworkersets", "get", "engines over several nodes", "leaderworkerset.x-k8s.io")
    yield rule("inferenceservices", "get", "what KServe thinks of its model", "serving.kserve.io")
    yield rule("rayclusters", "get", "what KubeRay thinks of its cluster", "ray.io")
    yield rule("services/proxy", "get", "Prometheus, reached through the API server: load and latency over time")
    yield rule("pods/proxy", "get", "the engines' own ports: metrics, health, the models that they serve")
    yield rule("nodes", "get list", "GPUs, pressure, taints: why a pod is Pending", namespaced=False)
    yield rule("services (all namespaces)", "list", "finding Prometheus, and where DNS answers", namespaced=False)
    yield rule("pods (all namespaces)", "list", "who holds the GPUs of a node", namespaced=False)
    yield rule("daemonsets (all namespaces)", "list", "what keeps a device plugin off a node", "apps", namespaced=False)
    yield rule("namespaces", "get list", "affinity to the pods of certain namespaces", namespaced=False)
    yield rule("persistentvolumes", "get list", "volumes bound to another zone or node", namespaced=False)
    yield rule("persistentvolumeclaims (all namespaces)", "list", "volumes attached to a node", namespaced=False)
    yield rule("storageclasses", "get list", "claims that no provisioner serves", "storage.k8s.io", namespaced=False)
    yield rule("nodeclaims", "list", "machines that a cloud does not give", "karpenter.sh", namespaced=False)
    yield rule("nodepools", "list", "pools of machines that Karpenter passes over", "karpenter.sh", namespaced=False)
    for group in ("machine.openshift.io", "cluster.k8s.io"):
        yield rule("machines (all namespaces)", "list", "machines that could not be made", group, namespaced=False)
    yield rule("events", "list", "the same, by the events of NodeClaims that are gone", at="default")
    for resource, what in _STORAGE:
        yield rule(resource, "list", what, "storage.k8s.io", namespaced=False)
    for resource, what in _DEVICES:
        yield rule(resource, "list", what, "resource.k8s.io", namespaced=False)
    for resource, verb in (("pods", "list"), ("pods/proxy", "get")):
        what = "the node agents: GPU health, who holds a GPU, the kernel's log"
        yield rule(resource, verb, what, at=agents.NAMESPACE)
    yield rule("runtimeclasses", "list", "the NVIDIA runtime that a pod asks for", "node.k8s.io", namespaced=False)
    yield rule("priorityclasses", "get", "preemption", "scheduling.k8s.io", namespaced=False)


RULES = tuple(_rules())


def ask(cluster: Cluster, namespace: str | None) -> list[AccessRow]:
    """Each rule with the server's answer, the most important first. Raises AccessError when there is no answer."""
    workers = Workers(PARALLEL)
    where = namespace or cluster.namespace
    answers: dict[tuple[int, str], bool | None] = {}
    reasons: dict[int, str] = {}
    failures: list[RequestError] = []

    def question(position: int, verb: str) -> Callable[[], None]:
        def work() -> None:
            try:
                status = _review(cluster, RULES[position], verb, where)
                answers[position, verb] = bool(status.get("allowed"))
                if not status.get("allowed"):
                    reasons[position] = str(status.get("reason") or status.get("evaluationError") or "")
            except RequestError as error:
                answers[position, verb] = None
                reasons[position] = error.reason
                failures.append(error)

        return work

    for position, row in enumerate(RULES):
        for verb in row.verbs:
            workers.submit(question(position, verb))
    try:
        workers.drain()
    finally:
        workers.stop()
    if len(failures) == len(answers):
        raise unreachable(cluster.endpoint, failures[0], "what this user may read", hint="")
    found = []
    for position, row in enumerate(RULES):
        verdicts = [answers[position, verb] for verb in row.verbs]
        allowed = None if None in verdicts else all(verdicts)
        found.append(replace(row, allowed=allowed, reason=reasons.get(position, "")))
    return [*found, _agents(cluster)]


def _agents(cluster: Cluster) -> AccessRow:
    """Whether there are node agents, and whether one of them answers."""
    row = AccessRow(resource="node agents", group="", verbs=(), namespaced=False, needed_for="")
    try:
        pods = agents.find(cluster.client)
        running = [pod for pod in pods if not pod.trouble]
        where = ", ".join(sorted({pod.namespace for pod in pods}))
        said = f"{len(running)} of {len(pods)} run in the namespace {where}"
        if running:
            agents.read(cluster.client, running[0])
            said += f", and the one of {running[0].node} answers"
        return replace(row, allowed=bool(running), needed_for=said)
    except agents.ReportError as error:
        return replace(row, allowed=False, needed_for=str(error), reason=str(error))


def prometheus(cluster: Cluster, namespace: str | None) -> AccessRow:
    """Whether there is a Prometheus that answers this user; `allowed` is None where the cluster could not be looked through."""
    from kubectl_llmdoctor.gather.prometheus.reading import reachable

    answers: bool | None
    try:
        answers, where = reachable(cluster.client, namespace or cluster.namespace)
    except RequestError as error:
        answers, where = None, error.reason
    return AccessRow(
        resource="Prometheus",
        group="",
        verbs=(),
        namespaced=False,
        needed_for=f"how the pods did in the last hour ({where})",
        allowed=answers,
        reason="" if answers else where,
    )


def _review(cluster: Cluster, row: AccessRow, verb: str, namespace: str) -> Json:
    resource, _, subresource = row.resource.partition(" ")[0].partition("/")
    attributes = {"verb": verb, "group": row.group, "resource": resource}
    if subresource:
        attributes["subresource"] = subresource
    if row.namespaced:
        attributes["namespace"] = row.namespace or namespace
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = cluster.client.post(path, review, decode=msgspec.json.decode)
    status = dig(answer, "status")
    if not isinstance(status, dict):
        raise RequestError(Why.BROKEN, "the answer is no review")
    return status
