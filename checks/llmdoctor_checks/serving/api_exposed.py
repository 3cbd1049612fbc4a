"""An API without a key that can be reached from outside the cluster."""

import ipaddress
import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    Workload,
    check,
    count_of,
    escaped,
    fixes,
    log_evidence,
    object_evidence,
    pod_evidence,
)
from llmdoctor_checks.serving._exposure import SCHEME, Way, restricted, ways
from llmdoctor_checks.serving._timeouts import ports

#: How an engine is given a key; the others have none of their own.
_KEYS = {
    "vllm": ("--api-key", "VLLM_API_KEY"),
    "huggingfaceserver": ("--api-key", "VLLM_API_KEY"),
    "sglang": ("--api-key", ""),
    "tgi": ("--api-key", "API_KEY"),
    "tei": ("--api-key", "API_KEY"),
    "llama.cpp": ("--api-key", "LLAMA_API_KEY"),
    "lmdeploy": ("--api-keys", ""),
    "localai": ("--api-keys", "LOCALAI_API_KEY"),
}

#: Those of which a worker may run without an API: where their command is known, a server of them always has a port.
_FRONTED = ("vllm", "sglang", "tensorrt-llm")

#: How a variable may be called that holds a server's key; those of the hubs from which it downloads are another's.
_KEY_VARIABLE, _OF_A_HUB = r"(?i)api_?keys?$|auth|token$", r"^(?:NGC|NVIDIA|HF|HUGGING|WANDB|OPENAI)"

#: Routers that pass every request on, with the key that the client brings, if any.
_ROUTERS = ("lmstack-router", "vllm-router", "sglang-router", "sgl-router", "sgl-model-gateway")


#: Calls of Ollama's that succeeded, as Gin's access log shows them: those that change what it has, and those that it computes for.
#: Whose address it shows a proxy may have said, which asks who calls.
_CALL = r"\[GIN\] .{1,40}\| 20[01] \| .{1,24}\| +(\S{2,39}) \| (?:POST|DELETE) +\"/(?:api|v1)/([\w/]{2,20})\""
_CHANGES = frozenset({"pull", "create", "push", "copy", "delete"})
_COMPUTES = frozenset({"generate", "chat", "chat/completions", "completions", "embed", "embeddings"})
#: One that asks for a model that is not there.
_MISSED = r"\[GIN\] .{1,40}\| 404 \| .{1,64}\| POST +\"/(?:api/(?:generate|chat|embed)|v1/(?:chat/)?(?:completions|embeddings))"

#: The Secret that a fix makes for a key.
_SECRET = "llm-api-key"  # noqa: S105

#: So many public addresses that it computes for are nobody's own.
_STRANGERS = 3

#: Of a server that answered so many requests since, what it once had not is there again, or nobody asks for it.
_WELL = 10


