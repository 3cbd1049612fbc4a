"""GPUs are free, scattered over nodes."""

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import Finding, Fix, Pending, check, count_of, fixes, names_of
from llmdoctor_checks.scheduling._by_nodes import scattered
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import Change, Stop, fewer, fewest, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, asking, finding, holders_of, node_lines, shared_by


@check("gpu-fragmented", since="0.1")
def gpu_fragmented(pending: Pending) -> Iterator[Finding]:
    """Enough GPUs are free in total, but not on one node.

    All GPUs of a pod must be on one node. The nodes that could run the pod have together as many free GPUs as it asks
    for or more, each alone has too few, because smaller pods are spread over them, or fill a large node while small nodes
    are free. Kueue's topology-aware scheduling keeps its gate closed for the same reason.

    ## Fix

    Move the smaller pods of one node to the free GPUs of the others (delete them one by one while the node is
    cordoned, and uncordon it), or ask for fewer GPUs. To prevent it, let the scheduler pack GPUs: scoring strategy
    MostAllocated for the GPU resource.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/resource-bin-packing/
    """
    found = cause(pending, "gpu-fragmented")
    if found is None:
        return
    asked = pending.requests.get(found.resource, 0)
    short = scattered(pending, found.resource)
    frees = {v.node.name: r.free or 0 for v in short if (r := v.lacking(found.resource))}
    some = [v for v in short if frees[v.node.name]]
    each = " + ".join(str(frees[v.node.name]) for v in some)
    summary = (
        f"{sum(frees.values())} {found.resource} are free on {count_of(len(some), 'node')} ({names_of(some)}: {each}), "
        f"but it asks for {asked} on one node, and no node has more than {max(frees.values())}."
    )
    evidence = [
        *asked_in(pending, found.resource),
        *node_lines(pending, msgspec.structs.replace(found, verdicts=tuple(short)), holders=True),
    ]
    yield finding(pending, found, summary, evidence, _fixes(pending, found, asked, frees), ("gpu-insufficient",))


def _fixes(pending: Pending, found: Cause, asked: int, frees: dict[str, int]) -> Iterator[Fix]:
    def packed(stop: Stop) -> Iterator[Change]:
        """The smaller pods of one node, moved to the free GPUs of the others."""
        name = stop.node.name
        chosen = fewest(holders_of(pending, name, found.resource), found.resource, asked - frees.get(name, 0))
        moved = sum(h.requests[found.resource] for h in chosen)
        if chosen and moved <= sum(free for node, free in frees.items() if node != name):
            commands = [f"kubectl -n {h.pod.metadata.namespace} delete pod {h.pod.metadata.name}" for h in chosen]
            bare = ", ".join(h.ref for h in chosen if not h.pod.metadata.owner_references)
            again = f" (no controller recreates {bare}: apply the manifest again before the uncordon)" if bare else ""
            yield Change(
                text=f"Move {', '.join(h.ref for h in chosen)} ({count_of(moved, 'GPU')}) off {name} to the free GPUs "
                f"elsewhere{again}",
                gone=tuple(h.ref for h in chosen),
                commands=(f"kubectl cordon {name}", *commands, f"kubectl uncordon {name}"),
                owner="platform",
            )
        yield from fewer(stop)

    offered = ways(pending, found, packed) if found.obstacle == "gpu" else []
    yield from offered or [fixes.platform("Free more GPUs on one of these nodes", fixes.pods_on(min(frees)))]
    most = max(frees.values())
    containers = asking(pending, found.resource)
    if most and containers and not offered:
        count, told = shared_by(pending, containers[0], most)
        yield fixes.advice(f"Ask for {count} {found.resource}{told}")
