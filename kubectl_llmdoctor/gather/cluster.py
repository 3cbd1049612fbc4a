"""A live cluster as a `Snapshot`: what is asked for in which order, and what ends the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.gather import events, kinds, selection, targets
from kubectl_llmdoctor.gather.agents import Agents
from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.connection import Connection
from kubectl_llmdoctor.gather.kinds import Kind
from kubectl_llmdoctor.gather.live import Live
from kubectl_llmdoctor.gather.related import brokenness, name_of, namespace_of
from kubectl_llmdoctor.gather.session import Cluster, connect
from kubectl_llmdoctor.gather.transport import PARALLEL
from kubectl_llmdoctor.gather.walk import LOG_PODS, Walk
from kubectl_llmdoctor.gather.wanted import NO_PORTS, NO_PROMETHEUS, WantedPorts, WantedPrometheus
from kubectl_llmdoctor.gather.workers import Workers
from kubectl_llmdoctor.snapshot import Json, Snapshot, TargetRef

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.access import AccessRow

__all__ = ["Cluster", "Connection", "Query", "access", "connect", "gather"]

#: Kinds that lead to pods without owning them: their pods are the target.
_SELECTORS = frozenset([("", "Service")])


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is to be explained: names (`llama-0`, `deployment/llama`), a label selector, or all that serves models."""

    names: tuple[str, ...] = ()
    #: objects of any namespace, and nodes (names or addresses) of whose pods those that serve models are meant
    objects: tuple[TargetRef, ...] = ()
    nodes: tuple[str, ...] = ()
    selector: str = ""
    all_namespaces: bool = False
    #: whether the agents of nodes are asked
    agent: bool = False
    #: a longer log keeps its head and its tail
    log_cap_bytes: int = 64 * 2**20
    #: which Prometheus is asked, and what the engines' own ports
    prometheus: WantedPrometheus = NO_PROMETHEUS
    ports: WantedPorts = NO_PORTS


def access(cluster: Cluster, namespace: str | None) -> list[AccessRow]:
    """What this user may read in a namespace and the cluster, and what is lost without it. Raises AccessError."""
    from kubectl_llmdoctor.gather.access import ask

    return ask(cluster, namespace)


def gather(
    cluster: Cluster, query: Query, *, progress: Callable[[str], None] | None = None, meanwhile: Iterable[object] = ()
) -> Snapshot:
    """All that a diagnosis of the query's pods can use, masked; what cannot be read stands in `missing`.

    `meanwhile` is gone through while the server works.
    Raises AccessError when the target itself cannot be had, UsageError for names that are none.
    """
    if query.names and query.all_namespaces:
        raise UsageError("a name and -A exclude each other: names are looked up in one namespace (-n)")
    if query.names and query.selector:
        raise UsageError("a name and -l exclude each other")
    named = [(cluster.namespace, *targets.parse(cluster.client, name)) for name in query.names]
    named += [
        (one.namespace or cluster.namespace, *targets.parse(cluster.client, f"{one.kind.lower()}/{one.name}"))
        for one in query.objects
    ]
    workers = Workers(PARALLEL, meanwhile)
    pot = Collector(cluster.client, workers, progress)
    walk = Walk(pot, query.log_cap_bytes, Agents(pot) if query.agent else None)
    live = Live(pot, query.prometheus, query.ports, cluster.namespace)
    try:
        live.begin()
        if named or query.nodes:
            asked = _by_name(pot, walk, named, query.nodes)
        else:
            namespace = "" if query.all_namespaces else cluster.namespace
            asked = _by_looks(pot, walk, namespace, query.selector)
        pot.task("events", "", lambda: events.keep(pot, walk.events, walk.pods))
        walk.askers()
        walk.servers()
        live.read(walk.pods, pot.objects())
        workers.drain()
        walk.named_in_logs()
        walk.reservations()
        live.again()
        workers.drain()
    except BaseException:
        cluster.client.close()
        raise
    finally:
        workers.stop()
        live.close()
    return pot.snapshot(asked)


