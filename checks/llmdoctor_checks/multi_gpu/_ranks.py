"""Ranks of a server on several nodes that wait for the ranks of the others."""

from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    Workload,
    dig,
    expression,
    fixes,
    log_evidence,
    of_pod,
    phase_of,
    pod_evidence,
    reach,
    say_seconds,
    seconds_between,
    setting_evidence,
)
from llmdoctor_checks._standstill import STUCK_SECONDS, after_start, ends_with, killed_at, killed_with

#: What vLLM and SGLang print before a rank meets the others. Each rank of this node does so in its log, and none of another node.
JOINS = ("distributed_init_method=tcp://", "Init torch distributed begin")

#: What PyTorch's Gloo prints on each rank of a group, which is made when all have met.
CONNECTED = "[Gloo] Rank "

#: What PyTorch says of a name that the resolver does not know (socket.cpp; EAI_NONAME).
_NO_NAME = ") cannot be retrieved (gai error: -2 "
_UNKNOWN = expression(r"addresses of \((?P<host>[\w.-]{1,253}), (?P<port>\d{1,5})\) cannot be retrieved")

#: vLLM's line (`parallel_state.py`).
_RANK = (
    r"\bworld_size=(?P<world>\d{1,5}) rank=(?P<rank>\d{1,5}) local_rank=\d{1,5} "
    r"distributed_init_method=(?P<at>tcp://[\w.:\[\]-]{1,200})"
)

#: What a data-parallel engine of vLLM that has loaded its model prints every ten seconds (v1/engine/core.py), until all engines have
#: joined the coordinator.
AWAITS_ENGINES = "Waiting for READY message from DP Coordinator"
_AWAITS_EVERY_SECONDS, _AWAITS_SECONDS, _AWAITS_LONG_SECONDS = 10, 180, 900
#: Phases in which a start takes as long as the model is large.
_ON_THE_WAY = ("downloading the model", "loading weights")
#: Which of the engines of a pod wrote a line.
_ENGINE = expression(r"\([^()]{1,80}\)")


def waits_for_other_engines(
    pod: Pod, engine: Engine, subject: Subject, logs: Logs, explains: tuple[str, ...]
) -> Iterator[Finding]:
    """The data-parallel engines of one node, which have loaded their model and wait for those of the other nodes."""
    size, local = engine.explicit("data_parallel_size"), engine.explicit("data_parallel_size_local")
    container = engine.container
    if size is None or local is None:
        return
    if not isinstance(size.value, int) or not isinstance(local.value, int) or not 0 <= local.value < size.value:
        return
    log = logs.current(container.name)
    line = ends_with(log, (AWAITS_ENGINES,)) if log is not None else None
    ended = line is None
    if line is None and not pod.ready:  # else one that a probe ended
        killed = killed_with(pod, logs, (AWAITS_ENGINES,))
        line = next((last for ending, last in killed if ending.container is container), None)
    if line is None:
        return
    said = list(line.log.find(AWAITS_ENGINES))
    engines = {found[0] for one in said if (found := _ENGINE.match(one.text[:200]))}
    if engines and len(engines) < local.value:
        return  # one of this node has not come so far itself
    seconds = seconds_between(said[0], line)
    if seconds is None:  # by what each engine of this node says for itself
        seconds = _AWAITS_EVERY_SECONDS * len(said) / max(len(engines) or local.value, 1)
    if seconds < (_AWAITS_SECONDS if ended else _AWAITS_LONG_SECONDS):
        return  # the others may load still
    loads = next((one.name for one in subject.pods if one is not pod and _loads(one, subject)), None)
    still = f"; {loads} still loads" if loads else ""
    yield Finding(
        confidence="likely" if seconds >= _AWAITS_LONG_SECONDS and not loads else "possible",
        summary=f"{container.name} has loaded its model and waited {say_seconds(seconds)} or more for the data-parallel engines of the "
        f"other nodes: this one has {local.value} of {size.value}{still}.",
        evidence=(log_evidence(line), setting_evidence(container, size), setting_evidence(container, local)),
        explains=explains,
        fix=fixes.advice(
            "See that the pods of the other nodes run and have loaded the model, that each has its own --data-parallel-start-rank "
            "and all the same --data-parallel-size, --data-parallel-address and --data-parallel-rpc-port, and that they reach it",
            f"kubectl -n {pod.namespace} get pods -o wide",
            f"kubectl -n {pod.namespace} get networkpolicies,endpointslices",
        ),
        order=line.order,
    )


def _loads(pod: Pod, subject: Subject) -> bool:
    """Whether a pod is where its start takes long, and has not ended."""
    phases = (phase_of(log) for log in subject.logs(pod) if not log.previous)
    return any(c.running for c in pod.containers) and any(phase and phase.name in _ON_THE_WAY for phase in phases)


