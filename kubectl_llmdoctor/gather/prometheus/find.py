"""Which Services of a cluster are a Prometheus, or answer like one: by labels, name, ports, and the operators' objects.

Sources: the charts and manifests of kube-prometheus, kube-prometheus-stack, prometheus-community, Thanos (kube-thanos,
Bitnami), OpenShift's monitoring, Mimir and VictoriaMetrics; the API of the Prometheus and VictoriaMetrics operators.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.kinds import Kind, core
from kubectl_llmdoctor.gather.related import key_of, name_of, namespace_of
from kubectl_llmdoctor.gather.transport import query
from kubectl_llmdoctor.platforms.labels import APP_NAME
from kubectl_llmdoctor.snapshot import Json

#: Services that are looked through; of more only those with the usual labels.
_SERVICES = 1000

#: Where one is looked for by a user who may not list the Services of all namespaces.
_USUAL_NAMESPACES = ("monitoring", "prometheus", "observability")


class Candidate(NamedTuple):
    """A Service that may answer queries; the lower the rank, the more it knows. `path` stands before `/api/v1`."""

    rank: int
    namespace: str
    name: str
    port: str
    scheme: str = "http"
    path: str = ""

    @property
    def ref(self) -> str:
        """`monitoring/prometheus-k8s:9090`."""
        return f"{self.namespace}/{self.name}:{self.port}"

    @property
    def proxy_path(self) -> str:
        """Where the API server passes requests on to it."""
        prefix = f"{self.scheme}:" if self.scheme == "https" else ""
        return f"/api/v1/namespaces/{self.namespace}/services/{prefix}{self.name}:{self.port}/proxy{self.path}"


class _Port(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    ports: tuple[_Port, ...] = ()
    selector: dict[str, str] | None = None
    type: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    labels: dict[str, str] | None = None


class _Service(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec = _Spec()


class _ListMeta(msgspec.Struct, frozen=True, rename={"continue_": "continue"}):
    continue_: str = ""


class _Services(msgspec.Struct, frozen=True):
    items: tuple[_Service, ...] = ()
    metadata: _ListMeta = _ListMeta()


class _Flavour(NamedTuple):
    """One program that answers PromQL. `ports` by name and number, the best first."""

    rank: int
    #: values of `app.kubernetes.io/name`, of the label for the component (any where there are none), and of `app`
    names: tuple[str, ...]
    components: tuple[str, ...]
    apps: tuple[str, ...]
    #: the Service's own name
    pattern: str
    ports: tuple[str | int, ...]
    path: str = ""


_FLAVOURS = (
    _Flavour(
        0,
        ("thanos-query", "thanos-querier", "thanos-query-frontend"),
        (),
        ("thanos-query", "thanos-querier", "thanos-query-frontend"),
        r"(?:.*-)?thanos-quer(?:y|ier)(?:-frontend)?",
        ("web", "http", "http-query", 10902, 9090, 9091, 9009),
    ),
    _Flavour(
        0, ("thanos",), ("query", "querier", "query-frontend", "query-layer"), (), r"", ("http", 10902, 9090, 9009)
    ),
    _Flavour(
        1,
        ("mimir", "cortex"),
        ("query-frontend", "gateway", "nginx"),
        (),
        r"(?:.*-)?(?:mimir|cortex)(?:-query-frontend|-gateway|-nginx)?",
        ("http-metrics", "http", 8080, 80, 9009),
        "/prometheus",
    ),
    _Flavour(1, ("vmselect",), (), ("vmselect",), r"(?:.*-)?vmselect(?:-.*)?", ("http", 8481), "/select/0/prometheus"),
    _Flavour(
        1,
        ("vmsingle", "victoria-metrics-single"),
        (),
        ("vmsingle", "victoria-metrics-single"),
        r"(?:.*-)?(?:vmsingle(?:-.*)?|victoria-metrics(?:-single)?(?:-server)?)",
        ("http", 8428, 8429),
    ),
    _Flavour(
        2,
        ("prometheus",),
        ("server", "prometheus", ""),
        ("prometheus", "kube-prometheus-stack-prometheus", "prometheus-operator-prometheus"),
        r"(?:.*-)?prometheus(?:-server|-k8s|-operated|-prometheus)?",
        ("web", "http-web", "http", "prometheus", 9090, 80),
    ),
)

#: The same as label selectors, for clusters with more Services than are looked through.
_SELECTORS = (
    f"app.kubernetes.io/name in ({','.join(sorted({name for flavour in _FLAVOURS for name in flavour.names}))})",
    f"app in ({','.join(sorted({app for flavour in _FLAVOURS for app in flavour.apps}))})",
    "operated-prometheus=true",
)


class Found(NamedTuple):
    """What was found, the best first, and, where Services could not be listed, why."""

    candidates: list[Candidate]
    unread: str = ""


def find(pot: Collector, namespaces: Iterable[str]) -> Found:
    """The Prometheus servers of the cluster; of `namespaces` and the usual ones where no more may be read."""
    unread = ""
    try:
        services = _everywhere(pot)
    except RequestError as error:
        if error.why != Why.FORBIDDEN:
            raise
        unread = error.reason
        services = []
        for namespace in dict.fromkeys((*namespaces, *_USUAL_NAMESPACES)):
            try:
                services += _list(pot, namespace).items
            except RequestError as refused:
                if refused.why not in (Why.FORBIDDEN, Why.NOT_FOUND):
                    raise
    found = {c.ref: c for c in filter(None, map(candidate, services))}
    return Found(sorted(_distinct(_with_operators(pot, found, services))), unread)


def _list(pot: Collector, namespace: str, selector: str = "") -> _Services:
    (path,) = core("Service").paths(namespace)
    answer: _Services = pot.client.get(
        path, query(labelSelector=selector, limit=_SERVICES), decode=msgspec.json.Decoder(_Services).decode
    )
    return answer


def _everywhere(pot: Collector) -> list[_Service]:
    page = _list(pot, "")
    services = list(page.items)
    if page.metadata.continue_:
        for selector in _SELECTORS:
            services += _list(pot, "", selector).items
    return services


def candidate(service: _Service) -> Candidate | None:
    """What a Service is by its labels, name and ports; None for everything else."""
    labels, name = service.metadata.labels or {}, service.metadata.name
    called = labels.get(APP_NAME, "")
    part = labels.get("app.kubernetes.io/component") or labels.get("component", "")
    if labels.get("operated-prometheus") == "true":
        called = "prometheus"
    for flavour in _FLAVOURS:
        # Exporters and stores of the same release have its name and another component.
        of_it = not flavour.components or part in flavour.components
        fits = of_it and (called in flavour.names or labels.get("app") in flavour.apps)
        # A name alone says little; the port must be one of those.
        by_name = bool(flavour.pattern and re.fullmatch(flavour.pattern, name))
        port = _port(service.spec.ports, flavour.ports, numbers_only=not fits)
        if (fits or by_name) and port is not None and service.spec.type != "ExternalName":
            secure = "https" in (port.name, port.app_protocol) or port.port == 443
            # OpenShift's own monitoring speaks TLS on every port
            secure |= service.metadata.namespace.startswith("openshift-")
            return Candidate(
                rank=flavour.rank,
                namespace=service.metadata.namespace,
                name=name,
                port=str(port.port),
                scheme="https" if secure else "http",
                path=flavour.path,
            )
    return None


def _port(ports: tuple[_Port, ...], wanted: tuple[str | int, ...], *, numbers_only: bool) -> _Port | None:
    usable = [port for port in ports if port.protocol == "TCP" and "grpc" not in port.name]
    for one in wanted:
        for port in usable:
            if one == port.port or (one == port.name and not numbers_only):
                return port
    return usable[0] if len(usable) == 1 and not numbers_only else None


def _with_operators(pot: Collector, found: dict[str, Candidate], services: list[_Service]) -> Iterator[Candidate]:
    """The Services, with what the operators' objects know better: path, TLS, and those that no list showed."""
    prefixes: dict[tuple[str, str], tuple[str, str]] = {}
    for obj in _objects(pot, core("Prometheus", "monitoring.coreos.com")):
        spec = obj.get("spec") or {}
        path = _path(spec.get("routePrefix"))
        scheme = "https" if (spec.get("web") or {}).get("tlsConfig") else "http"
        prefixes[key_of(obj)] = path, scheme
        if not any(c.namespace == namespace_of(obj) for c in found.values()):
            yield Candidate(2, namespace_of(obj), "prometheus-operated", "9090", scheme, path)
    selectors = {(s.metadata.namespace, s.metadata.name): s.spec.selector or {} for s in services}
    for one in found.values():
        selector = selectors[one.namespace, one.name]
        owner = selector.get("operator.prometheus.io/name") or selector.get("prometheus")
        mine = [
            row for (namespace, name), row in prefixes.items() if namespace == one.namespace and owner in (name, None)
        ]
        if one.rank == 2 and len(mine) == 1:
            yield one._replace(path=mine[0][0], scheme="https" if one.scheme == "https" else mine[0][1])
        else:
            yield one
    if found:
        return
    for obj in _objects(pot, core("ThanosRuler", "monitoring.coreos.com")):
        yield from _queried(obj)
    for kind, prefix, path in (("VMSingle", "vmsingle", ""), ("VMCluster", "vmselect", "/select/0/prometheus")):
        for obj in _objects(pot, core(kind, "operator.victoriametrics.com")):
            yield Candidate(1, namespace_of(obj), f"{prefix}-{name_of(obj)}", "http", "http", path)


