"""Where a snapshot comes from: files, or a cluster; and what of it was asked about."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kubectl_llmdoctor.cli.options import progress
from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.tree import dig

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.cluster import Cluster, Item
    from kubectl_llmdoctor.gather.alertmanager import Alerted
    from kubectl_llmdoctor.gather.cluster import Connection, Query
    from kubectl_llmdoctor.snapshot import Snapshot, TargetRef


def offline(
    source: str | None,
    log: str | None,
    names: tuple[str, ...],
    namespace: str | None,
    alerted: Alerted | None = None,
    *,
    whole: bool = False,
) -> Snapshot:
    """What the files say; a very long log is reduced to what checks look for unless it is wanted `whole`."""
    from kubectl_llmdoctor.gather import files
    from kubectl_llmdoctor.snapshot import Snapshot

    if log is not None:
        from kubectl_llmdoctor.diagnosis import looked_for
        from kubectl_llmdoctor.packs import installed

        return Snapshot(logs=files.load_logs(log, literals=() if whole else looked_for(installed())))
    snapshot = files.load(source or "")
    if alerted is not None:
        named = [(f"{ref.kind}/{ref.name}", ref.namespace or namespace) for ref in alerted.objects]
        return _chosen(snapshot, named, namespace, alerted.nodes)
    return _chosen(snapshot, [(name, namespace) for name in names], namespace) if names or namespace else snapshot


def within(snapshot: Snapshot, namespace: str | None) -> Snapshot:
    """The snapshot, which must hold something, and something of the namespace. Raises UsageError or AccessError."""
    if not snapshot.objects:
        why = next((f" ({row.ref or row.source}: {row.reason})" for row in snapshot.missing), "")
        raise UsageError(f"the input holds no object of a cluster{why}")
    if namespace and all((dig(tree, "metadata.namespace") or "default") != namespace for tree in snapshot.objects):
        raise AccessError(f"the input holds nothing of the namespace {namespace}")
    return snapshot


def live(connection: Connection, query: Query, verbosity: int, meanwhile: Iterable[object] = ()) -> Snapshot:
    """What the cluster says; `verbosity` counts the requests, and `meanwhile` is gone through while the server works."""
    from kubectl_llmdoctor.gather.cluster import connect, gather

    cluster = connect(connection)
    try:
        snapshot = gather(cluster, query, progress=progress, meanwhile=meanwhile)
    finally:
        cluster.close()
        progress("")
    if verbosity:
        print(f"{cluster.requests} requests", file=sys.stderr)
    return snapshot


def _chosen(
    snapshot: Snapshot, names: list[tuple[str, str | None]], namespace: str | None, nodes: tuple[str, ...] = ()
) -> Snapshot:
    """Only what was named with its namespace, and the pods of nodes; else all pods and workloads of the namespace."""
    import msgspec

    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.gather.kinds import kind_named
    from kubectl_llmdoctor.snapshot import TargetRef
    from kubectl_llmdoctor.target import subjects

    def judged() -> list[Item]:
        found = subjects(Cluster(msgspec.structs.replace(snapshot, target=None, targets=())))
        return [s.item for s in found if s.item]

    cluster, refs = Cluster(snapshot), list[TargetRef]()
    if not names and not nodes:
        refs = [
            TargetRef(kind=i.kind, name=i.name, namespace=i.namespace, api_version=i.api_version)
            for i in judged()
            if i.namespace == namespace
        ]
        if not refs:
            raise AccessError(f"the input holds no pod and no workload in the namespace {namespace}")
    for text, where in names:
        kind_text, slash, rest = text.partition("/")
        if "/" in rest:
            raise UsageError(f"{text!r} is not a name; expected NAME or TYPE/NAME")
        kind, name = (kind_named(kind_text), rest) if slash else ("Pod", text)
        alike = [i for k in cluster.kinds() if k.partition(".")[0].lower() == kind.lower() for i in cluster.items(k)]
        found = [i for i in alike if i.name == name and where in (None, i.namespace)]
        if not found:
            within = f"namespace {where} of the input" if where else "the input"
            called = [item for item in judged() if item.name == name]
            raise AccessError(f"{text}: no such object in {within}; {_instead(name, kind, alike, called, where)}")
        if len(found) > 1:
            several = ", ".join(i.namespace for i in found)
            raise UsageError(f"{text}: occurs in the namespaces {several}; choose one with -n")
        refs.append(
            TargetRef(kind=found[0].kind, name=name, namespace=found[0].namespace, api_version=found[0].api_version)
        )
    for node in nodes:
        refs += _on_node(cluster, node)
    refs = list(dict.fromkeys(refs))
    return msgspec.structs.replace(snapshot, target=refs[0], targets=tuple(refs[1:]))


#: So many objects of the input are named in place of one that it does not have.
_MOST_NAMED = 6


def _instead(name: str, kind: str, alike: list[Item], called: list[Item], where: str | None) -> str:
    """What may be meant by a name that the input does not have: names that are close to it, else what there is.

    `called` are the pods and workloads of another kind that have the name.
    """
    from kubectl_llmdoctor.gather.targets import near_names

    near = near_names(name, list(dict.fromkeys(i.name for i in sorted(alike, key=lambda i: i.namespace != where))))
    meant = [i for one in near for i in alike if i.name == one] or called
    if meant:
        return f"did you mean {' or '.join([*dict.fromkeys(map(_to_type, meant))][:3])}?"
    if not alike:
        return f"it has none of kind {kind}"
    own = [i for i in alike if i.namespace == where]
    named = ", ".join(f"{i.namespace}/{i.name}" for i in (own or alike)[:_MOST_NAMED])
    more = len(own or alike) - _MOST_NAMED
    return f"of kind {kind} {'that namespace' if own else 'it'} has {named}{f' and {more} more' if more > 0 else ''}"


def _to_type(item: Item) -> str:
    """An object as it is named to a command."""
    named = item.name if item.kind == "Pod" else f"{item.kind.lower()}/{item.name}"
    return f"{named} -n {item.namespace}" if item.namespace else named


def _on_node(cluster: Cluster, place: str) -> list[TargetRef]:
    """The pods on the node of this name or address. Raises AccessError when there are none."""
    from kubectl_llmdoctor.snapshot import TargetRef

    names = {place} | {
        node.name
        for node in cluster.items("Node")
        if any(one.get("address") == place for one in dig(node.raw, "status.addresses") or ())
    }
    pods = [i for i in cluster.items("Pod") if dig(i.raw, "spec.nodeName") in names]
    if not pods:
        raise AccessError(f"the input holds no pod on a node of the name or address {place}")
    return [TargetRef(kind="Pod", name=i.name, namespace=i.namespace, api_version="v1") for i in pods]
