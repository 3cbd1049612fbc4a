"""A NetworkPolicy that stops the download of the model, or the ranks from finding each other."""

import ipaddress
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    addresses,
    check,
    dig,
    endings,
    engines_in,
    fixes,
    follow,
    k8s,
    log_evidence,
    log_of,
    object_evidence,
    service_at,
    setting_evidence,
)
from llmdoctor_checks._raw import rows
from llmdoctor_checks.serving._exposure import leads
from llmdoctor_checks.serving._policies import (
    CILIUM,
    cilium_admits,
    cilium_egress,
    cilium_ingress,
    cilium_leads_outside,
    cilium_ports,
    has_port,
    labels_of,
    leads_outside,
    policies,
    policies_on,
    rules,
    selected,
)

#: Engines that download a model by its name from the Hugging Face Hub.
_HUB = frozenset({"vllm", "sglang", "tgi", "tei", "lmdeploy", "huggingfaceserver"})

#: Variables with which nothing is downloaded, or from another place.
_ELSEWHERE = frozenset(
    {
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_ENDPOINT",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "VLLM_USE_MODELSCOPE",
    }
)

#: What a download says that gets no answer.
_NO_ANSWER = ("Max retries exceeded", "Temporary failure in name resolution", "Network is unreachable", "timed out")

#: Not that of a pool, or one that was made before.
_CONNECTED_LATE = r"\b[Cc]onnect(?:ion|ing)?\b(?: attempt)?(?: (?:to|with) \S{1,100})?\W{1,4}timed out"

#: A connection that was not made, and to whom; the address and the port by their groups. Sources: Prisma's P1001, Go's net, libpq,
#: urllib3, requests, aiohttp, redis-py, etcd and NATS clients, Ray, undici, Node's net, Netty, curl, reqwest. A name that does not
#: resolve, or an answer that refuses, is none.
_UNREACHED = (
    ("Can't reach database server at", r"at `?(?P<host>[\w.-]+)`?:`?(?P<port>\d+)"),
    ("i/o timeout", r"dial tcp (?P<host>[\w.-]+):(?P<port>\d+): i/o timeout"),
    ("i/o timeout", r"https?://(?P<host>[\w.-]+):(?P<port>\d{1,5})[^ ]{0,400}\"?: dial tcp [\d.]+:\d+: i/o timeout"),
    ("timed out", r"connection to server at \"(?P<host>[\w.-]+)\"[^,]*, port (?P<port>\d+) failed: .*timed out"),
    ("ConnectTimeout", r"host='(?P<host>[\w.-]+)', port=(?P<port>\d+)"),
    ("timed out", r"(?:onnect(?:ing|ion)? to|onnect to) (?:\w+://)?(?P<host>[\w.-]+):(?P<port>\d+)\b.{0,80}timed out"),
    ("Failed to connect to GCS at address", r"at address (?P<host>[\w.-]+):(?P<port>\d+)"),
    ("Connection timeout to host", r"to host https?://(?P<host>[\w.-]+):(?P<port>\d+)"),
    ("Connect Timeout Error", r"attempted address(?:es)?: (?P<host>[\w.-]+):(?P<port>\d+)"),
    ("connect ETIMEDOUT", r"connect ETIMEDOUT (?P<host>[\d.]+):(?P<port>\d+)"),
    ("onnection timed out", r"onnection timed out(?: after \d+ ms)?: (?P<host>[\w.-]+)/[\d.]*:(?P<port>\d+)"),
    # aiohttp says no more, whether it was refused or got no answer
    ("Connect call failed", r"Cannot connect to host (?P<host>[\w.-]+):(?P<port>\d+) ssl:\w+ \[Connect call failed"),
    # curl, which says of a refusal that it came at once
    (
        "Failed to connect to ",
        r"Failed to connect to (?P<host>[\w.-]+) port (?P<port>\d+)(?: after \d{5,9} ms\b|: Connection timed out)",
    ),
    # reqwest, hyper
    (
        "tcp connect error: ",
        r"https?://(?P<host>[\w.-]+):(?P<port>\d{1,5})[/)].{0,300}tcp connect error: (?:Connection timed|deadline has)",
    ),
    # what says it in words of its own: by whom it asked and that a connection was not made, in one line
    ("imed out", rf"https?://(?P<host>[\w.-]+):(?P<port>\d{{1,5}})\b.{{0,200}}{_CONNECTED_LATE}"),
    ("imed out", rf"{_CONNECTED_LATE}\b.{{0,200}}https?://(?P<host>[\w.-]+):(?P<port>\d{{1,5}})\b"),
)

