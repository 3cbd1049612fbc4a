"""What a pod asks for and policies do not let it out to: models, names, Services of the cluster."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Any

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Finding,
    Item,
    Line,
    Logs,
    Pod,
    dig,
    endings,
    log_evidence,
    log_of,
    object_evidence,
    pod_evidence,
    rows,
    service_at,
    setting_evidence,
)
from llmdoctor_checks._connections import DNS_SILENT, NOT_CONNECTED, NOT_CONNECTED_OUTSIDE, URL
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.serving._policies import (
    cilium_egress,
    cilium_leads_outside,
    has_port,
    leads_outside,
    only_at,
    policies,
    rules,
)
from llmdoctor_checks.serving._policy_words import let_out, let_out_to, let_outside, numbers, out_there, quote
from llmdoctor_checks.start._scripts import FETCHES, PIP, fails_at, quoted

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

#: What sends pip and package managers to a mirror or a proxy, which may be in the cluster.
_MIRRORED = r"(?i)\bPIP_|_PROXY\b|--(?:extra-)?index-url\b|\s-i\s|--no-index\b|--find-links\b|\bsources\.list|\bpip\.conf\b|\bproxy\b"

#: What ends a script early with success: its work may be done by then.
_DONE = r"\bexit\s{1,9}0\b"

#: What a download says that gets no answer.
_NO_ANSWER = ("Max retries exceeded", "Temporary failure in name resolution", "Network is unreachable", "timed out")

#: Where models come from, as a server that is ready names it while a pull fails.
_STORES = ("registry.ollama.ai", "huggingface.co", "hf.co", "cloudflarestorage.com")

#: What Ollama says of each file that it begins to download: `server/download.go`.
_DOWNLOADS = 'msg="downloading '

#: Where distributions run the cluster's DNS.
_DNS_SPACES = ("kube-system", "openshift-dns")

#: What of Python's tracebacks is not indented; and so many lines they have at most.
_OF_A_TRACEBACK, _AFTER = r"Traceback |The above |During handling |[\w.]{1,100}(?:Error|Exception|Timeout)\b", 400

#: Programs that say of a connection without an answer by what it should have been, and the variable that holds the address.
_BY_VARIABLE = (
    (r"Failed to connect to NATS: (?:timed out|deadline has elapsed|IO error)", "NATS_SERVER"),
    (r"Failed to connect to etcd server with config", "ETCD_ENDPOINTS"),
)
_NAMELESS = ("Failed to connect to NATS", "Failed to connect to etcd server")

#: One name that is unknown may be a moment's.
_FEWEST_NAMES = 2

#: Behind so many lines a program did without, or asked again.
_LAST = 40

#: Where collectors of traces and metrics listen: OTLP, Zipkin, Jaeger.
_TRACES = ("4317", "4318", "9411", "14268")

LITERALS = (*_NAMELESS, *DNS_SILENT, _DOWNLOADS, *(words for words, _ in (*NOT_CONNECTED, *NOT_CONNECTED_OUTSIDE)))


def outside(pod: Pod, engines: Sequence[Engine], cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """An address outside that gave no answer, at a port that no policy of Kubernetes or Cilium lets the pod out to."""
    # who loads its one model before it serves has it by now: from its cache
    has_its_model = bool(engines) and all(engine.name in _HUB for engine in engines)
    if logs is None or not (pod.failing or (pod.ready and not has_its_model)):
        return
    theirs = cilium_egress(pod, cluster)
    ours = policies(pod, cluster, "Egress")
    if not theirs and not ours:
        return
    for line, told in _not_connected(logs):
        store = any(name in line.text for name in _STORES)
        if (not store and (pod.ready or not _is_outside(told["whom"]))) or (pod.ready and line.log.previous):
            continue
        port = int(told["port"])
        hosts = _hosts(line.text, told["whom"])
        if any(cilium_leads_outside(rule, port, hosts) for _, listed in theirs for rule in listed) or any(
            has_port(rule, port) and leads_outside(rule) for rule in rules(ours, "Egress")
        ):
            continue
        names = [item.name for item, _ in theirs] + [item.name for item in ours]
        words = [", ".join(sorted(rule)) + f": {numbers(rule)}" for rule in theirs[0][1]] if theirs else []
        quoted = (
            object_evidence(theirs[0][0], "spec.egress", "; ".join(words) or "nothing")
            if theirs
            else quote(ours[0], "egress")
        )
        named = " and ".join(sorted(hosts))
        fix = (
            let_out_to(theirs[0][0], [rule for _, listed in theirs for rule in listed], hosts, port)
            if theirs
            else let_outside(ours[0], [port])
        )
        yield Finding(
            summary=f"No rule of {' and '.join(dict.fromkeys(names))} lets {pod.name} out of the cluster at port {port}, "
            f"at which it asks {named or told['whom']}.",
            evidence=(log_evidence(line), quoted),
            explains=("model-registry-failed", "hf-unreachable", *FAILED_START),
            fix=fix,
        )
        return


def _not_connected(logs: Logs) -> Iterator[tuple[Line, re.Match[str]]]:
    for log in logs:
        for words, pattern in NOT_CONNECTED_OUTSIDE:
            yield from log.matching(pattern, words)


def _hosts(text: str, whom: str) -> set[str]:
    """The names that the host had who was asked: of an address those that Go names beside it."""
    if not re.fullmatch(r"[\d.]+", whom):
        return {whom}
    named = rf'https?://([\w.-]{{1,253}})(?::\d{{1,5}})?(?:/[^\s"]{{0,3000}}|\\{{0,3}})": dial tcp {re.escape(whom)}:'
    return {host for host in re.findall(named, text[:8000]) if not re.fullmatch(r"[\d.]+", host)}


def _is_outside(whom: str) -> bool:
    """Whether an address is public, or a name none that only the cluster knows."""
    if re.fullmatch(r"[\d.]+", whom):
        try:
            return not ipaddress.ip_address(whom).is_private
        except ValueError:
            return False
    return not whom.endswith((".local", ".svc", ".internal", ".lan", ".home.arpa"))


def services(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A Service of the cluster that the pod could not reach, at a port that no policy lets it out to.

    A pod that is ready may ask somebody who matters little, such as a collector of traces.
    """
    found = policies(pod, cluster, "Egress")
    if not found:
        return
    allowed = list(rules(found, "Egress"))
    for line, host, asked in _asked(pod, logs):
        service = service_at(host, pod.namespace, cluster)
        if service is None or (
            pod.ready and (line.log.previous or asked in _TRACES or _answered_since(line, service, pod))
        ):
            continue
        # a policy counts the port of the pods behind it
        ports = [row for row in rows(service.raw, "spec.ports") if str(row.get("port")) == asked]
        behind = [row.get("targetPort", row.get("port")) for row in ports]
        numbers = [int(str(port)) for port in behind if str(port).isdecimal()]
        if not numbers or len(numbers) < len(behind) or any(has_port(r, n) for r in allowed for n in numbers):
            continue
        names = " and ".join(item.name for item in found)
        port = numbers[0]
        yield Finding(
            confidence="possible" if pod.ready else "likely",
            summary=f"NetworkPolicy {names} lets {pod.name} out to chosen ports only, and port {port} of Service "
            f"{service.name} is none of them: it cannot be reached.",
            evidence=(log_evidence(line), *(quote(item, "egress") for item in found)),
            explains=("ray-cluster", "multinode-discovery", *FAILED_START),
            fix=let_out(found[0], service, port),
        )
        return


