"""Who asks a server: pods whose environment, arguments or mounted ConfigMap name one of its Services, or what leads to it alone."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from typing import Any

import msgspec

from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.routes import backends_of, parents_of
from kubectl_llmdoctor.facts.workload import top_of
from kubectl_llmdoctor.platforms.labels import INFERENCE_SERVICE, KNATIVE_SERVICE
from kubectl_llmdoctor.tree import dig, rows, table, words

#: Names hosts that are kept from a proxy, and says of none that it is asked.
_EXEMPT = "NO_PROXY"
#: An address in a text; configurations of gateways and front ends are a few kilobytes.
_URL, _LONGEST = r"https?://[\w.-]{1,253}(?::\d{1,5})?", 200_000
#: One of OpenAI's API, or of Ollama.
_OF_MODELS = r"https?://[\w.-]{1,253}(?=(?::\d{1,5})?(?:/[\w/-]{0,100})?/v\d\b|:11434\b)"
#: By which labels a router is told to find its servers.
_BY_LABELS = r"--k8s-label-selector[= ]([\w./=,-]{1,500})"
#: The options for each sort of servers, of SGLang's and vLLM's routers too, and those that say where these are.
_SELECTOR = r"--(?:(?:prefill|decode|k8s-label)-)?selector"
_IN_NAMESPACE = ("--service-discovery-namespace", "--k8s-namespace")
#: One of them with its value.
_WANTED = r"([\w./-]{1,317})==?([\w.-]{0,63})"
#: Labels in which the replicas of one server differ.
_OF_A_REPLICA = r"hash$|/(?:pod-name|pod-index|worker-index|group-index|group-key)$|^pod-template"
#: What controllers call the proxies of a gateway by: Gateway API's own label, and Envoy Gateway's.
_GATEWAY, _OWNING = "gateway.networking.k8s.io/gateway-name", "gateway.envoyproxy.io/owning-gateway-"


#: By which labels Knative and KServe name the object of a pod.
_OF_SERVERLESS = (KNATIVE_SERVICE, INFERENCE_SERVICE)

#: What an address has, and the name of a model has not.
_AN_ADDRESS = r"://|:\d|\.svc\b"


class _Asker(msgspec.Struct, frozen=True):
    """A container, and a variable, its `args` or a ConfigMap that names servers, each by its address."""

    container: Container
    where: str
    value: str
    urls: list[str]


def askers(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[tuple[Container, str, str]]:
    """Containers of other pods, and by what (a variable, `args`, a ConfigMap) and which address each names a Service of this pod."""
    names = names | _led_by(pod)
    if not names:
        return
    guessed = _guessed(pod)
    ways = _ways(pod, names, cluster)
    all_of = cluster.once("askers", lambda: _askers(cluster))
    first = {*names, *(host.partition(".")[0] for host in ways.hosts), *(name for _, name in ways.gateways)}
    for _, one in sorted((pair for name in first for pair in all_of.get(name, ())), key=itemgetter(0)):
        other = one.container.pod
        if host_of(one.urls[0]) in guessed and not re.search(_AN_ADDRESS, one.value[:_LONGEST]):
            continue  # a workload is often called as its model is
        # one that asks several servers does not say of which it speaks
        if other.item is not pod.item and all(_leads(x, names, ways, pod.namespace, other.namespace) for x in one.urls):
            yield one.container, one.where, one.value
    yield from _choosing(pod, cluster)


def _choosing(pod: Pod, cluster: Cluster) -> Iterator[tuple[Container, str, str]]:
    """Routers that find their servers by a label selector (vLLM's production-stack), and find no other server than the pod's replicas."""
    for container, selector in cluster.once("choosing", lambda: list(_selectors(cluster))):
        wanted = dict(one.split("=", 1) for one in selector.replace("==", "=").split(",") if "=" in one)
        if not wanted or container.pod.namespace != pod.namespace or container.pod.item is pod.item:
            continue
        if pod.item is None or not wanted.items() <= pod.item.labels.items():
            continue
        key = f"chosen {pod.namespace} {selector}"
        if cluster.once(key, partial(_chosen, cluster, pod.namespace, wanted)) == 1:
            yield container, "args", selector


def _chosen(cluster: Cluster, namespace: str, wanted: dict[str, str]) -> int:
    """How many different servers have these labels: one Service may lead to several, and replicas differ in what controllers add."""
    fits = (one.labels for one in cluster.items("Pod", namespace) if wanted.items() <= one.labels.items())
    return len({tuple(sorted(pair for pair in one.items() if not re.search(_OF_A_REPLICA, pair[0]))) for one in fits})


def _selectors(cluster: Cluster) -> Iterator[tuple[Container, str]]:
    for item in cluster.items("Pod"):
        pod = Pod.of(item, cluster)
        for container in () if pod.completed or pod.leaving else pod.containers:
            words = " ".join(container.spec.argv)[:_LONGEST]
            if (said := re.search(_BY_LABELS, words)) is not None:
                yield container, said[1]


def _askers(cluster: Cluster) -> dict[str, list[tuple[int, _Asker]]]:
    """Whatever names servers, with a number for its place, by the first part of the host of the first one."""
    found: dict[str, list[tuple[int, _Asker]]] = {}
    for number, one in enumerate(_asking(cluster)):
        found.setdefault(host_of(one.urls[0]).partition(".")[0], []).append((number, one))
    return found


def _asking(cluster: Cluster) -> Iterator[_Asker]:
    for item in cluster.items("Pod"):
        other = Pod.of(item, cluster)
        if other.completed or other.leaving:
            continue
        for container in other.containers:
            for name, variable in container.env.items():
                if (value := variable.value) and name.upper() != _EXEMPT:
                    yield _Asker(container, name, value, re.findall(_URL, value[:_LONGEST]) or [value])
            for where, text in _written(container):
                if urls := re.findall(_URL, text[:_LONGEST]):
                    yield _Asker(container, where, urls[0], urls)


def speaks_of_one(container: Container, pod: Pod, names: set[str]) -> bool:
    """Whether what a container is told that asks this pod names no other server of models."""
    names = names | _led_by(pod)
    here, ways = container.pod.namespace, _ways(pod, names, pod.cluster)
    urls = (url for _, value in told_by(container) for url in re.findall(_OF_MODELS, value))
    return all(_leads(url, names, ways, pod.namespace, here) for url in urls)


def told_by(container: Container) -> Iterator[tuple[str, str]]:
    """All in which a container is told whom to ask: its variables by their names, `args`, and the ConfigMaps that are mounted."""
    for name, variable in container.env.items():
        if variable.value and name.upper() != _EXEMPT:
            yield name, variable.value[:_LONGEST]
    for where, text in _written(container):
        yield where, text[:_LONGEST]


def sought(container: Container) -> Iterator[tuple[str, str, dict[str, str]]]:
    """By which labels a router is told to find its servers: as it is written, the namespace, and the labels."""
    words = container.spec.argv
    told = [word.partition("=")[2] or after for word, after in zip(words, (*words[1:], ""), strict=False)]
    spaces = [value for word, value in zip(words, told, strict=True) if word.partition("=")[0] in _IN_NAMESPACE]
    for n, word in enumerate(words):
        option, _, value = word.partition("=")
        if re.fullmatch(_SELECTOR, option) is None:
            continue
        after = itertools.takewhile(lambda one: not one.startswith("-"), words[n + 1 :])
        text = ",".join((value, *after)).strip(",")
        wanted = {found[1]: found[2] for one in text.split(",") if (found := re.fullmatch(_WANTED, one))}
        if wanted:
            yield text, spaces[0] if spaces else container.pod.namespace, wanted


def proxies(pod: Pod, cluster: Cluster) -> list[Pod]:
    """The proxies of the gateways whose routes lead to a pod's Services or InferencePools."""
    routes = cluster.once("routes", lambda: _routes(cluster))
    near = {g for item in (*pod.services, *pod.pools) for g in routes.gateways.get((item.namespace, item.name), ())}
    pods = (Pod.of(item, cluster) for item in cluster.items("Pod")) if near else ()
    return [one for one in pods if near & _gateways_of(one.labels, one.namespace)]


def clients(pod: Pod, names: set[str], cluster: Cluster) -> set[tuple[str, str, str]]:
    """Containers of other pods (namespace, pod and name) that ask this one, and no other server of models."""
    asking = (container for container, _, _ in askers(pod, names, cluster) if speaks_of_one(container, pod, names))
    return {one.whose for one in asking}


def leads_here(pod: Pod, names: set[str], url: str, here: str) -> bool:
    """Whether an address, written in the namespace `here`, leads to this server alone."""
    return _leads(url, names, _ways(pod, names, pod.cluster), pod.namespace, here)


def _led_by(pod: Pod) -> set[str]:
    """Other Services that lead to a pod.

    Those of Knative and KServe select no pods: they lead to its gateway, and from there to the pods of these labels. Where no Service
    is known that selects it, one that nobody has read may be called as the workload is.
    """
    labels = pod.labels
    service, named = (labels.get(label) for label in _OF_SERVERLESS)
    part = labels.get("component") or "predictor"  # a transformer asks the predictor
    found = {str(one) for one in (service, named, named and f"{named}-{part}") if one}
    return found | _guessed(pod)


def _guessed(pod: Pod) -> set[str]:
    """How the Service of a pod may be called of which none is known: as its workload is."""
    known = pod.services or any(pod.labels.get(label) for label in _OF_SERVERLESS)
    maker = top_of(pod.item, pod.cluster) if not known else None
    unread = maker is not None and pod.cluster.exists("Service", pod.namespace, maker.name) is None
    return {maker.name} if maker is not None and unread else set()


def _written(container: Container) -> Iterator[tuple[str, str]]:
    """Where else an address of a server stands: the arguments, and the ConfigMaps that are mounted (LiteLLM's `config.yaml`)."""
    yield "args", " ".join(container.spec.argv)
    for name, texts in container.config_maps:
        yield from ((f"ConfigMap/{name}", text) for text in texts.values())


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


class Ways(msgspec.Struct, frozen=True):
    """Names outside that lead to a server and to nothing else, and Services of gateways (namespace and name) that do."""

    hosts: set[str]
    gateways: set[tuple[str, str]]


class _Routes(msgspec.Struct, frozen=True):
    """What leads to which Services of a cluster."""

    #: hosts of Ingresses and routes by a Service (namespace and name) to which they lead
    hosts: dict[tuple[str, str], set[str]]
    #: all Services to which a host leads, by whatever number of objects
    behind: dict[str, set[tuple[str, str]]]
    #: gateways by such a Service
    gateways: dict[tuple[str, str], set[tuple[str, str]]]
    #: Services of each route of a gateway; of a route to nothing none
    led: dict[tuple[str, str], list[set[tuple[str, str]]]]
    #: Services of the proxies of a gateway
    fronts: dict[tuple[str, str], list[tuple[str, str]]]


def _ways(pod: Pod, names: set[str], cluster: Cluster) -> Ways:
    """By which other names than its Services' a server is asked: those of Ingresses and routes, and of gateways for it alone."""
    routes = cluster.once("routes", lambda: _routes(cluster))
    here = [(pod.namespace, name) for name in names]
    hosts = {host for one in here for host in routes.hosts.get(one, ()) if routes.behind[host] <= set(here)}
    near = {gateway for one in here for gateway in routes.gateways.get(one, ())}
    ours = [gateway for gateway in near if all(led and led <= set(here) for led in routes.led[gateway])]
    fronts = {
        front
        for gateway in ours
        for front in routes.fronts.get(gateway, ()) or _fronts(gateway, pod.namespace, cluster)
    }
    items = {*(cluster.item("Gateway", *one) for one in ours), *(cluster.item("Service", *one) for one in fronts)}
    behind = cluster.once("addresses", lambda: _addresses_of(cluster)) if ours else {}
    return Ways(
        hosts | {address for item in items if item for address in _addresses(item) if behind[address] <= items}, fronts
    )


def _fronts(gateway: tuple[str, str], here: str, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """What controllers call the Service before a gateway's proxies, where that was not read: kgateway by its name, Istio and NGINX by that
    and the class, Cilium with a prefix. Of a gateway of another namespace that was not read, nobody knows what else it leads to."""
    namespace, name = gateway
    item = cluster.item("Gateway", namespace, name)
    if item is None and namespace != here:
        return
    classes = {str(dig(item.raw, "spec.gatewayClassName"))} if item is not None else {"istio", "nginx"}
    for one in (name, f"cilium-gateway-{name}", *(f"{name}-{class_}" for class_ in sorted(classes))):
        if cluster.item("Service", namespace, one) is None:
            yield namespace, one


def _addresses_of(cluster: Cluster) -> dict[str, set[Item]]:
    """All that is asked by an address: Services may share one, and some load balancers give them those of the nodes."""
    found = defaultdict[str, set[Item]](set)
    for item in (one for kind in ("Gateway", "Service", "Node") for one in cluster.items(kind)):
        for address in _addresses(item):
            found[address].add(item)
    return found


def _addresses(item: Item) -> set[str]:
    """By which addresses a gateway, the Service before its proxies, or a node is asked."""
    given = [str(one.get(key)) for one in rows(item.raw, "status.addresses") for key in ("value", "address")]
    given += [str(one.get(key)) for one in rows(item.raw, "status.loadBalancer.ingress") for key in ("ip", "hostname")]
    return {*given, str(dig(item.raw, "spec.clusterIP"))} - {"None", ""}


def _routes(cluster: Cluster) -> _Routes:
    routes = _Routes({}, {}, {}, {}, {})
    for kind in ("Ingress", "HTTPRoute", "Route"):
        for item in cluster.items(kind):
            for host, service in _led(item):
                routes.behind.setdefault(host, set()).add(service)
                routes.hosts.setdefault(service, set()).add(host)
    for item in cluster.items("HTTPRoute"):
        led = {backend.place for backend in backends_of(item)}
        for gateway in parents_of(item):
            routes.led.setdefault(gateway, []).append(led)
            for service in led:
                routes.gateways.setdefault(service, set()).add(gateway)
    for item in cluster.items("Service") if routes.led else ():
        for gateway in _before(item):
            routes.fronts.setdefault(gateway, []).append((item.namespace, item.name))
    return routes


def _before(service: Item) -> set[tuple[str, str]]:
    """The gateways to whose proxies a Service leads."""
    return _gateways_of(table(dig(service.raw, "spec.selector")), service.namespace) | _gateways_of(
        service.labels, service.namespace
    )


def _gateways_of(labels: dict[str, Any], namespace: str) -> set[tuple[str, str]]:
    """Whose proxies have these labels, which their controllers give them, or a Service that selects or has them."""
    own = (str(labels.get(f"{_OWNING}namespace")), str(labels.get(f"{_OWNING}name")))
    return {(namespace, str(labels.get(_GATEWAY))), own}


def _led(item: Item) -> Iterator[tuple[str, tuple[str, str]]]:
    """The hosts of an Ingress or a route, each with a Service (namespace and name) to which it leads."""
    if item.plain_kind == "Route":  # OpenShift's
        for one in (dig(item.raw, "spec.to"), *rows(item.raw, "spec.alternateBackends")):
            yield str(dig(item.raw, "spec.host")), (item.namespace, str(dig(one, "name")))
    hostnames = words(item.raw, "spec.hostnames")
    for rule in rows(item.raw, "spec.rules"):
        host = str(rule.get("host") or "")
        for path in rows(dig(rule, "http"), "paths") if host else ():
            yield host, (item.namespace, str(dig(path, "backend.service.name")))
    yield from ((one, backend.place) for backend in backends_of(item) for one in hostnames)
