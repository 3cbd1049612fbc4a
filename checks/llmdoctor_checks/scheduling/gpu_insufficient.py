"""Every GPU that the pod could have is taken."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Fix, Pending, check, count_of, fixes, names_of
from llmdoctor_checks.scheduling._separation import Cause, cause, free_devices
from llmdoctor_checks.scheduling._words import (
    asked_in,
    fewest,
    finding,
    holders_of,
    look,
    node_lines,
    nodes_said,
    scaling_lines,
)


@check("gpu-insufficient", since="0.1")
def gpu_insufficient(pending: Pending) -> Iterator[Finding]:
    """All GPUs of the kind that the pod asks for are taken.

    The nodes that could run the pod have enough GPUs when they are empty, but other pods hold them. A GPU counts as
    taken as long as its pod exists and has not ended, in any namespace: also while the pod crashes, pulls its image,
    or is being deleted. Nodes without GPUs, tainted nodes of other teams and control planes do not matter here.

    ## Fix

    Free GPUs (stop or scale down what holds them), add a node of that kind, or ask for fewer. Preemption helps only
    against pods of lower priority.

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    - https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    found = cause(pending, "gpu-insufficient")
    if found is None:
        return
    asked = pending.requests.get(found.resource, 0)
    frees = _free(pending, found)
    summary = f"It asks for {asked or 'some'} {found.resource}; {nodes_said(found)} could run it"
    if frees:
        most = max(frees.values())
        summary += f", and {f'at most {most} of them are' if most else 'none of them is'} free on any."
    else:
        summary += " and have too few free, by the scheduler's count."
    evidence = [*asked_in(pending, found.resource), *node_lines(pending, found, holders=True), *scaling_lines(pending)]
    yield finding(pending, found, summary, evidence, _fixes(pending, found, asked, frees))


def _free(pending: Pending, found: Cause) -> dict[str, int]:
    if found.obstacle == "claim":
        devices = free_devices(pending)
        return {v.node.name: devices[v.node.name] for v in found.verdicts if v.node.name in devices}
    return {v.node.name: r.free or 0 for v in found.verdicts if (r := v.lacking(found.resource))}


def _fixes(pending: Pending, found: Cause, asked: int, frees: dict[str, int]) -> Iterator[Fix]:
    options = []
    for name, free in frees.items():
        chosen = fewest(holders_of(pending, name, found.resource), found.resource, asked - free)
        if chosen:
            options.append((len(chosen), sum(h.requests[found.resource] for h in chosen), name, chosen))
    if options:
        _, count, name, chosen = min(options, key=lambda o: o[:3])
        pods = ", ".join(h.ref for h in chosen)
        text = f"Free {count_of(count, 'GPU')} on {name}: stop or scale down {pods} (or add a node of that kind)"
        yield fixes.advice(text, look(name), owner="platform")
    else:
        where = f" like {names_of(found.verdicts, 1)}" if found.verdicts else ""
        yield fixes.advice(f"Free GPUs, or add a node{where}", "kubectl get pods -A -o wide", owner="platform")
    most = max(frees.values(), default=0)
    if 0 < most < asked:
        yield fixes.advice(
            f"Ask for {most} {found.resource} (tensor parallel size {most}), if the model fits on as many"
        )