def _asked(pod: Pod, logs: Logs) -> Iterator[tuple[Line, str, str]]:
    """Lines of connections that got no answer, with host and port: as they name them, or as a variable does."""
    for words, pattern in NOT_CONNECTED:
        for line in logs.find(words):
            if named := re.search(pattern, line.text):
                yield line, named["host"], named["port"]
    for line in (x for x in logs.find(*_NAMELESS) if len(x.log) - x.number <= _LAST):
        variable = next((name for pattern, name in _BY_VARIABLE if re.search(pattern, line.text[:4000])), "")
        container = pod.container(line.log.source.container)
        told = container.env.get(variable) if container is not None else None
        address = (
            re.match(r"(?:\w{1,10}://)?(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5})\b", told.value or "") if told else None
        )
        if address is not None:
            yield line, address["host"], address["port"]


def _answered_since(line: Line, service: Item, pod: Pod) -> bool:
    """Whether the Service answered later, so that nothing holds back what policies forbid: not every network plugin heeds them."""
    later = (x.text[:4000] for x in line.log.find(" 200") if x.number > line.number)
    hosts = {named["host"] for text in later for named in re.finditer(URL, text)}
    there = (service_at(host, pod.namespace, pod.cluster) for host in hosts)
    return any(one is not None and (one.namespace, one.name) == (service.namespace, service.name) for one in there)