def _queried(ruler: Json) -> Iterator[Candidate]:
    """The Thanos Query that a ThanosRuler asks: `http://thanos-query.monitoring.svc:9090`."""
    for endpoint in (ruler.get("spec") or {}).get("queryEndpoints") or ():
        parts = urlsplit(str(endpoint).removeprefix("dnssrv+").removeprefix("dns+"))
        name, _, rest = (parts.hostname or "").partition(".")
        namespace = rest.partition(".")[0] or namespace_of(ruler)
        if name and parts.scheme in ("http", "https") and parts.port:
            yield Candidate(0, namespace, name, str(parts.port), parts.scheme, _path(parts.path))


def _path(text: Any) -> str:
    """A path that an object names; empty for one that leads elsewhere."""
    path = str(text or "").rstrip("/")
    return path if re.fullmatch(r"(?:/[\w-][\w.-]*)+", path) else ""


def _objects(pot: Collector, kind: Kind) -> list[Json]:
    """The objects of an operator that need not be there, nor readable."""
    there = pot.installed(kind)
    if there is None:
        return []
    try:
        items, _ = pot.page(there, "")
    except RequestError:
        return []
    return items


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Without the operator's headless Service where another leads to the same servers, and without repetitions."""
    every = list(dict.fromkeys(candidates))
    others: set[Any] = {(c.namespace, c.rank) for c in every if not c.name.endswith("-operated")}
    return [c for c in every if not c.name.endswith("-operated") or (c.namespace, c.rank) not in others]
