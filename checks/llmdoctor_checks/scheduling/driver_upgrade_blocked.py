"""The nodes that fit are held back by a driver upgrade that does not go on."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Holder,
    Line,
    Log,
    Node,
    Pending,
    Usage,
    check,
    few,
    fixes,
    is_accelerator,
    log_evidence,
    node_evidence,
    usage_of,
)
from llmdoctor_checks.scheduling._admission import state_of
from llmdoctor_checks.scheduling._obstacles import UPGRADE_STATE
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines

#: The states in which it waits for pods.
_WAITING = frozenset({"wait-for-jobs-required", "pod-deletion-required", "drain-required"})
_FAILED = "upgrade-failed"

_MOST_PODS = 3

#: What k8s-driver-manager, the first container of the driver's pod, says where a module is still in use.
_IN_USE = "Could not unload NVIDIA driver kernel modules"


def _on_node(node: Node, cluster: Cluster) -> Iterator[Finding]:
    state, pods = _state(node), _gpu_pods(usage_of(cluster), node)
    failed = state == _FAILED
    if not node.cordoned or not (failed or (state in _WAITING and pods)):
        return
    refs = ", ".join(sorted(h.ref for h in pods)[:_MOST_PODS])
    why = "has failed, and it is still cordoned" if failed else f"waits ({state}) for the pods on its GPUs: {refs}"
    yield Finding(
        role="cause" if failed else "risk",
        severity="warning",
        confidence="certain",
        summary=f"The driver upgrade of {node.name} {why}.",
        evidence=(node_evidence(node, f"{UPGRADE_STATE}={state}"),),
        explains=("node-not-ready",),
        fixes=tuple(_fixes(node, pods)),
    )


@check("driver-upgrade-blocked", since="0.1", on_node=_on_node)
def driver_upgrade_blocked(pending: Pending, cluster: Cluster) -> Iterator[Finding]:
    """The nodes that could run the pod are cordoned for a driver upgrade that does not go on.

    NVIDIA's GPU operator upgrades the driver node by node: it cordons the node, waits for jobs where it was told to,
    deletes or drains the pods that use a GPU, replaces the driver and uncordons the node. A pod that it is not allowed to delete
    (no controller, an emptyDir volume, a PodDisruptionBudget) or a job that does not end keeps the node cordoned; the
    label `nvidia.com/gpu-driver-upgrade-state` says where it stands. A driver's pod that starts again beside pods that use the
    driver ends the same way: it cannot unload the modules, and keeps ending in k8s-driver-manager.

    ## Fix

    End or delete the pods that still use the node's GPUs; the operator then goes on by itself. After a failed upgrade
    find the reason in the events of the node and in the log of its driver pod, fix it, and set the label to
    `upgrade-required` to try again. `spec.driver.upgradePolicy` of the ClusterPolicy says what the operator may delete:
    `podDeletion.force` pods without a controller, `podDeletion.deleteEmptyDir` pods with an emptyDir, such as a model's
    /dev/shm, and `drain.enable` all others of the node. In the values of the operator's chart `podDeletion` is called
    `driver.upgradePolicy.gpuPodDeletion`.

    ## References

    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/gpu-driver-upgrades.html
    """
    yield from _in_use(pending, cluster)
    found = cause(pending, "node-not-ready")
    held = [v.node for v in found.verdicts if v.node.cordoned and _state(v.node)] if found else []
    failed = [n for n in held if _state(n) == _FAILED]
    waiting = {n.name: _gpu_pods(pending.usage, n) for n in held if _state(n) in _WAITING}
    unknown = not cluster.complete("Pod")
    blocked = [n for n in held if n in failed or waiting.get(n.name) or (unknown and n.name in waiting)]
    if found is None or not blocked:
        return
    node = min(blocked, key=lambda n: (n not in failed, n.name))
    pods = waiting.get(node.name, [])
    if node in failed:
        why = "its driver upgrade has failed, and it is still cordoned"
    else:
        why = f"it is cordoned for a driver upgrade that waits ({_state(node)}) for pods on it"
        why += f": {few(sorted(h.ref for h in pods), _MOST_PODS)}" if pods else ""
    more = f"; the same holds for {len(blocked) - 1} more" if len(blocked) > 1 else ""
    evidence = [*node_lines(pending, found), *(node_evidence(n, f"{UPGRADE_STATE}={_state(n)}") for n in blocked[:3])]
    summary = f"{node.name} would fit, but {why}{more}."
    yield finding(pending, found, summary, evidence, _fixes(node, pods), ("node-not-ready",))


def _in_use(pending: Pending, cluster: Cluster) -> Iterator[Finding]:
    """Nodes whose driver's pod cannot replace a driver that is in use."""
    found = cause(pending, "node-not-ready") or cause(pending, "device-plugin-down")
    for verdict in found.verdicts if found else ():
        node = verdict.node
        driver = next(
            (h.pod for h in pending.usage.holders(node.name) if "driver-daemonset" in h.pod.metadata.name), None
        )
        stuck = driver is not None and driver.status.phase != "Running"
        line = _refused(cluster, driver.metadata.namespace, driver.metadata.name) if driver and stuck else None
        if found is None or driver is None or line is None or (node.cordoned and _state(node) in (_FAILED, *_WAITING)):
            continue
        meta = driver.metadata
        ref = f"{meta.namespace or 'default'}/{meta.name}"
        pods = _gpu_pods(pending.usage, node)
        held = f": {', '.join(sorted(h.ref for h in pods)[:_MOST_PODS])}" if pods else ""
        yield finding(
            pending,
            found,
            f"{node.name} would fit, but its driver's pod cannot unload the driver that is in use there{held}.",
            [
                *node_lines(pending, found),
                Evidence(source="pod", ref=ref, text=f"driver: {state_of(driver)}"),
                log_evidence(line),
                *((node_evidence(node, f"{UPGRADE_STATE}={_state(node)}"),) if _state(node) else ()),
            ],
            [
                fixes.platform(
                    f"End what uses a GPU of {node.name}{_users(node)}, or reboot the node; the driver's pod then goes on by itself",
                    f"kubectl cordon {node.name}",
                    fixes.on_node(node.name, "sh -c 'lsof /dev/nvidia*; cat /sys/module/nvidia/refcnt'"),
                )
            ],
            (found.id,),
        )
        return


