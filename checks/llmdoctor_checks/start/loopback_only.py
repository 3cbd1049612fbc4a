"""An engine that listens on the loopback address alone."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Events,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Setting,
    check,
    endings,
    event_evidence,
    fixes,
    k8s,
    log_evidence,
    object_evidence,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks.start._probes import failures
from llmdoctor_checks.start._services import service_of

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]", "ip6-localhost"})

#: Exit codes of a server that was told to end: it obeyed, or SIGTERM or SIGKILL ended it.
_TOLD_TO_END = frozenset({0, 137, 143})

#: What servers print of the address on which they listen: llama-server, uvicorn, Ollama.
_LISTENS = (
    ("server is listening", r"server is listening(?: on https?://|, hostname: )(?P<host>[^\s,:]+|\[[^\]\s]+\])[:,]"),
    ("Uvicorn running on", r"Uvicorn running on https?://(?P<host>[^\s:]+|\[[^\]\s]+\]):\d+"),
    ('msg="Listening on', r'msg="Listening on (?P<host>[^\s:]+|\[[^\]\s]+\]):\d+'),
)

#: How an engine is told its address, where nothing says so yet.
_FLAGS = {"vllm": "--host", "sglang": "--host", "tgi": "--hostname", "llama.cpp": "--host", "tensorrt-llm": "--host"}


@check("loopback-only", since="0.2")
def loopback_only(pod: Pod, engine: Engine, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """The engine listens on the loopback address, where nobody outside its pod reaches it.

    Every process of a pod can reach 127.0.0.1, and nothing else can: the kubelet's probes and the Service connect to the
    pod's address and are refused. The log looks well, and an exec probe or `kubectl port-forward` even works. SGLang,
    llama-server and trtllm-serve listen on the loopback address unless they are told otherwise; so does Ollama outside its
    own image.

    A second container that passes requests on (a login, a router) is a reason to listen there: then nothing is said.

    ## Fix

    Listen on all addresses of the pod:

        args: [--host, 0.0.0.0]

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/#pod-networking
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    host, container = engine.get("host"), engine.container
    told = host is not None and (host.source != "default" or engine.found.argv_known)
    line = _listens(container, logs) if logs is not None else None
    if (
        (line is None and (host is None or not told or str(host.value).lower() not in _LOOPBACK))
        or (pod.exists and pod.ready)
        or pod.log_only
    ):
        return
    if pod.completed or any(c is not container and c.role != "init" for c in pod.containers):
        return  # something else in the pod may listen for it
    asked = _probe(container) or _service(pod)
    if asked is None:
        return
    who, evidence = asked
    troubled = any(t.kind in ("not-ready", "crashed") and t.container is container for t in pod.troubles)
    failing = troubled and not _ended_by_itself(container, events)
    refused = [event for _, event in failures(container, events)]
    if pod.failing and not troubled:
        return
    if failing and refused and not any("connection refused" in event.message for event in refused):
        return  # the kubelet says otherwise
    where = str(host.value) if host is not None and str(host.value).lower() in _LOOPBACK else "the loopback address"
    tail = ", its default" if host is not None and host.source == "default" and where == str(host.value) else ""
    if line is not None:
        tail += ", by its log"
    yield Finding(
        role="cause" if failing else "risk",
        severity="critical",
        confidence="likely",
        summary=f"{engine.label} listens on {where}{tail}, and {who} asks the address of the pod: "
        "every connection is refused.",
        evidence=(
            *(event_evidence(e, pod.cluster) for e in refused[-1:]),
            *((log_evidence(line),) if line is not None else ()),
            *((_said(container, host),) if host is not None and where == str(host.value) else ()),
            evidence,
        ),
        explains=("not-ready", "crash-loop", "probe-too-short", "port-mismatch") if failing else (),
        fixes=(_fix(engine, host),),
        pods=(pod.name,) if pod.exists else (),
    )


def _ended_by_itself(container: Container, events: Events | None) -> bool:
    """Whether the engine ends without a probe that kills it: by an error of its own, whatever the exit code says."""
    last = next((e for e in endings(container.pod) if e.container is container), None)
    spec = container.spec
    watched = spec.liveness_probe is not None or spec.startup_probe is not None
    killed = any(kind != "readiness" for kind, _ in failures(container, events))
    return last is not None and not killed and not (watched and last.code in _TOLD_TO_END)


def _listens(container: Container, logs: Logs) -> Line | None:
    """The line by which the instance that runs says that it listens on the loopback address, and on no other."""
    log, found = logs.current(container.name), None
    for words, pattern in _LISTENS if log is not None else ():
        for line in log.find(words) if log is not None else ():
            said = re.search(pattern, line.text)
            if said is None:
                continue
            if said["host"].lower() not in _LOOPBACK:
                return None
            found = line
    return found


def _said(container: Container, host: Setting) -> Evidence:
    if host.source == "default":
        return pod_evidence(container, "args", f"no address ({host.text})")
    return setting_evidence(container, host)


def _probe(container: Container) -> tuple[str, Evidence] | None:
    """The first probe of the kubelet that connects to the pod's address."""
    spec = container.spec
    probes = (("startup", spec.startup_probe), ("liveness", spec.liveness_probe), ("readiness", spec.readiness_probe))
    for kind, probe in probes:
        action = (probe.http_get or probe.tcp_socket) if probe else None
        if probe is None or action is None or (probe.http_get and probe.http_get.host):
            continue
        name = "httpGet" if probe.http_get else "tcpSocket"
        return f"the {kind} probe", pod_evidence(container, f"{kind}Probe.{name}.port", str(action.port))
    return None


def _service(pod: Pod) -> tuple[str, Evidence] | None:
    """A Service that leads to the pod."""
    item = service_of(pod)
    service = item.typed() if item else None
    if item is None or not isinstance(service, k8s.Service):
        return None
    selector = ", ".join(f"{key}: {value}" for key, value in service.spec.selector.items())
    return f"Service {item.name}", object_evidence(item, "spec.selector", selector)


def _fix(engine: Engine, host: Setting | None) -> Fix:
    container, summary = engine.container, "Listen on all addresses of the pod"
    if host is not None and host.source == "env":
        name = host.text.partition("=")[0]
        index = next((i for i, v in enumerate(container.spec.env) if v.name == name and v.value is not None), None)
        if index is not None:
            value = str(container.spec.env[index].value).replace(str(host.value), "0.0.0.0")  # noqa: S104 # the fix
            operation = {"op": "replace", "path": f"{container.pointer}/env/{index}/value", "value": value}
            return fixes.patch(container.pod, summary, [operation])
    flag = host.flag if host is not None and host.source == "flag" else _FLAGS.get(engine.name, "")
    if not flag:
        return fixes.advice(f"{summary}, in {fixes.edited(container.pod)}")
    return fixes.set_flag(engine, "host", flag, "0.0.0.0", summary)  # noqa: S104 # the fix
