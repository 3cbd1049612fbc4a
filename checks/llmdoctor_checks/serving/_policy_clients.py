"""Clients in the cluster that policies keep from a server of models, by what their own logs say."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    addresses,
    dig,
    engines_in,
    fixes,
    follow,
    log_evidence,
    logs_of,
    object_evidence,
    pickers_of,
    pod_evidence,
    rows,
    told_by,
)
from llmdoctor_checks._connections import (
    ASKED_URL,
    HAD_A_CONNECTION,
    NOT_CONNECTED,
    NOT_CONNECTED_BY_PROXY,
    TIMED_OUT_UNNAMED,
    UNANSWERED,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.serving._exposure import leads
from llmdoctor_checks.serving._policies import (
    cilium_admits,
    cilium_egress,
    cilium_ingress,
    has_port,
    policies,
    rules,
    selected,
)
from llmdoctor_checks.serving._policy_words import let_in, let_out, quote, sources
from llmdoctor_checks.start._balancers import GATE

#: Envoy's of what it asks over gRPC where to send a request, or whether (ext_proc: an endpoint picker); to whom it does not say.
_OF_PICKER = ("ext_proc_error_gRPC_error_14", r"connection_timeout\b")
_GRPC = ("grpc", "h2c", "http2")
_PICKERS = r"(?i)\bepp\b|picker|ext-?proc|processor|gateway-plugin|router"

#: Of whom a server says that he asked, in the access logs of uvicorn, llama-server and Gin; a mesh's proxy asks for others from an
#: address of loopback.
_OF_UVICORN = "HTTP/1"
_ACCESS = (_OF_UVICORN, "request: ", "[GIN] ")
_FROM = r"(?<![\d.])(?!127\.)(\d{1,3}(?:\.\d{1,3}){3})(?![\d.])"
#: So many of the last lines of each kind are looked at.
_MOST_LINES = 50

_URL = r"https?://[\w.:-]{1,300}"
#: An address of which a program is told.
_TOLD = r"https?://([\w.-]{1,253})(?::(\d{1,5}))?"

#: A line, and how it names whom its program asked.
_Named = tuple[Line, re.Match[str]]

#: What AWS' controller says of a target that does not answer a health check.
_NO_ANSWER = "Target.Timeout"

LITERALS = (*(words for words, _ in (*NOT_CONNECTED, NOT_CONNECTED_BY_PROXY, _OF_PICKER)), *UNANSWERED[0])


def of_server(pod: Pod, cluster: Cluster, asker: Pod | None = None) -> Finding | None:
    """A client that says that it cannot connect to this pod, and which the policies of either do not let; `asker` alone, if given."""
    return _kept_out(pod, cluster, asker) or _kept_in(pod, cluster, asker)


def of_balancer(pod: Pod, engines: Sequence[Engine], cluster: Cluster) -> Iterator[Finding]:
    """A load balancer of AWS whose health check of a pod gets no answer, and policies that let no address outside of the cluster in."""
    ours = policies(pod, cluster, "Ingress")
    ports = sorted({port for engine in engines if isinstance(port := engine.value("port"), int)})
    if not ours or not ports or cilium_ingress(pod, cluster):
        return
    peers = [(rule, rows(rule.get("from"))) for rule in rules(ours, "Ingress") if any(has_port(rule, p) for p in ports)]
    if any(not listed or any("ipBlock" in one for one in listed) for _, listed in peers):
        return
    for condition in pod.status.conditions:
        if not re.match(GATE, condition.type) or condition.status == "True" or condition.reason != _NO_ANSWER:
            continue
        names = " and ".join(item.name for item in ours)
        yield Finding(
            summary=f"No rule of {names} lets addresses outside of the cluster in to port {ports[0]} of {pod.name}: AWS' load balancer "
            "gets no answer when it asks for its health, and the pod waits for that to become ready.",
            evidence=(
                pod_evidence(pod, f"status.conditions[{condition.type}]", f"{_NO_ANSWER}: {condition.message}"),
                *(quote(item, "ingress") for item in ours),
            ),
            explains=("not-ready", "rollout-stuck", "http-5xx"),
            fix=fixes.platform(
                f"Let the subnets of the load balancer (ipBlock) in to port {ports[0]} in NetworkPolicy/{ours[0].name}",
                f"kubectl -n {ours[0].namespace} edit networkpolicy {ours[0].name}",
            ),
        )
        return


def of_client(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """The same from the side of the client: a ready server of models that it cannot connect to."""
    said = (named for log in logs for _, named in _unreached(log) if pod.failing or not log.previous)
    asked = [(named["host"], named["port"]) for named in said]
    if any(next(log.find(TIMED_OUT_UNNAMED[0]), None) for log in logs if not log.previous):
        asked += sorted({to for c in pod.containers for _, text in told_by(c) for to in re.findall(_TOLD, text)})
    for host, port in dict.fromkeys(asked):
        to = follow(host, int(port or 80), pod, cluster)
        for server in to.others if to is not None else ():
            if not server.ready or server.spec.host_network or not engines_in(server):
                continue
            found = of_server(server, cluster, asker=pod)
            if found is not None:
                yield found
                return


class _Policies(msgspec.Struct, frozen=True):
    """What restricts who may open connections to a pod: Kubernetes' own policies, and Cilium's with their rules."""

    pod: Pod
    cluster: Cluster
    plain: list[Item]
    of_cilium: list[tuple[Item, list[dict[str, Any]]]]

    @property
    def items(self) -> list[Item]:
        return [*self.plain, *(item for item, _ in self.of_cilium)]

    def admit(self, client: Pod, ports: set[int]) -> bool:
        """Whether a rule of them may let a client in at one of these ports."""
        if any(_admits(r, p, client, self.pod, self.cluster) for r in rules(self.plain, "Ingress") for p in ports):
            return True
        each = ((rule, item.namespace, port) for item, listed in self.of_cilium for rule in listed for port in ports)
        return any(
            cilium_admits(rule, port, client.labels, client.namespace, self.cluster, there)
            for rule, there, port in each
        )

    @property
    def evidence(self) -> Iterator[Evidence]:
        yield from (quote(item, "ingress") for item in self.plain)
        for item, listed in self.of_cilium:
            yield object_evidence(item, "spec.ingress", "; ".join(map(sources, listed)) or "nothing")


def _kept_out(pod: Pod, cluster: Cluster, asker: Pod | None) -> Finding | None:
    """A client in the cluster whose log says that it cannot connect to this pod, and which no policy lets in."""
    found = _Policies(pod, cluster, policies(pod, cluster, "Ingress"), cilium_ingress(pod, cluster))
    if pod.spec.host_network or not found.items:
        return None
    picker = not engines_in(pod) and serves_grpc(pod) and picks(pod, cluster)
    ports = _asked_at(pod, picker)
    for client, line, late in _complaints(pod, asker, picker) if ports else ():
        if found.admit(client, ports):
            continue
        names = " and ".join(dict.fromkeys(item.name for item in found.items))
        who = client.name if client.namespace == pod.namespace else f"{client.namespace}/{client.name}"
        return Finding(
            # uvicorn says nothing of a request whose client went before the answer began
            confidence="possible" if late and _OF_UVICORN in _prints(pod) else "likely",
            summary=f"No rule of {names} lets {who} in to port {min(ports)} of {pod.name}; it says that it "
            + (f"gets no answer, and the log of {pod.name} has no request of it." if late else "cannot connect."),
            evidence=(log_evidence(line), *found.evidence),
            fix=let_in(found.items[0], client.labels, client.namespace, pod, min(ports)),
            order=line.order,
            explains=FAILED_START if asker is not None else (),
            pods=((asker or pod).name,),
        )
    return None


def _complaints(pod: Pod, asker: Pod | None, picker: bool) -> Iterator[tuple[Pod, Line, bool]]:
    """Who says that it cannot connect to the pod, by which line, and whether it only got no answer; `asker` alone where it is given."""
    for client, log, said, unanswered in _cut_from(pod.cluster):
        if client.name == pod.name or (asker is not None and client.item is not asker.item):
            continue
        line = next((x for x, named in said if _meant(named, pod, client) and not _answered_by(pod, x)), None)
        line = line or (_no_picker(log) if picker else _nameless(log, pod, client))
        if line is not None:
            yield client, line, False
        elif late := _unanswered(log, unanswered, pod, client):
            yield client, late, True


def _admits(rule: dict[str, object], port: int, client: Pod, pod: Pod, cluster: Cluster) -> bool:
    """Whether a rule may let a client in; labels of a namespace that was not read may be any."""
    if not has_port(rule, port):
        return False
    peers = rows(rule.get("from"))
    namespace = cluster.item("Namespace", "", client.namespace)
    of_namespace = {**(namespace.labels if namespace else {}), "kubernetes.io/metadata.name": client.namespace}
    for peer in peers:
        if "ipBlock" in peer:
            return True
        chosen = peer.get("namespaceSelector")
        if chosen is None:
            there = client.namespace == pod.namespace
        else:
            asks = set(dig(chosen, "matchLabels") or ()) | {str(t.get("key")) for t in rows(chosen, "matchExpressions")}
            there = selected(chosen, of_namespace) or (not namespace and bool(asks - set(of_namespace)))
        if there and selected(peer.get("podSelector"), client.labels):
            return True
    return not peers


def _asked_at(pod: Pod, picker: bool) -> set[int]:
    """The ports at which others ask a pod: of its engines, of a picker of endpoints, or of what asks servers for others (LiteLLM)."""
    if engines_in(pod):
        return {port for engine in engines_in(pod) if isinstance(port := engine.value("port"), int)}
    own = pod.declared_ports if picker else set()
    if led := {port for port in own if any(leads(service, pod, {port}) for service in pod.services)}:
        return led
    listed = (row for item in pod.services for row in rows(item.raw, "spec.ports"))
    return {port for row in listed if isinstance(port := row.get("targetPort", row.get("port")), int)}


def _kept_in(pod: Pod, cluster: Cluster, asker: Pod | None) -> Finding | None:
    """A client in the cluster whose log says that it cannot connect to this pod, and which its own policies let out to other ports."""
    for client, ours, line, named in cluster.once("kept in", lambda: list(_held(cluster))):
        other = asker is not None and client.item is not asker.item
        if other or client.item is pod.item or not _meant(named, pod, client):
            continue
        ports = _behind(pod, named)
        if not ports or any(has_port(rule, port) for rule in rules(ours, "Egress") for port in ports):
            continue
        return _not_let_out(pod, client, ours, line, ports, named["host"], asker)
    for client, log, said, _ in _cut_from(cluster):
        if asker is not None and client.item is not asker.item:
            continue
        ours = policies(client, cluster, "Egress") if not said and not log.previous else []
        unnamed = _nameless(log, pod, client) if ours and client.item is not pod.item else None
        if unnamed is None or cilium_egress(client, cluster):
            continue
        ports = _asked_at(pod, picker=False)
        if ports and not any(has_port(rule, port) for rule in rules(ours, "Egress") for port in ports):
            return _not_let_out(pod, client, ours, unnamed, ports, "", asker)
    return None


def _not_let_out(
    pod: Pod, client: Pod, ours: list[Item], line: Line, ports: set[int], asked: str, asker: Pod | None
) -> Finding:
    """A client that its own policies keep from this pod."""
    names, port = " and ".join(one.name for one in ours), min(ports)
    named = asked.partition(".")[0]
    service = next((s for s in pod.services if s.name == named or asked in ("", dig(s.raw, "spec.clusterIP"))), None)
    return Finding(
        confidence="likely" if asked else "possible",
        summary=f"NetworkPolicy {names} lets {client.namespace}/{client.name} out to chosen ports only, and port {port} of "
        f"{pod.name} is none of them; it says that it cannot connect.",
        evidence=(log_evidence(line), *(quote(one, "egress") for one in ours)),
        fix=let_out(ours[0], service, port)
        if service is not None
        else fixes.platform(f"Allow port {port} of {pod.name} in NetworkPolicy/{ours[0].name}"),
        order=line.order,
        explains=FAILED_START if asker is not None else (),
        pods=((asker or pod).name,),
    )


def _held(cluster: Cluster) -> Iterator[tuple[Pod, list[Item], Line, re.Match[str]]]:
    """Whom a log says that its pod could not connect to, where policies choose what it is let out to, and these."""
    for client, log, said, _ in _cut_from(cluster):
        ours = policies(client, cluster, "Egress") if said and not log.previous else []
        if ours and not cilium_egress(client, cluster):
            yield from ((client, ours, line, named) for line, named in said)


def _cut_from(cluster: Cluster) -> list[tuple[Pod, Log, list[_Named], list[_Named]]]:
    """Pods with an address of their own whose logs say that they could not connect, or got no answer: the lines of each that name whom."""
    return cluster.once("cut from", lambda: list(_unconnected(cluster)))


def _unconnected(cluster: Cluster) -> Iterator[tuple[Pod, Log, list[_Named], list[_Named]]]:
    for text in cluster.snapshot.logs:
        item, log = cluster.item("Pod", text.namespace, text.pod), Log(text)
        client = Pod.of(item, cluster) if item is not None else None
        if client is None or client.spec.host_network:
            continue
        said, late = list(_unreached(log)), list(_late(log))
        if said or late or any(next(log.find(words), None) for words, _ in (TIMED_OUT_UNNAMED, _OF_PICKER)):
            yield client, log, said, late


def _unreached(log: Log) -> Iterator[_Named]:
    """Lines that name whom they could not connect to."""
    for words, pattern in (*NOT_CONNECTED, NOT_CONNECTED_BY_PROXY):
        yield from log.matching(pattern, words)


def _meant(named: re.Match[str], pod: Pod, client: Pod) -> bool:
    """Whether a client means this pod: by its address, or by one of its Services."""
    host = named["host"]
    if host == pod.status.pod_ip:
        return True
    name, _, rest = host.partition(".")
    namespace = rest.partition(".")[0] or client.namespace
    mine = {item.name: str(dig(item.raw, "spec.clusterIP") or "") for item in pod.services}
    return host in mine.values() or (namespace == pod.namespace and name in mine)


def _behind(pod: Pod, named: re.Match[str]) -> set[int]:
    """The ports of the pod that a client means, which are what a policy counts: behind the port of a Service, or the one that it names."""
    asked = int(named["port"])
    found: set[int] = set()
    for item in pod.services:
        for row in rows(item.raw, "spec.ports"):
            target = row.get("targetPort", row.get("port"))
            if row.get("port") == asked and isinstance(target, int):
                found.add(target)
    engines = {port for engine in engines_in(pod) if isinstance(port := engine.value("port"), int)}
    return found or ({asked} & (engines | pod.declared_ports))


def _nameless(log: Log, pod: Pod, client: Pod) -> Line | None:
    """A line of a connection that was not made, of a client that names one of the pod's Services beside it."""
    words, pattern = TIMED_OUT_UNNAMED
    line = next((line for line in log.find(words) if re.search(pattern, line.text[:200])), None)
    if line is None:
        return None
    names = {item.name for item in pod.services}
    urls = [url for other in log.find("://") for url in re.findall(_URL, other.text)]
    urls += [variable.value for container in client.spec.containers for variable in container.env if variable.value]
    # what it asked was reached later
    since = (x.text[:4000] for x in log.find(" 200") if x.number > line.number)
    if any(addresses(url, names, pod.namespace, client.namespace) for text in since for url in re.findall(_URL, text)):
        return None
    return line if any(addresses(url, names, pod.namespace, client.namespace) for url in urls) else None


