"""What a pod's metrics say: the answers of a Prometheus and the text of its metrics port, as one fact.

Both come from elsewhere and may hold anything: what has not the expected form counts as not exported. What is not
exported is None and never zero. A time is in seconds since 1970.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog.metrics import ENGINES, PLATFORM, Metric, Role, metrics_of
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.exposition import samples
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.series import Histogram, Increase, Point, Series, Span, points_of
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import rows, table

#: Labels that name the pod (and its namespace) that a sample is about, the surest first: `exported_…` is what a target
#: said itself where Prometheus puts its own label in that place.
_POD = ("exported_pod", "pod", "kubernetes_pod_name", "pod_name")
_NAMESPACE = ("exported_namespace", "namespace", "kubernetes_namespace", "pod_namespace")
_CONTAINER = ("exported_container", "container", "container_name")

#: Labels of how a sample was scraped: series that differ in nothing else are one series, scraped twice.
_SCRAPE = frozenset(
    {"job", "instance", "endpoint", "service", "node", "prometheus", "prometheus_replica", "replica", "__name__"}
    | {"hostname", "Hostname", "metrics_path", "cluster", "id", "image", "name", *_POD, *_NAMESPACE}
)
#: Ranks that say the same of one model: the least of each counts.
_RANKS = ("tp_rank", "pp_rank", "moe_ep_rank", "attn_tp_rank")

#: What outlives a container.
_OF_NO_PROCESS = ("kube-state-metrics", "dcgm")

#: A last value older than this says nothing of now.
_STALE_SECONDS = 300

#: A GPU's id is no longer than this.
_LONGEST_ID = 64

#: So many points of all series are kept.
_POINTS = 2_000_000


class Gpu(msgspec.Struct, frozen=True):
    """A GPU of the pod as an exporter sees it; a span is None where it is not exported."""

    id: str
    utilization: Span | None
    memory_used: Span | None


class Readings:
    """All series of a snapshot whose names are known, by name."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.by_name: dict[str, list[Series]] = defaultdict(list)
        #: the same by what its labels say of whom it is about: a pod, or an address
        self._about: dict[tuple[str, ...], list[Series]] = defaultdict(list)
        self._made: dict[tuple[str, str, str], Metrics | None] = {}
        self._beside: dict[int, Metrics | None] = {}
        self._left = _POINTS
        for answer in cluster.snapshot.prometheus:
            self._answer(answer)
        self._scrapes()

    def _answer(self, answer: Json) -> None:
        source = str(answer.get("source") or "Prometheus")
        start, end = (parse_time(answer.get(key)) for key in ("start", "end"))
        base = (start or end or self._cluster.now or datetime.fromtimestamp(0, UTC)).timestamp()
        asked = (end or self._cluster.now or start or datetime.fromtimestamp(0, UTC)).timestamp()
        for row in rows(answer, "series"):
            labels = table(row.get("labels"))
            name = str(labels.get("__name__"))
            if name not in _wanted():
                continue
            points = tuple(points_of(row.get("values"), base))[: self._left]
            self._left -= len(points)
            if points:
                known = {k: v for k, v in labels.items() if isinstance(v, str)}
                self._keep(name, Series(known, points, source, True, asked))

    def _scrapes(self) -> None:
        """The texts of metrics ports: the samples of one series, one per scrape, put together."""
        found: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
        for text in self._cluster.snapshot.metrics:
            taken = parse_time(text.taken_at) or self._cluster.now
            at = taken.timestamp() if taken else 0.0
            own = {"namespace": text.namespace, "pod": text.pod, "container": text.container}
            for sample in samples(text.text, _wanted()):
                if not math.isfinite(sample.value) or not self._left:
                    continue
                named = any(sample.labels.get(label) for label in _POD)
                labels = sample.labels if named else sample.labels | {k: v for k, v in own.items() if v}
                found[sample.name, f"metrics port of {text.pod or text.node}", tuple(sorted(labels.items()))].append(
                    (at, sample.value)
                )
                self._left -= 1
        for (name, source, labels), points in found.items():
            at = max(t for t, _ in points)
            self._keep(name, Series(dict(labels), tuple(sorted(points)), source, False, at))

    def _keep(self, name: str, series: Series) -> None:
        self.by_name[name].append(series)
        labels = series.labels
        pod = next((labels[label] for label in _POD if labels.get(label)), None)
        if pod is None:
            self._about[name, _host(labels)].append(series)
            return
        spaces = _NAMESPACE if labels.get(_POD[0]) else _NAMESPACE[1:]
        self._about[name, next((labels[label] for label in spaces if labels.get(label)), ""), pod].append(series)

    def of(self, pod: Pod, name: str) -> Iterator[Series]:
        """The series of a metric that are about a pod: by its name, with or without a namespace, or by its address."""
        yield from self._about.get((name, pod.namespace, pod.name), ())
        yield from self._about.get((name, "", pod.name), ())
        if pod.status.pod_ip and not pod.spec.host_network:
            yield from self._about.get((name, pod.status.pod_ip), ())

    def span(self, name: str, namespace: str, **labels: str) -> Span | None:
        """A gauge that is about another object, such as an autoscaler, found by its labels; None when not exported."""
        found = [
            series
            for series in self.by_name.get(name, ())
            if all(series.labels.get(key) == value for key, value in labels.items())
            and next((series.labels[key] for key in _NAMESPACE if series.labels.get(key)), namespace) == namespace
        ]
        return _joined(name, [max(found, key=_reach)], sum) if found else None

    def of_node(self, name: str, pod: Pod) -> list[Series]:
        """The series of a metric that are about a pod's node: a label names it, or the target has its name or address."""
        hosts = {pod.spec.node_name, pod.status.host_ip} - {""}
        return [
            series
            for series in self.by_name.get(name, ())
            if series.labels.get("node") in hosts or _host(series.labels) in hosts
        ]

    def metrics(self, pod: Pod, engine: Engine | None) -> Metrics | None:
        """What is known of a pod and its engine, made once; None when that is nothing."""
        key = pod.namespace, pod.name, engine.container.name if engine else ""
        if key not in self._made:
            self._made[key] = Metrics(pod, engine, self) or None
        return self._made[key]

    @cached_property
    def _replicas(self) -> dict[str, list[Item]]:
        """The pods of each controller: what owns that may have others for another part, such as prefill, or for a canary."""
        found: dict[str, list[Item]] = defaultdict(list)
        for item in self._cluster.items("Pod"):
            if owner := next(iter(self._cluster.chain(item)), None):
                found[owner.ref].append(item)
        return found

    def beside(self, pod: Pod, engine: Engine | None) -> Iterator[Metrics]:
        """The metrics of the other ready pods of the controller that owns a pod, which run the same engine."""
        owner = next(iter(self._cluster.chain(pod.item)), None) if pod.item else None
        for item in self._replicas.get(owner.ref, ()) if owner and owner.kind != "Node" else ():
            if item is pod.item:
                continue
            if id(item) not in self._beside:
                other = Pod.of(item, self._cluster)
                container = other.container(engine.container.name) if engine else None
                same = Engine(container, engine.found) if container and engine else None
                self._beside[id(item)] = self.metrics(other, same) if other.ready else None
            if (metrics := self._beside[id(item)]) is not None:
                yield metrics


