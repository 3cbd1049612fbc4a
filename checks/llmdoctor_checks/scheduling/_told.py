"""The scheduler's words where the pod is gone: Knative takes it away when it gives up, and repeats them."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Count,
    Finding,
    Fix,
    Pod,
    Subject,
    count_of,
    fixes,
    is_accelerator,
    parse,
    workload_evidence,
)
from llmdoctor_checks.scheduling._words import EXPLAINS

_WORDS = " nodes are available:"


def told(id_: str, pod: Pod, subject: Subject) -> Iterator[Finding]:
    """What a revision says that no node could take: `gpu-insufficient` or `cpu-memory-insufficient`.

    Where a GPU is among what nodes lack it is the GPU: nodes without one mostly lack the rest as well.
    """
    if pod.exists or pod.log_only or subject.exists or subject.static:
        return
    for workload in subject.platform:
        for one in workload.said:
            if _WORDS not in one.text:  # a revision does not call it a failure
                continue
            counts = [c for c in parse(one.text).counts if c.kind == "resource" and c.resource]
            gpus = [c for c in counts if is_accelerator(c.resource)]
            short = gpus or [c for c in counts if c.resource in ("cpu", "memory")]
            if not short or id_ != ("gpu-insufficient" if gpus else "cpu-memory-insufficient"):
                return
            lacks = " and ".join(f"{c.resource} on {count_of(c.number, 'node')}" for c in short)
            yield Finding(
                summary=f"No node could take the pod: too little {lacks}. {workload.ref} gave it up.",
                evidence=(workload_evidence(workload, one.path, one.text),),
                explains=EXPLAINS,
                fixes=_ways(pod, short, workload.ref),
            )
            return


def _ways(pod: Pod, short: list[Count], ref: str) -> tuple[Fix, ...]:
    """Room for what it asks for; less of it first where that is no device, of which it mostly asks for as few as it can do with."""
    names = " and ".join(c.resource for c in short)
    gpus = [c.resource for c in short if is_accelerator(c.resource)]
    asked = sum(container.accelerators.get(name, 0) for container in pod.containers for name in gpus)
    told = ", ".join(f"{c.name} {one.resource} {now}" for one in short for c, now in _requested(pod, one.resource))
    now = f" ({told} now)" if told else ""
    less = fixes.advice(f"Request less {names}{now}, and apply {ref} again")
    free = fixes.platform(
        f"Free {f'{asked:g} ' if asked else ''}{names} on one of the nodes, or add a node that has as much; then apply {ref} again",
        "kubectl get pods -A -o wide",
    )
    if not gpus:
        return less, free
    return (free, less) if asked > 1 else (free,)


def _requested(pod: Pod, resource: str) -> Iterator[tuple[Container, object]]:
    for container in pod.containers:
        asked = container.spec.resources
        amount = asked.requests.get(resource) or asked.limits.get(resource)
        if amount:
            yield container, amount