#: httpx raises it without a word of whom it asked: the client names that elsewhere, in its log or in its environment.
_NAMELESS = ("ConnectTimeout", r"^(?:httpx|httpcore)\.ConnectTimeout\b")

#: The same of a proxy (Envoy's access log): the address of the pod that it could not connect to in time.
_BY_ADDRESS = ("{connection_timeout}", r"[\"\s](?P<host>\d{1,3}(?:\.\d{1,3}){3}):(?P<port>\d{1,5})[\"\s]")

#: Envoy's of what it asks over gRPC where to send a request, or whether (ext_proc: an endpoint picker); to whom it does not say.
_OF_PICKER = ("ext_proc_error_gRPC_error_14", r"connection_timeout\b")
_GRPC = ("grpc", "h2c", "http2")
_PICKERS = r"(?i)\bepp\b|picker|ext-?proc|processor|gateway-plugin|router"

#: Kinds of other network plugins, whose rules add to these.
_FOREIGN = ("FQDNNetworkPolicy", "AdminNetworkPolicy")

#: A connection to an address outside, or to a name that is none of the cluster's, that got no answer. Sources: Go's net, urllib3.
_SILENT = (
    ("i/o timeout", r"dial tcp (?P<whom>\d{1,3}(?:\.\d{1,3}){3}):(?P<port>\d+): i/o timeout"),
    (
        "Max retries exceeded",
        r"host='(?P<whom>[\w-]+(?:\.[\w-]+){1,6})', port=(?P<port>\d+)\): Max retries exceeded.{1,600}timed out",
    ),
)

#: Where models come from, as a server that is ready names it while a pull fails.
_STORES = ("registry.ollama.ai", "huggingface.co", "hf.co", "cloudflarestorage.com")

#: A resolver that got no answer: the C library's, Node's, Go's. A name that does not exist is none.
_DNS_SILENT = ("Temporary failure in name resolution", "getaddrinfo EAI_AGAIN", ":53: i/o timeout", ":53: connect: ")

#: What of Python's tracebacks is not indented; and so many lines they have at most.
_OF_A_TRACEBACK, _AFTER = r"Traceback |The above |During handling |[\w.]{1,100}(?:Error|Exception|Timeout)\b", 400

#: What a Ray worker says of a head that does not answer: KubeRay's init container, and Ray itself.
_NO_HEAD = ("Waiting for GCS to be ready", "Failed to connect to GCS", "Unable to connect to GCS")

_CONSEQUENCES = ("crash-loop", "not-ready", "engine-init-failed", "pod-failed")


