"""What a LeaderWorkerSet says of its groups: that the leader is first, that a group has a topology domain to itself.

Sources: api/leaderworkerset/v1 (StartupPolicyType), pkg/controllers/pod_controller.go and pkg/webhooks/pod_webhook.go of LeaderWorkerSet.
"""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    WORKER_INDEX,
    Engine,
    Evidence,
    Finding,
    Pod,
    Subject,
    dig,
    fixes,
    object_evidence,
    pod_evidence,
    setting_evidence,
)

_POLICY = "spec.startupPolicy"
#: The webhook turns it into an affinity of the leader, and workers follow it by a node selector.
EXCLUSIVE = "leaderworkerset.sigs.k8s.io/exclusive-topology"


def leader_first(subject: Subject) -> Iterator[Finding]:
    """The leader's engine has more ranks than the leader GPUs, so that it is ready only with the workers, which wait for that."""
    item = subject.workload.item if subject.workload else subject.item
    if item is None or item.kind != "LeaderWorkerSet" or dig(item.raw, _POLICY) != "LeaderReady":
        return
    size = dig(item.raw, "spec.leaderWorkerTemplate.size")
    leaders = [pod for pod in subject.pods if _leads(pod)]
    known = subject.cluster.complete("Pod", subject.namespace)
    alone = subject.static or (known and len(leaders) == len(subject.pods) and not any(pod.ready for pod in leaders))
    found = next(((pod, server) for pod in leaders if (server := _over_several(pod, subject))), None)
    if (
        not isinstance(size, int)
        or size < 2
        or found is None
        or not alone
        or not (subject.static or found[0].scheduled)
    ):
        return
    pod, engine = found
    ranks = [engine.explicit(name) for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")]
    yield Finding(
        role="risk" if subject.static else "cause",
        summary=f"{engine.label} of the leader has {engine.workers} ranks and the leader {engine.container.devices} GPUs, so it is "
        f"ready only when the {'worker' if size == 2 else f'{size - 1} workers'} of its group {'has' if size == 2 else 'have'} joined; "
        f"by startupPolicy LeaderReady {item.kind}/{item.name} makes none before the leader is ready.",
        evidence=(
            object_evidence(item, _POLICY, "LeaderReady"),
            *(setting_evidence(engine.container, setting) for setting in ranks if setting),
            *(
                [Evidence(source="pod", ref=pod.name, text=f"the only pod of its group of {size}")]
                if pod.exists
                else ()
            ),
            pod_evidence(engine.container, "readinessProbe", _asks(engine)),
        ),
        explains=("not-ready", "ray-cluster", "probe-too-short", "engine-init-failed", "crash-loop", "rollout-stuck"),
        fix=fixes.set_field(
            item, "/spec/startupPolicy", "LeaderCreated", "Make the workers as soon as the leader is there"
        ),
        pods=tuple(one.name for one in leaders) if pod.exists else (),
    )


def _leads(pod: Pod) -> bool:
    return (
        pod.labels.get(WORKER_INDEX) == "0"
        if pod.exists
        else pod.template is not None and pod.template.part == "leader"
    )


def _over_several(pod: Pod, subject: Subject) -> Engine | None:
    """The engine that is asked whether the leader is ready, where its ranks are more than the leader's GPUs."""
    for engine in subject.engines(pod):
        probe, gpus, workers = engine.container.spec.readiness_probe, engine.container.devices, engine.workers
        if probe and (probe.http_get or probe.tcp_socket) and gpus and workers and workers > gpus:
            return engine
    return None


def _asks(engine: Engine) -> str:
    probe = engine.container.spec.readiness_probe
    asked = probe.http_get if probe else None
    return f"GET {asked.path} on port {asked.port}" if asked else "a connection to the engine's port"


def exclusive(subject: Subject, size: int, asked: int, resource: str) -> Iterator[tuple[str, str, bool]]:
    """The topology domain that the group must stand in as a whole: its key, its value, and whether no domain can hold the group.

    The last only where all nodes are known.
    """
    placed = next((pod for pod in subject.pods if pod.scheduled and pod.annotations.get(EXCLUSIVE)), None)
    key = placed.annotations[EXCLUSIVE] if placed else ""
    where = next((n.labels.get(key) for n in subject.nodes if placed and n.name == placed.spec.node_name), None)
    if not where or asked < 1:
        return
    room: dict[str, int] = {}
    for node in subject.nodes:
        if domain := node.labels.get(key):
            room[domain] = room.get(domain, 0) + (node.allocatable(resource) or 0) // asked
    yield key, where, subject.nodes.complete and max(room.values()) < size
