"""Pods that ask a server: their environment, their arguments or a ConfigMap that they mount names one of its Services."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from kubectl_llmdoctor.api import Cluster, Container, Engine, Item, Line, Log, Logs, Pod, dig, k8s
from llmdoctor_checks._raw import rows

#: An address in a text; configurations of gateways and front ends are a few kilobytes.
_URL, _LONGEST = r"https?://[\w.-]{1,253}", 200_000
#: One of OpenAI's API, or of Ollama.
_OF_MODELS = r"https?://[\w.-]{1,253}(?=(?::\d{1,5})?(?:/[\w/-]{0,100})?/v\d\b|:11434\b)"

#: A request to generate in the access log of uvicorn, and its status.
_ASKED = r"\"POST /v1/(?:chat/completions|completions|responses|messages|embeddings)\S* HTTP/[\d.]+\" (\d{3})"
#: What controllers call the proxies of a gateway by: Gateway API's own label, and Envoy Gateway's.
_GATEWAY, _OWNING = "gateway.networking.k8s.io/gateway-name", "gateway.envoyproxy.io/owning-gateway-"

#: From so many answers for one refusal on these are some client's own affair.
_STRAY, _FEWEST = 10, 2


def askers(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[tuple[Container, str, str]]:
    """Containers of other pods, and by what (a variable, `args`, a ConfigMap) and which address each names a Service of this pod."""
    ways = _ways(pod, names, cluster)
    for item in cluster.items("Pod") if names else ():
        if item is pod.item:
            continue
        other = Pod(cast(k8s.Pod, item.typed()), cluster, item=item)
        if other.completed or other.leaving:
            continue
        here = other.namespace
        for container in other.containers:
            for name, variable in container.env.items():
                value = variable.value or ""
                urls = re.findall(_URL, value[:_LONGEST]) or [value]
                if value and all(_leads(url, names, ways, pod.namespace, here) for url in urls):
                    yield container, name, value
            for where, text in _written(container, cluster):
                urls = re.findall(_URL, text[:_LONGEST])
                # one that asks several servers does not say of which it speaks
                if urls and all(_leads(url, names, ways, pod.namespace, here) for url in urls):
                    yield container, where, urls[0]


def speaks_of_one(container: Container, pod: Pod, names: set[str]) -> bool:
    """Whether the environment of a container that asks this pod names no other server of models."""
    here, ways = container.pod.namespace, _ways(pod, names, pod.cluster)
    values = [variable.value[:_LONGEST] for variable in container.env.values() if variable.value]
    urls = (url for value in values for url in re.findall(_OF_MODELS, value))
    return all(_leads(url, names, ways, pod.namespace, here) for url in urls)


def told(
    pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None, words: tuple[tuple[str, str], ...]
) -> list[tuple[Line, re.Match[str]]]:
    """What a ready server answered to clients that ask nobody else, as they print it, where its own log has no word of it."""
    mine = logs.current(engine.container.name) if logs is not None else None
    if not pod.ready or (mine is not None and any(next(mine.find(literal), None) for literal, _ in words)):
        return []
    names = {item.name for item in pod.services}
    asking = (c for c, _, _ in askers(pod, names, cluster) if speaks_of_one(c, pod, names))
    clients = {(c.pod.namespace, c.pod.name, c.name) for c in asking}
    theirs = [Log(x) for x in cluster.snapshot.logs if (x.namespace, x.pod, x.container) in clients and not x.previous]
    return [
        (line, said)
        for log in theirs
        for literal, pattern in words
        for line in log.find(literal)
        if (said := re.search(pattern, line.text[:20_000])) is not None
    ]


def refused(log: Log | None, status: str) -> tuple[int, int]:
    """How many requests to generate uvicorn answered with a status, of how many."""
    asked = [m[1] for x in log.find('"POST /v1/') if (m := re.search(_ASKED, x.text[:2000]))] if log else []
    return sum(one == status for one in asked), len(asked)


def astray(times: int, count: int, all_of: int) -> bool:
    """Whether a client was refused so seldom, or only once by all that is known, that it got its own requests wrong."""
    return max(times, count) < _FEWEST or all_of - count >= _STRAY * max(count, 1)


def _written(container: Container, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Where else an address of a server stands: the arguments, and the ConfigMaps that are mounted (LiteLLM's `config.yaml`)."""
    yield "args", " ".join(map(str, (*container.spec.command, *container.spec.args)))
    mounted = {mount.name for mount in container.spec.volume_mounts}
    for volume in container.pod.spec.volumes:
        if volume.config_map is None or volume.name not in mounted:
            continue
        item = cluster.item("ConfigMap", container.pod.namespace, volume.config_map.name)
        data = dig(item.raw, "data") if item is not None else None
        for text in data.values() if isinstance(data, dict) else ():
            yield f"ConfigMap/{volume.config_map.name}", str(text)