def waits_for_other_nodes(
    pod: Pod, engine: Engine, subject: Subject, logs: Logs, explains: tuple[str, ...]
) -> Iterator[Finding]:
    """A part of a server on several nodes whose log ends where its ranks meet those of the other nodes.

    Where one of its other pods has no container that runs, what keeps that one is the cause.
    """
    nodes, container = engine.explicit("nnodes"), engine.container
    if nodes is None or not isinstance(nodes.value, int) or nodes.value < 2:
        return
    for log, line, seconds, shown in _stands(pod, container, logs):
        said = [found for _, found in log.matching(_RANK, JOINS[0], most=2000)]
        ranks = {int(one["rank"]) for one in said}
        world = int(said[-1]["world"]) if said else 0
        met = any(one.number > line.number for one in log.find(CONNECTED))
        if met or phase_of(log) is not None or (said and len(ranks) >= world):
            continue
        number = engine.value("node_rank")
        lead = 0 in ranks if said else number == 0
        part = f"the part of node {number}" if number is not None else "this part"
        who = f"rank {min(ranks)} of {world}" if said else part
        at = f" at {said[-1]['at']}" if said else ""
        whom = "the ranks of the other nodes" if lead else "rank 0, on another node"
        down = [one for one in subject.pods if one is not pod and not any(c.running for c in one.containers)]
        missing = f"; {down[0].name} does not run" if down else ""
        yield Finding(
            confidence="possible" if down else "likely",
            summary=f"{container.name} has waited {say_seconds(seconds)} for {whom}: its log ends where {who} of {nodes.value} nodes "
            f"meets them{at}{missing}.",
            evidence=(log_evidence(line), setting_evidence(container, nodes), *shown),
            explains=explains,
            fix=_see(
                pod, down, said[-1]["at"] if said else "", _of_no_service(pod, subject.workload, nodes.value, log)
            ),
            order=line.order,
        )
        return


def _see(pod: Pod, down: list[Pod], at: str, nameless: Fix | None) -> Fix:
    namespace = pod.namespace
    why = f"of the same group as {pod.name}"
    if mended := next((fix for one in down if (fix := of_pod(one, why))), None) or reach(at, pod):
        return mended
    if nameless is not None:
        return nameless
    if down:
        command = f"kubectl -n {namespace} describe pod {down[0].name}"
        return fixes.advice(f"See first why {down[0].name} does not run", command)
    return fixes.advice(
        "See that the pods of the other nodes run and have come as far, that all have the same --nnodes and each its own "
        "--node-rank, and that they reach rank 0 at this address and port (no NetworkPolicy or proxy in between)",
        f"kubectl -n {namespace} get pods -o wide",
        f"kubectl -n {namespace} get networkpolicies,endpointslices",
    )


def _of_no_service(pod: Pod, workload: Workload | None, nodes: int, log: Log) -> Fix | None:
    """For ranks of a set without a Service, whose pods have no names: rank 0 is asked for by one of somebody's own."""
    found = [said for _, said in log.matching(_UNKNOWN, _NO_NAME, most=2000)]
    if not found or workload is None or workload.kind != "StatefulSet" or dig(workload.raw, "spec.serviceName"):
        return None
    # one that nobody read, or whose pods are not the ranks, tells nothing of rank 0
    replicas = dig(workload.raw, "spec.replicas")
    if not isinstance(replicas, int) or replicas < nodes:
        return None
    host, port, name = found[-1]["host"], found[-1]["port"], workload.name
    if "." in host or any(item.name == host for item in pod.cluster.items("Service", pod.namespace)):
        return None
    # pods of the node's network ask the node's resolver unless they are told otherwise
    by_node = pod.spec.host_network and pod.spec.dns_policy != "ClusterFirstWithHostNet"
    resolver = ", with dnsPolicy: ClusterFirstWithHostNet in its pods" if by_node else ""
    return fixes.advice(
        f"Make a headless Service {name} (clusterIP: None, publishNotReadyAddresses: true) for the pods of {workload.ref}, name it in "
        f"spec.serviceName, which is empty (so the set must be made again), and ask rank 0 at {name}-0.{name}:{port} in place of "
        f"{host}:{port}{resolver}: without that Service its pods have no names",
        f"kubectl -n {pod.namespace} get services",
    )


def _stands(pod: Pod, container: Container, logs: Logs) -> Iterator[tuple[Log, Line, float, tuple[Evidence, ...]]]:
    """The starts of a container that came to where the ranks meet and no further, and for how long they had stood there."""
    trouble = container.trouble("not-ready")
    log = logs.current(container.name)
    stood = pod.cluster.seconds_since(trouble.since if trouble else _unasked_since(container))
    if stood is not None and log is not None and (line := ends_with(log, JOINS)):
        seconds = stood - after_start(line)
        if seconds >= STUCK_SECONDS:
            yield log, line, seconds, ()
    for ending, line in () if pod.ready else killed_at(pod, logs, JOINS):
        if ending.container is container:
            seconds = (ending.seconds or 0) - after_start(line)
            yield line.log, line, seconds, (pod_evidence(pod, ending.path, ending.text),)


def _unasked_since(container: Container) -> datetime | None:
    """When a container started that counts as ready only since no probe asks it, as the parts without a server of their own."""
    asked = container.spec.readiness_probe or container.spec.startup_probe
    return None if asked else container.started
