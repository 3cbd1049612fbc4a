"""A device other than the GPU is short."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Fix,
    Node,
    Pending,
    Pod,
    Subject,
    check,
    event_evidence,
    fixes,
    is_unfit,
    k8s,
    node_evidence,
    pod_evidence,
    say_amount,
    say_bytes,
    units,
)
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._daemons import let_in, missing, why_none
from llmdoctor_checks.scheduling._hami import by_reason
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import instead, ways
from llmdoctor_checks.scheduling._separation import cause, causes
from llmdoctor_checks.scheduling._words import (
    EXPLAINS,
    asked_in,
    asking,
    finding,
    node_lines,
    nodes_said,
    said_by,
    whole_card,
)

#: Annotations by which a pod chooses among the GPUs of nodes with HAMi.
_CHOSEN = r"nvidia\.com/(?:no)?use-gpu(?:type|uuid)"

#: The label from which KAI takes the memory of a node's GPUs, and what it says where it has not.
_MEMORY = "nvidia.com/gpu.memory"
_UNSYNCED = "the gpu memory count on the node was not synced"


#: HAMi's words where it filters all nodes out, before and since it names reasons (pkg/scheduler/scheduler.go).
_NO_NODE = r"(?:.{0,40}are available: )?no available node, (?:all node scores|\d{1,5} nodes) do not meet"
#: HAMi's and Volcano's words for a container that asks for shares of more GPUs than a node has.
_TOO_FEW_GPUS = ("NodeInsufficientDevice", "gpu cards on node")


#: Shares of a GPU that HAMi's scheduler alone counts: its device plugin offers the kubelet `nvidia.com/gpu` and none of these, and the
#: scheduler's own configuration (charts/hami) has Kubernetes' part of it pass over them (`ignoredByScheduler`).
_OF_HAMI = ("nvidia.com/gpumem", "nvidia.com/gpumem-percentage", "nvidia.com/gpucores")


@check("extended-resource-insufficient", since="0.1")
def extended_resource_insufficient(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """GPUs are free, but a share of one or another device that the pod asks for is short.

    Besides GPUs a pod can ask for network devices (RDMA, EFA), huge pages, or slices of shared GPUs. Each must be free
    on the same node. Huge pages must have been reserved when the node started. KAI shares a GPU by memory (annotation
    `gpu-memory`) where the node's label `nvidia.com/gpu.memory` says how much a GPU has; GPUs that share the memory of the
    system (GB10) have none, and GPU Feature Discovery sets no label.

    Device plugins that hand out any device of a node (`/dev/dri`, `/dev/fuse`, `/dev/kvm`) each do so by a domain of their own: a manifest
    that names that of another plugin waits forever.

    ## Fix

    Ask for as many as are free, drop the request if the server runs without it, or have the device provided on the GPU
    nodes (RDMA device plugin, huge pages in the kernel's settings).

    ## References

    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources
    - https://kubernetes.io/docs/tasks/manage-hugepages/scheduling-hugepages/
    """
    yield from refused_for("extended-resource-insufficient", pod, subject)
    if pending and (unknown := _of_unknown_memory(pending)):
        yield unknown
        return
    found = cause(pending, "extended-resource-insufficient")
    if pending and not found:
        yield from _of_no_card(pending)
    if not pending or not found:
        return
    resource = found.resource
    asked = say_amount(resource, pending.requests.get(resource, 0))
    have = [r for r in found.reasons if r.resource == resource]
    other = _under_another_name(pending, found)
    none = have and all(r.allocatable == 0 for r in have)
    without = missing(pending.pod.cluster, (v.node for v in found.verdicts), resource) if none and not other else []
    if none:
        has = "has no" if len(found.verdicts) == 1 else "none of them has"
        summary = f"{nodes_said(found)} could run it, but {has} {resource}; it asks for {asked}."
        summary += f" {other[0].name} offers {other[1]}." if other else f" {why_none(without)}." if without else ""
        if _of_hami(pending, resource):
            summary += (
                f" No node ever offers it: HAMi's scheduler alone counts it, and {pending.scheduler} places this pod."
            )
    elif have:
        most = say_amount(resource, max(r.free or 0 for r in have))
        summary = (
            f"{nodes_said(found)} could run it, but at most {most} {resource} is free on any; it asks for {asked}."
        )
    else:
        what = f"{asked} {resource}" if pending.requests.get(resource) else resource
        words = "" if what != resource else f": {', '.join(f'{c.number} {c.text}' for c in found.counts)}"
        summary = f"It asks for {what}, which is short on {nodes_said(found)} by the scheduler's count{words}."
    yield finding(
        pending,
        found,
        summary,
        [
            *asked_in(pending, resource),
            *node_lines(pending, found),
            *(
                (node_evidence(other[0], f"status.allocatable {other[1]}: {other[0].amounts[other[1]]}"),)
                if other
                else ()
            ),
            *(proof for one in without[:1] for proof in one.evidence),
        ],
        [*let_in(without), *_fixes(pending, found, other[1] if other else "")],
    )


def _of_no_card(pending: Pending) -> Iterator[Finding]:
    """A pod whose shares fit the cards of no node by HAMi's filter, where neither it nor a node that was read says which are short."""
    said = [event for event in pending.pod.events if re.match(_NO_NODE, event.message)]
    if pending.verdicts or causes(pending) or not (said or re.search(_NO_NODE, pending.message)):
        return
    shares = [
        (container, name, amount)
        for container in pending.pod.containers
        for name, amount in container.spec.resources.limits.items()
        if "/" in name
    ]
    several = any(container.accelerators.get(name, 0) > 1 for container, name, _ in shares)
    look = "kubectl -n kube-system logs deploy/hami-scheduler -c vgpu-scheduler-extender | grep " + pending.pod.name
    each = "no more of them than a node has cards in one container (each is of another card), and " if several else ""
    if shares:
        asked = ", ".join(f"{name}: {amount}" for _, name, amount in shares)
        yield Finding(
            confidence="possible",
            summary=f"HAMi finds no node whose cards have what it asks for: {asked}.",
            evidence=(*said_by(pending), *(event_evidence(event, pending.pod.cluster) for event in said[-1:])),
            explains=EXPLAINS,
            fixes=(
                *_allowed(pending),
                fixes.advice(f"Ask for less in {fixes.edited(pending.pod)}: {each}a smaller share of each card", look),
                fixes.platform("See in the log of HAMi's scheduler what each node lacks", look),
            ),
        )


def _allowed(pending: Pending) -> Iterator[Fix]:
    """That the pod may have only some of the GPUs, by annotations of HAMi's."""
    held = [f"{key}: {value}" for key, value in pending.pod.annotations.items() if re.fullmatch(_CHOSEN, str(key))]
    if held:
        yield fixes.advice(
            f"See whether the nodes have GPUs that the annotations of {fixes.edited(pending.pod)} allow ({', '.join(held)})"
        )


def _under_another_name(pending: Pending, found: Cause) -> tuple[Node, str] | None:
    """A node that offers a resource of the same name by another vendor's domain: what one device plugin or another calls a device."""
    asked = pending.requests.get(found.resource, 0)
    domain, _, name = found.resource.partition("/")
    for verdict in found.verdicts:
        for offered, amount in verdict.node.amounts.items():
            of, _, called = offered.partition("/")
            if name and called == name and of != domain and amount >= max(asked, 1):
                return verdict.node, offered
    return None


def _of_unknown_memory(pending: Pending) -> Finding | None:
    """A share of a GPU by its memory, which KAI does not know of the nodes (pkg/scheduler/api/node_info)."""
    asked = pending.pod.annotations.get("gpu-memory")
    unsynced = _UNSYNCED in pending.message
    if not asked or not (unsynced or "GPU memory" in pending.message):
        return None
    with_gpus = [v.node for v in pending.verdicts if v.node.amounts.get("nvidia.com/gpu")]
    if any(_MEMORY in node.labels for node in with_gpus) or not (with_gpus or unsynced):
        return None
    names = ", ".join(node.name for node in with_gpus[:3])
    return Finding(
        summary=f"It asks for {asked} MiB of a GPU, and KAI does not know how much memory the GPUs"
        + (f" of {names} have: the label {_MEMORY} is missing." if names else " of any node have."),
        evidence=(
            pod_evidence(pending.pod, "metadata.annotations[gpu-memory]", str(asked)),
            *said_by(pending),
            *(node_evidence(node, f"no label {_MEMORY}") for node in with_gpus[:3]),
        ),
        explains=(*EXPLAINS, *(c.id for c in causes(pending))),
        fixes=(
            fixes.advice(
                f"Ask for a fraction of the GPU instead: the annotation gpu-fraction in {fixes.edited(pending.pod)}"
            ),
            fixes.platform(
                f"Have GPU Feature Discovery label the nodes, or label them by hand: {_MEMORY}, in MiB",
                f"kubectl get nodes -L {_MEMORY}",
            ),
        ),
    )


#: Parts of the images of device plugins; NVIDIA's own hands out GPUs alone.
_PLUGINS, _OF_GPUS = r"dev(?:ice)?-plugin", r"nvidia/k8s-device-plugin|gpu-device-plugin"


def _found_none(pending: Pending, found: Cause) -> Fix | None:
    """The device plugin of nodes that know the resource, of which no node has any: it has come to the kubelet, with no device."""
    resource = found.resource
    known = [v.node for v in found.verdicts if v.node.amounts.get(resource) == 0]
    if "/" not in resource or not known or any(v.node.amounts.get(resource) for v in found.verdicts):
        return None
    names = ", ".join(sorted(node.name for node in known)[:3])
    plugins = [
        pod
        for pod in pending.pod.cluster.all(k8s.Pod, "Pod")
        if pod.spec.node_name in {node.name for node in known}
        and any(re.search(_PLUGINS, c.image) and not re.search(_OF_GPUS, c.image) for c in pod.spec.containers)
    ]
    one = (
        min(plugins, key=lambda pod: pod.metadata.name)
        if plugins and len({p.spec.node_name for p in plugins}) == len(plugins)
        else None
    )
    where = f"the log of {one.metadata.namespace}/{one.metadata.name}" if one else "the log of its device plugin"
    look = (
        f"kubectl -n {one.metadata.namespace} logs {one.metadata.name}"
        if one
        else "kubectl get pods -A -o wide | grep -i -e device-plugin -e dev-plugin"
    )
    return fixes.platform(
        f"See in {where} why it has no device to offer: there are 0 {resource} on {names}, which a plugin has told of. Its selectors may "
        "name other devices than are there, or the node lack their driver",
        look,
    )


def _reserved(pending: Pending, found: Cause) -> Iterator[Fix]:
    """Huge pages that the kernel of a node sets aside, where none has as many in all."""
    size = units(found.resource.removeprefix("hugepages-"))
    asked = pending.requests.get(found.resource, 0)
    short = [r for r in found.reasons if r.resource == found.resource and (r.allocatable or 0) < asked]
    if not size or not asked or not short or len(short) < len(found.verdicts):
        return
    node = min((v.node.name for v in found.verdicts), default="")
    held = max(((r.allocatable or 0) - (r.free or 0) for r in short), default=0)  # by other pods, which keep them
    pages = -(-(asked + held) // size)
    at_boot = f"hugepagesz={found.resource.removeprefix('hugepages-').removesuffix('i')} hugepages={pages} on the kernel's command line"
    yield fixes.platform(
        f"Reserve {pages} pages of {say_bytes(size)} on {node or 'the nodes that have the accelerators'} ({at_boot}; pages of 2 MiB also "
        "by vm.nr_hugepages), and restart its kubelet, which counts them as it starts",
        *([fixes.on_node(node, f"sysctl -w vm.nr_hugepages={pages}")] if node and size == 2 << 20 else []),
        *([fixes.on_node(node, "systemctl restart kubelet")] if node else []),
    )


def _of_hami(pending: Pending, resource: str) -> bool:
    """Whether a share of HAMi's is asked of a scheduler that is not HAMi's."""
    offered = any(node.amounts.get(resource) for node in pending.subject.nodes.all)
    return resource in _OF_HAMI and not offered and "hami" not in pending.scheduler.lower()


def _fixes(pending: Pending, found: Cause, other: str) -> Iterator[Fix]:
    resource = found.resource
    if _of_hami(pending, resource):
        yield _by_hamis_scheduler(pending)
    for container in asking(pending, resource)[:1] if other else ():
        text = f"Ask for {other} in place of {resource} in {container.name}"
        yield fixes.patch(pending.pod, text, [*instead(container, resource, other)])
    offered = ways(pending, found)
    if resource.startswith("hugepages-"):
        yield from _reserved(pending, found)
    if not offered and not other and (nothing := _found_none(pending, found)):
        yield nothing
    yield from offered
    by_hami = list(by_reason(pending, found))
    yield from by_hami
    mismatch = not by_hami and any("Mismatch" in count.text for count in found.counts)  # HAMi
    if mismatch:
        yield fixes.advice(
            f"See which GPUs the annotations of {fixes.edited(pending.pod)} allow (nvidia.com/use-gputype, "
            "nvidia.com/nouse-gputype, nvidia.com/use-gpuuuid): the model or the UUID of the nodes' GPUs is not among them"
        )
    free = max((r.free or 0 for r in found.reasons if r.resource == resource), default=0)
    for container in asking(pending, resource)[:1]:
        if free and not offered:
            yield fixes.advice(f"Ask for at most {say_amount(resource, free)} {resource} in {container.name}")
        text = f"Drop {resource} from {container.name}, if it can do without"
        yield fixes.patch(pending.pod, text, [*instead(container, resource)])
    if not resource.startswith("hugepages-"):
        yield from _more_of_it(pending, found, known=mismatch, by_hami=bool(by_hami))


def _by_hamis_scheduler(pending: Pending) -> Fix:
    return fixes.platform(
        "Have HAMi's scheduler place the pod: schedulerName: hami-scheduler, which its webhook puts into each new pod that asks for "
        "shares. It leaves out privileged containers, and what is labelled hami.io/webhook: ignore (pod or namespace); or HAMi is not "
        "installed here",
        "kubectl get mutatingwebhookconfigurations",
        "kubectl get pods -A -o wide | grep -i hami",
        f"kubectl get namespace {pending.pod.namespace} --show-labels",
    )


def _more_of_it(pending: Pending, found: Cause, *, known: bool, by_hami: bool) -> Iterator[Fix]:
    """More of a resource on the nodes, or a smaller share of a GPU, unless it is known already what keeps HAMi from giving one."""
    resource, texts = found.resource, [count.text for count in found.counts]
    if pending.requests.get(resource):
        yield fixes.platform(f"Provide {resource} on the nodes that have the GPUs")
    elif "/" in resource:
        yield fixes.platform(f"Free {resource} on those nodes, ask for less of it, or add a node that has it")
    elif any(words in text for text in texts for words in _TOO_FEW_GPUS):
        yield fixes.advice(
            f"Ask in one container of {fixes.edited(pending.pod)} for no more shares than the nodes have GPUs: each comes from another "
            "GPU; more of one is asked for by its memory"
        )
    elif not known and (not by_hami or any("CardInsufficient" in text for text in texts)):
        if any(map(is_unfit, texts)):  # it does not say why
            yield from _allowed(pending)
        if whole := whole_card(pending):
            yield whole
        yield _smaller_share(pending)


def _smaller_share(pending: Pending) -> Fix:
    shares = [
        f"{name}: {amount}"
        for container in pending.pod.containers
        for name, amount in container.spec.resources.limits.items()
        if "/" in name
    ]
    now = f" ({', '.join(shares)} now)" if shares else ""
    return fixes.advice(
        f"Ask for a smaller share in {fixes.edited(pending.pod)}{now}, or end pods that share the GPUs of these nodes",
        "kubectl get pods -A -o wide",
    )