def _unanswered(log: Log, late: list[_Named], pod: Pod, client: Pod) -> Line | None:
    """The last line of a request to the pod that got no answer, of a client that the pod's own log, which names who asks, does not have.

    Nothing of a client that was answered since then.
    """
    last = max((line for line, named in late if _meant(named, pod, client)), key=lambda x: x.number, default=None)
    if last is None or not client.status.pod_ip:
        return None
    since = (x.text[:4000] for x in log.find(" 200") if x.number > last.number)
    named = (said for text in since for said in re.finditer(ASKED_URL, text))
    if last.number < last_answered(log) or any(_meant(said, pod, client) for said in named):
        return None
    asked = _prints(pod)
    return last if asked and not any(client.status.pod_ip in found for found in asked.values()) else None


def _answered_by(pod: Pod, line: Line) -> bool:
    """Whether a proxy names the pod's address later, beside a success: not every network plugin heeds policies."""
    address = rf"(?<![\d.]){re.escape(pod.status.pod_ip or '?')}:\d"
    return any(x.number > line.number and re.search(address, x.text[:4000]) for x in line.log.find(" 200"))


def _late(log: Log) -> Iterator[_Named]:
    """The last lines of requests that got no answer in time, and whom they name."""
    for words in () if log.previous else UNANSWERED[0]:
        for line in deque(log.find(words), maxlen=_MOST_LINES):
            text = line.text[:4000]
            named = next(filter(None, (re.search(pattern, text) for pattern in UNANSWERED[1])), None)
            if named is not None and not re.search(HAD_A_CONNECTION, text):
                yield line, named


