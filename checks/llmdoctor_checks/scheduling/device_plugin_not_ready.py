"""Admitted before the device plugin was there."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Node,
    Pod,
    Subject,
    check,
    expression,
    fixes,
    node_evidence,
    pod_evidence,
)
from llmdoctor_checks.scheduling._admission import MIRROR, plugin_evidence, refusal, without_it

#: The device manager of the kubelet, which knows the resource and has given all of it away.
_NONE_LEFT = expression(r"requested number of devices unavailable for .{1,200}Available: ?0\b")


@check("device-plugin-not-ready", since="0.1")
def device_plugin_not_ready(pod: Pod, node: Node | None, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """The kubelet refused the pod, because the device plugin had not registered its GPUs yet.

    After a reboot, or on a fresh node of an autoscaler, pods can be placed before the device plugin is up. The kubelet
    does not wait: it refuses the pod (`UnexpectedAdmissionError`, `OutOfnvidia.com/gpu`), and a refused pod stays
    failed. After a reboot it knows the devices of before and calls them unhealthy; where the node offers all of them by
    now, the plugin was late and not broken. The same is seen for a moment while another pod's devices are still being freed.

    ## Fix

    Delete the failed pod, or let its owner make a new one: it will be admitted now. To prevent it keep fresh nodes
    tainted until the plugin is up (a startup taint), and restart GPU nodes drained.

    ## References

    - https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
    - https://karpenter.sh/docs/concepts/nodepools/#spectemplatespecstartuptaints
    """
    refused = refusal(pod, node)
    if refused is None or refused.verdict != "not-ready":
        return
    where = pod.spec.node_name or "its node"
    again = without_it(pod, subject) or fixes.advice(
        f"Delete the failed pod; a new one is admitted once the plugin is up{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )
    if MIRROR in pod.annotations:
        again = fixes.platform(
            f"Restart the kubelet of {where} once the plugin is up: it does not try a static pod again by itself, and to delete it here "
            "does nothing",
            fixes.on_node(where, "systemctl restart kubelet"),
        )
    answers = [again, fixes.platform("Give fresh GPU nodes a startup taint that goes when the plugin is up")]
    if (
        _NONE_LEFT.search(refused.text)
        and node
        and node.amounts.get(refused.resource)
        and MIRROR not in pod.annotations
    ):
        answers.insert(
            1,
            fixes.platform(
                f"Where the new pod is refused as well, restart the kubelet of {where}: it may count {refused.resource} for pods that are "
                "gone (deleted by force, or while it was down), and looks who is there when it starts",
                fixes.on_node(where, "systemctl restart kubelet"),
            ),
        )
    yield Finding(
        summary=f"The kubelet of {where} refused it: no {refused.resource} was available there at that moment.",
        evidence=(
            pod_evidence(pod, "status", refused.text),
            *_times(pod, node, refused.resource),
            *plugin_evidence(cluster, pod.spec.node_name),
        ),
        explains=("pod-failed", "not-ready"),
        fixes=tuple(answers),
    )


def _times(pod: Pod, node: Node | None, resource: str) -> Iterator[Evidence]:
    if node and resource:
        made, refused = node.obj.metadata.creation_timestamp, pod.status.start_time
        text = f"{resource}: allocatable {node.obj.status.allocatable.get(resource, 'none')} now"
        if made and refused:
            text += f"; node made {made}, pod taken up by the kubelet {refused}"
        yield node_evidence(node, text)
