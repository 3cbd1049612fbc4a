"""Pods that are chosen by a selector or by what they look like, instead of by name."""

from __future__ import annotations

import msgspec

from kubectl_llmdoctor.engines import names
from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather import kinds, related, slim
from kubectl_llmdoctor.gather.collector import METADATA, Collector, typed
from kubectl_llmdoctor.gather.failure import RequestError, Why, unreachable
from kubectl_llmdoctor.snapshot import Json

#: Pods that are explained at once, the most broken first.
MAX_PODS = 50


def by_selector(pot: Collector, namespace: str, selector: str) -> list[Json]:
    """The pods that a label selector picks, the most broken first. Raises AccessError when there are none."""
    try:
        found, more = pot.page(kinds.POD, namespace, selector=selector)
    except RequestError as error:
        raise unreachable(pot.client.endpoint, error, f"the pods {_of(namespace)}") from None
    if more:
        pot.miss("pods", namespace, f"only the first {len(found)} pods with {selector} were read")
    if not found:
        raise AccessError(f"no pod {_of(namespace)} has the labels {selector}")
    ordered = related.most_broken_first(found)
    if len(ordered) > MAX_PODS:
        pot.miss("pods", namespace, f"only the {MAX_PODS} most broken of {len(ordered)} pods are explained")
    return ordered[:MAX_PODS]


def of_models(pot: Collector, namespace: str) -> list[Json]:
    """The pods that ask for a GPU or run an inference server, the most broken first. Raises AccessError when none do.

    Of all other pods only what takes place on a node is kept, and only where it is needed.
    """
    urgent: list[tuple[tuple[int, int, str, str], bytes]] = []
    count = 0
    everything: list[Json] = []
    try:
        for page in pot.pages(kinds.POD, namespace, slim.decode_pod_page):
            for raw in page.items or ():
                pod = slim.decode_pod(raw)
                if pod is None:
                    pot.miss("pods", namespace, "a pod was not understood")
                    continue
                serves = serving(pod.spec)
                tree = slim.pod_tree(pod)
                if not namespace:
                    everything.append(tree)
                if serves:
                    count += 1
                    urgent.append((related.urgency(tree), bytes(raw)))
            # Whole pods are large, and there may be thousands.
            urgent = sorted(urgent)[:MAX_PODS]
    except RequestError as error:
        raise unreachable(pot.client.endpoint, error, f"the pods {_of(namespace)}") from None
    if not count:
        raise AccessError(f"no pod {_of(namespace)} asks for a GPU or runs an inference server")
    if count > MAX_PODS:
        pot.miss("pods", namespace, f"only the {MAX_PODS} most broken of {count} pods are explained")
    chosen = [typed(msgspec.json.decode(raw), kinds.POD) for _, raw in urgent]
    if not namespace and any(map(related.is_unscheduled, chosen)):
        for tree in everything:
            pot.add(tree, is_slim=True)
        pot.mark("Pod")
        pot.once("all pods")
    return chosen


def on_node(pot: Collector, node: str) -> list[Json]:
    """The pods of a node, by its name or address, that ask for a GPU or run an inference server. Raises RequestError.

    That there is no such node, or no such pod on it, is noted.
    """
    name = _node_at(pot, node)
    if not name:
        pot.miss("nodes", node, "there is no node of this name or address")
        return []
    chosen = []
    for page in pot.pages(kinds.POD, "", slim.decode_pod_page, fields=f"spec.nodeName={name}"):
        for raw in page.items or ():
            pod = slim.decode_pod(raw)
            if pod is not None and serving(pod.spec):
                chosen.append(typed(msgspec.json.decode(raw), kinds.POD))
    if not chosen:
        pot.miss("pods", f"node {name}", "no pod on it asks for a GPU or runs an inference server")
    ordered = related.most_broken_first(chosen)
    if len(ordered) > MAX_PODS:
        pot.miss("pods", f"node {name}", f"only the {MAX_PODS} most broken of {len(ordered)} pods are explained")
    return ordered[:MAX_PODS]


def _node_at(pot: Collector, place: str) -> str:
    """The name of the node with this name or address; empty when there is none."""
    import ipaddress

    kind = kinds.core("Node")
    try:
        ipaddress.ip_address(place)
    except ValueError:
        try:
            return related.name_of(pot.fetch(kind, "", place, accept=METADATA))
        except RequestError as error:
            if error.why != Why.NOT_FOUND:
                raise
    for page in pot.pages(kind, "", slim.decode_node_page):
        for node in page.items or ():
            addresses = (node.status.addresses if node.status else None) or ()
            if any(str(one.get("address")).lower() == place for one in addresses):
                return str(node.metadata.name)
    return ""


def serving(spec: slim.PodSpec) -> bool:
    """Whether a pod asks for a GPU, runs an inference server, or what is made to stand before or beside one."""
    for container in [*spec.containers, *(spec.init_containers or ())]:
        if related.asks_for_gpu(container.resources):
            return True
        if names.beside_a_server(container.image):
            return True
        if related.looks_like_server(container.image, *(container.command or ()), *(container.args or ())[:4]):
            return True
    return False


def _of(namespace: str) -> str:
    return f"of namespace {namespace}" if namespace else "of the cluster"