def _prints(pod: Pod) -> dict[str, set[str]]:
    """The addresses of those who asked a pod, by its engines' access logs: under what each kind of them is found."""
    return pod.cluster.once(f"asked by {pod.namespace} {pod.name}", lambda: _prints_of(pod))


def _prints_of(pod: Pod) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for engine in engines_in(pod):
        own = logs_of(pod).current(engine.container.name)
        for words in _ACCESS if own is not None else ():
            said = {one for x in own.find(words) for one in re.findall(_FROM, x.text[:1000])} if own else set()
            if said:
                found[words] = found.get(words, set()) | said
    return found


def serves_grpc(pod: Pod) -> bool:
    """Whether a Service says that the pod speaks gRPC."""
    return any(map(_of_grpc, pod.services))


def _of_grpc(service: Item) -> bool:
    listed = rows(service.raw, "spec.ports")
    return any(word in f"{port.get('name')} {port.get('appProtocol')}".lower() for port in listed for word in _GRPC)


def pickers(cluster: Cluster) -> set[tuple[str, str]]:
    """The Services, by namespace and name, of all that gateways may ask where to send a request: of an InferencePool, or called so."""
    pools = cluster.items("InferencePool")
    named = {(pool.namespace, name) for pool in pools for name in pickers_of(pool).values()}
    services = cluster.items("Service")
    called = {(x.namespace, x.name) for x in services if re.search(_PICKERS, x.name) and _of_grpc(x)}
    return named | called


def picks(pod: Pod, cluster: Cluster) -> bool:
    """Whether a gateway asks the pod where to send requests: an InferencePool names its Service, or it is called so."""
    names = {item.name for item in pod.services}
    pools = cluster.items("InferencePool", pod.namespace)
    if any(name in names for pool in pools for name in pickers_of(pool).values()):
        return True
    called = (pod.name, *names, *(word for c in pod.containers for word in (c.name, c.spec.image)))
    return any(re.search(_PICKERS, word) for word in called)


def _no_picker(log: Log) -> Line | None:
    """A line of a gateway that could not connect to what it asks before it sends a request on."""
    words, pattern = _OF_PICKER
    return next((line for line in log.find(words) if re.search(pattern, line.text)), None)
