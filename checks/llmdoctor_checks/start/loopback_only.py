"""An engine that listens on the loopback address alone."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    Setting,
    Subject,
    check,
    dig,
    ending_of,
    event_evidence,
    fixes,
    is_headless,
    k8s,
    log_evidence,
    object_evidence,
    pod_evidence,
    rows,
    say_pairs,
    seconds_ago,
    setting_evidence,
    stating,
)
from llmdoctor_checks import _links, _unreached
from llmdoctor_checks._listening import ANY_IPV4, SERVE_PROXY, listens, listens_elsewhere, loopback_told, serve_proxy
from llmdoctor_checks._services import service_of
from llmdoctor_checks.start._probes import answered_once, ended_by_itself, failures

#: A proxy of Ray Serve listens so many seconds after it says that it starts, also on a slow node.
_STARTS = 30

#: What programs call the address at which they listen.
_NAMES = (
    "--host", "--bind", "--address", "--addr", "--listen", "--hostname", "-b", "-H", "HOST", "BIND", "ADDRESS",
    "LISTEN",
)  # fmt: skip

#: How an engine is told its address, where nothing says so yet.
_FLAGS = {"vllm": "--host", "sglang": "--host", "tgi": "--hostname", "llama.cpp": "--host", "tensorrt-llm": "--host"}


@check("loopback-only", since="0.2", literals=("unning on ", SERVE_PROXY, *_unreached.LITERALS))
def loopback_only(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """The engine listens on an address at which nobody outside its pod reaches it.

    Usually that is the loopback address: every process of a pod can reach 127.0.0.1, and nothing else can. The kubelet's
    probes and the Service connect to the pod's address and are refused. The log looks well, and an exec probe or
    `kubectl port-forward` even works. SGLang, llama-server and trtllm-serve listen on the loopback address unless they are
    told otherwise; so do llamafile, Ray Serve (whose log names the port alone), and Ollama outside its own image. Of any
    other program its log tells. Where nothing probes the server the pod is even ready, and only clients of its Service
    notice. In a cluster of IPv6 alone 0.0.0.0 is no better: it means every IPv4 address, and the pod has none.

    A second container that passes requests on (a login, a router) is a reason to listen there: then nothing is said.

    ## Fix

    Listen on all addresses of the pod, with IPv6 on `::`:

        args: [--host, 0.0.0.0]

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/#pod-networking
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    yield from _links.broken(pod, pod.cluster, "loopback-only")
    if pod.log_only or pod.completed or sum(c.role != "init" for c in pod.containers) != 1:
        return  # of several, another may listen for it
    engine = next((e for e in subject.engines(pod) if e.container.role != "init"), None)
    if pod.exists and pod.ready:
        yield from _behind_service(pod, engine, logs)
    else:
        yield from _asked_in_vain(pod, engine, events, logs)


def _behind_service(pod: Pod, engine: Engine | None, logs: Logs | None) -> Iterator[Finding]:
    """A server that says itself that it listens there, on the port to which a Service sends: no probe noticed it."""
    container = next(c for c in pod.containers if c.role != "init")
    item = service_of(pod)
    if item is None or pod.spec.host_network or _probe(container):
        return
    port, line = next(
        ((p, said) for p in _targets(container, item) if (said := listens(container, logs, {p}))), ("", None)
    )
    if line is None and engine is not None:
        yield from _at_another_port(engine, logs, item)
    if line is None or line[0] == ANY_IPV4 or listens_elsewhere(container, logs, port):
        return
    who, evidence = _named(item)
    yield Finding(
        summary=f"{engine.label if engine else container.name} listens on {line[0]}:{port}, and {who} sends to that port of the "
        "address of the pod: every connection is refused.",
        evidence=(log_evidence(line[1]), evidence),
        fix=_fix(pod, engine, None, ANY_IPV4, port),
    )


