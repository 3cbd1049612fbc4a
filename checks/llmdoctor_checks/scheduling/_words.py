"""How the checks of this family quote and say what they found."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    MACHINE,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Holder,
    Node,
    NodeVerdict,
    Pending,
    Pod,
    condition_evidence,
    count_of,
    escaped,
    event_evidence,
    fixes,
    is_accelerator,
    is_unfit,
    names_of,
    node_evidence,
    parse_time,
    pod_evidence,
    say_amount,
    say_seconds,
    simulates,
)
from llmdoctor_checks.scheduling._obstacles import Cause

#: Node lines in one finding, and holders named on one node.
_MOST_NODES = 4
_MOST_HOLDERS = 4

#: Characters of what a program says, in one summary.
_LONGEST = 240

#: What any reason for a pod to wait explains.
EXPLAINS = (
    "pod-pending",
    "rollout-stuck",
    # the members of its group that run wait for it
    "ray-cluster",
    "multinode-discovery",
    "nccl-timeout",
    "worker-lost",
    "slow-load",
)


def finding(
    pending: Pending,
    found: Cause,
    summary: str,
    evidence: Iterable[Evidence],
    fixes_: Iterable[Fix],
    explains: tuple[str, ...] = (),
) -> Finding:
    """The finding of a cause: the scheduler's words first, then what this check adds."""
    ending = f" That alone is not enough there: {found.beside}." if found.beside else ""
    if pending.unread and found.confidence == "possible":
        ending += f" The cluster's {' and '.join(pending.unread)} were not read, and may tell another cause."
    return Finding(
        confidence=found.confidence,
        summary=summary + ending,
        evidence=(*said_by(pending), *evidence),
        explains=(*EXPLAINS, *explains, *(("scheduling-gated",) if pending.gates else ())),
        fixes=(*_needless(pending, found.resource), *fixes_),
        order=found.order,
    )


def _needless(pending: Pending, resource: str) -> Iterator[Fix]:
    """What only simulates an engine needs no GPU: it runs anywhere once it asks for none."""
    for container in asking(pending, resource) if is_accelerator(resource) else ():
        if simulates(container.spec.image):
            text = f"Take {resource} out of the resources of {container.name}: {container.spec.image} only simulates an engine"
            yield fixes.patch(pending.pod, text, removed(container, resource))


def removed(container: Container, resource: str) -> list[dict[str, Any]]:
    """The patch of the pod spec by which a container asks for no such resource."""
    quantities = {"limits": container.spec.resources.limits, "requests": container.spec.resources.requests}
    at = f"{container.pointer}/resources"
    return [{"op": "remove", "path": f"{at}/{k}/{escaped(resource)}"} for k, v in quantities.items() if resource in v]


def said_by(pending: Pending) -> Iterator[Evidence]:
    """The scheduler's message, from where it is whole, or the gates that keep it away."""
    condition = pending.condition
    if pending.gates:
        yield pod_evidence(pending.pod, "schedulingGates", ", ".join(pending.gates))
    if condition and condition.message:
        yield condition_evidence(pending.pod, condition)
    elif pending.event:
        yield event_evidence(pending.event, pending.pod.cluster)
    if is_unfit(pending.message):
        yield from (event_evidence(event, pending.pod.cluster) for event in pending.filtering[-3:])


#: What HAMi says of cards; and what of those of which too little memory is free, or of too few that are left.
_OF_HAMI = r"Card[A-Z]|(?:Numa|Mode|ResourceQuota)NotFit|NodeInsufficientDevice|ExclusiveDeviceAllocateConflict"
_FOR_MEMORY = ("CardInsufficientMemory", "AllocatedCardsInsufficientRequest")


def whole_card(pending: Pending) -> Fix | None:
    """What to ask of HAMi where a container names no memory: a share of it is then the whole card.

    It is no help where HAMi says of all cards that something else is short: cores, or the number of pods on a card.
    """
    if "hami" not in pending.scheduler.lower():
        return None
    reasons = [count.text for count in pending.said.counts if re.search(_OF_HAMI, count.text)]
    if reasons and not any(words in text for text in reasons for words in _FOR_MEMORY):
        return None
    for container in asking(pending, "nvidia.com/gpu"):
        stated = (*container.spec.resources.limits, *container.spec.resources.requests)
        if not any(name.startswith("nvidia.com/gpumem") for name in stated):
            return fixes.advice(
                f"Ask for as much memory of the card as {container.name} of {fixes.edited(pending.pod)} needs (nvidia.com/gpumem, in MiB, "
                "or nvidia.com/gpumem-percentage): without it HAMi wants whole cards, on which nobody else has a share"
            )
    return None