@check(
    "network-policy-blocks",
    since="0.2",
    severity="warning",
    literals=(*_NO_HEAD, *_DNS_SILENT, *(words for words, _ in (*_UNREACHED, _BY_ADDRESS, _OF_PICKER, *_SILENT))),
)
def network_policy_blocks(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A NetworkPolicy stops the download, DNS, another Service, clients, or the ranks of one server.

    A pod that a policy with `Egress` selects may open only the connections that some rule allows. Without one to port
    443 of public addresses the Hub is out of reach, without one to port 53 not even its name resolves; the download
    times out after minutes of retries; without one to the port of a database or cache in the cluster that cannot be reached
    either. A pod that a policy with `Ingress` selects is reached by those whom some rule names, and by nobody else: gateways
    and clients in other namespaces wait until they time out, while the server is Ready. A server over several pods needs all
    ports between its ranks: NCCL, gloo and Ray choose theirs when they start.

    Policies add up: what one forbids another may allow, Cilium's included. They do not bind pods on the host's network.

    ## Fix

    Allow DNS, and port 443 outside (or fetch the model in advance and set `HF_HUB_OFFLINE=1`); allow all ports between
    the pods of one server.

    ## References

    - https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    if pod.spec.host_network or pod.log_only or any(next(cluster.items(k), None) for k in _FOREIGN):
        return
    # who loads its one model before it serves has it by now: from its cache
    has_its_model = bool(subject.engines(pod)) and all(engine.name in _HUB for engine in subject.engines(pod))
    if logs is not None and (pod.failing or (pod.ready and not has_its_model)):
        yield from _outside(pod, cluster, logs)
    if pod.ready and (found := _kept_out(pod, cluster) or _kept_in(pod, cluster)) is not None:
        yield found
    elif logs is not None and pod.exists and not subject.engines(pod):
        yield from _from_here(pod, cluster, logs)
    if pod.ready or any(next(cluster.items(kind), None) for kind in CILIUM):
        return
    for engine in subject.engines(pod):
        model = engine.explicit("model")
        if model and engine.name in _HUB and isinstance(model.value, str) and _downloads(engine, model.value):
            yield from _egress(pod, engine, model.value, cluster, logs)
    if subject.engines(pod):
        yield from _peers(pod, subject, cluster)
    if logs is not None and pod.failing:
        yield from _inside(pod, cluster, logs)
        if not subject.engines(pod):
            yield from _no_dns(pod, cluster, logs)
    yield from _head(pod, cluster, logs)


def _outside(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """An address outside that gave no answer, at a port that no policy of Kubernetes or Cilium lets the pod out to."""
    theirs = cilium_egress(pod, cluster)
    ours = policies(pod, cluster, "Egress")
    if not theirs and not ours:
        return
    said = (
        (line, told)
        for log in logs
        for words, pattern in _SILENT
        for line in log.find(words)
        if (told := re.search(pattern, line.text))
    )
    for line, told in said:
        store = any(name in line.text for name in _STORES)
        if (not store and (pod.ready or not _is_outside(told["whom"]))) or (pod.ready and line.log.previous):
            continue
        port = int(told["port"])
        if any(cilium_leads_outside(rule, port) for _, listed in theirs for rule in listed) or any(
            has_port(rule, port) and leads_outside(rule) for rule in rules(ours, "Egress")
        ):
            continue
        names = [item.name for item, _ in theirs] + [item.name for item in ours]
        words = [", ".join(sorted(rule)) + f": {_numbers(rule)}" for rule in theirs[0][1]] if theirs else []
        quoted = (
            object_evidence(theirs[0][0], "spec.egress", "; ".join(words) or "nothing")
            if theirs
            else _quote(ours[0], "egress")
        )
        yield Finding(
            role="cause",
            confidence="likely",
            summary=f"No rule of {' and '.join(dict.fromkeys(names))} lets {pod.name} out of the cluster at port {port}, "
            f"at which it asks {told['whom']}.",
            evidence=(log_evidence(line), quoted),
            explains=("model-registry-failed", "hf-unreachable", *_CONSEQUENCES),
            fixes=(
                fixes.advice(
                    f"Allow port {port} to the entity world (or the names of the store) in {theirs[0][0].name}",
                    owner="platform",
                )
                if theirs
                else _open(ours[0], [f"port {port} of public addresses"], port),
            ),
            pods=(pod.name,),
        )
        return


def _is_outside(whom: str) -> bool:
    """Whether an address is public, or a name none that only the cluster knows."""
    if re.fullmatch(r"[\d.]+", whom):
        try:
            return not ipaddress.ip_address(whom).is_private
        except ValueError:
            return False
    return not whom.endswith((".local", ".svc", ".internal", ".lan", ".home.arpa"))


def _numbers(rule: dict[str, object]) -> str:
    return ", ".join(str(one.get("port")) for one in cilium_ports(rule)) or "all ports"


def _inside(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A Service of the cluster that the pod could not reach, at a port that no policy lets it out to."""
    found = policies(pod, cluster, "Egress")
    if not found:
        return
    allowed = list(rules(found, "Egress"))
    for words, pattern in _UNREACHED:
        for line in logs.find(words):
            named = re.search(pattern, line.text)
            service = service_at(named["host"], pod.namespace, cluster) if named else None
            if named is None or service is None:
                continue
            # a policy counts the port of the pods behind it
            ports = [row for row in rows(service.raw, "spec.ports") if str(row.get("port")) == named["port"]]
            behind = [row.get("targetPort", row.get("port")) for row in ports]
            numbers = [int(str(port)) for port in behind if str(port).isdecimal()]
            if not numbers or len(numbers) < len(behind) or any(has_port(r, n) for r in allowed for n in numbers):
                continue
            names = " and ".join(item.name for item in found)
            port = numbers[0]
            yield Finding(
                role="cause",
                confidence="likely",
                summary=f"NetworkPolicy {names} lets {pod.name} out to chosen ports only, and port {port} of Service "
                f"{service.name} is none of them: it cannot be reached.",
                evidence=(log_evidence(line), *(_quote(item, "egress") for item in found)),
                explains=("ray-cluster", "multinode-discovery", *_CONSEQUENCES),
                fixes=(_let_out(found[0], service, port),),
                pods=(pod.name,),
            )
            return


def _no_dns(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A program, no engine, that ends since no name resolves, in a pod that no policy lets out to DNS."""
    found = policies(pod, cluster, "Egress")
    if not found or any(has_port(rule, 53, "UDP") for rule in rules(found, "Egress")):
        return
    for ending in endings(pod):
        log = log_of(ending, logs)
        lines = (x for words in _DNS_SILENT for x in log.find(words)) if log is not None else iter(())
        line = max(lines, key=lambda x: x.number, default=None)
        if line is None:
            continue
        names, sure = " and ".join(item.name for item in found), _at_the_end(line)
        yield Finding(
            role="cause",
            confidence="likely" if sure else "possible",
            summary=f"NetworkPolicy {names} keeps {pod.name} from DNS (port 53): no name resolves"
            + (f", and {ending.container.name} ended of it." if sure else f" in {ending.container.name}."),
            evidence=(log_evidence(line), *(_quote(item, "egress") for item in found)),
            explains=("model-registry-failed", "hf-unreachable", "multinode-discovery", *_CONSEQUENCES),
            fixes=(_open(found[0], ["DNS (port 53)"]),),
            order=line.order,
            pods=(pod.name,),
        )
        return


def _at_the_end(line: Line) -> bool:
    """Whether little but the frames of one exception follows in the log: what a program says earlier it may have got over."""
    after = (x.text for x in line.log.lines(line.number + 1, line.number + _AFTER) if x.text.strip())
    spoken = [text for text in after if not text[0].isspace() and not re.match(_OF_A_TRACEBACK, text)]
    return not spoken


def _from_here(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """The same from the side of the client: a ready server of models that it cannot connect to."""
    said = (named for log in logs for _, named in _unreached(log) if pod.failing or not log.previous)
    for host, port in dict.fromkeys((named["host"], named["port"]) for named in said):
        to = follow(host, int(port), pod, cluster)
        for server in to.pods if to is not None and not to.itself else ():
            if not server.ready or server.spec.host_network or not engines_in(server):
                continue
            found = _kept_out(server, cluster, asker=pod) or _kept_in(server, cluster, asker=pod)
            if found is not None:
                yield found
                return


def _kept_out(pod: Pod, cluster: Cluster, asker: Pod | None = None) -> Finding | None:
    """A client in the cluster whose log says that it cannot connect to this pod, and which no policy lets in."""
    ports = {port for engine in engines_in(pod) if isinstance(port := engine.value("port"), int)}
    picker = not engines_in(pod) and _serves_grpc(pod) and _picks(pod, cluster)
    if picker:
        ports = {
            p.container_port
            for c in pod.containers
            for p in c.spec.ports
            if any(leads(s, pod, {p.container_port}) for s in pod.services)
        }
    if not ports and not engines_in(pod):  # what asks servers for others, such as LiteLLM
        listed = (row for item in pod.services for row in rows(item.raw, "spec.ports"))
        ports = {port for row in listed if isinstance(port := row.get("targetPort", row.get("port")), int)}
    ours, theirs = policies(pod, cluster, "Ingress"), cilium_ingress(pod, cluster)
    if not ports or pod.spec.host_network or not (ours or theirs):
        return None
    for client, log, said in _cut_from(cluster):
        typed, space = client.obj, client.namespace
        if client.name == pod.name or (asker is not None and client.item is not asker.item):
            continue
        line = next((x for x, named in said if _meant(named, pod, typed)), None)
        line = line or (_no_picker(log) if picker else _nameless(log, pod, typed))
        if line is None:
            continue
        labels = {key: str(value) for key, value in typed.metadata.labels.items()}
        let = any(_admits(r, p, labels, typed, pod, cluster) for r in rules(ours, "Ingress") for p in ports)
        if let or any(
            cilium_admits(r, p, labels, space, cluster, item.namespace)
            for item, rs in theirs
            for r in rs
            for p in ports
        ):
            continue
        items = [*ours, *(item for item, _ in theirs)]
        names, port = " and ".join(dict.fromkeys(item.name for item in items)), min(ports)
        who = client.name if space == pod.namespace else f"{space}/{client.name}"
        return Finding(
            role="cause",
            confidence="likely",
            summary=f"No rule of {names} lets {who} in to port {port} of {pod.name}; it says that it cannot connect.",
            evidence=(
                log_evidence(line),
                *(_quote(item, "ingress") for item in ours),
                *(object_evidence(i, "spec.ingress", "; ".join(map(_sources, rs)) or "nothing") for i, rs in theirs),
            ),
            fixes=(_let_in(items[0], labels, space, pod, port),),
            order=line.order,
            explains=_CONSEQUENCES if asker is not None else (),
            pods=((asker or pod).name,),
        )
    return None


def _kept_in(pod: Pod, cluster: Cluster, asker: Pod | None = None) -> Finding | None:
    """A client in the cluster whose log says that it cannot connect to this pod, and which its own policies let out to other ports."""
    for client, ours, line, named in cluster.once("kept in", lambda: list(_held(cluster))):
        other = asker is not None and client.item is not asker.item
        if other or client.item is pod.item or not _meant(named, pod, client.obj):
            continue
        ports = _behind(pod, named)
        if not ports or any(has_port(rule, port) for rule in rules(ours, "Egress") for port in ports):
            continue
        names, port = " and ".join(one.name for one in ours), min(ports)
        service = next((one for one in pod.services if one.name == named["host"].partition(".")[0]), None)
        return Finding(
            role="cause",
            confidence="likely",
            summary=f"NetworkPolicy {names} lets {client.namespace}/{client.name} out to chosen ports only, and port {port} of "
            f"{pod.name} is none of them; it says that it cannot connect.",
            evidence=(log_evidence(line), *(_quote(one, "egress") for one in ours)),
            fixes=(
                _let_out(ours[0], service, port)
                if service is not None
                else fixes.advice(f"Allow port {port} of {pod.name} in NetworkPolicy/{ours[0].name}", owner="platform"),
            ),
            order=line.order,
            explains=_CONSEQUENCES if asker is not None else (),
            pods=((asker or pod).name,),
        )
    return None


def _held(cluster: Cluster) -> Iterator[tuple[Pod, list[Item], Line, re.Match[str]]]:
    """Whom a log says that its pod could not connect to, where policies choose what it is let out to, and these."""
    for client, log, said in _cut_from(cluster):
        ours = policies(client, cluster, "Egress") if said and not log.previous else []
        if ours and not cilium_egress(client, cluster):
            yield from ((client, ours, line, named) for line, named in said)


def _cut_from(cluster: Cluster) -> list[tuple[Pod, Log, list[tuple[Line, re.Match[str]]]]]:
    """Pods with an address of their own whose logs say that they could not connect, and to whom, where they name it."""
    return cluster.once("cut from", lambda: list(_unconnected(cluster)))


def _unconnected(cluster: Cluster) -> Iterator[tuple[Pod, Log, list[tuple[Line, re.Match[str]]]]]:
    for text in cluster.snapshot.logs:
        item, log = cluster.item("Pod", text.namespace, text.pod), Log(text)
        typed = item.typed() if item else None
        if not isinstance(typed, k8s.Pod) or typed.spec.host_network:
            continue
        said = list(_unreached(log))
        if said or any(next(log.find(words), None) for words, _ in (_NAMELESS, _OF_PICKER)):
            yield Pod(typed, cluster, item=item), log, said


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
    return found or ({asked} & (engines | {p.container_port for c in pod.containers for p in c.spec.ports}))


def _unreached(log: Log) -> Iterator[tuple[Line, re.Match[str]]]:
    """Lines that name whom they could not connect to."""
    for words, pattern in (*_UNREACHED, _BY_ADDRESS):
        for line in log.find(words):
            if (named := re.search(pattern, line.text)) is not None:
                yield line, named


def _serves_grpc(pod: Pod) -> bool:
    """Whether a Service says that the pod speaks gRPC."""
    listed = (port for item in pod.services for port in rows(item.raw, "spec.ports"))
    return any(word in f"{port.get('name')} {port.get('appProtocol')}".lower() for port in listed for word in _GRPC)


def _picks(pod: Pod, cluster: Cluster) -> bool:
    """Whether a gateway asks the pod where to send requests: an InferencePool names its Service, or it is called so."""
    names, refs = {item.name for item in pod.services}, ("extensionRef", "endpointPickerRef")
    pools = cluster.items("InferencePool", pod.namespace)
    if any(dig(pool.raw, f"spec.{ref}.name") in names for pool in pools for ref in refs):
        return True
    called = (pod.name, *names, *(word for c in pod.containers for word in (c.name, c.spec.image)))
    return any(re.search(_PICKERS, word) for word in called)


def _no_picker(log: Log) -> Line | None:
    """A line of a gateway that could not connect to what it asks before it sends a request on."""
    words, pattern = _OF_PICKER
    return next((line for line in log.find(words) if re.search(pattern, line.text)), None)


def _nameless(log: Log, pod: Pod, client: k8s.Pod) -> Line | None:
    """A line of a connection that was not made, of a client that names one of the pod's Services beside it."""
    words, pattern = _NAMELESS
    line = next((line for line in log.find(words) if re.search(pattern, line.text[:200])), None)
    if line is None:
        return None
    names = {item.name for item in pod.services}
    urls = [url for other in log.find("://") for url in re.findall(r"https?://[\w.:-]{1,300}", other.text)]
    urls += [variable.value for container in client.spec.containers for variable in container.env if variable.value]
    return line if any(addresses(url, names, pod.namespace, client.metadata.namespace) for url in urls) else None


def _meant(named: re.Match[str], pod: Pod, client: k8s.Pod) -> bool:
    """Whether a client means this pod: by its address, or by one of its Services."""
    host = named["host"]
    if host == pod.status.pod_ip:
        return True
    name, _, rest = host.partition(".")
    namespace = rest.partition(".")[0] or client.metadata.namespace
    mine = {item.name: str(dig(item.raw, "spec.clusterIP") or "") for item in pod.services}
    return host in mine.values() or (namespace == pod.namespace and name in mine)


def _admits(
    rule: dict[str, object], port: int, labels: dict[str, str], client: k8s.Pod, pod: Pod, cluster: Cluster
) -> bool:
    """Whether a rule may let a client in; labels of a namespace that was not read may be any."""
    if not has_port(rule, port):
        return False
    peers = rows(rule.get("from"))
    namespace = cluster.find("Namespace", "", client.metadata.namespace)
    known = dig(namespace, "metadata.labels") if namespace else None
    of_namespace = {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}
    of_namespace["kubernetes.io/metadata.name"] = client.metadata.namespace
    for peer in peers:
        if "ipBlock" in peer:
            return True
        chosen = peer.get("namespaceSelector")
        if chosen is None:
            there = client.metadata.namespace == pod.namespace
        else:
            asks = set(dig(chosen, "matchLabels") or ()) | {str(t.get("key")) for t in rows(chosen, "matchExpressions")}
            there = selected(chosen, of_namespace) or (not namespace and bool(asks - set(of_namespace)))
        if there and selected(peer.get("podSelector"), labels):
            return True
    return not peers


def _sources(rule: dict[str, object]) -> str:
    """Whom one of Cilium's rules lets in, in one line."""
    wanted = [dig(one, "matchLabels") for one in rows(rule, "fromEndpoints")]
    peers = [", ".join(f"{k}={v}" for k, v in one.items()) for one in wanted if isinstance(one, dict)]
    return f"{' or '.join(peers) or ', '.join(sorted(k for k in rule if k.startswith('from'))) or 'anybody'}: {_numbers(rule)}"


def _let_in(policy: Item, labels: dict[str, str], namespace: str, pod: Pod, port: int) -> Fix:
    """A rule for the client; its namespace by the label that every one has."""
    own = {k: v for k, v in labels.items() if k in ("app", "app.kubernetes.io/name")} or labels
    if policy.kind.partition(".")[0] != "NetworkPolicy":
        summary = (
            f"Let {namespace} ({', '.join(f'{k}={v}' for k, v in own.items())}) in to port {port} in {policy.name}"
        )
        return fixes.advice(summary, owner="platform")
    peer: dict[str, object] = {"podSelector": {"matchLabels": own}}
    if namespace != pod.namespace:
        peer["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"from": [peer], "ports": [{"protocol": "TCP", "port": port}]}
    have = dig(policy.raw, "spec.ingress")
    path, value = ("/spec/ingress/-", rule) if isinstance(have, list) else ("/spec/ingress", [rule])
    summary = f"Let it in to port {port} in NetworkPolicy/{policy.name}"
    return fixes.patch_object(policy, summary, [{"op": "add", "path": path, "value": value}], owner="platform")


def _let_out(policy: Item, service: Item, port: int) -> Fix:
    """A rule for the pods behind a Service, where its selector says which they are."""
    selector = dig(service.raw, "spec.selector")
    rule: dict[str, object] = {"ports": [{"protocol": "TCP", "port": port}]}
    if isinstance(selector, dict) and selector:
        peer: dict[str, object] = {"podSelector": {"matchLabels": selector}}
        if service.namespace != policy.namespace:
            peer["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": service.namespace}}
        rule["to"] = [peer]
    have = dig(policy.raw, "spec.egress")
    path, value = ("/spec/egress/-", rule) if isinstance(have, list) else ("/spec/egress", [rule])
    return fixes.patch_object(
        policy,
        f"Allow port {port} of {service.name} in NetworkPolicy/{policy.name}",
        [{"op": "add", "path": path, "value": value}],
        owner="platform",
    )


def _downloads(engine: Engine, model: str) -> bool:
    """Whether the model comes from the Hub."""
    if model.count("/") != 1 or model.startswith(("/", ".")) or not engine.found.argv_known:
        return False
    return not _ELSEWHERE & set(engine.container.env) and not engine.container.spec.env_from


def _egress(pod: Pod, engine: Engine, model: str, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    found = policies(pod, cluster, "Egress")
    allowed = list(rules(found, "Egress"))
    named = any(has_port(rule, 53, "UDP") for rule in allowed)
    open_ = any(has_port(rule, 443) and leads_outside(rule) for rule in allowed)
    if not found or (named and open_):
        return
    closed = [*([] if named else ["DNS (port 53)"]), *([] if open_ else ["port 443 of public addresses"])]
    line = _unanswered(engine, logs) if pod.failing else None
    cached = _kept(engine.container)
    if cached and line is None:
        return  # an earlier pod may have left it there
    names = " and ".join(item.name for item in found)
    kept = "" if line else ", and the download times out"
    setting = engine.explicit("model")
    yield Finding(
        role="cause" if line else "risk",
        severity=None if line else "warning",
        confidence="likely",
        summary=f"NetworkPolicy {names} keeps {pod.name} from {' and '.join(closed)}; {model} comes from the Hugging Face "
        f"Hub{kept}.",
        evidence=(
            *((log_evidence(line),) if line else ()),
            *(_quote(item, "egress") for item in found),
            *((setting_evidence(engine.container, setting),) if setting else ()),
        ),
        explains=("hf-unreachable", "crash-loop", "not-ready", "engine-init-failed", "probe-too-short") if line else (),
        fixes=(_open(found[0], closed),),
        pods=(pod.name,) if pod.exists else (),
    )


def _unanswered(engine: Engine, logs: Logs | None) -> Line | None:
    for log in logs.of(engine.container.name) if logs else ():
        for words in _NO_ANSWER:
            for line in log.find(words):
                if "huggingface" in line.text or "hf.co" in line.text or "name resolution" in line.text:
                    return line
    return None


def _kept(container: Container) -> bool:
    """Whether the Hub's cache lies on a volume that outlives the pod."""
    homes = [v.value for n in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if (v := container.env.get(n))]
    mounts = [container.mount_over(home) for home in (*filter(None, homes), "/root/.cache/huggingface", "/data")]
    volumes = [container.pod.volume(mount.name) for mount in mounts if mount]
    return any(volume and not volume.empty_dir for volume in volumes)


def _quote(item: Item, direction: str) -> Evidence:
    found = dig(item.raw, f"spec.{direction}")
    texts = [_words(rule) for rule in rows(found)] or ["nothing"]
    return object_evidence(item, f"spec.{direction}", "; ".join(texts))


def _words(rule: dict[str, object]) -> str:
    """A rule in one line: to whom, at which ports."""
    peers = rows(rule.get("to") or rule.get("from"))
    to = ", ".join(str(dig(p, "ipBlock.cidr") or "/".join(sorted(p))) for p in peers) or "anywhere"
    ports = ", ".join(f"{row.get('protocol', 'TCP')} {row.get('port', 'any')}" for row in rows(rule.get("ports")))
    return f"{to}: {ports or 'all ports'}"


def _open(item: Item, closed: list[str], port: int = 443) -> Fix:
    wanted: list[dict[str, object]] = []
    if "DNS (port 53)" in closed:
        wanted.append({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
    if closed[-1].startswith(f"port {port}"):
        block = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]}
        wanted.append({"to": [{"ipBlock": block}], "ports": [{"protocol": "TCP", "port": port}]})
    have = dig(item.raw, "spec.egress")
    operations: list[dict[str, object]] = [{"op": "add", "path": "/spec/egress/-", "value": rule} for rule in wanted]
    if not isinstance(have, list):
        operations = [{"op": "add", "path": "/spec/egress", "value": wanted}]
    return fixes.patch_object(
        item, f"Allow {' and '.join(closed)} in NetworkPolicy/{item.name}", operations, owner="platform"
    )


def _head(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A Ray worker that gets no answer from a head which runs, and a policy by which the head takes nothing from it."""
    line = next((line for words in _NO_HEAD for line in logs.find(words)), None) if logs and pod.failing else None
    group = pod.obj.metadata.labels.get("ray.io/cluster")
    if line is None or not group:
        return
    for head in cluster.all(k8s.Pod, "Pod"):
        labels = {key: str(value) for key, value in head.metadata.labels.items()}
        if head.metadata.namespace != pod.namespace or labels.get("ray.io/cluster") != group:
            continue
        if labels.get("ray.io/node-type") != "head" or head.status.phase != "Running" or head.spec.host_network:
            continue
        found = policies_on(labels, pod.namespace, cluster, "Ingress")
        if not found or any(_lets_in(rule, labels_of(pod)) for rule in rules(found, "Ingress")):
            return
        names = " and ".join(item.name for item in found)
        rule = {"from": [{"podSelector": {"matchLabels": {"ray.io/cluster": group}}}]}
        have = dig(found[0].raw, "spec.ingress")
        path, value = ("/spec/ingress/-", rule) if isinstance(have, list) else ("/spec/ingress", [rule])
        operations = [{"op": "add", "path": path, "value": value}]
        yield Finding(
            role="cause",
            severity="critical",
            confidence="likely",
            summary=f"NetworkPolicy {names} lets nothing of {pod.name} in to {head.metadata.name}, which runs: the worker waits for it.",
            evidence=(log_evidence(line), *(_quote(item, "ingress") for item in found)),
            explains=("ray-cluster", "multinode-discovery", *_CONSEQUENCES),
            fixes=(
                fixes.patch_object(
                    found[0], "Let the pods of the Ray cluster reach each other", operations, owner="platform"
                ),
            ),
            order=line.order,
            pods=(pod.name,),
        )
        return


def _lets_in(rule: dict[str, object], labels: dict[str, str]) -> bool:
    """Whether a rule may let a pod of these labels in to the port of Ray's head; a foreign one is taken for it."""
    peers = rows(rule.get("from"))
    of_worker = not peers or any("podSelector" not in p or selected(p.get("podSelector"), labels) for p in peers)
    return of_worker and has_port(rule, 6379)


def _peers(pod: Pod, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """Ranks in several pods, and no rule that lets them reach each other on all ports."""
    nodes = pod.nodes if not pod.exists else len(subject.pods)
    found = policies(pod, cluster, "Ingress")
    if not nodes or nodes < 2 or not found:
        return
    labels = labels_of(pod)
    if not labels:
        return
    for rule in rules(found, "Ingress"):
        peers = rows(rule.get("from"))
        own = not peers or any("ipBlock" in p or selected(p.get("podSelector"), labels) for p in peers)
        if own and not rows(rule.get("ports")):
            return
    names = " and ".join(item.name for item in found)
    rule = {"from": [{"podSelector": dig(found[0].raw, "spec.podSelector") or {}}]}
    have = dig(found[0].raw, "spec.ingress")
    path, value = ("/spec/ingress/-", rule) if isinstance(have, list) else ("/spec/ingress", [rule])
    yield Finding(
        role="risk",
        severity="warning",
        confidence="likely",
        summary=f"NetworkPolicy {names} lets the {nodes} pods of one server reach each other on chosen ports only; NCCL, gloo "
        "and Ray choose theirs when they start, and the ranks wait for each other until they time out.",
        evidence=tuple(_quote(item, "ingress") for item in found),
        fixes=(
            fixes.patch_object(
                found[0],
                "Allow all ports between the pods of the server",
                [{"op": "add", "path": path, "value": value}],
                owner="platform",
            ),
        ),
        pods=tuple(p.name for p in subject.pods if p.exists),
    )