def _at_another_port(engine: Engine, logs: Logs | None, item: Item) -> Iterator[Finding]:
    """An engine whose Service sends to another port as well: to change the address alone does not help, nor the port."""
    container = engine.container
    port = str(engine.value("port"))
    asked = dict.fromkeys(_targets(engine.container, item))
    line, flag = listens(container, logs, {port}), _FLAGS.get(engine.name, "")
    host = loopback_told(engine)
    if line is None or host is None or ANY_IPV4 in (line[0], host.value) or len(asked) != 1 or not flag:
        return
    if listens_elsewhere(container, logs, port) or engine.explicit("dist_init_addr"):
        return
    wanted, (who, evidence) = next(iter(asked)), _named(item)
    yield Finding(
        summary=f"{engine.label} listens on {line[0]}:{port}, and {who} sends to port {wanted} of the address of the pod: every "
        "connection is refused.",
        evidence=(log_evidence(line[1]), _said(container, host), evidence),
        explains=("port-mismatch",),
        fix=_both(engine, who, wanted),
    )


def _both(engine: Engine, who: str, port: str) -> Fix:
    """The address and the port together, where neither alone would help."""
    chosen = [("host", _FLAGS[engine.name], ANY_IPV4), ("port", "--port", port)]
    words = " ".join(f"{option} {value}" for _, option, value in chosen)
    return fixes.set_flags(engine, chosen, f"Listen where {who} asks: {words}")


def _port(engine: Engine) -> str:
    return str(engine.value("port"))


def _of_port(engine: Engine | None, elsewhere: str) -> tuple[str, ...]:
    """A port that does not fit is a cause of its own, where the fix leaves it."""
    probed = _probed(engine.container) if engine else set[str]()
    left = engine is not None and probed and _port(engine).isdigit() and _port(engine) not in probed and not elsewhere
    return () if left else ("port-mismatch",)


def _other_port(engine: Engine) -> str:
    """The one port at which the kubelet asks, where the engine listens at another and no Service sends to that; else empty."""
    probed, item = _probed(engine.container), service_of(engine.pod)
    sent = _targets(engine.container, item) if item else []
    apart = len(probed) == 1 and _port(engine).isdigit() and _port(engine) not in (*probed, *sent)
    alone = engine.name not in _FLAGS or engine.explicit("dist_init_addr") or ":" in engine.pod.status.pod_ip
    return next(iter(probed)) if apart and not alone else ""


class _WrongAddress(msgspec.Struct, frozen=True):
    """A server at an address at which it is not found by who asks it."""

    container: Container
    engine: Engine | None
    address: str
    #: as it was told, and as its log says
    host: Setting | None
    line: tuple[str, Line, str] | None
    #: who asks, and what says so
    who: str
    asks: Evidence
    refused: list[Event]
    failing: bool

    @property
    def of_serve(self) -> bool:
        """Whether it is the proxy of Ray Serve."""
        return self.line is not None and SERVE_PROXY in self.line[1].text

    @property
    def elsewhere(self) -> str:
        """The other port at which it is asked, too; empty where it is asked at its own."""
        return _other_port(self.engine) if self.engine and self.host and self.failing else ""

    @property
    def summary(self) -> str:
        """Where it listens, and where it is asked."""
        pod = self.container.pod
        server = self.engine.label if self.engine else "Ray Serve" if self.of_serve else self.container.name
        by_default = (self.host is not None and self.host.source == "default") or self.of_serve
        ipv4 = self.address == ANY_IPV4
        said = (", which is IPv4 alone" if ipv4 else "") + (", its default" if by_default else "")
        there = f"the pod's IPv6 address {pod.status.pod_ip}" if ipv4 else "the address of the pod"
        if self.engine and self.elsewhere:
            said, there = f"{said}, at port {_port(self.engine)}", f"port {self.elsewhere} of {there}"
        return f"{server} listens on {self.address}{said}, and {self.who} asks {there}: every connection is refused."

    @property
    def fix(self) -> Fix:
        """What makes it listen where it is asked."""
        pod = self.container.pod
        if self.of_serve:
            return _of_ray_serve(pod)
        if self.engine and self.elsewhere:
            return _both(self.engine, self.who, self.elsewhere)
        every = "::" if ":" in pod.status.pod_ip else ANY_IPV4
        return _fix(pod, self.engine, self.host, every, self.line[2] if self.line else "")