def _by_name(pot: Collector, walk: Walk, named: list[tuple[str, Kind, str]], nodes: tuple[str, ...]) -> list[TargetRef]:
    """Reads what was named and all around it. One that cannot be had among several is noted, not raised."""
    failed: dict[int, AccessError] = {}
    found: dict[int, Json] = {}
    on_nodes: dict[str, list[Json]] = {}

    def start(position: int, namespace: str, kind: Kind, name: str) -> None:
        try:
            obj = targets.read(pot, kind, namespace, name)
        except targets.UnavailableError as error:
            if len(named) + len(nodes) == 1:
                raise
            failed[position] = error
            return
        found[position] = obj
        if kind is kinds.POD:
            walk.pod(obj)
        else:
            walk.workload(obj, explain=True, kind=kind)

    def on_node(node: str) -> None:
        on_nodes[node] = selection.on_node(pot, node)
        walk.explain(on_nodes[node], f"node {node}")

    what = [name if kind is kinds.POD else f"{kind.kind} {name}" for _, kind, name in named]
    pot.say(f"reading {', '.join([*what, *(f'the pods on {node}' for node in nodes)])}")
    for position, (namespace, kind, name) in enumerate(named):
        pot.task(kind.resource, f"{namespace}/{name}", partial(start, position, namespace, kind, name))
    for node in nodes:
        pot.task("pods", f"node {node}", partial(on_node, node))
    pot.workers.settle()
    of_nodes = [_pod_ref(pod) for node in nodes for pod in on_nodes.get(node, ())]
    if not found and not of_nodes:
        if failed:
            raise failed[min(failed)]
        raise AccessError(f"cannot read what was asked for: {_first_reason(pot)}")
    asked: list[TargetRef] = []
    for position, (namespace, kind, name) in enumerate(named):
        if position in failed:
            pot.miss(kind.resource, f"{namespace}/{name}", str(failed[position]))
        elif position in found:
            asked += _refs(kind, found[position], walk)
    asked += of_nodes
    if not asked:
        namespace, kind, name = named[0]
        raise AccessError(f"no pod belongs to {kind.kind} {name!r} in namespace {namespace!r}")
    return list(dict.fromkeys(asked))


def _refs(kind: Kind, obj: Json, walk: Walk) -> list[TargetRef]:
    """What an object that was named stands for: itself, or the pods that it selects."""
    if kind.key in _SELECTORS:
        return sorted(map(_pod_ref, walk.pods), key=lambda ref: ref.name)
    version = str(obj.get("apiVersion") or kind.api_version)
    return [TargetRef(kind=kind.kind, name=name_of(obj), namespace=namespace_of(obj), api_version=version)]


def _by_looks(pot: Collector, walk: Walk, namespace: str, selector: str) -> list[TargetRef]:
    """Reads the pods of a selector, or those that serve models, and all around them."""
    pot.say("reading the pods" + ("" if namespace else " of all namespaces"))
    pods: list[Json] = []

    def choose() -> None:
        if selector:
            pods.extend(selection.by_selector(pot, namespace, selector))
        else:
            pods.extend(selection.of_models(pot, namespace))
        broken = sum(1 for pod in pods if brokenness(pod)[0])
        walk.explain(pods, namespace, log_pods=max(broken, LOG_PODS))

    pot.task("pods", namespace, choose)
    pot.workers.settle()
    if not pods:
        raise AccessError(f"cannot read the pods: {_first_reason(pot)}")
    return [_pod_ref(pod) for pod in pods]


def _first_reason(pot: Collector) -> str:
    return min((row.reason for row in pot.missing), default="no reason is known")


def _pod_ref(pod: Json) -> TargetRef:
    return TargetRef(kind="Pod", name=name_of(pod), namespace=namespace_of(pod), api_version="v1")
