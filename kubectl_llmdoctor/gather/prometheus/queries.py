"""What Prometheus is asked about some pods: one question that finds out what it has, then one for each kind of metric.

The names come from the catalogue, the labels from the first answer: who scrapes decides whether a pod's name stands under
`pod`, `exported_pod` or `kubernetes_pod_name`. Counters and buckets are asked for as they are, without `rate` or
`increase`, so that resets and quantiles are computed in one place, whatever the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kubectl_llmdoctor.catalog import metrics
from kubectl_llmdoctor.snapshot import Json

#: Seconds that are looked back, between the points of a series, of a replica count, and of the buckets of a histogram.
WINDOW, STEP, SLOW_STEP, BUCKET_STEP = 3600, 30, 60, 600

#: Pods in one question, and questions of one kind: 1 + 4 × 6 queries are the most that are asked.
PODS, PARTS = 16, 4

#: Series that one answer may have.
LIMIT = 5000


class PodRef(NamedTuple):
    """A pod that is asked about; `address` is empty where it is the node's, too. `engines` are names and versions.

    `hosts` are the name and the address of its node.
    """

    namespace: str
    name: str
    address: str
    engines: tuple[tuple[str, str | None], ...]
    #: what owns it: `Deployment` and `StatefulSet`, and the names
    workloads: tuple[tuple[str, str], ...]
    hosts: tuple[str, ...] = ()


class Question(NamedTuple):
    """One range query. `about` is said when it fails, `step` is in seconds."""

    about: str
    promql: str
    step: int


class _Style(NamedTuple):
    """How the series of a pod are labelled: the labels of its namespace and its name."""

    namespace: str
    pod: str


_STYLES = {
    "pod": _Style("namespace", "pod"),
    "exported_pod": _Style("exported_namespace", "exported_pod"),
    "kubernetes_pod_name": _Style("kubernetes_namespace", "kubernetes_pod_name"),
    # Targets that somebody lists by hand have no other label.
    "instance": _Style("", "instance"),
}
_EXPORTERS = ("pod", "exported_pod")

_REPLICAS = tuple(m.name for m in metrics.metrics_of("kube-state-metrics") if m.role in ("replicas", "replicas_ready"))
_HPA = tuple(m.name for m in metrics.metrics_of("kube-state-metrics") if m.role.startswith("hpa_"))
_CADVISOR = tuple(m.name for m in metrics.metrics_of("cadvisor"))
_NODE_EXPORTER = tuple(m.name for m in metrics.metrics_of("node-exporter"))
_DCGM = tuple(m.name for m in metrics.metrics_of("dcgm"))


def probe(pods: list[PodRef]) -> str:
    """One instant query: how many series of the last hour there are of each family under which labels, of the first pods.

    The answer is a vector with `family` and `labels` as labels, for an engine also with those of the pod. The element
    without labels is always there; its time is the server's own clock.
    """
    terms = []
    part = pods[:PODS]
    engine = (*_engine_names(part, ("gauge", "counter")), *_engine_names(part, ("histogram",), ("_count",)))
    for family, names, styles in (
        ("engine", engine, tuple(_STYLES)),
        ("cadvisor", _CADVISOR, ("pod",)),
        ("dcgm", _DCGM, _EXPORTERS),
        ("hpa", _HPA, _EXPORTERS),
        ("replicas", _REPLICAS, _EXPORTERS),
    ):
        for style in styles:
            selected = [f"last_over_time({one}[{WINDOW}s])" for one in _select(family, names, style, part)]
            if selected:
                by = f" by ({','.join(filter(None, _STYLES[style]))})" if family == "engine" else ""
                counted = f'label_replace(count{by}({" or ".join(selected)}),"family","{family}","","")'
                terms.append(f'label_replace({counted},"labels","{style}","","")')
    return " or ".join([*terms, "vector(0)"])


class Found(NamedTuple):
    """What a server has: the label styles of each family, and the pods whose engines it knows."""

    styles: dict[str, tuple[str, ...]]
    pods: frozenset[tuple[str, str]]


def found(series: list[Json], pods: list[PodRef]) -> Found:
    """What an answer to `probe` says."""
    styles: dict[str, tuple[str, ...]] = {}
    known = set[tuple[str, str]]()
    for row in series:
        labels = {str(key): str(value) for key, value in row["labels"].items()}
        family, style = labels.get("family", ""), labels.get("labels", "")
        if style not in _STYLES or not any(value for _, value in row["values"]):
            continue
        if style not in styles.get(family, ()):
            styles[family] = (*styles.get(family, ()), style)
        if family == "engine":
            known |= {(pod.namespace, pod.name) for pod in pods[:PODS] if _is_of(labels, style, pod)}
    if known:  # of the others nobody has asked; who scrapes some scrapes them, too
        known |= {(pod.namespace, pod.name) for pod in pods[PODS:]}
    return Found(styles, frozenset(known))


def _is_of(labels: dict[str, str], style: str, pod: PodRef) -> bool:
    if style == "instance":
        return bool(pod.address) and labels.get("instance", "").startswith(f"{pod.address}:")
    at = _STYLES[style]
    return labels.get(at.pod) == pod.name and labels.get(at.namespace, "") in ("", pod.namespace)


def questions(pods: list[PodRef], styles: dict[str, tuple[str, ...]]) -> Iterator[Question]:
    """The range queries for what there is; of more than PODS × PARTS pods only the first are asked about."""
    for at in range(0, min(len(pods), PODS * PARTS), PODS):
        part = pods[at : at + PODS]
        engine = styles.get("engine", ())
        for about, kind, suffixes, step in (
            ("gauges of the engine", ("gauge",), ("",), STEP),
            ("counters of the engine", ("counter",), ("",), STEP),
            ("histograms of the engine", ("histogram",), ("_bucket",), BUCKET_STEP),
        ):
            names = _engine_names(part, kind, suffixes)
            if kind == ("counter",):
                names += _engine_names(part, ("histogram",), ("_sum", "_count"))
            yield from _question(about, "engine", names, engine, part, step)
        yield from _question("cAdvisor", "cadvisor", _CADVISOR, styles.get("cadvisor", ()), part, STEP)
        yield from _question("DCGM exporter", "dcgm", _DCGM, styles.get("dcgm", ()), part, STEP)
        objects = [
            one
            for family, names in (("hpa", _HPA), ("replicas", _REPLICAS))
            for style in styles.get(family, ())
            for one in _select(family, names, style, part)
        ]
        if objects:
            yield Question("kube-state-metrics", " or ".join(objects), SLOW_STEP)


def _question(
    about: str, family: str, names: tuple[str, ...], styles: tuple[str, ...], pods: list[PodRef], step: int
) -> Iterator[Question]:
    selected = [one for style in styles for one in _select(family, names, style, pods)]
    if selected and family == "cadvisor":
        selected += _nodes(pods)
    if selected:
        yield Question(about, " or ".join(selected), step)


def _nodes(pods: list[PodRef]) -> list[str]:
    """Selectors of what is known of these pods' nodes, by a label that names the node or by the target's address."""
    hosts = sorted({host for pod in pods for host in pod.hosts})
    ways = (("node", ""), ("instance", "(:.*)?"))
    return [_selector(_NODE_EXPORTER, [f"{label}=~{_any_of(hosts, then)}"]) for label, then in ways if hosts]


def _engine_names(pods: list[PodRef], kinds: tuple[str, ...], suffixes: tuple[str, ...] = ("",)) -> tuple[str, ...]:
    """The names that the engines of these pods may export, each with the suffixes."""
    every = {metric for pod in pods for engine in pod.engines for metric in metrics.names(*engine)}
    return tuple(sorted({metric.name + suffix for metric in every if metric.kind in kinds for suffix in suffixes}))


def _select(family: str, names: tuple[str, ...], style: str, pods: list[PodRef]) -> list[str]:
    """Selectors of these metrics of these pods under one style of labels; none where there is nothing to ask for."""
    labels = _STYLES[style]
    namespaces = sorted({pod.namespace for pod in pods})
    if family == "engine":
        pods = [pod for pod in pods if pod.engines]
    if not names or not pods:
        return []
    if style == "instance":
        addresses = sorted({pod.address for pod in pods if pod.address})
        matchers = [f"instance=~{_any_of(addresses, ':.*')}", 'pod=""', 'exported_pod=""', 'kubernetes_pod_name=""']
        return [_selector(names, matchers)] if addresses else []
    # Not every Prometheus adds the namespace.
    matchers = [f"{labels.namespace}=~{_any_of([*namespaces, ''])}"]
    if family == "replicas":  # by their owners, whose label is called like the kind
        owned = [
            (kind.lower(), sorted({name for pod in pods for owner, name in pod.workloads if owner == kind}))
            for kind in ("Deployment", "StatefulSet")
        ]
        return [
            _selector([name for name in names if f"_{kind}_" in name], [*matchers, f"{kind}=~{_any_of(owners)}"])
            for kind, owners in owned
            if owners
        ]
    if family != "hpa":
        matchers.append(f"{labels.pod}=~{_any_of(sorted({pod.name for pod in pods}))}")
    if family == "cadvisor":
        matchers.append('container!=""')  # without a container it is the sum over the pod
    return [_selector(names, matchers)]


def _selector(names: Iterable[str], matchers: list[str]) -> str:
    return f"{{{','.join([f'__name__=~{_any_of(names)}', *matchers])}}}"


def _any_of(texts: Iterable[str], then: str = "") -> str:
    """A regular expression in PromQL's quotation marks: one of the texts, word for word, and `then`."""
    return '"' + "|".join(re.sub(r"[.\[\]]", r"\\\\\g<0>", text) + then for text in texts) + '"'
