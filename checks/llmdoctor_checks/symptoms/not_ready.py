"""The symptom of a pod that has a node and does not serve."""

from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    RAY_NODE_TYPE,
    Container,
    Event,
    Events,
    Evidence,
    Finding,
    Log,
    Logs,
    Pod,
    Subject,
    Trouble,
    check,
    dig,
    event_evidence,
    fixes,
    log_evidence,
    phase_of,
    pod_evidence,
    say_seconds,
    seconds_ago,
)
from llmdoctor_checks import _links, _unreached
from llmdoctor_checks.scheduling._refused import holds

#: A start shorter than this is taken for loading, not for a fault: weights of large models take minutes.
_LOADING_SECONDS = 630

#: Engines print nothing for minutes while they compile kernels and read large shards; FlashInfer's first start takes 15.
_SILENT_SECONDS = 900

#: Not every line has a time.
_LAST_LINES = 20


@check("not-ready", since="0.1", literals=_unreached.LITERALS)
def not_ready(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """The pod has a node but does not serve.

    A container waits (for its image, its configuration, its volumes) or runs without becoming ready, so Services send
    it no requests. How far its log has come tells a model that is still loading from one that hangs, and a server that
    nothing reaches from one that is not up: whoever says that it serves, and is not ready, fails its probe. Before the
    readiness probe's `initialDelaySeconds` have passed nobody asks it, and no container with that probe is ready.

    Where all containers are ready and the pod is not, nobody's probe failed: the control plane calls the pods of a node unready
    that no longer reports, and a readiness gate waits for a load balancer or another controller that owns it.

    A pod that was given to a node, and of which that node's kubelet says nothing, is not being made: the kubelet stands still.

    A worker of a RayService runs Ray Serve's proxy only where it has a replica of a deployment. Without one, as the further nodes
    of an engine over several have none, KubeRay's readiness probe never succeeds; the service is none the worse for it. Nor does it where
    an engine was started on Ray by hand, without Serve: give such workers a readiness probe of their own.

    Of a client or a gateway it is a cause where its log says that it does not reach a server whose pods are not ready: nothing is wrong
    with the client, and what is wrong stands with those pods.

    ## Fix

    Fix the cause that is named above it. A model that is still loading needs time: see `probe-too-short` and
    `slow-load`.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes
    - https://docs.ray.io/en/latest/cluster/kubernetes/user-guides/rayservice-no-ray-serve-replica.html
    """
    yield from _links.broken(pod, pod.cluster, "not-ready")
    for trouble in pod.troubles:
        if trouble.silent:
            yield _not_taken_up(pod, trouble)
        if trouble.kind == "not-ready" and trouble.container is None:
            yield _set_from_outside(pod, subject, trouble)
        elif trouble.kind == "not-ready" and trouble.container is not None:
            yield _unready(trouble.container, trouble, subject, events, logs)
        elif trouble.kind in ("waiting", "creating") and trouble.container is not None:
            refused = [event_evidence(e, pod.cluster) for e in _refusals(pod, events)[-2:]]
            yield Finding(
                role="symptom",
                confidence="certain",
                summary=f"Container {trouble.container.name}: {trouble.text}.",
                evidence=(*refused, *_waits(trouble.container)),
            )


def _waits(container: Container) -> Iterator[Evidence]:
    """What the kubelet says that a container waits for."""
    waiting = container.waiting
    if waiting and waiting.reason:
        text = f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason
        yield pod_evidence(container.pod, f"status.containerStatuses[{container.name}].state.waiting", text)


def _unready(
    container: Container, trouble: Trouble, subject: Subject, events: Events | None, logs: Logs | None
) -> Finding:
    """A container that runs and is not ready: noted while it may be loading, or where it need not be ready."""
    pod, name = container.pod, container.name
    seconds = pod.cluster.seconds_since(trouble.since)
    progress, lines, moving = _progress(container, logs)
    patience = max(_LOADING_SECONDS, _budget(container)) if moving else _LOADING_SECONDS
    probes = [e for e in (events.of("Unhealthy") if events else []) if e.name == pod.name]
    evidence = (
        *(event_evidence(e, pod.cluster) for e in probes[-1:]),
        *_waits(container),
        pod_evidence(pod, f"status.containerStatuses[{name}].ready", "false"),
        *lines,
    )
    if _proxy_alone_is_missing(container, probes):
        progress += (
            " Ray's own health check answers, and Ray Serve's (/-/healthz) does not: no replica of Serve is up on this worker "
            "(an engine that was started on Ray without Serve has none)."
        )
    crashed = any(t.kind == "crashed" for t in pod.troubles)
    if not crashed and _without_replica(container, subject):
        serves = subject.workload.ref if subject.workload else "the service"
        summary = f"Container {name} is not ready and need not be: it runs no proxy of Ray Serve, and {serves} serves."
        return Finding(role="note", summary=summary, evidence=evidence)
    if seconds is not None and seconds < patience and not container.restarts and not crashed:
        summary = f"Container {name} started {say_seconds(seconds)} ago and is not ready yet.{progress}"
        return Finding(role="note", confidence="certain", summary=summary, evidence=evidence)
    summary = f"Container {name}: {trouble.text}{_span(pod, trouble)}.{progress}"
    return Finding(role="symptom", confidence="certain", summary=summary, evidence=evidence)


def _not_taken_up(pod: Pod, trouble: Trouble) -> Finding:
    """A kubelet that says nothing of a pod: nothing new starts on that node, no debugging pod either."""
    node = pod.spec.node_name
    look = fixes.platform(
        f"See whether the kubelet of {node} is at work: a mount whose server is gone (NFS), or a runtime or disk that does not answer, "
        "holds it up while the node still reports; restart it there, or let the pod go to another node",
        f"kubectl get --raw /api/v1/nodes/{node}/proxy/healthz",
        fixes.pods_on(node),
    )
    return Finding(
        role="symptom",
        confidence="certain",
        summary=f"{pod.name}: {trouble.text}.",
        evidence=(pod_evidence(pod, "status", "phase Pending, no startTime and no status of any container"),),
        fix=look,
    )


def _span(pod: Pod, trouble: Trouble) -> str:
    """For how long a container is not ready: from its start, or from when the pod, and so each of them, was ready last."""
    ready = pod.condition("Ready")
    ages = [pod.cluster.seconds_since(when) for when in (trouble.since, ready.last_transition_time if ready else None)]
    seconds = min((age for age in ages if age is not None), default=None)
    return f" for {say_seconds(seconds)}" if seconds is not None else ""


def _set_from_outside(pod: Pod, subject: Subject, trouble: Trouble) -> Finding:
    """A pod that is not ready, while its containers are: its node is out of sight, or its status says what is missing."""
    condition, name = pod.condition("Ready"), pod.spec.node_name or "its node"
    seconds = pod.cluster.seconds_since(trouble.since)
    span = f" for {say_seconds(seconds)}" if seconds is not None else ""
    said = ": ".join(filter(None, (condition.reason, condition.message))) if condition else ""
    node = subject.nodes.get(pod.spec.node_name)
    reports = node is not None and node.ready is True
    if condition is not None and condition.reason == "ReadinessGatesNotReady":
        why = "a readiness gate is not passed"
    elif said:
        why = said
    elif pod.obj.metadata.deletion_timestamp:
        why = "it is being deleted"
    else:
        why = f"nothing says why, and {name} reports" if reports else "so stands a pod whose node no longer reports"
    unseen = () if said or reports else (f"kubectl get node {name}",)
    return Finding(
        role="symptom",
        confidence="certain",
        summary=f"All containers of {pod.name} that serve are ready, and the pod is not{span}: {why}.",
        evidence=(pod_evidence(pod, "status.conditions[Ready]", f"False: {said}" if said else "False"),),
        fixes=(fixes.platform(f"See whether {name} reports", *unseen),) if unseen else (),
    )


def _proxy_alone_is_missing(container: Container, probes: list[Event]) -> bool:
    """Whether the first half of KubeRay's probe answered, which asks the raylet, and the second did not, which asks Ray Serve's proxy.

    Each half prints `success` when it is answered, and the second is asked only after the first.
    """
    probe = container.spec.readiness_probe
    asked = probe.script if probe else ""
    both = 0 <= asked.find("/api/local_raylet_healthz") < asked.find("/-/healthz")
    said = [event.message for event in probes if event.message.startswith("Readiness probe failed")]
    return both and bool(said) and said[-1].strip() == "Readiness probe failed: success"


def _without_replica(container: Container, subject: Subject) -> bool:
    """Whether it is a worker of a RayService that serves, and is asked for Ray Serve's proxy, which may not run there."""
    workload, probe = subject.workload, container.spec.readiness_probe
    if workload is None or workload.kind != "RayService" or probe is None or probe.exec is None:
        return False
    worker = container.pod.labels.get(RAY_NODE_TYPE) == "worker"
    asked = "/-/healthz" in probe.script
    serves = holds(workload, "Ready") or dig(workload.raw, "status.serviceStatus") == "Running"
    return worker and asked and serves


def _speaks(log: Log, now: datetime | None) -> bool:
    """Whether a log that says nothing of a known phase has grown lately, by the times in its last lines."""
    ago = (seconds_ago(line, now) for line in reversed(log.tail(_LAST_LINES)))
    last = next((seconds for seconds in ago if seconds is not None), None)
    return last is not None and 0 <= last < _SILENT_SECONDS


def _refusals(pod: Pod, events: Events | None) -> list[Event]:
    """What the kubelet could not do for the pod: the last event of each kind, none of an earlier time."""
    found = {
        e.reason: e
        for e in events or ()
        if e.kind == "Pod" and e.name == pod.name and e.warning and e.reason.startswith("Failed")
    }
    found.pop("FailedScheduling", None)
    return list(found.values())


def _budget(container: Container) -> int:
    """How long the startup probe lets the container start, or the kubelet waits before it asks whether it is ready."""
    startup, readiness = container.spec.startup_probe, container.spec.readiness_probe
    first = readiness.initial_delay_seconds + readiness.period_seconds if readiness else 0
    return max(startup.budget if startup else 0, first)


def _progress(container: Container, logs: Logs | None) -> tuple[str, tuple[Evidence, ...], bool]:
    """How far the start has come by the log of the running instance, since when it says no more, and whether it goes on."""
    log = container.own_log(logs)
    phase = phase_of(log)
    if log is None or phase is None:
        return "", (), log is not None and _speaks(log, container.pod.cluster.now)
    silent = container.pod.cluster.seconds_since(log.line(len(log)).time) or 0
    moving = False
    if phase.name == "serving":
        text = " Its log says that it serves."
    elif silent >= _SILENT_SECONDS:
        text = f" It was {phase.doing}, and its log has no further line for {say_seconds(silent)}."
    else:
        text, moving = f" By its log it is {phase.doing}.", True
    return text, (log_evidence(phase.line),), moving
