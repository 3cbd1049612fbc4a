"""The accelerators of a cluster: how many there are of each product, who holds them, and which of the rest can be had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.nodes import Node, nodes_of
from kubectl_llmdoctor.facts.units import say_bytes, say_cores
from kubectl_llmdoctor.facts.usage import Amounts, Usage, requests_of, usage_of
from kubectl_llmdoctor.facts.workload import top_of
from kubectl_llmdoctor.report import document as doc

#: Labels of products that `Node.product` does not know, since no GPU is meant.
_OTHER_PRODUCTS = ("cloud.google.com/gke-tpu-accelerator",)


class Inventory(msgspec.Struct, frozen=True):
    """The rows of a report: by product, and by node."""

    capacity: tuple[doc.Capacity, ...]
    nodes: tuple[doc.GpuNode, ...]


class _Least(msgspec.Struct, frozen=True):
    """The least that any pod asks for beside one device: thousandths of a CPU, bytes; None where none asks for any."""

    cpu: int | None
    memory: int | None


def inventory(cluster: Cluster) -> Inventory:
    """What the nodes have and who holds it; nothing where not all pods are known, for then nothing is known to be free."""
    usage = usage_of(cluster)
    if not usage.complete:
        return Inventory((), ())
    least = _least_beside(usage)
    rows = [row for node in nodes_of(cluster) for row in _rows(node, usage, least)]
    rows.sort(key=lambda row: (row.product, row.resource, row.name))
    products: dict[tuple[str, str], list[doc.GpuNode]] = {}
    for row in rows:
        products.setdefault((row.product, row.resource), []).append(row)
    return Inventory(tuple(_capacity(some) for some in products.values()), tuple(rows))


def _capacity(rows: list[doc.GpuNode]) -> doc.Capacity:
    stranded: Counter[str] = Counter()
    for row in rows:
        stranded.update(row.reasons)
    held: dict[tuple[str, str], doc.Holder] = {}
    for holder in (holder for row in rows for holder in row.holders):
        key = holder.namespace, holder.workload
        held[key] = _plus(held[key], holder) if key in held else holder
    chunks = Counter(row.free for row in rows if row.free)
    return doc.Capacity(
        product=rows[0].product,
        resource=rows[0].resource,
        nodes=len(rows),
        total=sum(row.total for row in rows),
        allocatable=sum(row.allocatable for row in rows),
        allocated=sum(holder.devices for holder in held.values()),
        free=sum(row.free for row in rows),
        chunks={str(size): chunks[size] for size in sorted(chunks)},
        stranded={why: stranded[why] for why in sorted(stranded)},
        idle=_idle_of(held.values()),
        holders=tuple(sorted(held.values(), key=lambda h: (-h.devices, h.namespace, h.workload))),
    )


def _plus(one: doc.Holder, other: doc.Holder) -> doc.Holder:
    return doc.Holder(
        namespace=one.namespace, workload=one.workload, devices=one.devices + other.devices, idle=_idle_of((one, other))
    )


def _idle_of(holders: Iterable[doc.Holder]) -> int | None:
    known = [holder.idle for holder in holders if holder.idle is not None]
    return sum(known) if known else None


def _rows(node: Node, usage: Usage, least: dict[str, _Least]) -> Iterator[doc.GpuNode]:
    for resource, allocatable in node.accelerators.items():
        should = node.should_offer(resource)
        total = max(allocatable, node.capacity(resource) or 0, should[0] or 0 if should else 0)
        if not total:
            continue
        holders = tuple(_holders(node, resource, usage))
        taken = sum(holder.devices for holder in holders)
        free = max(allocatable - taken, 0)
        reasons = _stranded(node, usage, free, least.get(resource, _Least(None, None))) if free else {}
        product = node.product or next(filter(None, map(node.labels.get, _OTHER_PRODUCTS)), "")
        yield doc.GpuNode(
            name=node.name,
            product=product or resource,
            resource=resource,
            total=total,
            allocatable=allocatable,
            free=free,
            holders=holders,
            stranded=_said(node, usage, reasons),
            reasons=reasons,
        )


def _holders(node: Node, resource: str, usage: Usage) -> Iterator[doc.Holder]:
    idle = _idle_pods(node)
    found: dict[tuple[str, str], list[tuple[int, int | None]]] = {}
    for holder in usage.holders(node.name):
        count = holder.requests.get(resource, 0)
        if count:
            namespace = holder.pod.metadata.namespace or "default"
            unused = None if idle is None else min(idle.get((namespace, holder.pod.metadata.name), 0), count)
            found.setdefault((namespace, _workload(holder.pod, node.cluster)), []).append((count, unused))
    for (namespace, workload), counts in sorted(found.items()):
        known = [unused for _, unused in counts if unused is not None]
        yield doc.Holder(
            namespace=namespace,
            workload=workload,
            devices=sum(count for count, _ in counts),
            idle=sum(known) if known else None,
        )


def _workload(pod: k8s.Pod, cluster: Cluster) -> str:
    """`Deployment/llama`; what the pod itself says of its owner where that was not read."""
    item = cluster.item("Pod", pod.metadata.namespace, pod.metadata.name)
    top = top_of(item, cluster)
    if top:
        return top.ref
    owner = next(iter(pod.metadata.owner_references), None)
    return f"{owner.kind}/{owner.name}" if owner else f"Pod/{pod.metadata.name}"


def _idle_pods(node: Node) -> dict[tuple[str, str], int] | None:
    """By pod, the devices that it was given and on which nothing runs; None where nothing says."""
    from kubectl_llmdoctor.facts.node_hardware import IDLE_BYTES, node_hardware

    hardware = node_hardware(node.cluster, node.name)
    if hardware is None or not hardware.devices:
        return None
    found: Counter[tuple[str, str]] = Counter()
    for device in hardware.devices:
        used = device.memory_used_bytes
        if used is not None and used < IDLE_BYTES and not device.utilization_percent and not device.all_processes:
            found.update({(user.namespace, user.name) for user in device.users})
    return dict(found)


def _least_beside(usage: Usage) -> dict[str, _Least]:
    """For each accelerator the least CPU and memory that a pod of the cluster asks for beside one of them."""
    found: dict[str, list[tuple[int, Amounts]]] = {}
    held = (holder.requests for name in usage.nodes for holder in usage.holders(name))
    for requests in (*held, *map(requests_of, usage.waiting)):
        for resource in requests:
            if "/" in resource and requests[resource]:
                found.setdefault(resource, []).append((requests[resource], requests))
    return {resource: _Least(_least("cpu", rows), _least("memory", rows)) for resource, rows in found.items()}


def _least(name: str, rows: list[tuple[int, Amounts]]) -> int | None:
    shares = [requests.get(name, 0) // count for count, requests in rows]
    return min(shares) or None


def _stranded(node: Node, usage: Usage, free: int, least: _Least) -> dict[str, int]:
    """Why so many of the free devices cannot be had: of several reasons the first."""
    if node.troubles:
        why = "not ready" if node.ready is False else "cordoned" if node.cordoned else "tainted or under pressure"
        return {why: free}
    used = usage.used(node.name)
    for name, why, share in (("cpu", "CPU", least.cpu), ("memory", "memory", least.memory)):
        have = node.offers(name)
        if share and have is not None:
            usable = max(have - used.get(name, 0), 0) // share
            if usable < free:
                return {why: free - usable}
    pods = node.offers("pods")
    if pods is not None and pods - used.get("pods", 0) < 1:
        return {"pods per node": free}
    return {}


def _said(node: Node, usage: Usage, reasons: dict[str, int]) -> str:
    """The reason in the numbers of this node."""
    if not reasons:
        return ""
    (why,) = reasons
    if why in ("CPU", "memory"):
        name = why.lower()
        have, used = node.offers(name) or 0, usage.used(node.name).get(name, 0)
        say = say_cores if name == "cpu" else say_bytes
        return f"{say(max(have - used, 0))} of {say(have)} {why} free"
    return "no room for one more pod" if why == "pods per node" else ", ".join(node.troubles)
