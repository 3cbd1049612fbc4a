"""Two engines of one pod that listen on the same port."""

from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Events,
    Evidence,
    Finding,
    Fix,
    Pod,
    Subject,
    check,
    event_evidence,
    fixes,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._listening import ANY_IPV4
from llmdoctor_checks.start._probes import failures

#: Servers that set SO_REUSEPORT: vLLM's `create_server_socket` until its PR 47529, the cpp-httplib of llama.cpp (issue 20963).
_SHARES = frozenset({"vllm", "llama.cpp"})

#: Servers that are told their port by --port.
_BY_FLAG = frozenset({"vllm", "sglang", "tgi", "tei", "llama.cpp"})
#: Settings that are ports beside the one for clients.
_PORTS = ("port", "grpc_port", "prometheus_port", "metrics_port")

#: Where vLLM lets data-parallel ranks meet that are told of no port (config/parallel.py).
_RPC_PORT = "29550"

#: How a probe over HTTP is answered by ZeroMQ: by its greeting (ZMTP 3), as Go quotes it.
_ZMQ = 'malformed HTTP response "\\xff\\x00\\x00'


@check("port-in-use", since="0.1")
def port_in_use(pod: Pod, subject: Subject, events: Events | None) -> Iterator[Finding]:
    """The port is already taken.

    The server cannot listen because another process holds the port. All containers of a pod share one network, so a proxy or a
    second engine in the pod is the usual one; a start script may start the server twice; with `hostNetwork` every process of
    the node counts. Engines of several processes also need ports for the ranks, for ZeroMQ and for Ray.

    Messages that a port is in use and another is tried are harmless. In a manifest it is a risk where two containers of a pod
    run engines that listen on the same port: the second one to start ends. Two vLLM or two llama.cpp servers share the port
    without a word in many versions, which set SO_REUSEPORT, and each connection goes to one or the other. So it is with a vLLM
    whose `--data-parallel-rpc-port` is its `--port`, where other pods have some of its ranks.

    ## Fix

    Give one of the two another port (`--port`, `--master-port`, `--dist-init-addr`), and correct probes and Services with it.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/#pod-networking
    """
    for engine in subject.engines(pod):
        yield from _with_itself(engine, events)
    if pod.exists:
        return
    # of an engine whose command line is not known it is not known either where it listens
    engines = [
        e for e in subject.engines(pod) if e.container.role != "init" and e.found.argv_known and not e.value("uds")
    ]
    for one, other in combinations(engines, 2):
        port = one.value("port")
        if one.container is other.container or not isinstance(port, int) or other.value("port") != port:
            continue
        hosts = {str(engine.value("host") or ANY_IPV4) for engine in (one, other)}
        if len(hosts) > 1 and not hosts & {ANY_IPV4, "::"}:
            continue  # each on an address of its own, as 127.0.0.1 and 127.0.0.2
        then = "the second to start finds it taken and ends."
        if one.name == other.name and one.name in _SHARES:
            then = "the second to start finds it taken and ends, or takes a part of the requests that are meant for the first."
        yield Finding(
            role="risk",
            severity="critical",
            summary=f"{one.container.name} and {other.container.name} both listen on port {port}, and the containers of a pod "
            f"share one network: {then}",
            evidence=(*_said(one, port), *_said(other, port)),
            fix=_moved(other, port, _free(pod, engines, port)),
        )
        return


def _free(pod: Pod, engines: list[Engine], port: int) -> int:
    """The next port that no container of the pod is known to have."""
    taken = {engine.value(name) for engine in engines for name in _PORTS}
    taken |= pod.declared_ports
    numbers = chain(range(port + 1, 2**16), range(port - 1, 0, -1))
    return next(number for number in numbers if number not in taken)


def _moved(engine: Engine, old: int, port: int) -> Fix:
    container = engine.container
    summary = f"Have {container.name} listen on port {port} and its probes ask it there, as a Service must by number"
    if engine.name not in _BY_FLAG:
        return fixes.advice(f"{summary}, in {fixes.edited(engine.pod)}")
    fix = fixes.set_flag(engine, "port", "--port", str(port), summary)
    asked = list(_asked_there(container, old, port))
    return fixes.together(fixes.patch(engine.pod, summary, asked), fix) if asked else fix


def _asked_there(container: Container, old: int, port: int) -> Iterator[dict[str, Any]]:
    """What of a container names its port by number: where it is declared, and the probes."""
    for index, declared in enumerate(container.spec.ports):
        if declared.container_port == old:
            yield {"op": "replace", "path": f"{container.pointer}/ports/{index}/containerPort", "value": port}
    for which, probe in container.spec.probes.items():
        for how, action in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket), ("grpc", probe.grpc)):
            if action is not None and str(action.port) == str(old):
                yield {"op": "replace", "path": f"{container.pointer}/{which}Probe/{how}/port", "value": port}


def _with_itself(engine: Engine, events: Events | None) -> Iterator[Finding]:
    """A vLLM whose data-parallel ranks meet at the port where its clients ask: ZeroMQ answers those then, in no HTTP.

    Only the first rank's pod listens there, and none where all ranks are in one pod, which meet in a file, or where Ray starts them.
    """
    meets, port = engine.explicit("data_parallel_rpc_port"), engine.value("port")
    if engine.name != "vllm" or meets is None or meets.value != port or engine.value("uds") or engine.value("headless"):
        return
    rank, ranks = engine.value("data_parallel_rank"), engine.value("data_parallel_size")
    here = engine.value("data_parallel_size_local") if rank is None else 1
    first = not rank and not engine.value("data_parallel_start_rank") and engine.value("data_parallel_backend") != "ray"
    if first and isinstance(ranks, int) and isinstance(here, int) and here < ranks:
        met = next((e for _, e in failures(engine.container, events) if _ZMQ in e.message), None)
        yield Finding(
            role="cause" if met else "risk",
            severity="critical",
            confidence="certain" if met else "likely",
            summary=f"The data-parallel ranks of {engine.container.name} meet at port {port} ({meets.text}), where clients ask it: the "
            "server starts all the same, and clients get an answer that is no HTTP (curl: Received HTTP/0.9).",
            evidence=(
                *((event_evidence(met, engine.pod.cluster),) if met else ()),
                setting_evidence(engine.container, meets),
                *_said(engine, port),
            ),
            explains=("not-ready", "crash-loop", "probe-too-short", "rollout-stuck") if met else (),
            fix=fixes.set_flag(
                engine,
                "data_parallel_rpc_port",
                "--data-parallel-rpc-port",
                _RPC_PORT,
                f"Let the ranks meet at vLLM's own port for it, {_RPC_PORT}, in all pods of the group alike",
            ),
        )


def _said(engine: Engine, port: int) -> tuple[Evidence]:
    setting = engine.explicit("port")
    if setting is not None:
        return (setting_evidence(engine.container, setting),)
    return (pod_evidence(engine.container, "args", f"no port: {engine.title} takes {port}"),)