def _refused(cluster: Cluster, namespace: str, pod: str) -> Line | None:
    """Where the driver's pod says that the modules are in use."""
    logs = (t for t in cluster.snapshot.logs if (t.pod, t.namespace or "default") == (pod, namespace or "default"))
    return next((line for text in logs for line in Log(text).find(_IN_USE)), None)


def _state(node: Node) -> str:
    return node.labels.get(UPGRADE_STATE, "")


def _gpu_pods(usage: Usage, node: Node) -> list[Holder]:
    """The pods that keep the driver in use."""
    return [h for h in usage.holders(node.name) if any(r.startswith("nvidia.com/") for r in h.requests)]


def _users(node: Node) -> str:
    """The pods that have GPUs of a node."""
    if held := [h.ref for h in usage_of(node.cluster).holders(node.name) if any(map(is_accelerator, h.requests))]:
        return f" ({', '.join(sorted(held)[:4])})"
    return " (no pod has any: a process beside them)" if node.cluster.complete_on(node.name) else ""


def _fixes(node: Node, pods: list[Holder]) -> Iterator[Fix]:
    if pods:
        one = pods[0].pod.metadata
        yield fixes.platform(
            f"End {pods[0].ref}, or let it move: the operator then upgrades the driver and uncordons {node.name}",
            f"kubectl -n {one.namespace or 'default'} get pod {one.name} -o wide",
            f"kubectl get node {node.name} --show-labels",
        )
        return
    if _state(node) in _WAITING:
        yield fixes.platform(
            f"See which jobs and pods of {node.name} the upgrade waits for, and end them or let them move; the operator then goes on",
            fixes.pods_on(node.name),
            f"kubectl get events -A --field-selector involvedObject.name={node.name}",
        )
        return
    yield fixes.platform(
        f"Find in the events why the upgrade failed, fix it, and let the operator try again on {node.name}",
        f"kubectl get events -A --field-selector involvedObject.name={node.name}",
        f"kubectl label node {node.name} --overwrite {UPGRADE_STATE}=upgrade-required",
    )