@check("api-exposed", since="0.1", severity="warning", literals=("[GIN] ",))
def api_exposed(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The API can be reached from outside the cluster, and asks for no key.

    A Service of type LoadBalancer gets a public address in most clouds. Inference servers have no authentication unless
    a key is set, and some (Ollama, NIM, Triton, trtllm-serve) have none at all: whoever finds the address uses the GPU,
    reads and replaces models where the engine allows it, and reaches every flaw of the server. A key guards only part
    of the paths: vLLM's covers `/v1`, not `/metrics`, `/tokenize` or development endpoints.

    Ollama's own log shows whether models were pulled, made or deleted from a public address, or whether it computes for several.
    It is the cause where one was deleted so, and somebody asked in vain for a model since.

    Of an image of one's own that is given the engine's arguments it is a possible risk: what starts it may add a key.

    An Ingress whose load balancer AWS is told to make `internet-facing` is as public. A NodePort, another Ingress, a route or a
    host port is only noted: whether they lead outside cannot be seen here.

    ## Fix

    Make the load balancer internal (an annotation of your cloud), or the Service a ClusterIP behind a gateway with a
    login; set the engine's own key from a Secret as well.

    ## References

    - https://kubernetes.io/docs/concepts/services-networking/service/#internal-load-balancer
    - https://docs.vllm.ai/en/latest/usage/security/
    """
    for engine in subject.engines(pod):
        if _has_key(engine) or _without_api(engine):
            continue
        used = _used(pod, engine, logs) if engine.name == "ollama" and logs is not None else None
        found = used or _open(pod, _Listener(engine.label, engine.container, ports(engine), engine), cluster)
        yield from (found,) if found else ()
    routers = [] if subject.engines(pod) else [c for c in pod.containers if _routes(c, pod.namespace, cluster)]
    for container in routers:
        title = "The router" if container.name == "router" else f"The router {container.name}"
        found = _open(pod, _Listener(title, container, container.declared_ports, None), cluster)
        yield from (found,) if found else ()


class _Listener(msgspec.Struct, frozen=True):
    """A server that asks for no key as far as is known, or a router before servers: what it is called, and where it listens."""

    title: str
    container: Container
    ports: set[int]
    engine: Engine | None

    @property
    def hidden(self) -> bool:
        """Whether not all of its arguments are known."""
        return self.engine is not None and not self.engine.found.argv_known

    @property
    def may_ask(self) -> bool:
        """Whether it may well be told to ask for a key where nobody sees it."""
        container = self.container
        return self.hidden and bool(
            _unseen(container) or container.spec.command or not container.spec.args or _may_be_keyed(container)
        )

    @property
    def sure(self) -> bool:
        """Whether it asks for none; what starts an image of one's own by the arguments that it is given seldom adds a key to them."""
        keyed = self.engine is None or bool(_KEYS.get(self.engine.name, ("", ""))[1])
        return not self.hidden and not (_unseen(self.container) and keyed)


def _open(pod: Pod, server: _Listener, cluster: Cluster) -> Finding | None:
    """The way by which a server can be reached: from outside the cluster, else from all of it, else by a port of the node."""
    if server.may_ask:
        return None
    title, container, engine = server.title, server.container, server.engine
    closed = restricted(pod, cluster)
    open_ways = [] if closed else list(ways(pod, server.ports - _others(container), cluster))
    if public := [way for way in open_ways if way.public]:
        found = _finding(pod, title, container, engine, public[0], "risk")
        return found if server.sure else msgspec.structs.replace(found, confidence="possible")
    if server.hidden:
        return None
    if open_ways:
        return _finding(pod, title, container, engine, open_ways[0], "note")
    port = None if closed else _host_port(pod, container, server.ports)
    if not port:
        return None
    return Finding(
        role="note",
        confidence="possible",
        summary=f"{title} asks for no key and listens on port {port} of the node itself.",
        evidence=(pod_evidence(pod, "hostNetwork", str(pod.spec.host_network).lower()),),
    )


def _used(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """Models that were changed from public addresses, or a GPU that computes for many of them; either may be meant."""
    log = logs.current(engine.container.name)
    calls: list[tuple[Line, str, str]] = []
    for line, said in log.matching(_CALL, "[GIN] ") if log else ():
        if _public(said[1]):
            calls.append((line, said[1], said[2]))
    changes = [call for call in calls if call[2] in _CHANGES]
    computed = [call for call in calls if call[2] in _COMPUTES]
    callers = sorted({address for _, address, _ in changes or computed})
    if not changes and len(callers) < _STRANGERS:
        return None
    whom = callers[0] if len(callers) == 1 else f"{len(callers)} public addresses"
    done = f"changed its models {count_of(len(changes), 'time')} ({', '.join(sorted({c[2] for c in changes}))})"
    shown = changes or computed
    deleted = next((change[0] for change in reversed(changes) if change[2] == "delete"), None)
    missed = _asked_in_vain(log, deleted) if log and deleted else None
    last = deleted or shown[-1][0]
    return Finding(
        role="cause" if missed else "risk",
        severity="critical" if missed else "warning",
        confidence="likely" if changes else "possible",
        summary=f"{engine.at} asks for no key, and {whom} "
        + (done if changes else f"had {count_of(len(computed), 'request')} computed")
        + ("; a request since found no such model." if missed else "."),
        evidence=tuple(
            log_evidence(line) for line in dict.fromkeys((shown[0][0], last, *((missed,) if missed else ())))
        ),
        explains=("model-not-found", "disk-full", "model-reloaded", "queue-growing") if missed else (),
        fix=fixes.advice(
            f"Close the way from outside to {fixes.edited(pod)} (a ClusterIP behind a gateway that asks who calls), then check "
            "its models and pull them again"
        ),
        order=last.order,
    )


def _asked_in_vain(log: Log, deleted: Line) -> Line | None:
    """A request since a model was deleted that found the model not there, unless the server has answered many since."""
    since = (line for line in log.find("| 404 |") if line.number > deleted.number)
    missed = [line for line in since if re.search(_MISSED, line.text)]
    if not missed:
        return None
    answered = [
        line for line, said in log.matching(_CALL, "[GIN] ") if line.number > missed[-1].number and said[2] in _COMPUTES
    ]
    return None if len(answered) >= _WELL else missed[0]


def _public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _finding(pod: Pod, title: str, container: Container, engine: Engine | None, way: Way, role: str) -> Finding:
    kind = way.item.plain_kind
    tail = f" ({way.text})" if way.kind in ("Ingress", "HTTPRoute") and not way.public else ""
    what = "is of type LoadBalancer without an internal address" if way.kind == "LoadBalancer" else ""
    what = "is of type NodePort, a port of every node" if way.kind == "NodePort" else what
    what = "leads to it from an internet-facing load balancer" if way.public and way.kind == "Ingress" else what
    summary = f"{title} asks for no key, and {kind} {way.item.name} {what or 'leads to it'}{tail}".rstrip()
    return Finding(
        role="risk" if role == "risk" else "note",
        confidence="likely" if role == "risk" else "possible",
        summary=f"{summary}.",
        evidence=(object_evidence(way.item, way.path, way.text), pod_evidence(container, "args", _no_key(engine))),
        fixes=tuple(_fixes(pod, engine, way)),
    )


def _no_key(engine: Engine | None) -> str:
    if engine is None:
        return "passes requests on as they come"
    flag, variable = _KEYS.get(engine.name, ("", ""))
    if not flag:
        return f"{engine.title} has no key of its own"
    return f"no {flag}" + (f", no {variable}" if variable else "")


def _has_key(engine: Engine) -> bool:
    """Whether the engine asks for a key, or may: a value that is hidden counts."""
    if engine.explicit("api_key") or "api_key" in engine.found.unresolved:
        return True
    variable = _KEYS.get(engine.name, ("", ""))[1]
    if variable and variable in engine.container.env:
        return True
    words = list(engine.container.spec.argv)
    return any("--api-key" in word for word in words)


def _without_api(engine: Engine) -> bool:
    """Whether it is known to open no port for requests: a worker behind another's front end (Dynamo's, or a headless one)."""
    found = engine.found
    return (
        found.argv_known and engine.name in _FRONTED and engine.get("port") is None and "port" not in found.unresolved
    )


def _unseen(container: Container) -> bool:
    """Whether variables come from a Secret as a whole that is not at hand: a key may be among them."""
    pod, asked = container.pod, [source.secret_ref for source in container.spec.env_from if source.secret_ref]
    return any(pod.cluster.item("Secret", pod.namespace, ref.name) is None for ref in asked)


def _may_be_keyed(container: Container) -> bool:
    """Whether a variable could be the key that a script of one's own adds to the arguments."""
    return any(re.search(_KEY_VARIABLE, name) and not re.search(_OF_A_HUB, name) for name in container.env)


def _others(container: Container) -> set[int]:
    """Ports that another container of the pod declares: a proxy with a login may stand there."""
    others = {port for c in container.pod.containers if c is not container for port in c.declared_ports}
    return others - container.declared_ports


def _routes(container: Container, namespace: str, cluster: Cluster) -> bool:
    """Whether a container is a router of an inference stack without a key, before engines without one."""
    if not any(name in container.spec.image for name in _ROUTERS):
        return False
    texts = [*container.spec.argv, *container.env]
    if any("api-key" in text or "API_KEY" in text for text in texts):
        return False
    return not any(
        _keyed(item, cluster) for kind in ("Deployment", "StatefulSet") for item in cluster.items(kind, namespace)
    )


def _keyed(item: Item, cluster: Cluster) -> bool:
    for _, template in Workload(item, cluster).templates:
        for container in template.spec.containers:
            words = list(container.argv)
            if any("--api-key" in word for word in words) or any(v.name == "VLLM_API_KEY" for v in container.env):
                return True
    return False


def _host_port(pod: Pod, container: Container, ports: set[int]) -> int | None:
    if pod.spec.host_network:
        return min(ports, default=None)
    return next((p.host_port for p in container.spec.ports if p.host_port and p.container_port in ports), None)


def _fixes(pod: Pod, engine: Engine | None, way: Way) -> Iterator[Fix]:
    name = way.item.name
    if way.kind in ("LoadBalancer", "NodePort"):
        text = f"Make Service/{name} a ClusterIP, behind a gateway that asks who calls"
        inside = "; or give it your cloud's annotation for an internal load balancer"
        text += inside if way.kind == "LoadBalancer" else ""
        yield fixes.set_field(way.item, "/spec/type", "ClusterIP", text)
    elif way.public:
        yield fixes.set_field(
            way.item,
            f"/metadata/annotations/{escaped(SCHEME)}",
            "internal",
            f"Make the load balancer of Ingress/{name} an internal one, or put a login before it (alb.ingress.kubernetes.io/auth-type)",
        )
    flag, variable = _KEYS.get(engine.name, ("", "")) if engine else ("", "")
    if flag:
        if not variable or engine is None:
            yield fixes.advice(f"Set {flag} with a value from a Secret in {fixes.edited(pod)}")
            return
        made = fixes.set_variables(
            engine.container,
            {variable: fixes.FromSecret(_SECRET)},
            f"Make Secret {_SECRET} with a key, set {variable} from it, and give the key to all clients",
        )
        key = f'{variable}="$(openssl rand -hex 32)"'
        create = f"kubectl -n {pod.namespace} create secret generic {_SECRET} --from-literal={key}"
        yield msgspec.structs.replace(made, commands=(create, *made.commands))