def _asked_in_vain(pod: Pod, engine: Engine | None, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """An engine, or another program by its own log, whose address keeps the kubelet or a Service from reaching it."""
    found = _at_wrong_address(pod, engine, events, logs)
    if found is None:
        return
    yield Finding(
        role="cause" if found.failing else "risk",
        severity="critical",
        summary=found.summary,
        evidence=(
            *(event_evidence(e, pod.cluster) for e in found.refused[-1:]),
            *((_said(found.container, found.host),) if found.host else ()),
            *((log_evidence(found.line[1]),) if found.line else ()),
            found.asks,
        ),
        explains=("not-ready", "crash-loop", "probe-too-short", *_of_port(engine, found.elsewhere))
        if found.failing
        else (),
        fix=found.fix,
    )


def _at_wrong_address(
    pod: Pod, engine: Engine | None, events: Events | None, logs: Logs | None
) -> _WrongAddress | None:
    container = next(c for c in pod.containers if c.role != "init")
    troubled = container.trouble("not-ready", "crashed") is not None
    if pod.failing and not troubled:
        return None
    failing = troubled and not ended_by_itself(container, events)
    refused = [event for _, event in failures(container, events)]
    if failing and refused and not any("connection refused" in event.message for event in refused):
        return None  # the kubelet says otherwise
    if failing and _reached(container):
        return None
    line = listens(container, logs, _probed(container)) or _refusing(container, refused, logs) if troubled else None
    if line and not failing:
        return None
    if engine is None and (not refused or line is None or listens_elsewhere(container, logs, line[2])):
        return None
    host = _as_told(engine, line)
    address = str(host.value) if host else line[0] if line else ""
    asked = _who_asks(pod, container, engine, address, in_vain=failing and bool(refused)) if address else None
    return (
        _WrongAddress(container, engine, address, host, line, *asked, refused, failing) if asked is not None else None
    )


def _reached(container: Container) -> bool:
    """Whether the first probe that restarts the container was answered by what it asks now, or by the instance before.

    Behind a startup probe the liveness probe begins at a time that is not known.
    """
    kind = "startup" if "startup" in container.spec.probes else "liveness"
    if all(kind != asking for asking, _, _ in _actions(container)):
        return False
    up = kind == "startup" and container.running and bool(container.status.started)
    return up or answered_once(ending_of(container), container.spec.probes[kind])


def _as_told(engine: Engine | None, line: tuple[str, Line, str] | None) -> Setting | None:
    """The address that an engine was told, unless it says itself that it listens at one of another kind."""
    host = loopback_told(engine) if engine else None
    return None if host and line and (line[0] == ANY_IPV4) != (host.value == ANY_IPV4) else host


def _who_asks(
    pod: Pod, container: Container, engine: Engine | None, address: str, *, in_vain: bool
) -> tuple[str, Evidence] | None:
    """What connects to the pod where nobody listens, if the server listens at this address."""
    if address != ANY_IPV4:
        return _probe(container) or _service(pod, engine)
    # the kubelet asks the first of the pod's addresses
    return _probe(container) if in_vain and ":" in pod.status.pod_ip else None


def _of_ray_serve(pod: Pod) -> Fix:
    return fixes.advice(
        f'Give Ray Serve the address of the pod, in {fixes.edited(pod)}: serve.start(http_options={{"host": "0.0.0.0"}}) before '
        "serve.run, http_options.host in its configuration, or `serve start --http-host 0.0.0.0`"
    )


def _refusing(container: Container, refused: list[Event], logs: Logs | None) -> tuple[str, Line, str] | None:
    """A proxy of Ray Serve, where the kubelet was refused long after it started: it says no address."""
    found, last = serve_proxy(container, logs, _probed(container)), next(reversed(refused), None)
    cluster = container.pod.cluster
    ago = cluster.seconds_since(last.last) if last is not None else None
    if found is None or last is None or ago is None or "connection refused" not in last.message:
        return None
    started = seconds_ago(found[1], cluster.now)
    return found if started is not None and started - ago > _STARTS else None


def _probed(container: Container) -> set[str]:
    """The ports that the kubelet asks."""
    return {str(_number(container, action.port)) for _, _, action in _actions(container)}


def _targets(container: Container, service: Item) -> list[str]:
    """The container's ports to which a Service sends."""
    ports = rows(service.raw, "spec.ports")
    return [str(_number(container, port.get("targetPort") or port.get("port") or 0)) for port in ports]


def _said(container: Container, host: Setting) -> Evidence:
    if host.source == "default":
        return pod_evidence(container, "args", f"no address ({host.text})")
    return setting_evidence(container, host)


def _probe(container: Container) -> tuple[str, Evidence] | None:
    """The first probe of the kubelet that connects to the pod's address."""
    for kind, name, action in _actions(container):
        return f"the {kind} probe", pod_evidence(container, f"{kind}Probe.{name}.port", str(action.port))
    return None


def _actions(container: Container) -> Iterator[tuple[str, str, k8s.HttpGet | k8s.TcpSocket]]:
    """The kind of each probe that connects to the pod's address, how it asks, and what."""
    for kind, probe in container.spec.probes.items():
        action = probe.http_get or probe.tcp_socket
        if action and not (probe.http_get and probe.http_get.host):
            yield kind, "httpGet" if probe.http_get else "tcpSocket", action


def _number(container: Container, port: int | str) -> int | str:
    """A port's number, where it has a name that the container declares."""
    return next((p.container_port for p in container.spec.ports if p.name == port), port)


def _service(pod: Pod, engine: Engine | None) -> tuple[str, Evidence] | None:
    """A Service that leads to the pod, and not only to where its ranks meet."""
    item = service_of(pod)
    if item is not None and engine is not None and engine.explicit("dist_init_addr"):
        meet = {str(engine.value("dist_init_addr")).rpartition(":")[2]}
        asked = (i for i in pod.services if not is_headless(i))
        item = next((i for i in asked if set(_targets(engine.container, i)) - meet), None)
    return _named(item) if item else None


def _named(item: Item) -> tuple[str, Evidence]:
    selector = dig(item.raw, "spec.selector")
    text = say_pairs(selector, ": ") if isinstance(selector, dict) else ""
    return f"Service {item.name}", object_evidence(item, "spec.selector", text)


def _joined(address: str, rest: str) -> str:
    """An address and what follows it: one of IPv6 stands in brackets before a port."""
    return f"[{address}]{rest}" if ":" in address and rest.startswith(":") else f"{address}{rest}"


def _of_program(pod: Pod, address: str, port: str) -> Fix:
    """What tells a program that is no known engine its address, by what most are told it; what has another port is of another server."""
    container = next(c for c in pod.containers if c.role != "init")
    for name in _NAMES:
        place = stating.stated(container, name)
        told = place.value if place else ""
        if place and told and (bare := re.match(r"(?:127\.[\d.]{5,11}|localhost)(?![\w.-])", told)):
            rest = told[bare.end() :]
            if rest.startswith(":") and rest != f":{port}":
                continue
            right = _joined(address, rest)
            return stating.given(container, place, right, f"Set {place.name} to {right} (it is {told})")
    return fixes.advice(
        f"Have the server listen on all addresses of the pod, in {fixes.edited(pod)}: by its option or variable for the address, "
        f"usually --host {address} or HOST={address}"
    )


def _fix(pod: Pod, engine: Engine | None, host: Setting | None, address: str, port: str) -> Fix:
    if engine is None:
        return _of_program(pod, address, port)
    container, summary = engine.container, "Listen on all addresses of the pod"
    if host and host.source == "env":
        name = host.text.partition("=")[0]
        index = next((i for i, v in enumerate(container.spec.env) if v.name == name and v.value is not None), None)
        if index is not None:
            before, _, rest = str(container.spec.env[index].value).partition(str(host.value))
            value = f"{before}{_joined(address, rest)}"
            operation = {"op": "replace", "path": f"{container.pointer}/env/{index}/value", "value": value}
            return fixes.patch(container.pod, summary, [operation])
    flag = host.flag if host and host.source == "flag" else _FLAGS.get(engine.name, "")
    if not flag:
        return fixes.advice(f"{summary}, in {fixes.edited(container.pod)}")
    return fixes.set_flag(engine, "host", flag, address, summary)