def _leads(url: str, names: set[str], ways: Ways, namespace: str, here: str) -> bool:
    if addresses(url, names, namespace, here) or host_of(url) in ways.hosts:
        return True
    name, _, rest = host_of(url).partition(".")
    return (rest.split(".")[0] or here, name) in ways.gateways


def host_of(url: str) -> str:
    """The host of an address."""
    return re.split(r"[:/?#]", url.partition("://")[2] or url, maxsplit=1)[0]


def addresses(url: str, names: set[str], namespace: str, here: str) -> bool:
    """Whether an address, written in the namespace `here`, is that of a Service of these names."""
    name, _, rest = host_of(url).partition(".")
    return name in names and (rest.split(".")[0] or here) == namespace


class Ways(NamedTuple):
    """Names outside that lead to a server and to nothing else, and Services of gateways (namespace and name) that do."""

    hosts: set[str]
    gateways: set[tuple[str, str]]


def _ways(pod: Pod, names: set[str], cluster: Cluster) -> Ways:
    """By which other names than its Services' a server is asked: those of Ingresses and routes, and of gateways for it alone."""
    return cluster.once(f"ways to {pod.namespace} {' '.join(sorted(names))}", lambda: _find_ways(pod, names, cluster))


def _find_ways(pod: Pod, names: set[str], cluster: Cluster) -> Ways:
    hosts: set[str] = set()
    for kind in ("Ingress", "HTTPRoute", "Route"):
        for item in cluster.items(kind, pod.namespace):
            here, elsewhere = _led(item, names)
            hosts |= here - elsewhere
    ours: set[tuple[str, str]] = set()
    shared: set[tuple[str, str]] = set()
    for item in cluster.items("HTTPRoute"):
        refs = [ref for rule in rows(item.raw, "spec.rules") for ref in rows(rule, "backendRefs")]
        own = item.namespace == pod.namespace and {str(ref.get("name")) for ref in refs} <= names
        for ref in rows(item.raw, "spec.parentRefs"):
            (ours if own and refs else shared).add((str(ref.get("namespace") or item.namespace), str(ref.get("name"))))
    return Ways(hosts, {way for item in cluster.items("Service") for way in _fronts(item, ours - shared)})


def _fronts(service: Item, gateways: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """A Service that leads to the proxies of one of these gateways, by the labels that its controller gives them."""
    for labels in (dig(service.raw, "spec.selector"), dig(service.raw, "metadata.labels")):
        if not isinstance(labels, dict):
            continue
        of_envoy = (labels.get(f"{_OWNING}namespace"), labels.get(f"{_OWNING}name"))
        if {(service.namespace, labels.get(_GATEWAY)), of_envoy} & gateways:
            yield service.namespace, service.name


def _led(item: Item, names: set[str]) -> tuple[set[str], set[str]]:
    """The hosts of an Ingress or a route that lead to one of these Services, and those that lead to another."""
    pairs: list[tuple[str, str]] = []
    if item.kind.partition(".")[0] == "Route":  # OpenShift's
        pairs = [(str(dig(item.raw, "spec.host")), str(dig(item.raw, "spec.to.name")))]
        pairs += [(pairs[0][0], str(one.get("name"))) for one in rows(item.raw, "spec.alternateBackends")]
    listed = dig(item.raw, "spec.hostnames")
    hostnames = [str(one) for one in listed] if isinstance(listed, list) else []
    for rule in rows(item.raw, "spec.rules"):
        host = str(rule.get("host") or "")
        paths = (dig(path, "backend.service.name") for path in rows(dig(rule, "http"), "paths"))
        pairs += [(host, str(name)) for name in paths if host]
        pairs += [(one, str(ref.get("name"))) for one in hostnames for ref in rows(rule, "backendRefs")]
    return {host for host, name in pairs if name in names}, {host for host, name in pairs if name not in names}
