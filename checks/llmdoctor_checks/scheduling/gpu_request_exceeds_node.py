"""More GPUs are asked for than any node has."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    MACHINE,
    Finding,
    Fix,
    Pending,
    Pod,
    Subject,
    check,
    count_of,
    engines_in,
    expression,
    fixes,
    pod_evidence,
)
from kubectl_llmdoctor.catalog.gpus import count_on
from llmdoctor_checks.scheduling._admission import Refusal, refusal
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import (
    asked_in,
    asking,
    finding,
    lower,
    machine_types,
    node_lines,
    nodes_said,
    shared_by,
    told_of,
    whole_card,
)

#: Labels of nodes whose device plugin may offer more `nvidia.com/gpu` than there are GPUs.
_SHARED = expression(r"gpu[-.]sharing|gpu\.replicas|nvidia\.com/(?:mig|device-plugin\.config)|gpu-partition-size")


@check("gpu-request-exceeds-node", since="0.1")
def gpu_request_exceeds_node(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The pod asks for more GPUs than any node of that kind has.

    The GPUs of one pod must be on one node. What counts is the sum over all containers and sidecars, or the largest
    init container if that is more. Waiting and freeing GPUs cannot help. Where GPUs are shared (time-slicing, MPS) the
    device plugin may be set to give a pod one share only: two shares would be the same GPU twice. HAMi and Volcano's vGPUs give
    a container one share of each GPU: ten shares that a node with one GPU offers are for ten containers.

    In a manifest it is a risk where the node selector demands a cloud's machine type that has fewer, unless a node of that
    type offers as many, or one is demanded that shares or slices its GPUs.

    ## Fix

    Ask for as many GPUs as a node has and set the tensor parallel size to that; spread a larger model over several
    pods with pipeline parallelism (LeaderWorkerSet, Ray); or add larger nodes.

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling.html
    """
    found = cause(pending, "gpu-request-exceeds-node")
    if pending and found:
        yield _waiting(pending, found)
        return
    if not pod.exists and not pod.lent and (few := _machines(pod, subject)):
        yield few
        return
    refused = refusal(pod)
    if refused and refused.verdict == "shared":
        yield _shared(pod, refused)


def _machines(pod: Pod, subject: Subject) -> Finding | None:
    """More GPUs than a machine of the one type has that the node selector, or the required affinity, allows."""
    asked = pod.accelerators.get("nvidia.com/gpu", 0)
    if any(_SHARED.search(key) or str(value).endswith("-SHARED") for key, value in pod.spec.node_selector.items()):
        return None
    for path, values in machine_types(pod):
        if any(
            n.labels.get(MACHINE) in values and (n.allocatable("nvidia.com/gpu") or 0) >= asked for n in subject.nodes
        ):
            continue  # its device plugin offers each GPU several times, or in slices
        counts = [count_on(value) for value in values]
        known = [count for count in counts if count is not None]
        if not known or len(known) < len(counts) or max(known) >= asked:
            continue
        most = max(known)
        names = " or ".join(values)
        containers = [c for c in pod.containers if c.accelerators.get("nvidia.com/gpu")]
        return Finding(
            role="risk",
            summary=f"It asks for {asked} nvidia.com/gpu and for a node of type {names}, which has {most}: it stays Pending.",
            evidence=(
                pod_evidence(pod, path, f"{MACHINE}: {', '.join(values)}"),
                *(
                    pod_evidence(c, "resources", f"nvidia.com/gpu: {c.accelerators['nvidia.com/gpu']}")
                    for c in containers
                ),
            ),
            fix=fixes.advice(
                f"Choose a type with {asked} GPUs or more, or ask for {most} and set the tensor parallel size to that, in "
                f"{fixes.edited(pod)}"
            ),
        )
    return None


def _waiting(pending: Pending, found: Cause) -> Finding:
    asked = pending.requests.get(found.resource, 0)
    reasons = [r for r in found.reasons if r.resource == found.resource]
    most = max((r.allocatable or 0 for r in reasons), default=0)
    free = max((r.free or 0 for r in reasons), default=0)
    if shared := next((r for r in reasons if r.kind == "shares"), None):
        summary = (
            f"A container asks for {shared.asked} {found.resource}, and {shared.plugin} gives it one share of each GPU at the most: "
            f"the largest of {nodes_said(found)} has {count_of(most, 'GPU')}."
        )
    elif most:
        summary = f"It asks for {asked} {found.resource}, and the largest of {nodes_said(found)} has {most}"
        summary += f" ({free} free now)." if free < most else "."
    else:
        summary = (
            f"It asks for {asked} {found.resource}, and by the scheduler's count no node could ever hold that many: "
            "preemption would help on none."
        )
    evidence = [*asked_in(pending, found.resource), *node_lines(pending, found)]
    return finding(pending, found, summary, evidence, _fixes(pending, found, asked, most, free))


def _fixes(pending: Pending, found: Cause, asked: int, most: int, free: int) -> Iterator[Fix]:
    containers = asking(pending, found.resource)
    if most and len(containers) > 1 and all((c.request(found.resource) or 0) <= most for c in containers):
        serving = {engine.container.name for engine in engines_in(pending.pod)}
        main = max(containers, key=lambda c: (c.name in serving, c.request(found.resource) or 0))
        others = ", ".join(c.name for c in containers if c is not main)
        names = ", ".join(f"{c.name} {c.request(found.resource)}" for c in containers)
        apart = ("a pod of its own", "it needs") if len(containers) == 2 else ("pods of their own", "they need")
        yield fixes.advice(
            f"Give {others} {apart[0]}, or no {found.resource} where {apart[1]} none: all of a pod must be on one node, and none has more "
            f"than {most} ({names} now)"
        )
    yield from ways(pending, found)
    if most > free and len(containers) == 1:
        count, told = shared_by(pending, containers[0], most)
        text = f"Ask for {count} {found.resource} instead of {asked}{told}"
        more = told_of(pending, containers[0], count)
        yield lower(containers[0], found.resource, str(count), f"{text}; it then fits when a whole node is free", more)
    elif most > free:
        names = ", ".join(f"{c.name} {c.request(found.resource)}" for c in containers)
        yield fixes.advice(f"Ask for at most {most} {found.resource} in all containers together (now {names})")
    if any(r.kind == "shares" for r in found.reasons) and (whole := whole_card(pending)):
        yield whole
    larger = f"Add nodes with {asked} GPUs or more, or spread the model over several pods (pipeline parallelism)"
    yield fixes.platform(larger)


def _shared(pod: Pod, refused: Refusal) -> Finding:
    """The plugin shares GPUs and hands out one share per pod (`failRequestsGreaterThanOne`)."""
    resource = refused.resource or next(iter(pod.accelerators), "the GPU")
    asked = pod.accelerators.get(resource, 0)
    containers = [c for c in pod.containers if c.accelerators.get(resource)]
    answers = [lower(containers[0], resource, "1", f"Ask for 1 {resource} instead of {asked}")] if containers else []
    return Finding(
        confidence="certain",
        summary=f"It asks for {asked} {resource}; GPUs of {pod.spec.node_name} are shared, one share per pod.",
        evidence=(
            pod_evidence(pod, "status", refused.text),
            *(pod_evidence(c, "resources", f"{resource}: {c.accelerators[resource]}") for c in containers),
        ),
        explains=("pod-failed", "not-ready"),
        fixes=(*answers, fixes.platform("Use nodes whose GPUs are not shared")),
    )