def number_of(found: Cause) -> int:
    """How many nodes it stands on: those known, else those that the scheduler counted."""
    return len(found.verdicts) or max((c.number for c in found.counts), default=0)


def nodes_said(found: Cause) -> str:
    """`3 nodes (gpu-1, gpu-2, gpu-3)`, or only the number where no node was read."""
    names = f" ({names_of(found.verdicts)})" if found.verdicts else ""
    return count_of(number_of(found), "node") + names


def node_lines(pending: Pending, found: Cause, *, holders: bool = False) -> Iterator[Evidence]:
    """What each of the nearest nodes says, with its GPUs; `holders` adds who has them."""
    for verdict in sorted(found.verdicts, key=lambda v: v.node.name)[:_MOST_NODES]:
        if text := "; ".join(_line(pending, verdict, found, holders=holders)):
            yield node_evidence(verdict.node, text)


def _line(pending: Pending, verdict: NodeVerdict, found: Cause, *, holders: bool) -> Iterator[str]:
    node = verdict.node
    resources = dict.fromkeys([found.resource, *pending.accelerators] if found.resource else pending.accelerators)
    reasons = found.on(verdict) or verdict.reasons
    said = {r.resource for r in reasons}
    yield from (r.detail for r in reasons)
    for resource in resources:
        if resource not in said and node.offers(resource) and "/" in resource:
            free = (node.offers(resource) or 0) - pending.usage.used(node.name).get(resource, 0)
            yield f"{resource}: {max(free, 0)} of {node.offers(resource)} free"
    if found.obstacle == "node":
        yield from (t for t in node.troubles if t != "cordoned" and not any(t in r.detail for r in reasons))
    if node.product:
        yield node.product
    if holders and found.resource:
        yield held_by(pending, node, found.resource)


def held_by(pending: Pending, node: Node, resource: str) -> str:
    """`held by nlp Deployment/llama (4 in 2 pods, for 3 d), vision/sdxl-1 (2, Terminating until 10:05:30)`."""
    groups: dict[str, list[Holder]] = {}
    for holder in holders_of(pending, node.name, resource):
        groups.setdefault(holder.ref if holder.terminating else _owner_of(holder) or holder.ref, []).append(holder)

    def held(group: list[Holder]) -> int:
        return sum(h.requests[resource] for h in group)

    order = sorted(groups.items(), key=lambda item: (not item[1][0].terminating, -held(item[1]), item[0]))
    said = [f"{name} ({', '.join(_terms(pending, group, resource))})" for name, group in order[:_MOST_HOLDERS]]
    if len(order) > _MOST_HOLDERS:
        said.append(f"{len(order) - _MOST_HOLDERS} more")
    return "held by " + ", ".join(said) if said else "held by pods that were not read"


def _terms(pending: Pending, group: list[Holder], resource: str) -> Iterator[str]:
    """How much some pods of one owner hold, and since or until when."""
    pods = f" in {len(group)} pods" if len(group) > 1 else ""
    yield say_amount(resource, sum(h.requests[resource] for h in group)) + pods
    meta, now = group[0].pod.metadata, pending.pod.cluster.now
    if group[0].terminating:
        end = parse_time(meta.deletion_timestamp)
        yield f"Terminating until {end:%H:%M:%S}" if end and now and end > now else "Terminating"
        return
    made = min((t for h in group if (t := parse_time(h.pod.metadata.creation_timestamp))), default=None)
    seconds = pending.pod.cluster.seconds_since(made)
    if seconds is not None and seconds > 0:
        yield f"for {say_seconds(seconds)}"


def _owner_of(holder: Holder) -> str:
    """What a person would scale down: `nlp Deployment/llama`; empty for a bare pod."""
    meta = holder.pod.metadata
    owner = next((o for o in meta.owner_references if o.controller), None)
    if owner is None:
        return ""
    hashed = f"-{meta.labels.get('pod-template-hash', '')}"
    if owner.kind == "ReplicaSet" and owner.name.endswith(hashed) and len(hashed) > 1:
        return f"{meta.namespace or 'default'} Deployment/{owner.name.removesuffix(hashed)}"
    return f"{meta.namespace or 'default'} {owner.kind}/{owner.name}"


def holders_of(pending: Pending, node: str, resource: str) -> list[Holder]:
    """The pods on a node that have something of a resource."""
    return [h for h in pending.usage.holders(node) if h.requests.get(resource)]


