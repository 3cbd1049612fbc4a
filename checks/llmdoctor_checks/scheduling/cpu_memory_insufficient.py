"""GPUs are free; CPU or memory do not fit."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Fix,
    NodeVerdict,
    Pending,
    Pod,
    Reason,
    Subject,
    check,
    fixes,
    pod_evidence,
    say_amount,
    say_devices,
    say_pairs,
)
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._karpenter import UNKNOWN, pools
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import one_more, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._told import told
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines, nodes_said, number_of, scaling_lines


@check("cpu-memory-insufficient", since="0.1")
def cpu_memory_insufficient(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The nodes that could run the pod lack the CPU or memory that it requests.

    Requests count, not use: a node is full when its pods' requests add up to what is allocatable, however idle it is.
    The requests of all containers and sidecars count, an init container if it alone asks for more, and the runtime
    class's overhead.

    ## Fix

    Request less (a GPU server needs little more host memory than it takes to load the weights), or free the node of
    others.

    ## References

    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
    """
    yield from refused_for("cpu-memory-insufficient", pod, subject)
    yield from told("cpu-memory-insufficient", pod, subject)
    found = cause(pending, "cpu-memory-insufficient")
    if not pending or not found:
        return
    best = _best(found)
    short = [r for r in found.on(best) if r.resource in ("cpu", "memory")] if best else []
    if best and short:
        gpus = say_devices(pending.accelerators)
        lacks = " and ".join(
            f"{say_amount(r.resource, r.asked)} {_word(r)}, where at most {say_amount(r.resource, r.free or 0)} "
            f"{'is' if r.resource == 'memory' else 'are'} free"
            for r in short
        )
        having = (
            f" and {'has' if number_of(found) == 1 else 'have'} {gpus} free" if gpus and "gpu" not in found.also else ""
        )
        summary = f"{nodes_said(found)} could run it{having}, but it requests {lacks}."
    else:
        names = " and ".join(dict.fromkeys(c.resource for c in found.counts))
        summary = f"Its requests for {names} do not fit on {nodes_said(found)}, by the scheduler's count."
    names_ = dict.fromkeys([*(r.resource for r in short), *(c.resource for c in found.counts if not short)])
    evidence = [e for name in names_ for e in asked_in(pending, name)]
    if pending.pod.spec.overhead:
        text = say_pairs(pending.pod.spec.overhead, ": ")
        evidence.append(pod_evidence(pending.pod, "overhead", text))
    labelled = _labelled(pending)
    evidence += [*node_lines(pending, found), *(scaling_lines(pending) if labelled else ())]
    yield finding(pending, found, summary, evidence, [*_fixes(pending, found, best), *labelled])


def _word(reason: Reason) -> str:
    return "of memory" if reason.resource == "memory" else "CPU cores"


def _best(found: Cause) -> NodeVerdict | None:
    """The node that lacks least."""
    having = [v for v in found.verdicts if found.on(v)]
    return min(
        having,
        key=lambda v: (max((r.asked - (r.free or 0)) / max(r.asked, 1) for r in found.on(v)), v.node.name),
        default=None,
    )


def _fixes(pending: Pending, found: Cause, best: NodeVerdict | None) -> Iterator[Fix]:
    offered, more = ways(pending, found), one_more(pending, found)
    # for a pod without GPUs a node is sooner added than another workload stopped
    sooner = not pending.accelerators and offered and offered[0].owner == "platform"
    yield from [*more, *offered] if sooner else [*offered, *more]
    if best and not offered:
        text = (
            f"Request less in {fixes.edited(pending.pod)}, or free {best.node.name}: other pods request the rest of it"
        )
        yield fixes.advice(text, fixes.pods_on(best.node.name))
    elif not best:
        asks = " and ".join(
            f"{say_amount(name, n)} {name}" for name in ("cpu", "memory") if (n := pending.requests.get(name))
        )
        beside = " beside its GPUs" if pending.accelerators else ""
        selects = say_pairs(pending.pod.spec.node_selector)
        yield fixes.advice(
            f"Add a node{f' with {selects}' if selects else ''} that has {asks or 'more'} free{beside}, or request less in "
            f"{fixes.edited(pending.pod)}; the command shows what the nodes have",
            "kubectl get nodes -o custom-columns=NODE:.metadata.name,CPU:.status.allocatable.cpu,MEMORY:.status.allocatable.memory",
        )


def _labelled(pending: Pending) -> list[Fix]:
    """The label that the pod selects put into a pool of Karpenter's: none has it, so that the nodes that do were made otherwise."""
    event = next((e for e in reversed(pending.scaling) if e.reason == "FailedScheduling"), None)
    said = pools(event.message) if event else []
    unknown = [hit["key"] for pool in said if (hit := re.search(UNKNOWN, pool.demand))]
    key = next((key for key in unknown if key in pending.pod.spec.node_selector), None)
    if key is None or not all(pool.taint or pool.demand for pool in said):
        return []
    text = (
        f"Let a NodePool set {key}={pending.pod.spec.node_selector[key]} on its nodes (spec.template.metadata.labels), or have the pod "
        "select them otherwise: Karpenter adds no node for it now, as none of its pools has this label"
    )
    return [fixes.platform(text, "kubectl get nodepools.karpenter.sh -o wide")]
