"""Pods that left with their node."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Events,
    Finding,
    Fix,
    Node,
    Pod,
    Subject,
    check,
    dig,
    escaped,
    fixes,
)
from llmdoctor_checks._scalers import scalers_of
from llmdoctor_checks.scheduling._claims import volume_claims
from llmdoctor_checks.scheduling._clouds import SPOT
from llmdoctor_checks.scheduling._disruption import Taken, leaving, lost, taken

#: What has the replicas of a workload, and its bounds; KEDA makes an autoscaler of Kubernetes of its own object, which stands first.
_BOUNDS = (
    ("ScaledObject", "minReplicaCount", "maxReplicaCount"),
    ("HorizontalPodAutoscaler", "minReplicas", "maxReplicas"),
)


@check("node-drained", since="0.1")
def node_drained(pod: Pod, subject: Subject, events: Events | None, node: Node | None) -> Iterator[Finding]:
    """The node of the pod is drained, interrupted or shut down.

    Somebody took the pod away by intent: `kubectl drain`, an upgrade, an autoscaler that removes or consolidates nodes, the
    interruption of a spot machine, a NoExecute taint, the descheduler, or the shutdown of the node. Kueue ends a pod that it has
    pinned to a node which was tainted since. The server is not at fault. It ends by SIGTERM (143), or by SIGKILL (137) when the
    grace period is too short, and the others of its group report only a broken connection.

    While it still runs, a notice of the cloud (`Spot ITN received`, Azure's scheduled events, GKE's taint of a node that is about to be
    stopped) or the taint of an autoscaler that removes the node tells of it: a risk, with two minutes or less on spot machines.

    ## Fix

    Keep the server where it is with a PodDisruptionBudget and the autoscaler's annotation
    (`karpenter.sh/do-not-disrupt: "true"`, `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`); run it on machines
    that are not taken back; run more than one replica. A grace period as long as the longest answer loses no request.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
    - https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
    """
    found = taken(pod, subject, events, node)
    if found is None and (going := leaving(pod, events, node)):
        yield Finding(
            role="risk",
            severity="warning",
            confidence="certain" if going.spot else "likely",
            summary=f"{pod.name} runs, and its node {pod.spec.node_name} is about to go: {going.why}.",
            evidence=going.evidence,
            fixes=(*_other_replicas(pod, subject), _advice(pod, going, node)),
        )
    if found is None or found.kind != "drained":
        return
    name = pod.spec.node_name or "its node"
    summary = f"{pod.name} was taken from {name}: {found.why}"
    if found.pinned:
        summary = f"Kueue had given {pod.name} to {found.pinned}, which was tainted before it ran there: {found.why}"
    if found.before:
        summary = f"{found.before} pods before {pod.name} were taken away, and it starts again: {found.why}."
    yield lost(
        found,
        summary + ". The node was not read: it may as well have stopped answering." * found.open,
        fixes.advice(
            f"Leave it out of the descheduler's policy (labelSelector or priorityThreshold of DefaultEvictor, namespaces or "
            f"evictableNamespaces of {found.plugin}), or protect it with a PodDisruptionBudget ({fixes.edited(pod)})",
            "kubectl get configmaps -A -o name | grep descheduler",
            f"kubectl -n {pod.namespace} get poddisruptionbudgets",
        )
        if found.plugin
        else fixes.advice(
            f"Take the taint from {found.pinned} when it is sound again, or have Kueue choose again: set spec.active of the Workload "
            "to false, and to true again when the pods are gone",
            f"kubectl -n {pod.namespace} get workloads.kueue.x-k8s.io",
            f"kubectl describe node {found.pinned}" if found.pinned != "its node" else "kubectl get nodes",
        )
        if found.pinned
        else _advice(pod, found, node),
    )


def _other_replicas(pod: Pod, subject: Subject) -> Iterator[Fix]:
    """What to do now, where nobody else serves meanwhile: another one, which starts on another node while this one still answers."""
    workload = subject.workload
    if workload is None or workload.replicas != 1 or workload.item.kind not in ("Deployment", "StatefulSet"):
        return
    shared = {v.persistent_volume_claim.claim_name for v in pod.spec.volumes if v.persistent_volume_claim}
    if workload.item.kind == "Deployment" and any(x.on_one_node and x.name in shared for x in volume_claims(pod)):
        return  # the second would wait for the volume that this one has
    whose = f"{workload.item.kind}/{workload.item.name}"
    then = "it goes to another node and loads while this one still answers; let this one end by itself"
    if maker := fixes.unread(pod):
        yield fixes.advice(f"Have {maker} run a second replica of {whose} now, whose number it decides on: {then}")
        return
    bounds = (
        (scaler, least, most)
        for kind, least, most in _BOUNDS
        for scaler in scalers_of(kind, pod.namespace, [(workload.kind, workload.name)], pod.cluster)
    )
    for scaler, least, most in bounds:
        wanted = [{"op": "add", "path": f"/spec/{least}", "value": 2}]
        if isinstance(top := dig(scaler.raw, f"spec.{most}"), int) and top < 2:
            wanted.append({"op": "add", "path": f"/spec/{most}", "value": 2})
        yield fixes.patch_object(
            scaler,
            f"Start a second replica of {whose} now, by {least} 2 of {scaler.kind}/{scaler.name}: {then}",
            wanted,
        )
        return
    yield fixes.advice(
        f"Start a second replica of {whose} now: {then}",
        f"kubectl -n {pod.namespace} scale {workload.item.kind.lower()}/{workload.item.name} --replicas=2",
    )


#: Who takes nodes away by what is said of it, and the annotation by which each leaves a pod where it is.
_KEEPERS = (
    (r"Disrupting Node|DisruptionTerminating|[Kk]arpenter", ("karpenter.sh/do-not-disrupt", "true")),
    (r"[Ss]cale ?[Dd]own|cluster-autoscaler", ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false")),
)
_SHUTDOWN = r"node shutdown|Node is shutting"


def _on_demand(pod: Pod, found: Taken, node: Node | None) -> Fix | None:
    """The pod on machines that are not taken back, where its node had a label that tells them apart; Karpenter's all have."""
    told = "SpotInterrupted" in " ".join(one.text for one in found.evidence)
    for key, spot, other in SPOT:
        if other and ((node and node.labels.get(key) == spot) or (told and key.startswith("karpenter.sh/"))):
            there = bool(pod.spec.node_selector)
            path = f"/nodeSelector/{escaped(key)}" if there else "/nodeSelector"
            text = f"Run it on machines that are not taken back (nodeSelector {key}: {other}): no PodDisruptionBudget holds a spot machine"
            return fixes.set_spec(pod, path, other if there else {key: other}, text)
    return None