def readings_of(cluster: Cluster) -> Readings:
    """The series of a snapshot, read once."""
    return cluster.once("readings", lambda: Readings(cluster))


@cache
def _wanted() -> frozenset[str]:
    """The names that are known, as they stand in texts and answers."""
    found = set()
    for engine in (*ENGINES, *PLATFORM):
        for metric in metrics_of(engine):
            found |= set(_written(metric))
    return frozenset(found)


def _written(metric: Metric) -> tuple[str, ...]:
    if metric.kind != "histogram":
        return (metric.name,)
    return tuple(metric.name + suffix for suffix in ("_bucket", "_sum", "_count"))


class Metrics:
    """The metrics of one pod: of its engine, of its container, of its GPUs.

    What belongs to the instance of the container that ran before is left out. Where an engine exports a metric under two
    names, the newer one counts.
    """

    def __init__(self, pod: Pod, engine: Engine | None, readings: Readings) -> None:
        self.pod = pod
        self.engine = engine
        self._readings = readings
        self._spans: dict[tuple[Role, bool], Span | None] = {}

    @property
    def container(self) -> Container | None:
        """The engine's container."""
        return self.engine.container if self.engine else None

    @cached_property
    def started(self) -> float | None:
        """When the engine's container started, in seconds since 1970, as the points of a series have their times."""
        at = self.container.started if self.container else None
        return at.timestamp() if at else None

    def __bool__(self) -> bool:
        """Whether anything is known of the pod."""
        names = [name for metric in self._known() for name in _written(metric)]
        return any(True for name in names for _ in self._readings.of(self.pod, name))

    def _known(self) -> Iterator[Metric]:
        yield from metrics_of(self.engine.name) if self.engine else ()
        for source in PLATFORM:
            yield from metrics_of(source)

    def _series(self, metric: Metric, suffix: str = "") -> list[Series]:
        """The series of one metric: each once, of this engine's container and its present instance."""
        best: dict[tuple[tuple[str, str], ...], Series] = {}
        for series in self._readings.of(self.pod, metric.name + suffix):
            labels = series.labels
            if any(labels.get(key) != value for key, value in metric.where) or not self._mine(metric, labels):
                continue
            born = -math.inf if metric.engine in _OF_NO_PROCESS or self.started is None else self.started
            points = tuple((t, v * metric.scale) for t, v in series.points if t >= born)
            if not points:
                continue
            key = tuple(sorted((k, v) for k, v in labels.items() if k not in _SCRAPE and k not in _CONTAINER))
            kept = best.get(key)
            fresh = msgspec.structs.replace(series, points=points)
            if kept is None or _reach(fresh) > _reach(kept):
                best[key] = fresh
        return _first_ranks(best.values())

    def _mine(self, metric: Metric, labels: dict[str, str]) -> bool:
        named = next((labels[label] for label in _CONTAINER if labels.get(label)), None)
        container = self.container
        if metric.engine == "cadvisor":  # without a container it is the sum of the pod, or its sandbox
            return container is not None and named == container.name
        others = [e for e in self.pod.containers if container and e.name != container.name]
        return named is None or metric.engine in PLATFORM or not any(named == c.name and c.gpus for c in others)

    def _first(self, role: Role, suffix: str = "") -> tuple[Metric, list[Series]] | None:
        """The metric of a role that is exported, and its series."""
        for metric in self._known():
            if metric.role == role and (found := self._series(metric, suffix)):
                return metric, found
        return None

    def span(self, role: Role, *, largest: bool = False) -> Span | None:
        """A gauge over time: the sum of its series at each time, or the largest of them; None when not exported, or stale.

        A sum is of the times at which all series that there are now have a value: one that comes later is no growth.
        """
        if (role, largest) not in self._spans:
            found = self._first(role)
            made = _joined(found[0].name, found[1], max if largest else sum, whole=not largest) if found else None
            self._spans[role, largest] = made
        return self._spans[role, largest]

    def spans(self, role: Role, label: str) -> dict[str, Span]:
        """The same by the value of a label, such as the `engine` of a server that has several; without what is stale."""
        metric, many = self._first(role) or (None, [])
        apart: dict[str, list[Series]] = defaultdict(list)
        for series in many:
            apart[series.labels.get(label, "")].append(series)
        made = {value: _joined(metric.name, some, sum, whole=True) for value, some in apart.items()} if metric else {}
        return {value: span for value, span in made.items() if span is not None}

    @cached_property
    def cache(self) -> Span | None:
        """How full the KV cache is, 0 to 1; of several engines the fullest one."""
        stated = self.span("kv_usage", largest=True)
        used, total = self.span("kv_used"), self.span("kv_total")
        if stated or not used or not total or total.last <= 0:
            return stated
        whole = dict(total.points)
        points = tuple((t, v / whole.get(t, total.last)) for t, v in used.points if whole.get(t, total.last) > 0)
        return Span(f"{used.metric} of {total.metric}", points, used.source) if points else None

    def increase(self, role: Role) -> Increase | None:
        """How much a counter grew over the window, all its series together; None when it is not exported."""
        found = self._first(role)
        return self._grown(found[1]) if found else None

    def rates(self, role: Role) -> Span | None:
        """How fast a counter grew, per second, between its points; None when not exported, or stale."""
        found = self._first(role)
        steps = [
            msgspec.structs.replace(
                series,
                points=tuple(
                    (b[0], _increase((a, b)) / (b[0] - a[0])) for a, b in pairwise(series.points) if b[0] > a[0]
                ),
            )
            for series in (found[1] if found else ())
            if len(series.points) > 1
        ]
        return _joined(f"rate of {found[0].name}", steps, sum) if found and steps else None

    @cached_property
    def node_available(self) -> Span | None:
        """Bytes of memory that the pod's node could still give without swapping, by node-exporter; None when not exported."""
        (metric,) = metrics_of("node-exporter")
        found = self._readings.of_node(metric.name, self.pod)
        return _joined(metric.name, [max(found, key=_reach)], sum) if found else None

    def by(self, role: Role, label: str) -> dict[str, float]:
        """The same by the value of a label, such as `finished_reason`."""
        found = self._first(role)
        grown: dict[str, float] = defaultdict(float)
        for series in found[1] if found else ():
            increase = self._grown([series])
            grown[series.labels.get(label, "")] += increase.amount if increase else 0.0
        return dict(grown)

    def name_of(self, role: Role) -> str:
        """The metric that says it here, empty when not exported."""
        found = self._first(role)
        return found[0].name if found else ""

    def _grown(self, many: Iterable[Series]) -> Increase | None:
        """The increase of several series; a scrape counts from the start of the process."""
        amount, spans, lifetime = 0.0, list[float](), False
        for series in many:
            if series.queried and len(series.points) > 1:
                amount += _increase(series.points)
                spans.append(_length(series.points))
            elif self.started is not None:  # a counter begins at 0 with its process
                amount += series.points[-1][1]
                spans.append(series.points[-1][0] - self.started)
                lifetime = True
        return Increase(amount, max(spans), lifetime) if spans else None

    def histogram(self, role: Role) -> Histogram | None:
        """The observations of the window by bucket; None when not exported, or when there were none."""
        found = self._first(role, "_bucket")
        if found is None:
            return None
        metric, many = found
        counts: dict[float, float] = defaultdict(float)
        grown = None
        for series in many:
            bound, increase = _bound(series.labels.get("le", "")), self._grown([series])
            if bound is not None and increase is not None:
                counts[bound * metric.scale] += increase.amount
                grown = increase if grown is None or increase.seconds > grown.seconds else grown
        if grown is None or math.inf not in counts or counts[math.inf] < 1:
            return None
        bounds, sums, most = sorted(counts), list[float](), 0.0
        for bound in bounds:  # increases are estimates, and may not rise by a hair
            most = max(most, counts[bound])
            sums.append(most)
        return Histogram(
            metric=metric.name,
            bounds=tuple(bounds),
            counts=tuple(sums),
            seconds=grown.seconds,
            lifetime=grown.lifetime,
            source=many[0].source,
        )

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that an exporter ascribes to the pod, in the order of their names."""
        spans: dict[str, dict[str, Span]] = defaultdict(dict)
        for metric in metrics_of("dcgm"):
            if metric.role not in ("gpu_utilization", "gpu_active", "gpu_memory_used"):
                continue
            for series in self._series(metric):
                name = (series.labels.get("UUID") or series.labels.get("gpu", ""))[:_LONGEST_ID]
                name += "/" + series.labels["GPU_I_ID"] if series.labels.get("GPU_I_ID") else ""
                if (span := _joined(metric.name, [series], sum)) is not None:
                    spans[name][metric.role] = span
        # a part of a GPU (MIG) has no utilization, and tells how long its engine was active
        used = ((name, s.get("gpu_utilization") or s.get("gpu_active"), s) for name, s in sorted(spans.items()))
        return tuple(Gpu(name, utilization, s.get("gpu_memory_used")) for name, utilization, s in used)

    def queried(self, *, of_engine: bool) -> str:
        """The Prometheus that has metrics of the engine, or of the pod from elsewhere; empty where none has."""
        metrics = [m for m in self._known() if (m.engine not in PLATFORM) is of_engine]
        found = (s for m in metrics for name in _written(m) for s in self._readings.of(self.pod, name) if s.queried)
        return next((series.source for series in found), "")

    @property
    def source(self) -> str:
        """Who says what is known of it, for a quotation."""
        names = (name for metric in self._known() for name in _written(metric))
        return next((series.source for name in names for series in self._readings.of(self.pod, name)), "")

    @cached_property
    def peers(self) -> tuple[Metrics, ...]:
        """The metrics of the ready pods beside this one: the other replicas of its controller."""
        return tuple(self._readings.beside(self.pod, self.engine))

    def of(self, container: Container) -> Metrics:
        """The metrics of another container of the pod, as far as the platform counts them."""
        return Metrics(self.pod, Engine(container, self.engine.found) if self.engine else None, self._readings)

    @property
    def readings(self) -> Readings:
        """All series of the snapshot."""
        return self._readings


def _host(labels: dict[str, str]) -> str:
    """The address, or name, of the target that was scraped."""
    instance = labels.get("instance", "")
    return (instance.rpartition(":")[0] or instance).strip("[]")


def _reach(series: Series) -> tuple[bool, float, float]:
    """An answer over a window before a scrape; then what comes nearest to now, and what goes back farthest.

    The container's present instance may have other labels than the one before, and comes nearer to now.
    """
    last = series.points[-1][0]
    return series.queried and series.end - last <= _STALE_SECONDS, last, _length(series.points)


def _length(points: tuple[Point, ...]) -> float:
    return points[-1][0] - points[0][0]


def _increase(points: tuple[Point, ...]) -> float:
    """What a counter grew by; where it falls its process began again."""
    return sum(b - a if b >= a else b for (_, a), (_, b) in pairwise(points))


def _joined(name: str, many: list[Series], join: Callable[[list[float]], float], *, whole: bool = False) -> Span | None:
    """Series of one metric as one; of answers and scrapes what reaches farther. None where the last value is old.

    `whole`: without the times at which a series that has a last value has none, as far as there are others.
    """
    kinds = [[s for s in many if s.queried is queried] for queried in (True, False)]
    chosen = max(kinds, key=lambda some: max((_length(s.points) for s in some), default=-1.0))
    at: dict[float, list[float]] = defaultdict(list)
    for series in chosen:
        for moment, value in series.points:
            at[moment].append(value)
    if whole:
        end = max(at, default=0.0)
        now = [{t for t, _ in s.points} for s in chosen if end - s.points[-1][0] <= _STALE_SECONDS]
        at = {moment: at[moment] for moment in set.intersection(*now)} or at
    points = tuple((moment, join(at[moment])) for moment in sorted(at))
    if not points or max(s.end for s in many) - points[-1][0] > _STALE_SECONDS:
        return None
    return Span(name, points, chosen[0].source)


def _first_ranks(many: Iterable[Series]) -> list[Series]:
    """Of series that differ only in a rank the one of the least rank."""
    best: dict[tuple[tuple[str, str], ...], tuple[tuple[str, ...], Series]] = {}
    for series in many:
        rank = tuple(series.labels.get(label, "").rjust(4) for label in _RANKS)
        rest = tuple(sorted((k, v) for k, v in series.labels.items() if k not in _RANKS and k not in _SCRAPE))
        if rest not in best or rank < best[rest][0]:
            best[rest] = (rank, series)
    return [series for _, series in best.values()]


def _bound(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def metrics_of_pod(pod: Pod, engine: Engine | None) -> Metrics | None:
    """The metrics of a pod; None when the snapshot has none of it."""
    snapshot = pod.cluster.snapshot
    if not pod.exists or not (snapshot.metrics or snapshot.prometheus):
        return None
    return readings_of(pod.cluster).metrics(pod, engine)