def asking(pending: Pending, resource: str) -> list[Container]:
    """The containers that ask for a resource, the greatest first."""
    having = [c for c in pending.pod.containers if c.request(resource)]
    return sorted(having, key=lambda c: (-(c.request(resource) or 0), c.index))


def shared_by(pending: Pending, container: Container, most: int) -> tuple[int, str]:
    """How many GPUs, of so many, a container's engine can use, and what it has to be told of them, in words.

    Ollama and llama.cpp take as many as there are. What is no engine may take any number, and is told of it as it likes.
    """
    engine = pending.subject.engine_of(container)
    if engine is None:
        return most, " (and as many workers in what it runs)"
    size = engine.get("tensor_parallel_size")
    if size is None:
        return most, ""
    count, if_it_fits = pending.subject.sizing(engine).splits(most), "if the model fits on as many"
    if size.value != container.gpus and engine.workers == container.gpus:
        return count, f" (parallel sizes whose product is {count} instead of {container.gpus}), {if_it_fits}"
    told = f"tensor parallel size {_with_so_many(engine, container, count) or count}"
    if engine.explicit("tensor_parallel_size") and size.value != count and not told_of(pending, container, count):
        told += f" instead of {size.text}"
    return count, f" ({told}), {if_it_fits}"


def _with_so_many(engine: Engine, container: Container, count: int) -> int | None:
    """The tensor parallel size that goes with so many GPUs, where it is now that of the container, or of a group of such."""
    size, gpus = engine.value("tensor_parallel_size"), container.gpus
    return size // gpus * count if isinstance(size, int) and size and gpus and size % gpus == 0 else None


def asked_in(pending: Pending, resource: str) -> Iterator[Evidence]:
    """Where the pod asks for a resource, with the quantity as it was written."""
    for container in asking(pending, resource)[:2]:
        resources = container.spec.resources
        kind = "requests" if resource in resources.requests else "limits"
        quantity = (resources.requests if kind == "requests" else resources.limits)[resource]
        yield pod_evidence(container, f"resources.{kind}", f"{resource}: {quantity}")


def scaling_lines(pending: Pending) -> Iterator[Evidence]:
    """The newest word of an autoscaler on this pod."""
    yield from (event_evidence(event, pending.pod.cluster) for event in pending.scaling[-1:])


def told_of(pending: Pending, container: Container, count: int) -> list[dict[str, Any]]:
    """The change of the engine's tensor parallel size that goes with so many GPUs, where it goes with those that are asked for."""
    engine = pending.subject.engine_of(container)
    size = _with_so_many(engine, container, count) if engine else None
    if engine is None or size is None or container.gpus == count:
        return []
    return fixes.replaced_flag(engine, "tensor_parallel_size", str(size))


def lower(container: Container, resource: str, value: str, summary: str, more: Iterable[dict[str, Any]] = ()) -> Fix:
    """Set request and limit of an extended resource, which must be equal; `more` is what changes with it."""
    at = f"{container.pointer}/resources"
    kinds = [k for k in ("limits", "requests") if resource in getattr(container.spec.resources, k)]
    # not `replace`: a template may state the limit alone
    operations = [{"op": "add", "path": f"{at}/{kind}/{escaped(resource)}", "value": value} for kind in kinds]
    return fixes.patch(container.pod, summary, [*operations, *more])


def rename(container: Container, old: str, new: str, summary: str) -> Fix:
    """Ask for the same number under another resource name."""
    at, operations = f"{container.pointer}/resources", []
    for kind in ("limits", "requests"):
        quantities = getattr(container.spec.resources, kind)
        if old in quantities:
            operations.append({"op": "remove", "path": f"{at}/{kind}/{escaped(old)}"})
            operations.append({"op": "add", "path": f"{at}/{kind}/{escaped(new)}", "value": str(quantities[old])})
    return fixes.patch(container.pod, summary, operations)


def sentence(text: str) -> str:
    """Words of a program as the end of a sentence, cut between two of them where they are too many."""
    text = " ".join(text.split())
    return text[:_LONGEST].rpartition(" ")[0] + " …" if len(text) > _LONGEST else text.rstrip(". ") + "."


def machine_types(pod: Pod) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where a pod demands machine types, and which."""
    if selected := pod.spec.node_selector.get(MACHINE):
        yield "nodeSelector", (str(selected),)
    terms = pod.spec.node_terms
    listed = [[row for row in term.match_expressions if row.key == MACHINE and row.operator == "In"] for term in terms]
    if listed and all(len(rows) == 1 for rows in listed):  # each term is enough for a node
        yield "affinity.nodeAffinity", tuple(str(value) for rows in listed for value in rows[0].values)