def _in_spite_of_it(pod: Pod, key: str, said: str, look: str) -> Fix:
    """A pod that bears the annotation of its autoscaler already, and whose node was taken all the same."""
    if key.startswith("karpenter.sh/") and "Drift" in said:
        return fixes.platform(
            "See whether the NodePool sets terminationGracePeriod, and take it out there, or keep its nodes from drifting (a fixed AMI): "
            f"with it, Karpenter replaces a drifted node in spite of {key}, which {pod.name} bears",
            "kubectl get nodepools.karpenter.sh -o custom-columns=NAME:.metadata.name,GRACE:.spec.template.spec.terminationGracePeriod",
            look,
        )
    if key.startswith("karpenter.sh/"):
        return fixes.platform(
            f"Give the nodes longer before Karpenter takes them (disruption.consolidateAfter of their NodePool): {pod.name} bears {key} "
            "already, and that holds a node only once Karpenter has seen the pod there, and not against expiry, interruption or repair",
            "kubectl get nodepools.karpenter.sh -o custom-columns=NAME:.metadata.name,DISRUPTION:.spec.disruption",
            look,
        )
    return fixes.platform(
        f"See why its node was taken in spite of {key} on {pod.name}: a drain by hand, an upgrade or the cloud does not ask for it",
        look,
    )


def _advice(pod: Pod, found: Taken, node: Node | None) -> Fix:
    """How it is kept where it is, or comes back; a node that is gone cannot be looked at."""
    budgets = f"kubectl -n {pod.namespace} get poddisruptionbudgets"
    look = f"kubectl describe node {node.name}" if node else "kubectl get nodes"
    if found.spot and (kept := _on_demand(pod, found, node)):
        return kept
    if found.spot:
        return fixes.advice(
            "Run it on machines that are not taken back, or several replicas on different ones: no PodDisruptionBudget "
            f"holds a spot machine ({fixes.edited(pod)})",
            look,
        )
    said = " ".join((found.why, *(one.text for one in found.evidence)))
    if keeper := next((mark for words, mark in _KEEPERS if re.search(words, said)), None):
        key, value = keeper
        if pod.annotations.get(key) == value:
            return _in_spite_of_it(pod, key, said, look)
        text = f'Have the autoscaler leave its node: {key}: "{value}" on {fixes.pods_of(pod)}'
        made = fixes.annotate(pod, {key: value}, text)
        return Fix(summary=made.summary, owner=made.owner, commands=(*made.commands, look), patch=made.patch)
    if re.search(_SHUTDOWN, said):
        return fixes.advice(
            f"Bring {pod.spec.node_name or 'its node'} back, or find who shut it down (an update, the cloud, a person); more than one "
            f"replica on different nodes outlasts that{fixes.lone(pod)}",
            look,
        )
    return fixes.advice(
        f"Protect it with a PodDisruptionBudget, and its pods with an annotation in {fixes.edited(pod)} (Karpenter: "
        'karpenter.sh/do-not-disrupt: "true"; cluster-autoscaler: cluster-autoscaler.kubernetes.io/safe-to-evict: "false"), '
        "and run more than one replica",
        budgets,
        look,
    )