def _to_dns(pod: Pod, rule: dict[str, Any]) -> bool:
    """Whether a rule lets a pod ask for names; one to pods of namespaces in which the cluster's DNS is not doesn't."""
    peers = rows(rule.get("to"))
    return has_port(rule, 53, "UDP") and (not peers or any(_of_dns(pod, peer) for peer in peers))


def _of_dns(pod: Pod, peer: dict[str, Any]) -> bool:
    """Whether the cluster's DNS may be one of these peers: those of a namespace by its name, of the pod's own where none is named."""
    if "ipBlock" in peer:
        return True
    if "namespaceSelector" not in peer:
        return pod.namespace in _DNS_SPACES
    named = dig(peer, "namespaceSelector.matchLabels") or {}
    return named.get("kubernetes.io/metadata.name", _DNS_SPACES[0]) in _DNS_SPACES


def dns(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A program, no engine, that ends since no name resolves, in a pod that no policy lets out to DNS."""
    found = policies(pod, cluster, "Egress")
    if not found or any(_to_dns(pod, rule) for rule in rules(found, "Egress")):
        return
    for ending in endings(pod):
        log = log_of(ending, logs)
        lines = log.find(*DNS_SILENT) if log is not None else iter(())
        line = max(lines, key=lambda x: x.number, default=None)
        if line is None:
            continue
        names, sure = " and ".join(item.name for item in found), _at_the_end(line)
        yield Finding(
            confidence="likely" if sure else "possible",
            summary=f"NetworkPolicy {names} keeps {pod.name} from DNS (port 53): no name resolves"
            + (f", and {ending.container.name} ended of it." if sure else f" in {ending.container.name}."),
            evidence=(log_evidence(line), *(quote(item, "egress") for item in found)),
            explains=("model-registry-failed", "hf-unreachable", "multinode-discovery", *FAILED_START),
            fix=let_outside(found[0], dns=True),
            order=line.order,
        )
        return


def names_of_a_client(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A client that goes on, while each name that it asks for is unknown: no policy lets it out to DNS."""
    found = policies(pod, cluster, "Egress")
    if not found or any(_to_dns(pod, rule) for rule in rules(found, "Egress")):
        return
    for log in (log for log in logs if not log.previous):
        said = [line for line in log.find(*DNS_SILENT) if line.number > last_answered(log)]
        if len(said) < _FEWEST_NAMES:
            continue
        names = " and ".join(item.name for item in found)
        yield Finding(
            summary=f"NetworkPolicy {names} keeps {pod.name} from DNS (port 53): no name resolves, and it reaches nobody whom it asks by "
            "one.",
            evidence=(log_evidence(said[-1]), *(quote(item, "egress") for item in found)),
            explains=("http-5xx",),
            fix=let_outside(found[0], dns=True),
            order=said[-1].order,
        )
        return


def names_of_a_store(pod: Pod, engines: Sequence[Engine], cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A server that fetches models while it is ready (Ollama), and does not resolve the store's name: no policy lets it out to DNS."""
    found = policies(pod, cluster, "Egress")
    allowed = list(rules(found, "Egress"))
    if not found or any(_to_dns(pod, rule) for rule in allowed):
        return
    if engines and all(engine.name in _HUB for engine in engines):
        return  # it has its model by now
    current = (log for log in logs if not log.previous)
    lines = (x for log in current for x in log.find(*DNS_SILENT) if any(name in x.text for name in _STORES))
    line = max(lines, key=lambda x: x.number, default=None)
    if line is None or any(x.number > line.number for x in line.log.find(_DOWNLOADS)):
        return  # whatever kept it from the name is over
    names = " and ".join(item.name for item in found)
    reached = any(has_port(rule, 443) and leads_outside(rule) for rule in allowed)
    yield Finding(
        summary=f"NetworkPolicy {names} keeps {pod.name} from DNS (port 53): the name of the store does not resolve, and no model comes.",
        evidence=(log_evidence(line), *(quote(item, "egress") for item in found)),
        explains=("model-registry-failed", "hf-unreachable"),
        fix=let_outside(found[0], [] if reached else [443], dns=True),
        order=line.order,
    )


def _at_the_end(line: Line) -> bool:
    """Whether little but the frames of one exception follows in the log: what a program says earlier it may have got over."""
    after = (x.text for x in line.log.lines(line.number + 1, line.number + _AFTER) if x.text.strip())
    spoken = [text for text in after if not text[0].isspace() and not re.match(_OF_A_TRACEBACK, text)]
    return not spoken


def _downloads(engine: Engine, model: object) -> bool:
    """Whether the model comes from the Hub."""
    if engine.name not in _HUB or not isinstance(model, str):
        return False
    if model.count("/") != 1 or model.startswith(("/", ".")) or not engine.found.argv_known:
        return False
    return not _ELSEWHERE & set(engine.container.env) and not engine.container.spec.env_from


def hub(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A model of the Hub, in a pod that no policy lets out to DNS or to port 443 outside."""
    setting = engine.explicit("model")
    if setting is None or not _downloads(engine, setting.value):
        return
    found = policies(pod, cluster, "Egress")
    allowed = list(rules(found, "Egress"))
    named = any(_to_dns(pod, rule) for rule in allowed)
    open_ = any(has_port(rule, 443) and leads_outside(rule) for rule in allowed)
    if found and named and open_ and pod.failing:
        yield from _dns_elsewhere(pod, engine, found, cluster, logs)
    if not found or (named and open_):
        return
    closed = [] if open_ else [443]
    line = _unanswered(engine, logs) if pod.failing else None
    cached = _kept(engine.container)
    if cached and line is None:
        return  # an earlier pod may have left it there
    names = " and ".join(item.name for item in found)
    kept = "" if line else ", and the download times out"
    yield Finding(
        role="cause" if line else "risk",
        severity=None if line else "warning",
        summary=f"NetworkPolicy {names} keeps {pod.name} from {out_there(closed, dns=not named)}; {setting.value} comes from the "
        f"Hugging Face Hub{kept}.",
        evidence=(
            *((log_evidence(line),) if line else ()),
            *(quote(item, "egress") for item in found),
            setting_evidence(engine.container, setting),
        ),
        explains=("hf-unreachable", "crash-loop", "not-ready", "engine-init-failed", "probe-too-short") if line else (),
        fix=let_outside(found[0], closed, dns=not named),
    )


def packages(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """A script that installs packages at each start and ends when it cannot, in a pod that no policy lets out to where they are."""
    found = [] if pod.exists else policies(pod, cluster, "Egress")
    allowed = [rule for rule in rules(found, "Egress") if leads_outside(rule)]
    kept = []
    for container in pod.containers if found else ():
        mounted = any(re.search(r"pip\.conf|/etc/(?:apt|pip)\b", m.mount_path) for m in container.spec.volume_mounts)
        words = [*container.env, *(text for _, text in container.words)]
        if mounted or container.spec.env_from or any(re.search(rf"{_MIRRORED}|{_DONE}", text) for text in words):
            continue
        for command, ports in ((PIP, (443,)), (FETCHES, (80, 443))):
            run = fails_at(container, command)
            if run is not None and not any(has_port(rule, port) for rule in allowed for port in ports):
                kept.append((container, ports, run))
    if kept:
        # init containers come before the others
        container, ports, (path, line, said) = min(kept, key=lambda one: one[0].role != "init")
        names = " and ".join(item.name for item in found)
        yield Finding(
            role="risk",
            summary=f"NetworkPolicy {names} lets {pod.name} out to no public address at port {' or '.join(map(str, ports))}; the "
            f"script of {container.name} runs `{said}`, and ends there.",
            evidence=(pod_evidence(container, path, quoted(line)), *(quote(item, "egress") for item in found)),
            fix=let_outside(found[0], sorted({at for one in kept for at in one[1]})),
        )


def _dns_elsewhere(
    pod: Pod, engine: Engine, found: list[Item], cluster: Cluster, logs: Logs | None
) -> Iterator[Finding]:
    """Names that do not resolve, in a pod that may ask for them at certain addresses only, none of which is the cluster's DNS."""
    asking = [rule for rule in rules(found, "Egress") if has_port(rule, 53, "UDP")]
    addresses = [only_at(rule) for rule in asking]
    line = _unanswered(engine, logs)
    service, servers = _dns_addresses(cluster)
    if line is None or "name resolution" not in line.text or not all(addresses):
        return
    allowed = sorted({address for listed in addresses for address in listed})
    # others ask the node's servers, or those that the pod names
    if (
        (service | servers) & set(allowed)
        or pod.spec.host_network
        or pod.spec.dns_policy not in (None, "", "ClusterFirst")
    ):
        return
    # a cache on the node has such an address, and which one the pod asks is not known
    caches = any(address.startswith("169.254.") for address in allowed)
    sure = bool(service) and (not caches or _asks_the_service(cluster, service))
    names = " and ".join(item.name for item in found)
    where = f"is at {' and '.join(sorted(service))}" if service else "may be elsewhere"
    yield Finding(
        confidence="likely" if sure else "possible",
        summary=f"NetworkPolicy {names} lets {pod.name} ask for names at {', '.join(allowed)} only, and the cluster's DNS {where}: no name "
        "resolves.",
        evidence=(log_evidence(line), *(quote(item, "egress") for item in found)),
        explains=("hf-unreachable", "crash-loop", "not-ready", "engine-init-failed", "probe-too-short") if sure else (),
        fix=let_outside(found[0], dns=True),
        order=line.order,
    )


def _asks_the_service(cluster: Cluster, service: set[str]) -> bool:
    """Whether pods ask the DNS Service by its address though a policy speaks of a node's cache: there is none, or it listens at that, too.

    NodeLocal DNSCache takes over the Service's address on its node (`-localip 169.254.20.10,10.96.0.10`), and the policy still sees that
    one; only where kube-proxy works by IPVS is the kubelet told of the cache's own.
    """
    every = [
        (kind, item)
        for kind in ("DaemonSet", "Pod")
        for space in _DNS_SPACES
        for item in cluster.items(kind, space)
        if re.search(r"node-?local", item.name)
    ]
    if not every:
        return any(cluster.complete(kind, _DNS_SPACES[0]) for kind in ("DaemonSet", "Pod"))
    told = (
        str(word)
        for kind, item in every
        for row in rows(item.raw, "spec.template.spec.containers" if kind == "DaemonSet" else "spec.containers")
        for word in (dig(row, "args") or [])
    )
    return bool(service & {address for word in told for address in word.rpartition("=")[2].split(",")})


def _dns_addresses(cluster: Cluster) -> tuple[set[str], set[str]]:
    """The addresses of the cluster's DNS Service, and those of the pods behind it, as far as they are known."""
    return cluster.once("addresses of DNS", lambda: (set(_of_services(cluster)), set(_of_servers(cluster))))


def _of_services(cluster: Cluster) -> Iterator[str]:
    named = (item for space in _DNS_SPACES for item in cluster.items("Service", space) if "dns" in item.name)
    for item in named:
        address = dig(item.raw, "spec.clusterIP")
        if isinstance(address, str) and any(row.get("port") == 53 for row in rows(item.raw, "spec.ports")):
            yield address


def _of_servers(cluster: Cluster) -> Iterator[str]:
    for item in (item for space in _DNS_SPACES for item in cluster.items("Pod", space) if "dns" in item.name):
        yield str(dig(item.raw, "status.podIP") or "")
    for item in (x for space in _DNS_SPACES for x in cluster.items("EndpointSlice", space) if "dns" in x.name):
        for row in rows(item.raw, "endpoints"):
            listed = row.get("addresses")
            yield from (str(one) for one in listed) if isinstance(listed, list) else ()


def _unanswered(engine: Engine, logs: Logs | None) -> Line | None:
    """A line of a download from the Hub that got no answer."""
    for log in engine.container.own_logs(logs):
        for line in log.find(*_NO_ANSWER):
            if "huggingface" in line.text or "hf.co" in line.text or "name resolution" in line.text:
                return line
    return None


def _kept(container: Container) -> bool:
    """Whether the Hub's cache lies on a volume that outlives the pod."""
    homes = [v.value for n in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if (v := container.env.get(n))]
    mounts = [container.mount_over(home) for home in (*filter(None, homes), "/root/.cache/huggingface", "/data")]
    volumes = [container.pod.volume(mount.name) for mount in mounts if mount]
    return any(volume and not volume.empty_dir for volume in volumes)
